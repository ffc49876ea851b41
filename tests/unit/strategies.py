"""Hypothesis strategies for everything that travels: models, training specs, targets, cells, records, messages."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from harness.core.cell import INPUTS, MODES, Cell, Dataset, Inputs, Target
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
)
from harness.core.training import OPTIMIZERS, PRECISIONS, SCALINGS, LearningRate, OptimizerSpec, TrainingSpec

# A shared machine pauses at random: time is not what these properties are about.
no_deadline = settings(deadline=None, max_examples=100)

fractions = st.floats(0, 1, exclude_max=True)
positives = st.floats(0, 1e6, exclude_min=True)
activations = st.sampled_from(ACTIVATIONS)
names = st.text(min_size=1, max_size=12)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> tuple[tuple[int, int], str]:
    """A window and a padding that fit an image."""
    padding = draw(st.sampled_from(PADDINGS))
    limits = (height, width) if padding == "valid" else (7, 7)
    return (draw(st.integers(1, min(7, limits[0]))), draw(st.integers(1, min(7, limits[1])))), padding


@st.composite
def image_layers(draw: st.DrawFn, height: int, width: int) -> Layer:
    """Any layer that takes an image and gives one."""
    window, padding = draw(windows(height, width))
    strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pool_strides = draw(st.none() | st.just(strides))
    return draw(
        st.sampled_from(
            [
                Conv2D(draw(st.integers(1, 5)), window, strides, padding, draw(activations), draw(st.booleans())),
                MaxPool(window, pool_strides, padding),
                AveragePool(window, pool_strides, padding),
                BatchNorm(draw(fractions), draw(positives)),
                Activation(draw(activations)),
                Dropout(draw(fractions)),
            ]
        )
    )


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    """A model whose layers fit together: image layers, then flatten or a global pool, then flat ones."""
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3)))
    height, width, _ = shape
    layers: list[Layer] = []
    for _ in range(draw(st.integers(0, 5))):
        layers.append(draw(image_layers(height, width)))
        closed = ModelSpec("part", shape, (*layers, GlobalAveragePool()))
        height, width, _ = closed.traced[-2].output_shape
    layers.append(draw(st.sampled_from([Flatten(), GlobalAveragePool()])))
    layers += draw(
        st.lists(st.sampled_from([Dropout(0.5), Dense(3, "tanh"), BatchNorm(), Activation("relu")]), max_size=3)
    )
    layers.append(Dense(draw(st.integers(1, 12)), bias=draw(st.booleans())))
    return ModelSpec(draw(names), shape, tuple(layers))


optimizers = st.builds(
    OptimizerSpec,
    name=st.sampled_from(OPTIMIZERS),
    momentum=fractions,
    beta_1=fractions,
    beta_2=fractions,
    epsilon=positives,
    weight_decay=st.sampled_from([0.0, 5e-4]),
    clip_norm=st.sampled_from([0.0, 1.0]),
)
learning_rates = st.builds(
    LearningRate,
    base=positives,
    drop_epochs=st.lists(st.integers(1, 20), max_size=3, unique=True).map(tuple),
    factor=positives,
    scaling=st.sampled_from(SCALINGS),
    base_batch_size=st.integers(1, 512),
)
trainings = st.builds(
    TrainingSpec,
    batch_size=st.integers(1, 10_000),
    epochs=st.integers(1, 100),
    optimizer=optimizers,
    learning_rate=learning_rates,
    seed=st.integers(0, 2**31 - 1),
    precision=st.sampled_from(PRECISIONS),
)
targets = st.builds(
    Target,
    name=names,
    backend=names,
    accelerator=names,
    mode=st.sampled_from(MODES),
    input=st.sampled_from(INPUTS),
    environment=names,
    device=st.integers(0, 7),
    cpus=st.integers(0, 64),
    matmul_precision=st.sampled_from(["highest", "tf32"]),
)


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """A cell whose dataset fits its model."""
    model = draw(models())
    dataset = Dataset(
        name=draw(names),
        sha256=draw(hexadecimal),
        train_examples=draw(st.integers(1, 70_000)),
        test_examples=draw(st.integers(1, 70_000)),
        image_shape=model.input_shape,
        classes=model.classes,
    )
    inputs = Inputs(draw(hexadecimal), draw(hexadecimal))
    return Cell(model, draw(trainings), dataset, inputs, draw(targets), draw(st.integers(0, 20)))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a dataclass of the contract, every field drawn by its annotation."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: _by_annotation(hints[field.name]) for field in dataclasses.fields(cls)})


def _by_annotation(annotation: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Cell:
        return cells()
    if annotation is Any:
        return json_values
    if annotation is float:
        return st.floats()
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_by_annotation(argument) for argument in arguments])
    if origin is list:
        return st.lists(_by_annotation(arguments[0]), max_size=4)
    if origin is tuple:
        return st.lists(_by_annotation(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=8), _by_annotation(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(annotation):
        return instances(typing.cast(type, annotation))
    return st.from_type(annotation)
