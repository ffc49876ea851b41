"""Accuracy against batch size, what wins it back, and steps to an accuracy: against numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from scipy.stats import t as student

from harness import analysis
from harness.analysis import Analysis
from harness.analysis.accuracy import Curve, Reached, reach
from harness.core.record import Epoch, Record
from tests.unit.planted_runs import LARGER, planted
from tests.unit.records import JAX, TENSORFLOW, failed

Row = dict[str, Any]


def analysed(records: Sequence[Record], accuracy: float | None = None) -> Analysis:
    return analysis.analyse(analysis.collect(records), accuracy)


def rows_at(found: Analysis, accuracy: float) -> list[Row]:
    return found.time_to_accuracy.filter(pl.col("accuracy") == accuracy).to_dicts()


def curve(*accuracies: float, steps_per_epoch: int = 100) -> Curve:
    return Curve(0, 32, steps_per_epoch, accuracies, 0.01, 1.5)


class TestReach:
    def test_is_linear_between_evaluations(self) -> None:
        assert reach(curve(0.5, 0.7, 0.8), 0.75) == Reached(pytest.approx(250), False)
        assert reach(curve(0.5, 0.7, 0.8), 0.7) == Reached(pytest.approx(200), False)

    def test_at_the_first_evaluation_is_a_bound(self) -> None:
        assert reach(curve(0.9, 0.95), 0.9) == Reached(100.0, True)

    def test_counts_the_first_time_alone(self) -> None:
        assert reach(curve(0.5, 0.8, 0.4, 0.9), 0.65) == Reached(pytest.approx(150), False)

    def test_need_not_happen(self) -> None:
        assert reach(curve(0.5, 0.7), 0.71) is None


class TestAccuracyBySize:
    def test_is_the_mean_over_seeds_with_its_t_interval(self) -> None:
        values = (0.90, 0.92, 0.97)
        found = analysed([planted(32, seed=seed, accuracies=[value]) for seed, value in enumerate(values)])
        (row,) = found.accuracy_by_size.to_dicts()
        half = student.ppf(0.975, 2) * math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2 / 3)
        assert (row["target"], row["epochs"], row["batch_size"], row["seeds"]) == ("jax-cpu:jit", 1, 32, 3)
        assert row["accuracy"] == pytest.approx(0.93)
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((0.93 - half, min(0.93 + half, 1.0)))

    def test_goes_no_further_than_what_is_possible(self) -> None:
        (row,) = analysed([planted(32, seed=n, accuracies=[n]) for n in (0, 1)]).accuracy_by_size.to_dicts()
        assert (row["accuracy_low"], row["accuracy"], row["accuracy_high"]) == (0.0, 0.5, 1.0)

    def test_repeats_and_lanes_of_a_seed_are_one_value(self) -> None:
        cells = [
            planted(32, seed=0, repeat=0, accuracies=[0.8]),
            planted(32, seed=0, repeat=1, accuracies=[0.9]),
            planted(32, seed=0, repeat=1, lane=1, accuracies=[0.7]),
            planted(32, seed=1, accuracies=[0.9]),
        ]
        (row,) = analysed(cells).accuracy_by_size.to_dicts()
        assert (row["seeds"], row["accuracy"]) == (2, pytest.approx(0.85))

    def test_of_one_seed_has_no_interval_and_of_equal_seeds_no_width(self) -> None:
        (one,) = analysed([planted(32, accuracies=[0.8])]).accuracy_by_size.to_dicts()
        assert (one["accuracy"], one["accuracy_low"], one["accuracy_high"]) == (0.8, None, None)
        (equal,) = analysed([planted(32, seed=n, accuracies=[0.8]) for n in range(3)]).accuracy_by_size.to_dicts()
        assert (equal["accuracy_low"], equal["accuracy_high"]) == pytest.approx((0.8, 0.8))

    def test_keeps_epochs_apart_and_leaves_out_what_did_not_end_well(self) -> None:
        cells = [
            planted(32, accuracies=[0.8]),
            planted(32, accuracies=[0.8, 0.9]),
            planted(64, accuracies=[0.7], epochs=2, status="interrupted"),
            planted(64, accuracies=[0.7], seed=1, status="parity_failed"),
            failed(planted(128).cell, "out_of_memory", "no memory"),
            failed(planted(256).cell, "skipped", "too large"),
        ]
        rows = analysed(cells).accuracy_by_size.to_dicts()
        assert [(row["epochs"], row["batch_size"], row["accuracy"]) for row in rows] == [(1, 32, 0.8), (2, 32, 0.9)]

    def test_counts_losses_that_are_not_finite_and_takes_no_number_as_nothing_right(self) -> None:
        cells = [
            planted(32, seed=0, accuracies=[0.4]),
            planted(32, seed=1, epochs=1, evaluations=[Epoch(0, math.nan, 0.1, 0.2, 0.1)]),
            planted(32, seed=2, epochs=1, evaluations=[Epoch(0, 0.1, math.inf, math.nan, 0.1)]),
        ]
        (row,) = analysed(cells).accuracy_by_size.to_dicts()
        assert (row["seeds"], row["not_finite"]) == (3, 2)
        assert row["accuracy"] == pytest.approx(0.2)


class TestDiverged:
    LOST = planted(
        32, accuracies=[0.9], epochs=2, evaluations=[Epoch(0, 0.1, 0.1, 0.9, 0.1), Epoch(1, math.nan, 0.1, 0.1, 0.1)]
    )

    def test_an_accuracy_before_the_loss_was_lost_is_not_reached(self) -> None:
        found = analysed([self.LOST, planted(32, seed=1, accuracies=[0.7, 0.9])], 0.8)
        (row,) = rows_at(found, 0.8)
        assert (row["seeds"], row["reached"], row["diverged"], row["seconds"]) == (2, 1, 1, None)
        assert found.pace.select("processes", "diverged").rows() == [(2, 1)]

    def test_it_is_no_batch_size_to_lose_accuracy_against(self) -> None:
        cells = [self.LOST, planted(64, accuracies=[0.6, 0.7]), planted(128, accuracies=[0.5, 0.6])]
        assert analysed(cells).recovery["base_batch_size"].to_list() == [64]


class TestRecovery:
    def test_of_a_larger_batch_is_epochs_until_the_smallest_one_s_accuracy(self) -> None:
        cells = [
            planted(16, accuracies=[0.80, 0.90, 0.94]),
            planted(32, accuracies=[0.70, 0.86, 0.94, 0.96]),
            planted(64, accuracies=[0.60, 0.70, 0.80]),
        ]
        rows = analysed([*cells, planted(16, accuracies=[0.80])]).recovery.to_dicts()
        names = ("base_epochs", "batch_size", "base_accuracy", "accuracy", "lost_points", "epochs_to_recover")
        expected = [
            (1, 32, 0.80, 0.70, 10, 1 + 0.10 / 0.16),
            (1, 64, 0.80, 0.60, 20, 3.0),
            (3, 32, 0.94, 0.94, 0, 3.0),
            (3, 64, 0.94, 0.80, 14, None),
        ]
        assert [row["base_batch_size"] for row in rows] == [16] * 4
        assert [row["most_epochs"] for row in rows] == [4, 3, 4, 3]
        for row, values in zip(rows, expected, strict=True):
            assert [row[name] for name in names] == [
                None if value is None else pytest.approx(value) for value in values
            ]

    def test_is_of_means_over_seeds(self) -> None:
        cells = [
            *(planted(16, seed=seed, accuracies=[value]) for seed, value in enumerate((0.7, 0.9))),
            *(planted(32, seed=seed, accuracies=[value, value + 0.2]) for seed, value in enumerate((0.6, 0.8))),
        ]
        (row,) = analysed(cells).recovery.to_dicts()
        assert (row["base_accuracy"], row["accuracy"]) == pytest.approx((0.8, 0.7))
        assert row["epochs_to_recover"] == pytest.approx(1.5)

    def test_a_larger_batch_that_is_better_lost_nothing(self) -> None:
        (row,) = analysed([planted(16, accuracies=[0.5, 0.6]), planted(32, accuracies=[0.7, 0.8])]).recovery.to_dicts()
        assert (row["lost_points"], row["epochs_to_recover"]) == (0.0, 1.0)

    def test_needs_two_batch_sizes_of_one_target(self) -> None:
        assert analysed([planted(16), planted(32, TENSORFLOW)]).recovery.is_empty()


class TestTimeToAccuracy:
    def test_of_one_seed_is_its_steps_at_its_own_pace(self) -> None:
        found = analysed([planted(32, pace=0.02, accuracies=[0.5, 0.7, 0.8])], 0.75)
        (row,) = rows_at(found, 0.75)
        assert (row["seeds"], row["reached"], row["most_epochs"], row["highest_accuracy"]) == (1, 1, 3, 0.8)
        assert row["steps"] == pytest.approx(2.5 * 128)
        assert row["epochs"] == pytest.approx(2.5)
        assert row["seconds"] == pytest.approx(2.5 * 128 * 0.02)
        assert row["seconds_with_compile"] == pytest.approx(2.5 * 128 * 0.02 + 1.5)
        assert row["steps_low"] is row["steps_high"] is row["seconds_low"] is row["seconds_high"] is None
        assert (row["at_most"], row["best"], row["regime"], row["steps_slope"]) == (False, True, "", None)

    def test_over_seeds_is_a_geometric_mean_with_the_t_interval_of_logarithms(self) -> None:
        paces, halves = (0.01, 0.02, 0.04), (0.2, 0.1, 0.05)
        cells = [
            planted(32, seed=seed, pace=pace, accuracies=[0.5, 0.5 + gain], compile_seconds=1.0 + seed)
            for seed, (pace, gain) in enumerate(zip(paces, halves, strict=True))
        ]
        (row,) = rows_at(analysed(cells, 0.525), 0.525)
        steps = [128 * (1 + 0.025 / gain) for gain in halves]
        for name, values in (("steps", steps), ("seconds", [a * b for a, b in zip(steps, paces, strict=True)])):
            logs = [math.log(value) for value in values]
            mean = sum(logs) / 3
            half = student.ppf(0.975, 2) * math.sqrt(sum((log - mean) ** 2 for log in logs) / 2 / 3)
            expected = (math.exp(mean), math.exp(mean - half), math.exp(mean + half))
            assert (row[name], row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected)
        assert row["epochs"] == pytest.approx(row["steps"] / 128)
        assert row["seconds_with_compile"] == pytest.approx(row["seconds"] + 2.0)

    def test_is_empty_unless_every_seed_got_there(self) -> None:
        cells = [planted(32, seed=seed, accuracies=[0.5, value]) for seed, value in enumerate((0.9, 0.8, 0.7))]
        found = analysed(cells, 0.8)
        (row,) = rows_at(found, 0.8)
        assert (row["seeds"], row["reached"], row["highest_accuracy"]) == (3, 2, 0.9)
        assert row["steps"] is row["seconds"] is row["epochs"] is row["seconds_with_compile"] is None
        assert not row["best"]
        assert found.accuracies == (0.8, 0.7, 0.6, 0.5)

    def test_is_a_bound_where_some_seed_was_there_after_the_first_epoch(self) -> None:
        cells = [planted(32, seed=seed, accuracies=[value, 0.9]) for seed, value in enumerate((0.8, 0.6))]
        (row,) = rows_at(analysed(cells, 0.75), 0.75)
        assert row["at_most"]
        assert row["steps"] == pytest.approx(math.sqrt(128 * 192))

    def test_the_best_is_of_each_target(self) -> None:
        cells = [
            planted(size, target, pace=pace, accuracies=[0.5, 0.9])
            for size, target, pace in ((32, JAX, 0.01), (64, JAX, 0.03), (32, TENSORFLOW, 0.5), (64, TENSORFLOW, 0.4))
        ]
        rows = rows_at(analysed(cells, 0.9), 0.9)
        assert [(row["target"], row["batch_size"]) for row in rows if row["best"]] == [
            ("jax-cpu:jit", 32),
            ("tensorflow-cpu:graph", 64),
        ]

    def test_has_steps_but_no_seconds_where_a_pace_does_not_count(self) -> None:
        cells = [
            planted(32, seed=seed, accuracies=[0.5, 0.9], status=status) for seed, status in ((0, "ok"), (1, "crashed"))
        ]
        (row,) = rows_at(analysed(cells, 0.9), 0.9)
        assert (row["seeds"], row["reached"], row["steps"]) == (2, 2, pytest.approx(256))
        assert row["seconds"] is None

    def test_without_any_evaluation_has_no_rows(self) -> None:
        found = analysed([planted(32, accuracies=[], epochs=1)])
        assert found.time_to_accuracy.is_empty()
        assert (found.accuracy, found.accuracies) == (0.98, (0.98,))


class TestWhichCellsCount:
    def test_a_run_of_fewer_epochs_is_no_further_seed(self) -> None:
        cells = [planted(32, accuracies=values) for values in ([0.5], [0.5, 0.9], [0.5, 0.9, 0.95])]
        (row,) = rows_at(analysed(cells, 0.9), 0.9)
        assert (row["seeds"], row["reached"], row["most_epochs"]) == (1, 1, 3)

    def test_of_repeats_the_first_counts_unless_its_pace_does_not(self) -> None:
        cells = [planted(32, repeat=repeat, pace=0.01 * (1 + repeat), accuracies=[0.5, 0.9]) for repeat in range(3)]
        (row,) = rows_at(analysed(cells, 0.9), 0.9)
        assert (row["seeds"], row["seconds"]) == (1, pytest.approx(2.56))
        crashed = planted(32, repeat=0, pace=0.01, accuracies=[0.5, 0.9], status="crashed")
        (row,) = rows_at(analysed([crashed, *cells[1:]], 0.9), 0.9)
        assert row["seconds"] == pytest.approx(5.12)

    @pytest.mark.parametrize("status", ["interrupted", "timeout", "crashed"])
    def test_one_cut_short_does_not_stand_for_a_seed_that_never_got_there(self, status: str) -> None:
        well = [planted(32, seed=seed, accuracies=[0.5, 0.8, 0.9]) for seed in (0, 1)]
        short = planted(32, seed=2, accuracies=[0.5], epochs=3, status=status)
        (row,) = rows_at(analysed([*well, short], 0.9), 0.9)
        assert (row["seeds"], row["reached"], row["steps"]) == (2, 2, pytest.approx(384))
        (alone,) = rows_at(analysed([short], 0.9), 0.9)
        assert (alone["seeds"], alone["reached"], alone["steps"]) == (1, 0, None)

    def test_one_cut_short_late_counts_beside_shorter_ones(self) -> None:
        well = planted(32, seed=0, accuracies=[0.5, 0.8])
        late = planted(32, seed=1, accuracies=[0.5, 0.7, 0.9], epochs=5, status="interrupted")
        (row,) = rows_at(analysed([well, late], 0.7), 0.7)
        assert (row["seeds"], row["reached"], row["most_epochs"]) == (2, 2, 3)

    def test_accuracies_that_are_no_numbers_reach_nothing(self) -> None:
        broken = [Epoch(epoch, 0.1, 0.1, value, 0.1) for epoch, value in enumerate((math.nan, 0.6, math.nan, 0.9))]
        (row,) = rows_at(analysed([planted(32, epochs=4, evaluations=broken)], 0.75), 0.75)
        assert row["steps"] == pytest.approx(128 * (3 + 0.75 / 0.9))
        assert row["highest_accuracy"] == 0.9
        never = [Epoch(0, math.nan, math.nan, math.nan, 0.1)]
        found = analysed([planted(32, epochs=1, evaluations=never)])
        assert (found.accuracy, rows_at(found, 0.98)[0]["reached"]) == (0.98, 0)

    def test_works_are_kept_apart(self) -> None:
        cells = [
            planted(32, accuracies=[0.5, 0.9]),
            planted(32, accuracies=[0.5, 0.7], model=LARGER),
            planted(32, accuracies=[0.5, 0.8], training={"precision": "mixed_bfloat16"}),
        ]
        rows = rows_at(analysed(cells, 0.8), 0.8)
        assert [(row["model"], row["precision"], row["reached"]) for row in rows] == [
            ("larger", "float32", 0),
            ("tiny", "float32", 1),
            ("tiny", "mixed_bfloat16", 1),
        ]


class TestWhichAccuraciesAreTold:
    def test_those_of_the_ladder_that_some_place_reached_with_all_its_seeds(self) -> None:
        cells = [
            planted(16, accuracies=[0.96], seed=0),
            planted(16, accuracies=[0.91], seed=1),
            planted(32, accuracies=[0.96], seed=0),
            planted(32, accuracies=[0.85], seed=1),
        ]
        found = analysed(cells)
        assert (found.accuracy, found.asked) == (0.9, False)
        assert found.accuracies == (0.9, 0.8, 0.7, 0.6, 0.5)
        assert sorted(set(found.time_to_accuracy["accuracy"]), reverse=True) == list(found.accuracies)

    def test_the_usual_one_is_looked_at_even_where_more_was_reached(self) -> None:
        found = analysed([planted(16, accuracies=[0.9, 0.995])])
        assert found.accuracy == 0.98
        assert found.accuracies[:3] == (0.99, 0.98, 0.97)

    def test_one_that_was_asked_for_is_among_them(self) -> None:
        found = analysed([planted(16, accuracies=[0.75])], 0.77)
        assert (found.accuracy, found.asked, found.accuracies) == (0.77, True, (0.77, 0.7, 0.6, 0.5))


STEPS = {16: 5120.0, 32: 2560.0, 64: 1280.0, 128: 1280 / math.sqrt(2), 256: 1280 / math.sqrt(2), 512: 1400.0}
"""To 90 %, by batch size: perfect scaling to 64, half of it to 128, none to 256, and more steps at 512."""


class TestRegimes:
    def records(self, places: Sequence[int]) -> list[Record]:
        examples = 40960
        needed = {size: STEPS[size] * size / examples for size in places}
        return [
            planted(size, accuracies=[min(0.9 * n / needed[size], 1) for n in range(1, 19)], examples=examples)
            for size in places
        ]

    def test_planted_ones_are_named(self) -> None:
        rows = rows_at(analysed(self.records(list(STEPS)), 0.9), 0.9)
        assert [row["steps"] for row in rows] == pytest.approx(list(STEPS.values()))
        slopes = [row["steps_slope"] for row in rows]
        assert slopes[0] is None
        assert slopes[1:] == pytest.approx([-1, -1, -0.5, 0, math.log2(1.4 / (1.28 / math.sqrt(2)))])
        named = ["", "perfect scaling", "perfect scaling", "diminishing returns", *["maximal data parallelism"] * 2]
        assert [row["regime"] for row in rows] == named

    def test_are_from_one_measured_batch_size_to_the_next(self) -> None:
        rows = rows_at(analysed(self.records([16, 128]), 0.9), 0.9)
        assert rows[1]["steps_slope"] == pytest.approx(-2.5 / 3)  # 5.66 times fewer for a batch 8 times as large
        assert rows[1]["regime"] == "perfect scaling"

    def test_need_steps_that_are_no_bounds_on_both_sides(self) -> None:
        cells = [
            planted(16, accuracies=[0.5, 0.9]),
            planted(32, accuracies=[0.5, 0.7]),
            planted(64, accuracies=[0.9, 0.9]),
            planted(128, accuracies=[0.5, 0.9]),
            planted(256, accuracies=[0.5, 0.9]),
        ]
        rows = rows_at(analysed(cells, 0.9), 0.9)
        assert [row["steps_slope"] for row in rows] == [None, None, None, None, pytest.approx(-1)]
        assert [row["regime"] for row in rows] == ["", "", "", "", "perfect scaling"]


def test_steps_to_an_accuracy_lie_between_evaluations_within_an_epoch_too() -> None:
    within = replace(curve(0.2, 0.6, 0.8), steps=(50, 100, 150))
    assert reach(within, 0.7) == Reached(pytest.approx(125.0), False)
    assert reach(within, 0.1) == Reached(50.0, True)


def test_where_training_was_to_end_at_an_accuracy_the_steps_are_those_that_it_took() -> None:
    ended = replace(curve(0.2, 0.6, 0.8), steps=(50, 100, 150), until=0.7)
    assert reach(ended, 0.7) == Reached(150.0, False, measured=True)
    assert reach(ended, 0.6) == Reached(100.0, False)
    assert reach(replace(ended, accuracies=(0.2, 0.6, 0.65)), 0.7) is None
