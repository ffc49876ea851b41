"""Real backends with one planted fault each that shows only in training at its real size, or some way into it.

The fault is the name of the cell's target, so that one loaded framework serves all. A faulty session lies as well as it
can: its own count of steps goes on whatever it trains, and it shows the data and the order that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backends import jax_programs, tensorflow_model, tensorflow_steps
from backends.jax_flax import JaxBackend
from backends.protocol import Arrays
from backends.tensorflow_keras import TensorFlowBackend
from harness.core.cell import Cell
from harness.core.model import Dense
from harness.core.training import TrainingSpec

LATE = 100
"""Beyond every step of a proof, within a cell."""

NOT_TRAINED: dict[str, Callable[[Cell, int], bool]] = {
    "EarlyStepNotTrained": lambda cell, step: step == 1,
    "LateStepNotTrained": lambda cell, step: step == cell.total_steps - 3,
    "NowAndThenNotTrained": lambda cell, step: step % 5 == 4,
    "LastBlockNotTrained": lambda cell, step: step == cell.total_steps - 1,
    "FrozenAfterAnEpoch": lambda cell, step: step >= cell.steps_per_epoch,
    "LateForEver": lambda cell, step: step >= LATE,
}
"""Which steps leave everything as it was but the count."""


def _sixth_batch_twice(order: Any) -> None:
    steps = order.reshape(-1, order.shape[-1])
    steps[5] = steps[4]


def _last_row_is_first(order: Any) -> None:
    order[..., -1] = order[..., 0]


def _one_row_is_another(order: Any) -> None:
    order[-1, -1, 0] = order[-1, -1, 1]


OTHER_ORDER: dict[str, Callable[[Any], None]] = {
    "BatchTakenTwice": _sixth_batch_twice,
    "RowRepeated": _last_row_is_first,
    "OtherOrder": _one_row_is_another,
}
OTHERS = (
    "RowLeftOut",
    "WrongFrom512",
    "LateDropMissed",
    "HalfPrecisionInALayer",
    "EvaluatesTrainingData",
    "CountsWhatItDidNotTrain",
)
FAULTS = (*NOT_TRAINED, *OTHER_ORDER, *OTHERS)


class FaultySession:
    """A real session, and what its fault makes of it."""

    def __init__(self, session: Any, fault: str, cell: Cell, arrays: Arrays, unchanged: Callable[..., None]) -> None:
        self._session, self._fault, self._cell, self._arrays = session, fault, cell, arrays
        self._unchanged = unchanged
        self._done = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def train(self, steps: int) -> None:
        is_left_out = NOT_TRAINED.get(self._fault)
        if is_left_out is None:
            self._session.train(steps)
        else:
            for step in range(self._done, self._done + steps):
                if is_left_out(self._cell, step):
                    self._unchanged(self._session)
                else:
                    self._session.train(1)
        self._done += steps

    def steps_done(self) -> int:
        counted: int = self._session.steps_done()
        return counted - (self._fault == "CountsWhatItDidNotTrain")

    def held(self) -> dict[str, Any]:
        held: dict[str, Any] = self._session.held()
        if self._fault != "OtherOrder":
            held["order"] = self._arrays.order.reshape(-1, self._arrays.order.shape[-1])
        return held


def _arrays(fault: str, arrays: Arrays) -> Arrays:
    """What the real session is given instead."""
    order = arrays.order.copy()
    if fault in OTHER_ORDER:
        OTHER_ORDER[fault](order)
    if fault == "RowLeftOut":
        order = order[..., :-1]
    if fault == "EvaluatesTrainingData":
        count = len(arrays.test_images)
        return replace(arrays, test_images=arrays.train_images[:count], test_labels=arrays.train_labels[:count])
    return replace(arrays, order=order)


def _miss_the_drop() -> None:
    right = TrainingSpec.learning_rates

    def first_only(*given: Any) -> Any:
        return right(*given)[:1]

    TrainingSpec.learning_rates = first_only  # type: ignore[method-assign]


class OnJax(JaxBackend):
    def session(self, cell: Cell, arrays: Arrays) -> Any:
        fault = cell.target.name
        if fault == "LateDropMissed":
            _miss_the_drop()
        elif fault == "HalfPrecisionInALayer":
            right_layer = jax_programs._layer

            def rounded(trace: Any, *given: Any) -> Any:
                values = right_layer(trace, *given)
                return values.astype("float16").astype("float32") if isinstance(trace.layer, Dense) else values

            jax_programs._layer = rounded
        elif fault == "WrongFrom512" and cell.training.batch_size >= 512:
            right_rule = jax_programs.optimizer_rule

            def lossy(*given: Any) -> Any:
                import jax
                import optax

                rule = right_rule(*given)

                def update(gradients: Any, *others: Any) -> Any:
                    leaves, tree = jax.tree.flatten(gradients)
                    return rule.update(jax.tree.unflatten(tree, [leaves[0] * 0.999, *leaves[1:]]), *others)

                return optax.GradientTransformation(rule.init, update)

            jax_programs.optimizer_rule = lossy
        return FaultySession(super().session(cell, _arrays(fault, arrays)), fault, cell, arrays, self._unchanged)

    @staticmethod
    def _unchanged(session: Any) -> None:
        import jax
        import jax.numpy as jnp

        before = jax.tree.map(jnp.copy, session._state)  # the step takes the state's own memory
        session.train(1)
        session._state = before._replace(step=session._state.step)


class OnTensorFlow(TensorFlowBackend):
    def session(self, cell: Cell, arrays: Arrays) -> Any:
        import tensorflow as tf

        fault = cell.target.name
        if fault == "LateDropMissed":
            _miss_the_drop()
        elif fault == "HalfPrecisionInALayer":
            right_layer = tensorflow_model.keras_layer

            def rounded(layer: Any, *given: Any) -> Any:
                made = right_layer(layer, *given)
                if isinstance(layer, Dense):
                    right_call = made.call
                    made.call = lambda values, **_: tf.cast(tf.cast(right_call(values), tf.float16), tf.float32)
                return made

            tensorflow_model.keras_layer = rounded
        elif fault == "WrongFrom512" and cell.training.batch_size >= 512:
            right_apply = tensorflow_steps._Update.apply

            def lossy(update: Any, gradients: list[Any], *others: Any) -> None:
                right_apply(update, [gradients[0] * 0.999, *gradients[1:]], *others)

            tensorflow_steps._Update.apply = lossy  # type: ignore[method-assign]
        return FaultySession(super().session(cell, _arrays(fault, arrays)), fault, cell, arrays, self._unchanged)

    @staticmethod
    def _unchanged(session: Any) -> None:
        network, slots = session._network, session._trainer._update._slots
        variables = [*network.trained.values(), *network.moving.values(), *(one for slot in slots for one in slot)]
        before = [variable.numpy() for variable in variables]
        session.train(1)
        session.synchronise()
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
