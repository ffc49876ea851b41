"""Which question numbers answer: as installed, or at its best."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from harness.analysis import comparison, statement
from harness.report import comparing
from harness.report.terminal import console_for
from tests.unit.planted_runs import planted
from tests.unit.records import JAX, TENSORFLOW

TUNED = replace(JAX, name="jax-cpu-tuned", defined_options=(("pool_gradient", "first_maximum"),), tuned=True)


def test_a_target_is_what_its_definition_says() -> None:
    assert statement.of(JAX) == statement.AS_INSTALLED
    assert statement.of(replace(JAX, steps_per_call=8)) == statement.AS_INSTALLED
    assert statement.of(replace(JAX, options=(("loop", "unrolled"),))) == statement.AS_SET
    assert statement.of(TUNED) == statement.AT_ITS_BEST
    assert statement.of(replace(TUNED, options=(("loop", "unrolled"),))) == statement.AT_ITS_BEST


def test_equal_kinds_are_one_sentence_and_others_are_told_one_by_one() -> None:
    assert statement.of_targets([JAX, TENSORFLOW]).startswith("As installed: ")
    assert statement.of_targets([TUNED]).startswith("At its best: ")
    assert statement.of_targets([JAX, TUNED]) == (
        "Not all of one kind: jax-cpu:jit as installed, jax-cpu-tuned:jit at its best "
        "('harness targets show NAME' lists settings)."
    )
    assert statement.of_targets([]) == ""


def test_a_comparison_says_which_it_is() -> None:
    targets = [TENSORFLOW, TUNED]
    lanes = comparison.lane_keys(targets, control=False)
    records = [planted(32, target, repeat=repeat) for target in targets for repeat in range(2)]
    found = comparison.compare(records, lanes)
    stream = StringIO()
    comparing.print_comparisons(found, console_for(stream, plain=True), comparison.overall)
    second = stream.getvalue().splitlines()[1]
    assert second == statement.of_targets(targets)
    plain = comparison.to_plain(found[0])
    assert (plain["base"]["statement"], plain["lane"]["statement"]) == ("as installed", "at its best")
