"""Looking at the timed run: when, for how long, and what is concluded where masks cannot be shown."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.messages import Inventoried
from harness.core.model import Dense, Dropout, Flatten
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.measure.schedule import rehearsal
from harness.measure.witness import MOST_BLOCKS, Moment
from harness.proof import conservation, expectation, replaying, sized
from harness.proof.parity import Quantity
from harness.proof.sized import proof_cell

from .builders import small_cell, small_model

MODEL = small_model(Flatten(), Dropout(0.5), Dense(3))


class Lane:
    """Says when it was looked at."""

    def __init__(self) -> None:
        self.cell = small_cell(MODEL)
        self.looks: list[str] = []

    def look(self) -> None:
        self.looks.append("before")

    def look_again(self) -> None:
        self.looks.append("after")


def walked(moment: Moment, blocks: int) -> tuple[int, int]:
    """The blocks before which and after which it looked; ``blocks`` in all."""
    lane: Any = moment._lanes[0]
    seen = []
    for block in range(blocks):
        moment.before(block / blocks, block == blocks - 1, 1)
        seen += [(look, block) for look in lane.looks[len(seen) :]]
        moment.after()
        seen += [(look, block) for look in lane.looks[len(seen) :]]
    moment.finish()
    seen += [(look, blocks) for look in lane.looks[len(seen) :]]
    assert [look for look, _ in seen] == ["before", "after"]
    return seen[0][1], seen[1][1]


def test_every_run_is_looked_at_once_whatever_is_drawn() -> None:
    found = {walked(Moment([Lane()], random.Random(seed)), blocks) for seed in range(300) for blocks in (1, 2, 7)}
    assert all(first <= last < first + MOST_BLOCKS + 1 for first, last in found)
    firsts = {first for first, _ in found}
    assert firsts == set(range(7))  # any block may be it
    assert {last - first for first, last in found} >= set(range(MOST_BLOCKS))


def test_all_lanes_are_looked_at_together_and_the_time_is_kept_apart() -> None:
    lanes, now = [Lane(), Lane(), Lane()], iter(range(100))
    moment = Moment(lanes, random.Random(1), clock=lambda: float(next(now)))
    moment.before(1.0, True, 1)
    assert [lane.looks for lane in lanes] == [["before"]] * 3
    moment.finish()
    moment.finish()
    assert [lane.looks for lane in lanes] == [["before", "after"]] * 3
    assert moment.seconds == 2.0


@pytest.mark.parametrize("batch_size", [1, 2, 3, 12])
def test_a_rehearsal_trains_every_step_of_a_proof_and_the_last_alone(batch_size: int) -> None:
    cell = proof_cell(small_cell(MODEL, TrainingSpec(batch_size), train_examples=12))
    blocks = rehearsal(cell)
    assert sum(block.settle + block.steps for block in blocks) == cell.total_steps >= sized.FEWEST_STEPS
    assert (blocks[0].settle, blocks[0].steps) == (blocks[-1].settle, blocks[-1].steps) == (0, 1)
    assert cell.training.epochs >= 2
    (_, first), (drop, second) = cell.training.learning_rates(cell.steps_per_epoch)
    assert 0 < drop < cell.total_steps
    assert second < first
    assert not any(isinstance(layer, Dropout) and layer.rate for layer in cell.model.layers)


def changed(generator: np.random.Generator, share: float = 1.0, noise: float = 0.3) -> dict[str, Any]:
    """A state after steps whose change is ``share`` of the right one, with the noise of masks."""
    right = np.linspace(-1.0, 1.0, 400)
    return {
        "parameter/kernel": share * (right + noise * generator.standard_normal(400)),
        "deviation/parameter/kernel": np.full(400, 1e-7),
        "losses": np.array([1.0 + 0.01 * generator.standard_normal()]),
        "deviation/losses": np.array([1e-7]),
    }


BEFORE = {"parameter/kernel": np.zeros(400)}


def judged(seed: int, **found: float) -> tuple[Quantity, ...]:
    generator = np.random.default_rng(seed)
    replays = [changed(generator) for _ in range(expectation.REPLICAS)]
    return expectation.compare(BEFORE, replays, changed(generator, **found))


def test_masks_of_its_own_raise_no_false_alarm() -> None:
    assert all(one.passed for seed in range(500) for one in judged(seed))


@pytest.mark.parametrize(
    ("fault", "told"),
    [({"share": 0.0}, "parameters scale"), ({"share": 2.0}, "parameters scale"), ({"noise": 0.0}, "parameters spread")],
)
def test_steps_left_out_done_twice_or_without_masks_are_told(fault: dict[str, float], told: str) -> None:
    for seed in range(20):
        assert told in {one.name for one in judged(seed, **fault) if not one.passed}


def test_a_gradient_is_what_a_step_did_to_the_state() -> None:
    generator = np.random.default_rng(0)
    gradient, velocity, start = (generator.standard_normal(5) for _ in range(3))
    for name in ("sgd", "momentum", "nesterov", "adam"):
        training = TrainingSpec(4, optimizer=OptimizerSpec(name))
        spec, rate = training.optimizer, 0.1
        before = {"parameter/k": start, "optimizer/velocity/k": velocity, "optimizer/first/k": velocity}
        after = {
            "parameter/k": start - rate * gradient,
            "optimizer/velocity/k": spec.momentum * velocity - rate * gradient,
            "optimizer/first/k": spec.beta_1 * velocity + (1 - spec.beta_1) * gradient,
        }
        found = replaying.gradient_of_step(training, rate, before, after)
        assert found["gradient/k"] == pytest.approx(gradient)


def test_what_a_device_counts_and_holds_is_compared_and_what_it_does_not_tell_is_said(tmp_path: Path) -> None:
    cell = small_cell(MODEL)
    expected = {"images": "aa", "labels": "bb", "order": "cc"}
    right = conservation.judge(cell, 6, Inventoried(6, expected), expected)
    assert all(one.passed for one in right.quantities)
    assert right.not_shown == ()
    wrong = conservation.judge(cell, 6, Inventoried(5, {**expected, "order": "dd"}), expected)
    assert [one.fault for one in wrong.quantities if not one.passed] == [
        "the device counted 5 training steps where 6 were claimed",
        "the order of images on the device is not what was shipped",
    ]
    silent = conservation.judge(cell, 6, Inventoried(None, {}), expected)
    assert silent.quantities == ()
    assert len(silent.not_shown) == 2
