"""What was shown of cells' own work, in words, and what becomes of cells of which it was not."""

from __future__ import annotations

import dataclasses

import pytest

from harness import analysis
from harness.analysis import comparison
from harness.core import codec
from harness.core.record import Record, SameWork
from harness.report import same_work
from tests.unit.planted_runs import climbing, planted
from tests.unit.records import TENSORFLOW, cell, record
from tests.unit.test_advice import advised
from tests.unit.test_comparison import LANES, heats

SHOWN = SameWork(
    proof="ab",
    steps=14,
    error=3.2e-6,
    witnessed_steps=4,
    first_witnessed=20,
    witness_error=5e-7,
    counted_steps=20,
    held=("order of images",),
)
FAILED = SameWork(proof="ab", notes=("not at this batch size: memory ran out",))


def test_what_is_proven_is_said_with_its_steps_and_largest_error() -> None:
    silent = dataclasses.replace(SHOWN, error=1e-7, steps=12, not_shown=("the backend does not count steps",))
    frame = analysis.summary(
        [record(cell(512, examples=1024), same_work=SHOWN), record(cell(32, TENSORFLOW), same_work=silent)]
    )
    words = {row["batch_size"]: same_work.words(row) for row in frame.to_dicts()}
    assert words[512] == "proven at 512: 14 steps, largest error 3e-6"
    proven, seen, silent_too = same_work.sentences(frame)
    assert proven == (
        "Proven at the batch size that was measured, through the calls that are timed: 2 cells, 12 to 14 steps each; "
        "the largest error is 3e-6 of the largest value."
    )
    assert seen == (
        "Of the timed training of 2 cells, 4 steps at a random moment were done again by the reference: the largest "
        "error is 5e-7 of the largest value."
    )
    assert silent_too == "Of tensorflow-cpu:graph: the backend does not count steps."
    assert same_work.not_at_size(frame) == ""


def test_a_cell_of_an_older_run_is_shown_as_before_with_a_sentence() -> None:
    old = record(cell(32))
    assert "same_work" not in codec.to_json(old)
    frame = analysis.summary([old])
    assert same_work.words(frame.to_dicts()[0]) == "not proven at this size"
    assert same_work.sentences(frame) == []
    assert same_work.not_at_size(frame).startswith("1 cell is not proven at this size")
    assert frame["images_per_second"][0] is not None


@pytest.mark.parametrize(("shown", "sizes"), [(SameWork(), {32, 64}), (SHOWN, {32, 64}), (FAILED, {64})])
def test_what_could_not_be_proven_at_its_size_is_not_recommended(shown: SameWork, sizes: set[int]) -> None:
    records = [
        planted(size, seed=seed, accuracies=climbing(2.0, 0.9), same_work=shown if size == 32 else SHOWN)
        for size in (32, 64)
        for seed in (0, 1)
    ]
    advice = advised(records)
    assert advice.choice is not None
    others = (*advice.alike, *advice.behind, *([] if advice.next_best is None else [advice.next_best]))
    assert {advice.choice.batch_size, *(one.batch_size for one in others)} == sizes
    assert [size for _, size in advice.unsized] == ([] if 32 in sizes else [32])


@pytest.mark.parametrize(("shown", "comparable"), [(SameWork(), True), (SHOWN, True), (FAILED, False)])
def test_what_could_not_be_proven_at_its_size_gets_no_verdict(shown: SameWork, comparable: bool) -> None:
    records: list[Record] = [dataclasses.replace(one, same_work=shown) for one in heats(0.1)]
    (found,) = comparison.compare(records, LANES)
    assert (found.verdict != comparison.NOT_COMPARABLE) == comparable
    assert any("not proven at this batch size" in reason for reason in found.reasons) != comparable
