"""The reference with one planted fault each that a batch size which changes, or is accumulated, brings along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from backends.protocol import Arrays
from backends.reference import ReferenceBackend, ReferenceSession
from backends.rows import Rows
from harness.core.cell import Cell


class _Session(ReferenceSession):
    """Knows its cell; ``changed``: whether the batch of the next step is the first after a change."""

    def __init__(self, cell: Cell, arrays: Arrays) -> None:
        super().__init__(cell, arrays)
        self.cell = cell
        self.changes = {piece.first_step for piece in cell.pieces[1:]}

    @property
    def changed(self) -> bool:
        return self._next_step in self.changes


class _Faulty(ReferenceBackend):
    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        made: ReferenceSession = self.Session(cell, arrays)  # type: ignore[attr-defined]
        return made


class RateNotChanged(_Faulty):
    class Session(_Session):
        def _train_on(self, examples: Any, rate: float) -> None:
            super()._train_on(examples, rate * self.cell.training.batch_size / len(examples))


class RowLost(_Faulty):
    class Session(_Session):
        def _train_on(self, examples: Any, rate: float) -> None:
            super()._train_on(examples[1:] if self.changed else examples, rate)


class StepLost(_Faulty):
    class Session(_Session):
        def _train_on(self, examples: Any, rate: float) -> None:
            if self.changed:
                self._optimizer._steps += 1
                self._losses.append(2.0)
            else:
                super()._train_on(examples, rate)


class SumForMean(_Faulty):
    """Of batches larger than the first."""

    class Session(_Session):
        def _train_on(self, examples: Any, rate: float) -> None:
            super()._train_on(examples, rate * len(examples) / self.cell.training.batch_size)


class MomentumReset(_Faulty):
    class Session(_Session):
        def _train_on(self, examples: Any, rate: float) -> None:
            if self.changed:
                state = {name: np.zeros_like(array) for name, array in self._optimizer.state().items()}
                self._optimizer.restore(state, self._optimizer.steps)
            super()._train_on(examples, rate)


class PreparationTrains(_Faulty):
    class Session(_Session):
        def prepare(self, batch_size: int) -> None:
            losses = self.losses()
            self._train_on(self._rows.of_size[batch_size][0], 0.01)
            self._optimizer._steps -= 1
            self._losses = losses


class RowsShifted(_Faulty):
    """Each step of a later size trains the rows of the one before it."""

    class Session(_Session):
        def __init__(self, cell: Cell, arrays: Arrays) -> None:
            super().__init__(cell, arrays)
            rows = Rows(arrays)
            for size, order in rows.of_size.items():
                if size != cell.training.batch_size:
                    rows.of_size[size] = np.roll(order, 1, axis=0)
            self._rows = rows


class MicrobatchesSummed(_Faulty):
    """Each counts whole: the sum of their means, where the mean of the batch belongs."""

    class Session(_Session):
        def _accumulated(self, images: Any, labels: Any) -> Any:
            found, moments = super()._accumulated(images, labels)
            count = len(self.cell.target.parts(len(labels)))
            return replace(found, gradients={name: count * value for name, value in found.gradients.items()}), moments
