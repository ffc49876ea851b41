"""``harness.compare``: lanes against the first one, over batch sizes; or stored runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.actions import heats, said, values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import RunStopped, Shown
from harness.actions.values import Place
from harness.analysis import across_runs, comparison, guarding
from harness.analysis.comparison import Comparison, LaneKey
from harness.analysis.guarding import Bound, Guarded
from harness.core.cell import Cell
from harness.core.errors import StoreError, UsageError
from harness.core.model import ModelSpec
from harness.core.record import INTERRUPTED, Record
from harness.measure import heat, series, session
from harness.measure import runner as measure_runner
from harness.paths import from_here
from harness.plan import own_file, targets
from harness.plan.targets import TargetDefinition
from harness.report import comparing
from harness.report.printed import say
from harness.runs import finding
from harness.runs import folder as run_folder
from harness.runs.folder import default_folder
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

_NUMBERS = (
    "images_per_second",
    "base_images_per_second",
    "times_as_fast",
    "times_as_fast_low",
    "times_as_fast_high",
)
"""Columns that are empty where there is no number."""


@dataclass(frozen=True, repr=False)
class ComparisonResult(Shown):
    """Each lane against the first at each batch size, with verdicts. ``folder``: the run's, None of stored runs.

    ``bound``: the difference that was to be guarded against, None without one.
    """

    comparisons: tuple[Comparison, ...]
    folder: Path | None
    bound: Bound | None = None

    @property
    def decision(self) -> Guarded | None:
        """Whether a difference of more than the bound is shown, excluded, or cannot be told; None without a bound."""
        return guarding.decide(self.comparisons, self.bound) if self.bound else None

    @property
    def verdicts(self) -> dict[str, str]:
        """Lane against base -> the verdict over all batch sizes."""
        return {label: comparison.overall(group) for label, group in comparing.by_lane(self.comparisons).items()}

    @property
    def is_comparable(self) -> bool:
        """Whether something was measured and all of it may be compared; of two stored runs, whether any of it may."""
        may = [one.verdict != comparison.NOT_COMPARABLE for one in self.comparisons]
        return any(may) if self.folder is None else bool(may) and all(may)

    @property
    def exit_status(self) -> int:
        """Of the command. With a bound 3 where it is shown, else 1 where sides cannot be compared, 0 where it is
        excluded, 4 where that cannot be told; without one 0 or 1, as ``is_comparable`` says.
        """
        decision = self.decision
        if decision is None:
            return 0 if self.is_comparable else 1
        if decision.unusable and decision.verdict != guarding.SHOWN:
            return 1
        return {guarding.SHOWN: 3, guarding.EXCLUDED: 0}.get(decision.verdict, 4)

    @property
    def table(self) -> pl.DataFrame:
        """A row for each lane and batch size: images per second, times as fast, the interval, the verdict."""
        import polars as pl

        rows = [_row(one) for one in self.comparisons]
        return pl.DataFrame(rows, schema_overrides=dict.fromkeys(_NUMBERS, pl.Float64), infer_schema_length=None)

    def print_to(self, console: Console) -> None:
        """The table, the verdicts, reasons, and what differs between the lanes."""
        comparing.print_comparisons(self.comparisons, console, comparison.overall)
        if self.decision:
            comparing.print_decision(self.comparisons, self.decision, console)
        if self.folder:
            say(console, f"Run folder: {from_here(self.folder)}")

    def plain(self) -> dict[str, Any]:
        """Run, verdicts, comparisons; with a bound the decision."""
        rows = [comparison.to_plain(one) for one in self.comparisons]
        found = {"run": str(self.folder) if self.folder else None, "verdicts": self.verdicts, "comparisons": rows}
        return found | ({"decision": guarding.to_plain(self.decision)} if self.decision else {})


def _row(one: Comparison) -> dict[str, Any]:
    ratio, low, high = one.speed or (None, None, None)
    return {
        "model": one.model,
        "dataset": one.dataset,
        "batch_size": one.batch_size,
        "target": one.lane.label,
        "base": one.base.label,
        "images_per_second": one.lane.images_per_second,
        "base_images_per_second": one.base.images_per_second,
        "times_as_fast": ratio,
        "times_as_fast_low": low,
        "times_as_fast_high": high,
        "heats": one.processes,
        "verdict": one.verdict,
    }


def compare(
    *sides: str | Place,
    batch_size: int | str | Iterable[int | str] = (),
    model: str | ModelSpec = "mnist-cnn",
    dataset: Place = "digits",
    optimizer: str = "momentum",
    compute_precision: str = "float32",
    precision: float | str = 0.02,
    budget: float | str = "10m",
    fail_if_slower: float | str | None = None,
    fail_if_different: float | str | None = None,
    baseline: Place | None = None,
    out: Place | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> ComparisonResult:
    """Say which target trains faster, by how much, and whether that can be told from noise.

    Args:
        sides: targets, as NAME[:MODE][@KEY=VALUE], each compared with the first; or two run folders; or one, beside
            ``baseline``.
        batch_size: 32, 128 and 512 if not given.
        model: a built-in one's name, a file that ends in .toml, or a ``harness.Model``.
        dataset: "mnist", "digits", or a file that ends in .npz.
        optimizer, compute_precision: how to train.
        precision: wanted half width of the ratio's interval, a share of one.
        budget: most time for all: seconds, or a text such as "90s", "10m", "1h".
        fail_if_slower, fail_if_different: a share such as 0.03 or "3%": whether another side is slower than the first,
            or slower or faster, by more than that; ``decision`` of the result says so. The wanted half width is then at
            most half of it.
        baseline: an earlier run folder, or a folder of several; the only side is then the run that is held against it.
        out: the run folder. A comparison that is there already resumes.
        data_dir: a folder with the four MNIST files.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that, other HarnessErrors for what cannot be had,
    and ``RunStopped``, a KeyboardInterrupt, where somebody stopped it: its ``result`` shows what was measured.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    wait = values.timeout(timeout)
    bound = _bound(fail_if_slower, fail_if_different)
    if baseline is not None:
        return _against_baseline([values.path(side) for side in sides], values.path(baseline), bound)
    if len(sides) < 2:
        raise UsageError("compare: two or more targets, or two run folders, are needed")
    folders = [values.path(side) for side in sides]
    are_runs = [(folder / run_folder.PLAN_FILE).is_file() for folder in folders]
    if all(are_runs):
        return _stored(folders, bound)
    if any(are_runs):
        raise UsageError("compare: found targets and run folders together, allowed: targets only, or two run folders")
    width = values.half_width(precision)
    goal = series.Goal(min(width, bound.share / 2) if bound else width, values.seconds_of(budget))
    definitions = own_file.target_definitions()
    lanes = comparison.lane_keys([targets.resolve(str(side), definitions) for side in sides])
    works, dataset_folder = heats.asked(given, lanes[0].target)
    cells = heats.repeated(works, lanes, series.MOST_REPEATS)
    folder = values.place(out) or default_folder("compare")
    kept = heats.kept(folder, "compare", said.command(compare, given), cells)
    with kept.locked():
        waiting = kept.pending(INTERRUPTED)
        stopped = bool(waiting) and _execute(kept, waiting, lanes, goal, definitions, dataset_folder, wait, fork)
    result = ComparisonResult(tuple(comparison.compare(_measured(kept), lanes)), kept.folder, bound)
    if stopped:
        raise RunStopped(result, said.resuming(compare, given, str(kept.folder)))
    return result


def _execute(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    lanes: Sequence[LaneKey],
    goal: series.Goal,
    definitions: Mapping[str, TargetDefinition],
    dataset: Path,
    timeout: float,
    fork: bool,
) -> bool:
    """Run heats. Returns whether the person stopped it."""
    tell(f"records in {from_here(kept.folder)}")
    session.require_room(kept, waiting)
    wanted = [key.target for key in lanes]
    pool, verifier, instruments = session.open_run(kept, definitions, wanted, NEWS, timeout, fork)

    with pool, instruments, session.terminable():
        measure = heat.Measure(series.HEAT_SECONDS, kept.scratch_folder / "programs")
        runner = measure_runner.Runner(kept, pool, verifier, dataset, timeout, heats.Quiet(), measure, instruments)
        try:
            series.Series(kept, runner, lanes, goal, heats.told).run(waiting)
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
        tell(f"warning: diverged, so only the speed of these is worth comparing: {', '.join(named)}")


def _bound(slower: float | str | None, different: float | str | None) -> Bound | None:
    if slower is not None and different is not None:
        raise UsageError("--fail-if-slower and --fail-if-different: found both, allowed: one of them")
    if slower is not None:
        return Bound(guarding.SLOWER, values.share("--fail-if-slower", slower))
    return None if different is None else Bound(guarding.DIFFERENT, values.share("--fail-if-different", different))


def _stored(folders: Sequence[Path], bound: Bound | None) -> ComparisonResult:
    if len(folders) != 2:
        raise UsageError(f"compare: found {plural(len(folders), 'run folder')}, allowed: two")
    before, after = (_stored_records(folder) for folder in folders)
    _warn_of_drift(1)
    _tell_diverged([*before, *after])
    found = across_runs.compare_runs(before, after, (str(folders[0]), str(folders[1])))
    if not found:
        raise UsageError("compare: the two runs have no work in common (same model, training, dataset and inputs)")
    return ComparisonResult(tuple(found), None, bound)


def _against_baseline(sides: Sequence[Path], baseline: Path, bound: Bound | None) -> ComparisonResult:
    if len(sides) != 1:
        raise UsageError(f"compare: found {plural(len(sides), 'side')} beside --baseline, allowed: one run folder")
    run = run_folder.open_run(sides[0])
    earlier = [folder for folder in finding.below(baseline) if folder.resolve() != run.folder.resolve()]
    if not earlier:
        raise UsageError(f"{baseline}: holds no other run than {sides[0]}")
    records = _stored_records(sides[0])
    before = [_stored_records(folder) for folder in earlier]
    _tell_diverged(records)
    found = across_runs.compare_with_baseline(before, records, (str(baseline), str(sides[0])))
    if not found:
        raise UsageError(f"compare: no target of {sides[0]} did the same work in a run of {baseline}")
    _warn_of_drift(len(earlier))
    return ComparisonResult(tuple(found), None, bound)


def _stored_records(folder: Path) -> list[Record]:
    unreadable: list[StoreError] = []
    found = list(run_folder.open_run(folder).records(unreadable))
    for problem in unreadable:
        tell(f"warning: {problem}; it is not compared")
    return found


def _warn_of_drift(earlier: int) -> None:
    """That runs did not take turns, and what the intervals allow for it, of as many earlier runs."""
    width = f"{100 * across_runs.RUN_TO_RUN:g} % (one standard deviation) for each run"
    if earlier > 1:
        width = f"what earlier runs of the same work differ by, where there are {across_runs.FEWEST_RUNS}; else {width}"
    tell(f"warning: these runs did not take turns, so drift between them is not cancelled; the intervals allow {width}")
