"""Planted parts of a step's time: found again from records of several steps per call, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import analysis
from harness.analysis import Analysis, dispatch
from harness.core.cell import Target, label_and_steps_per_call
from harness.core.record import Record
from harness.report import charts
from harness.report.figure import Absent, Figure
from tests.unit.planted_runs import lognormal, planted
from tests.unit.records import JAX, TENSORFLOW

SIZES, CALLS = (16, 64, 256), (1, 8, 32)
DISPATCH, OVERHEAD, PER_IMAGE = 1.5e-4, 5e-5, 4e-7

Law = Callable[[int, int], float]


def shared(size: int, at_once: int) -> float:
    return DISPATCH / at_once + OVERHEAD + PER_IMAGE * size


def slow_loop(size: int, at_once: int) -> float:
    return shared(size, at_once) * (10 if at_once > 1 else 1)


def called(target: Target, at_once: int) -> Target:
    return replace(target, steps_per_call=at_once)


def run(law: Law, calls: Sequence[int] = CALLS, sizes: Sequence[int] = SIZES, target: Target = JAX) -> list[Record]:
    """Cells whose blocks vary by 3 %, in processes that vary by 1 %."""
    random = np.random.default_rng(len(calls) + 10 * len(sizes))
    return [
        planted(
            size,
            called(target, at_once),
            repeat=repeat,
            pace=law(size, at_once) * float(np.exp(0.01 * random.normal())),
            blocks=60,
            noise=lognormal(random, 0.03),
        )
        for size in sizes
        for at_once in calls
        for repeat in range(2)
    ]


def analysed(records: Sequence[Record]) -> Analysis:
    return analysis.analyse(analysis.collect(records))


def row(records: Sequence[Record]) -> dict[str, Any]:
    (found,) = analysed(records).dispatch.to_dicts()
    return found


def test_the_three_parts_come_back_within_their_intervals() -> None:
    found = row(run(shared))
    assert (found["target"], found["calls"], found["points"], found["fits"]) == (JAX.label, "1, 8, 32", 9, True)
    for name, truth in (
        ("dispatch_seconds", DISPATCH),
        ("overhead_seconds", OVERHEAD),
        ("seconds_per_image", PER_IMAGE),
    ):
        assert found[name] == pytest.approx(truth, rel=0.1), name
        assert found[f"{name}_low"] < truth < found[f"{name}_high"], name


def test_without_noise_they_come_back_exactly() -> None:
    points = [(size, at_once) for size in SIZES for at_once in CALLS]
    found = dispatch.fit(*zip(*points, strict=True), [shared(*point) for point in points])
    assert found.dispatch[0] == pytest.approx(DISPATCH, rel=1e-4)
    assert found.overhead[0] == pytest.approx(OVERHEAD, rel=1e-4)
    assert found.per_image[0] == pytest.approx(PER_IMAGE, rel=1e-4)
    assert max(map(abs, found.residuals)) < 1e-4
    assert found.parts(64, 8) == pytest.approx((DISPATCH / 8, OVERHEAD, 64 * PER_IMAGE), rel=1e-4)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    points = [(size, at_once) for size in (16, 64, 256, 1024) for at_once in (1, 4, 16, 64)]
    times, inside = 60, 0
    for _ in range(times):
        seconds = [shared(*point) * float(np.exp(0.02 * random.normal())) for point in points]
        _, low, high = dispatch.fit(*zip(*points, strict=True), seconds).dispatch
        assert low is not None
        assert high is not None
        inside += low <= DISPATCH <= high
    assert 0.85 * times <= inside <= times


def test_a_time_without_dispatch_has_none() -> None:
    found = row(run(lambda size, at_once: OVERHEAD + PER_IMAGE * size))
    assert found["dispatch_seconds_low"] == 0
    assert found["dispatch_seconds"] < 0.05 * OVERHEAD


def test_the_parts_of_each_measured_step_add_up() -> None:
    waits = analysed(run(shared)).waits
    assert waits.select("batch_size", "steps_per_call").rows() == [(size, calls) for size in SIZES for calls in CALLS]
    for one in waits.to_dicts():
        parts = one["dispatch_seconds"] + one["overhead_seconds"] + one["work_seconds"]
        assert one["predicted_seconds_per_step"] == pytest.approx(parts)
        assert parts == pytest.approx(shared(one["batch_size"], one["steps_per_call"]), rel=0.05)
        assert one["dispatch_share"] == pytest.approx(one["dispatch_seconds"] / parts)


def test_a_loop_that_is_slower_than_its_steps_is_refused_and_named() -> None:
    found = row(run(slow_loop))
    assert not found["fits"]
    assert "the loop itself is slower than single steps" in found["reason"]
    times = slow_loop(256, 32) / slow_loop(256, 1)
    told = float(found["reason"].partition("a step takes ")[2].partition(" ")[0])
    assert told == pytest.approx(times, rel=0.05)
    assert found["dispatch_seconds"] is None
    assert analysed(run(slow_loop)).waits.is_empty()


def test_a_time_that_is_off_is_not_taken_for_a_slow_loop() -> None:
    """Of many times some are far off, and of the longest calls only one is slower than its single steps."""

    def law(size: int, at_once: int) -> float:
        return shared(size, at_once) * {(16, 8): 4.0, (64, 1): 0.4, (256, 8): 3.0, (256, 32): 2.0}.get(
            (size, at_once), 1
        )

    found = row(run(law))
    assert not found["fits"]
    assert "slower than single steps" not in found["reason"]
    assert "the nearest such time" in found["reason"]


@pytest.mark.parametrize(
    ("calls", "sizes", "words"),
    [
        ((1, 8), (16,), "too few batch sizes were measured: 1, and at least 2"),
        ((1, 8), (16, 64), "only 4 times of steps were measured, and at least 6"),
    ],
)
def test_too_little_is_refused_with_what_is_missing(calls: Sequence[int], sizes: Sequence[int], words: str) -> None:
    found = row(run(shared, calls, sizes))
    assert not found["fits"]
    assert words in found["reason"]


def test_one_number_of_steps_per_call_has_no_row() -> None:
    found = analysed(run(shared, (1,)))
    assert found.dispatch.is_empty()
    assert found.waits.is_empty()


def test_each_target_is_fitted_on_its_own() -> None:
    thrice = run(lambda size, at_once: 3 * shared(size, at_once), target=TENSORFLOW)
    found = analysed([*run(shared), *thrice]).dispatch.to_dicts()
    assert [one["target"] for one in found] == [JAX.label, TENSORFLOW.label]
    assert found[1]["dispatch_seconds"] == pytest.approx(3 * DISPATCH, rel=0.15)


def test_the_figure_has_every_batch_size_and_says_why_there_is_none() -> None:
    (shown,) = (one for one in charts.figures(analysed(run(shared))) if one.name == "waits")
    assert isinstance(shown, Figure)
    assert "dispatch" in shown.words.alternative
    assert sorted(shown.frame["batch_size"]) == sorted(SIZES)
    absent = _absent(run(shared, (1,)))
    assert "--steps-per-call" in absent.why
    assert "slower than single steps" in _absent(run(slow_loop)).why


def _absent(records: Sequence[Record]) -> Absent:
    (gallery,) = charts.galleries(analysed(records))
    (found,) = (one for one in gallery.absent if one.title.startswith("What a step waits for"))
    return found


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_label_tells_its_steps_per_call(at_once: int) -> None:
    target = replace(called(JAX, at_once), cpus=2, options=(("loop", "unrolled"),))
    single = replace(target, steps_per_call=1)
    assert label_and_steps_per_call(target.label) == (single.label, at_once)
