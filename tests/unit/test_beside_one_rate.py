"""Accuracy at rates that go with the batch size beside that at one rate: the table, the sentence, the figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import polars as pl
import pytest

from harness import analysis
from harness.analysis.beside_one_rate import beside_one_rate
from harness.core.record import Record
from harness.core.training import LearningRate
from harness.report import figures_of_learning, learning_rates
from harness.report.figure import Absent, Figure
from harness.report.page import render
from harness.report.works import works
from tests.unit.made_up_runs import view
from tests.unit.planted_runs import planted

OWN = {32: 0.02, 256: 0.08}
AT_ONE = {32: 0.9, 256: 0.8}
AT_OWN = {32: 0.91, 256: 0.86}


def both(
    seeds: int, *, at_own: Mapping[int, float] = AT_OWN, at_one: Mapping[int, float] = AT_ONE, jitter: float = 0.001
) -> list[Record]:
    """Batch sizes 32 and 256 at the rates OWN and at 0.01; seeds differ by ``jitter``, more so at 256."""
    return [
        planted(
            size, accuracies=[reached[size] + jitter * seed * (size // 32)], seed=seed, training={"learning_rate": rate}
        )
        for seed in range(seeds)
        for reached, rates in ((at_one, dict.fromkeys(OWN, 0.01)), (at_own, OWN))
        for size, rate in ((size, LearningRate(rate)) for size, rate in rates.items())
    ]


def test_what_is_lost_and_brought_back_is_paired_by_seed() -> None:
    small, large = beside_one_rate(analysis.summary(both(3))).to_dicts()
    assert (small["scaling"], small["one_rate"], small["seeds"]) == ("0.02 at 32, 0.08 at 256", 0.01, 3)
    assert (small["base_batch_size"], small["lost_points"], large["base_batch_size"]) == (32, None, 32)
    # 90, 90.1, 90.2 less 80, 80.8, 81.6 percent: 10, 9.3, 8.6, whose standard deviation is 0.7.
    assert large["lost_points"] == pytest.approx(9.3)
    assert large["lost_points_high"] - 9.3 == pytest.approx(4.302653 * 0.7 / 3**0.5, rel=1e-6)
    # 86 less 80 of every seed.
    assert [large[f"brought_back_points{end}"] for end in ("", "_low", "_high")] == pytest.approx([6, 6, 6])
    assert large["accuracy"] == pytest.approx(0.868)
    assert large["accuracy_at_one_rate"] == pytest.approx(0.808)


def test_works_that_differ_in_more_than_rates_are_not_held_against_each_other() -> None:
    longer = [dataclasses.replace(made, status="interrupted") for made in both(1)]
    assert beside_one_rate(analysis.summary(longer)).is_empty()
    assert beside_one_rate(analysis.summary(both(2)[:2])).is_empty()
    ends = [planted(32, accuracies=[0.9], training={"learning_rate": LearningRate(0.01), "until_accuracy": 0.9})]
    assert beside_one_rate(analysis.summary([*both(1)[:3], *ends])).is_empty()


def said(records: list[Record]) -> list[str]:
    (frame,) = (
        work.beside_one_rate for work in works(analysis.analyse(analysis.collect(records))) if work.scaling != "none"
    )
    return learning_rates.brought_back(frame, "the rates for each")


def test_the_sentence_says_no_more_than_is_shown() -> None:
    (brought_back,) = said(both(3))
    assert brought_back == (
        "On jax-cpu:jit, from batch size 32 to 256, the one rate 0.01 loses 9.30 percentage points (95 % interval: "
        "7.56 to 11.04) of accuracy after 1 epoch; the rates for each bring back 6.00 percentage points (95 % "
        "interval: 6.00 to 6.00)."
    )
    assert said(both(1)) == []
    (none_lost,) = said(both(3, at_one={32: 0.9, 256: 0.89}))
    assert "loses no accuracy that 3 seeds can tell from chance" in none_lost
    (more_than_lost,) = said(both(3, at_own={32: 0.9, 256: 0.95}))
    assert "with the rates for each it is higher there by more than that: 15.00 percentage points" in more_than_lost
    less = both(3, at_own={32: 0.9, 256: 0.7})
    assert "it is still less there: -10.00 percentage points" in said(less)[0]
    wobbling = [
        dataclasses.replace(made, epochs=(dataclasses.replace(made.epochs[0], test_accuracy=0.76 + 0.05 * seed),))
        if made.cell.training.learning_rate.base == OWN[256]
        else made
        for made in both(3)
        for seed in [made.cell.training.seed]
    ]
    assert "whether the rates for each bring any of it back cannot be told from chance" in said(wobbling)[0]


def test_the_terminal_says_what_the_page_says() -> None:
    found = analysis.outline(analysis.collect(both(3)))
    (told,) = learning_rates.of_all_works(found.beside_one_rate, [])
    assert [told] == said(both(3))
    assert learning_rates.of_all_works(analysis.outline(analysis.collect(both(1))).beside_one_rate, []) == []
    other = [
        dataclasses.replace(made, cell=dataclasses.replace(made.cell, model=dataclasses.replace(model, name="other")))
        for made in both(3)
        for model in [made.cell.model]
    ]
    two = learning_rates.of_all_works(analysis.outline(analysis.collect([*both(3), *other])).beside_one_rate, [])
    assert {one.partition(": On ")[0] for one in two} == {both(3)[0].cell.model.name, "other"}


def test_the_figure_has_both_series_and_stands_with_the_rates_of_each_size() -> None:
    found = analysis.analyse(analysis.collect(both(2)))
    figures = {work.scaling: figures_of_learning.beside_one_rate(work) for work in works(found)}
    assert isinstance(figures.pop("none"), Absent)
    (figure,) = figures.values()
    assert isinstance(figure, Figure)
    assert figure.frame.group_by("rates").agg(pl.len()).sort("rates").rows() == [
        ("0.01 at every batch size", 2),
        ("a rate for each batch size", 2),
    ]
    (dashes,) = [layer for layer in figure.spec["layer"] if "strokeDash" in layer["encoding"]]
    assert dashes["encoding"]["strokeDash"]["scale"]["range"][-1] == [1, 0]
    page = render(view(both(2)))
    assert "percentage points brought back" in page


def test_regimes_are_those_of_the_paper_where_each_size_has_its_rate() -> None:
    notes = {}
    for work in works(analysis.analyse(analysis.collect(both(1)), 0.8)):
        figure = figures_of_learning.steps_to_accuracy(work)
        assert isinstance(figure, Figure)
        notes[work.scaling] = figure.note
    assert "here it is 0.01 at every batch size, so a larger batch may have lacked a rate" in notes.pop("none")
    (own,) = notes.values()
    assert "here each has the rate that was written for it" in own
