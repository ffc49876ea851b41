"""Which question numbers answer: as installed, or at its best."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

from harness.analysis import comparison, statement
from harness.plan import targets
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


def test_variables_and_code_of_ones_own_are_their_owners_affair() -> None:
    own = replace(JAX, name="mine", settings="0123456789abcdef")
    assert statement.of(own) == statement.AS_ITS_OWNER_SET
    assert statement.of(replace(own, options=(("loop", "unrolled"),))) == statement.AS_ITS_OWNER_SET
    assert statement.of(replace(own, tuned=True)) == statement.AT_ITS_BEST
    assert statement.of_targets([own]).startswith("As their owner set them: ")
    assert "mine:jit as its owner set it, jax-cpu:jit as installed" in statement.of_targets([own, JAX])


def test_own_targets_that_set_what_a_built_in_one_sets_are_as_installed() -> None:
    plain = {one.settings for one in targets.built_in().values() if not one.tuned}
    assert plain <= statement.PLAIN_SETTINGS
    tables = {
        "same": {"like": "tensorflow-cpu"},
        "fast": {"like": "tensorflow-cpu", "env": {"CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "1"}},
    }
    defined = targets.definitions(tables, Path("harness.toml"))
    words = {name: statement.of(targets.resolve(name, defined)) for name in tables}
    assert words == {"same": statement.AS_INSTALLED, "fast": statement.AS_ITS_OWNER_SET}


def test_equal_kinds_are_one_sentence_and_others_are_told_one_by_one() -> None:
    assert statement.of_targets([JAX, TENSORFLOW]).startswith("As installed: ")
    assert statement.of_targets([TUNED]).startswith("At its best: ")
    assert statement.of_targets([JAX, TUNED]) == (
        "Not all of one kind: jax-cpu:jit as installed, jax-cpu-tuned:jit at its best "
        "('harness targets show NAME' lists settings)."
    )
    assert statement.of_targets([]) == ""


def test_a_comparison_says_which_it_is() -> None:
    asked = [TENSORFLOW, TUNED]
    lanes = comparison.lane_keys(asked, control=False)
    records = [planted(32, target, repeat=repeat) for target in asked for repeat in range(2)]
    found = comparison.compare(records, lanes)
    stream = StringIO()
    comparing.print_comparisons(found, console_for(stream, plain=True), comparison.overall)
    second = stream.getvalue().splitlines()[1]
    assert second == statement.of_targets(asked)
    plain = comparison.to_plain(found[0])
    assert (plain["base"]["statement"], plain["lane"]["statement"]) == ("as installed", "at its best")
