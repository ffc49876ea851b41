"""What the reference says of rounding, held against float32 training that adds up in orders of its own.

No false alarm over random models, and each mistake beyond its bound.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import reference_rounding as rounding
from backends.protocol import Arrays
from backends.reference import ReferenceSession
from harness.core.cell import Cell
from harness.core.model import (
    ACTIVATIONS,
    PADDINGS,
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    ModelSpec,
    without_dropout,
)
from harness.core.training import OPTIMIZERS, WEIGHT_DECAY_FORMS, LearningRate, OptimizerSpec, TrainingSpec
from harness.plan import models
from harness.proof.parity import Quantity
from harness.proof.rounding import compare, sigmas

from .builders import random_arrays, small_cell
from .float32_network import ORDERS, Fault, Float32Network

FLOAT32 = 2.0**-24
SLOTS = {"sgd": (), "momentum": ("velocity",), "nesterov": ("velocity",), "adam": ("first", "second")}


@st.composite
def trainable_models(draw: st.DrawFn) -> ModelSpec:
    """Layers of every kind in odd forms: even kernels, strides, both paddings, windows as large as the image."""
    shape = draw(st.tuples(st.integers(3, 12), st.integers(3, 12), st.integers(1, 3)))
    layers: list[Layer] = []
    height, width, _ = shape
    for _ in range(draw(st.integers(0, 4))):
        padding = draw(st.sampled_from(PADDINGS))
        limits = (height, width) if padding == "valid" else (5, 5)
        window = draw(st.tuples(*(st.integers(1, min(5, limit)) for limit in limits)))
        strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        function = draw(st.sampled_from(ACTIVATIONS))
        layers.append(
            draw(
                st.sampled_from(
                    [
                        Conv2D(draw(st.integers(1, 5)), window, strides, padding, function, draw(st.booleans())),
                        MaxPool(window, draw(st.sampled_from([None, strides])), padding),
                        AveragePool(window, draw(st.sampled_from([None, strides])), padding),
                        BatchNorm(0.9, draw(st.sampled_from([1e-5, 1e-3, 1e-2]))),
                        Activation(function),
                        Dropout(draw(st.sampled_from([0.25, 0.5]))),
                    ]
                )
            )
        )
        height, width, _ = ModelSpec("part", shape, (*layers, GlobalAveragePool())).traced[-2].output_shape
    layers.append(draw(st.sampled_from([Flatten(), GlobalAveragePool()])))
    flat = [Dropout(0.5), Dense(draw(st.integers(1, 20)), draw(st.sampled_from(ACTIVATIONS))), BatchNorm()]
    layers += draw(st.lists(st.sampled_from(flat), max_size=2))
    layers.append(Dense(draw(st.integers(2, 7)), bias=draw(st.booleans())))
    return ModelSpec("random", shape, tuple(layers))


class Work:
    """A cell, its arrays, the state before its first step, and dropout's masks."""

    def __init__(
        self,
        model: ModelSpec,
        batch_size: int,
        optimizer: OptimizerSpec,
        seed: int,
        rate: float = 0.05,
        smoothing: float = 0.0,
    ) -> None:
        drops = LearningRate(rate, drop_epochs=(1,), factor=0.3)
        training = TrainingSpec(batch_size, 2, optimizer, drops, label_smoothing=smoothing)
        self.cell: Cell = small_cell(model, training, train_examples=2 * batch_size)
        self.arrays: Arrays = random_arrays(self.cell, seed)
        self.arrays.train_images[self.arrays.train_images < 0.3] = 0.0  # as the background of most images is
        self.state: dict[str, Any] = {
            **{f"parameter/{name}": array for name, array in self.arrays.parameters.items()},
            **{
                f"statistic/{name}": np.full(shape, float(name.endswith("variance")), np.float32)
                for name, shape in model.statistic_shapes.items()
            },
            **{
                f"optimizer/{slot}/{name}": np.zeros_like(array)
                for slot in SLOTS[optimizer.name]
                for name, array in self.arrays.parameters.items()
            },
        }
        generator = np.random.default_rng(seed)
        self.masks = {
            f"{step}/{trace.name}": generator.random((batch_size, *trace.input_shape)) >= trace.layer.rate
            for step in range(self.cell.total_steps)
            for trace in model.traced
            if isinstance(trace.layer, Dropout) and trace.layer.rate
        }

    def expected(self, steps: int) -> dict[str, Any]:
        """What the reference says."""
        session = ReferenceSession(self.cell, self.arrays)
        return session.replay(self.state, 0, steps, FLOAT32, self.masks, gradients=True)

    def found(self, steps: int, order: str = "blas", fault: Fault | None = None, left_out: int = -1) -> dict[str, Any]:
        """What float32 makes of it; the step ``left_out`` is not trained, though its loss is there."""
        network = Float32Network(self.cell, self.state, order, fault)
        rows = self.arrays.order.reshape(-1, self.cell.training.batch_size)
        told = []
        for step in range(steps):
            before = dict(network.state)
            masks = {key.partition("/")[2]: mask for key, mask in self.masks.items() if key.startswith(f"{step}/")}
            images, labels = (part[rows[step]] for part in (self.arrays.train_images, self.arrays.train_labels))
            told.append(network.step(step, images, labels, masks))
            if step == left_out:
                network.state = before
        return {**told[0], **network.state, "losses": np.array([one["loss"] for one in told])}


@given(
    model=trainable_models(),
    batch_size=st.sampled_from([1, 2, 3, 16, 33, 64]),
    optimizer=st.sampled_from(OPTIMIZERS),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_sums_in_float32_raises_a_false_alarm(
    model: ModelSpec, batch_size: int, optimizer: str, order: str, seed: int
) -> None:
    _assert_no_alarm(Work(model, batch_size, OptimizerSpec(optimizer), seed), order)


@pytest.mark.long
@given(
    model=trainable_models(),
    batch_size=st.sampled_from([1, 2, 3, 16, 33, 64, 200]),
    optimizer=st.sampled_from(OPTIMIZERS),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_nor_do_hundreds_of_them(model: ModelSpec, batch_size: int, optimizer: str, order: str, seed: int) -> None:
    _assert_no_alarm(Work(model, batch_size, OptimizerSpec(optimizer), seed), order)


@pytest.mark.parametrize(
    ("batch_size", "seed", "order"), [(3, 1, "forward"), (16, 11, "forward"), (33, 11, "backward")]
)
def test_nor_do_gradients_that_are_one_number_over_a_whole_image(batch_size: int, seed: int, order: str) -> None:
    layers = (BatchNorm(0.9, 1e-5), BatchNorm(0.9, 1e-5), GlobalAveragePool(), Dense(3, bias=False))
    _assert_no_alarm(Work(ModelSpec("averaged", (3, 9, 3), layers), batch_size, OptimizerSpec("sgd"), seed), order)


def _assert_no_alarm(work: Work, order: str) -> None:
    with np.errstate(all="ignore"):
        quantities = compare(work.expected(3), work.found(3, order))
    assert all(quantity.passed for quantity in quantities), [one.fault for one in quantities if not one.passed]


LARGE = 512
_FIRST = re.compile("(deviation/)?(logits|loss|gradient/.*)$")
TIED = ModelSpec("tied", (10, 10, 1), (Conv2D(2, (3, 3)), MaxPool((3, 3), (2, 2)), Flatten(), Dense(4)))
KINKED = ModelSpec(
    "kinked",
    (8, 8, 1),
    (Conv2D(4, (3, 3), activation="relu"), MaxPool((2, 2)), Flatten(), Dense(8, "relu"), Dense(4)),
)
NORMALISED = ModelSpec(
    "normalised", (8, 8, 2), (Conv2D(4, (3, 3)), BatchNorm(), Activation("relu"), Flatten(), Dense(4))
)


@given(
    model=st.sampled_from([KINKED, NORMALISED]),
    batch_size=st.sampled_from([1, 3, 16, 64]),
    optimizer=st.builds(
        OptimizerSpec,
        st.sampled_from(OPTIMIZERS),
        weight_decay=st.sampled_from([0.0, 5e-4, 0.1]),
        weight_decay_form=st.sampled_from(WEIGHT_DECAY_FORMS),
        clip_norm=st.sampled_from([0.0, 0.01, 0.5, 100.0]),
    ),
    smoothing=st.sampled_from([0.0, 0.1]),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=60)
def test_nor_does_what_goes_with_an_optimizer(
    model: ModelSpec, batch_size: int, optimizer: OptimizerSpec, smoothing: float, order: str, seed: int
) -> None:
    _assert_no_alarm(Work(model, batch_size, optimizer, seed, smoothing=smoothing), order)


FAULTS: dict[str, tuple[ModelSpec, int, Fault, int, float]] = {
    "a row left out": (models.load("lenet5"), LARGE, Fault(rows=np.arange(1, LARGE)), -1, 10000),
    "a row repeated": (models.load("lenet5"), LARGE, Fault(rows=np.r_[1, 1:LARGE]), -1, 10000),
    "a row left out, with kinks": (KINKED, LARGE, Fault(rows=np.arange(1, LARGE)), -1, 10000),
    "a row repeated, with kinks": (KINKED, LARGE, Fault(rows=np.r_[1, 1:LARGE]), -1, 10000),
    "the first step left out": (models.load("lenet5"), 64, Fault(), 0, 100000),
    "the last step left out": (models.load("lenet5"), 64, Fault(), 1, 100000),
    "bfloat16 in the first layer": (models.load("lenet5"), 64, Fault(half="01_conv2d", bits=8), -1, 1000),
    "bfloat16 in the last layer": (models.load("lenet5"), 64, Fault(half="08_dense", bits=8), -1, 1000),
    "float16 in the first layer": (models.load("lenet5"), 64, Fault(half="01_conv2d", bits=11), -1, 100),
    "float16 in the last layer": (models.load("lenet5"), 64, Fault(half="08_dense", bits=11), -1, 100),
    "Bessel's correction": (NORMALISED, 64, Fault(unbiased=True), -1, 20),
    "Adam's epsilon elsewhere": (models.load("lenet5"), 64, Fault(epsilon=True), -1, 100),
    "the last of tied maxima": (TIED, 64, Fault(last_tie=True), -1, 10000),
}


"""Model, batch size, what is wrong, the step left out, and how many times what is allowed the mistake is at least."""


@pytest.mark.parametrize("name", FAULTS)
def test_each_mistake_is_beyond_its_bound_and_right_work_within(name: str) -> None:
    model, batch_size, fault, left_out, least = FAULTS[name]
    optimizer = OptimizerSpec("adam" if fault.epsilon else "momentum")
    work = Work(without_dropout(model), batch_size, optimizer, seed=7)
    if model is TIED:
        work.arrays.train_images[:] = work.arrays.train_images > 0.5
        kernel = np.zeros((3, 3, 1, 2), np.float32)
        kernel[1, 1] = 1.0
        work.state["parameter/01_conv2d/kernel"] = kernel
        work.state["parameter/01_conv2d/bias"] *= 0.0
    # What a look at the state before and after shows: no logits and no gradients.
    expected = {key: array for key, array in work.expected(2).items() if not _FIRST.match(key)}
    right, wrong = (
        compare(expected, work.found(2, fault=one, left_out=out)) for one, out in ((None, -1), (fault, left_out))
    )
    assert all(quantity.passed for quantity in right), [one.fault for one in right if not one.passed]
    worst = _worst(wrong)
    assert worst.share > least, f"{worst.share:.3g} times what is allowed ({worst.name} {worst.detail})"


def _worst(quantities: tuple[Quantity, ...]) -> Quantity:
    return max(quantities, key=lambda quantity: quantity.share)


# Sums of very many squares


def added_in_turns(terms: Any, lanes: int) -> float:
    """Their sum in float32, in so many sums of every so many-th, each one after the other."""
    sums = [np.cumsum(terms[first::lanes], dtype=np.float32)[-1] for first in range(lanes)]
    return float(np.sum(sums, dtype=np.float32))


SQUARES = np.square(np.random.default_rng(0).normal(size=(4096 * 14 * 14, 1)), dtype=np.float32)


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_how_far_a_sum_of_squares_falls_short_is_told_from_them(lanes: int) -> None:
    count, mean = len(SQUARES), SQUARES.mean(axis=0, dtype=np.float64)
    short = added_in_turns(SQUARES[:, 0], lanes) / (count * mean) - 1.0
    told = (
        rounding.stagnant(SQUARES[: rounding.TERMS].astype(np.float64), mean, count / lanes) * rounding.FLOAT32 / mean
    )
    walk = rounding.FLOAT32 * np.sqrt(count / lanes) / 3  # what errors that are independent come to
    assert abs(short - told) < 4 * walk
    if lanes == 1:
        assert short < -10 * walk, "so it is no accident"


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_a_variance_of_a_large_batch_is_within_its_bound_however_it_is_added(lanes: int) -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, (4096, 14, 14, 1))
    moments = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
    exact = rounding.Uncertain(np.ones(1))
    _, _, found = rounding.batch_norm(
        values, None, exact, exact, moments, 1e-3, values, rounding.Roundoff(rounding.FLOAT32)
    )
    centred = np.square((values - moments[0]).astype(np.float32).ravel())
    error = abs(added_in_turns(centred, lanes) / values.size - moments[1])
    assert error < sigmas(1) * rounding.FLOAT32 * np.sqrt(found["variance"])
