"""Closed loops decide a plan of batch sizes once an epoch, from what is measured under the plan so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.core.cell import Cell
from harness.core.model import Dense, Flatten
from harness.core.training import LearningRate, TrainingSpec
from harness.measure import noise_probe
from harness.measure.batch_loop import Bounds, decide
from harness.plan.batch_rules import nearest, wanted
from harness.runs.noise_scales import Estimate, NoiseScale
from tests.unit.builders import small_cell, small_model


def test_each_rule_is_its_formula() -> None:
    assert wanted("cabs", rate=0.1, variance=500.0, gradient_square=2.0, loss=0.5) == pytest.approx(100)
    assert wanted("noise-scale", rate=0.1, variance=500.0, gradient_square=2.0, loss=0.5) == pytest.approx(250)
    assert wanted("noise-scale", rate=0.1, variance=500.0, gradient_square=-2.0, loss=0.5) is None
    assert wanted("cabs", rate=0.1, variance=500.0, gradient_square=2.0, loss=0.0) is None


@pytest.mark.parametrize(
    ("size", "found"), [(24, 24), (33, 24), (35, 48), (67, 48), (69, 96), (1e9, 192), (7, 6), (1e-9, 6), (0.0, 6)]
)
def test_a_size_is_the_first_times_the_nearest_power_of_two_within_bounds(size: float, found: int) -> None:
    assert nearest(size, first=24, smallest=5, largest=200) == found


class Measured:
    """A meter whose variance is what a function of cell and step says, at a squared gradient and a loss of 1."""

    def __init__(self, variance: Any) -> None:
        self.asked: list[tuple[str, int]] = []
        self._variance = variance

    def measure(self, cell: Cell, steps: Sequence[int], batches: int) -> Iterator[NoiseScale]:
        (step,) = steps
        self.asked.append((cell.training.batch_plan, step))
        found = self._variance(cell, step)
        estimate = None if found is None else Estimate(found, 1.0, found, None, None)
        yield replace(noise_probe.expected(cell, step, batches), estimate=estimate, loss=1.0, problem="lost")


def cell_of(**training: Any) -> Cell:
    return small_cell(small_model(Flatten(), Dense(3)), TrainingSpec(8, 4, **training), train_examples=160)


def test_every_decision_is_made_in_the_state_that_the_plan_so_far_leads_to() -> None:
    meter = Measured(lambda cell, step: {20: 17.0, 30: 30.0, 35: 9.0}[step])
    found = list(decide(cell_of(), "noise-scale", Bounds(4, 64), 8, meter))  # type: ignore[arg-type]
    assert [(one.epoch, one.batch_size) for one in found] == [(1, 16), (2, 32), (3, 8)]
    assert meter.asked == [("", 20), ("8>16@1", 30), ("8>16@1>32@2", 35)]


def test_decisions_may_be_made_every_so_many_steps() -> None:
    meter = Measured(lambda cell, step: {25: 17.0, 50: 30.0}[step])
    found = list(decide(cell_of(), "noise-scale", Bounds(4, 64), 8, meter, every=25))  # type: ignore[arg-type]
    assert [(one.measured.step, one.epoch, one.batch_size) for one in found] == [(25, 1, 16), (50, 3, 32)]
    assert meter.asked == [("", 25), ("8>16@step25", 50)]


def test_cabs_goes_by_the_rate_of_the_moment() -> None:
    rate = LearningRate(2.0, drop_epochs=(2,), factor=0.5)
    found = list(decide(cell_of(learning_rate=rate), "cabs", Bounds(4, 64), 8, Measured(lambda *_: 16.0)))  # type: ignore[arg-type]
    assert [(one.rate, one.wanted, one.batch_size) for one in found] == [
        (2.0, 32.0, 32),
        (1.0, 16.0, 16),
        (1.0, 16.0, 16),
    ]


def test_what_cannot_be_measured_keeps_the_size_and_ends_the_loop() -> None:
    meter = Measured(lambda cell, step: 17.0 if step == 20 else None)
    found = list(decide(cell_of(), "noise-scale", Bounds(4, 64), 8, meter))  # type: ignore[arg-type]
    assert [(one.epoch, one.batch_size, one.wanted) for one in found] == [(1, 16, 17.0), (2, 16, None)]
