"""How fast, how targets stand to each other, and what starting costs: against numbers computed by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from harness import analysis, statistics
from harness.analysis import Analysis
from harness.core.cell import Target
from harness.core.record import NOT_THE_WORK, Blocks, HeatFacts, Phases, Record
from tests.unit.planted_runs import LARGER, XLA, lognormal, planted
from tests.unit.records import JAX, TENSORFLOW, failed

Row = dict[str, Any]


def analysed(records: Sequence[Record]) -> Analysis:
    return analysis.analyse(analysis.collect(records))


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean, and Student's t interval of the logarithms."""
    logs = np.log(values)
    half = student.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / math.sqrt(len(logs))
    return math.exp(logs.mean()), math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def bounds(row: Row, name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


class TestPace:
    def test_over_processes_is_a_geometric_mean_with_the_t_interval_of_logarithms(self) -> None:
        paces = (0.010, 0.012, 0.011, 0.016)
        (row,) = analysed([planted(32, pace=pace, repeat=n) for n, pace in enumerate(paces)]).pace.to_dicts()
        assert (row["processes"], row["interval"]) == (4, "between processes")
        assert bounds(row, "images_per_second") == pytest.approx(geometric([32 / pace for pace in paces]))
        assert bounds(row, "seconds_per_step") == pytest.approx(geometric(paces))
        assert bounds(row, "seconds_per_epoch") == pytest.approx(geometric([128 * pace for pace in paces]))

    def test_counts_cells_of_all_seeds_epochs_repeats_and_lanes(self) -> None:
        cells = [
            planted(32, seed=0),
            planted(32, seed=1),
            planted(32, seed=0, accuracies=[0.5, 0.6]),
            planted(32, seed=0, repeat=1),
            planted(32, seed=0, repeat=1, lane=1),
        ]
        (row,) = analysed(cells).pace.to_dicts()
        assert row["processes"] == 5
        assert bounds(row, "images_per_second") == pytest.approx((3200, 3200, 3200))

    def test_within_one_process_is_its_blocks_median_with_the_interval_of_batches(self) -> None:
        made = planted(32, blocks=50, noise=lognormal(np.random.default_rng(1), 0.05))
        (row,) = analysed([made]).pace.to_dicts()
        steps, seconds = made.blocks.steps[1:], made.blocks.seconds[1:]
        speeds = [32 * count / time for count, time in zip(steps, seconds, strict=True)]
        error, batches = statistics.batch_median_error(np.log(speeds)) or (0.0, 0)
        half = student.ppf(0.975, batches - 1) * error
        middle = float(np.median(speeds))
        expected = (middle, middle * math.exp(-half), middle * math.exp(half))
        assert (row["processes"], row["interval"], batches) == (1, "within one process", 16)
        assert bounds(row, "images_per_second") == pytest.approx(expected)
        assert bounds(row, "seconds_per_step") == pytest.approx((32 / expected[0], 32 / expected[2], 32 / expected[1]))
        epoch = 128 * sum(seconds) / sum(steps)
        assert bounds(row, "seconds_per_epoch") == pytest.approx(
            (epoch, epoch * math.exp(-half), epoch * math.exp(half))
        )

    def test_of_a_process_with_few_blocks_has_no_interval(self) -> None:
        (row,) = analysed([planted(32, blocks=14)]).pace.to_dicts()
        assert (row["interval"], row["images_per_second"]) == ("", pytest.approx(3200))
        names = ("images_per_second", "seconds_per_step", "seconds_per_epoch")
        assert [row[f"{name}_{end}"] for name in names for end in ("low", "high")] == [None] * 6

    def test_of_an_interrupted_cell_counts_and_of_a_broken_one_does_not(self) -> None:
        cells = [
            planted(32, status="interrupted"),
            *(planted(64, status=status) for status in ("timeout", "crashed", "out_of_memory", *NOT_THE_WORK)),
            failed(planted(128).cell, "skipped", "too large"),
            planted(256, blocks=0),
        ]
        assert analysed(cells).pace["batch_size"].to_list() == [32]

    def test_is_not_upset_by_blocks_without_steps_or_seconds(self) -> None:
        kinds = ["compile"] + ["train"] * 30
        blocks = Blocks([0] * 31, kinds, [1, 0, *[10] * 29], [1.0, 0.1, 0.0, *[0.1] * 28], [0.1] * 31, [0.5] * 31)
        (row,) = analysed([dataclasses.replace(planted(32), blocks=blocks)]).pace.to_dicts()
        assert row["images_per_second"] == pytest.approx(3200)

    def test_tells_medians_of_the_rest_and_the_largest_memory(self) -> None:
        cells = [
            planted(
                32,
                repeat=n,
                compile_seconds=[1.0, 9.0, None][n],
                peak_memory_bytes=[3, 7, None][n],
                power={"gpu": {"energy_joules_per_image": [0.2, 0.4, 0.9][n]}},
            )
            for n in range(3)
        ]
        (row,) = analysed(cells).pace.to_dicts()
        assert (row["compile_seconds"], row["peak_memory_bytes"]) == (5.0, 7)
        assert (row["joules_per_image"], row["host_joules_per_image"]) == (pytest.approx(0.4), None)
        assert row["startup_seconds"] == pytest.approx(2.0 + 0.1 + 0.2 + 0.3 + 5.0)

    def test_is_of_each_work_target_and_batch_size(self) -> None:
        cells = [planted(size, target) for size in (32, 64) for target in (TENSORFLOW, JAX)]
        cells.append(planted(32, model=LARGER))
        rows = analysed(cells).pace.to_dicts()
        assert [(row["model"], row["target"], row["batch_size"]) for row in rows] == [
            ("larger", "jax-cpu:jit", 32),
            ("tiny", "jax-cpu:jit", 32),
            ("tiny", "jax-cpu:jit", 64),
            ("tiny", "tensorflow-cpu:graph", 32),
            ("tiny", "tensorflow-cpu:graph", 64),
        ]


class TestRatios:
    def test_are_paired_by_heat_with_the_t_interval_of_log_ratios(self) -> None:
        """What the machine did in a heat, here up to a factor of ten, happened to both and cancels."""
        load, slower = (1, 10, 4), (2.0, 2.1, 1.9)
        cells = [
            planted(32, target, seed=seed, pace=0.01 * load[seed] * (slower[seed] if target is TENSORFLOW else 1))
            for seed in range(3)
            for target in (TENSORFLOW, JAX)
        ]
        (row,) = analysed(cells).ratios.to_dicts()
        assert (row["target"], row["base"], row["heats"]) == ("tensorflow-cpu:graph", "jax-cpu:jit", 3)
        assert bounds(row, "speed_ratio") == pytest.approx(geometric([1 / one for one in slower]))

    def test_are_of_lanes_that_ran_beside_each_other(self) -> None:
        """Parts of a heat that ran apart, as on one machine after the other's failure, saw another machine."""
        both = [planted(32, target, pace=pace) for target, pace in ((JAX, 0.01), (TENSORFLOW, 0.02))]
        ids = tuple(one.cell_id for one in both)
        together = [dataclasses.replace(one, heat=HeatFacts("block", ids)) for one in both]
        apart = [dataclasses.replace(one, heat=HeatFacts("block", (one.cell_id,))) for one in both]
        assert [row["heats"] for row in analysed(together).ratios.to_dicts()] == [1]
        assert analysed(apart).ratios.to_dicts() == []

    def test_are_to_the_fastest_target_of_the_batch_size(self) -> None:
        paces = {(32, JAX): 0.01, (32, TENSORFLOW): 0.02, (32, XLA): 0.04, (64, JAX): 0.06, (64, TENSORFLOW): 0.02}
        cells = [planted(size, target, pace=pace) for (size, target), pace in paces.items()]
        rows = analysed(cells).ratios.to_dicts()
        assert [(row["batch_size"], row["target"], row["base"], row["speed_ratio"]) for row in rows] == [
            (32, "tensorflow-cpu:graph", "jax-cpu:jit", pytest.approx(0.5)),
            (32, "tensorflow-cpu:xla", "jax-cpu:jit", pytest.approx(0.25)),
            (64, "jax-cpu:jit", "tensorflow-cpu:graph", pytest.approx(1 / 3)),
        ]
        assert [row["speed_ratio_low"] for row in rows] == [None] * 3

    def test_leave_control_lanes_and_heats_of_one_target_out(self) -> None:
        cells = [
            planted(32, JAX, pace=0.01),
            planted(32, JAX, lane=1, pace=0.5),
            planted(32, TENSORFLOW, pace=0.02),
            planted(32, JAX, repeat=1, pace=0.01),
            planted(32, TENSORFLOW, seed=5, pace=0.02),
        ]
        (row,) = analysed(cells).ratios.to_dicts()
        assert (row["heats"], row["speed_ratio"]) == (1, pytest.approx(0.5))

    def test_need_two_targets_that_trained_in_one_heat(self) -> None:
        assert analysed([planted(32), planted(32, lane=1)]).ratios.is_empty()
        assert analysed([planted(32, lane=1, pace=50.0), planted(32, TENSORFLOW, pace=60.0)]).ratios.is_empty()
        assert analysed([planted(32, seed=0), planted(32, TENSORFLOW, seed=1)]).ratios.is_empty()


PACES = {JAX: 0.01, XLA: 0.02, TENSORFLOW: 0.03}


def starting(target: Target, size: int = 32, seed: int = 0, **phases: float | None) -> Record:
    """Half a second in each phase but those that are given, and steps of PACES."""
    usual = Phases(0.5, 0.5, 0.5, 0.5, 0.5)
    return planted(size, target, seed=seed, pace=PACES[target], phases=dataclasses.replace(usual, **phases))


class TestStartup:
    def test_is_the_median_of_each_phase_and_their_sum(self) -> None:
        cells = [starting(JAX, seed=n, compile=value, framework_import=2.0) for n, value in enumerate((3.0, 4.0, 9.0))]
        (row,) = analysed(cells).startup.to_dicts()
        names = ("import_seconds", "initialise_seconds", "load_seconds", "build_seconds", "compile_seconds")
        assert [row[name] for name in names] == [2.0, 0.5, 0.5, 0.5, 4.0]
        assert row["startup_seconds"] == pytest.approx(7.5)

    def test_is_not_known_without_a_compilation(self) -> None:
        kept = planted(32, worker={"device": {"programs": "kept"}})
        (row,) = analysed([kept]).startup.to_dicts()
        assert (row["compile_seconds"], row["startup_seconds"], row["build_seconds"]) == (None, None, 0.3)

    def test_a_phase_that_nobody_timed_adds_nothing(self) -> None:
        (row,) = analysed([starting(JAX, initialise_device=None, load_data=None)]).startup.to_dicts()
        assert row["startup_seconds"] == pytest.approx(1.5)


class TestCatchUp:
    def test_is_when_both_have_done_as_many_steps(self) -> None:
        cells = [starting(JAX, compile=10.5), starting(TENSORFLOW, compile=0.5)]
        (row,) = analysed(cells).catch_up.to_dicts()
        assert (row["target"], row["other"], row["batch_size"]) == ("jax-cpu:jit", "tensorflow-cpu:graph", 32)
        assert row["startup_difference_seconds"] == pytest.approx(10)
        assert (row["seconds_per_step"], row["other_seconds_per_step"]) == pytest.approx((0.01, 0.03))
        assert (row["steps"], row["images"]) == pytest.approx((500, 16000))

    def test_never_happens_where_its_steps_are_no_quicker(self) -> None:
        (row,) = analysed([starting(TENSORFLOW, compile=10.5), starting(JAX, compile=0.5)]).catch_up.to_dicts()
        assert (row["target"], row["steps"], row["images"]) == ("tensorflow-cpu:graph", None, None)

    def test_is_of_every_pair_at_one_batch_size(self) -> None:
        cells = [starting(JAX, compile=3.0), starting(XLA, compile=2.0), starting(TENSORFLOW, compile=1.0)]
        rows = analysed([*cells, starting(JAX, size=64, compile=3.0)]).catch_up.to_dicts()
        assert [(row["batch_size"], row["target"], row["other"]) for row in rows] == [
            (32, "jax-cpu:jit", "tensorflow-cpu:graph"),
            (32, "jax-cpu:jit", "tensorflow-cpu:xla"),
            (32, "tensorflow-cpu:xla", "tensorflow-cpu:graph"),
        ]

    def test_of_equal_starts_is_no_question(self) -> None:
        assert analysed([starting(JAX), starting(TENSORFLOW)]).catch_up.is_empty()


def test_tables_of_no_records_have_their_columns() -> None:
    empty, full = analysed([]), analysed([planted(32, blocks=40), planted(32, TENSORFLOW)])
    for name in ("pace", "ratios", "startup", "catch_up", "step_model", "predicted", "time_to_accuracy", "recovery"):
        assert getattr(empty, name).is_empty()
        assert getattr(empty, name).schema == getattr(full, name).schema
    assert (empty.advice, empty.accuracy, empty.accuracies) == ((), 0.98, (0.98,))
