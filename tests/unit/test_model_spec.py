"""Shapes, parameter counts and costs of models, against hand-computed and published figures."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ModelError
from harness.core.model import (
    LAYERS,
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
    same_padding,
    window_output,
    without_dropout,
)
from harness.plan import models
from tests.unit.strategies import instances, no_deadline
from tests.unit.strategies import models as valid_models


def vgg16(batch_norm: bool = False) -> ModelSpec:
    """Configuration D of Simonyan and Zisserman, arXiv 1409.1556, for 1000 classes."""
    layers: list[object] = []
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers.append(Conv2D(filters, (3, 3), padding="same", activation="relu"))
            layers += [BatchNorm()] if batch_norm else []
        layers.append(MaxPool((2, 2)))
    layers += [Flatten(), Dense(4096, "relu"), Dropout(0.5), Dense(4096, "relu"), Dropout(0.5), Dense(1000)]
    return ModelSpec("vgg16", (224, 224, 3), tuple(layers))  # type: ignore[arg-type]


def multiply_adds(model: ModelSpec) -> int:
    """Counted from the kernels: every weight works once per place of the output."""
    return sum(
        math.prod(trace.parameters["kernel"]) * math.prod(trace.output_shape[:-1])
        for trace in model.traced
        if "kernel" in trace.parameters
    )


def test_published_parameter_counts() -> None:
    # LeNet-5 with full connections; VGG-16 and VGG-16 with batch normalisation as their distributions state.
    assert models.load("lenet5").parameter_count == 61_706
    assert vgg16().parameter_count == 138_357_544
    assert vgg16(batch_norm=True).parameter_count == 138_365_992


def test_published_multiply_add_counts() -> None:
    # 416,520 for LeNet-5 on 28x28 images; 15.47 billion for VGG-16 on 224x224 ones.
    assert multiply_adds(models.load("lenet5")) == 416_520
    assert multiply_adds(vgg16()) == 15_470_264_320
    assert 2 * 15_470_264_320 <= vgg16().forward_flops <= 2 * 15_470_264_320 * 1.005


def test_mnist_cnn_by_hand() -> None:
    model = models.load("mnist-cnn")
    assert [trace.output_shape for trace in model.traced] == [
        (25, 25, 32), (12, 12, 32), (9, 9, 64), (4, 4, 64), (1024,), (1024,), (500,), (500,), (10,),
    ]  # fmt: skip
    assert model.parameter_count == (16 * 32 + 32) + (16 * 32 * 64 + 64) + (1024 * 500 + 500) + (500 * 10 + 10)
    forward = [
        2 * 16 * 25 * 25 * 32 + 2 * 25 * 25 * 32,  # products, bias, ReLU
        4 * 12 * 12 * 32,
        2 * 16 * 32 * 9 * 9 * 64 + 2 * 9 * 9 * 64,
        4 * 4 * 4 * 64,
        0,
        1024,
        2 * 1024 * 500 + 2 * 500,
        500,
        2 * 500 * 10 + 10,  # no activation
    ]
    assert [trace.forward_flops for trace in model.traced] == forward
    assert model.forward_flops == sum(forward) == 7_057_846
    assert model.training_flops == 3 * sum(forward) - 2 * 16 * 25 * 25 * 32
    outputs = 20_000 + 4_608 + 5_184 + 1_024 + 1_024 + 1_024 + 500 + 500 + 10
    assert model.activation_bytes == 4 * outputs


def test_names_and_shapes_of_parameters_and_statistics() -> None:
    model = ModelSpec(
        "small",
        (6, 5, 2),
        (Conv2D(3, (2, 3), bias=False), BatchNorm(), GlobalAveragePool(), Dense(4)),
    )
    assert model.parameter_shapes == {
        "01_conv2d/kernel": (2, 3, 2, 3),
        "02_batch_norm/scale": (3,),
        "02_batch_norm/offset": (3,),
        "04_dense/kernel": (3, 4),
        "04_dense/bias": (4,),
    }
    assert model.statistic_shapes == {"02_batch_norm/moving_mean": (3,), "02_batch_norm/moving_variance": (3,)}
    assert model.parameter_count == 36 + 6 + 16
    assert model.classes == 4


def test_pool_without_strides_moves_by_its_window() -> None:
    pooled = ModelSpec("m", (9, 8, 1), (AveragePool((3, 2)), Flatten(), Dense(1))).traced[0]
    overlapping = ModelSpec("m", (9, 8, 1), (MaxPool((3, 2), (1, 1)), Flatten(), Dense(1))).traced[0]
    assert pooled.output_shape == (3, 4, 1)
    assert overlapping.output_shape == (7, 7, 1)
    assert overlapping.forward_flops == 7 * 7 * 6


@no_deadline
@given(size=st.integers(1, 60), window=st.integers(1, 12), stride=st.integers(1, 6))
def test_window_output_counts_the_places_where_a_window_fits(size: int, window: int, stride: int) -> None:
    if window <= size:
        assert window_output(size, window, stride, "valid") == len(range(0, size - window + 1, stride))
    assert window_output(size, window, stride, "same") == len(range(0, size, stride))


@no_deadline
@given(size=st.integers(1, 60), window=st.integers(1, 12), stride=st.integers(1, 6))
def test_same_padding_makes_room_for_its_output_and_no_more(size: int, window: int, stride: int) -> None:
    before, after = same_padding(size, window, stride)
    assert 0 <= after - before <= 1
    padded = size + before + after
    output = window_output(size, window, stride, "same")
    assert (output - 1) * stride + window <= padded
    if before or after:
        assert (output - 1) * stride + window == padded


@no_deadline
@given(valid_models())
def test_counts_agree_with_shapes_in_any_valid_model(model: ModelSpec) -> None:
    traces = model.trace()
    assert traces[0].input_shape == model.input_shape
    assert all(after.input_shape == before.output_shape for before, after in pairwise(traces))
    assert traces[-1].output_shape == (model.classes,)
    assert all(size >= 1 for trace in traces for size in trace.output_shape)
    assert model.parameter_count == sum(math.prod(shape) for shape in model.parameter_shapes.values())
    assert len(model.parameter_shapes) == sum(len(trace.parameters) for trace in traces)
    assert model.forward_flops >= 2 * multiply_adds(model)
    first = next(trace for trace in traces if trace.parameters)
    kernel = first.parameters.get("kernel", ())
    saved = 2 * math.prod(kernel) * math.prod(first.output_shape[:-1]) if kernel else 0
    assert model.training_flops == 3 * model.forward_flops - saved


@no_deadline
@given(valid_models())
def test_without_dropout_changes_rates_only(model: ModelSpec) -> None:
    plain = without_dropout(model)
    assert plain.parameter_shapes == model.parameter_shapes
    assert all(layer.rate == 0 for layer in plain.layers if isinstance(layer, Dropout))
    kept = [(a, b) for a, b in zip(model.layers, plain.layers, strict=True) if not isinstance(a, Dropout)]
    assert all(a == b for a, b in kept)


def test_error_carries_layer_and_key() -> None:
    model = ModelSpec("m", (4, 4, 1), (Conv2D(1, (2, 2)), Conv2D(1, (3, 4)), Flatten(), Dense(1)))
    with pytest.raises(ModelError) as caught:
        model.trace()
    assert caught.value.where == "layer 2 (conv2d), kernel"
    assert caught.value.problem == "3x4 is larger than its input of 3x3 (padding is valid)"


any_layers = st.lists(st.one_of([instances(cls) for cls in LAYERS.values()]), max_size=4).map(tuple)


@no_deadline
@given(shape=st.tuples(st.integers(-1, 9), st.integers(-1, 9), st.integers(-1, 9)), layers=any_layers)
def test_any_nonsense_is_a_model_error_and_nothing_else(shape: tuple[int, int, int], layers: tuple[Layer, ...]) -> None:
    model = ModelSpec("m", shape, layers)
    with suppress(ModelError):
        assert len(model.trace()) == len(layers)
