"""Planted laws of the time of a step: found again from records, or refused where the law is another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from harness import analysis
from harness.analysis import Analysis, step_model
from harness.core.record import Record
from tests.unit.planted_runs import lognormal, planted
from tests.unit.records import JAX, TENSORFLOW

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
OVERHEAD, PER_IMAGE = 0.002, 2e-5
KNEE = OVERHEAD / PER_IMAGE

Law = Callable[[float], float]
Row = dict[str, Any]


def straight(size: float) -> float:
    return OVERHEAD + PER_IMAGE * size


def dearer_from_64(size: float) -> float:
    """As of a program that has another algorithm for large batches: each image costs twice as much."""
    return OVERHEAD / 10 + PER_IMAGE * size * (2 if size >= 64 else 1)


def quicker_above_256(size: float) -> float:
    """As of a device whose processors a batch of 256 fills for the first time: steps, no line."""
    return OVERHEAD / 10 + PER_IMAGE * 256 * np.ceil(size / 256)


def run(
    law: Law,
    sizes: Sequence[int] = SIZES,
    processes: int = 3,
    between: float = 0.01,
    slowed: dict[int, float] | None = None,
    target: Any = JAX,
    generator_seed: int = 0,
) -> list[Record]:
    """Cells whose blocks vary by 3 %, with a pause in one of ten, in processes that vary by ``between``."""
    random = np.random.default_rng(generator_seed)

    def noise(count: int) -> list[float]:
        return [factor * (5 if random.random() < 0.1 else 1) for factor in lognormal(random, 0.03)(count)]

    return [
        planted(
            size,
            target,
            repeat=repeat,
            pace=law(size) * float(np.exp(between * random.normal())) * (slowed or {}).get(size, 1.0),
            blocks=60,
            noise=noise,
        )
        for size in sizes
        for repeat in range(processes)
    ]


def analysed(records: Sequence[Record]) -> Analysis:
    return analysis.analyse(analysis.collect(records))


def model(records: Sequence[Record]) -> Row:
    (row,) = analysed(records).step_model.to_dicts()
    return row


class TestStraightLine:
    @pytest.mark.parametrize("slowed", [{}, {128: 1.5}, {8: 2.0}, {1024: 1.4}])
    @pytest.mark.parametrize("generator_seed", [0, 1])
    def test_comes_back_whichever_batch_size_is_an_outlier(self, slowed: dict[int, float], generator_seed: int) -> None:
        row = model(run(straight, slowed=slowed, generator_seed=generator_seed))
        assert (row["fits"], row["reason"], row["sizes"]) == (True, "", 8)
        assert row["overhead_seconds"] == pytest.approx(OVERHEAD, rel=0.05)
        assert row["seconds_per_image"] == pytest.approx(PER_IMAGE, rel=0.05)
        assert row["half_overhead_batch"] == pytest.approx(KNEE, rel=0.05)
        assert row["ninety_percent_batch"] == pytest.approx(9 * KNEE, rel=0.05)
        assert row["peak_images_per_second"] == pytest.approx(1 / PER_IMAGE, rel=0.05)

    def test_without_noise_comes_back_exactly_and_tells_what_was_measured(self) -> None:
        row = model([planted(size, pace=straight(size)) for size in SIZES])
        assert row["overhead_seconds"] == pytest.approx(OVERHEAD, rel=1e-4)
        assert row["seconds_per_image"] == pytest.approx(PER_IMAGE, rel=1e-4)
        assert row["largest_residual"] < 1e-4
        assert row["fastest_batch"] == 1024
        assert row["fastest_images_per_second"] == pytest.approx(1024 / straight(1024))
        assert row["ninety_percent_measured_batch"] == 512  # 40,820 images per s of 45,552

    def test_predicts_batch_sizes_that_were_not_measured(self) -> None:
        measured = (16, 48, 128, 320, 1000)
        found = analysed(run(straight, sizes=measured, slowed={128: 1.5}))
        rows = {row["batch_size"]: row for row in found.predicted.to_dicts()}
        assert sorted(rows) == [8, 16, 32, 48, 64, 128, 256, 320, 512, 1000, 1024]
        for size, row in rows.items():
            assert row["measured"] == (size in measured)
            assert row["predicted_seconds_per_step"] == pytest.approx(straight(size), rel=0.05)
            assert row["predicted_images_per_second"] == pytest.approx(size / straight(size), rel=0.05)
            assert (row["seconds_per_step"] is None) == (row["residual"] is None) == (size not in measured)
        assert rows[128]["residual"] == pytest.approx(0.5, abs=0.05)

    def test_of_each_target_is_its_own(self) -> None:
        other = run(lambda size: 3 * straight(size), target=TENSORFLOW)
        rows = analysed([*run(straight), *other]).step_model.to_dicts()
        assert [row["target"] for row in rows] == ["jax-cpu:jit", "tensorflow-cpu:graph"]
        assert rows[1]["overhead_seconds"] == pytest.approx(3 * OVERHEAD, rel=0.05)

    def test_without_overhead_has_none(self) -> None:
        row = model(run(lambda size: PER_IMAGE * size))
        assert row["overhead_seconds_low"] == 0
        assert row["seconds_per_image"] == pytest.approx(PER_IMAGE, rel=0.05)
        assert row["half_overhead_batch"] < 2


class TestFlatLine:
    """All batch sizes are too small for the cost of an image to show."""

    def test_has_no_knee_and_no_peak(self) -> None:
        found = analysed(run(lambda size: OVERHEAD, generator_seed=2))
        (row,) = found.step_model.to_dicts()
        assert row["fits"]
        assert row["overhead_seconds"] == pytest.approx(OVERHEAD, rel=0.05)
        assert row["seconds_per_image_low"] == 0
        names = ("half_overhead_batch", "half_overhead_batch_high", "ninety_percent_batch", "peak_images_per_second")
        assert [row[name] for name in names] == [None] * 4

    def test_still_predicts_times(self) -> None:
        found = analysed(run(lambda size: OVERHEAD, generator_seed=2))
        (last,) = found.predicted.filter(~found.predicted["measured"]).tail(1).to_dicts()
        assert last["batch_size"] == 2048
        assert last["predicted_seconds_per_step"] == pytest.approx(OVERHEAD, rel=0.15)


class TestAnotherLaw:
    @pytest.mark.parametrize("law", [dearer_from_64, quicker_above_256])
    def test_is_refused_with_the_place_of_the_largest_difference(self, law: Law) -> None:
        found = analysed(run(law))
        (row,) = found.step_model.to_dicts()
        assert not row["fits"]
        assert row["reason"].startswith("the time of a step does not grow in a straight line with the batch size: at ")
        assert row["reason"].endswith(" the nearest line")
        assert row["largest_residual"] > 0.1
        assert row["overhead_seconds"] is row["seconds_per_image"] is row["half_overhead_batch"] is None
        assert row["ninety_percent_batch"] is row["peak_images_per_second"] is None
        assert found.predicted.is_empty()

    def test_leaves_what_was_measured(self) -> None:
        row = model(run(dearer_from_64, between=0.001))
        assert row["fastest_batch"] == 32
        assert row["ninety_percent_measured_batch"] == 32
        assert row["fastest_images_per_second"] == pytest.approx(32 / dearer_from_64(32), rel=0.02)


class TestTooFewBatchSizes:
    @pytest.mark.parametrize(
        ("sizes", "reason"),
        [
            ((64,), "only one batch size was measured, and at least 4 are needed"),
            ((16, 32, 64), "only 3 batch sizes were measured, and at least 4 are needed"),
        ],
    )
    def test_are_refused(self, sizes: tuple[int, ...], reason: str) -> None:
        row = model(run(straight, sizes=sizes))
        assert (row["fits"], row["reason"], row["sizes"]) == (False, reason, len(sizes))
        assert row["largest_residual"] is None
        assert row["fastest_batch"] == 64

    def test_four_are_enough(self) -> None:
        assert model(run(straight, sizes=(16, 64, 256, 1024)))["fits"]

    def test_cells_without_a_pace_do_not_count(self) -> None:
        records = run(straight, sizes=(16, 32, 64, 128))
        broken = [
            dataclasses.replace(one, status="crashed") if one.cell.training.batch_size == 128 else one
            for one in records
        ]
        assert model(broken)["reason"] == "only 3 batch sizes were measured, and at least 4 are needed"


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [([1, 2, 4], [1, 2, 3]), ([1, 2, 2, 1], [1, 2, 2, 1]), ([1, 2, 4, 8], [1, 2, 0, 3]), ([0, 2, 4, 8], [1, 2, 3, 4])],
)
def test_fit_refuses_what_has_no_line(sizes: list[float], seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="expected positive times of 4 or more batch sizes"):
        step_model.fit(sizes, seconds)


@pytest.mark.parametrize(("spread", "outlier"), [(0.01, True), (0.02, False), (0.03, True)])
def test_intervals_cover_what_the_docstring_says(spread: float, outlier: bool) -> None:
    random = np.random.default_rng(5)
    sizes = 2.0 ** np.arange(4, 12)
    covered = []
    for _ in range(100):
        seconds = (OVERHEAD + PER_IMAGE * sizes) * np.exp(spread * random.normal(size=8))
        if outlier:
            seconds[random.integers(8)] *= 1.5
        line = step_model.fit(sizes.tolist(), seconds.tolist())
        pairs = ((line.overhead, OVERHEAD), (line.per_image, PER_IMAGE), (line.half_overhead, KNEE))
        covered.append([bounds[1] <= truth <= bounds[2] for bounds, truth in pairs])  # type: ignore[operator]
    for share in np.mean(covered, axis=0):
        assert 0.79 <= share <= 0.99
