"""``harness.compare``: lanes against the first one, over batch sizes; or two stored runs."""

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
from harness.analysis import across_runs, comparison
from harness.analysis.comparison import Comparison, LaneKey
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
    """Each lane against the first at each batch size, with verdicts. ``folder``: the run's, None of two stored runs."""

    comparisons: tuple[Comparison, ...]
    folder: Path | None

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
    def table(self) -> pl.DataFrame:
        """A row for each lane and batch size: images per second, times as fast, the interval, the verdict."""
        import polars as pl

        rows = [_row(one) for one in self.comparisons]
        return pl.DataFrame(rows, schema_overrides=dict.fromkeys(_NUMBERS, pl.Float64), infer_schema_length=None)

    def print_to(self, console: Console) -> None:
        """The table, the verdicts, reasons, and what differs between the lanes."""
        comparing.print_comparisons(self.comparisons, console, comparison.overall)
        if self.folder:
            say(console, f"Run folder: {from_here(self.folder)}")

    def plain(self) -> dict[str, Any]:
        """Run, verdicts, comparisons."""
        rows = [comparison.to_plain(one) for one in self.comparisons]
        return {"run": str(self.folder) if self.folder else None, "verdicts": self.verdicts, "comparisons": rows}


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
    out: Place | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> ComparisonResult:
    """Say which target trains faster, by how much, and whether that can be told from noise.

    Args:
        sides: targets, as NAME[:MODE][@KEY=VALUE], each compared with the first; or two run folders.
        batch_size: 32, 128 and 512 if not given.
        model: a built-in one's name, a file that ends in .toml, or a ``harness.Model``.
        dataset: "mnist", "digits", or a file that ends in .npz.
        optimizer, compute_precision: how to train.
        precision: wanted half width of the ratio's interval, a share of one.
        budget: most time for all: seconds, or a text such as "90s", "10m", "1h".
        out: the run folder. A comparison that is there already resumes.
        data_dir: a folder with the four MNIST files.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that, other HarnessErrors for what cannot be had,
    and ``RunStopped``, a KeyboardInterrupt, where somebody stopped it: its ``result`` shows what was measured.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    wait = values.timeout(timeout)
    if len(sides) < 2:
        raise UsageError("compare: two or more targets, or two run folders, are needed")
    folders = [values.path(side) for side in sides]
    are_runs = [(folder / run_folder.PLAN_FILE).is_file() for folder in folders]
    if all(are_runs):
        return _stored(folders)
    if any(are_runs):
        raise UsageError("compare: found targets and run folders together, allowed: targets only, or two run folders")
    goal = series.Goal(values.half_width(precision), values.seconds_of(budget))
    definitions = own_file.target_definitions()
    lanes = comparison.lane_keys([targets.resolve(str(side), definitions) for side in sides])
    works, dataset_folder = heats.asked(given, lanes[0].target)
    cells = heats.repeated(works, lanes, series.MOST_REPEATS)
    folder = values.place(out) or default_folder("compare")
    kept = heats.kept(folder, "compare", said.command(compare, given), cells)
    with kept.locked():
        waiting = kept.pending(INTERRUPTED)
        stopped = bool(waiting) and _execute(kept, waiting, lanes, goal, definitions, dataset_folder, wait, fork)
    result = ComparisonResult(tuple(comparison.compare(_measured(kept), lanes)), kept.folder)
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


def _stored(folders: Sequence[Path]) -> ComparisonResult:
    if len(folders) != 2:
        raise UsageError(f"compare: found {plural(len(folders), 'run folder')}, allowed: two")
    sides = []
    for folder in folders:
        unreadable: list[StoreError] = []
        sides.append(list(run_folder.Run.open(folder).records(unreadable)))
        for problem in unreadable:
            tell(f"warning: {problem}; it is not compared")
    tell(
        "warning: these runs did not take turns, so drift between them is not cancelled; "
        f"the intervals allow {100 * across_runs.RUN_TO_RUN:g} % (one standard deviation) for each run"
    )
    names = (str(folders[0]), str(folders[1]))
    _tell_diverged([*sides[0], *sides[1]])
    found = across_runs.compare_runs(sides[0], sides[1], names)
    if not found:
        raise UsageError("compare: the two runs have no work in common (same model, training, dataset and inputs)")
    return ComparisonResult(tuple(found), None)
