"""Both frameworks find the noise scale that the reference finds, and make dropout part of it.

A mode of each: that the others give the same gradients is what parity shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.core.cell import Cell, Dataset
from harness.core.model import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec, without_dropout
from harness.core.training import TrainingSpec
from harness.measure.noise_probe import Meter
from harness.measure.session import REFERENCE
from harness.plan import inputs
from harness.runs.noise_scales import Estimate
from harness.workers.cell_worker import Files

from .conftest import TIMEOUT, Bench

LANES = ("tensorflow-cpu:graph", "jax-cpu:jit")
EXAMPLES, BATCHES = 96, 8
MODEL = ModelSpec(
    "small",
    (8, 8, 1),
    (Conv2D(4, (3, 3)), BatchNorm(), MaxPool((2, 2)), Flatten(), Dropout(0.5), Dense(5)),
)
AGREEMENT = 1e-3
"""Relative; ``tolerances`` allows gradients a tenth of that, and a noise scale is a difference of their squares."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise-scale")
    generator = np.random.default_rng(0)
    for part, count in (("train", EXAMPLES), ("test", 10)):
        labels = generator.integers(0, 5, count).astype(np.int32)
        images = generator.integers(0, 150, (count, 8, 8, 1)) + 25 * labels[:, None, None, None]
        inputs.save_array(folder / f"{part}_images.npy", images.astype(np.uint8))
        inputs.save_array(folder / f"{part}_labels.npy", labels)
    return folder


@pytest.fixture(scope="module")
def expected(bench: Bench, dataset: Path) -> list[Estimate]:
    return measured(bench, REFERENCE, dataset, without_dropout(MODEL), (0, 5))


@pytest.mark.parametrize("label", LANES)
def test_a_lane_finds_the_noise_scale_of_the_reference(
    bench: Bench, label: str, dataset: Path, expected: list[Estimate]
) -> None:
    for found, told in zip(measured(bench, label, dataset, without_dropout(MODEL), (0, 5)), expected, strict=True):
        assert found.noise_scale == pytest.approx(told.noise_scale, rel=AGREEMENT)
        assert found.variance == pytest.approx(told.variance, rel=AGREEMENT)
        assert (found.low, found.high) == pytest.approx((told.low, told.high), rel=10 * AGREEMENT)


@pytest.mark.long
@pytest.mark.parametrize("label", LANES)
def test_a_lane_s_dropout_is_part_of_the_noise(bench: Bench, label: str, dataset: Path) -> None:
    (without,) = measured(bench, label, dataset, without_dropout(MODEL), (0,))
    (found,) = measured(bench, label, dataset, MODEL, (0,))
    (told,) = measured(bench, REFERENCE, dataset, MODEL, (0,))
    assert found.variance > 1.2 * without.variance
    assert found.variance == pytest.approx(told.variance, rel=0.2)


def measured(bench: Bench, label: str, dataset: Path, model: ModelSpec, steps: Sequence[int]) -> list[Estimate]:
    training = TrainingSpec(8)
    cell = Cell(
        model=model,
        training=training,
        dataset=Dataset("small", "", EXAMPLES, 10, (8, 8, 1), 5),
        inputs=inputs.identify(model, EXAMPLES, training.epochs, training.seed),
        target=bench.target(label),
    )
    scratch = bench.folder / "noise-scale"
    scratch.mkdir(exist_ok=True)
    parameters, order = inputs.write(scratch, cell)
    files = Files(dataset, parameters, order, scratch / "work", scratch / "programs")
    meter = Meter(files, partial(bench.worker, label), TIMEOUT, lambda what, done, total: None)
    found = list(meter.measure(cell, steps, BATCHES))
    assert [one.problem for one in found if one.estimate is None] == []
    return [one.estimate for one in found if one.estimate is not None]
