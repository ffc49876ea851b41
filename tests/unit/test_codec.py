"""The codec: what goes out comes back equal, equal values have equal text on every Python, damage is told."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core import codec, messages
from harness.core.cell import ID_LENGTH, Cell, Dataset, Inputs, Target
from harness.core.errors import ContractError
from harness.core.model import Conv2D, Dense, ModelSpec
from harness.core.record import Blocks, Epoch, Phases, Record
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from tests.unit.strategies import cells, instances, json_values, models, no_deadline, targets, trainings

ROOT = Path(__file__).resolve().parents[2]

GOLDEN = """
import json
from harness.core import codec
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.model import *
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec

model = ModelSpec("mod\\u00e8le-\\u2211", (28, 28, 1), (
    Conv2D(32, (4, 3), strides=(2, 1), padding="same", activation="relu", bias=False), BatchNorm(0.99, 1e-05),
    Activation("tanh"), MaxPool((2, 2)), AveragePool((2, 3), strides=(1, 1)), Flatten(), Dropout(1 / 3), Dense(10)))
training = TrainingSpec(64, 3, OptimizerSpec("adam", epsilon=1e-300), LearningRate(0.1 + 0.2, (1, 2), 1e22), 2**31 - 1)
dataset = Dataset("digits", "ab" * 32, 60000, 10000, (28, 28, 1), 10)
target = Target("jax-cpu", "jax_flax", "cpu", "jit", "host", "python:/opt/\\u00e9", cpus=2)
cell = Cell(model, training, dataset, Inputs("01" * 32, "23" * 32), target, repeat=7)
parts = {part.__class__.__name__: codec.digest(part) for part in (model, training, dataset, target, cell)}
floats = [0.1, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 123456789.123456789, 1.0, 100000000000000000000.0]
print(json.dumps({**parts, "work_id": cell.work_id, "cell_id": cell.cell_id, "floats": codec.digest(floats)}))
"""
"""A script that prints digests of values whose text could differ between Pythons."""

GOLDEN_DIGESTS = {
    "ModelSpec": "92debf60c0e6b051875c03146bc4f975009eac5064ddb20fb9bbabf58d3fd5e9",
    "TrainingSpec": "e99686744c058efcbd0d8d2fd5106791a0c56e06f366d681b0dba2ddd4df5bed",
    "Dataset": "ea66c2c20262925f26aed7792fe561e3fd158ad9df2aab05692e17e999f3048c",
    "Target": "a86459c71847626e363a064d5b4f3106ac7cdfa3793acd4b373dc40dce5e1852",
    "Cell": "2d9033b57583ea90e4808336edfbd798ea17df76bad287ca1d4982bbf0056719",
    "work_id": "125879a4c7832ba4",
    "cell_id": "f2f0af1ecc7153bf",
    "floats": "b22df6c4f132146a519db6c1bc9f519e965f9d3e168db2c81aecd7c72659b832",
}
"""What it prints, for as long as SCHEMA_VERSION is 1: a change here breaks the resuming of every stored run."""


def through_json(value: Any) -> Any:
    """To text and back, as files and pipes do it."""
    return codec.from_json(type(value), json.loads(json.dumps(codec.to_json(value), allow_nan=False)))


def same(left: Any, right: Any) -> bool:
    """Equality that lets NaN equal NaN and tells 0.0 from -0.0 and 1 from 1.0."""
    if dataclasses.is_dataclass(left):
        fields = dataclasses.fields(left)
        return type(left) is type(right) and all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float):
        return isinstance(right, float) and (repr(left) == repr(right))
    return type(left) is type(right) and left == right


@no_deadline
@given(st.one_of(models(), trainings, targets, cells()))
def test_specs_and_cells_survive_the_round_trip(value: Any) -> None:
    back = through_json(value)
    assert back == value
    assert codec.digest(back) == codec.digest(value)


@no_deadline
@given(cells())
def test_ids_survive_the_round_trip_and_split_work_from_target(cell: Cell) -> None:
    back = through_json(cell)
    assert (back.work_id, back.cell_id) == (cell.work_id, cell.cell_id)
    assert len(cell.cell_id) == len(cell.work_id) == ID_LENGTH
    elsewhere = dataclasses.replace(cell, target=dataclasses.replace(cell.target, device=cell.target.device + 1))
    again = dataclasses.replace(cell, repeat=cell.repeat + 1)
    assert elsewhere.work_id == again.work_id == cell.work_id
    assert len({cell.cell_id, elsewhere.cell_id, again.cell_id}) == 3
    training = dataclasses.replace(cell.training, seed=cell.training.seed + 1)
    assert dataclasses.replace(cell, training=training).work_id != cell.work_id


@settings(no_deadline, max_examples=50)
@given(instances(Record))
def test_records_survive_the_round_trip_nan_and_infinity_included(record: Record) -> None:
    assert same(through_json(record), record)


@pytest.mark.parametrize("cls", [*messages.REQUESTS, *messages.REPLIES], ids=lambda cls: cls.__name__)
def test_messages_survive_the_round_trip_as_one_ascii_line(cls: type) -> None:
    decode = messages.decode_request if cls in messages.REQUESTS else messages.decode_reply

    @settings(no_deadline, max_examples=25)
    @given(instances(cls))
    def check(message: Any) -> None:
        line = messages.encode(message)
        assert line.isascii()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert same(decode(line), message)

    check()


@no_deadline
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_a_contract_error_of_one_line_and_nothing_else(line: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_reply):
        with pytest.raises(ContractError) as caught:
            decode(line)
        assert "\n" not in str(caught.value)


@no_deadline
@given(instances(messages.Opened), st.data())
def test_message_with_a_key_removed_added_or_of_another_type_is_refused(message: Any, data: st.DataObject) -> None:
    plain = codec.to_json(message)
    key = data.draw(st.sampled_from([key for key in plain if key != "kind"]))
    for damaged in (
        {name: value for name, value in plain.items() if name != key},
        {**plain, key: [None]},
        {**plain, key + "x": 1},
    ):
        with pytest.raises(ContractError, match=key):
            messages.decode_reply(json.dumps(damaged).encode())


@no_deadline
@given(st.dictionaries(st.text(), json_values), st.randoms())
def test_canonical_text_ignores_the_order_of_keys_and_is_ascii(value: dict[str, Any], generator: random.Random) -> None:
    keys = list(value)
    generator.shuffle(keys)
    text = codec.canonical(value)
    assert codec.canonical({key: value[key] for key in keys}) == text
    assert text.isascii()
    assert json.loads(text) == value


def test_whole_number_in_a_float_field_has_the_digest_of_the_float() -> None:
    assert codec.digest(LearningRate(base=1)) == codec.digest(LearningRate(base=1.0))


def test_non_finite_floats_travel_as_words() -> None:
    block = messages.Block(1, 0.5, math.inf, -math.inf, [math.nan])
    assert codec.to_json(block) == {
        "kind": "block",
        "steps": 1,
        "started": 0.5,
        "seconds": "Infinity",
        "cpu_seconds": "-Infinity",
        "losses": ["NaN"],
        "settle": 0,
        "settle_seconds": 0.0,
        "idle_cpu_seconds": 0.0,
        "preempted": None,
        "stolen_seconds": None,
        "rest_seconds": 0.0,
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (3, r"TrainingSpec: expected an object \(TrainingSpec\), found 3"),
        ({}, "TrainingSpec: missing key 'batch_size'"),
        ({"batch_size": "8"}, r"TrainingSpec\.batch_size: expected an integer, found '8'"),
        ({"batch_size": True}, r"TrainingSpec\.batch_size: expected an integer, found True"),
        ({"batch_size": 8, "batches": 1}, "TrainingSpec: unknown key 'batches'"),
        ({"batch_size": 8, "optimizer": {"momentum": "x"}}, r"TrainingSpec\.optimizer\.momentum: expected a number"),
        ({"batch_size": 8, "learning_rate": {"drop_epochs": [1, 2.5]}}, r"drop_epochs\[1\]: expected an integer"),
    ],
)
def test_mismatch_names_the_path(data: Any, expected: str) -> None:
    with pytest.raises(ContractError, match=expected):
        codec.from_json(TrainingSpec, data)


def test_unknown_layer_is_refused_with_the_known_ones() -> None:
    plain = codec.to_json(ModelSpec("m", (4, 4, 1), (Conv2D(1, (2, 2)), Dense(1))))
    plain["layers"][1]["kind"] = "lstm"
    with pytest.raises(ContractError, match=r"layers\[1\]: expected an object whose kind is one of .*conv2d.*'lstm'"):
        codec.from_json(ModelSpec, plain)


def a_record() -> Record:
    cell = Cell(
        ModelSpec("m", (4, 4, 1), (Conv2D(1, (2, 2)), Dense(1))),
        TrainingSpec(8, optimizer=OptimizerSpec("sgd")),
        Dataset("digits", "0" * 64, 16, 8, (4, 4, 1), 1),
        Inputs("1" * 64, "2" * 64),
        Target("reference", "reference", "cpu", "numpy", "resident", "here"),
    )
    return Record(
        cell, cell.cell_id, cell.work_id, "ok", phases=Phases(train=0.5), blocks=Blocks(mean_loss=[math.nan]),
        epochs=(Epoch(0, 1.0, 2.0, 0.5, 0.1),),
    )  # fmt: skip


def test_file_round_trip_carries_the_schema_version(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    codec.write_json(path, a_record())
    assert json.loads(path.read_text())["schema_version"] == codec.SCHEMA_VERSION
    assert same(codec.read_json(path, Record), a_record())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not JSON"),
        ('{"schema_version": 1, "cell"', "not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"schema_version": 99}', "schema version 99, this harness reads 1"),
        ("{}", "schema version None, this harness reads 1"),
        ('{"schema_version": 1}', "missing key 'cell'"),
    ],
)
def test_damaged_file_is_told_by_its_name(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ContractError, match=expected) as caught:
        codec.read_json(path, Record)
    assert str(caught.value).startswith(str(path))


def test_file_cut_anywhere_is_a_contract_error(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    codec.write_json(path, a_record())
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ContractError):
            codec.read_json(path, Record)


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    codec.write_atomically(path, "old")

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        codec.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def interpreters() -> dict[str, str]:
    """The supported Pythons on this machine: version -> executable."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found: dict[str, str] = {}
    for version in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        places = [*sorted(pyenv.glob(f"versions/{version}.*/bin/python")), shutil.which(f"python{version}")]
        for place in places:
            # A pyenv shim for a version that is not chosen is found, but does not run.
            answers = place and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0
            if answers:
                found[version] = str(place)
                break
    return {**found, f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}


def test_golden_digests_are_the_same_on_every_python() -> None:
    pythons = interpreters()
    for version, python in pythons.items():
        # -S leaves site-packages out: the contract needs nothing but the standard library.
        run = subprocess.run(
            [python, "-S", "-c", GOLDEN], cwd=ROOT, capture_output=True, check=False, text=True, encoding="utf-8"
        )
        assert run.returncode == 0, f"Python {version}: {run.stderr}"
        assert json.loads(run.stdout) == GOLDEN_DIGESTS, f"Python {version}"
    if len(pythons) == 1:
        pytest.skip(f"digests are as expected; only Python {next(iter(pythons))} is here to compare")
