"""What parity probes train on: small cells, drawn so that the reference stays far from every branch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core import codec
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.model import Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec, without_dropout
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.proof.tolerances import TEST_EXAMPLES

PARITY_VERSION = 1
"""Counts changes of the probes or tolerances: a proof of another version does not count."""


EXAMPLES, BATCH_SIZE, EPOCHS = 8, 4, 2


PROBE_EPSILON = 1e-3


PROBE_DECAY, PROBE_CLIP = 0.1, 1.0
"""In place of a training's own weight decay and clipping: as large as the gradients, so that they show."""


DRAWS = 8


SAFE_MARGIN = 1e-5
"""A draw with this margin is taken at once: a hundred times float32's rounding."""


STEPS = EXAMPLES // BATCH_SIZE * EPOCHS


DROPOUT_UNITS, DROPOUT_EXAMPLES, DROPOUT_REPEATS, DROPOUT_STEPS = 256, 64, 4, 4


TIED_KERNEL_SIZE = 3


CALLS_RATE = 1e-3


@dataclass(frozen=True)
class ProbeCell:
    """A cell to open and the arrays to give it."""

    cell: Cell
    images: NDArray[np.float32]
    labels: NDArray[np.int32]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int32]
    parameters: dict[str, NDArray[np.float32]]
    order: NDArray[np.int32]


def batch_size_for(target: Target) -> int:
    """``BATCH_SIZE``, or on several devices the next that they can split."""
    return BATCH_SIZE + -BATCH_SIZE % target.devices


def training_probe(
    model: ModelSpec,
    optimizer: OptimizerSpec,
    precision: str,
    target: Target,
    parameters: dict[str, NDArray[np.float32]],
    draw: int = 0,
    like: TrainingSpec | None = None,
) -> ProbeCell:
    """The probe of a model and optimizer; ``parameters`` are its initial ones, ``draw`` numbers the images.

    ``like``: a training whose label smoothing and kind of schedule it has.
    """
    batch_size = batch_size_for(target)
    examples = EXAMPLES // BATCH_SIZE * batch_size
    generator = np.random.default_rng([PARITY_VERSION, examples, draw])
    images = generator.random((examples, *model.input_shape), dtype=np.float32)
    labels = generator.integers(0, model.classes, examples).astype(np.int32)
    order = np.stack([generator.permutation(examples) for _ in range(EPOCHS)]).astype(np.int32)
    training = TrainingSpec(
        batch_size=batch_size,
        epochs=EPOCHS,
        optimizer=replace(
            optimizer,
            epsilon=PROBE_EPSILON,
            weight_decay=PROBE_DECAY if optimizer.weight_decay else 0.0,
            clip_norm=PROBE_CLIP if optimizer.clip_norm else 0.0,
        ),
        learning_rate=schedule(like, LearningRate(base=0.01, drop_epochs=(1,), factor=0.3), STEPS // 2),
        precision=precision,
        label_smoothing=like.label_smoothing if like else 0.0,
    )
    return ProbeCell(
        cell=_cell(without_dropout(model), training, target, examples, TEST_EXAMPLES),
        images=images,
        labels=labels,
        test_images=generator.random((TEST_EXAMPLES, *model.input_shape), dtype=np.float32),
        test_labels=generator.integers(0, model.classes, TEST_EXAMPLES).astype(np.int32),
        parameters=parameters,
        order=order,
    )


def schedule(like: TrainingSpec | None, plain: LearningRate, warmup_steps: int) -> LearningRate:
    """``plain``, or where ``like`` has more than drops what it has, with so short a warm-up."""
    rule = like.learning_rate if like else LearningRate()
    if not rule.warms_up and rule.decay == "none":
        return plain
    return replace(
        plain if rule.drop_epochs else LearningRate(plain.base),
        warmup_steps=warmup_steps if rule.warms_up else 0,
        decay=rule.decay,
        decay_power=rule.decay_power,
        decay_to=rule.decay_to,
    )


def beyond(training: TrainingSpec) -> dict[str, Any]:
    """What a proof depends on besides model, optimizer and precision; empty for most trainings."""
    plain = LearningRate()
    rule = schedule(training, plain, 1)
    smoothing = training.label_smoothing
    return {
        **(
            {}
            if rule == plain
            else {"schedule": {**codec.to_json(rule), "drops": bool(training.learning_rate.drop_epochs)}}
        ),
        **({"label_smoothing": smoothing} if smoothing else {}),
    }


def placement_probe(
    model: ModelSpec,
    optimizer: OptimizerSpec,
    precision: str,
    target: Target,
    parameters: dict[str, NDArray[np.float32]],
    like: TrainingSpec | None = None,
) -> ProbeCell:
    """Like ``training_probe``, but with the model's dropout: its operations must be somewhere as well."""
    probe = training_probe(model, optimizer, precision, target, parameters, like=like)
    return replace(probe, cell=replace(probe.cell, model=model))


def has_ties(model: ModelSpec) -> bool:
    """Whether a model can tell which of tied maxima a gradient goes to."""
    return any(isinstance(layer, MaxPool) for layer in model.layers)


def ties_probe(precision: str, target: Target) -> ProbeCell:
    """Binary images, a kernel that is 1 at its centre, overlapping windows: ties everywhere."""
    model = ModelSpec("ties", (10, 10, 1), (Conv2D(2, (3, 3)), MaxPool((3, 3), strides=(2, 2)), Flatten(), Dense(4)))
    generator = np.random.default_rng([PARITY_VERSION, TIED_KERNEL_SIZE])
    kernel = np.zeros((TIED_KERNEL_SIZE, TIED_KERNEL_SIZE, 1, 2), np.float32)
    kernel[TIED_KERNEL_SIZE // 2, TIED_KERNEL_SIZE // 2] = 1.0
    parameters = {
        "01_conv2d/kernel": kernel,
        "01_conv2d/bias": np.zeros(2, np.float32),
        "04_dense/kernel": generator.uniform(-0.5, 0.5, model.parameter_shapes["04_dense/kernel"]).astype(np.float32),
        "04_dense/bias": np.zeros(4, np.float32),
    }
    count = batch_size_for(target)
    images = generator.integers(0, 2, (count, *model.input_shape)).astype(np.float32)
    labels = generator.integers(0, model.classes, count).astype(np.int32)
    training = TrainingSpec(batch_size=count, optimizer=OptimizerSpec("sgd"), precision=precision)
    return ProbeCell(
        cell=_cell(model, training, target, count, count),
        images=images,
        labels=labels,
        test_images=images,
        test_labels=labels,
        parameters=parameters,
        order=np.arange(count, dtype=np.int32)[None],
    )


def dropout_rates(model: ModelSpec) -> tuple[float, ...]:
    """The distinct rates above zero of a model."""
    return tuple(sorted({layer.rate for layer in model.layers if isinstance(layer, Dropout) and layer.rate > 0}))


def calls_probe(
    model: ModelSpec,
    optimizer: OptimizerSpec,
    precision: str,
    target: Target,
    parameters: dict[str, NDArray[np.float32]],
    like: TrainingSpec | None = None,
) -> ProbeCell:
    """Two whole calls of a target that trains several steps per call, and a single step but in ``fit``, which has none.

    At a low rate: over many steps roundings would grow to another answer.
    """
    steps = 2 * target.steps_per_call + (target.mode != "fit")
    probe = training_probe(model, optimizer, precision, target, parameters, like=like)
    examples = steps * batch_size_for(target)
    generator = np.random.default_rng([PARITY_VERSION, examples])
    rate = replace(schedule(like, LearningRate(base=CALLS_RATE), 2), drop_epochs=())
    training = replace(probe.cell.training, epochs=1, learning_rate=rate)
    return replace(
        probe,
        cell=_cell(probe.cell.model, training, target, examples, TEST_EXAMPLES),
        images=generator.random((examples, *model.input_shape), dtype=np.float32),
        labels=generator.integers(0, model.classes, examples).astype(np.int32),
        order=generator.permutation(examples).astype(np.int32)[None],
    )


def step_by_step(probe: ProbeCell) -> ProbeCell:
    """The same probe with one step per call."""
    return replace(probe, cell=replace(probe.cell, target=replace(probe.cell.target, steps_per_call=1)))


def dropout_probe(rate: float, precision: str, target: Target) -> ProbeCell:
    """Ones through dropout and an identity: the logits are the mask. Nothing is learned: only masks move the loss.

    Every step is on the same examples: those of an epoch, or where several steps make a call, of each step of one.
    """
    epochs, copies = (DROPOUT_STEPS, 1) if target.steps_per_call == 1 else (1, DROPOUT_STEPS)
    batch_size = DROPOUT_EXAMPLES + -DROPOUT_EXAMPLES % target.devices
    side = math.isqrt(DROPOUT_UNITS)
    model = ModelSpec("dropout", (side, side, 1), (Flatten(), Dropout(rate), Dense(DROPOUT_UNITS, bias=False)))
    generator = np.random.default_rng([PARITY_VERSION, DROPOUT_UNITS])
    training = TrainingSpec(
        batch_size=batch_size,
        epochs=epochs,
        optimizer=OptimizerSpec("sgd"),
        learning_rate=LearningRate(base=0.0),
        precision=precision,
    )
    examples = copies * batch_size
    images = np.ones((examples, side, side, 1), np.float32)
    labels = np.tile(generator.integers(0, DROPOUT_UNITS, batch_size).astype(np.int32), copies)
    return ProbeCell(
        cell=_cell(model, training, target, examples, examples),
        images=images,
        labels=labels,
        test_images=images,
        test_labels=labels,
        parameters={"03_dense/kernel": np.eye(DROPOUT_UNITS, dtype=np.float32)},
        order=np.tile(np.arange(examples, dtype=np.int32), (epochs, 1)),
    )


def _cell(model: ModelSpec, training: TrainingSpec, target: Target, examples: int, test_examples: int) -> Cell:
    dataset = Dataset("probe", "", examples, test_examples, model.input_shape, model.classes)
    at_once = min(target.steps_per_call, training.steps_per_epoch(examples))
    return Cell(model, training, dataset, Inputs("", ""), replace(target, steps_per_call=at_once))
