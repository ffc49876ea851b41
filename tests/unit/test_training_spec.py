"""Steps and learning-rate schedules of a training spec, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
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


def rates(rule: LearningRate, epochs: int = 2, steps_per_epoch: int = 4) -> list[float]:
    """Of each step."""
    pieces = dict(TrainingSpec(32, epochs, learning_rate=rule).learning_rates(steps_per_epoch))
    found: list[float] = []
    for step in range(epochs * steps_per_epoch):
        found.append(pieces.get(step, found[-1] if found else math.nan))
    return found


def test_warm_up_grows_by_a_constant_amount_and_then_leaves_the_rate_alone() -> None:
    assert rates(LearningRate(0.8, warmup_steps=4)) == pytest.approx([0.2, 0.4, 0.6, *[0.8] * 5])
    assert rates(LearningRate(0.8, warmup_epochs=1)) == rates(LearningRate(0.8, warmup_steps=4))
    assert rates(LearningRate(0.8, warmup_steps=16))[-1] == pytest.approx(0.4)
    dropped = LearningRate(0.8, drop_epochs=(1,), factor=0.5, warmup_steps=6)
    assert rates(dropped) == pytest.approx([0.8 / 6, 1.6 / 6, 2.4 / 6, 3.2 / 6, 2 / 6, 0.4, 0.4, 0.4])
    assert len(TrainingSpec(32, 2, learning_rate=LearningRate(0.8, warmup_steps=2)).learning_rates(1000)) == 2


def test_decay_is_over_what_is_left_after_warm_up() -> None:
    cosine = rates(LearningRate(1.0, warmup_steps=2, decay="cosine", decay_to=0.2))
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert cosine == pytest.approx([0.5, 1.0, *expected])
    squared = rates(LearningRate(2.0, decay="polynomial", decay_power=2.0))
    assert squared == pytest.approx([2.0 * (1 - step / 8) ** 2 for step in range(8)])
    assert TrainingSpec(32, learning_rate=LearningRate(1.0, decay="cosine")).learning_rates(0) == ((0, 1.0),)


def test_what_goes_with_an_optimizer_is_told_and_asked_for_only_where_it_is_not_none() -> None:
    assert (TrainingSpec(32).method, TrainingSpec(32).options) == ("momentum", ())
    rule = LearningRate(warmup_epochs=5, decay="polynomial", decay_power=2)
    asked = TrainingSpec(
        32, 9, OptimizerSpec("sgd", weight_decay=5e-4, weight_decay_form="l2", clip_norm=1), rule, label_smoothing=0.1
    )
    assert asked.method == (
        "sgd with weight decay 0.0005 (L2), gradients clipped at 1, label smoothing 0.1, warm-up of 5 epochs and "
        "polynomial decay (power 2)"
    )
    assert asked.options == ("warmup", "rate_decay", "l2_weight_decay", "clip_norm", "label_smoothing")
