"""Searches for a learning rate: what was tried, and what was chosen. One file each: ``RUN/learning-rates/ID.json``.

The same files stand in the user's cache, so that the rate of a work is searched for once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.runs import kept_files

FOLDER = "learning-rates"

WITHIN = 0.1
"""How much more than the lowest a loss may be, as a share of it, to count as nearly as good."""


@dataclass(frozen=True)
class RateTrial:
    """One rate in one round: ``losses`` of the held-out images after ``steps`` steps, a seed each; infinite where it
    diverged.
    """

    round: int
    rate: float
    steps: int
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Their mean."""
        return sum(self.losses) / len(self.losses)


@dataclass(frozen=True)
class RateSearch:
    """The search for one work and batch size; ``key`` is what it depends on, ``id`` its hash.

    ``method`` (``TrainingSpec.method``), ``model``, ``dataset`` and ``precision`` say the same for a person. Each trial
    trained on the first ``train_examples`` images, and was judged on the ``held_out`` that follow them; ``target`` did
    it, with seeds from ``seed`` on. ``rate``: the one chosen.
    """

    id: str
    key: dict[str, Any]
    model: str
    dataset: str
    method: str
    precision: str
    batch_size: int
    train_examples: int
    held_out: int
    seed: int
    target: str
    rate: float
    trials: tuple[RateTrial, ...]
    created: str = ""
    notes: tuple[str, ...] = field(default=(), metadata=codec.LATER)

    @property
    def last(self) -> tuple[RateTrial, ...]:
        """The trials of the last round, by rate."""
        last = max(trial.round for trial in self.trials)
        return tuple(sorted((trial for trial in self.trials if trial.round == last), key=lambda trial: trial.rate))

    @property
    def loss(self) -> float:
        """The held-out loss at the chosen rate, after the longest training."""
        return next(trial.loss for trial in self.last if trial.rate == self.rate)

    @property
    def nearly_as_good(self) -> tuple[float, float, bool]:
        """The lowest and the highest rate around the chosen one whose loss is within WITHIN of it in the last round.

        And whether either is the last that was tried for so long, so that the range may be wider.
        """
        rates, bound = [trial.rate for trial in self.last], (1 + WITHIN) * self.loss
        good = [trial.loss <= bound for trial in self.last]
        low = high = rates.index(self.rate)
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(rates) - 1 and good[high + 1]:
            high += 1
        return rates[low], rates[high], low == 0 or high == len(rates) - 1

    @property
    def at_the_edge(self) -> bool:
        """Whether the chosen rate is the smallest or the largest of all, so that a better one may lie beyond."""
        rates = {trial.rate for trial in self.trials}
        return self.rate in (min(rates), max(rates))


def stored(folder: Path) -> list[RateSearch]:
    """Those of a run folder, by work and batch size. A file that is damaged or of another version counts as none."""
    found = kept_files.read_all(folder / FOLDER, RateSearch)
    return sorted(found, key=lambda one: (one.model, one.method, one.precision, one.batch_size, one.created, one.id))


def keep(folder: Path, search: RateSearch) -> None:
    """Write one into a run folder, unless it is there. Raises StoreError."""
    path = folder / FOLDER / f"{search.id}.json"
    if not path.exists():
        kept_files.write(path, search)


def remember(cache: Path, search: RateSearch, keeping: Keeping) -> None:
    """Keep one in the cache's folder of them, where that can be."""
    keeping.keep(cache / f"{search.id}.json", partial(codec.write_json, value=search))


def recall(folder: Path, identity: str) -> RateSearch | None:
    """The search of that id in a folder of them; None where there is none that can be read, or none that chose."""
    path = folder / f"{identity}.json"
    found = kept_files.read(path, RateSearch) if path.exists() else None
    if found is None:
        return None
    mark_used(path)
    return found if math.isfinite(found.loss) else None
