"""Steps and learning-rate schedules of a training spec, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.training import LearningRate, TrainingSpec
from tests.unit.strategies import no_deadline, trainings


@pytest.mark.parametrize(("examples", "steps"), [(0, 0), (63, 0), (64, 1), (127, 1), (60_000, 937)])
def test_only_whole_batches_are_steps(examples: int, steps: int) -> None:
    assert TrainingSpec(64).steps_per_epoch(examples) == steps


def test_constant_rate_is_one_piece() -> None:
    assert TrainingSpec(64, learning_rate=LearningRate(0.01)).learning_rates(100) == ((0, 0.01),)


def test_each_drop_multiplies_once_more_from_the_start_of_its_epoch() -> None:
    rule = LearningRate(0.8, drop_epochs=(3, 1), factor=0.5)
    assert TrainingSpec(64, epochs=4, learning_rate=rule).learning_rates(100) == ((0, 0.8), (100, 0.4), (300, 0.2))


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("linear", 16.0), ("sqrt", 4.0)])
def test_rate_scales_with_the_batch_size(scaling: str, factor: float) -> None:
    rule = LearningRate(0.5, scaling=scaling, base_batch_size=32)
    assert TrainingSpec(512, learning_rate=rule).learning_rates(10) == ((0, 0.5 * factor),)
    assert TrainingSpec(32, learning_rate=rule).learning_rates(10) == ((0, 0.5),)


@no_deadline
@given(trainings, st.integers(1, 5000))
def test_pieces_start_at_step_zero_rise_and_follow_the_drops(training: TrainingSpec, steps: int) -> None:
    pieces = training.learning_rates(steps)
    starts = [start for start, _ in pieces]
    assert starts == [0, *(epoch * steps for epoch in sorted(training.learning_rate.drop_epochs))]
    first = pieces[0][1]
    for number, (_, rate) in enumerate(pieces):
        assert math.isclose(rate, first * training.learning_rate.factor**number, rel_tol=1e-12)
