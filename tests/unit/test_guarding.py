"""Whether a difference of more than a bound is shown or excluded, and how often that is wrong: a known truth."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import statistics
from harness.actions.compare import ComparisonResult
from harness.analysis import comparison, guarding
from harness.analysis.across_runs import compare_with_baseline
from harness.analysis.comparison import NOT_COMPARABLE, Comparison, compare
from harness.analysis.guarding import DIFFERENT, EXCLUDED, SHOWN, SLOWER, UNTOLD, Bound, decide
from harness.core.errors import UsageError
from harness.core.record import Record
from tests.unit.planted_runs import planted
from tests.unit.test_comparison import LANES, heats

SLOWER_BY_3 = Bound(SLOWER, 0.03)
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def made(effects: list[float], floor: float = 0.0) -> Comparison:
    """A comparison of these effects, log seconds of the lane over the base."""
    (usual,) = compare(heats(0.0, count=2), LANES)
    return dataclasses.replace(
        usual,
        effects=tuple(effects),
        interval=statistics.sequential_interval(effects),
        floor=floor,
        processes=len(effects),
        verdict="no difference found",
        reasons=(),
    )


def around(speed: float, spread: float = 0.004) -> list[float]:
    """Six effects with that speed ratio as their mean."""
    return [-math.log(speed) + spread * step for step in (-1.5, -1.0, -0.5, 0.5, 1.0, 1.5)]


@pytest.mark.parametrize(
    ("speed", "kind", "verdict"),
    [
        (0.90, SLOWER, SHOWN),
        (0.97, SLOWER, UNTOLD),
        (1.00, SLOWER, EXCLUDED),
        (1.20, SLOWER, EXCLUDED),
        (0.90, DIFFERENT, SHOWN),
        (1.00, DIFFERENT, EXCLUDED),
        (1.03, DIFFERENT, UNTOLD),
        (1.20, DIFFERENT, SHOWN),
    ],
)
def test_it_is_shown_excluded_or_neither(speed: float, kind: str, verdict: str) -> None:
    assert decide([made(around(speed))], Bound(kind, 0.03)).verdict == verdict


def test_a_noise_floor_above_the_bound_hides_what_is_smaller() -> None:
    assert decide([made(around(1.0), floor=0.05)], SLOWER_BY_3).verdict == UNTOLD
    assert decide([made(around(0.96), floor=0.05)], SLOWER_BY_3).verdict == UNTOLD
    assert decide([made(around(0.90), floor=0.05)], SLOWER_BY_3).verdict == SHOWN


def test_one_that_shows_it_is_enough_and_all_must_exclude_it() -> None:
    slow, level, wide = made(around(0.90)), made(around(1.0)), made(around(1.0, spread=0.1))
    assert decide([level, slow, wide], SLOWER_BY_3).each == (EXCLUDED, SHOWN, UNTOLD)
    assert decide([level, slow, wide], SLOWER_BY_3).verdict == SHOWN
    assert decide([level, wide], SLOWER_BY_3).verdict == UNTOLD
    assert decide([level, level], SLOWER_BY_3).verdict == EXCLUDED
    assert decide([], SLOWER_BY_3).verdict == UNTOLD


def test_where_the_truth_is_the_bound_an_answer_is_wrong_in_few_comparisons() -> None:
    """Each of the two wrong answers at most 2.5 % of the time; of five batch sizes together as well."""
    random = np.random.default_rng(0)
    usual, at = made(around(1.0)), SLOWER_BY_3.log_seconds
    alone: Counter[str] = Counter()
    together: Counter[str] = Counter()
    draws = 1000
    for _ in range(draws):
        effects = [list(at + 0.01 * random.normal(size=8)) for _ in range(5)]
        found = [
            dataclasses.replace(usual, effects=tuple(one), interval=statistics.sequential_interval(one))
            for one in effects
        ]
        alone[decide(found[:1], SLOWER_BY_3).verdict] += 1
        together[decide(found, SLOWER_BY_3).verdict] += 1
    assert 0 < alone[SHOWN] <= 0.035 * draws
    assert 0 < alone[EXCLUDED] <= 0.035 * draws
    assert 0 < together[SHOWN] <= 0.035 * draws
    assert together[EXCLUDED] == 0


def test_too_few_heats_may_be_told_with_more_time_and_a_lane_that_fails_may_not() -> None:
    (few,) = compare(heats(0.0, count=1), LANES)
    assert few.verdict == NOT_COMPARABLE
    found = decide([few], SLOWER_BY_3)
    assert (found.verdict, found.unusable) == (UNTOLD, False)
    assert ComparisonResult((few,), Path("run"), SLOWER_BY_3).exit_status == 4
    broken = dataclasses.replace(few, reasons=("parity failed: gradients differ",))
    assert decide([broken], SLOWER_BY_3).unusable
    assert ComparisonResult((broken,), Path("run"), SLOWER_BY_3).exit_status == 1
    assert ComparisonResult((broken, made(around(0.9))), Path("run"), SLOWER_BY_3).exit_status == 3
    assert ComparisonResult((made(around(1.0)),), Path("run"), SLOWER_BY_3).exit_status == 0


def stored(pace: float, seed: int = 0, machine: str = "m1") -> list[Record]:
    """A run of one process."""
    worker = {"code": "1", "forked": True, "device": {"processors": [0, 1]}}
    return [planted(32, pace=pace, seed=seed, machine={"id": machine}, worker=worker)]


def test_a_stored_run_is_held_against_the_spread_of_earlier_ones() -> None:
    quiet = [stored(pace) for pace in (0.0100, 0.01002, 0.00998, 0.01001, 0.00999)]
    (one,) = compare_with_baseline(quiet, stored(0.011), ("runs", "new"))
    assert one.interval is not None
    assert one.interval.half_width < 0.01
    assert one.verdict == "slower"
    assert decide([one], SLOWER_BY_3).verdict == SHOWN
    (few,) = compare_with_baseline(quiet[:3], stored(0.011), ("runs", "new"))
    assert few.interval is not None
    assert few.interval.half_width > 0.13
    assert decide([few], SLOWER_BY_3).verdict == UNTOLD


def test_runs_of_other_machines_do_not_count_as_a_baseline() -> None:
    here, there = [stored(0.01) for _ in range(4)], [stored(0.5, machine="m2") for _ in range(4)]
    (one,) = compare_with_baseline([*here, *there], stored(0.0101), ("runs", "new"))
    assert one.base.images_per_second == pytest.approx(3200)
    (alone,) = compare_with_baseline(there, stored(0.0101), ("runs", "new"))
    assert alone.verdict == comparison.NOT_COMPARABLE


def test_a_further_run_lies_in_its_interval_as_often_as_that_says() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        *before, value = 0.03 * random.normal(size=6)
        interval = statistics.next_value_interval(before, value)
        held += interval.low <= 0 <= interval.high
    assert 0.935 <= held / 2000 <= 0.965


def test_a_p_value_agrees_with_its_interval() -> None:
    for freedom in (2, 7, math.inf):
        interval = statistics.interval_around(0.1, 0.03, freedom)
        assert statistics.interval_p_value(interval, interval.low) == pytest.approx(0.05)
        assert statistics.interval_p_value(interval) < 0.1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fail_if_slower": "3"}, "--fail-if-slower: found '3', allowed: a share above 0 and below 100 %"),
        ({"fail_if_slower": "much"}, "--fail-if-slower: found 'much'"),
        ({"fail_if_different": 0}, "--fail-if-different: found '0'"),
        ({"fail_if_slower": "3%", "fail_if_different": "3%"}, "found both, allowed: one of them"),
        ({"baseline": "nowhere"}, "nowhere: there is no such folder"),
        ({"baseline": RESULTS / "mnist"}, "no target of .* did the same work in a run of"),
    ],
)
def test_a_wrong_bound_or_baseline_gets_one_line(given: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        harness.compare(RESULTS / "h200" / "compare", **given)  # type: ignore[arg-type]


def test_the_decision_is_part_of_the_plain_form() -> None:
    result = ComparisonResult((made(around(0.9)),), Path("run"), SLOWER_BY_3)
    assert result.plain()["decision"] == {
        "fail_if": "slower",
        "share": 0.03,
        "verdict": "shown",
        "unusable": False,
        "each": ["shown"],
    }
    assert "Slower by more than 3 %: shown" in str(result)
    assert guarding.decide(result.comparisons, SLOWER_BY_3) == result.decision
