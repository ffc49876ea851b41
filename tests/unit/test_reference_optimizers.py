"""The reference's optimizers against the recurrences of ``harness.core.training``, written out by hand in scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from backends.reference_optimizers import Optimizer
from harness.core.training import OptimizerSpec

GRADIENTS = [0.3, -1.2, 0.05, 2.0, -0.7, 0.4]
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001]


def trajectory(spec: OptimizerSpec, gradients: list[float], rates: list[float]) -> list[float]:
    """Where the optimizer takes a parameter from 1, checked to be alone among others of another shape."""
    parameters = {"a": np.array([1.0]), "b": np.zeros((2, 3))}
    optimizer = Optimizer(spec, parameters)
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.update(parameters, {"a": np.array([gradient]), "b": np.zeros((2, 3))}, rate)
        path.append(float(parameters["a"][0]))
    assert not parameters["b"].any()
    return path


def sgd() -> Iterator[float]:
    p = 1.0
    for g, a in zip(GRADIENTS, RATES, strict=True):
        p = p - a * g
        yield p


def momentum() -> Iterator[float]:
    p, v = 1.0, 0.0
    for g, a in zip(GRADIENTS, RATES, strict=True):
        v = 0.8 * v - a * g
        p = p + v
        yield p


def nesterov() -> Iterator[float]:
    p, v = 1.0, 0.0
    for g, a in zip(GRADIENTS, RATES, strict=True):
        v = 0.8 * v - a * g
        p = p + 0.8 * v - a * g
        yield p


def adam() -> Iterator[float]:
    p, m, v = 1.0, 0.0, 0.0
    for t, (g, a) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        m = 0.7 * m + 0.3 * g
        v = 0.95 * v + 0.05 * g * g
        p = p - a * math.sqrt(1 - 0.95 ** (t + 1)) / (1 - 0.7 ** (t + 1)) * m / (math.sqrt(v) + 1e-3)
        yield p


@pytest.mark.parametrize("recurrence", [sgd, momentum, nesterov, adam])
def test_optimizers_follow_their_recurrence(recurrence: Callable[[], Iterator[float]]):
    spec = OptimizerSpec(name=recurrence.__name__, momentum=0.8, beta_1=0.7, beta_2=0.95, epsilon=1e-3)
    assert trajectory(spec, GRADIENTS, RATES) == pytest.approx(list(recurrence()), rel=1e-14)


def test_momentum_keeps_what_it_gathered_when_the_rate_drops():
    path = trajectory(OptimizerSpec(name="momentum", momentum=0.5), [1.0, 1.0, 1.0], [1.0, 1.0, 0.1])
    assert path == pytest.approx([0.0, -1.5, -2.35], rel=1e-15)  # velocities -1, -1.5, -0.85


def test_nesterov_looks_ahead_along_the_velocity():
    path = trajectory(OptimizerSpec(name="nesterov", momentum=0.5), [1.0, 1.0, 1.0], [1.0, 1.0, 0.1])
    assert path == pytest.approx([-0.5, -2.25, -2.775], rel=1e-15)


def test_momentum_of_zero_is_sgd():
    for name in ("momentum", "nesterov"):
        still = trajectory(OptimizerSpec(name=name, momentum=0.0), GRADIENTS, RATES)
        assert still == pytest.approx(list(sgd()), rel=1e-15)


def test_first_step_of_adam_has_the_size_of_the_rate_with_epsilon_outside_the_bias_correction():
    spec = OptimizerSpec(name="adam", epsilon=1e-4)
    step = 1.0 - trajectory(spec, [1e-3], [0.01])[0]
    assert step == pytest.approx(0.01 * 1e-3 / (1e-3 + 1e-4 / math.sqrt(1 - 0.999)), rel=1e-10)


def two_kernels(spec: OptimizerSpec) -> dict[str, float]:
    """Where two steps take a kernel and a bias, both from 1, by gradients of 3 and 4, at rates 0.1 and 0.01."""
    parameters = {"a/kernel": np.array([1.0]), "a/bias": np.array([1.0])}
    optimizer = Optimizer(spec, parameters)
    for rate in (0.1, 0.01):
        optimizer.update(parameters, {"a/kernel": np.array([3.0]), "a/bias": np.array([4.0])}, rate)
    return {name: float(value[0]) for name, value in parameters.items()}


def test_decoupled_decay_is_beside_the_step_and_l2_within_it_and_neither_takes_biases():
    decoupled = two_kernels(OptimizerSpec("momentum", momentum=0.5, weight_decay=0.2))
    first = 1.0 - 0.1 * 0.2 * 1.0 - 0.3
    assert decoupled["a/kernel"] == pytest.approx(first - 0.01 * 0.2 * first + 0.5 * -0.3 - 0.03, rel=1e-14)
    l2 = two_kernels(OptimizerSpec("momentum", momentum=0.5, weight_decay=0.2, weight_decay_form="l2"))
    velocity = -0.1 * (3.0 + 0.2 * 1.0)
    first = 1.0 + velocity
    assert l2["a/kernel"] == pytest.approx(first + 0.5 * velocity - 0.01 * (3.0 + 0.2 * first), rel=1e-14)
    plain = two_kernels(OptimizerSpec("momentum", momentum=0.5))
    assert decoupled["a/bias"] == l2["a/bias"] == plain["a/bias"]


def test_clipping_is_by_the_norm_of_all_gradients_together_and_before_l2():
    clipped = two_kernels(OptimizerSpec("sgd", clip_norm=1.0))
    assert clipped == pytest.approx({"a/kernel": 1.0 - 0.11 * 0.6, "a/bias": 1.0 - 0.11 * 0.8}, rel=1e-14)
    assert two_kernels(OptimizerSpec("sgd", clip_norm=5.0)) == two_kernels(OptimizerSpec("sgd"))
    both = two_kernels(OptimizerSpec("sgd", clip_norm=1.0, weight_decay=2.0, weight_decay_form="l2"))
    first = 1.0 - 0.1 * (0.6 + 2.0)
    assert both["a/kernel"] == pytest.approx(first - 0.01 * (0.6 + 2.0 * first), rel=1e-14)
