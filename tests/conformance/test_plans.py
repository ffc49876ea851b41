"""A batch size that changes: every backend trains it as the reference does, and what may go wrong at a change is seen.

The proof of a plan trains each of its sizes alone and then the plan, block by block, and the reference does each block
again from the target's own state: so a change is a restart from the state at it, with another batch size.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.actions.progress import NEWS
from harness.analysis import blocks
from harness.core.cell import Cell, Target
from harness.core.errors import Unsupported
from harness.core.messages import Block, Compile, Compiled, Snapshot, Train
from harness.core.model import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec, without_dropout
from harness.core.training import STEP, LearningRate, OptimizerSpec, TrainingSpec
from harness.measure.schedule import rehearsal
from harness.plan import datasets, inputs
from harness.plan.prepare import prepare_dataset
from harness.proof.probing import load_probed, opened
from harness.workers.cell_worker import Files

from . import planned_backends
from .conftest import TIMEOUT, Bench
from .test_training_at_its_size import trained_on

MODEL = ModelSpec(
    "small",
    (28, 28, 1),
    (
        Conv2D(4, (5, 5), strides=(3, 3), bias=False),
        BatchNorm(),
        MaxPool((2, 2)),
        Flatten(),
        Dropout(0.25),
        Dense(10),
    ),
)
EXAMPLES, CHANGES = 100, ((1, 24), (2, 12))
LANES = [
    *("reference", "jax-cpu:jit", "tensorflow-cpu:graph", "tensorflow-cpu:graph@input=host", "tensorflow210-cpu:graph"),
    *(pytest.param(lane, marks=pytest.mark.long) for lane in ("jax-cpu:jit@input=host", "tensorflow-cpu:xla")),
]

FAULTS = {
    "RateNotChanged": "parameters",
    "RowLost": "losses",
    "StepLost": "parameters",
    "SumForMean": "parameters",
    "MomentumReset": "optimizer state",
    "PreparationTrains": "parameters",
    "RowsShifted": "losses",
}
"""Fault -> a quantity that tells it."""


@pytest.fixture(scope="module")
def digits() -> tuple[Path, datasets.Dataset]:
    prepared = prepare_dataset("digits", None, NEWS)
    return prepared.folder, datasets.limited(prepared.dataset, EXAMPLES, 100)


def cell_of(target: Target, dataset: datasets.Dataset, optimizer: str = "momentum", model: ModelSpec = MODEL) -> Cell:
    rate = LearningRate(0.02, drop_epochs=(2,), factor=0.3, scaling="linear", base_batch_size=8)
    training = TrainingSpec(8, 3, OptimizerSpec(optimizer), rate, seed=1, batch_changes=CHANGES)
    drawn = inputs.identify(model, dataset.train_examples, training.epochs, training.seed)
    return Cell(model, training, dataset, drawn, target)


@pytest.mark.parametrize("label", LANES, scope="session")
def test_a_plan_is_proven_size_by_size_and_across_its_changes_and_seen_in_the_run(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    (tmp_path / "cell").mkdir()
    cell = cell_of(bench.target(label), digits[1])
    give = partial(bench.hosts.worker, cell.target)
    found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, give, fresh=True)
    assert found.passed, found.reason
    assert found.batch_plan == "8>24>12"
    lane, shown = trained_on(bench, tmp_path, give(), cell, digits[0], random.Random(3))
    record = lane.record({}, "", 1, "")
    assert (record.status, record.reason) == ("ok", "")
    assert shown.facts.counted_steps == cell.total_steps == 12 + 4 + 8
    assert [one.batch_size for one in record.compilations] == [8, 24, 12]
    sizes = blocks.sizes_of(cell, record.blocks.steps, record.blocks.settle)
    assert dict(zip(record.blocks.epoch, sizes.tolist(), strict=True)) == {0: 8, 1: 24, 2: 12}


@pytest.mark.parametrize("label", ["reference", "jax-cpu:jit", "tensorflow-cpu:graph"], scope="session")
def test_a_change_within_an_epoch_is_proven_and_seen_in_the_run(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    (tmp_path / "cell").mkdir()
    by_epochs = cell_of(bench.target(label), digits[1])
    changes = replace(by_epochs.training, batch_changes=((15, 24), (18, 12)), batch_changes_by=STEP)
    cell = replace(by_epochs, training=changes)
    assert cell.training.epoch_sizes(EXAMPLES) == (((12, 8),), ((3, 8), (3, 24)), ((8, 12),))
    give = partial(bench.hosts.worker, cell.target)
    found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, give, fresh=True)
    assert found.passed, found.reason
    lane, shown = trained_on(bench, tmp_path, give(), cell, digits[0], random.Random(3))
    record = lane.record({}, "", 1, "")
    assert (record.status, record.reason) == ("ok", "")
    assert shown.facts.counted_steps == cell.total_steps == 26
    taken = np.array(record.blocks.steps) + np.array(record.blocks.settle)
    sizes = blocks.sizes_of(cell, record.blocks.steps, record.blocks.settle)
    assert {size: taken[sizes == size].sum() for size in (8, 24, 12)} == {8: 15, 24: 3, 12: 8}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_a_change_fails_the_proof(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], fault: str
) -> None:
    target = Target(fault, fault, "cpu", "numpy", "resident", f"python:{sys.executable}")
    cell = cell_of(target, digits[1], model=without_dropout(MODEL))
    with bench.planted(tmp_path, f"planned_backends:{fault}") as worker:
        found = bench.verifier.at_size.proof(cell, digits[0], rehearsal, lambda: worker, fresh=True)
    assert not found.problem, found.problem
    assert not found.passed
    assert FAULTS[fault] in {one.name for one in found.quantities if not one.passed}, found.reason


def test_every_fault_at_a_change_is_tried() -> None:
    defined = {name for name, cls in vars(planned_backends).items() if hasattr(cls, "Session")}
    accumulated = "MicrobatchesSummed"  # of which test_microbatches.py tells
    assert {name for name in defined if not name.startswith("_")} == {*FAULTS, accumulated}


@pytest.mark.parametrize("label", LANES, scope="session")
def test_a_change_is_a_restart_from_the_state_there(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str
) -> None:
    """By sgd, whose whole state is parameters: the second piece alone, begun with what the first left."""
    model = ModelSpec("plain", MODEL.input_shape, (Conv2D(4, (5, 5), strides=(3, 3)), Flatten(), Dense(10)))
    cell = cell_of(bench.target(label), digits[1], "sgd", model)
    parameters, order = inputs.write(tmp_path, cell)
    states = {}
    give, scratch = bench.hosts.worker(cell.target), tmp_path / "scratch"
    with opened(give, Files(digits[0], parameters, order, scratch).opening(cell), TIMEOUT, trained=True) as (worker, _):
        for name, request in (
            *(("", Train(5)), ("before", Snapshot), ("", Compile(24)), ("prepared", Snapshot)),
            *(("", Train(7)), ("change", Snapshot), ("", Train(4)), ("after", Snapshot)),
        ):
            path = tmp_path / f"{name}.npz"
            answer = worker.ask(Snapshot(str(path)) if request is Snapshot else request, TIMEOUT)
            assert name or isinstance(answer, (Block, Compiled))
            states |= {name: load_probed(path)} if name else {}
    for key, array in states["before"].items():
        np.testing.assert_array_equal(states["prepared"][key], array, err_msg=key)

    change = {key: array.astype(np.float32) for key, array in states["change"].items() if "parameter/" in key}
    own = {key.removeprefix("parameter/"): array for key, array in change.items()}
    inputs.save_arrays(tmp_path / "parameters.npz", own)
    inputs.save_array(tmp_path / "order.npy", np.load(order)[1:2])
    training = TrainingSpec(24, 1, OptimizerSpec("sgd"), LearningRate(0.06))
    alone = Cell(model, training, cell.dataset, cell.inputs, cell.target)
    files = Files(digits[0], tmp_path / "parameters.npz", tmp_path / "order.npy", scratch)
    with opened(give, files.opening(alone), TIMEOUT, trained=True) as (worker, _):
        worker.ask(Train(4), TIMEOUT)
        worker.ask(Snapshot(str(tmp_path / "alone.npz")), TIMEOUT)
    found = load_probed(tmp_path / "alone.npz")
    for key in own:
        np.testing.assert_allclose(found[f"parameter/{key}"], states["after"][f"parameter/{key}"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("tensorflow-cpu:fit", "Model.fit compiles a batch size when it first meets it"),
        ("jax-cpu:jit@steps_per_call=2", "a call has one step"),
    ],
    scope="session",
)
def test_who_cannot_train_a_plan_refuses_it(
    bench: Bench, tmp_path: Path, digits: tuple[Path, datasets.Dataset], label: str, why: str
) -> None:
    cell = cell_of(bench.target(label), digits[1])
    parameters, order = inputs.write(tmp_path, cell)
    request = Files(digits[0], parameters, order, tmp_path / "scratch").opening(cell)
    with pytest.raises(Unsupported, match=why), opened(bench.worker(label), request, TIMEOUT, trained=True):
        pass
