"""Run folders of one plan, each with a part of the records, united into one: ``harness merge``.

Records are united by cell. Two are the same outcome if they are equal but for their attempt number and the place of
their log, which are matters of a folder; how their files are laid out does not count, so copies that went through
Windows are equal too. Of different outcomes of one cell

    what was interrupted gives way to all others, what was skipped to what was run;
    what one folder has as an earlier attempt gives way to what was tried after it;
    two others are a conflict: a person has to say which counts.

What gives way stays as an earlier attempt, after those that are there already. So nothing is lost, and uniting the
same folders again changes nothing: one that was killed on its way is completed by repeating it.

With the records come their logs, the times of a step's parts, the proofs, the gradient noise scales and the drawn
inputs. Times of parts go with the record that counts, in place of those of one that gives way. Any other file whose
name another file has already gets a digest of its content into its name, and the ``log`` of a record says where its log
is now; ``log`` is empty if its folder had none. What belongs to a machine stays there: ``setting.json``, ``slurm/``,
``scratch/``. Everything is read and compared before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.plan import plan as plans
from harness.runs.folder import PLAN_FILE, Run
from harness.runs.merging.deciding import Conflict, ConflictError, decide
from harness.runs.merging.sources import survey
from harness.runs.merging.writing import Contribution, Writer

__all__ = ["Conflict", "ConflictError", "Contribution", "Merged", "merge"]


@dataclass(frozen=True)
class Merged:
    """The united run, what it had before (``records`` of ``before``), and what came from each folder."""

    run: Run
    before: int
    contributions: tuple[Contribution, ...]

    @cached_property
    def statuses(self) -> dict[str, str]:
        """cell_id -> status of every record."""
        return self.run.statuses()

    @property
    def missing(self) -> list[Cell]:
        """Planned cells that no folder has a record of, in the plan's order."""
        return [cell for cell_id, cell in self.run.cells.items() if cell_id not in self.statuses]


def merge(runs: Sequence[Run], out: Path, opened: Callable[[Run], None] | None = None) -> Merged:
    """Unite ``runs`` in the folder ``out``: a new one, or a run of the same plan, which may be one of ``runs``.

    ``opened`` is told of it before anything is saved there.

    Raises UsageError for runs of different plans or no other run than ``out``; ConflictError; StoreError for a damaged
    or foreign file, or if ``out`` holds something else, cannot be written, or is in use. All but the latter two are
    raised before anything is written.
    """
    out = out.absolute()
    found = Run.open(out) if (out / PLAN_FILE).is_file() else None
    by_place = {run.folder.resolve(): run for run in runs if run.folder.resolve() != out.resolve()}
    if not by_place:
        raise UsageError(f"{out}: there is nothing to unite it with; name a run folder other than that of --out")
    others = list(by_place.values())
    first, *rest = others if found is None else [found, *others]
    for run in rest:
        _require_same_plan(first, run)
    sources = [survey(run) for run in others]
    decide(sources)
    target = found or Run.create(out, first.plan)
    if opened is not None:
        opened(target)
    with target.locked():
        before = survey(target)
        merger = Writer(before, sources, decide([before, *sources]))
        merger.write()
    return Merged(target, len(before.final), tuple(merger.contributions.values()))


def _require_same_plan(first: Run, second: Run) -> None:
    differs = plans.difference(first.plan, second.plan, ("in the first", "in the second"))
    if differs:
        raise UsageError(f"{first.folder} and {second.folder} are runs of different plans: {differs}")
