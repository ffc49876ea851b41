from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.cell import Cell
from harness.measure.memory import TooLarge
from tests.unit.records import JAX, TENSORFLOW, cell


@pytest.fixture
def too_large() -> TooLarge:
    known = TooLarge()
    for size in (64, 32, 128):
        known.remember(cell(size))
    return known


@pytest.mark.parametrize("size", [32, 64, 1024])
def test_what_is_as_large_as_the_smallest_that_failed_is_not_tried(too_large: TooLarge, size: int) -> None:
    assert too_large.reason(cell(size)) == "batch size 32 of this target already ran out of memory"


@pytest.mark.parametrize(
    "other",
    [
        cell(16),
        cell(64, TENSORFLOW),
        cell(64, replace(JAX, device=1)),
        cell(64, precision="mixed_bfloat16"),
        cell(64, model=replace(cell().model, name="another")),
    ],
    ids=["smaller", "another target", "another device", "another precision", "another model"],
)
def test_nothing_else_is_barred(too_large: TooLarge, other: Cell) -> None:
    assert too_large.reason(other) == ""


@pytest.mark.parametrize("same", [cell(64, epochs=9), cell(64, examples=64), cell(64, repeat=3)])
def test_neither_epochs_nor_data_nor_the_repeat_change_what_memory_holds(too_large: TooLarge, same: Cell) -> None:
    assert too_large.reason(same)
