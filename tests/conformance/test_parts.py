"""The parts of a step, in every mode of every backend, give what the reference makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis import traces
from harness.core import parts
from harness.core.cell import Cell, Dataset, Inputs
from harness.core.errors import Unsupported
from harness.core.messages import Part, PartTimed, Probe, Trace, Traced, Train
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ModelSpec,
)
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.measure.session import REFERENCE
from harness.plan import inputs
from harness.proof import parts as part_values
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder, load_probed, opened
from harness.workers import Worker

from .conftest import TIMEOUT, Bench

BATCH, STEPS = 16, 3
MODEL = ModelSpec(
    "all-parts",
    (16, 16, 1),
    (
        Conv2D(4, (4, 4), activation="relu"),
        MaxPool((2, 2)),
        Conv2D(5, (3, 3), padding="same"),
        BatchNorm(),
        Activation("relu"),
        AveragePool((3, 3), strides=(2, 2), padding="same"),
        Dropout(0.25),
        MaxPool((2, 2), strides=(1, 1)),
        Flatten(),
        Dense(12, activation="tanh"),
        Dropout(0.5),
        Dense(6),
    ),
)
POOLED = ModelSpec("pooled", (8, 8, 2), (MaxPool((2, 2)), Conv2D(3, (2, 2)), GlobalAveragePool(), Dense(4)))
"""Begins with a layer that never goes backward."""

PRECISIONS = {"float32": "momentum", "mixed_bfloat16": "adam", "mixed_float16": "sgd"}

Values = dict[str, NDArray[Any]]


def probe_of(bench: Bench, label: str, model: ModelSpec, precision: str, optimizer: str) -> ProbeCell:
    generator = np.random.default_rng(3)
    images = generator.random((BATCH * STEPS, *model.input_shape), dtype=np.float32)
    labels = generator.integers(0, model.classes, len(images)).astype(np.int32)
    dataset = Dataset("parts", "", len(images), len(images), model.input_shape, model.classes)
    training = TrainingSpec(BATCH, 2, OptimizerSpec(optimizer), precision=precision)
    order = np.stack([generator.permutation(len(images)) for _ in range(2)]).astype(np.int32)
    cell = Cell(model, training, dataset, Inputs("", ""), bench.target(label))
    return ProbeCell(cell, images, labels, images, labels, inputs.draw_parameters(model, seed=0), order)


@contextmanager
def open_cell(bench: Bench, folder: Path, probe: ProbeCell, worker: Worker) -> Iterator[Path]:
    with ProbeFolder(folder, probe) as files, opened(worker, files.request, TIMEOUT):
        yield files.path


def ask(worker: Worker, folder: Path, cell: Cell, asked: tuple[str, str]) -> Values:
    """What a part gives; it is timed as well."""
    given, output = folder / "given.npz", folder / "part.npz"
    inputs.save_arrays(given, part_values.given(cell, asked[0]))
    timed = worker.ask(Part(*asked, calls=2, settle=1, given=str(given), output=str(output)), TIMEOUT)
    assert isinstance(timed, PartTimed)
    assert timed.calls == 2
    assert timed.seconds > 0
    again = worker.ask(Part(*asked, calls=3), TIMEOUT)  # what it was given it keeps
    assert isinstance(again, PartTimed)
    assert again.calls == 3
    return load_probed(output)


def faults(bench: Bench, label: str, model: ModelSpec, precision: str, optimizer: str) -> list[str]:
    """What is wrong with the parts of one target, each in a line."""
    probe = probe_of(bench, label, model, precision, optimizer)
    own = replace(
        probe.cell, target=bench.target(REFERENCE), training=replace(probe.cell.training, precision="float32")
    )
    expected: dict[tuple[str, str], Values] = {}
    reference = bench.hosts.worker(bench.target(REFERENCE), 1)
    with open_cell(bench, bench.folder / "parts-reference", replace(probe, cell=own), reference) as folder:
        for asked in parts.askable(model):
            expected[asked] = ask(reference, folder, own, asked)
    worker, found = bench.worker(label), []
    with open_cell(bench, bench.folder / "parts", probe, worker) as folder:
        for asked in parts.askable(model):
            drawn = part_values.given(probe.cell, asked[0])
            quantities = part_values.compare(
                probe.cell, *asked, drawn, expected[asked], ask(worker, folder, probe.cell, asked)
            )
            assert quantities or asked[0] == parts.DISPATCH
            found += [one.fault for one in quantities if not one.passed]
    return found


def test_parts_of_a_lane_give_what_the_reference_makes_of_them(bench: Bench, lane: str) -> None:
    assert faults(bench, lane, MODEL, "float32", PRECISIONS["float32"]) == []


def test_a_first_layer_without_parameters_goes_forward_only(bench: Bench, lane: str) -> None:
    assert faults(bench, lane, POOLED, "float32", "nesterov") == []


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("label", ["tensorflow-cpu:graph", "tensorflow-cpu:fit", "jax-cpu:jit"])
def test_parts_in_mixed_precision_are_as_near_as_parity_allows(bench: Bench, label: str, precision: str) -> None:
    assert faults(bench, label, MODEL, precision, PRECISIONS[precision]) == []


def test_input_from_the_host_picks_the_same_batch(bench: Bench) -> None:
    for label in ("jax-cpu:jit@input=host", "tensorflow-cpu:graph@input=host"):
        assert faults(bench, label, POOLED, "float32", "sgd") == []


def test_training_goes_on_as_if_no_part_had_run(bench: Bench) -> None:
    """Parts share the cell's layers: parameters, order and dropout's place are left as they were."""
    model = replace(MODEL, layers=tuple(one for one in MODEL.layers if not isinstance(one, (Dropout, BatchNorm))))
    for label in ("tensorflow-cpu:graph", "jax-cpu:jit"):
        probe = probe_of(bench, label, model, "float32", "momentum")
        ended: list[Values] = []
        for with_parts in (False, True):
            worker = bench.worker(label)
            with open_cell(bench, bench.folder / "parts-between", probe, worker) as folder:
                for asked in parts.askable(model) if with_parts else ():
                    ask(worker, folder, probe.cell, asked)
                worker.ask(Probe(STEPS, str(folder / "probed.npz")), TIMEOUT)
                ended.append(load_probed(folder / "probed.npz"))
        assert ended[0].keys() == ended[1].keys()
        for name, array in ended[0].items():
            assert (ended[1][name] == array).all(), f"{label}: {name}"


def test_a_backend_without_the_verb_is_refused_in_one_line(bench: Bench, tmp_path: Path) -> None:
    probe = probe_of(bench, REFERENCE, POOLED, "float32", "sgd")
    with bench.planted(tmp_path, "slow_backends:Untold") as worker, ProbeFolder(tmp_path / "cell", probe) as files:
        worker.open(files.request, TIMEOUT)
        with pytest.raises(Unsupported, match=r"^the backend untold cannot run the parts of a step on their own$"):
            worker.ask(Part(parts.DISPATCH, parts.FORWARD, 1), TIMEOUT)


@pytest.mark.parametrize("label", ["tensorflow-cpu:graph", "tensorflow210-cpu:graph", "jax-cpu:jit"])
def test_a_framework_s_profile_of_some_steps_names_its_operations(bench: Bench, tmp_path: Path, label: str) -> None:
    probe, worker = probe_of(bench, label, POOLED, "float32", "sgd"), bench.worker(label)
    with open_cell(bench, bench.folder / "traced", probe, worker):
        worker.ask(Train(1), TIMEOUT)
        traced = worker.ask(Trace(2, str(tmp_path / "profile")), TIMEOUT)
    assert isinstance(traced, Traced)
    assert traced.steps == 2
    [profile] = (tmp_path / "profile").rglob("*.xplane.pb")
    operations = traces.costliest(traces.events(profile.read_bytes()), 10)
    assert 5 <= len(operations) <= 10
    assert all(one.count and one.seconds > 0 for one in operations)
    if label.startswith("tensorflow"):
        assert any("Conv2D" in one.name for one in operations)


def test_a_backend_without_a_profiler_says_so_in_one_line(bench: Bench, tmp_path: Path) -> None:
    probe = probe_of(bench, REFERENCE, POOLED, "float32", "sgd")
    with bench.planted(tmp_path, "slow_backends:Untold") as worker, ProbeFolder(tmp_path / "cell", probe) as files:
        worker.open(files.request, TIMEOUT)
        with pytest.raises(Unsupported, match=r"^the backend untold has no profiler$"):
            worker.ask(Trace(1, str(tmp_path / "profile")), TIMEOUT)
