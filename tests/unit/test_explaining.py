"""Explanations of made-up times whose truth is known: shares, what is unexplained, what bounds a part, words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from harness.analysis import explaining
from harness.analysis.comparison import LaneKey, lane_keys
from harness.analysis.explaining import Explanation, LaneOfSet, held_against, label
from harness.core import parts
from harness.core.cell import Target
from harness.core.model import Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec
from harness.core.parts import Cost
from harness.core.training import TrainingSpec
from harness.proof.parity import Quantity
from harness.report import explained_page, pictures
from harness.report import explaining as shown
from harness.runs.part_times import PartTime, PartTimes
from harness.statistics import NO_DIFFERENCE, ratio_interval
from tests.unit.builders import small_cell

MODEL = ModelSpec("small", (8, 8, 1), (Conv2D(4, (3, 3)), MaxPool((2, 2)), Flatten(), Dropout(0.5), Dense(5)))
POOL, CONV, DENSE = "02_max_pool", "01_conv2d", "05_dense"
Row = tuple[str, str]
Truth = dict[Row, float]
LIMIT = {"product_flops_per_second": 1e12, "memory_bytes_per_second": 1e10}

BASE: Truth = {
    (parts.DISPATCH, ""): 1e-4,
    (parts.INPUT, ""): 5e-4,
    (CONV, "forward"): 2e-3,
    (POOL, "forward"): 1e-3,
    ("04_dropout", "forward"): 1e-3,
    (DENSE, "forward"): 1e-3,
    (parts.LOSS, ""): 1e-3,
    (DENSE, "backward"): 2e-3,
    ("04_dropout", "backward"): 1e-3,
    (POOL, "backward"): 1e-3,
    (CONV, "backward"): 4e-3,
    (parts.OPTIMIZER, ""): 1e-3,
}
LANES = lane_keys([Target(name, name, "cpu", "jit", "resident", "test") for name in ("quick", "slow")])


def test_the_truth_names_every_row() -> None:
    assert tuple(BASE) == parts.rows(MODEL)


def seconds_of(truth: Truth, unexplained: float) -> Truth:
    """What would be measured of such a truth: each call with its dispatch, ``both`` with forward in it, the step."""
    dispatch = truth[parts.DISPATCH, ""]
    found: Truth = {(parts.STEP, ""): sum(truth.values()) + unexplained}
    for name, direction in parts.askable(MODEL):
        if name in parts.OTHERS:
            taken = truth[name, ""]
        else:
            taken = truth[name, "forward"] + (truth.get((name, "backward"), 0.0) if direction == parts.BOTH else 0.0)
        found[name, direction] = taken + (dispatch if name != parts.DISPATCH else 0.0)
    return found


def made(
    lane: Truth,
    *,
    base: Truth | None = None,
    unexplained: tuple[float, float] = (0.0, 0.0),
    sets: int = 6,
    rounds: int = 12,
    noise: float = 0.02,
    batch_size: int = 4,
    seed: int = 0,
) -> list[dict[LaneKey, LaneOfSet]]:
    """Sets of base, control and lane. Every time has noise of its own, each round and each process a common factor."""
    generator = np.random.default_rng(seed)
    truths = [seconds_of(base or BASE, unexplained[0])] * 2 + [seconds_of(lane, unexplained[1])]
    found = []
    for repeat in range(sets):
        drift = np.exp(0.1 * generator.standard_normal(rounds))
        members = {}
        for key, truth in zip(LANES, truths, strict=True):
            process = math.exp(noise * generator.standard_normal() / 2)
            cell = replace(
                small_cell(MODEL, TrainingSpec(batch_size), train_examples=64, target=key.target),
                repeat=repeat,
                lane=key.lane,
            )
            taken = tuple(
                PartTime(*asked, 1, tuple(value * process * drift * spread), (None,) * rounds)
                for asked, value in truth.items()
                for spread in [np.exp(noise * generator.standard_normal(rounds))]
            )
            members[key] = LaneOfSet(cell, PartTimes(cell.cell_id, taken), LIMIT)
        found.append(members)
    return found


def explained(sets: Sequence[Mapping[LaneKey, LaneOfSet]]) -> Explanation:
    [found] = explaining.explain(sets, LANES)
    return found


class TestShares:
    def test_a_slow_part_is_found_and_given_its_share(self) -> None:
        slow = {**BASE, (POOL, "backward"): 7e-3, (CONV, "backward"): 6e-3}
        one = explained(made(slow, unexplained=(0.0, 2e-3)))
        assert one.verdict == "slower"
        assert [row.label for row in one.costliest] == ["max_pool 02 backward", "conv2d 01 backward"]
        pool, conv = one.costliest
        assert pool.share_low is not None
        assert pool.share_high is not None
        assert pool.share_low < 0.6 < pool.share_high
        assert pool.share == pytest.approx(0.6, abs=0.06)
        assert conv.share == pytest.approx(0.2, abs=0.06)
        assert one.unexplained.share == pytest.approx(0.2, abs=0.06)
        assert one.ratio == pytest.approx((sum(slow.values()) + 2e-3) / sum(BASE.values()), rel=0.05)

    def test_shares_and_what_is_unexplained_make_the_whole(self) -> None:
        one = explained(made({**BASE, (POOL, "backward"): 7e-3}, unexplained=(1e-3, -2e-3)))
        shares = [row.share for row in (*one.rows, one.unexplained)]
        assert sum(share for share in shares if share is not None) == pytest.approx(1.0)
        for side in ("base", "lane"):
            total = sum(getattr(row, side).seconds for row in (*one.rows, one.unexplained))
            assert total == pytest.approx(getattr(one.step, side).seconds)

    def test_times_are_those_of_the_parts_without_their_dispatch(self) -> None:
        one = explained(made(BASE, noise=1e-4))
        for row in one.rows:
            assert row.base.seconds == pytest.approx(BASE[row.name, row.direction], rel=0.2), row.label

    def test_a_faster_lane_is_explained_by_what_it_saves(self) -> None:
        quick = {**BASE, (CONV, "backward"): 1e-3}
        one = explained(made(quick))
        assert one.verdict == "faster"
        assert [row.label for row in one.costliest] == ["conv2d 01 backward"]
        assert one.costliest[0].share == pytest.approx(1.0, abs=0.2)
        assert "takes 0.8" in shown.sentence(one)

    def test_equal_lanes_have_no_shares(self) -> None:
        one = explained(made(BASE))
        assert one.verdict == NO_DIFFERENCE
        assert all(row.share is None for row in (*one.rows, one.unexplained))
        assert one.costliest == []
        assert shown.sentence(one).startswith("No difference found between slow:jit and quick:jit at batch size 4")

    def test_equal_parts_are_seldom_said_to_differ(self) -> None:
        """Of forty explanations of nothing, a few may name a part: the tests of parts are adjusted at 5 % for all."""
        named = sum(
            any(row.verdict != NO_DIFFERENCE for row in explained(made(BASE, seed=seed)).rows) for seed in range(40)
        )
        assert named <= 6

    def test_a_part_that_waits_is_found_where_all_else_changes_its_pace(self) -> None:
        """What takes as long at any pace, in sets of which the slowest takes six times as long as the quickest."""
        quick = {row: seconds / 10 for row, seconds in BASE.items()}
        sets = []
        for repeat, pace in enumerate((1.0, 6.0, 2.0, 4.0, 1.5, 3.0)):
            lane = {
                row: pace * seconds + (0.06 if row == (POOL, "backward") else 0.0) for row, seconds in quick.items()
            }
            base = {row: pace * seconds for row, seconds in quick.items()}
            sets += made(lane, base=base, sets=1, seed=repeat)
        one = explained(sets)
        assert [row.label for row in one.costliest] == ["max_pool 02 backward"]
        assert one.costliest[0].share == pytest.approx(1.0, abs=0.1)

    def test_one_set_has_no_interval_and_no_verdict(self) -> None:
        one = explained(made({**BASE, (POOL, "backward"): 7e-3}, sets=1))
        assert (one.sets, one.ratio_low, one.verdict) == (1, None, NO_DIFFERENCE)
        assert one.step.base.low is None

    def test_sets_that_lack_a_lane_do_not_count(self) -> None:
        whole = made({**BASE, (POOL, "backward"): 7e-3})
        lacking = [{key: lane for key, lane in whole[0].items() if key != LANES[1]}, *whole[1:]]
        assert explained(lacking).sets == len(whole) - 1

    def test_rounds_without_a_time_do_not_count(self) -> None:
        sets = made({**BASE, (POOL, "backward"): 7e-3})
        for members in sets:
            for key, lane in members.items():
                holed = tuple(replace(one, seconds=(None, *one.seconds[1:])) for one in lane.times.parts)
                members[key] = replace(lane, times=replace(lane.times, parts=holed))
        one = explained(sets)
        assert one.rounds == 6 * 11
        assert one.costliest[0].label == "max_pool 02 backward"

    def test_batch_sizes_are_apart_and_in_order(self) -> None:
        sets = [*made(BASE, batch_size=8), *made({**BASE, (POOL, "backward"): 7e-3}, batch_size=4)]
        found = explaining.explain(sets, LANES)
        assert [(one.batch_size, one.verdict) for one in found] == [(4, "slower"), (8, NO_DIFFERENCE)]

    def test_the_nearest_to_failing_check_is_told(self) -> None:
        sets = made(BASE)
        lane = sets[0][LANES[2]]
        checks = (Quantity("a", 1e-6, 1e-5), Quantity("b", 5e-5, 1e-4))
        sets[0][LANES[2]] = replace(lane, times=replace(lane.times, checks=checks))
        assert explained(sets).checked == pytest.approx(0.5)


class TestBounds:
    def test_arithmetic_memory_dispatch_and_neither(self) -> None:
        def word(seconds: float, flops: int, moved: int, low: float | None = None) -> str:
            return held_against(seconds, low, None, Cost(flops, moved), LIMIT, dispatch=1e-4).bound

        assert word(1e-3, 8 * 10**8, 10**3) == explaining.ARITHMETIC
        assert word(1e-3, 10**6, 8 * 10**6) == explaining.MEMORY
        assert word(1e-3, 10**8, 10**6) == explaining.NEITHER
        assert word(5e-5, 10**8, 10**6) == explaining.DISPATCH
        assert word(1e-3, 8 * 10**8, 10**3, low=-1e-4) == ""

    def test_what_the_device_needs_is_told_by_what_needs_more(self) -> None:
        found = held_against(1e-2, None, None, Cost(10**9, 2 * 10**7), LIMIT, 0.0)
        assert (found.of_arithmetic, found.of_memory) == (pytest.approx(0.1), pytest.approx(0.2))
        assert found.times_needed == pytest.approx(5.0)

    def test_nothing_is_said_by_a_limit_that_a_part_goes_beyond(self) -> None:
        most = held_against(1e-3, None, None, Cost(1049 * 10**6, 10**3), LIMIT, 0.0)
        assert (most.bound, most.of_arithmetic) == (explaining.ARITHMETIC, pytest.approx(1.049))
        beyond = held_against(1e-3, None, None, Cost(1051 * 10**6, 10**3), LIMIT, 0.0)
        assert (beyond.bound, beyond.times_needed, beyond.of_arithmetic) == ("", None, pytest.approx(1.051))
        in_cache = held_against(1e-3, None, None, Cost(10**6, 3 * 10**7), LIMIT, 0.0)
        assert (in_cache.bound, in_cache.of_memory) == (explaining.MEMORY, pytest.approx(3.0))

    def test_without_limits_nothing_is_said(self) -> None:
        found = held_against(1e-2, None, None, Cost(10**9, 10**7), {}, 0.0)
        assert (found.bound, found.flops_per_second) == ("", pytest.approx(1e11))


class TestRatioInterval:
    @pytest.mark.parametrize(("errors", "correlation"), [(4.0, 0.0), (4.0, 0.8), (10.0, -0.5)])
    def test_covers_as_often_as_it_says(self, errors: float, correlation: float) -> None:
        generator = np.random.default_rng(5)
        below = errors / math.sqrt(6)  # in sd of one effect
        covered = known = 0
        for _ in range(2000):
            noise = generator.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 6)
            found = ratio_interval(0.6 * below + noise[:, 0], below + noise[:, 1])
            known += found is not None
            covered += found is None or found.low <= 0.6 <= found.high
        assert 0.93 < covered / 2000 < 0.97
        assert known > 1000

    def test_what_is_below_must_be_told_from_zero(self) -> None:
        assert ratio_interval([1.0, 1.1, 0.9], [0.1, -0.1, 0.02]) is None

    def test_exact_pairs_have_an_exact_ratio(self) -> None:
        found = ratio_interval([10.0, 11.0, 12.0], [20.0, 22.0, 24.0])
        assert found is not None
        assert (found.low, found.estimate, found.high) == (pytest.approx(0.5), 0.5, pytest.approx(0.5))


class TestWords:
    def test_parts_are_called_as_a_person_would(self) -> None:
        assert label("02_max_pool", "backward") == "max_pool 02 backward"
        assert label("optimizer") == "optimizer"
        assert label("12_global_average_pool", "forward") == "global_average_pool 12 forward"

    def test_the_sentence_names_the_part_and_its_share(self) -> None:
        one = explained(made({**BASE, (POOL, "backward"): 7e-3}, noise=1e-3))
        said = shown.sentence(one)
        assert said.startswith("slow:jit takes 1.38 times as long as quick:jit at batch size 4 (95 % interval: ")
        assert "max_pool 02 backward is 100 % of the difference" in said

    def test_a_figure_holds_both_sides_of_every_part_and_can_be_drawn(self) -> None:
        one = explained(made({**BASE, (POOL, "backward"): 7e-3}))
        [figure] = shown.figures([one])
        assert figure.name == "explained-4"
        assert figure.frame.height == 2 * (len(BASE) + 1)
        drawn = pictures.drawn(figure, "svg").decode("utf-8")
        for row in one.rows:
            assert row.label in drawn
        assert "95 %" in figure.note

    def test_the_page_shows_all_of_it_and_asks_the_network_for_nothing(self) -> None:
        one = explained(made({**BASE, (POOL, "backward"): 7e-3}))
        named = replace(one, model="<b>small & new</b>")
        made_page = explained_page.page([named])
        assert shown.sentence(named) in unescape(made_page)
        assert made_page.count("<svg") == 1
        assert "<b>small" not in made_page
        assert not re.findall(r"(?:src|href)=[\"']?http", made_page)
        for row in (*one.rows, one.unexplained, one.step):
            assert f">{row.label}</th>" in made_page

    def test_processor_time_is_shown_without_bounds(self) -> None:
        sets = made({**BASE, (POOL, "backward"): 7e-3})
        for members in sets:
            for key, lane in members.items():
                used = tuple(
                    replace(one, cpu_seconds=tuple(2 * (second or 0.0) for second in one.seconds))
                    for one in lane.times.parts
                )
                members[key] = replace(lane, times=replace(lane.times, parts=used))
        [one] = explaining.explain(sets, LANES, explaining.PROCESSOR)
        assert one.step.base.seconds == pytest.approx(2 * explained(sets).step.base.seconds)
        assert {row.base.bound for row in one.rows} == {""}
        assert "times as much processor time as quick:jit" in shown.sentence(one)
        assert not any("bound" in header for header in shown.plain_table(one).headers)
