"""What to use: on made-up runs whose best choice is known, and in which words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from harness import analysis
from harness.analysis import Advice
from harness.core.cell import Target
from harness.core.record import Record
from harness.core.training import LearningRate
from harness.plan import sweep as sweep_plan
from harness.report.advice import evidence, heading, measure_next, sentence
from tests.unit.planted_runs import LARGER, climbing, lognormal, planted, sweep
from tests.unit.records import JAX, TENSORFLOW, cell, failed

SIZES = (16, 32, 64, 128)
JAX_AT, TENSORFLOW_AT = "jax-cpu:jit", "tensorflow-cpu:graph"

Place = tuple[str, int]


def step(target: Target, size: int) -> float:
    """Seconds of a step: TensorFlow takes 1.3 times as long."""
    return (0.004 + 0.0001 * size) * (1.3 if target is TENSORFLOW else 1.0)


def learns(target: Target, size: int) -> list[float]:
    """90 % after 2 epochs up to batch 64, after 4 at 128: best is 64, where a step's overhead counts least."""
    return climbing(4.0 if size == 128 else 2.0, 0.9)


def advised(
    records: Iterable[Record], accuracy: float | None = 0.9, obstacles: Sequence[str] = (), number: int = 0
) -> Advice:
    collected = analysis.collect(records)
    works = {tuple(row[name] for name in analysis.WORK): tuple(obstacles) for row in collected.cells.to_dicts()}
    return analysis.analyse(collected, accuracy, works).advice[number]


def places(choices: Iterable[Any]) -> list[Place]:
    return [(one.target, one.batch_size) for one in choices]


def chosen(advice: Advice) -> Place:
    assert advice.choice is not None
    return advice.choice.target, advice.choice.batch_size


def diverging(records: Iterable[Record], places: Sequence[Place], seeds: Sequence[int] = (0, 1, 2)) -> list[Record]:
    """The records, those of places and seeds with a last loss that is no number, after the accuracies that they had."""
    return [
        dataclasses.replace(one, epochs=(*one.epochs[:-1], dataclasses.replace(one.epochs[-1], train_loss=math.nan)))
        if (one.cell.target.label, one.cell.training.batch_size) in places and one.cell.training.seed in seeds
        else one
        for one in records
    ]


class TestDiverged:
    def test_what_diverged_is_never_recommended_even_if_it_was_at_the_accuracy_first(self) -> None:
        places_lost = [(JAX_AT, 64), (TENSORFLOW_AT, 64)]
        advice = advised(diverging(sweep(step, learns), places_lost))
        assert chosen(advice)[1] == 32
        assert advice.diverged == tuple(places_lost)
        assert not set(places(advice.alike + advice.behind)) & set(places_lost)
        assert any("These diverged" in line and "jax-cpu:jit at batch size 64" in line for line in evidence(advice))

    def test_one_seed_that_diverged_is_enough(self) -> None:
        assert chosen(advised(diverging(sweep(step, learns), [(JAX_AT, 64)], seeds=(1,)))) == (TENSORFLOW_AT, 64)

    def test_nor_where_only_the_pace_is_left_to_judge_by(self) -> None:
        advice = advised(diverging(sweep(step, lambda target, size: [0.5, 0.6]), [(JAX_AT, 128)]))
        assert (advice.goal, chosen(advice)) == ("throughput", (JAX_AT, 64))

    def test_where_all_diverged_there_is_no_answer_and_a_smaller_rate_is_next(self) -> None:
        advice = advised(
            diverging(sweep(step, learns), [(target, size) for target in (JAX_AT, TENSORFLOW_AT) for size in SIZES])
        )
        assert sentence(advice) == "There is no answer: training diverged with every choice."
        assert any("a --learning-rate smaller than 0.01" in line for line in measure_next(advice))


class TestChoice:
    def test_is_the_planted_best_with_all_others_behind_where_runs_hardly_differ(self) -> None:
        advice = advised(sweep(step, learns, spread=0.002, steps_spread=0.005))
        assert (advice.goal, advice.tested, advice.alike) == ("accuracy", True, ())
        assert chosen(advice) == (JAX_AT, 64)
        assert places(advice.behind) == [
            (TENSORFLOW_AT, 64),
            (JAX_AT, 32),
            (JAX_AT, 128),
            (TENSORFLOW_AT, 32),
            (TENSORFLOW_AT, 128),
            (JAX_AT, 16),
            (TENSORFLOW_AT, 16),
        ]
        assert places(advice.per_target) == [(JAX_AT, 64), (TENSORFLOW_AT, 64)]
        assert advice.next_best == advice.behind[0]

    def test_has_the_ratio_to_each_other_one_in_its_interval(self) -> None:
        advice = advised(sweep(step, learns, spread=0.002, steps_spread=0.005))
        best = step(JAX, 64) / 64
        for one in advice.behind:
            target = JAX if one.target == JAX_AT else TENSORFLOW
            ratio = step(target, one.batch_size) / one.batch_size * (2 if one.batch_size == 128 else 1) / best
            assert one.ratio_low is not None
            assert one.ratio_high is not None
            assert 1 < one.ratio_low <= ratio * 1.01
            assert ratio * 0.99 <= one.ratio_high

    @pytest.mark.parametrize("spread", [0.03, 0.3])
    def test_or_what_is_alike_holds_the_true_best_however_much_runs_differ(self, spread: float) -> None:
        held = []
        for number in range(40):
            made = sweep(step, learns, spread=spread, steps_spread=0.1, generator_seed=number, blocks=1)
            advice = advised(made)
            held.append((JAX_AT, 64) in [chosen(advice), *places(advice.alike)])
        assert np.mean(held) >= 0.95

    def test_of_much_noise_leaves_others_alike(self) -> None:
        advice = advised(sweep(step, learns, spread=0.4))
        assert advice.tested
        assert len(advice.alike) >= 3
        assert set(places([*advice.alike, *advice.behind])) | {chosen(advice)} == {
            (target, size) for target in (JAX_AT, TENSORFLOW_AT) for size in SIZES
        }

    def test_takes_out_what_one_seed_costs_all_of_them(self) -> None:
        """Seeds differ by a factor of e, far more than choices."""
        made = sweep(step, lambda target, size: climbing(8.0, 0.9, 120), seed_spread=1.0, spread=0.002)
        advice = advised(made)
        assert (chosen(advice), advice.alike) == ((JAX_AT, 128), ())
        assert advice.choice is not None
        assert advice.choice.low is not None
        assert advice.choice.low < 0.5 * (advice.choice.seconds or 0)

    def test_is_of_one_work(self) -> None:
        records = [
            *sweep(step, learns, targets=[JAX], spread=0.002),
            *sweep(lambda target, size: step(target, 256 - size), learns, targets=[JAX], spread=0.002, model=LARGER),
        ]
        found = [advised(records, number=number) for number in (0, 1)]
        assert [one.work["model"] for one in found] == ["larger", "tiny"]
        assert [chosen(one) for one in found] == [(JAX_AT, 128), (JAX_AT, 64)]
        assert heading(found[0]) == "larger, digits (4,096 examples), momentum at learning rate 0.01"

    def test_of_one_seed_tests_nothing(self) -> None:
        advice = advised(sweep(step, learns, seeds=[4]))
        assert chosen(advice) == (JAX_AT, 64)
        assert (advice.tested, advice.alike, advice.behind) == (False, (), ())
        assert places([advice.next_best]) == [(TENSORFLOW_AT, 64)]
        assert measure_next(advice)[0] == "--seed 4,5,6: with 1 seed no difference can be told from chance"
        assert any(
            line.startswith("Whether this lead is more than chance was not tested: ") for line in evidence(advice)
        )

    def test_stands_where_one_candidate_has_one_seed(self) -> None:
        records = [
            one
            for one in sweep(step, learns, spread=0.002)
            if not (one.cell.target is TENSORFLOW and one.cell.training.batch_size == 16 and one.cell.training.seed)
        ]
        advice = advised(records)
        assert chosen(advice) == (JAX_AT, 64)
        assert places(advice.alike) == [(TENSORFLOW_AT, 16)]
        assert len(advice.behind) == 6
        assert "tensorflow-cpu:graph at batch size 16 (trained once)" in "".join(evidence(advice))

    def test_leaves_out_what_did_not_get_there_with_every_seed(self) -> None:
        def some(target: Target, size: int) -> list[float]:
            return climbing(20.0, 0.9) if size == 64 else learns(target, size)

        advice = advised(sweep(step, some, spread=0.002))
        assert chosen(advice) == (JAX_AT, 32)
        assert advice.not_reached == ((JAX_AT, 64), (TENSORFLOW_AT, 64))
        assert sentence(advice).endswith(" Every other choice that reached 90 % was shown to be slower.")
        places_left = "jax-cpu:jit at batch size 64 and tensorflow-cpu:graph at batch size 64"
        assert f"These did not reach 90 % with every seed: {places_left}." in evidence(advice)


class TestUpperBounds:
    """What was there at the first evaluation may have been there long before."""

    def test_show_nothing_at_another_batch_size(self) -> None:
        def early(target: Target, size: int) -> list[float]:
            return [0.95] * 4 if size == 16 else learns(target, size)

        advice = advised(sweep(step, early, spread=0.002))
        assert chosen(advice) == (JAX_AT, 64)
        assert places(advice.alike) == [(JAX_AT, 16), (TENSORFLOW_AT, 16)]
        assert {one.ratio_low for one in advice.alike} == {None}
        assert "jax-cpu:jit at batch size 16 (takes at most " in "".join(evidence(advice))
        assert measure_next(advice)[0] == (
            "a higher --accuracy, or fewer --train-examples: 90 % was reached within the first epoch by jax-cpu:jit at "
            "batch size 16 and tensorflow-cpu:graph at batch size 16, so the time is an upper bound"
        )

    def test_at_the_same_batch_size_are_of_the_same_steps(self) -> None:
        advice = advised(sweep(step, lambda target, size: [0.95] * 2, spread=0.002))
        assert chosen(advice) == (JAX_AT, 128)
        assert places(advice.behind) == [(TENSORFLOW_AT, 128)]
        assert len(advice.alike) == 6
        assert (
            "use jax-cpu:jit at batch size 128. It trains to 90 % test accuracy in at most 0.538 s (95 % interval: "
            "0.536 to 0.539)" in sentence(advice)
        )


class TestCompiling:
    def test_turns_the_choice_where_the_quickest_compiles_longest(self) -> None:
        records = [
            planted(
                64,
                target,
                seed=seed,
                pace=step(target, 64),
                accuracies=climbing(2.0, 0.9),
                compile_seconds=5.0 if target is JAX else 1.0,
            )
            for seed in (0, 1)
            for target in (JAX, TENSORFLOW)
        ]
        advice = advised(records)
        assert chosen(advice) == (JAX_AT, 64)
        assert advice.quicker_with_compile is not None
        assert advice.quicker_with_compile.target == TENSORFLOW_AT
        assert (
            "If compiling counts too, tensorflow-cpu:graph at batch size 64 is there sooner: after 2.73 s instead of "
            "6.33 s."
        ) in evidence(advice)

    def test_does_not_turn_it_where_all_compile_as_long(self) -> None:
        assert advised(sweep(step, learns)).quicker_with_compile is None


class TestWithoutTheAccuracy:
    def test_the_fastest_is_named_and_what_to_measure(self) -> None:
        advice = advised(sweep(step, lambda target, size: [0.5, 0.6, 0.7 - size / 1000], spread=0.002))
        assert (advice.goal, advice.tested, advice.alike) == ("throughput", True, ())
        assert chosen(advice) == (JAX_AT, 128)
        assert advice.highest == (JAX_AT, 16, 3, pytest.approx(0.684))
        assert sentence(advice).startswith(
            "No target reached 90 % test accuracy with every seed; the highest was 68.40 %, by jax-cpu:jit at batch "
            "size 16 after 3 epochs. On this machine (A processor, 2 logical cores) jax-cpu:jit at batch size 128 "
            "trains fastest: "
        )
        first, *others = measure_next(advice)
        assert first == (
            "more --epochs than 3, a smaller --batch-size or another --learning-rate, to reach 90 %; "
            "or ask for less: --accuracy 0.68"
        )
        assert advice.untried == (256, pytest.approx(256 / step(JAX, 256), rel=0.01))
        assert others == [
            "--batch-size 256: the best batch size is the largest one measured, so a larger one may be better",
            f"--batch-size 256: it is predicted to train {advice.untried[1]:,.0f} images per second",
        ]

    def test_the_highest_is_what_all_seeds_of_a_place_reached(self) -> None:
        values = {0: [0.95, 0.5], 1: [0.6, 0.8]}
        advice = advised([planted(32, seed=seed, accuracies=values[seed]) for seed in (0, 1)])
        assert advice.highest == (JAX_AT, 32, 2, 0.8)
        assert "--accuracy 0.8" in measure_next(advice)[0]

    def test_less_is_not_asked_for_where_there_is_nothing_less(self) -> None:
        advice = advised([planted(32, accuracies=[0.001])], accuracy=0.9)
        assert measure_next(advice)[0].endswith("to reach 90 %")

    def test_nor_any_evaluation_the_fastest_is_named(self) -> None:
        advice = advised(sweep(step, lambda target, size: [], spread=0.002, epochs=1))
        assert (advice.goal, advice.highest, chosen(advice)) == ("throughput", None, (JAX_AT, 128))
        assert sentence(advice).startswith("No accuracy was measured. On this machine ")
        assert measure_next(advice)[0].startswith("training for a whole epoch: accuracy is measured after each epoch")

    def test_a_control_lane_is_no_further_process(self) -> None:
        records = [
            planted(
                64, target, repeat=repeat, lane=lane, pace=load * (1.1 if target is TENSORFLOW else 1), accuracies=[]
            )
            for repeat, load in enumerate((0.01, 0.02, 0.04))
            for target, lane in ((JAX, 0), (JAX, 1), (TENSORFLOW, 0))
        ]
        records = [dataclasses.replace(one, epochs=()) for one in records]
        assert places(advised(records).behind) == [(TENSORFLOW_AT, 64)]


class TestObstacles:
    OBSTACLE = "threads: 2 (jax-cpu:jit), 1 (tensorflow-cpu:graph); not the same processors"

    def test_leave_no_choice_over_targets(self) -> None:
        advice = advised(sweep(step, learns, spread=0.002), obstacles=[self.OBSTACLE])
        assert (advice.goal, advice.choice, advice.next_best, advice.tested) == ("accuracy", None, None, False)
        assert (advice.alike, advice.behind, advice.rival, advice.untried) == ((), (), None, None)
        assert places(advice.per_target) == [(JAX_AT, 64), (TENSORFLOW_AT, 64)]
        assert sentence(advice) == (
            "No target is recommended over another, because they cannot be compared. The best of each at reaching 90 "
            "%: jax-cpu:jit at batch size 64, 1.33 s; tensorflow-cpu:graph at batch size 64, 1.73 s."
        )
        assert evidence(advice) == [f"The targets cannot be compared: {self.OBSTACLE}."]
        assert measure_next(advice) == [
            "the targets again, in one sweep, without the differences that keep them from being compared"
        ]

    def test_of_one_target_are_none(self) -> None:
        advice = advised(sweep(step, learns, targets=[JAX], spread=0.002), obstacles=[self.OBSTACLE])
        assert (chosen(advice), advice.obstacles) == ((JAX_AT, 64), ())


class TestWords:
    def test_of_a_clear_answer(self) -> None:
        records = [
            planted(
                size, target, seed=seed, pace=step(target, size) * (1 + 0.001 * seed), accuracies=learns(target, size)
            )
            for size in (32, 64, 128)
            for target in (JAX, TENSORFLOW)
            for seed in (0, 1)
        ]
        advice = advised(records)
        assert sentence(advice) == (
            "On this machine (A processor, 2 logical cores) use jax-cpu:jit at batch size 64. It trains to 90 % test "
            "accuracy in 1.33 s (95 % interval: 1.32 to 1.34), plus 1.50 s to compile. The next best is "
            "tensorflow-cpu:graph at batch size 64, with 1.73 s. Every other choice that was measured was shown to be "
            "slower."
        )
        takes, rival, behind = evidence(advice)
        assert takes == (
            "jax-cpu:jit at batch size 64 needs 128 steps (2 epochs) to reach 90 %, on average over 2 seeds. It trains "
            "6,151 images per second (6,112 to 6,190), measured in 2 processes."
        )
        assert rival == (
            "At batch size 64, tensorflow-cpu:graph trains 0.769 times as fast as jax-cpu:jit (0.769 to 0.769), "
            "measured in 2 heats (cells that run together) with both."
        )
        assert behind == (
            "These were shown to be slower: tensorflow-cpu:graph at batch size 64 (takes 1.30 to 1.30 times as long), "
            "jax-cpu:jit at batch size 32 (takes 1.38 to 1.38 times as long), jax-cpu:jit at batch size 128 (takes "
            "1.62 to 1.62 times as long), tensorflow-cpu:graph at batch size 32 (takes 1.80 to 1.80 times as long) and "
            "1 more. Each end of such a range holds with 95 % confidence."
        )
        assert measure_next(advice) == []

    def test_of_an_answer_that_is_not_clear(self) -> None:
        paces = {(JAX, 0): 0.010, (JAX, 1): 0.012, (TENSORFLOW, 0): 0.012, (TENSORFLOW, 1): 0.011}
        records = [
            planted(64, target, seed=seed, pace=pace, accuracies=climbing(2.0, 0.9))
            for (target, seed), pace in paces.items()
        ]
        advice = advised(records)
        assert sentence(advice) == (
            "On this machine (A processor, 2 logical cores) use jax-cpu:jit at batch size 64. It trains to 90 % test "
            "accuracy in 1.40 s (95 % interval: 0.440 to 4.47), plus 1.50 s to compile. The next best is "
            "tensorflow-cpu:graph at batch size 64, with 1.47 s; these measurements cannot tell which of the two is "
            "better."
        )
        assert evidence(advice)[2] == (
            "With 95 % confidence, the best choice is this one or one of these: tensorflow-cpu:graph at batch size 64 "
            "(takes 0.448 to 2.45 times as long). Each end of such a range holds with 95 % confidence."
        )
        assert measure_next(advice) == [
            "--seed 0,1,2,3: more seeds may tell whether it is better than tensorflow-cpu:graph at batch size 64",
            "--batch-size 128: the best batch size is the largest one measured, so a larger one may be better",
        ]

    def test_of_nothing(self) -> None:
        made = planted(32)
        advice = advised([failed(made.cell, "crashed", "signal 11"), failed(planted(64).cell, "skipped", "")])
        assert sentence(advice) == "There is no answer: no cell was timed."
        assert evidence(advice) == ["1 cell did not finish; 'harness report' gives the reasons."]
        assert (advice.goal, advice.choice, advice.sizes) == ("none", None, ())

    def test_of_unproven_cells(self) -> None:
        records = [planted(32, seed=seed, accuracies=climbing(2.0, 0.9), proof="") for seed in (0, 1)]
        assert "2 cells are not proven to do the same work as the reference." in evidence(advised(records))

    def test_name_a_machine_by_its_gpu(self) -> None:
        facts = {"id": "g", "processor": "P", "usable_cores": 16, "logical_cores": 64, "gpu": {"name": "NVIDIA H200"}}
        advice = advised([planted(32, accuracies=[0.5, 0.9], machine=facts)])
        assert sentence(advice).startswith("On this machine (P, 16 logical cores, NVIDIA H200) use ")

    def test_keep_names_as_they_are(self) -> None:
        hostile = dataclasses.replace(LARGER, name="<b>[red]{0} %s\\n")
        advice = advised([planted(32, model=hostile, accuracies=[0.9])])
        assert heading(advice).startswith("<b>[red]{0} %s\\n, digits (4,096 examples), momentum at learning rate 0.01")

    def test_say_scaling_and_precision(self) -> None:
        rules = {"learning_rate": LearningRate(0.1, scaling="linear"), "precision": "mixed_bfloat16"}
        advice = advised([planted(32, accuracies=[0.9], training=rules)])
        assert heading(advice) == (
            "tiny, digits (4,096 examples), momentum at learning rate 0.1 (linear scaling), mixed_bfloat16"
        )

    def test_say_which_rate_goes_with_which_batch_size(self) -> None:
        rates = ((32, 0.01), (64, 0.02))
        records = [
            planted(size, accuracies=[0.9], training={"learning_rate": LearningRate(rate)}) for size, rate in rates
        ]
        assert heading(advised(records)) == (
            "tiny, digits (4,096 examples), momentum at a learning rate for each batch size (0.01 at 32, 0.02 at 64)"
        )


class TestNextBatchSizes:
    def of(self, sizes: Sequence[int], best: int, more: Sequence[Record] = (), **changes: Any) -> list[str]:
        """What to measure next where a batch size of one target is the best."""

        def pace(target: Target, size: int) -> float:
            return 0.001 * size * (1.0 if size == best else 2.0)

        records = sweep(pace, lambda target, size: climbing(2.0, 0.9), targets=[JAX], sizes=sizes, **changes)
        return [line for line in measure_next(advised([*records, *more])) if line.startswith("--batch-size")]

    def test_are_beyond_the_best_at_either_end(self) -> None:
        assert self.of((16, 32, 64), 64) == [
            "--batch-size 128: the best batch size is the largest one measured, so a larger one may be better"
        ]
        assert self.of((16, 32, 64), 16) == [
            "--batch-size 8: the best batch size is the smallest one measured, so a smaller one may be better"
        ]
        assert self.of((16, 32, 64), 32) == []
        assert self.of((1, 2, 4), 1) == []

    @pytest.mark.parametrize("status", ["out_of_memory", "skipped", "timeout"])
    def test_are_none_that_was_tried(self, status: str) -> None:
        assert self.of((16, 32, 64), 64, [failed(planted(128).cell, status, "no")]) == []

    def test_are_no_larger_than_the_training_examples(self) -> None:
        assert self.of((16, 2048, 4096), 4096) == []

    def test_of_one_target_ask_for_another(self) -> None:
        advice = advised(sweep(step, learns, targets=[JAX]))
        assert measure_next(advice) == ["--target with a second target: only one was measured"]


def test_interrupted_seed_does_not_take_a_choice_from_the_table() -> None:
    records = list(sweep(step, learns, seeds=(0, 1), spread=0.002))
    records.append(planted(64, JAX, seed=2, pace=step(JAX, 64), accuracies=[0.6], epochs=8, status="interrupted"))
    advice = advised(records)
    assert (chosen(advice), advice.alike, advice.failed) == ((JAX_AT, 64), (), 1)


def test_two_seeds_that_differ_beyond_measure_do_not_break_the_words() -> None:
    def wild(count: int) -> Callable[[int], Sequence[float]]:
        return lognormal(np.random.default_rng(count), 0.01)

    records = [
        planted(
            size,
            seed=seed,
            pace=0.001 * size * (1e80 if seed and size == 48 else 1),
            accuracies=[0.5, 0.9],
            noise=wild(n),
        )
        for n, (size, seed) in enumerate((size, seed) for size in range(16, 64, 4) for seed in (0, 1))
    ]
    advice = advised(records)
    assert any(math.isinf(one.ratio_high or 0) for one in advice.alike)
    words = [sentence(advice), *evidence(advice), *measure_next(advice)]
    assert not [text for text in words if "inf" in text]


def test_an_interval_that_is_no_statement_is_not_shown_as_one() -> None:
    def of_seeds(*paces: float) -> Advice:
        return advised(
            [planted(64, seed=seed, pace=pace, accuracies=climbing(2.0, 0.9)) for seed, pace in enumerate(paces)]
        )

    wide = of_seeds(0.010, 0.030)
    assert wide.choice is not None
    assert wide.choice.high is not None
    assert wide.choice.high > 1000
    assert (
        "It trains to 90 % test accuracy in 2.22 s, plus 1.50 s to compile. How near other runs come to that cannot be "
        "told from 2 seeds, which differ too much; more seeds would tell: --seed 0,1,2,3."
    ) in sentence(wide)
    assert "--seed 0,1,2,3: so few seeds differ too much to tell how long it takes" in measure_next(wide)
    assert "images per second, measured in 2 processes" in evidence(wide)[0]
    more = of_seeds(0.010, 0.030, 0.015, 0.025)
    assert "(95 % interval: " in sentence(more)
    assert "cannot be told" not in sentence(more)


class TestWhereMemoryEndsTheRange:
    """Larger batches take fewer seconds to the accuracy, so the largest that ran is the quickest."""

    def records(self, *larger: Record) -> list[Record]:
        return [*sweep(step, lambda target, size: climbing(2.0, 0.9), targets=[JAX], sizes=[32, 64]), *larger]

    def skipped(self, size: int, held: int) -> Record:
        of = cell(size, JAX, examples=4096, epochs=8)
        return failed(of, "skipped", sweep_plan._too_large(of, held))

    def test_the_answer_says_so_and_how_much_it_holds(self) -> None:
        advice = advised(self.records(self.skipped(128, 100), self.skipped(256, 100)))
        assert sentence(advice).endswith(
            "On jax-cpu:jit memory, not speed, ends the range: batch size 64 is the quickest and the largest that ran, "
            "and it holds 100 at most."
        )
        assert any(line.startswith("--batch-size 100: ") for line in measure_next(advice))
        assert not any(line.startswith("--batch-size 128: ") for line in measure_next(advice))

    def test_a_size_that_ran_out_of_memory_ends_it_too(self) -> None:
        ended = failed(cell(128, JAX, examples=4096, epochs=8), "out_of_memory", "the device had no more")
        assert sentence(advised(self.records(ended))).endswith("the largest that ran, and 128 did not fit.")

    def test_silent_where_a_smaller_size_is_the_quickest_or_a_larger_one_failed_otherwise(self) -> None:
        crashed = failed(cell(128, JAX, examples=4096, epochs=8), "failed", "it fell")
        assert "memory" not in sentence(advised(self.records(crashed)))
        slow = sweep(lambda target, size: 0.001 * size**1.5, learns, targets=[JAX], sizes=[32, 64])
        assert "memory" not in sentence(advised([*slow, self.skipped(128, 100)]))
