"""The rows of example indices that each training step takes, where the batch size may change between epochs.

Goes in: one array of rows per piece of a plan of batch sizes, or the one order of a fixed size. Comes out: all rows of
a batch size together, so that there is one array, and one compiled program, for each size whatever the order of the
pieces; and which of them a run of steps takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.protocol import Arrays
from harness.core.errors import ContractError

if TYPE_CHECKING:
    from backends.protocol import Integers


@dataclass(frozen=True)
class Stretch:
    """Steps in a row of one batch size: rows ``first`` to ``end`` of that size, which are steps ``shift`` later."""

    batch_size: int
    first: int
    end: int
    shift: int


class Rows:
    """All steps of a cell, numbered from 0. ``of_size``: batch size -> int32 (steps of that size, batch size)."""

    def __init__(self, arrays: Arrays) -> None:
        pieces = arrays.pieces or (arrays.order.reshape(-1, arrays.order.shape[-1]),)
        self._stretches: list[Stretch] = []
        by_size: dict[int, list[Integers]] = {}
        step = 0
        for piece in pieces:
            size, steps = piece.shape[1], len(piece)
            held = sum(map(len, by_size.get(size, ())))
            self._stretches.append(Stretch(size, held, held + steps, step - held))
            by_size.setdefault(size, []).append(piece)
            step += steps
        self._steps = step
        self.of_size = {size: found[0] if len(found) == 1 else np.concatenate(found) for size, found in by_size.items()}

    def __len__(self) -> int:
        return self._steps

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes in the order of their first use."""
        return tuple(self.of_size)

    @property
    def several(self) -> bool:
        """Whether the batch size changes."""
        return len(self._stretches) > 1

    def stretches(self, first: int, steps: int) -> Iterator[Stretch]:
        """Steps ``first`` and following by batch size. Raises ContractError past the end of the order."""
        end = first + steps
        if end > self._steps:
            raise ContractError(
                f"asked for {steps} more steps after {first}, but the order of examples ends after {self._steps}"
            )
        for one in self._stretches:
            begin, over = max(first - one.shift, one.first), min(end - one.shift, one.end)
            if begin < over:
                yield Stretch(one.batch_size, begin, over, one.shift)

    def first_of(self, batch_size: int) -> Stretch:
        """The first steps of a batch size."""
        return next(one for one in self._stretches if one.batch_size == batch_size)

    def row(self, step: int) -> Integers:
        """The examples of one step, (batch size,)."""
        (one,) = self.stretches(step, 1)
        row: Integers = self.of_size[one.batch_size][one.first]
        return row

    def first(self, steps: int) -> list[Integers]:
        """The rows of the first steps, as many as there are."""
        return [self.row(step) for step in range(min(steps, self._steps))]

    def in_order(self, of_size: Mapping[int, Integers] | None = None) -> Integers:
        """All rows as they are trained: (steps, batch size), or one after the other where the batch size changes.

        ``of_size``: those that are held elsewhere, in place of its own.
        """
        rows = self.of_size if of_size is None else of_size
        held = [rows[one.batch_size][one.first : one.end] for one in self._stretches]
        return held[0] if len(held) == 1 else np.concatenate([rows.reshape(-1) for rows in held])
