"""Training on several devices is training on one: the same losses, parameters and statistics, proven by every proof.

The devices are logical processors. Dropout is off where one device is compared with two, but in JAX, whose masks are
those of one device.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.actions.progress import NEWS
from harness.core.cell import Cell, Target
from harness.core.errors import Unsupported
from harness.core.messages import Block, Snapshot, Train
from harness.core.model import (
    Activation,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ModelSpec,
    without_dropout,
)
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.measure.schedule import rehearsal
from harness.plan import datasets, inputs, models
from harness.plan.prepare import prepare_dataset
from harness.proof import synchrony
from harness.proof.probing import load_probed, opened
from harness.workers import Worker
from harness.workers.cell_worker import Files

from . import split_backends
from .conftest import TIMEOUT, Bench
from .test_training_at_its_size import trained_on

PLAIN = ModelSpec(
    "plain",
    (28, 28, 1),
    (Conv2D(4, (5, 5), strides=(3, 3), activation="relu"), MaxPool((2, 2)), Flatten(), Dropout(0.25), Dense(10)),
)
NORMALISED = ModelSpec(
    "normalised",
    (28, 28, 1),
    (
        *(Conv2D(4, (5, 5), strides=(3, 3), bias=False), BatchNorm(), Activation("relu"), MaxPool((2, 2))),
        *(Flatten(), Dropout(0.25), Dense(12, bias=False), BatchNorm(), Dense(10)),
    ),
)
LANES = [
    *("jax-cpu:jit", "jax-cpu:jit@input=host", "jax-cpu:jit@steps_per_call=3"),
    pytest.param("jax-cpu:jit@input=host@steps_per_call=3", marks=pytest.mark.long),
    *("tensorflow-cpu:graph", "tensorflow-cpu:graph@input=host", "tensorflow-cpu:graph@steps_per_call=3"),
    *("tensorflow-cpu:fit", "tensorflow210-cpu:graph", "tensorflow210-cpu:fit"),
    pytest.param("tensorflow-cpu:xla", marks=pytest.mark.long),
    pytest.param("tensorflow-cpu:graph@input=host@steps_per_call=3@loop=unrolled", marks=pytest.mark.long),
]
PROVEN = ["jax-cpu:jit", "tensorflow-cpu:graph", "tensorflow-cpu:fit", "tensorflow210-cpu:graph"]
CLIPS = replace(PLAIN, name="clips")
CLIPPED = OptimizerSpec("adam", weight_decay=0.01, weight_decay_form="decoupled", clip_norm=1.0)
LONG = pytest.mark.long
IN_PROOF = {
    "SumForMean": "gradients",
    "MeanOfUnequalMeans": "gradients",
    "OneGradientNotReduced": "replicas equal",
    "NoGradientReduced": "reduced over devices",
    "RowsTakenTwice": "losses",
    "StatisticsPerReplica": "statistics",
}
"""Fault -> a quantity of the proof at its size that tells it."""

IN_RUN = ("SameMaskOnAll",)

FAULTY = ["split-jax:jit", "split-tensorflow:graph@input=host"]
NEAR = 5e-5
"""Relative: sums of other order round otherwise."""


def model_of(label: str) -> ModelSpec:
    """With batch normalisation, but in mode ``xla``, which has none on several devices."""
    return PLAIN if ":xla" in label else NORMALISED


@pytest.fixture(scope="module")
def digits() -> tuple[Path, datasets.Dataset]:
    prepared = prepare_dataset("digits", None, NEWS)
    return prepared.folder, datasets.limited(prepared.dataset, 120, 100)


def cell_of(target: Target, dataset: datasets.Dataset, model: ModelSpec) -> Cell:
    """Two epochs of six steps."""
    training = TrainingSpec(20, 2, OptimizerSpec("momentum"), LearningRate(0.02, (1,), 0.3), seed=1)
    drawn = inputs.identify(model, dataset.train_examples, training.epochs, training.seed)
    return Cell(model, training, dataset, drawn, target)


def trained(bench: Bench, folder: Path, cell: Cell, data: Path) -> tuple[list[float], Any]:
    """Losses and state of a whole cell."""
    parameters, order = inputs.write(folder, cell)
    request, losses = Files(data, parameters, order, folder / "scratch").opening(cell), []
    with opened(bench.hosts.worker(cell.target), request, TIMEOUT, trained=True) as (worker, _):
        for steps in cell.epoch_steps:
            block = worker.ask(Train(steps), TIMEOUT)
            assert isinstance(block, Block)
            losses += block.losses
        worker.ask(Snapshot(str(folder / "after.npz")), TIMEOUT)
    return losses, load_probed(folder / "after.npz")


@pytest.mark.parametrize("label", LANES, scope="session")
def test_two_devices_train_as_one(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    model = model_of(label) if label.startswith("jax") else without_dropout(model_of(label))
    single, split = (bench.target(text) for text in (label, f"{label}@devices=2"))
    alone_losses, alone = trained(bench, tmp_path, cell_of(single, digits[1], model), digits[0])
    losses, found = trained(bench, tmp_path, cell_of(split, digits[1], model), digits[0])
    np.testing.assert_allclose(losses, alone_losses, rtol=NEAR)
    assert int(found.pop("apart")) == 0
    assert set(found) == set(alone)
    for name, array in alone.items():
        np.testing.assert_allclose(found[name], array, rtol=NEAR, atol=NEAR * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("label", PROVEN, scope="session")
def test_every_proof_runs_on_several_devices(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    (tmp_path / "cell").mkdir()
    target = bench.target(f"{label}@devices=2")
    give = partial(bench.hosts.worker, target)
    cell = cell_of(target, digits[1], NORMALISED)
    proof = bench.verifier.proof(target, cell.model, cell.training.optimizer, "float32", give, fresh=True)
    assert proof.passed, proof.reason
    sized = bench.verifier.at_size.proof(cell, digits[0], rehearsal, give, fresh=True)
    assert sized.passed, sized.reason
    assert {"replicas equal", "reduced over devices"} <= {one.name for one in sized.quantities}
    lane, shown = trained_on(bench, tmp_path, give(), cell, digits[0], random.Random(1))
    record = lane.record({}, "", 1, "")
    assert (record.status, record.reason) == ("ok", "")
    assert shown.facts.counted_steps == cell.total_steps
    device = record.worker["device"]
    assert len(set(device["replica_devices"])) == len(device["parameters_on"]) == 2
    assert device["collective"]
    assert device["logical_devices"] is True
    assert sum(device["collectives"].values()) > 0
    single = cell_of(bench.target(label), digits[1], NORMALISED)
    assert cell.work_id == single.work_id
    assert cell.cell_id != single.cell_id


@pytest.mark.parametrize(
    ("label", "optimizer", "precision"),
    [
        ("tensorflow-cpu:graph@devices=2", CLIPPED, "float32"),
        ("tensorflow-cpu:fit@devices=2", replace(CLIPPED, clip_norm=0.0), "float32"),
        pytest.param("tensorflow210-cpu:fit@devices=2", OptimizerSpec(clip_norm=0.5), "float32", marks=LONG),
        pytest.param("jax-cpu:jit@devices=2", CLIPPED, "float32", marks=LONG),
        pytest.param("tensorflow-cpu:graph@devices=3", OptimizerSpec(), "mixed_bfloat16", marks=LONG),
        pytest.param("jax-cpu:jit@devices=4", OptimizerSpec(), "mixed_bfloat16", marks=LONG),
        pytest.param("tensorflow210-cpu:fit@devices=4", OptimizerSpec(), "float32", marks=LONG),
    ],
    scope="session",
)
def test_options_precisions_and_more_devices_are_proven(
    bench: Bench, label: str, optimizer: OptimizerSpec, precision: str
) -> None:
    target, model = bench.target(label), PLAIN if optimizer.clip_norm else NORMALISED
    give = partial(bench.hosts.worker, target)
    proof = bench.verifier.proof(target, model, optimizer, precision, give, fresh=True)
    assert proof.passed, proof.reason


@pytest.mark.parametrize("label", ["jax-cpu:jit", "tensorflow-cpu:graph"], scope="session")
def test_a_batch_size_that_changes_is_split_at_every_size(
    bench: Bench, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    target = bench.target(f"{label}@devices=2")
    cell = cell_of(target, digits[1], NORMALISED)
    cell = replace(cell, training=replace(cell.training, batch_changes=((1, 30),)))
    give = partial(bench.hosts.worker, target)
    found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, give, fresh=True)
    assert found.passed, found.reason


@pytest.mark.parametrize("label", ["jax-cpu:jit", "tensorflow-cpu:graph"], scope="session")
def test_a_block_ends_when_every_device_is_finished(bench: Bench, tmp_path: Path, label: str) -> None:
    target, model = bench.target(f"{label}@devices=2"), models.load("mnist-cnn")
    found = synchrony.check(target, model, partial(bench.hosts.worker, target), tmp_path / "synchrony", TIMEOUT)
    assert found.passed, found.reason


def test_every_planted_fault_is_tried() -> None:
    assert set(split_backends.FAULTS) == {*IN_PROOF, *IN_RUN}


def faulty(bench: Bench, label: str, fault: str) -> tuple[Target, Worker]:
    """A target on two devices whose name tells its backend which fault to have, and its worker."""
    found = bench.target(f"{label}@devices=2")
    return replace(found, name=fault, settings=fault), bench.hosts.worker(found)


@pytest.mark.parametrize("fault", [*IN_PROOF, "none"])
@pytest.mark.parametrize("label", FAULTY, scope="session")
def test_a_fault_of_several_devices_fails_the_proof(
    bench: Bench, digits: tuple[Path, datasets.Dataset], label: str, fault: str
) -> None:
    target, worker = faulty(bench, label, fault)
    model = NORMALISED if fault == "StatisticsPerReplica" else PLAIN
    cell = cell_of(target, digits[1], model)
    found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, lambda: worker, fresh=True)
    assert not found.problem, found.problem
    if fault == "none":
        assert found.passed, found.reason
    else:
        assert IN_PROOF[fault] in {one.name for one in found.quantities if not one.passed}, found.reason


@pytest.mark.parametrize("label", FAULTY, scope="session")
def test_a_mask_that_all_devices_share_is_seen(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    """TensorFlow's in the probe of dropout; JAX's, where the step alone has it, by what it did with its masks."""
    target, worker = faulty(bench, label, IN_RUN[0])
    cell = cell_of(target, digits[1], PLAIN)
    if label.startswith("split-tensorflow"):
        proof = bench.verifier.proof(target, PLAIN, cell.training.optimizer, "float32", lambda: worker, fresh=True)
        assert "dropout repeats" in {one.name for one in proof.quantities if not one.passed}, proof.reason
    else:
        (tmp_path / "cell").mkdir()
        lane, _ = trained_on(bench, tmp_path, worker, cell, digits[0], random.Random(1))
        assert lane.status == "parity_failed"
        assert "of the timed training" in lane.reason


@pytest.mark.parametrize(
    ("label", "model", "why"),
    [
        ("reference@devices=2", PLAIN, "NumPy computes operation by operation on one processor"),
        ("jax-cpu:jit@devices=2@microbatch=8", PLAIN, "a target has one of the two"),
        ("jax-cpu:jit@devices=3", PLAIN, "batch size 20 cannot be split into 3 equal parts"),
        ("tensorflow-cpu:fit@devices=2@steps_per_call=2", PLAIN, "several steps in a call fails with a strategy"),
        ("tensorflow-cpu:xla@devices=2", NORMALISED, "cannot wait for other devices there"),
        ("tensorflow-cpu:fit@devices=2", CLIPS, "clips each device's gradient by its own norm"),
    ],
    scope="session",
)
def test_what_cannot_be_split_is_refused(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str, model: ModelSpec, why: str
) -> None:
    cell = cell_of(bench.target(label), digits[1], model)
    if model is CLIPS:
        cell = replace(cell, training=replace(cell.training, optimizer=CLIPPED))
    parameters, order = inputs.write(tmp_path, cell)
    request = Files(digits[0], parameters, order, tmp_path / "scratch").opening(cell)
    with pytest.raises(Unsupported, match=why), opened(bench.worker(label), request, TIMEOUT, trained=True):
        pass
