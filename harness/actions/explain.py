"""``harness.explain``: why one target's training step takes longer than another's, part by part, over batch sizes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness import outputs
from harness.actions import heats, said, values
from harness.actions.progress import NEWS, duration, tell
from harness.actions.report import ReportFigure
from harness.actions.shown import RunStopped, Shown
from harness.actions.values import Place
from harness.analysis import comparison, explaining
from harness.analysis.comparison import LaneKey
from harness.analysis.explaining import Explanation
from harness.core.cell import Cell
from harness.core.errors import HarnessError
from harness.core.model import ModelSpec
from harness.core.record import FAILED, INTERRUPTED
from harness.measure import heat, session
from harness.measure.explaining import Explainer
from harness.paths import from_here
from harness.plan import own_file, targets
from harness.plan.targets import TargetDefinition
from harness.report import explaining as explained
from harness.report.printed import say
from harness.runs import folder as run_folder
from harness.runs.folder import default_folder
from harness.statistics import FEWEST_PROCESSES

if TYPE_CHECKING:
    import polars as pl

DEFAULT_BATCH_SIZES = (32, 128)
SETS = FEWEST_PROCESSES
"""Sets of fresh processes for each batch size, if the budget allows."""

REFERENCE_PLACE = 1000
"""Of the reference's host, so that it is none of a lane's, even where a lane is the reference."""

PAGE_FILE, PICTURES_FOLDER = "explained.html", "figures"


@dataclass(frozen=True, repr=False)
class ExplanationResult(Shown):
    """Why the lane's step takes longer, or less long, than the base's, at each batch size. ``folder``: the run's.

    ``problems``: why a batch size could not be explained, one line each.
    """

    explanations: tuple[Explanation, ...]
    folder: Path
    problems: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every batch size is explained."""
        return bool(self.explanations) and not self.problems

    @property
    def table(self) -> pl.DataFrame:
        """A row for each batch size and part: seconds and bounds on both sides, difference, share."""
        import polars as pl

        rows = [
            {"batch_size": one.batch_size, "base": one.base, "target": one.lane, **_flat(row)}
            for one in self.explanations
            for row in (*one.rows, one.unexplained, one.step)
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    @property
    def figures(self) -> Mapping[str, ReportFigure]:
        """Part by part on both sides, of each batch size, by name."""
        return {one.name: ReportFigure(one.words.title, one) for one in explained.figures(self.explanations)}

    def print_to(self, console: Console) -> None:
        """The answer in a sentence, the table, what could not be measured, and where all is."""
        explained.print_explanations(self.explanations, console)
        for problem in self.problems:
            say(console, problem)
        say(console, f"Run folder: {from_here(self.folder)}" + (f"; page: {PAGE_FILE}" if self.explanations else ""))

    def plain(self) -> dict[str, Any]:
        """Run, sentences, explanations, problems."""
        return {
            "run": str(self.folder),
            "answers": [explained.sentence(one) for one in self.explanations],
            "explanations": [asdict(one) for one in self.explanations],
            "problems": list(self.problems),
        }


def _flat(row: explaining.PartOfStep) -> dict[str, Any]:
    found: dict[str, Any] = {"part": row.label}
    for side, part in (("base", row.base), ("target", row.lane), ("difference", row.difference)):
        found |= {f"{side}_seconds": part.seconds, f"{side}_low": part.low, f"{side}_high": part.high}
    for side, part in (("base", row.base), ("target", row.lane)):
        found |= {f"{side}_{key}": getattr(part, key) for key in ("of_arithmetic", "of_memory", "bound")}
    return {
        **found,
        "share": row.share,
        "share_low": row.share_low,
        "share_high": row.share_high,
        "verdict": row.verdict,
    }


def explain(
    base: str | Place,
    target: str | Place,
    *,
    batch_size: int | str | Iterable[int | str] = (),
    model: str | ModelSpec = "mnist-cnn",
    dataset: Place = "digits",
    optimizer: str = "momentum",
    compute_precision: str = "float32",
    clock: str = explaining.WALL,
    budget: float | str = "10m",
    out: Place | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> ExplanationResult:
    """Say why one target's training step takes longer than another's, part by part.

    Args:
        base, target: as NAME[:MODE][@KEY=VALUE]; the second is explained against the first.
        batch_size: 32 and 128 if not given.
        model: a built-in one's name, a file that ends in .toml, or a ``harness.Model``.
        dataset: "mnist", "digits", or a file that ends in .npz.
        optimizer, compute_precision: how to train.
        clock: "wall", or "processor" where other work keeps this machine's processors busy: what they all worked for a
            step, which others' work changes less. A run that is there already is shown by either.
        budget: most time for all: seconds, or a text such as "90s", "10m", "1h".
        out: the run folder. An explanation that is there already resumes.
        data_dir: a folder with the four MNIST files.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that, other HarnessErrors for what cannot be had,
    and ``RunStopped``, a KeyboardInterrupt, where somebody stopped it: its ``result`` shows what was measured.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    wait = values.timeout(timeout)
    seconds = values.seconds_of(budget)
    values.one_of("--clock", clock, explaining.CLOCKS)
    definitions = own_file.target_definitions()
    lanes = comparison.lane_keys([targets.resolve(str(side), definitions) for side in (base, target)])
    works, dataset_folder = heats.asked(given, lanes[0].target, DEFAULT_BATCH_SIZES)
    cells = heats.repeated(works, lanes, SETS)
    folder = values.place(out) or default_folder("explain")
    kept = heats.kept(folder, "explain", said.command(explain, given), cells)
    with kept.locked():
        waiting = kept.pending(INTERRUPTED)
        stopped = bool(waiting) and _execute(kept, waiting, lanes, seconds, definitions, dataset_folder, wait, fork)
        result = _result(kept, lanes, clock)
        _draw(result)
    if stopped:
        raise RunStopped(result, said.resuming(explain, given, str(kept.folder)))
    return result


def _execute(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    lanes: Sequence[LaneKey],
    budget: float,
    definitions: Mapping[str, TargetDefinition],
    dataset: Path,
    timeout: float,
    fork: bool,
) -> bool:
    """Run sets, the batch sizes in turns. Returns whether the person stopped it."""
    tell(f"records in {from_here(kept.folder)}")
    session.require_room(kept, waiting)
    wanted = [key.target for key in lanes]
    pool, verifier, instruments = session.open_run(kept, definitions, wanted, NEWS, timeout, fork)
    reference = targets.resolve(session.REFERENCE, definitions)
    measure, watcher = heat.Measure(0.0, kept.scratch_folder / "programs"), heats.Quiet(says_failures=False)
    means = heat.Means(pool, verifier, dataset, timeout, kept.scratch_folder, watcher, measure, instruments)
    with pool, instruments, session.terminable():
        explainer = Explainer(kept, means, lambda: (reference, pool.worker(reference, REFERENCE_PLACE)))
        try:
            _run_sets(kept, explainer, waiting, lanes, budget)
        except KeyboardInterrupt:
            return True
    shutil.rmtree(kept.scratch_folder, ignore_errors=True)
    return False


def _run_sets(
    kept: run_folder.Run, explainer: Explainer, waiting: Sequence[Cell], lanes: Sequence[LaneKey], budget: float
) -> None:
    sets: dict[str, dict[int, list[Cell]]] = {}
    for cell in waiting:
        sets.setdefault(cell.work_id, {}).setdefault(cell.repeat, []).append(cell)
    explainer.warm([cell for repeats in sets.values() for cell in repeats[min(repeats)]])
    began, longest = time.monotonic(), dict.fromkeys(sets, 0.0)
    reasons: dict[str, str] = {}
    while any(sets.values()):
        for work, repeats in sets.items():
            if not repeats:
                continue
            number = min(repeats)
            left = budget - (time.monotonic() - began)
            if work not in reasons and longest[work] and left < longest[work]:
                reasons[work] = "the budget of time is spent"
            if work in reasons:
                explainer.skip([cell for cells in repeats.values() for cell in cells], reasons[work])
                repeats.clear()
                continue
            start, cells = time.monotonic(), repeats.pop(number)
            turn = number % len(cells)  # who is opened first is in the warmest or coldest place
            problem = explainer.run([*cells[turn:], *cells[:turn]])
            longest[work] = max(longest[work], time.monotonic() - start)
            if problem:
                reasons[work] = f"a set failed: {problem}"
            left = budget - (time.monotonic() - began)
            tell(_standing(kept, lanes, cells[0], number, problem, left))


def _standing(
    kept: run_folder.Run, lanes: Sequence[LaneKey], cell: Cell, number: int, problem: str, left: float
) -> str:
    """How one batch size stands after a set, in a line."""
    where = f"batch size {cell.training.batch_size}, set {number + 1} of {SETS}"
    if problem:
        return f"{where}: {problem}"
    found = [one for one in explaining.explain(explaining.sets_of(kept), lanes) if one.work_id == cell.work_id]
    ratio = f"{lanes[-1].label} takes {found[0].ratio:.2f} times as long" if found else "nothing yet"
    return f"{where}: {ratio}; {duration(max(left, 0.0))} of the budget left"


def _result(kept: run_folder.Run, lanes: Sequence[LaneKey], clock: str) -> ExplanationResult:
    found = explaining.explain(explaining.sets_of(kept), lanes, clock)
    return ExplanationResult(tuple(found), kept.folder, _problems(kept))


def _problems(kept: run_folder.Run) -> tuple[str, ...]:
    """Why lanes failed, each reason once, with the batch sizes."""
    sizes: dict[str, set[int]] = {}
    for cell_id, cell in kept.cells.items():
        record = kept.record(cell_id)
        if record is not None and record.status in FAILED:
            said_of = f"{cell.target.label}: {record.status.replace('_', ' ')}: {record.reason}"
            sizes.setdefault(said_of, set()).add(cell.training.batch_size)
    return tuple(f"At batch size {', '.join(map(str, sorted(found)))}: {text}" for text, found in sizes.items())


def _draw(result: ExplanationResult) -> None:
    """The page and the figures into the run folder; that must not cost the answer."""
    from harness.report import explained_page, pictures

    if not result.explanations:
        return
    figures = explained.figures(result.explanations)
    try:
        outputs.write(result.folder / PAGE_FILE, explained_page.page(result.explanations))
        for format in pictures.FORMATS:
            pictures.write(figures, result.folder / PICTURES_FOLDER, format)
    except HarnessError as error:
        tell(f"warning: no page: {error}")
