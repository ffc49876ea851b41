"""The reference with one planted fault each that shows only in training at its real size, or some way into it.

The device's own count of steps goes on whatever the fault: what is not trained is claimed to be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends import reference_layers as layers
from backends.protocol import Arrays
from backends.reference import ReferenceBackend, ReferenceSession
from backends.reference_optimizers import Optimizer
from harness.core.cell import Cell

LATE = 100
"""Beyond every step of a proof, within a cell."""


class _Session(ReferenceSession):
    """Knows its cell. Faults change ``update``, what a step does to the parameters, or what it trains on."""

    def __init__(self, cell: Cell, arrays: Arrays) -> None:
        super().__init__(cell, arrays)
        self.cell = cell
        right = self._optimizer
        session = self

        class Faulty(Optimizer):
            def update(self, parameters: Any, gradients: Any, rate: float) -> None:
                if session.trains(session._next_step):
                    super().update(parameters, session.changed(gradients), session.rate(rate))
                else:
                    self._steps += 1

        self._optimizer = Faulty(cell.training.optimizer, self._parameters)
        assert right.steps == self._optimizer.steps

    def trains(self, step: int) -> bool:
        return True

    def changed(self, gradients: Any) -> Any:
        return gradients

    def rate(self, rate: float) -> float:
        return rate

    def rows(self, examples: Any) -> Any:
        return examples

    def _train_on(self, examples: Any, rate: float) -> None:
        super()._train_on(self.rows(examples), rate)


class _Faulty(ReferenceBackend):
    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        made: ReferenceSession = self.Session(cell, arrays)  # type: ignore[attr-defined]
        return made


class EarlyStepNotTrained(_Faulty):
    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step != 1


class LateStepNotTrained(_Faulty):
    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step != self.cell.total_steps - 3


class NowAndThenNotTrained(_Faulty):
    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step % 5 != 4


class LastBlockNotTrained(_Faulty):
    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step != self.cell.total_steps - 1


class BatchTakenTwice(_Faulty):
    class Session(_Session):
        def rows(self, examples: Any) -> Any:
            return self._arrays.order.reshape(-1, len(examples))[self._next_step - (self._next_step == 5)]


class RowLeftOut(_Faulty):
    """The last image of each batch counts for nothing."""

    class Session(_Session):
        def rows(self, examples: Any) -> Any:
            return examples[:-1]


class RowRepeated(_Faulty):
    """The first image stands for the last one too."""

    class Session(_Session):
        def rows(self, examples: Any) -> Any:
            return np.append(examples[:-1], examples[0])


class WrongFrom512(_Faulty):
    """A thousandth of one parameter's gradient is lost, from some batch size on."""

    class Session(_Session):
        def changed(self, gradients: Any) -> Any:
            if self.cell.training.batch_size < 512:
                return gradients
            name = next(iter(gradients))
            return {**gradients, name: gradients[name] * 0.999}


class LateDropMissed(_Faulty):
    class Session(_Session):
        def rate(self, rate: float) -> float:
            return self._rates[0][1]


class HalfPrecisionInALayer(ReferenceBackend):
    """The results of dense layers rounded to float16."""

    def load(self) -> None:
        right = layers.dense

        def dense(values: Any, kernel: Any, bias: Any) -> Any:
            output, pullback = right(values, kernel, bias)
            return output.astype(np.float16).astype(np.float64), pullback

        layers.dense = dense


class EvaluatesTrainingData(_Faulty):
    class Session(_Session):
        def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
            from dataclasses import replace

            right = self._arrays
            count = len(right.test_images)
            self._arrays = replace(
                right, test_images=right.train_images[:count], test_labels=right.train_labels[:count]
            )
            try:
                return super().evaluate(first_batch_only)
            finally:
                self._arrays = right


class FrozenAfterAnEpoch(_Faulty):
    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step < self.cell.steps_per_epoch


class LateForEver(_Faulty):
    """Nothing is trained from a step on that no proof comes to."""

    class Session(_Session):
        def trains(self, step: int) -> bool:
            return step < LATE


class CountsWhatItDidNotTrain(_Faulty):
    """Leaves steps out, and its own count with them."""

    class Session(_Session):
        def train(self, steps: int) -> None:
            super().train(steps)
            self._optimizer._steps -= 1


class OtherOrder(_Faulty):
    """Holds, and trains on, rows of its own."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        arrays.order[-1, -1, 0] = arrays.order[-1, -1, 1]
        return ReferenceSession(cell, arrays)
