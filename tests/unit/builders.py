"""Small cells for tests: a model of any layers, a cell around it, and random arrays that fit."""

from __future__ import annotations

import math

import numpy as np

from backends.protocol import Arrays
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.model import Layer, ModelSpec
from harness.core.training import TrainingSpec


def small_model(*layers: Layer, input_shape: tuple[int, int, int] = (7, 6, 2)) -> ModelSpec:
    return ModelSpec(name="small", input_shape=input_shape, layers=layers)


def reference_target() -> Target:
    return Target(
        name="reference", backend="reference", accelerator="cpu", mode="numpy", input="resident", environment="test"
    )


def small_cell(
    model: ModelSpec,
    training: TrainingSpec | None = None,
    train_examples: int = 12,
    test_examples: int = 5,
    target: Target | None = None,
) -> Cell:
    return Cell(
        model=model,
        training=training or TrainingSpec(batch_size=4, epochs=2),
        dataset=Dataset(
            name="random",
            sha256="0" * 64,
            train_examples=train_examples,
            test_examples=test_examples,
            image_shape=model.input_shape,
            classes=model.classes,
        ),
        inputs=Inputs(parameters_sha256="0" * 64, order_sha256="0" * 64),
        target=target or reference_target(),
    )


def random_parameters(model: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Kernels scaled by their fan-in; biases, scales and offsets away from the values that would hide them."""
    generator = np.random.default_rng(seed)
    parameters = {}
    for name, shape in model.parameter_shapes.items():
        key = name.rpartition("/")[2]
        centre, spread = {"kernel": (0.0, 1 / math.sqrt(math.prod(shape[:-1]))), "scale": (1.0, 0.3)}.get(
            key, (0.0, 0.3)
        )
        parameters[name] = (centre + spread * generator.standard_normal(shape)).astype(np.float32)
    return parameters


def random_arrays(cell: Cell, seed: int = 0) -> Arrays:
    """Gaussian images, uniform labels, random parameters, and a random permutation per epoch."""
    generator = np.random.default_rng(seed)
    dataset, training = cell.dataset, cell.training
    counts = (dataset.train_examples, dataset.test_examples)
    train_images, test_images = (
        generator.standard_normal((count, *dataset.image_shape)).astype(np.float32) for count in counts
    )
    train_labels, test_labels = (generator.integers(0, dataset.classes, count).astype(np.int32) for count in counts)
    steps, batch_size = cell.steps_per_epoch, training.batch_size
    order = [generator.permutation(dataset.train_examples)[: steps * batch_size] for _ in range(training.epochs)]
    return Arrays(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        parameters=random_parameters(cell.model, seed + 1),
        order=np.array(order, dtype=np.int32).reshape(training.epochs, steps, batch_size),
    )
