"""``harness compare``: lanes against the first one, over batch sizes, with verdicts; or two stored runs."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import shells
from harness.analysis import across_runs, comparison
from harness.analysis.comparison import Comparison, LaneKey
from harness.commands import printing, running
from harness.commands.progress import duration
from harness.commands.running import terminable
from harness.core.cell import Cell, Dataset
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record, now
from harness.core.training import TrainingSpec
from harness.measure import heat, series
from harness.measure import runner as measure_runner
from harness.measure.lane import Progress
from harness.plan import datasets, inputs, models, own_file, targets
from harness.plan.sweep import DATASET_SUFFIX, DATASETS, LARGEST_COUNT, require_fit
from harness.plan.targets import TargetDefinition
from harness.report import comparing
from harness.runs import folder as run_folder
from harness.runs.folder import default_folder
from harness.wording import nearest, plural

DEFAULT_BATCH_SIZES = (32, 128, 512)
STEPS = 3000
"""Training steps that a heat may take at most, in whole epochs: their order is drawn beforehand."""

MOST_EPOCHS = 200
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Request:
    """The flags of ``harness compare``; ``precision`` is that of the interval; ``budget`` as written, such as 10m."""

    sides: Sequence[str]
    batch_sizes: Sequence[str]
    model: str
    dataset: str
    optimizer: str
    compute_precision: str
    precision: str
    budget: str
    out: Path | None
    data_dir: Path | None
    json: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Compare. Exit status 1 if a lane failed or was not comparable, or the person stopped it."""
    if len(request.sides) < 2:
        raise UsageError("compare: two or more targets, or two run folders, are needed")
    folders = [Path(side) for side in request.sides]
    are_runs = [(folder / run_folder.PLAN_FILE).is_file() for folder in folders]
    if all(are_runs):
        return _stored(folders, request.json)
    if any(are_runs):
        raise UsageError("compare: found targets and run folders together, allowed: targets only, or two run folders")
    goal = series.Goal(_precision(request.precision), seconds_of(request.budget))
    printing.compute_precision(request.compute_precision)
    definitions = own_file.target_definitions()
    lanes = comparison.lane_keys([targets.resolve(side, definitions) for side in request.sides])
    console = printing.standard_error()
    dataset = printing.prepare_dataset(_dataset(request.dataset), request.data_dir, console)
    kept = _plan(request, lanes, datasets.limited(dataset.dataset, None, None))
    with kept.locked():
        waiting = kept.pending(frozenset({"interrupted"}))
        stopped = bool(waiting) and _execute(kept, waiting, lanes, goal, definitions, dataset.folder, request)
    found = comparison.compare(_measured(kept), lanes)
    _show(found, kept.folder, request.json)
    if stopped:
        resume = shells.joined(["harness", *sys.argv[1:]])
        more = "" if request.out else f" --out {shells.quoted(str(kept.folder))}"
        printing.say(console, f"stopped; what was measured until then is above; this resumes: {resume}{more}")
    return 1 if stopped or any(one.verdict == comparison.NOT_COMPARABLE for one in found) or not found else 0


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` as seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= 7 * 86400:
        raise UsageError(f"--budget: found {text!r}, allowed: a time from 1s to 7 days, such as 90s, 10m, 1.5h")
    return seconds


def _precision(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0005 <= value <= 0.5:
        raise UsageError(f"--precision: found {text!r}, allowed: a half width from 0.0005 to 0.5, such as 0.02 for 2 %")
    return value


def _dataset(name: str) -> str:
    if name not in DATASETS and not name.endswith(DATASET_SUFFIX):
        allowed = f"{', '.join(DATASETS)}, or a file that ends in {DATASET_SUFFIX}"
        raise UsageError(f"--dataset: found {name!r}{nearest(name, DATASETS)}, allowed: {allowed}")
    return name


def _sizes(texts: Sequence[str]) -> list[int]:
    found = {printing.whole_number("--batch-size", text, 1, LARGEST_COUNT) for text in texts}
    return sorted(found) or list(DEFAULT_BATCH_SIZES)


def _plan(request: Request, lanes: Sequence[LaneKey], dataset: Dataset) -> run_folder.Run:
    model = models.load(request.model)
    optimizer = printing.optimizer(request.optimizer)
    require_fit("--model", model, dataset)
    cells = []
    for size in _sizes(request.batch_sizes):
        if size > dataset.train_examples:
            raise UsageError(f"--batch-size: found {size}, but {dataset.name} has {dataset.train_examples} images")
        per_epoch = dataset.train_examples // size
        epochs = min(math.ceil(STEPS / per_epoch), MOST_EPOCHS)
        training = TrainingSpec(size, epochs, optimizer, precision=request.compute_precision)
        drawn = inputs.identify(model, dataset.train_examples, training.epochs, training.seed)
        cells += [
            Cell(model, training, dataset, drawn, key.target, repeat, key.lane)
            for repeat in range(series.MOST_REPEATS)
            for key in lanes
        ]
    plan = run_folder.Plan(
        name="compare",
        command=shells.joined(["harness", *sys.argv[1:]]),
        created=now(),
        harness_version=harness.__version__,
        cells=tuple(cells),
        interleave="block",
    )
    return run_folder.Run.create(request.out or default_folder("compare"), plan)


def _execute(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    lanes: Sequence[LaneKey],
    goal: series.Goal,
    definitions: Mapping[str, TargetDefinition],
    dataset: Path,
    request: Request,
) -> bool:
    """Run heats. Returns whether the person stopped it."""
    console = printing.standard_error()
    printing.say(console, f"records in {kept.folder}")
    running.require_room(kept, waiting)
    wanted = [key.target for key in lanes]
    pool, verifier, instruments = running.open_run(kept, definitions, wanted, console, request.timeout, request.fork)

    def tell(found: list[Comparison], left: float) -> None:
        for one in found:
            printing.say(console, f"{comparing.line(one)}; {duration(max(left, 0.0))} of the budget left")

    with pool, instruments, terminable():
        measure = heat.Measure(series.HEAT_SECONDS, kept.scratch_folder / "programs")
        runner = measure_runner.Runner(kept, pool, verifier, dataset, request.timeout, _Quiet(), measure, instruments)
        try:
            series.Series(kept, runner, lanes, goal, tell).run(waiting)
        except KeyboardInterrupt:
            return True
    shutil.rmtree(kept.scratch_folder, ignore_errors=True)
    return False


def _measured(kept: run_folder.Run) -> list[Record]:
    found = [record for record in kept.records() if record.status != "skipped"]
    _tell_diverged(found)
    return found


def _tell_diverged(records: Sequence[Record]) -> None:
    cells = [record.cell for record in records if record.diverged]
    named = dict.fromkeys(f"{cell.target.label} at batch size {cell.training.batch_size}" for cell in cells)
    if named:
        printing.say(
            printing.standard_error(),
            f"warning: diverged, so only the speed of these is worth comparing: {', '.join(named)}",
        )


def _show(found: Sequence[Comparison], folder: Path | None, json: bool) -> None:
    if json:
        verdicts = {label: comparison.overall(group) for label, group in comparing.by_lane(found).items()}
        rows = [comparison.to_plain(one) for one in found]
        printing.write_json({"run": str(folder) if folder else None, "verdicts": verdicts, "comparisons": rows})
        return
    comparing.print_comparisons(found, printing.standard_output(), comparison.overall)
    if folder:
        printing.say(printing.standard_output(), f"Run folder: {folder}")


def _stored(folders: Sequence[Path], json: bool) -> int:
    if len(folders) != 2:
        raise UsageError(f"compare: found {plural(len(folders), 'run folder')}, allowed: two")
    sides = []
    for folder in folders:
        unreadable: list[StoreError] = []
        sides.append(list(run_folder.Run.open(folder).records(unreadable)))
        for problem in unreadable:
            printing.say(printing.standard_error(), f"warning: {problem}; it is not compared")
    printing.say(
        printing.standard_error(),
        "warning: these runs did not take turns, so drift between them is not cancelled; "
        f"the intervals allow {100 * across_runs.RUN_TO_RUN:g} % (one standard deviation) for each run",
    )
    names = (str(folders[0]), str(folders[1]))
    _tell_diverged([*sides[0], *sides[1]])
    found = across_runs.compare_runs(sides[0], sides[1], names)
    if not found:
        raise UsageError("compare: the two runs have no work in common (same model, training, dataset and inputs)")
    _show(found, None, json)
    return 1 if all(one.verdict == comparison.NOT_COMPARABLE for one in found) else 0


class _Quiet:
    """A comparison reports heat by heat, not cell by cell; what fails is said at once."""

    def started(self, cell: Cell, doing: str) -> None:
        """Nothing."""

    def progressed(self, progress: Progress) -> None:
        """Nothing: drawing would take the processor that the next block is measured on."""

    def finished(self, record: Record) -> None:
        """Say what went wrong."""
        if record.status not in ("ok", "skipped"):
            what = f"{record.cell.target.label}, batch {record.cell.training.batch_size}"
            printing.say(printing.standard_error(), f"{what}: {record.status.replace('_', ' ')}: {record.reason}")
