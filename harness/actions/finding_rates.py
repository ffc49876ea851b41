"""``learning_rate = "find"``: the rates of a sweep's works and batch sizes, looked up or searched for.

A search that the run folder or the user's cache has is not made again. The others are made on one target: the first,
by what earlier runs on this machine took, that is proven to do the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from harness.actions.progress import NEWS, tell
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, HarnessError, UsageError
from harness.core.training import LearningRate
from harness.measure import rate_search, session
from harness.measure.rate_search import Searcher, Wanted
from harness.paths import LEARNING_RATES, SPEEDS_FILE, cache_place
from harness.plan.estimate import Estimates
from harness.plan.sweep import RateOf, SizeOf
from harness.plan.targets import TargetDefinition
from harness.runs import rate_searches
from harness.runs.rate_searches import RateSearch
from harness.workers.cell_worker import CellWorker


@dataclass
class FoundRates:
    """Finds rates, and keeps what was found. ``run``: a run folder that may have them; ``only_known``: search nothing.

    ``timeout`` and ``fork`` are those of the sweep.
    """

    run: Path | None
    only_known: bool
    timeout: float
    fork: bool
    searches: list[RateSearch] = field(default_factory=list)

    def find(self, cells: Sequence[Cell], definitions: Mapping[str, TargetDefinition], dataset: Path | None) -> RateOf:
        """The rate of each work and batch size of the cells: what gives it.

        ``dataset``: the folder of the arrays; None where they are not here yet. Raises UsageError, HarnessError.
        """
        works: dict[SizeOf, list[Cell]] = {}
        for cell in cells:
            works.setdefault(_size_of(cell), []).append(cell)
        asked = {work: rate_search.wanted(_longest(own)) for work, own in works.items()}
        found = {work: self._known(one.id) for work, one in asked.items()}
        missing = {work: one for work, one in asked.items() if found[work] is None}
        if missing:
            if self.only_known or dataset is None:
                raise UsageError(
                    "--learning-rate find: the rates of this sweep are not known here yet; they are searched for "
                    "without --plan and --shard, by --launcher local"
                )
            targets = list(dict.fromkeys(cell.target for cell in cells))
            found |= self._searched(missing, targets, definitions, dataset)
        self.searches = [one for one in found.values() if one is not None]
        rates = {work: one.rate for work, one in found.items() if one is not None}
        # What the plan skips, such as a batch larger than the dataset, is not searched for and not trained.
        return lambda *work: rates.get(work, LearningRate().base)

    def _known(self, identity: str) -> RateSearch | None:
        places = [self.run / rate_searches.FOLDER] if self.run is not None else []
        places.append(cache_place(LEARNING_RATES))
        return next((one for place in places if (one := rate_searches.recall(place, identity)) is not None), None)

    def _searched(
        self,
        missing: Mapping[SizeOf, Wanted],
        targets: Sequence[Target],
        definitions: Mapping[str, TargetDefinition],
        dataset: Path,
    ) -> dict[SizeOf, RateSearch]:
        tell(f"learning rates to find: {len(missing)}, each by {rate_search.TRAININGS} short trainings")
        problems = session.build_environments(definitions, targets, NEWS)
        known = session.with_reference(definitions, NEWS)
        found: dict[SizeOf, RateSearch] = {}
        hosts = session.temporary_hosts(known, problems, "learning-rates", self.timeout, self.fork, NEWS.keeping)
        with hosts as (pool, bundle, place):
            verifier = session.open_verifier(known, pool, bundle.sha256, place, self.timeout, NEWS.keeping)

            def is_proven(cell: Cell) -> str:
                """Why not, or nothing."""
                give, training = partial(pool.worker, cell.target), cell.training
                try:
                    proof = verifier.proof(
                        cell.target, cell.model, training.optimizer, training.precision, give, like=training
                    )
                except CellError as error:
                    return str(error)
                return proof.reason

            for work, one in missing.items():
                on = _proven(one, targets, is_proven)
                give = partial(pool.worker, on.trial.target)
                search = _search(on, give, dataset, place, self.timeout)
                rate_searches.remember(cache_place(LEARNING_RATES), search, NEWS.keeping)
                found[work] = search
        return found


def _search(asked: Wanted, give: Callable[[], CellWorker], dataset: Path, place: Path, timeout: float) -> RateSearch:
    training, label = asked.cell.training, asked.trial.target.label
    what = f"{asked.cell.model.name}, {training.method}, batch size {training.batch_size:,}"

    def told(done: int, count: int, rate: float) -> None:
        if done in (0, len(rate_search.GRID)):
            tell(f"{what}: training {done + 1} of {count} on {label}, at rate {rate:.2g}")

    try:
        found = Searcher(give, dataset, place, timeout, told).search(asked)
    except CellError as error:
        raise HarnessError(f"--learning-rate find: {what}: {error}") from error
    if math.isnan(found.rate):
        raise HarnessError(
            f"--learning-rate find: {what}: training diverged at every rate from {min(rate_search.GRID):g}"
        )
    edge = ", the end of what was tried" if found.at_the_edge else ""
    tell(f"{what}: learning rate {found.rate:.4g}{edge}, held-out loss {found.loss:.4g} after {asked.steps} steps")
    return found


def _proven(asked: Wanted, targets: Sequence[Target], is_proven: Callable[[Cell], str]) -> Wanted:
    """On the quickest target that is proven, step by step. Raises HarnessError where none is."""
    estimates = Estimates(cache_place(SPEEDS_FILE))
    singly = dict.fromkeys(replace(target, steps_per_call=1, devices=1) for target in targets)
    cells = sorted((replace(asked.cell, target=target) for target in singly), key=estimates.seconds)
    reasons = []
    for cell in cells:
        reason = is_proven(cell)
        if not reason:
            return replace(asked, trial=replace(asked.trial, target=cell.target))
        reasons.append(f"{cell.target.label}: {reason}")
    raise HarnessError(f"--learning-rate find: no target is proven for {asked.cell.model.name}: {'; '.join(reasons)}")


def _size_of(cell: Cell) -> SizeOf:
    training = cell.training
    return cell.model, training.optimizer, training.precision, training.batch_size


def _longest(cells: Sequence[Cell]) -> Cell:
    """Of those of one work and batch size that of the first seed with most epochs."""
    seed = cells[0].training.seed
    own = [cell for cell in cells if cell.training.seed == seed]
    return max(own, key=lambda cell: cell.training.epochs)
