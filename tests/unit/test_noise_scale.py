"""The noise scale is estimated without bias, its interval covers a planted one, and what is kept is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis import noise_scale
from harness.analysis.noise_scale import estimate
from harness.core.errors import StoreError
from harness.core.model import Dense, Dropout, Flatten, ModelSpec
from harness.core.training import OptimizerSpec
from harness.measure import noise_probe
from harness.runs import noise_scales
from harness.runs.noise_scales import Estimate, NoiseScale
from tests.unit.records import JAX, TENSORFLOW, cell

BATCH_SIZE = 128
PARAMETERS = 60


def planted(scale: float, batches: int, generator: np.random.Generator, kind: str = "normal") -> list[NDArray[Any]]:
    """Gradients of batches of BATCH_SIZE where tr(Sigma) is 1, unequal over parameters, and |G|^2 is 1 / scale."""
    variances = 1 / np.arange(1, PARAMETERS + 1)
    true = np.full(PARAMETERS, np.sqrt(1 / scale / PARAMETERS))
    if kind == "normal":
        noise = generator.standard_normal((batches, PARAMETERS))
    else:  # the mean of few skewed examples
        noise = (generator.gamma(10.0, 1.0, (batches, PARAMETERS)) - 10) / np.sqrt(10)
    return list(true + noise * np.sqrt(variances / variances.sum() / BATCH_SIZE))


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize(("batches", "share"), [(16, 0.5), (32, 0.1), (32, 2.0)])
def test_the_interval_covers_a_planted_noise_scale(kind: str, batches: int, share: float) -> None:
    generator, times = np.random.default_rng(3), 400
    scale = share * batches * BATCH_SIZE
    inside = 0
    for _ in range(times):
        found = estimate(planted(scale, batches, generator, kind), BATCH_SIZE)
        inside += (found.low or 0) <= scale <= (found.high or np.inf)
    assert 0.93 <= inside / times <= 1


def test_many_batches_find_the_planted_noise_scale_and_its_parts() -> None:
    found = estimate(planted(500.0, 2000, np.random.default_rng(1)), BATCH_SIZE)
    assert found.noise_scale == pytest.approx(500, rel=0.05)
    assert found.variance == pytest.approx(1, rel=0.02)
    assert found.gradient_square == pytest.approx(1 / 500, rel=0.05)
    assert found.low is not None
    assert found.high is not None
    assert 400 < found.low < 500 < found.high < 600


def test_both_parts_are_those_of_appendix_a1() -> None:
    gradients = planted(300.0, 12, np.random.default_rng(2))
    small, big = BATCH_SIZE, 12 * BATCH_SIZE
    of_small = np.mean([row @ row for row in gradients])
    of_big = np.sum(np.mean(gradients, axis=0) ** 2)
    found = estimate(gradients, BATCH_SIZE)
    assert found.gradient_square == pytest.approx((big * of_big - small * of_small) / (big - small))
    assert found.variance == pytest.approx((of_small - of_big) / (1 / small - 1 / big))


def test_the_estimate_does_not_depend_on_how_many_parameters_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients = [row.astype(np.float32) for row in planted(300.0, 16, np.random.default_rng(2))]
    whole = estimate(gradients, BATCH_SIZE)
    monkeypatch.setattr(noise_scale, "_COLUMNS", 7)
    assert estimate(gradients, BATCH_SIZE).noise_scale == pytest.approx(whole.noise_scale)


def test_a_gradient_that_drowns_is_not_measurable_and_says_at_most_from_where_on() -> None:
    generator = np.random.default_rng(5)
    found = [estimate(planted(1e9, 16, generator), BATCH_SIZE) for _ in range(60)]
    drowned = [one for one in found if one.gradient_square <= 0]
    assert 15 < len(drowned) < 45, "the estimate is as often above zero as below"
    for one in drowned:
        assert one.noise_scale is None
        assert one.high is None
    lows = [one.low for one in drowned if one.low is not None]
    assert len(lows) > len(drowned) * 0.8
    assert all(100 < low < 1e6 for low in lows)


def test_gradients_without_noise_have_none() -> None:
    assert estimate([np.ones(3)] * 8, 4) == Estimate(0.0, 3.0, 0.0, 0.0, 0.0)
    assert estimate([np.zeros(3)] * 8, 4) == Estimate(0.0, 0.0, None, None, None)


@pytest.mark.parametrize(
    ("gradients", "problem"),
    [
        ([np.ones(3)] * 7, "8 or more gradients"),
        ([np.ones((2, 3))] * 8, "in one row each"),
        ([np.ones(3)] * 7 + [np.ones(4)], "as long as each other"),
        ([np.ones(3)] * 7 + [np.full(3, np.nan)], "not finite"),
        ([np.ones(3)] * 7 + [np.full(3, np.inf)], "not finite"),
    ],
)
def test_what_cannot_be_estimated_from_is_refused(gradients: list[NDArray[Any]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        estimate(gradients, 4)


def test_the_smallest_batch_the_first_seed_and_most_epochs_stand_for_a_work() -> None:
    sgd = OptimizerSpec("sgd")
    cells = [
        cell(64, seed=7),
        cell(32, seed=7, precision="mixed_bfloat16"),
        cell(32, seed=7, epochs=5, precision="mixed_bfloat16"),
        cell(16, seed=8),
        cell(8, TENSORFLOW, optimizer=sgd),
        cell(999, seed=7),
    ]
    first, second = noise_probe.works(cells, TENSORFLOW)
    assert (first.training.batch_size, first.training.epochs, first.training.seed) == (32, 5, 7)
    assert first.training.precision == "float32"
    assert first.inputs == cells[2].inputs
    assert (second.training.batch_size, second.training.optimizer) == (8, sgd)
    assert {one.target for one in (first, second)} == {TENSORFLOW}
    assert [noise_scales.work_of(one) for one in (cells[0], cells[4])] == [
        noise_scales.work_of(one) for one in (first, second)
    ]
    assert noise_probe.usual_steps(first) == (0, 10, 50)
    assert noise_probe.usual_steps(cell(32, epochs=1)) == (0, 10)
    assert noise_probe.usual_steps(cell(999)) == (0,)


def test_a_measurement_is_known_by_all_that_it_depends_on() -> None:
    one = cell(32)
    others = [
        noise_probe.expected(one, 0, 32),
        noise_probe.expected(one, 1, 32),
        noise_probe.expected(one, 0, 64),
        noise_probe.expected(replace(one, target=TENSORFLOW), 0, 32),
        noise_probe.expected(cell(16), 0, 32),
        noise_probe.expected(cell(32, seed=1), 0, 32),
    ]
    assert len({other.id for other in others}) == len(others)
    assert noise_probe.expected(cell(32), 0, 32) == others[0]
    assert others[1].epoch == 0.1


def test_batches_and_their_seeds_are_drawn_alike_for_every_target_and_point() -> None:
    dropping = ModelSpec("dropping", (4, 4, 1), (Flatten(), Dropout(0.5), Dense(3)))
    drawn = [noise_probe.draw(cell(32, target, model=dropping), 3) for target in (JAX, TENSORFLOW)]
    assert np.array_equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1] == drawn[1][1] != noise_probe.draw(cell(32, model=dropping), 4)[1]
    assert drawn[0][0].shape == (noise_probe.BATCH_SIZE,)
    assert set(np.concatenate([noise_probe.draw(cell(32), number)[0] for number in range(32)])) == set(range(320))
    assert noise_probe.draw(cell(32, seed=5), 3)[1] == 5, "without dropout compiled programs can be found again"


def made(step: int = 0, batches: int = 32) -> NoiseScale:
    empty = noise_probe.expected(cell(32), step, batches)
    return replace(empty, estimate=Estimate(2.0, -0.5, None, 3.0, None), problem="not measurable", created="2026")


def test_what_is_kept_is_found_again_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    assert noise_scales.stored(tmp_path) == []
    kept = [made(0), made(10), made(20, 64)]
    for one in reversed(kept):
        noise_scales.keep(tmp_path, one)
    assert noise_scales.stored(tmp_path) == kept
    (tmp_path / "noise-scale" / f"{kept[1].id}.json").write_text("{")
    assert noise_scales.stored(tmp_path) == [kept[0], kept[2]]


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "noise-scale").write_text("in the way")
    with pytest.raises(StoreError, match="a file is in the way"):
        noise_scales.keep(tmp_path, made())
