"""Whether trials of settings are ranked, halved and believed as they should, on comparisons with a known truth."""

from __future__ import annotations

import math

import pytest

from harness.analysis import tuning
from harness.analysis.comparison import Comparison, LaneResult
from harness.analysis.tuning import Gain


def comparison(size: int, speeds: tuple[float, ...], problem: str = "", verdict: str = "") -> Comparison:
    """One setting at one batch size; ``speeds``: how many times as fast it was in each heat."""
    lane = LaneResult("other", None, len(speeds), problem)
    return Comparison(
        work_id=str(size),
        model="m",
        dataset="d",
        batch_size=size,
        base=LaneResult("base", None, len(speeds), ""),
        lane=lane,
        effects=tuple(-math.log(speed) for speed in speeds),
        control_effects=(0.0,),
        interval=None,
        floor=0.0,
        p_adjusted=math.nan,
        verdict=verdict,
        reasons=(),
        processes=len(speeds),
        rounds=1,
        dropped=0,
        differences=(),
    )


def test_a_gain_is_the_geometric_mean_over_heats_and_batch_sizes() -> None:
    found = tuning.trial([comparison(32, (1.0, 4.0)), comparison(128, (0.5,))])
    assert found.gain == pytest.approx(1.0)
    assert found.by_size == pytest.approx({32: 2.0, 128: 0.5})


@pytest.mark.parametrize(
    ("comparisons", "problem"),
    [
        ([comparison(32, (2.0,)), comparison(128, (), "parity failed: off")], "parity failed: off"),
        ([comparison(32, (2.0,)), comparison(128, (9.0,), "timeout: slow")], "timeout: slow"),
        ([comparison(32, ())], "not measured"),
        ([], "not measured"),
    ],
)
def test_what_failed_at_one_size_counts_at_none(comparisons: list[Comparison], problem: str) -> None:
    found = tuning.trial(comparisons)
    assert found.gain is None
    assert found.problem == problem


def test_half_of_the_trials_go_on_and_nothing_that_was_slower() -> None:
    gains = {"a": 1.1, "b": 0.9, "c": None, "d": 1.3, "e": 1.2, "f": 1.05}
    trials = {name: Gain(gain, {}) for name, gain in gains.items()}
    assert tuning.better_half(trials) == ("d", "e", "a")
    assert tuning.better_half({"b": Gain(0.99, {})}) == ()
    assert tuning.better_half({"a": Gain(1.01, {})}) == ("a",)


@pytest.mark.parametrize(
    ("verdicts", "better"),
    [
        (("faster", "faster"), True),
        (("faster", "no difference found"), True),
        (("faster", "slower"), False),
        (("no difference found",), False),
        (("not comparable",), False),
        ((), False),
    ],
)
def test_a_winner_is_faster_somewhere_and_slower_nowhere(verdicts: tuple[str, ...], better: bool) -> None:
    assert tuning.is_better([comparison(32, (1.1,), verdict=one) for one in verdicts]) is better
