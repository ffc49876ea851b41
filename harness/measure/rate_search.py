"""Searching for a learning rate by short trainings over a geometric grid, with successive halving.

The rule is Jamieson and Talwalkar's (arXiv 1502.07240, algorithm 1), in the form of Li et al. (arXiv 1603.06560,
algorithm 1, inner loop, eta = 2): every rate of the grid is trained for a few steps, the better half is trained for
twice as many, and so on, until ``SURVIVORS`` have been trained for as long as a search trains; each training begins
anew. The last ones are trained with several seeds, as a rate at the edge of what is stable may do well by chance. The
one with the lowest mean loss then is chosen, the smaller of equals.

What is judged is the mean loss on images of the training set's end, on which these trainings do not train. The test set
is never looked at. A schedule would be cut short with the training, so the rate is constant but for its warm-up, of a
quarter of the steps at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import codec
from harness.core.cell import ID_LENGTH, Cell
from harness.core.errors import UsageError
from harness.core.messages import Block, Evaluate, Evaluated, Train
from harness.core.record import now
from harness.core.training import LearningRate
from harness.plan import inputs
from harness.plan.sweep import LARGEST_SEED
from harness.proof.probing import opened
from harness.runs.rate_searches import RateSearch, RateTrial
from harness.workers.cell_worker import CellWorker, Files

VERSION = 1
"""Of how it is searched; another one searches anew."""

GRID = tuple(1e-4 * 2.0**place for place in range(16))
"""From 1e-4 to 3.3."""

SURVIVORS = 4
"""Rates of the last round: enough to see how sharp the optimum is."""

SEEDS = 3
"""With which each of them is trained: initial parameters, order and dropout."""

HELD_OUT, MOST_HELD_OUT = 0.1, 5000
"""The share of the training images that judge, and the most of them."""

FEWEST_STEPS, MOST_STEPS, MOST_IMAGES = 8, 128, 16384
"""The longest trainings have so many steps, fewer where the images run out before, never more than the work itself."""

BLOCK = 16
"""Steps that a worker is asked for at once."""

Told = Callable[[int, int, float], None]
"""Called with the number of trainings done, of all, and the rate of the next."""


def halving(rates: Sequence[float], longest: int, loss: Callable[[float, int, int], float]) -> list[RateTrial]:
    """All trials of a search. ``loss`` gives that of a rate, steps and seed from 0; no number counts as infinite.

    The rounds are as many as halve ``rates`` to SURVIVORS, the last of ``longest`` steps and SEEDS seeds.
    """
    rounds = max(math.ceil(math.log2(len(rates) / SURVIVORS)), 0) + 1
    left, trials = sorted(rates), list[RateTrial]()
    for number in range(rounds):
        steps = max(math.ceil(longest / 2 ** (rounds - 1 - number)), 1)
        seeds = range(SEEDS if number == rounds - 1 else 1)
        found = [
            RateTrial(number, rate, steps, tuple(_or_infinite(loss(rate, steps, seed)) for seed in seeds))
            for rate in left
        ]
        trials += found
        better = sorted(found, key=lambda trial: (trial.loss, trial.rate))
        left = sorted(trial.rate for trial in better[: max(math.ceil(len(left) / 2), SURVIVORS)])
    return trials


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def chosen(trials: Sequence[RateTrial]) -> float:
    """The rate with the lowest loss of the last round, the smaller of equals; no number where all diverged."""
    last = max(trial.round for trial in trials)
    best = min((trial for trial in trials if trial.round == last), key=lambda trial: (trial.loss, trial.rate))
    return best.rate if math.isfinite(best.loss) else math.nan


@dataclass(frozen=True)
class Wanted:
    """A search to make: for the work of ``cell``, by trainings like ``trial``, the longest of so many ``steps``."""

    cell: Cell
    trial: Cell
    steps: int

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that the search depends on; not the target, as all do the same work."""
        return {
            "version": VERSION,
            "grid": list(GRID),
            "seeds": SEEDS,
            "steps": self.steps,
            "model": codec.digest(self.trial.model),
            "training": codec.digest(self.trial.training),
            "dataset": codec.digest(self.trial.dataset),
            "inputs": codec.digest(self.trial.inputs),
        }

    @property
    def id(self) -> str:
        """The key's hash."""
        return codec.digest(self.key)[:ID_LENGTH]


def wanted(cell: Cell) -> Wanted:
    """The search for a cell's work and batch size, of a plan its first.

    Raises UsageError where too few images are left to train on.
    """
    images = cell.dataset.train_examples
    training = replace(cell.training.at_size(cell.training.batch_size), until_accuracy=0.0, evaluate_every=0)
    held_out = min(max(round(HELD_OUT * images), 1), MOST_HELD_OUT)
    per_epoch = (images - held_out) // training.batch_size
    if per_epoch < 1:
        raise UsageError(
            f"--learning-rate find: batch size {training.batch_size} is larger than the {images - held_out} training "
            f"images that are left when {held_out} judge the rates"
        )
    steps = min(MOST_STEPS, max(MOST_IMAGES // training.batch_size, FEWEST_STEPS), cell.total_steps)
    dataset = replace(cell.dataset, name="held out", train_examples=images - held_out, test_examples=held_out)
    epochs = math.ceil(steps / per_epoch)
    trial = replace(
        cell,
        training=replace(training, epochs=epochs, learning_rate=_rule(cell, 1.0, steps)),
        dataset=dataset,
        inputs=inputs.identify(cell.model, dataset.train_examples, epochs, training.seed),
        repeat=0,
        lane=0,
    )
    return Wanted(cell, trial, steps)


def lay_out(dataset: Path, folder: Path, cell: Cell) -> Path:
    """The dataset's arrays with the held-out images in place of the test set, in a folder of their own."""
    place = folder / f"held-out-{cell.dataset.test_examples}-of-{cell.dataset.train_examples}"
    if place.exists():
        return place
    place.mkdir(parents=True)
    first = cell.dataset.train_examples
    for part in ("images", "labels"):
        whole = np.load(dataset / f"train_{part}.npy", mmap_mode="r", allow_pickle=False)
        inputs.save_array(place / f"train_{part}.npy", whole[:first])
        inputs.save_array(place / f"test_{part}.npy", whole[first : first + cell.dataset.test_examples])
    return place


class Searcher:
    """Searches with the workers that ``give`` gives. ``dataset``: the folder of the arrays; ``scratch``: of files."""

    def __init__(
        self, give: Callable[[], CellWorker], dataset: Path, scratch: Path, timeout: float, told: Told
    ) -> None:
        self._give = give
        self._dataset = dataset
        self._scratch = scratch
        self._timeout = timeout
        self._told = told

    def search(self, asked: Wanted) -> RateSearch:
        """Raises CellError. The rate is no number where all diverged."""
        cell, place = asked.trial, self._scratch / f"search-{asked.id}"
        place.mkdir(parents=True, exist_ok=True)
        held_out = lay_out(self._dataset, self._scratch, cell)
        done = 0

        def loss(rate: float, steps: int, number: int) -> float:
            nonlocal done
            self._told(done, TRAININGS, rate)
            done += 1
            seed = (cell.training.seed + number) % (LARGEST_SEED + 1)
            training = replace(cell.training, learning_rate=_rule(cell, rate, steps), seed=seed)
            drawn = inputs.identify(cell.model, cell.dataset.train_examples, training.epochs, seed)
            own = replace(cell, training=training, inputs=drawn)
            parameters, order = inputs.write(place, own)
            return self._loss(own, Files(held_out, parameters, order, place, self._scratch / "programs"), steps)

        trials = halving(GRID, asked.steps, loss)
        return RateSearch(
            id=asked.id,
            key=asked.key,
            model=cell.model.name,
            dataset=asked.cell.dataset.name,
            method=asked.cell.training.method,
            precision=cell.training.precision,
            batch_size=cell.training.batch_size,
            train_examples=cell.dataset.train_examples,
            held_out=cell.dataset.test_examples,
            seed=cell.training.seed,
            target=cell.target.label,
            rate=chosen(trials),
            trials=tuple(trials),
            created=now(),
        )

    def _loss(self, cell: Cell, files: Files, steps: int) -> float:
        """That of the held-out images after so many steps; infinite as soon as a training loss is."""
        done = 0
        with opened(self._give(), files.opening(cell), self._timeout, trained=True) as (worker, _):
            while done < steps:
                count = min(BLOCK, steps - done, cell.steps_per_epoch - done % cell.steps_per_epoch)
                answer = worker.ask(Train(count), self._timeout)
                assert isinstance(answer, Block)
                done += count
                if not all(map(math.isfinite, answer.losses)):
                    return math.inf
            evaluated = worker.ask(Evaluate(), self._timeout)
        assert isinstance(evaluated, Evaluated)
        return evaluated.loss


def _rule(cell: Cell, rate: float, steps: int) -> LearningRate:
    """Constant, but for a warm-up as the work has it, or of a quarter of the steps where that is shorter."""
    rule = cell.training.learning_rate
    warmup = rule.warmup_steps or rule.warmup_epochs * cell.steps_per_epoch
    return LearningRate(rate, warmup_steps=min(warmup, steps // 4))


TRAININGS = sum(len(trial.losses) for trial in halving(GRID, 1, lambda rate, steps, seed: 0.0))
"""How many trainings a search has."""
