"""Training at the size that is measured: planted faults are found, in the proof before a heat or in the run itself."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness.actions.progress import NEWS
from harness.core.cell import Cell, Target
from harness.core.model import Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec
from harness.core.training import OPTIMIZERS, OptimizerSpec, TrainingSpec
from harness.measure.evidence import Evidence
from harness.measure.lane import Lane
from harness.measure.schedule import rehearsal
from harness.measure.witness import Moment
from harness.plan import datasets, inputs, models
from harness.plan.prepare import prepare_dataset
from harness.workers import Worker
from harness.workers.cell_worker import Files

from . import untrained_backends
from .conftest import TIMEOUT, WHOLE, Bench, every_lane, paired

SMALL = ModelSpec(
    "small",
    (28, 28, 1),
    (Conv2D(4, (5, 5), strides=(3, 3), activation="relu"), MaxPool((2, 2)), Flatten(), Dropout(0.25), Dense(10)),
)
EXAMPLES = 4096

IN_PROOF = {
    "EarlyStepNotTrained": "parameters",
    "LateStepNotTrained": "parameters",
    "NowAndThenNotTrained": "parameters",
    "LastBlockNotTrained": "gradients",
    "BatchTakenTwice": "losses",
    "RowLeftOut": "losses",
    "RowRepeated": "losses",
    "WrongFrom512": "gradients",
    "LateDropMissed": "optimizer state",
    "HalfPrecisionInALayer": "gradients",
    "EvaluatesTrainingData": "test_loss",
    "FrozenAfterAnEpoch": "parameters",
    "CountsWhatItDidNotTrain": "steps counted",
    "OtherOrder": "data held",
}
"""Fault -> a quantity that tells it, at the batch size of 512."""

IN_RUN = ("LateForEver",)

FAULTY = [
    "untrained-tensorflow:graph",
    pytest.param("untrained-jax:jit", marks=pytest.mark.long),
]


def test_every_planted_fault_is_tried() -> None:
    assert set(untrained_backends.FAULTS) == {*IN_PROOF, *IN_RUN}


@pytest.fixture(scope="module")
def digits() -> tuple[Path, datasets.Dataset]:
    prepared = prepare_dataset("digits", None, NEWS)
    return prepared.folder, datasets.limited(prepared.dataset, EXAMPLES, 500)


def cell_of(target: Target, dataset: datasets.Dataset, batch_size: int = 512, epochs: int = 2, seed: int = 1) -> Cell:
    training = TrainingSpec(batch_size, epochs, OptimizerSpec("momentum"), seed=seed)
    return Cell(SMALL, training, dataset, inputs.identify(SMALL, dataset.train_examples, epochs, seed), target)


def faulty(bench: Bench, target: str, fault: str) -> tuple[Target, Worker]:
    """A target whose name tells its backend which fault to have, and its worker."""
    found = bench.target(target)
    return replace(found, name=fault, settings=fault), bench.hosts.worker(found)


@pytest.mark.parametrize("fault", IN_PROOF)
@pytest.mark.parametrize("target", FAULTY, scope="session")
def test_a_fault_of_training_fails_the_proof_at_its_size(
    bench: Bench, digits: tuple[Path, datasets.Dataset], target: str, fault: str
) -> None:
    folder, dataset = digits
    named, worker = faulty(bench, target, fault)
    found = bench.verifier.at_size.proof(cell_of(named, dataset), folder, rehearsal, lambda: worker, fresh=True)
    assert not found.problem, found.problem
    assert not found.passed
    assert IN_PROOF[fault] in {one.name for one in found.quantities if not one.passed}, found.reason


@pytest.mark.parametrize("target", FAULTY, scope="session")
def test_a_fault_of_large_batches_is_none_of_smaller_ones(
    bench: Bench, digits: tuple[Path, datasets.Dataset], target: str
) -> None:
    folder, dataset = digits
    named, worker = faulty(bench, target, "WrongFrom512")
    cell = cell_of(named, dataset, batch_size=256)
    found = bench.verifier.at_size.proof(cell, folder, rehearsal, lambda: worker, fresh=True)
    assert found.passed, found.reason


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_the_reference_itself_passes(bench: Bench, digits: tuple[Path, datasets.Dataset], batch_size: int) -> None:
    folder, dataset = digits
    target, worker = bench.reference()
    cell = cell_of(target, dataset, batch_size)
    found = bench.verifier.at_size.proof(cell, folder, rehearsal, lambda: worker, fresh=True)
    assert found.passed, found.reason or found.problem
    assert found.steps >= 12
    assert found.largest_error == 0.0
    assert found.batch_size == batch_size


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "cell").mkdir()
    return tmp_path


def trained_on(
    bench: Bench, folder: Path, worker: Worker, cell: Cell, dataset: Path, drawn: random.Random
) -> tuple[Lane, Evidence]:
    """A lane on a worker, trained to its end, and what was seen of it."""
    parameters, order = inputs.write(folder, cell)
    files = Files(dataset, parameters, order, folder / "cell")
    lane = Lane(cell, worker, files, TIMEOUT, evaluates=False)
    moment = Moment([lane], drawn)
    assert lane.open(), lane.record({}, "", 1, "").reason
    while lane.running:
        if not lane.warming:
            moment.before(lane.share, lane.is_last(), 1)
        lane.advance()
        moment.after()
    moment.finish()
    lane.close()
    shown = Evidence(None)
    shown.judge(lane, files, bench.verifier.witnesses)
    assert shown.facts.witnessed_steps > 0
    return lane, shown


class Draws(random.Random):
    """Draws this moment, and one block."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def random(self) -> float:
        return self.share

    def randint(self, a: int, b: int) -> int:
        return a


@pytest.mark.parametrize(("share", "status"), [(0.1, "ok"), (0.9, "parity_failed"), (1.0, "parity_failed")])
@pytest.mark.parametrize("target", FAULTY, scope="session")
def test_what_is_left_out_after_every_proof_is_seen_in_the_run(
    bench: Bench, scratch: Path, digits: tuple[Path, datasets.Dataset], target: str, share: float, status: str
) -> None:
    """Once the moment comes to it. With dropout on: the masks are the backend's own."""
    folder, dataset = digits
    named, worker = faulty(bench, target, "LateForEver")
    lane, _ = trained_on(bench, scratch, worker, cell_of(named, dataset, batch_size=64, epochs=4), folder, Draws(share))
    assert lane.status == status, lane.record({}, "", 1, "").reason


def seen_and_proven(bench: Bench, folder: Path, cell: Cell, dataset: Path) -> None:
    """Both the proof at the size and the witness of a run, of a real target."""
    give = partial(bench.hosts.worker, cell.target)
    found = bench.verifier.at_size.proof(cell, dataset, rehearsal, give, fresh=True)
    assert found.passed, found.reason
    assert found.steps >= 12
    lane, shown = trained_on(bench, folder, give(), cell, dataset, random.Random(cell.training.batch_size))
    record = lane.record({}, "", 1, "")
    assert (record.status, record.reason) == ("ok", "")
    assert shown.facts.counted_steps == cell.total_steps
    assert lane.inventory is not None
    assert lane.inventory.steps == lane.steps_done == cell.total_steps
    assert len(shown.facts.held) == 3
    told = [line for line in shown.facts.not_shown if not line.startswith("dropout's masks")]
    assert told == []


CASES = paired(models.names(), OPTIMIZERS)


def test_no_lane_raises_a_false_alarm(
    bench: Bench, scratch: Path, digits: tuple[Path, datasets.Dataset], lane: str
) -> None:
    """Of each lane one of the pairs that the next test tries all of, with another batch size."""
    number = every_lane().index(lane)
    model, optimizer = CASES[number % len(CASES)]
    seen_and_proven(bench, scratch, real_cell(bench, lane, model, optimizer, 24 + number, digits[1]), digits[0])


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "optimizer", "batch_size"), [(*pair, (33, 1, 128)[n % 3]) for n, pair in enumerate(CASES)]
)
@pytest.mark.parametrize("target", WHOLE)
def test_no_model_optimizer_or_batch_size_raises_a_false_alarm(
    bench: Bench,
    scratch: Path,
    digits: tuple[Path, datasets.Dataset],
    target: str,
    model: str,
    optimizer: str,
    batch_size: int,
) -> None:
    seen_and_proven(bench, scratch, real_cell(bench, target, model, optimizer, batch_size, digits[1]), digits[0])


def real_cell(bench: Bench, lane: str, model: str, optimizer: str, batch_size: int, dataset: datasets.Dataset) -> Cell:
    spec, few = models.load(model), replace(dataset, train_examples=12 * batch_size, test_examples=100)
    training = TrainingSpec(batch_size, 2, OptimizerSpec(optimizer), seed=1)
    drawn = inputs.identify(spec, few.train_examples, training.epochs, training.seed)
    return Cell(spec, training, few, drawn, bench.target(lane))
