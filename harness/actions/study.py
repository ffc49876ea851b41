"""``harness.study``: the study's claims, answered claim by claim from stored runs, or from ones that it runs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness import outputs
from harness.actions import running_study, said, side_by_side, values
from harness.actions.running_study import StudyPlan
from harness.actions.shown import RunStopped, Shown
from harness.actions.values import Place
from harness.analysis import explaining
from harness.analysis import systems as of_systems
from harness.analysis.explaining import BackwardShare
from harness.analysis.study import all_claims
from harness.analysis.study.answers import CLAIMS, ClaimAnswer
from harness.analysis.systems import System
from harness.core.errors import StoreError, UsageError
from harness.report import claims
from harness.runs import folder as run_folder
from harness.runs.folder import default_folder

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, repr=False)
class StudyResult(Shown):
    """The answers, by claim and system. ``unreadable``: what is wrong with records that do not count."""

    answers: tuple[ClaimAnswer, ...]
    systems: tuple[System, ...]
    unreadable: tuple[StoreError, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all records could be read."""
        return not self.unreadable

    @property
    def table(self) -> pl.DataFrame:
        """A row for each answer: claim, system, subject, part, verdict, finding, seeds, would_tell."""
        import polars as pl

        rows = [
            {name: value for name, value in claims.plain(one).items() if name != "evidence"} for one in self.answers
        ]
        return pl.DataFrame(rows)

    def write_page(self, place: Place) -> None:
        """Write the page, one HTML file that opens anywhere, offline. Raises HarnessError where it cannot be."""
        with outputs.reader_may_leave():
            outputs.write(values.path(place), claims.page(self.answers, [one.name for one in self.systems]))

    def print_to(self, console: Console) -> None:
        """Each claim with its answers, and the commands that would tell more."""
        claims.print_answers(self.answers, console)

    def plain(self) -> dict[str, Any]:
        """Systems and answers, with their evidence."""
        systems = [{"name": one.name, "runs": list(one.runs), "targets": one.targets} for one in self.systems]
        return {"systems": systems, "answers": [claims.plain(one) for one in self.answers]}


def study(
    *runs: Place,
    name: object = (),
    claim: object = (),
    accuracy: float | str | None = None,
    html: Place | None = None,
    run: bool = False,
    part: object = (),
    plan: bool = False,
    target: object = (),
    data_dir: Place | None = None,
    out: Place | None = None,
) -> StudyResult | StudyPlan:
    """Answer the study's claims from run folders, of any plans, machines and times.

    Args:
        runs: run folders, of sweeps, comparisons and explanations, or folders of them.
        name: what their systems are called: "desktop=RUN", several of them, or a mapping; as in ``harness.report``.
        claim: numbers of claims, from 1 to 8; all if not given.
        accuracy: the test accuracy that matters, a share of one; 0.98 if not given, or the highest of a few that is
            reached.
        html: where the page goes, one file that opens anywhere, offline.
        run: run the study's own sweeps first, and answer from them too.
        part: with that, which of them: "time", "accuracy", "batch"; all if not given.
        plan: with that, say what would run, and for how long; run nothing.
        target: with that, targets in place of the presets' own.
        data_dir: with that, a folder with the four MNIST files.
        out: with that, the folder of their run folders. What is there already resumes; a new one in ./harness-runs if
            not given.

    Raises ``harness.core.errors.UsageError`` for a wrong value and where there is no run, StoreError where one is
    damaged. Records that cannot be read are told and do not count.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    wanted = values.accuracy(accuracy)
    numbers = _numbers(claim)
    parts = running_study.chosen(part)
    alone = {"--part": part, "--plan": plan, "--target": target, "--data-dir": data_dir, "--out": out}
    if not run and (given_alone := [flag for flag, value in alone.items() if value]):
        raise UsageError(f"{', '.join(given_alone)}: found without --run, allowed: with it")
    if run:
        asked = {"target": values.texts(target), "data_dir": data_dir}
        if plan:
            return running_study.planned(parts, asked)
        folder = values.place(out) or default_folder("study")
        try:
            running_study.run(parts, folder, asked)
        except RunStopped as stop:
            raise RunStopped(stop.result, said.resuming(study, given, str(folder))) from None
        runs = (*runs, folder)
    if not runs:
        raise UsageError("study: found no run, allowed: one run folder or more, or --run")
    unreadable: list[StoreError] = []
    several = side_by_side.given(runs, name, unreadable)
    found = of_systems.systems(several)
    from harness.actions import telling

    for problem in unreadable:
        telling.tell(f"warning: {problem}; it does not count")
    shares = {one.name: _shares(one) for one in found}
    apart = side_by_side.took_steps_apart(several)
    made = all_claims.answers([of_systems.without_runs(one, apart) for one in found], shares, wanted)
    kept = tuple(one for one in made if one.number in numbers)
    result = StudyResult(kept, tuple(found), tuple(unreadable))
    if html is not None:
        result.write_page(html)
        telling.tell(f"page: {html}")
    return result


def _shares(system: System) -> Sequence[BackwardShare]:
    """What the parts of steps took, of the runs of a system that took steps apart."""
    runs = [run_folder.Run.open(Path(folder)) for folder in system.runs]
    return [share for run in runs for share in explaining.backward_shares(explaining.sets_of(run))]


def _numbers(claim: object) -> set[int]:
    found = [values.whole_number("--claim", text, min(CLAIMS), max(CLAIMS)) for text in values.texts(claim)]
    return set(found or CLAIMS)
