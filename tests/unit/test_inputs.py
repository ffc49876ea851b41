"""Initial parameters and order: what is drawn, and that only what was planned is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.cell import Cell
from harness.core.errors import StoreError
from harness.core.training import TrainingSpec
from harness.plan import inputs, models
from tests.unit.builders import reference_target, small_cell


@pytest.fixture
def cell() -> Cell:
    model = models.load("lenet5")
    made = small_cell(model, TrainingSpec(batch_size=4, epochs=3, seed=5), 20, 4, reference_target())
    return replace(made, inputs=inputs.identify(model, 20, 3, 5))


def test_kernels_fill_the_glorot_interval_and_the_rest_is_constant() -> None:
    drawn = inputs.draw_parameters(models.load("deep-bn"), seed=0)
    kernel = drawn["04_conv2d/kernel"]
    limit = np.sqrt(6 / (9 * (kernel.shape[2] + kernel.shape[3])))
    assert kernel.dtype == np.float32
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 0.05 * limit
    assert np.all(drawn["02_batch_norm/scale"] == 1)
    assert np.all(drawn["02_batch_norm/offset"] == 0)


def test_each_seed_and_each_array_has_a_stream_of_its_own() -> None:
    model = models.load("lenet5")
    first, second = inputs.draw_parameters(model, 0), inputs.draw_parameters(model, 1)
    assert not np.array_equal(first["07_dense/kernel"], second["07_dense/kernel"])
    assert np.array_equal(first["07_dense/kernel"], inputs.draw_parameters(model, 0)["07_dense/kernel"])
    flat = [array.reshape(-1)[:100] for name, array in first.items() if name.endswith("kernel")]
    scaled = [values / np.abs(values).max() for values in flat]
    assert all(not np.allclose(a, b) for i, a in enumerate(scaled) for b in scaled[:i])


def test_every_epoch_is_a_permutation_and_fewer_epochs_are_its_first_rows() -> None:
    order = inputs.draw_order(50, 4, seed=3)
    assert order.dtype == np.int32
    assert all(np.array_equal(np.sort(row), np.arange(50)) for row in order)
    assert len({row.tobytes() for row in order}) == 4
    assert np.array_equal(inputs.draw_order(50, 2, seed=3), order[:2])


def test_files_are_written_once_and_hold_what_was_planned(cell: Cell, tmp_path: Path) -> None:
    parameters, order = inputs.write(tmp_path, cell)
    before = parameters.stat().st_mtime_ns, order.stat().st_mtime_ns
    assert inputs.write(tmp_path, cell) == (parameters, order)
    assert (parameters.stat().st_mtime_ns, order.stat().st_mtime_ns) == before
    assert np.load(order).shape == (3, 20)
    with np.load(parameters) as stored:
        assert set(stored.files) == set(cell.model.parameter_shapes)


def test_an_altered_file_is_refused_with_its_name(cell: Cell, tmp_path: Path) -> None:
    _, order = inputs.write(tmp_path, cell)
    np.save(order, np.load(order)[:, ::-1])
    with pytest.raises(StoreError, match=order.name):
        inputs.write(tmp_path, cell)


def test_a_truncated_file_is_refused_with_its_name(cell: Cell, tmp_path: Path) -> None:
    parameters, _ = inputs.write(tmp_path, cell)
    parameters.write_bytes(parameters.read_bytes()[:1000])
    with pytest.raises(StoreError, match=parameters.name):
        inputs.write(tmp_path, cell)


def test_what_this_numpy_draws_must_be_what_was_planned(cell: Cell, tmp_path: Path) -> None:
    other = replace(cell, inputs=replace(cell.inputs, order_sha256="0" * 64))
    with pytest.raises(StoreError, match="order of examples"):
        inputs.write(tmp_path, other)
