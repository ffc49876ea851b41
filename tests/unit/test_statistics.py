from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit
from scipy.stats import norm, ttest_1samp, ttest_ind

from harness import statistics
from harness.statistics import Interval, process_interval, sequential_interval, verdict

Array = statistics.Array
Shape = tuple[int, ...]

PAUSE = math.log(5)


def normal(shape: Shape, random: np.random.Generator) -> Array:
    return random.normal(size=shape)


def t3(shape: Shape, random: np.random.Generator) -> Array:
    return random.standard_t(3, size=shape)


def pauses(shape: Shape, random: np.random.Generator) -> Array:
    """One block in ten takes five times as long; the others differ by 5 %."""
    return 0.05 * random.normal(size=shape) + PAUSE * (random.random(shape) < 0.1)


def contaminated(shape: Shape, random: np.random.Generator) -> Array:
    return random.normal(size=shape) * np.where(random.random(shape) < 0.1, 3, 1)


def slow_ones(shape: Shape, random: np.random.Generator) -> Array:
    return random.normal(size=shape) + 3 * (random.random(shape) < 0.1) - 0.3


def autocorrelated(phi: float) -> Callable[[Shape, np.random.Generator], Array]:
    """A stationary AR(1) series of unit innovations along the last axis."""

    def make(shape: Shape, random: np.random.Generator) -> Array:
        series = random.normal(size=shape)
        series[..., 0] /= math.sqrt(1 - phi**2)
        for n in range(1, shape[-1]):
            series[..., n] += phi * series[..., n - 1]
        return series

    return make


NOISES = {
    "normal": normal,
    "t3": t3,
    "pauses": pauses,
    "phi 0.3": autocorrelated(0.3),
    "phi 0.6": autocorrelated(0.6),
    "phi 0.8": autocorrelated(0.8),
    "contaminated": contaminated,
    "slow ones": slow_ones,
}
MEDIANS = {"pauses": 0.05 * norm.ppf(0.5 / 0.9)}
"""Population medians where not 0: a pause is above the median, so half of all blocks are 5 / 9 of the others."""

CONTRAST_MEDIANS = {"pauses": -0.0076}
"""The same of contrasts with two base lanes: a pause of either base is below, of the lane above."""


def covered(intervals: list[Interval], truth: float = 0.0) -> float:
    """Per cent of intervals that contain the truth."""
    return 100 * float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


class TestContrast:
    def test_is_of_complete_rounds_alone(self) -> None:
        logs = [[1.0, 2.0, 4.0], [1.0, math.nan, 4.0], [math.nan, 2.0, 5.0], [0.0, 1.0, math.nan]]
        assert statistics.paired_contrast(logs, 2, [0]).tolist() == [3.0, 3.0]
        assert statistics.paired_contrast(logs, 2, [0, 1]).tolist() == [2.5]
        assert statistics.process_effect(logs, 1, [0]) == 1.0

    def test_without_a_complete_round_or_a_base_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no round has times of lane 1"):
            statistics.process_effect([[1.0, math.nan]], 1, [0])
        for base in ([], [0, 1]):
            with pytest.raises(ValueError, match="base lanes"):
                statistics.paired_contrast([[1.0, 2.0]], 1, base)

    def test_pauses_skew_the_contrast_with_two_base_lanes_but_not_the_effect(self) -> None:
        logs = pauses((400_000, 3), np.random.default_rng(12))
        skewed = float(np.median(statistics.paired_contrast(logs, 2, [0, 1])))
        assert skewed == pytest.approx(CONTRAST_MEDIANS["pauses"], abs=5e-4)
        assert statistics.process_effect(logs, 2, [0, 1]) == pytest.approx(0, abs=5e-4)
        assert CONTRAST_MEDIANS["pauses"] / (0.05 * math.sqrt(1.5)) == pytest.approx(-0.12, abs=0.01)
        assert statistics.process_effect(logs, 2, [0]) == pytest.approx(0, abs=5e-4)

    def test_two_base_lanes_narrow_it_and_leave_it_uncorrelated_with_the_control(self) -> None:
        logs = normal((100_000, 3), np.random.default_rng(1))
        two, one = statistics.paired_contrast(logs, 2, [0, 1]), statistics.paired_contrast(logs, 2, [0])
        assert np.var(two) == pytest.approx(1.5, rel=0.02)
        assert np.var(one) == pytest.approx(2, rel=0.02)
        control = statistics.paired_contrast(logs, 1, [0])
        assert abs(np.corrcoef(two, control)[0, 1]) < 0.01
        assert np.corrcoef(one, control)[0, 1] == pytest.approx(0.5, abs=0.01)

    def test_pauses_in_one_round_of_five_move_a_mean_far_but_not_the_effect(self) -> None:
        random = np.random.default_rng(2)
        logs = 0.03 * random.normal(size=(2000, 2))
        logs[:, 1] += PAUSE * (random.random(2000) < 0.2)
        assert abs(math.expm1(statistics.process_effect(logs, 1, [0]))) < 0.03
        assert math.expm1(float(np.mean(statistics.paired_contrast(logs, 1, [0])))) > 0.3


def series_coverage(noise: str, count: int, sets: int = 1500) -> float:
    data = NOISES[noise]((sets, count), np.random.default_rng(count))
    intervals = [statistics.moving_block_interval(row, seed=n, resamples=150) for n, row in enumerate(data)]
    return covered(intervals, MEDIANS.get(noise, 0.0))


class TestMovingBlocks:
    @pytest.mark.parametrize("count", [50, 120])
    @pytest.mark.parametrize("noise", ["normal", "t3", "pauses", "phi 0.3", "phi 0.6"])
    def test_cover_the_median(self, noise: str, count: int) -> None:
        assert 93 <= series_coverage(noise, count) <= 97

    def test_cover_what_the_docstring_says_under_strong_autocorrelation(self) -> None:
        assert series_coverage("phi 0.8", 50) == pytest.approx(92, abs=1.5)

    def test_that_are_too_short_do_not(self) -> None:
        data = autocorrelated(0.6)((1000, 100), np.random.default_rng(3))
        made = [statistics.moving_block_interval(row, resamples=150, block_length=1) for row in data]
        assert covered(made) < 91

    def test_same_seed_same_interval_about_the_median(self) -> None:
        values = t3((80,), np.random.default_rng(4))
        made = [statistics.moving_block_interval(values, seed=seed) for seed in (0, 0, 1)]
        assert made[0] == made[1] != made[2]
        assert made[0].estimate == np.median(values)
        assert statistics.moving_block_interval(values, level=0.8).half_width < made[0].half_width

    def test_of_equal_values_have_no_width(self) -> None:
        assert statistics.moving_block_interval([0.5] * 9) == Interval(0.5, 0.5, 0.5, 0.95)

    def test_refuse_what_has_no_interval(self) -> None:
        for values in ([1.0], [1.0, math.nan], [[1.0, 2.0]]):
            with pytest.raises(ValueError, match="values: expected at least 2 finite numbers"):
                statistics.moving_block_interval(values)
        with pytest.raises(ValueError, match="block length 3: expected 1 to 2"):
            statistics.moving_block_interval([1.0] * 5, block_length=3)


def batches_coverage(noise: str, count: int, sets: int = 2000) -> float:
    covering = []
    for row in NOISES[noise]((sets, count), np.random.default_rng(count)):
        error, batches = statistics.batch_median_error(row) or (math.nan, 0)
        covering.append(statistics.interval_around(float(np.median(row)), error, batches - 1))
    return covered(covering, MEDIANS.get(noise, 0.0))


class TestBatches:
    @pytest.mark.parametrize("count", [15, 50, 400])
    @pytest.mark.parametrize("noise", ["normal", "t3", "pauses"])
    def test_cover_the_median(self, noise: str, count: int) -> None:
        assert 93 <= batches_coverage(noise, count) <= 97.5

    @pytest.mark.parametrize("count", [15, 50, 400])
    def test_cover_nearly_as_much_under_weak_autocorrelation(self, count: int) -> None:
        assert 90 <= batches_coverage("phi 0.3", count) <= 96

    @pytest.mark.parametrize(("count", "stated"), [(30, 83), (400, 93)])
    def test_cover_what_the_docstring_says_under_strong_autocorrelation(self, count: int, stated: float) -> None:
        assert batches_coverage("phi 0.6", count) == pytest.approx(stated, abs=1.5)

    def test_give_about_the_width_of_moving_blocks(self) -> None:
        widths = []
        for row in normal((100, 200), np.random.default_rng(13)):
            error, batches = statistics.batch_median_error(row) or (math.nan, 0)
            mine = statistics.interval_around(float(np.median(row)), error, batches - 1).half_width
            widths.append(mine / statistics.moving_block_interval(row, resamples=300).half_width)
        assert float(np.median(widths)) == pytest.approx(1, abs=0.15)

    def test_are_of_nearly_equal_length_and_leave_no_value_out(self) -> None:
        for count, batches in ((15, 5), (16, 5), (59, 19), (60, 20), (79, 20), (1000, 20)):
            values = normal((count,), np.random.default_rng(count))
            medians = [np.median(part) for part in np.array_split(values, batches)]
            expected = float(np.std(medians, ddof=1)) / math.sqrt(batches), batches
            assert statistics.batch_median_error(values) == pytest.approx(expected)

    def test_of_equal_values_have_no_error(self) -> None:
        assert statistics.batch_median_error([0.5] * 15) == (0.0, 5)

    def test_of_too_few_values_are_none(self) -> None:
        assert statistics.batch_median_error([]) is None
        assert statistics.batch_median_error([1.0] * 14) is None

    def test_refuse_what_is_not_finite(self) -> None:
        with pytest.raises(ValueError, match="values: expected at least 0 finite numbers"):
            statistics.batch_median_error([1.0] * 20 + [math.nan])


def contrasts(noise: str, sets: int, processes: int, rounds: int, random: np.random.Generator) -> Array:
    """Paired contrasts (sets, processes, rounds) of lanes of the same work, without anything between processes."""
    lanes = NOISES[noise]((sets, processes, 3, rounds), random)
    return lanes[:, :, 2] - lanes[:, :, :2].mean(axis=2)


def process_coverage(noise: str, processes: int, between: float, sets: int = 3000) -> float:
    """``between``: sd between processes as a multiple of that of a process's median."""
    random = np.random.default_rng(processes)
    medians = np.median(contrasts(noise, sets, processes, 40, random), axis=2)
    effects = medians + between * medians.std() * random.normal(size=medians.shape)
    return covered([process_interval(row) for row in effects], CONTRAST_MEDIANS.get(noise, 0.0))


def effect_coverage(effects: str, processes: int, sets: int = 3000) -> float:
    data = NOISES[effects]((sets, processes), np.random.default_rng(processes))
    return covered([process_interval(row) for row in data])


def nested_coverage(noise: str, between: float, sets: int = 1000) -> float:
    random = np.random.default_rng(5)
    data = contrasts(noise, sets, 6, 40, random)
    spread = float(np.median(data, axis=2).std())
    shifted = data + between * spread * random.normal(size=(sets, 6, 1))
    made = [statistics.nested_bootstrap_interval(list(row), seed=n, resamples=100) for n, row in enumerate(shifted)]
    return covered(made, CONTRAST_MEDIANS.get(noise, 0.0))


class TestProcesses:
    @pytest.mark.parametrize("between", [0.0, 2.0])
    @pytest.mark.parametrize("noise", ["normal", "t3", "pauses", "phi 0.6"])
    def test_interval_covers_whatever_the_noise_of_rounds(self, noise: str, between: float) -> None:
        assert 93 <= process_coverage(noise, 6, between) <= 97

    @pytest.mark.parametrize("processes", [6, 15])
    @pytest.mark.parametrize("effects", ["normal", "t3", "contaminated", "slow ones"])
    def test_interval_covers_whatever_the_spread_of_processes(self, effects: str, processes: int) -> None:
        assert 93 <= effect_coverage(effects, processes) <= 97

    @pytest.mark.parametrize(
        ("noise", "between", "stated"),
        [("normal", 5.0, 96), ("phi 0.6", 5.0, 96), ("pauses", 1.0, 99), ("t3", 1.0, 99), ("normal", 0.0, 99.5)],
    )
    def test_nested_bootstrap_covers_what_its_docstring_says(self, noise: str, between: float, stated: float) -> None:
        assert nested_coverage(noise, between) == pytest.approx(stated, abs=1.5)

    def test_nested_bootstrap_agrees_where_processes_differ_most(self) -> None:
        random = np.random.default_rng(6)
        data = 0.01 * random.normal(size=(8, 50)) + random.normal(size=(8, 1))
        nested = statistics.nested_bootstrap_interval(list(data), resamples=4000)
        plain = process_interval(np.median(data, axis=1))
        assert nested.estimate == pytest.approx(plain.estimate)
        assert nested.half_width == pytest.approx(plain.half_width, rel=0.03)

    def test_fewer_than_two_are_refused(self) -> None:
        with pytest.raises(ValueError, match="process effects: expected at least 2"):
            process_interval([0.1])
        with pytest.raises(ValueError, match="1 processes: expected at least 2"):
            statistics.nested_bootstrap_interval([[0.1, 0.2]])

    def test_ratios_are_of_times(self) -> None:
        interval = process_interval(np.log([1.9, 2.0, 2.0, 2.1]))
        estimate, low, high = interval.ratios()
        assert low < 2 < high
        assert estimate == pytest.approx(2, rel=0.002)
        assert interval.half_width == pytest.approx(math.log(high / low) / 2)

    def test_ratios_beyond_the_range_of_floats_are_infinite(self) -> None:
        assert Interval(0.0, -1000.0, 1000.0, 0.95).ratios() == (1.0, 0.0, math.inf)


MOST_PROCESSES = 30
TARGETS = (0.7, 1.0, 1.5, 2.0, 3.0)


def stops(effects: Array, target: float, level: float) -> tuple[Array, Array, Array]:
    """Sets used, mean and half width where sampling stops, each (data sets,): the rule of ``narrow_enough``."""
    counts = np.arange(2, effects.shape[1] + 1)
    means = np.cumsum(effects, axis=1)[:, 1:] / counts
    variances = (np.cumsum(effects**2, axis=1)[:, 1:] - counts * means**2) / (counts - 1)
    halves = stdtrit(counts - 1, 0.5 + level / 2) * np.sqrt(variances / counts)
    may_stop = (halves <= target) & (counts >= statistics.FEWEST_PROCESSES)
    may_stop[:, -1] = True
    at = np.arange(len(effects)), may_stop.argmax(axis=1)
    return counts[at[1]], means[at], halves[at]


def stopped_coverage(effects: str, target: float, level: float, sets: int = 10_000) -> float:
    made = NOISES[effects]((sets, MOST_PROCESSES), np.random.default_rng(7))
    _, means, halves = stops(made / made.std() * 1.8, target, level)
    return 100 * float(np.mean(np.abs(means) <= halves))


class TestOptionalStopping:
    @pytest.mark.parametrize(("effects", "low", "high"), [("normal", 93.8, 96.0), ("contaminated", 94.5, 96.6)])
    def test_covers_about_the_reported_level(self, effects: str, low: float, high: float) -> None:
        for target in TARGETS:
            coverage = stopped_coverage(effects, target, statistics.STOPPING_LEVEL)
            assert 93 <= coverage <= 97
            assert low - 0.5 <= coverage <= high + 0.5

    @pytest.mark.parametrize(("effects", "low", "high"), [("t3", 95.0, 97.2), ("slow ones", 92.9, 95.4)])
    def test_covers_what_the_docstring_says_of_the_hardest(self, effects: str, low: float, high: float) -> None:
        for target in TARGETS:
            assert low - 0.5 <= stopped_coverage(effects, target, statistics.STOPPING_LEVEL) <= high + 0.5

    def test_at_the_plain_level_would_cover_too_little(self) -> None:
        assert min(stopped_coverage("normal", target, 0.95) for target in TARGETS) < 93

    def test_is_the_rule_that_was_simulated(self) -> None:
        made = 1.8 * normal((100, MOST_PROCESSES), np.random.default_rng(8))
        for row, used, mean, half in zip(made, *stops(made, 1.2, statistics.STOPPING_LEVEL), strict=True):
            enough = [statistics.narrow_enough(row[:n], math.expm1(1.2)) for n in range(1, MOST_PROCESSES)]
            assert [*enough, True].index(True) + 1 == used
            interval = sequential_interval(row[:used])
            assert (interval.estimate, interval.half_width) == pytest.approx((mean, half))
            assert interval.level == statistics.LEVEL

    def test_never_before_the_fewest_processes(self) -> None:
        assert not statistics.narrow_enough([0.1] * (statistics.FEWEST_PROCESSES - 1), 0.02)
        assert statistics.narrow_enough([0.1] * statistics.FEWEST_PROCESSES, 0.02)
        assert not statistics.narrow_enough([0.1, 0.2] * statistics.FEWEST_PROCESSES, 0.02)
        assert not statistics.narrow_enough([], 0.02)


class TestPValue:
    def test_is_below_the_bar_exactly_where_the_interval_excludes_zero(self) -> None:
        random = np.random.default_rng(9)
        sides = []
        for _ in range(500):
            effects = random.normal(0.8, 1, size=random.integers(2, 12))
            interval = sequential_interval(effects)
            sides.append(statistics.p_value(effects) < 0.05)
            assert sides[-1] == (interval.low > 0 or interval.high < 0)
        assert 100 < sum(sides) < 400

    def test_is_the_t_test_scaled_and_capped(self) -> None:
        effects = [0.3, -0.1, 0.2, 0.4, 0.1, 0.25]
        assert statistics.p_value(effects) == pytest.approx(ttest_1samp(effects, 0).pvalue * 1.25)
        assert statistics.p_value([1.0, -1.0, 0.1]) == 1.0

    def test_of_equal_effects(self) -> None:
        assert statistics.p_value([0.5] * 6) == 0.0
        assert statistics.p_value([0.1] * 6) < 1e-12
        assert statistics.p_value([0.0] * 6) == 1.0


class TestHolm:
    def test_of_known_examples(self) -> None:
        """The second: R, p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
        assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert statistics.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
        assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
        assert statistics.holm([]) == []

    @given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12))
    def test_keeps_order_and_nan(self, given_p: list[float]) -> None:
        adjusted = statistics.holm(given_p)
        assert [math.isnan(p) for p in adjusted] == [math.isnan(p) for p in given_p]
        pairs = sorted((p, q) for p, q in zip(given_p, adjusted, strict=True) if not math.isnan(p))
        assert [q for _, q in pairs] == sorted(q for _, q in pairs)
        assert all(p <= q <= 1 for p, q in pairs)


def unpaired_coverage(noise: str, sizes: tuple[int, int], drift: float, sets: int = 2000) -> float:
    """Run b has three times the spread of run a; each run has its own drift."""
    random = np.random.default_rng(10)
    a, b = NOISES[noise]((sets, sizes[0]), random), 3 * NOISES[noise]((sets, sizes[1]), random)
    a, b = a + drift * random.normal(size=(sets, 1)), b + drift * random.normal(size=(sets, 1))
    return covered([statistics.unpaired_interval(x, y, run_to_run=drift) for x, y in zip(a, b, strict=True)])


class TestUnpaired:
    @pytest.mark.parametrize("drift", [0.0, 2.0])
    @pytest.mark.parametrize("sizes", [(6, 6), (4, 9), (9, 4)])
    @pytest.mark.parametrize("noise", ["normal", "t3", "slow ones"])
    def test_covers_runs_of_unequal_spread_and_size(self, noise: str, sizes: tuple[int, int], drift: float) -> None:
        assert 93 <= unpaired_coverage(noise, sizes, drift) <= 97

    def test_is_welch_without_drift_and_wider_with(self) -> None:
        a, b = [1.0, 1.2, 0.9, 1.1], [1.5, 1.9, 1.4]
        interval = statistics.unpaired_interval(a, b)
        welch = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high))
        assert interval.estimate == pytest.approx(0.55)
        assert statistics.unpaired_interval(a, b, run_to_run=0.2).half_width > interval.half_width

    def test_of_equal_times_is_the_drift_alone(self) -> None:
        assert statistics.unpaired_interval([1.0] * 3, [2.0] * 3) == Interval(1.0, 1.0, 1.0, 0.95)
        drifting = statistics.unpaired_interval([1.0] * 3, [2.0] * 3, run_to_run=0.1)
        assert drifting.half_width == pytest.approx(1.95996 * 0.1 * math.sqrt(2), rel=1e-4)

    def test_needs_two_processes_on_each_side(self) -> None:
        for a, b in (([1.0], [1.0, 2.0]), ([1.0, 2.0], [])):
            with pytest.raises(ValueError, match="processes of a run: expected at least 2"):
                statistics.unpaired_interval(a, b)


def drifting_coverage(sizes: tuple[int, int], process_sd: float, sets: int = 4000) -> float:
    """Runs with a drift of sd 1 each, of processes with their own spread."""
    random = np.random.default_rng(11)
    sides = [random.normal(size=(sets, 1)) + process_sd * random.normal(size=(sets, processes)) for processes in sizes]
    return covered([statistics.drifting_interval(x, y, 1.0) for x, y in zip(*sides, strict=True)])


class TestDrifting:
    @pytest.mark.parametrize("sizes", [(1, 1), (1, 6), (6, 1), (6, 6)])
    def test_covers_where_runs_differ_more_than_their_processes(self, sizes: tuple[int, int]) -> None:
        assert 93 <= drifting_coverage(sizes, 0.25) <= 97

    def test_one_process_a_side_does_not_tell_how_processes_differ(self) -> None:
        assert 80 <= drifting_coverage((1, 1), 1.0) <= 86

    def test_needs_a_process_on_each_side(self) -> None:
        with pytest.raises(ValueError, match="processes of a run: expected at least 1"):
            statistics.drifting_interval([], [1.0], 0.1)


class TestVerdict:
    def test_names_the_direction_of_the_lane(self) -> None:
        assert verdict(Interval(0.1, 0.05, 0.15, 0.95), 0.01, 0.02) == "slower"
        assert verdict(Interval(-0.1, -0.15, -0.05, 0.95), 0.01, 0.02) == "faster"

    @pytest.mark.parametrize(
        ("interval", "adjusted_p", "floor"),
        [
            (Interval(0.1, 0.05, 0.15, 0.95), 0.05, 0.02),
            (Interval(0.1, -0.01, 0.21, 0.95), 0.01, 0.02),
            (Interval(0.1, 0.05, 0.15, 0.95), 0.01, 0.1),
            (Interval(0.1, 0.05, 0.15, 0.95), math.nan, 0.02),
            (Interval(0.1, 0.05, 0.15, 0.95), 0.01, math.nan),
            (Interval(math.nan, math.nan, math.nan, 0.95), 0.01, 0.02),
        ],
    )
    def test_needs_everything(self, interval: Interval, adjusted_p: float, floor: float) -> None:
        assert verdict(interval, adjusted_p, floor) == "no difference found"

    @given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.lists(st.floats(-1, 1), min_size=1), st.floats(0, 1))
    def test_is_never_a_difference_inside_the_floor(
        self, effects: list[float], control: list[float], adjusted_p: float
    ) -> None:
        floor, interval = statistics.noise_floor(control), sequential_interval(effects)
        if verdict(interval, adjusted_p, floor) != "no difference found":
            assert abs(interval.estimate) > floor
            assert adjusted_p < 0.05
            assert not interval.low <= 0 <= interval.high

    def test_floor_is_what_the_same_program_differed_by(self) -> None:
        assert statistics.noise_floor([-0.03, -0.01]) == pytest.approx(0.02)


class TestProportionality:
    STEPS = np.repeat([1, 2, 4, 8, 16], 20)

    def test_of_synchronised_blocks(self) -> None:
        random = np.random.default_rng(11)
        added = 0.02 * np.abs(random.normal(size=100)) + PAUSE * (random.random(100) < 0.5)
        found = statistics.proportionality(self.STEPS, 0.01 * self.STEPS * np.exp(added))
        assert found.slope == pytest.approx(0.01, rel=0.03)
        assert abs(found.intercept) < 0.03
        assert found.worst < 0.05

    def test_of_a_fixed_cost_of_each_block(self) -> None:
        found = statistics.proportionality(self.STEPS, 0.04 + 0.01 * self.STEPS)
        assert (found.slope, found.intercept, found.worst) == pytest.approx((0.01, 0.2, 0.0))

    def test_of_a_clock_that_did_not_wait(self) -> None:
        found = statistics.proportionality(self.STEPS, np.full(100, 0.001))
        assert (found.slope, found.intercept) == pytest.approx((0.0, 1.0))

    def test_of_a_bend(self) -> None:
        assert statistics.proportionality(self.STEPS, 0.01 * self.STEPS**2).worst > 0.3

    def test_needs_three_step_counts(self) -> None:
        with pytest.raises(ValueError, match="2 distinct step counts: expected at least 3"):
            statistics.proportionality([1, 2, 2], [0.1, 0.2, 0.2])
