"""The study's claims on records with a known truth: what holds, what fails, and what is too noisy to be told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from benchmarks import study_errors
from harness import analysis, statistics
from harness.actions import running_study
from harness.analysis import explaining, systems
from harness.analysis.explaining import BackwardShare
from harness.analysis.study import (
    all_claims,
    backward_pass,
    batch_and_accuracy,
    batch_and_time,
    best_settings,
    devices,
    shared_systems,
    ways_of_training,
)
from harness.analysis.study.answers import (
    CLAIMS,
    FAILS,
    HOLDS,
    UNKNOWN_SPREAD,
    UNTOLD,
    ClaimAnswer,
    all_beyond,
    any_beyond,
    gain,
)
from harness.analysis.systems import GivenRun, System
from harness.core.cell import Target
from harness.core.errors import UsageError
from harness.core.record import Epoch, HeatFacts, Record
from harness.plan import sweep
from harness.report import claims
from harness.statistics import Interval, interval_around
from tests.unit.planted_runs import MACHINE, climbing, planted
from tests.unit.planted_runs import sweep as planted_sweep
from tests.unit.records import JAX, TENSORFLOW
from tests.unit.test_explaining import BASE, LANES
from tests.unit.test_explaining import made as made_sets

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
GPU = Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "9" * 64)
SIZES = (16, 64, 256)


def system(records: Sequence[Record], name: str = "here") -> System:
    (one,) = systems.systems([GivenRun("run", name, analysis.collect(records))])
    return one


def swept(
    pace: Callable[[int], float],
    accuracies: Callable[[int], Sequence[float]] = lambda size: (0.5,),
    *,
    targets: Sequence[Target] = (JAX,),
    spread: float = 0.01,
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[int] = SIZES,
    **changes: Any,
) -> list[Record]:
    """A sweep of a truth: seconds of a step and accuracies after each epoch by batch size."""
    return list(
        planted_sweep(
            lambda target, size: pace(size),
            lambda target, size: accuracies(size),
            targets=targets,
            sizes=sizes,
            seeds=seeds,
            spread=spread,
            **changes,
        )
    )


def noisy(accuracies: Callable[[int], Sequence[float]], spread: float, **changes: Any) -> list[Record]:
    """Accuracies with noise of their own for each seed and batch size."""
    random = np.random.default_rng(3)
    return [
        planted(size, seed=seed, accuracies=[value + spread * random.normal() for value in accuracies(size)], **changes)
        for seed in (0, 1, 2)
        for size in SIZES
    ]


def only(answers: Sequence[ClaimAnswer]) -> ClaimAnswer:
    (one,) = answers
    return one


class TestDecisions:
    def of(self, estimate: float, half: float) -> Interval:
        return interval_around(estimate, half / statistics.student_quantile(5), 5)

    def test_one_effect_is_enough_for_any_and_all_are_needed_for_all(self) -> None:
        large, small = self.of(1.0, 0.1), self.of(0.0, 0.1)
        assert any_beyond([large, small], 0.3) == HOLDS
        assert all_beyond([large, small], 0.3) == FAILS
        assert any_beyond([small, small], 0.3) == FAILS
        assert all_beyond([large, large], 0.3) == HOLDS

    def test_what_is_wide_or_unknown_is_not_told(self) -> None:
        wide, large = self.of(0.5, 2.0), self.of(1.0, 0.1)
        for decide in (any_beyond, all_beyond):
            assert decide([wide], 0.3) == UNTOLD
            assert decide([None], 0.3) == UNTOLD
            assert decide([], 0.3) == UNTOLD
        assert all_beyond([large, None], 0.3) == UNTOLD
        assert any_beyond([large, None], 0.3) == HOLDS
        assert any_beyond([self.of(0.0, 0.1), None], 0.3) == UNTOLD

    def test_a_gain_is_paired_where_blocks_are_shared(self) -> None:
        one, other = {1: 0.0, 2: 1.0, 3: 2.0}, {1: -0.5, 2: 0.51, 3: 1.5}
        assert gain(one, other, 0.15).half_width < 0.03
        assert gain(one, {4: -0.5, 5: 0.51, 6: 1.5}, 0.15).half_width > 1
        assert gain({1: 0.0}, {1: -0.5}, 0.15).half_width == pytest.approx(1.96 * 0.15 * 2**0.5, abs=1e-3)


class TestBatchAndTime:
    def test_it_holds_where_steps_cost_the_same_whatever_their_size(self) -> None:
        one = only(batch_and_time.answers(system(swept(lambda size: 0.01))))
        assert one.verdict == HOLDS
        assert one.seeds == 3
        assert one.would_tell == ""
        assert "At batch size 256 it trains 1" in one.finding
        assert one.evidence[0].rows[-1][0] == 256

    def test_it_fails_where_an_image_costs_the_same_in_any_batch(self) -> None:
        assert only(batch_and_time.answers(system(swept(lambda size: 0.001 * size)))).verdict == FAILS

    def test_too_much_noise_cannot_be_told(self) -> None:
        one = only(batch_and_time.answers(system(swept(lambda size: 0.001 * size, spread=0.5))))
        assert one.verdict == UNTOLD
        assert one.would_tell.startswith("harness sweep study --target jax-cpu:jit")

    def test_one_process_each_needs_a_gain_beyond_what_processes_may_differ_by(self) -> None:
        assert pytest.approx(0.15) == UNKNOWN_SPREAD
        large = only(batch_and_time.answers(system(swept(lambda size: 0.01, seeds=(0,)))))
        assert large.verdict == HOLDS
        assert "processes are taken to differ by 15 %" in large.finding
        small = only(batch_and_time.answers(system(swept(lambda size: 0.001 * size**0.9, seeds=(0,), sizes=(16, 32)))))
        assert small.verdict == UNTOLD

    def test_one_batch_size_tells_nothing(self) -> None:
        one = only(batch_and_time.answers(system(swept(lambda size: 0.01, sizes=(64,)))))
        assert (one.verdict, one.finding) == (UNTOLD, "Only batch size 64 was measured.")

    def test_the_knee_is_where_nine_tenths_of_the_highest_speed_is_reached(self) -> None:
        random = np.random.default_rng(0)
        truth = {16: 0.0, 32: -0.5, 64: -0.95, 128: -1.0, 256: -1.0}
        costs = {size: {seed: mean + 0.01 * random.normal() for seed in range(4)} for size, mean in truth.items()}
        assert batch_and_time.knee(costs, 0.15) == (64, 64, 64)
        covered = 0
        for _ in range(100):
            costs = {size: {seed: mean + 0.05 * random.normal() for seed in range(6)} for size, mean in truth.items()}
            _, least, most = batch_and_time.knee(costs, 0.15)
            covered += least <= 64 <= (most or 256)
        assert covered >= 90
        single = {size: {0: mean} for size, mean in truth.items()}
        assert batch_and_time.knee(single, 0.15) == (64, 32, None)


class TestDevices:
    @pytest.mark.parametrize(
        ("gpu", "verdict"), [(lambda size: 0.001, HOLDS), (lambda size: 0.01 if size > 16 else 0.02, FAILS)]
    )
    def test_a_gpu_that_is_quicker_at_each_batch_size(self, gpu: Callable[[int], float], verdict: str) -> None:
        records = [*swept(lambda size: 0.01), *swept(gpu, targets=(GPU,), generator_seed=1)]
        one = only(devices.answers(system(records)))
        assert one.verdict == verdict
        assert one.subject == "jax-cuda:jit against jax-cpu:jit"

    def test_noise_and_no_gpu_cannot_be_told(self) -> None:
        records = [
            *swept(lambda size: 0.01, spread=0.5),
            *swept(lambda size: 0.009, spread=0.5, targets=(GPU,), generator_seed=1),
        ]
        assert only(devices.answers(system(records))).verdict == UNTOLD
        none = only(devices.answers(system(swept(lambda size: 0.01))))
        assert (none.verdict, none.finding) == (UNTOLD, "No GPU trained here.")
        assert none.would_tell.startswith("harness compare jax-cuda jax-cpu")


class TestAccuracy:
    @pytest.mark.parametrize(
        ("lost", "spread", "verdict"), [(0.05, 0.001, HOLDS), (0.0, 0.001, FAILS), (0.01, 0.02, UNTOLD)]
    )
    def test_accuracy_at_equal_epochs(self, lost: float, spread: float, verdict: str) -> None:
        records = noisy(lambda size: (0.9, 0.95 - lost * (size > 16)), spread)
        one = only(batch_and_accuracy.falls(system(records)))
        assert one.verdict == verdict
        assert bool(one.would_tell) == (verdict == UNTOLD)

    def test_one_seed_tells_nothing_of_accuracy(self) -> None:
        one = only(batch_and_accuracy.falls(system(swept(lambda size: 0.01, lambda size: (1 / size,), seeds=(0,)))))
        assert one.verdict == UNTOLD
        assert "with one seed, so without an interval" in one.finding

    def test_epochs_of_one_seed_are_told_and_do_not_count(self) -> None:
        short = noisy(lambda size: (0.95 - 0.05 * (size > 16),), 0.001)
        long = [planted(size, accuracies=(0.9, 0.95, 0.96)) for size in SIZES]
        one = only(batch_and_accuracy.falls(system([*short, *long])))
        assert one.verdict == HOLDS
        assert "after 3 epochs" in one.finding
        four = only(batch_and_accuracy.recovers(system([*short, *long])))
        assert (four.verdict, four.seeds) == (UNTOLD, 1)

    @pytest.mark.parametrize(
        ("end", "spread", "verdict"), [(0.95, 0.001, HOLDS), (0.85, 0.001, FAILS), (0.9, 0.03, UNTOLD)]
    )
    def test_more_epochs_recover_it(self, end: float, spread: float, verdict: str) -> None:
        def accuracies(size: int) -> Sequence[float]:
            return (0.9, 0.95, 0.97) if size == 16 else (0.7, 0.8, end)

        one = only(batch_and_accuracy.recovers(system(noisy(accuracies, spread))))
        assert one.verdict == verdict
        if verdict == HOLDS:
            assert "batch size 64 after 2.7 epochs" in one.finding

    def test_nothing_lost_is_nothing_to_recover(self) -> None:
        one = only(batch_and_accuracy.recovers(system(noisy(lambda size: (0.9, 0.95), 0.001))))
        assert (one.verdict, "No batch size is shown to lose accuracy" in one.finding) == (UNTOLD, True)


class TestSharedSystems:
    def records(self, cost: float, larger: float) -> list[Record]:
        """Paces under a load that varies, each processor of which costs that share."""
        random = np.random.default_rng(5)
        made = []
        for seed in range(6):
            for size in SIZES:
                load = float(random.uniform(0, 1))
                pace = 0.001 * size ** (1 - larger) * (1 + cost * load) * float(np.exp(0.01 * random.normal()))
                heat = HeatFacts("cell", other_processors=load, stolen_processors=0.0)
                made.append(planted(size, seed=seed, pace=pace, heat=heat))
        return made

    def answer(self, records: Sequence[Record]) -> ClaimAnswer:
        one = system(records)
        return only(shared_systems.answers(one, batch_and_time.answers(one)))

    def test_it_holds_where_nothing_is_gained_and_load_costs(self) -> None:
        one = self.answer(self.records(cost=0.3, larger=-0.3))
        assert one.verdict == HOLDS
        assert "Other load slows training" in one.finding

    def test_it_fails_where_the_gain_remains(self) -> None:
        one = self.answer(self.records(cost=0.3, larger=0.7))
        assert one.verdict == FAILS
        assert "A larger batch still cuts training time" in one.finding

    def test_a_system_without_load_or_word_of_it_tells_nothing(self) -> None:
        assert self.answer(swept(lambda size: 0.01)).finding == "The records do not tell of other users' load."
        quiet = HeatFacts("cell", other_processors=0.0, stolen_processors=0.0)
        one = self.answer(swept(lambda size: 0.01, heat=quiet))
        assert (one.verdict, one.finding) == (UNTOLD, "This system was not shared.")


class TestBackwardPass:
    @pytest.mark.parametrize(("low", "high", "verdict"), [(0.6, 0.7, HOLDS), (0.2, 0.3, FAILS), (0.4, 0.6, UNTOLD)])
    def test_more_than_half_of_a_step(self, low: float, high: float, verdict: str) -> None:
        share = interval_around((low + high) / 2, (high - low) / 2 / statistics.student_quantile(5), 5)
        told = [BackwardShare("jax-cpu:jit", size, 6, share, share) for size in (64, 16)]
        one = only(backward_pass.answers(system(swept(lambda size: 0.01)), told))
        assert one.verdict == verdict
        assert one.finding.startswith("At batch size 16 the backward pass takes")

    def test_shares_are_of_what_all_parts_take(self) -> None:
        shares = explaining.backward_shares(made_sets(BASE))
        assert {one.target for one in shares} == {key.label for key in LANES}
        backward = sum(seconds for (_, direction), seconds in BASE.items() if direction == "backward")
        for one in shares:
            assert one.backward is not None
            assert one.dispatch is not None
            assert one.backward.estimate == pytest.approx(backward / sum(BASE.values()), rel=0.05)
            assert one.dispatch.estimate == pytest.approx(BASE["dispatch", ""] / sum(BASE.values()), rel=0.1)

    def test_without_a_step_taken_apart_the_command_is_named(self) -> None:
        one = only(backward_pass.answers(system(swept(lambda size: 0.01)), ()))
        assert (one.verdict, one.would_tell) == (
            UNTOLD,
            "harness explain jax-cpu:jit tensorflow-cpu --batch-size 16,256 --budget 30m",
        )


class TestWaysOfTraining:
    def records(self, growing: float, spread: float) -> list[Record]:
        """Fixed batch sizes, and a plan that takes so many times the seconds of a step; evaluated after each epoch."""
        random = np.random.default_rng(0)
        made = []
        for seed in (0, 1, 2, 3):
            for size, changes, factor in ((32, (), 1.0), (64, (), 1.5), (32, ((1, 64),), growing)):
                pace = 0.01 * factor * float(np.exp(spread * random.normal()))
                of_plan: dict[str, Any] = {"batch_changes": changes} if changes else {}
                curve = climbing(4, 0.9, 8)
                evaluations = [Epoch(epoch, 0.5, 0.2, value, 0.1) for epoch, value in enumerate(curve)]
                record = planted(
                    size,
                    seed=seed,
                    pace=pace,
                    accuracies=curve,
                    epochs=8,
                    training=of_plan,
                    evaluations=evaluations,
                    blocks=40,
                )
                made.append(record)
        return made

    @pytest.mark.parametrize(
        ("growing", "spread", "verdict"), [(0.3, 0.01, HOLDS), (4.0, 0.01, FAILS), (1.0, 0.5, UNTOLD)]
    )
    def test_a_growing_batch_against_fixed_ones(self, growing: float, spread: float, verdict: str) -> None:
        asynchronous, one = ways_of_training.answers(system(self.records(growing, spread)), 0.9)
        assert (one.part, one.verdict) == (ways_of_training.GROWING, verdict)
        assert asynchronous.verdict == UNTOLD
        assert "async@devices=2" in asynchronous.would_tell

    @pytest.mark.parametrize(
        ("factor", "spread", "verdict"), [(0.4, 0.01, HOLDS), (1.5, 0.01, FAILS), (1.0, 0.4, UNTOLD)]
    )
    def test_asynchronous_training_against_synchronous(self, factor: float, spread: float, verdict: str) -> None:
        asynchronous = dataclasses.replace(JAX, mode="async")
        records = [
            record
            for number, (target, pace) in enumerate(((JAX, 0.01), (asynchronous, 0.01 * factor)))
            for record in swept(
                lambda size, pace=pace: pace,  # type: ignore[misc]
                lambda size: climbing(4, 0.9, 8),
                targets=(target,),
                spread=spread,
                generator_seed=number,
            )
        ]
        one, _ = ways_of_training.answers(system(records), 0.9)
        assert (one.part, one.verdict) == (ways_of_training.ASYNCHRONOUS, verdict)
        assert one.subject == "jax-cpu:async against jax-cpu:jit"

    def test_without_a_plan_the_command_is_named(self) -> None:
        _, one = ways_of_training.answers(system(swept(lambda size: 0.01)), None)
        assert (one.verdict, one.would_tell) == (UNTOLD, "harness sweep batch --seed 0,1,2,3,4")


class TestBestSettings:
    def two(self, first: Callable[[int], float], second: Callable[[int], float], spread: float) -> ClaimAnswer:
        there = {**MACHINE, "id": "m2", "processor": "Another"}
        found = [
            system(swept(first, spread=spread), "one"),
            system(swept(second, spread=spread, generator_seed=1, machine=there), "two"),
        ]
        return only(best_settings.answers(found))

    def test_it_holds_where_no_batch_size_may_be_best_on_both(self) -> None:
        one = self.two(lambda size: 0.01, lambda size: 0.001 * size**1.5, 0.01)
        assert one.verdict == HOLDS
        assert one.finding == "On one the quickest batch size may be 256; on two the quickest batch size may be 16."

    def test_it_fails_where_one_alone_is_best_on_both(self) -> None:
        assert self.two(lambda size: 0.01, lambda size: 0.02, 0.01).verdict == FAILS

    def test_noise_cannot_be_told(self) -> None:
        one = self.two(lambda size: 0.001 * size, lambda size: 0.001 * size, 0.5)
        assert one.verdict == UNTOLD
        assert "--batch-size 16,64,256" in one.would_tell

    def test_work_that_is_not_the_same_is_not_compared(self) -> None:
        found = [system(swept(lambda size: 0.01), "one")]
        found.append(system(swept(lambda size: 0.01, examples=8192, machine={"id": "m2"}), "two"))
        one = only(best_settings.answers(found))
        assert (one.verdict, one.finding[:34]) == (UNTOLD, "No two systems trained the same ki")


@pytest.mark.parametrize(
    "case", [case for cases in study_errors.CASES for case in cases()], ids=lambda case: f"{case.claim}-{case.truth}"
)
def test_few_verdicts_are_wrong(case: study_errors.Case) -> None:
    """With as few draws, 5 % of them and three standard errors; ``benchmarks/study_errors.py`` draws more."""
    draws = 40
    found = study_errors.tally(case, draws, seed=7)
    assert found.wrong <= study_errors.MOST_WRONG + 3 * (0.05 * 0.95 / draws) ** 0.5
    assert sum(found.shares.values()) == pytest.approx(1)


class TestAllOfIt:
    def test_every_claim_is_answered_for_every_system(self) -> None:
        found = [system(swept(lambda size: 0.01, targets=(JAX, TENSORFLOW)))]
        answers = all_claims.answers(found, {})
        assert {one.number for one in answers} == set(CLAIMS)
        assert [one.number for one in answers] == sorted(one.number for one in answers)
        assert all(bool(one.would_tell) == (one.verdict == UNTOLD) for one in answers)
        page = unescape(claims.page(answers, ["here"]))
        for one in answers:
            assert one.finding in page
        assert "<script" not in page

    def test_stored_runs_are_answered_in_one_call(self, tmp_path: Path) -> None:
        study, compare = RESULTS / "h200" / "study", RESULTS / "h200" / "compare"
        found = harness.study(
            study, compare, RESULTS / "shared-node", html=tmp_path / "page.html", name={"h200": study}
        )
        verdicts = {(one.number, one.system, one.subject): one.verdict for one in found.answers}
        assert verdicts[1, "h200", "jax-cuda-system:jit"] == HOLDS
        assert "Other load slows training" in str(found)
        assert json.loads(json.dumps(found.plain()))["answers"][0]["claim"] == 1
        assert found.table.height == len(found.answers)
        assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<h2>") == 1 + len(CLAIMS)
        (eighth,) = harness.study(study, compare, claim="8").answers
        assert eighth.number == 8

    def test_a_run_that_took_steps_apart_tells_of_parts_and_of_no_pace(self) -> None:
        found = harness.study(RESULTS / "desktop" / "explained")
        verdicts = {(one.number, one.subject): one.verdict for one in found.answers}
        assert verdicts[1, ""] == UNTOLD
        assert verdicts[6, "jax-cpu:jit"] == HOLDS
        assert {one.number for one in found.answers} == set(CLAIMS)

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"part": "time"}, "--part: found without --run, allowed: with it"),
            ({"plan": True, "out": "x"}, "--plan, --out: found without --run, allowed: with it"),
            ({"run": True, "part": "tme"}, r"--part: found 'tme' \(did you mean 'time'\?\), allowed: time, accuracy"),
        ],
    )
    def test_what_is_to_run_is_checked_before_it_runs(self, asked: dict[str, Any], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            harness.study(**asked)

    def test_each_part_is_a_preset_of_its_own(self) -> None:
        assert {f"study-{part}" for part in running_study.PARTS} < set(sweep.presets())

    def test_a_wrong_claim_or_no_run_gets_one_line(self) -> None:
        with pytest.raises(UsageError, match="--claim: found '9', allowed: a whole number from 1 to 8"):
            harness.study(RESULTS / "mnist", claim=9)
        with pytest.raises(UsageError, match="found no run"):
            harness.study()
