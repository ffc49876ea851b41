"""Gradients accumulated from microbatches are those of the batch at once, and a share that is wrong is seen."""

from __future__ import annotations

import random
import sys
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
from harness.core.model import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec, without_dropout
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.measure.largest_batch import Attempt, Search
from harness.measure.schedule import rehearsal
from harness.plan import datasets, inputs
from harness.plan.prepare import prepare_dataset
from harness.proof.probing import load_probed, opened
from harness.workers.cell_worker import Files

from .conftest import TIMEOUT, Bench
from .test_training_at_its_size import trained_on

MODEL = ModelSpec(
    "small",
    (28, 28, 1),
    (Conv2D(4, (5, 5), strides=(3, 3), activation="relu"), MaxPool((2, 2)), Flatten(), Dropout(0.25), Dense(10)),
)
NORMALISED = ModelSpec("normalised", (28, 28, 1), (Flatten(), Dense(8), BatchNorm(), Dense(10)))
MICROBATCH = 8
LANES = [
    *("reference", "jax-cpu:jit", "jax-cpu:jit@input=host", "tensorflow-cpu:graph", "tensorflow-cpu:graph@input=host"),
    *("tensorflow210-cpu:graph", "tensorflow-cpu:xla"),
]
NEAR = 2e-5
"""Relative: sums of other order round otherwise."""


@pytest.fixture(scope="module")
def digits() -> tuple[Path, datasets.Dataset]:
    prepared = prepare_dataset("digits", None, NEWS)
    return prepared.folder, datasets.limited(prepared.dataset, 100, 100)


def cell_of(target: Target, dataset: datasets.Dataset, model: ModelSpec = MODEL) -> Cell:
    """Of batches of 20, which are two microbatches and a half, and then of 5, which are none."""
    training = TrainingSpec(20, 2, OptimizerSpec("momentum"), LearningRate(0.02), seed=1, batch_changes=((1, 5),))
    drawn = inputs.identify(model, dataset.train_examples, training.epochs, training.seed)
    return Cell(model, training, dataset, drawn, target)


def trained(bench: Bench, folder: Path, label: str, data: tuple[Path, datasets.Dataset]) -> tuple[list[float], Any]:
    """Losses and parameters of a whole cell, without dropout."""
    cell = cell_of(bench.target(label), data[1], without_dropout(MODEL))
    parameters, order = inputs.write(folder, cell)
    request, losses = Files(data[0], parameters, order, folder / "scratch").opening(cell), []
    with opened(bench.worker(label), request, TIMEOUT, trained=True) as (worker, _):
        for steps in cell.epoch_steps:
            block = worker.ask(Train(steps), TIMEOUT)
            assert isinstance(block, Block)
            losses += block.losses
        worker.ask(Snapshot(str(folder / "after.npz")), TIMEOUT)
    return losses, load_probed(folder / "after.npz")


@pytest.mark.parametrize("label", ["jax-cpu:jit", "tensorflow-cpu:graph"], scope="session")
def test_microbatches_train_a_batch_that_memory_does_not_hold_whole(bench: Bench, tmp_path: Path, label: str) -> None:
    """As ``harness largest-batch`` searches, within what half of the whole batch's step adds to that of few images."""
    wide = ModelSpec("wide", (28, 28, 1), (Conv2D(64, (3, 3), activation="relu"), Flatten(), Dense(10)))
    prepared = prepare_dataset("digits", None, NEWS)
    data = datasets.limited(prepared.dataset, 2048, 100)
    place = (inputs.identify(wide, data.train_examples, 1, 0), bench.target(label))
    cell = Cell(wide, TrainingSpec(1, 1), data, *place)

    def tried(limit: int | None, size: int, microbatch: int = 0) -> Attempt:
        def files(of: Cell) -> Files:
            (tmp_path / "scratch").mkdir(exist_ok=True)
            return Files(prepared.folder, *inputs.write(tmp_path, of), tmp_path / "scratch")

        one = replace(cell, target=replace(cell.target, microbatch=microbatch))
        search = Search(partial(bench.worker, label), files, limit, TIMEOUT, lambda attempt: None)
        return search.attempt(replace(one, training=replace(one.training, batch_size=size)))

    few, whole = (tried(None, size).memory_bytes for size in (16, 2048))
    assert few is not None
    assert whole is not None
    limit = (few + whole) // 2
    assert not tried(limit, 2048).fits
    assert tried(limit, 2048, microbatch=16).fits


@pytest.mark.parametrize("label", LANES, scope="session")
def test_what_is_accumulated_is_the_batch_at_once(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    whole_losses, whole = trained(bench, tmp_path, label, digits)
    losses, found = trained(bench, tmp_path, f"{label}@microbatch={MICROBATCH}", digits)
    np.testing.assert_allclose(losses, whole_losses, rtol=NEAR)
    assert set(found) == set(whole)
    for name, array in whole.items():
        np.testing.assert_allclose(found[name], array, rtol=NEAR, atol=NEAR * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("label", ["reference", "jax-cpu:jit", "tensorflow-cpu:graph"], scope="session")
def test_it_is_proven_against_the_whole_batch_and_seen_with_its_own_dropout(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    (tmp_path / "cell").mkdir()
    target = bench.target(f"{label}@microbatch={MICROBATCH}")
    give = partial(bench.hosts.worker, target)
    cell = cell_of(target, digits[1])
    fixed = replace(cell, training=cell.training.at_size(20))
    found = bench.verifier.at_size.proof(fixed, digits[0], rehearsal, give, fresh=True)
    assert found.passed, found.reason
    lane, shown = trained_on(bench, tmp_path, give(), cell, digits[0], random.Random(1))
    record = lane.record({}, "", 1, "")
    assert (record.status, record.reason) == ("ok", "")
    assert shown.facts.counted_steps == cell.total_steps


def test_a_sum_where_a_mean_belongs_fails_the_proof(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset]
) -> None:
    target = Target("sums", "sums", "cpu", "numpy", "resident", f"python:{sys.executable}", microbatch=MICROBATCH)
    cell = cell_of(target, digits[1])
    cell = replace(cell, training=cell.training.at_size(20))
    with bench.planted(tmp_path, "planned_backends:MicrobatchesSummed") as worker:
        found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, lambda: worker, fresh=True)
    assert not found.problem, found.problem
    assert "gradients" in {one.name for one in found.quantities if not one.passed}, found.reason


@pytest.mark.parametrize(
    ("label", "model", "why"),
    [
        ("jax-cpu:jit@microbatch=8", NORMALISED, "mean and variance of the whole batch"),
        ("tensorflow-cpu:fit@microbatch=8", MODEL, "Model.fit updates after every batch"),
        ("jax-cpu:jit@microbatch=8@steps_per_call=2", MODEL, "a call has one step"),
    ],
    scope="session",
)
def test_what_cannot_be_accumulated_is_refused(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str, model: ModelSpec, why: str
) -> None:
    cell = cell_of(bench.target(label), digits[1], model)
    cell = replace(cell, training=cell.training.at_size(20))
    parameters, order = inputs.write(tmp_path, cell)
    request = Files(digits[0], parameters, order, tmp_path / "scratch").opening(cell)
    with pytest.raises(Unsupported, match=why), opened(bench.worker(label), request, TIMEOUT, trained=True):
        pass
