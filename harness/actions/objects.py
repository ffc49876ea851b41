"""``harness.Model`` and ``harness.Sweep``: what model and sweep files say, as objects built in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness import wording
from harness.actions import values
from harness.actions.values import Place
from harness.core.errors import UsageError
from harness.core.model import Layer, ModelSpec
from harness.plan import models, sweep
from harness.plan.sweep import SweepDefinition


def Model(layers: Sequence[Layer] = (), input_shape: Sequence[int] = (28, 28, 1), name: str = "own-model") -> ModelSpec:
    """A model of layers, checked at once: ``harness.Model([harness.Flatten(), harness.Dense(10)])``.

    Args:
        layers: ``Conv2D``, ``MaxPool``, ``AveragePool``, ``GlobalAveragePool``, ``BatchNorm``, ``Activation``,
            ``Flatten``, ``Dropout``, ``Dense``. The last one gives a value per class. Where a pair is meant, as a
            kernel's, one whole number stands for both.
        input_shape: height, width and channels of an image.
        name: its name in tables. It cannot be that of a built-in model.

    Raises ``harness.core.errors.UsageError`` for a wrong value, and its subclass ModelError for layers that do not fit
    together; both name the layer.
    """
    if values.text("model: name", name) in models.built_in():
        raise UsageError(f"model: an own model cannot be called {name!r}, which is built in; name it otherwise")
    shape, given = values.plain(input_shape), values.plain(layers)
    if not isinstance(shape, tuple):
        raise UsageError(f"input_shape: found {wording.shown(shape)}, allowed: height, width, channels")
    if not isinstance(given, tuple):
        raise UsageError(f"layers: found {wording.shown(given)}, allowed: several layers")
    return models.build([_plain(layer) for layer in given], shape, name)


def _plain(layer: Layer) -> Layer:
    """The layer with plain Python values: people compute filters and units, often in NumPy. Anything else as it is."""
    if not dataclasses.is_dataclass(layer):
        return layer
    fields = dataclasses.fields(layer)
    return dataclasses.replace(layer, **{field.name: values.plain(getattr(layer, field.name)) for field in fields})


def Sweep(
    name: str,
    *,
    target: str | Sequence[str],
    batch_size: int | Sequence[int],
    model: str | ModelSpec | Sequence[str | ModelSpec] = "mnist-cnn",
    dataset: Place = "digits",
    **keys: Any,
) -> SweepDefinition:
    """A sweep, checked at once; ``harness.sweep`` takes it as it takes a file.

    Args:
        name: letters, digits, '.', '_' and '-'.
        target, batch_size, model: one or several.
        dataset: "mnist", "digits", or a file that ends in .npz.
        keys: every other key of a sweep file (docs/sweeps.md), those of ``[training]`` among them: epochs, seed,
            optimizer, learning_rate, ...

    Raises ``harness.core.errors.UsageError`` for a wrong key or value.
    """
    asked = values.several(model)
    own = {one.name: one for one in asked if isinstance(one, ModelSpec)}
    texts = [one.name if isinstance(one, ModelSpec) else one for one in asked]
    given = {"name": name, "target": target, "batch_size": batch_size, "model": texts, "dataset": dataset, **keys}
    tables = {key: values.plain(value) for key, value in given.items()}
    made = SweepDefinition(tables, own)
    sweep.load(made, {})
    return made
