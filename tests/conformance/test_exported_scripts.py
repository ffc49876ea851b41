"""Exported scripts, run as a stranger would: by the target's interpreter, with no harness, from another folder.

Each lane trains cells as a sweep does; the script of each cell must then print the losses of its record.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.actions import cell as action
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.model import Dense
from harness.core.record import Record, now
from harness.core.training import EPOCH, STEP, LearningRate, OptimizerSpec, TrainingSpec
from harness.measure.lane import Lane
from harness.plan import datasets, inputs, models
from harness.plan.datasets import Prepared
from harness.runs import folder as run_folder
from harness.workers import environments
from harness.workers.cell_worker import Files
from harness.workers.interpreters import clean_variables

from .conftest import TIMEOUT, Bench
from .test_parity import UNUSUAL

TRAIN_EXAMPLES, TEST_EXAMPLES = 200, 120
SAME = 1e-6
"""Largest difference of a loss on one machine: the same operations, but for the sums that means are taken of."""

SAME_BUT_FOR_ADAM = 2e-5
"""The same where Keras 3's Adam stands for TensorFlow's fused operation: see ``harness.export.script.nearness``."""

MODELS = {
    "unusual": dataclasses.replace(UNUSUAL, input_shape=(28, 28, 1), layers=(*UNUSUAL.layers[:-1], Dense(10))),
    **{name: models.load(name) for name in models.names()},
}
EVERY_LAYER = TrainingSpec(16, 2, OptimizerSpec("adam"), LearningRate(0.02, drop_epochs=(1,)), seed=3)
PLAIN = [
    "tensorflow-cpu:graph",
    "tensorflow210-cpu:graph",
    "jax-cpu:jit",
    *(
        pytest.param(f"{target}:{mode}", marks=pytest.mark.long)
        for target in ("tensorflow-cpu", "tensorflow210-cpu")
        for mode in ("xla", "fit")
    ),
]
"""A mode of each framework; the others write the same lines of a network, and show with every kind of layer that
their loop is right."""

OTHERS = [
    ("tensorflow-cpu:graph@input=host", "deep-bn", "mixed_bfloat16"),
    ("tensorflow-cpu:fit@cpus=1", "lenet5", "mixed_float16"),
    ("tensorflow210-cpu:graph", "unusual", "mixed_float16"),  # slow on processors, so on a small model
    ("jax-cpu:jit@input=host@cpus=1", "lenet5", "mixed_float16"),
]
"""Precisions, inputs and processors, each once."""

ROW = re.compile(r"^ +\d+((?: +\d+\.\d{7}){6}) +[\d,]+$", re.MULTILINE)


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return datasets.prepare("digits")


def test_a_script_prints_the_losses_of_its_record(bench: Bench, lane: str, digits: Prepared, tmp_path: Path) -> None:
    if bench.target(lane).all_options:
        record = _trained(bench, lane, "unusual", EVERY_LAYER, digits, tmp_path)
        with pytest.raises(UsageError, match="cannot be exported"):
            _exported(bench, record, tmp_path)
        return
    record, printed = _both(bench, lane, "unusual", EVERY_LAYER, digits, tmp_path)
    other_adam = lane in ("tensorflow-cpu:graph", "tensorflow-cpu:xla", "tensorflow-cpu-tuned:graph")
    _assert_same(record, printed, SAME_BUT_FOR_ADAM if other_adam else SAME)


@pytest.mark.parametrize("label", PLAIN)
def test_a_script_of_a_built_in_model_prints_them(bench: Bench, label: str, digits: Prepared, tmp_path: Path) -> None:
    record, printed = _both(bench, label, "mnist-cnn", TrainingSpec(32, 2, OptimizerSpec("momentum")), digits, tmp_path)
    _assert_same(record, printed)


@pytest.mark.long
@pytest.mark.parametrize(("label", "model", "precision"), OTHERS, ids=[label for label, *_ in OTHERS])
def test_a_script_prints_them_in_mixed_precisions_too(
    bench: Bench, label: str, model: str, precision: str, digits: Prepared, tmp_path: Path
) -> None:
    training = TrainingSpec(32, 2, OptimizerSpec("nesterov"), precision=precision)
    record, printed = _both(bench, label, model, training, digits, tmp_path)
    _assert_same(record, printed)


@pytest.mark.parametrize(
    ("label", "by", "changes"),
    [
        ("tensorflow-cpu:graph", EPOCH, ((1, 32), (2, 16))),
        ("tensorflow-cpu:graph", STEP, ((5, 32), (14, 16))),
        ("jax-cpu:jit", EPOCH, ((1, 32), (2, 16))),
        ("jax-cpu:jit@input=host", STEP, ((5, 32), (14, 16))),
    ],
)
def test_a_script_changes_the_batch_size_where_its_cell_does(
    bench: Bench, label: str, by: str, changes: tuple[tuple[int, int], ...], digits: Prepared, tmp_path: Path
) -> None:
    rate = LearningRate(0.02, drop_epochs=(2,), scaling="linear")
    training = TrainingSpec(16, 3, OptimizerSpec("momentum"), rate, batch_changes=changes, batch_changes_by=by)
    record, printed = _both(bench, label, "unusual", training, digits, tmp_path)
    _assert_same(record, printed)


@pytest.mark.parametrize("label", ["jax-cpu:jit"])
def test_a_script_that_does_other_work_prints_a_difference(
    bench: Bench, label: str, digits: Prepared, tmp_path: Path
) -> None:
    training = TrainingSpec(32, 2, OptimizerSpec("sgd"))
    script = _exported(bench, _trained(bench, label, "mnist-cnn", training, digits, tmp_path), tmp_path)
    script.write_text(script.read_text().replace("learning_rate = 0.01\n", "learning_rate = 0.011\n"))
    assert max(_differences(_run(bench, label, script))[:2]) > 100 * SAME


def _both(
    bench: Bench, label: str, model: str, training: TrainingSpec, digits: Prepared, folder: Path
) -> tuple[Record, str]:
    """The record of a cell, and what its script prints."""
    record = _trained(bench, label, model, training, digits, folder)
    return record, _run(bench, label, _exported(bench, record, folder))


def _trained(bench: Bench, label: str, model: str, training: TrainingSpec, digits: Prepared, folder: Path) -> Record:
    """The record of a cell that a live worker trained, in a run folder of its own."""
    spec = MODELS[model]
    cell = Cell(
        model=spec,
        training=training,
        dataset=datasets.limited(digits.dataset, TRAIN_EXAMPLES, TEST_EXAMPLES),
        inputs=inputs.identify(spec, TRAIN_EXAMPLES, training.epochs, training.seed),
        target=bench.target(label),
    )
    run = run_folder.Run.create(folder / "run", run_folder.Plan("test", "harness sweep", now(), "0.1.0", (cell,)))
    parameters, order = inputs.write(run.inputs_folder, cell)
    lane = Lane(cell, bench.worker(label), Files(digits.folder, parameters, order, folder / "work"), TIMEOUT)
    going = lane.open()
    while going:
        going = lane.advance()
    lane.close()
    record = lane.record({}, "", 1, "")
    assert record.status == "ok", record.reason
    with run.locked():
        run.save(record)
    return record


def _exported(bench: Bench, record: Record, folder: Path) -> Path:
    """The script, where its two files alone were sent to."""
    action.export_cell(folder / "run", record.cell_id[:8], folder / "sent.py")
    received = folder / "received"
    received.mkdir()
    for name in ("sent.py", "sent.npz"):
        shutil.move(folder / name, received / name)
    shutil.rmtree(folder / "run")
    return received / "sent.py"


def _run(bench: Bench, label: str, script: Path) -> str:
    python = environments.ensure(bench.definitions[label.partition(":")[0]])
    done = subprocess.run(
        [python, str(script)], cwd=script.parents[1], env=clean_variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _assert_same(record: Record, printed: str, same: float = SAME) -> None:
    rows = [[float(number) for number in row.split()] for row in ROW.findall(printed)]
    assert len(rows) == len(record.epochs) == record.cell.training.epochs > 1, printed
    for row, epoch in zip(rows, record.epochs, strict=True):
        recorded = (epoch.train_loss, epoch.test_loss, epoch.test_accuracy)
        assert row[1::2] == pytest.approx(recorded, abs=1e-7)
        assert row[::2] == pytest.approx(recorded, abs=same)
    assert max(_differences(printed)) <= same, printed


def _differences(printed: str) -> tuple[float, ...]:
    found = re.search(r"^largest difference: training loss (\S+), test loss (\S+), accuracy (\S+)$", printed, re.M)
    assert found is not None, printed
    return tuple(float(number) for number in found.groups())
