"""Several steps per call do what single steps do: the same losses and parameters, whatever is left of a call.

Dropout is on, and the learning rate falls within the training: a step that took another number for its own would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.core.cell import Cell, Dataset, Inputs
from harness.core.errors import Unsupported
from harness.core.messages import Block, Probe, Train
from harness.core.model import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec, without_dropout
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.plan import inputs
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder, load_probed, opened

from .conftest import TIMEOUT, Bench

MODEL = ModelSpec(
    "small",
    (8, 8, 1),
    (
        Conv2D(3, (3, 3), bias=False),
        BatchNorm(),
        MaxPool((2, 2)),
        Flatten(),
        Dropout(0.5),
        Dense(6, "relu"),
        Dropout(0.3),
        Dense(4),
    ),
)
BATCH_SIZE, EPOCHS, PER_EPOCH = 5, 2, 12
STEPS_PER_CALL = 3
WHOLE = [[3, 6, 3], [12]]
"""Steps of each ``train`` of each epoch; a list is an epoch."""

RAGGED = [[3, 4, 5], [1, 2, 8, 1]]
"""Every remainder of a call, also where there is no whole one."""

LANES = [
    *("jax-cpu:jit", "jax-cpu:jit@input=host", "jax-cpu-tuned:jit"),
    "jax-cpu:jit@loop=unrolled",
    *("tensorflow-cpu:graph", "tensorflow-cpu:graph@loop=unrolled", "tensorflow-cpu:graph@input=host"),
    *("tensorflow-cpu:xla", "tensorflow-cpu:fit", "tensorflow210-cpu:graph", "tensorflow210-cpu:fit"),
]
OPTIONS = {
    "decoupled": TrainingSpec(
        BATCH_SIZE,
        EPOCHS,
        OptimizerSpec("adam", weight_decay=0.05, clip_norm=0.5),
        LearningRate(0.01, warmup_steps=5, decay="cosine", decay_to=0.1),
        seed=5,
        label_smoothing=0.1,
    ),
    "l2": TrainingSpec(
        BATCH_SIZE,
        EPOCHS,
        OptimizerSpec("nesterov", weight_decay=0.05, weight_decay_form="l2", clip_norm=0.5),
        LearningRate(0.05, drop_epochs=(1,), factor=0.3, warmup_epochs=1),
        seed=5,
    ),
}
"""What goes with an optimizer. Their schedules change within calls, and clipping acts in most steps."""

STATEFUL = ("tensorflow210-cpu:fit",)
"""Keras 2's own dropout draws its masks from the program that it is in, so a loop has others: tested without it."""

NEAR = 2e-5
"""Relative. A loop may round otherwise; another mask or another example would be off by a tenth and more."""


@pytest.mark.parametrize("label", LANES, scope="session")
def test_losses_and_parameters_are_those_of_single_steps(bench: Bench, tmp_path: Path, label: str) -> None:
    parts = WHOLE if label.partition("@")[0].endswith(":fit") else RAGGED
    single_losses, single = trained(bench, tmp_path, label, parts)
    losses, found = trained(bench, tmp_path, f"{label}@steps_per_call={STEPS_PER_CALL}", parts)
    np.testing.assert_allclose(losses, single_losses, rtol=NEAR)
    assert len(set(losses)) == len(losses) == EPOCHS * PER_EPOCH
    for name, array in single.items():
        np.testing.assert_allclose(found[name], array, rtol=NEAR, atol=NEAR * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("label", ["jax-cpu:jit", "tensorflow-cpu:graph", "tensorflow-cpu:fit"], scope="session")
def test_options_of_training_mean_the_same_within_a_call(
    bench: Bench, tmp_path: Path, label: str, options: str
) -> None:
    """And each shows: without it, losses of single steps are others."""
    training, parts = OPTIONS[options], WHOLE if label.endswith(":fit") else RAGGED
    if "l2_weight_decay" in training.options and label.endswith(":fit"):
        with pytest.raises(Unsupported, match="l2_weight_decay"):
            trained(bench, tmp_path, f"{label}@steps_per_call={STEPS_PER_CALL}", parts, training)
        return
    single_losses, single = trained(bench, tmp_path, label, parts, training)
    losses, found = trained(bench, tmp_path, f"{label}@steps_per_call={STEPS_PER_CALL}", parts, training)
    np.testing.assert_allclose(losses, single_losses, rtol=NEAR)
    for name, array in single.items():
        np.testing.assert_allclose(found[name], array, rtol=NEAR, atol=NEAR * np.abs(array).max(), err_msg=name)
    without = (
        replace(training, optimizer=replace(training.optimizer, weight_decay=0.0)),
        replace(training, optimizer=replace(training.optimizer, clip_norm=0.0)),
        replace(training, learning_rate=LearningRate(training.learning_rate.base)),
    )
    if label == "tensorflow-cpu:graph":
        for other in without:
            others, _ = trained(bench, tmp_path, label, parts, other)
            assert np.abs(np.divide(others, single_losses) - 1).max() > 100 * NEAR


@pytest.mark.parametrize("label", ["jax-cpu-tuned:jit"], scope="session")
def test_the_tuned_loop_is_the_single_step_bit_by_bit(bench: Bench, tmp_path: Path, label: str) -> None:
    single_losses, single = trained(bench, tmp_path, label, RAGGED)
    losses, found = trained(bench, tmp_path, f"{label}@steps_per_call={STEPS_PER_CALL}", RAGGED)
    assert losses == single_losses
    for name, array in single.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("label", ["tensorflow-cpu:fit"], scope="session")
def test_fit_refuses_an_epoch_that_is_no_number_of_whole_calls(bench: Bench, tmp_path: Path, label: str) -> None:
    with pytest.raises(Unsupported, match="the 12 steps of an epoch are no multiple of 5"):
        trained(bench, tmp_path, f"{label}@steps_per_call=5", WHOLE)


@pytest.mark.parametrize("label", ["reference"], scope="session")
def test_a_backend_that_declares_no_loop_refuses_one(bench: Bench, tmp_path: Path, label: str) -> None:
    with pytest.raises(
        Unsupported, match=r"reference has no steps_per_call=2 .* NumPy computes operation by operation"
    ):
        trained(bench, tmp_path, f"{label}@steps_per_call=2", WHOLE)


@pytest.mark.parametrize(
    "label",
    ["jax-cpu:jit", "jax-cpu-tuned:jit", "tensorflow-cpu:graph"],
    scope="session",
)
def test_parity_is_proven_through_the_calls(bench: Bench, label: str) -> None:
    target = bench.target(f"{label}@steps_per_call={STEPS_PER_CALL}")
    optimizer = OptimizerSpec("momentum")
    proof = bench.verifier.proof(target, MODEL, optimizer, "float32", lambda: bench.worker(label))
    assert proof.passed, proof.reason
    assert {"losses, 3 steps per call", "parameters, 3 steps per call"} <= {one.name for one in proof.quantities}


def trained(
    bench: Bench,
    folder: Path,
    label: str,
    epochs: Sequence[Sequence[int]],
    training: TrainingSpec | None = None,
) -> tuple[list[float], dict[str, NDArray[Any]]]:
    """Losses of all steps, and parameters and statistics after them, trained in the given parts."""
    probe, losses = cell_of(bench, label), []
    if training is not None:
        probe = replace(probe, cell=replace(probe.cell, training=training))
    with ProbeFolder(folder / "probe", probe) as files:
        output = files.path / "probed.npz"
        with opened(bench.worker(label), files.request, TIMEOUT) as (worker, _):
            for steps in (part for parts in epochs for part in parts):
                block = worker.ask(Train(steps), TIMEOUT)
                assert isinstance(block, Block)
                losses += block.losses
            worker.ask(Probe(0, str(output)), TIMEOUT)
        found = load_probed(output)
    return losses, {name: array for name, array in found.items() if name.startswith(("parameter/", "statistic/"))}


def cell_of(bench: Bench, label: str) -> ProbeCell:
    generator, examples = np.random.default_rng(17), BATCH_SIZE * PER_EPOCH
    images = generator.random((examples, *MODEL.input_shape), dtype=np.float32)
    labels = generator.integers(0, MODEL.classes, examples).astype(np.int32)
    training = TrainingSpec(
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        optimizer=OptimizerSpec("momentum"),
        learning_rate=LearningRate(base=0.05, drop_epochs=(1,), factor=0.3),
        seed=5,
    )
    dataset = Dataset("probe", "", examples, examples, MODEL.input_shape, MODEL.classes)
    return ProbeCell(
        cell=Cell(
            without_dropout(MODEL) if label.startswith(STATEFUL) else MODEL,
            training,
            dataset,
            Inputs("", ""),
            bench.target(label),
        ),
        images=images,
        labels=labels,
        test_images=images,
        test_labels=labels,
        parameters=inputs.draw_parameters(MODEL, seed=0),
        order=np.stack([generator.permutation(examples) for _ in range(EPOCHS)]).astype(np.int32),
    )
