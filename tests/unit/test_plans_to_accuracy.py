"""Fixed against growing batches at equal accuracy: steps, images, seconds, and when one is called quicker."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl
import pytest

from harness import analysis
from harness.analysis.accuracy import Curve
from harness.analysis.plans_to_accuracy import QUICKER, SLOWER, UNTOLD, arrival, images_until, judged
from harness.core.record import Epoch, Record
from harness.core.training import LearningRate
from harness.report import advice as words
from harness.report import fixed_and_growing
from harness.report.page import render
from harness.report.works import works
from tests.unit.made_up_runs import view
from tests.unit.planted_runs import planted
from tests.unit.records import JAX
from tests.unit.test_plan_tables import PLAN, planned

ACCURACY = 0.85
REACHES = (0.8, 0.9, 0.95, 0.95)
"""Half way between the first evaluation and the second."""


def growing(seed: int = 0, slower: float = 1.0, reaches: tuple[float, ...] = REACHES) -> Record:
    """32 images a step in 0.01 s for 128 steps, then 64 in 0.016 s for 64 an epoch, then 128 in 0.02 s."""
    made = planned(JAX, seed, slower)
    epochs = tuple(Epoch(epoch, 0.5, 0.4, accuracy, 0.1) for epoch, accuracy in enumerate(reaches))
    return dataclasses.replace(made, epochs=epochs)


def fixed(size: int, reaches: tuple[float, ...], pace: float, seed: int = 0) -> Record:
    return planted(size, JAX, pace=pace, accuracies=reaches, seed=seed, machine=growing().machine)


def table(*records: Record) -> list[dict[str, Any]]:
    found = analysis.analyse(analysis.collect(records), ACCURACY).plans_to_accuracy
    return found.filter(pl.col("accuracy") == ACCURACY).to_dicts()


def seeded(count: int, slower: float) -> list[Record]:
    """A plan, and batch sizes 32 and 64 of which the latter never gets there; seeds differ by a percent."""
    wobbles = [1 + 0.01 * ((0, 1, -1)[seed % 3]) for seed in range(count)]
    return [
        made
        for seed, wobble in enumerate(wobbles)
        for made in (
            growing(seed, slower * wobble),
            fixed(32, (0.6, 0.8, 0.9, 0.95), 0.01 * (2 - wobble), seed),
            fixed(64, (0.5, 0.6, 0.7, 0.8), 0.016, seed),
        )
    ]


def test_rows_are_what_it_takes_each_over_the_quickest_fixed_size() -> None:
    small, large, plan = table(
        growing(), fixed(32, (0.6, 0.8, 0.9, 0.95), 0.01), fixed(64, (0.5, 0.6, 0.7, 0.8), 0.016)
    )
    assert (small["batch_plan"], small["batch_size"], small["best_fixed"]) == ("", 32, True)
    # Half way between the ends of epochs 2 and 3, of 128 steps each.
    assert [small[name] for name in ("steps", "images", "seconds")] == pytest.approx([320, 320 * 32, 3.2])
    assert [small[f"{name}_ratio"] for name in ("steps", "images", "seconds")] == [1.0, 1.0, 1.0]
    assert (large["reached"], large["steps"], large["seconds_ratio"]) == (0, None, None)
    assert large["highest_accuracy"] == 0.8
    # 128 steps of 32 images, then 32 of 64.
    assert (plan["batch_plan"], plan["best_fixed"], plan["at_most"]) == (PLAN, False, False)
    assert [plan[name] for name in ("steps", "images", "seconds")] == pytest.approx(
        [160, 128 * 32 + 32 * 64, 1.28 + 32 * 0.016]
    )
    assert plan["steps_ratio"] == pytest.approx(0.5)
    assert plan["images_ratio"] == pytest.approx(0.6)
    assert plan["seconds_ratio"] == pytest.approx(1.792 / 3.2)
    assert (plan["seconds_ratio_low"], plan["against_fixed"]) == (None, UNTOLD)


def test_images_are_those_of_the_whole_batches_of_each_epoch() -> None:
    assert images_until(PLAN, 4100, 128 + 64 + 64 + 10) == 128 * 32 + 128 * 64 + 10 * 128
    assert images_until("32>64@1", 4096, 1000) == 128 * 32 + 872 * 64
    assert images_until("32>64@step100>8@step150", 4096, 1000) == 100 * 32 + 50 * 64 + 850 * 8
    assert images_until("32>64@step100", 4096, 99.5) == 99.5 * 32
    assert images_until("32", 4096, 10.5) == 336


def test_several_seeds_show_which_is_quicker_or_that_it_cannot_be_told() -> None:
    for slower, verdict in ((1.0, QUICKER), (3.2 / 1.792, UNTOLD), (2.5, SLOWER)):
        *_, plan = table(*seeded(3, slower))
        assert plan["against_fixed"] == verdict
        assert plan["seconds_ratio_low"] < plan["seconds_ratio"] < plan["seconds_ratio_high"]
        assert plan["seconds_ratio"] == pytest.approx(slower * 0.56, rel=0.01)


def test_an_upper_bound_shows_only_what_it_can() -> None:
    def there(first: float, seconds: float) -> Any:
        curves = [
            Curve(seed, 32, 100, (first, 1.0), seconds * (1 + 0.01 * seed) / 200, None, steps=(100, 200))
            for seed in (0, 1, 2)
        ]
        return arrival(curves, "32", 3200, 0.9)

    at_once, slow, slower = there(0.95, 20.0), there(0.8, 20.0), there(0.8, 60.0)
    assert (at_once.at_most, slow.at_most) == (True, False)
    assert judged(at_once, [slow]) == QUICKER
    assert judged(slower, [at_once]) == SLOWER
    assert judged(there(0.95, 60.0), [slow]) == UNTOLD
    assert judged(there(0.8, 2.0), [at_once]) == UNTOLD
    assert (judged(None, [slow]), judged(slow, [None])) == ("", "")


def test_words_say_as_much_as_is_shown() -> None:
    def said(*records: Record) -> str:
        found = analysis.outline(analysis.collect(records), ACCURACY)
        (sentence,) = fixed_and_growing.sentences(found.plans_to_accuracy, found.accuracy)
        return sentence

    start = f"jax-cpu:jit reached 85 % in 1.79 s with the plan {PLAN}, and in 3.20 s with 32, its quickest fixed size: "
    quicker = said(*seeded(3, 1.0))
    assert quicker.startswith(f"{start}the plan is quicker than every fixed one (it takes 0.560 times as long; 95 %")
    assert said(*seeded(1, 1.0)).endswith("cannot be told from chance with one seed (it takes 0.560 times as long).")
    never = (0.1, 0.2, 0.3, 0.4)
    assert said(growing(), fixed(32, never, 0.01)).endswith("with every seed no fixed batch size did.")
    assert said(growing(reaches=never), fixed(32, REACHES, 0.01)).endswith(
        "with every seed no plan of batch sizes did."
    )
    assert fixed_and_growing.sentences(analysis.outline(analysis.collect([growing()])).plans_to_accuracy, 0.85) == []


def test_a_recommendation_names_a_plan_that_was_quicker_than_the_choice() -> None:
    def plan_lines(*records: Record) -> list[str]:
        (advice,) = analysis.analyse(analysis.collect(records), ACCURACY).advice
        return [line for line in words.evidence(advice) if PLAN in line]

    (shown,) = plan_lines(*seeded(3, 1.0))
    assert shown.endswith("in 1.79 s, and was shown to be quicker than every fixed batch size that did.")
    (untold,) = plan_lines(*seeded(1, 1.0))
    assert untold.endswith(
        "cannot be told from these measurements: with one seed no difference can be told from chance."
    )
    assert plan_lines(*seeded(3, 2.5)) == []


def test_the_page_has_the_table() -> None:
    page = render(view(seeded(3, 1.0)))
    assert "Fixed and growing batches to" in page
    assert "times the images" in page


def test_several_works_are_told_apart_and_told_in_two_sentences() -> None:
    rates = [dataclasses.replace(LearningRate(), base=base) for base in (0.01, 0.02, 0.04)]

    def at(rate: LearningRate, made: Record) -> Record:
        of = dataclasses.replace(made.cell, training=dataclasses.replace(made.cell.training, learning_rate=rate))
        return dataclasses.replace(made, cell=of, cell_id=of.cell_id, work_id=of.work_id)

    def said(count: int) -> list[str]:
        records = [at(rate, made) for rate in rates[:count] for made in seeded(3, 1.0)]
        return fixed_and_growing.sentences(analysis.outline(analysis.collect(records), 0.9).plans_to_accuracy, 0.9)

    assert [line.split(":")[0] for line in said(2)] == [
        "momentum at learning rate 0.01",
        "momentum at learning rate 0.02",
    ]
    first, counted = said(3)
    assert first.startswith("momentum at learning rate 0.01: jax-cpu:jit reached 90 % in ")
    assert counted == "Of all 3 such comparisons, the quickest plan was shown to be quicker in 3, and slower in 0."


def test_the_table_of_a_work_that_did_not_get_there_is_of_what_it_reached() -> None:
    (work,) = works(analysis.analyse(analysis.collect(seeded(3, 1.0)), 0.99))
    frame, shown = fixed_and_growing.rows(work.plans_to_accuracy, work.accuracy)
    assert (shown, set(frame["accuracy"])) == ("95 % test accuracy (none reached 99 %)", {95.0})
    assert frame["batch_plan"].to_list() == ["32", "64", PLAN]
