"""Coverages are simulated; the bars are those of the docstring of ``ranking.rank``, give or take 1.5 points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_ind, ttest_rel

from harness.analysis import ranking
from harness.analysis.ranking import Ranking, rank

Costs = dict[object, float]


def in_blocks(*candidates: Sequence[float]) -> list[Costs]:
    """Every candidate with the same seeds."""
    return [dict(enumerate(values)) for values in candidates]


def unpaired(*candidates: Sequence[float]) -> list[Costs]:
    """No two candidates with a seed in common."""
    return [{(number, n): value for n, value in enumerate(one)} for number, one in enumerate(candidates)]


def worse(found: Ranking) -> set[int]:
    return {one.candidate for one in found.others if one.worse}


LAYOUTS = {"blocks": in_blocks, "unpaired": unpaired}


def rankings(
    layout: str,
    candidates: int,
    values: int,
    spreads: Sequence[float] | None = None,
    sets: int = 800,
    apart: float = 0,
) -> list[Ranking]:
    """Of candidates whose means are ``apart`` from one to the next, in sd; blocks differ by three sd."""
    random = np.random.default_rng(100 * candidates + values)
    scale = np.ones(candidates) if spreads is None else np.array(spreads)
    noise = random.normal(size=(sets, candidates, values)) * scale[:, None]
    noise += apart * np.arange(candidates)[:, None]
    if layout == "blocks":
        noise += 3 * random.normal(size=(sets, 1, values))
    return [rank(LAYOUTS[layout](*one.tolist())) for one in noise]


def per_cent(events: Sequence[bool]) -> float:
    return 100 * float(np.mean(events))


class TestWhatIsCalledWorse:
    @pytest.mark.parametrize(("candidates", "values"), [(2, 2), (2, 5), (4, 3), (12, 2)])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_is_seldom_a_given_one_of_equals(self, layout: str, candidates: int, values: int) -> None:
        found = rankings(layout, candidates, values)
        assert 0.5 <= per_cent([0 in worse(one) for one in found]) <= 6.5

    @pytest.mark.parametrize(("candidates", "values"), [(2, 3), (4, 3), (8, 2)])
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("how_many", ["one", "half"])
    def test_is_not_much_oftener_one_that_varies_more(
        self, layout: str, candidates: int, values: int, how_many: str
    ) -> None:
        wide = 1 if how_many == "one" else candidates // 2
        found = rankings(layout, candidates, values, [3] * wide + [1] * (candidates - wide))
        assert per_cent([0 in worse(one) for one in found]) <= 10.5

    @pytest.mark.parametrize("apart", [0.3, 1.0, 3.0])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_is_seldom_the_true_best(self, layout: str, apart: float) -> None:
        found = rankings(layout, 5, 3, apart=apart)
        assert per_cent([0 in worse(one) for one in found]) <= 6.5

    @pytest.mark.parametrize(("candidates", "stated"), [(2, 10), (12, 25)])
    def test_is_some_one_of_equals_as_often_as_the_docstring_says(self, candidates: int, stated: float) -> None:
        found = rankings("blocks", candidates, 5, sets=600)
        assert per_cent([bool(worse(one)) for one in found]) == pytest.approx(stated, abs=4)

    def test_is_what_costs_clearly_more(self) -> None:
        found = rankings("blocks", 4, 4, apart=6, sets=300)
        assert per_cent([worse(one) == {1, 2, 3} for one in found]) > 95

    def test_needs_blocks_where_they_differ_more_than_candidates(self) -> None:
        seeds = np.array([0.0, 5.0, 9.0])
        candidates = [(seeds + 0.01 * np.array([0, 1, -1])).tolist(), (seeds + 0.5).tolist()]
        assert worse(rank(in_blocks(*candidates))) == {1}
        assert worse(rank(unpaired(*candidates))) == set()


class TestIntervals:
    def test_of_two_in_blocks_are_those_of_the_paired_t_test(self) -> None:
        one, other = [0.1, 0.5, 0.3, 0.9], [0.4, 0.6, 0.5, 1.4]
        (standing,) = rank(in_blocks(one, other)).others
        interval = ttest_rel(other, one).confidence_interval(0.9)
        assert standing.interval is not None
        assert (standing.interval.low, standing.interval.high) == pytest.approx((interval.low, interval.high))
        assert standing.interval.estimate == pytest.approx(0.275)
        assert standing.worse == (ttest_rel(other, one, alternative="greater").pvalue < 0.05)

    def test_of_two_without_blocks_are_those_of_the_t_test(self) -> None:
        one, other = [0.1, 0.5, 0.3], [0.4, 0.6, 0.5, 1.4]
        (standing,) = rank(unpaired(one, other)).others
        interval = ttest_ind(other, one).confidence_interval(0.9)
        assert standing.interval is not None
        assert (standing.interval.low, standing.interval.high) == pytest.approx((interval.low, interval.high))

    def test_of_three_share_variance_and_the_error_rate(self) -> None:
        """By hand: what means of candidates and of blocks leave, thirds, has a sum of squares of 2 with 4 degrees."""
        found = rank(in_blocks([0, 0, 3], [1, 3, 5], [2, 3, 7]))
        assert [one.candidate for one in found.others] == [1, 2]
        half = student.ppf(1 - 0.05 / 2, 4) * math.sqrt(2 / 4 * 2 / 3)
        for standing, estimate in zip(found.others, (2, 3), strict=True):
            assert standing.interval is not None
            assert standing.interval.estimate == pytest.approx(estimate)
            assert standing.interval.half_width == pytest.approx(half)
            assert standing.worse == (half < estimate)

    def test_of_a_pair_that_varies_more_are_its_own(self) -> None:
        quiet = [[0.001 * n, 0.001 * (2 - n), 0.001 * (n % 2)] for n in range(6)]
        wild = [-3.0, 0.5, 4.0]
        interval = next(one for one in rank(in_blocks(*quiet, wild)).others if one.candidate == 6).interval
        best = rank(in_blocks(*quiet, wild)).best
        differences = np.array(wild) - np.array(quiet[best])
        own = student.ppf(1 - 0.05 / 6, 2) * float(np.std(differences, ddof=1)) / math.sqrt(3)
        assert interval is not None
        assert interval.half_width == pytest.approx(own)

    def test_of_equal_values_have_no_width(self) -> None:
        (standing,) = rank(in_blocks([1.0, 1.0], [2.0, 2.0])).others
        assert standing.worse
        assert standing.interval is not None
        assert standing.interval.half_width == 0


class TestOrder:
    def test_is_by_means(self) -> None:
        found = rank(in_blocks([3, 3.1], [1, 1.2], [2, 2.1], [1.4, 1.5]))
        assert (found.best, [one.candidate for one in found.others]) == (1, [3, 2, 0])
        assert found.tested

    def test_of_equal_means_is_that_of_the_candidates(self) -> None:
        found = rank(in_blocks([1, 2], [2, 1], [1.5, 1.5]))
        assert (found.best, [one.candidate for one in found.others]) == (0, [1, 2])
        assert worse(found) == set()

    def test_of_blocks_makes_no_difference(self) -> None:
        forth = [{"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 1.5, "b": 2.4, "c": 4.6}]
        back = [forth[0], dict(reversed(forth[1].items()))]
        assert rank(forth) == rank(back)

    def test_one_candidate_is_the_best_of_itself(self) -> None:
        assert rank([{0: 1.0, 1: 2.0}]) == Ranking(0, False, ())


class TestTooFewValues:
    def test_of_all_tests_nothing(self) -> None:
        found = rank(in_blocks([1.0], [2.0], [9.0]))
        assert (found.best, found.tested, worse(found)) == (0, False, set())
        assert [one.interval for one in found.others] == [None, None]

    def test_of_the_best_tests_nothing(self) -> None:
        assert not rank([{0: 1.0}, {0: 2.0, 1: 2.1}, {0: 2.2, 1: 2.3}]).tested

    def test_of_one_leaves_only_that_one_open(self) -> None:
        found = rank([{0: 1.0, 1: 1.1}, {0: 9.0}, {0: 2.0, 1: 2.2}])
        assert found.tested
        assert worse(found) == {2}
        assert {one.candidate: one.interval is None for one in found.others} == {2: False, 1: True}
        others = rank([{0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.2}]).others
        assert found.others[0].interval == others[0].interval

    def test_unequal_blocks_are_no_blocks(self) -> None:
        found = rank([{0: 1.0, 1: 5.0, 2: 9.0}, {0: 1.1, 1: 5.1}])
        assert found.tested
        assert worse(found) == set()


@pytest.mark.parametrize("costs", [[], [{}], [{0: 1.0}, {}], [{0: math.nan}], [{0: 1.0, 1: math.inf}]])
def test_what_has_no_mean_is_refused(costs: list[dict[object, float]]) -> None:
    with pytest.raises(ValueError, match="candidates: expected one or more, each with finite values"):
        ranking.rank(costs)
