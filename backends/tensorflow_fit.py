"""Training as most of Keras's users write it: ``Model.compile`` and one ``Model.fit`` over all epochs.

``fit`` runs on a thread of its own. A callback parks it before a batch that was not asked for yet, so
``train(n)`` and ``synchronise`` see blocks of steps while Keras sees one ordinary call. Exactly one of the
two threads runs at a time once ``synchronise`` has returned.

Keras reports running means of the loss. The loss of each step is kept by overriding
``Model.compute_loss``, the documented place, to write it to a variable, which the callback reads without waiting.

Several steps per call are Keras's ``steps_per_execution``: a loop in the graph, around which callbacks run once. Keras
hands out the last step's loss only; the variable holds those of all steps of a call.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.protocol import Arrays
from backends.rows import Rows
from backends.tensorflow_layers import KERAS_NAMES, is_keras_2, tf_variable
from backends.tensorflow_model import Network, as_indices, per_step
from harness.core.cell import Cell
from harness.core.errors import ContractError, WorkerCrashed

if TYPE_CHECKING:
    from backends.protocol import Floats

PREFETCHED_BATCHES = 2
"""A constant rather than AUTOTUNE: a parked fit then does no more than fill these."""
STOP_SECONDS = 10.0
MOST_PIECES = 8
"""Of a schedule, as Keras's own looks at each in every step; more are a table by step."""
NOT_DECAYED = ("bias", "scale", "offset")


class FitTrainer:
    """Trains a compiled Keras model. ``recorded`` is the variable that its ``compute_loss`` writes."""

    def __init__(self, network: Network, cell: Cell, arrays: Arrays, recorded: Any) -> None:
        at_once = cell.target.steps_per_call
        network.model.compile(
            optimizer=_optimizer(cell),
            loss=_loss(network, cell),
            jit_compile=False,
            **({} if at_once == 1 else {"steps_per_execution": at_once}),
        )
        self._recorded = recorded
        self._turns = _Turns(self._reader(recorded), at_once)
        self._source = _source(arrays)
        self._trained = list(network.trained.values())
        self._arguments = {
            "x": _batches(*self._source),
            "epochs": cell.training.epochs,
            "steps_per_epoch": cell.steps_per_epoch,
            "callbacks": [_parking_callback(self._turns)],
            "verbose": 0,
            "shuffle": False,
        }
        self._model, self._cell = network.model, cell
        self._thread: threading.Thread | None = None
        self._stop: Any = None

    def train(self, steps: int) -> None:
        """Let ``fit`` run ``steps`` steps further; return at once. Raises ContractError for parts of a call."""
        at_once = self._turns.at_once
        if steps % at_once:
            raise ContractError(f"asked for {steps} steps, but Model.fit trains {at_once} in each call")
        if self._thread is None:
            self._thread = threading.Thread(
                target=_fit, args=(self._model, self._arguments, self._turns), name="keras-fit", daemon=True
            )
            self._stop = weakref.finalize(self, _end, self._turns, self._thread)
            self._turns.allow(steps)
            self._thread.start()
        else:
            self._turns.allow(steps)

    def synchronise(self) -> None:
        """Wait until ``fit`` is parked or over, and for the device. Raises what ``fit`` raised."""
        self._turns.wait()
        if self._turns.losses:
            self._wait(self._turns.losses[-1])

    def losses(self) -> list[float]:
        """Loss of each step since the last call."""
        values = [float(loss) for of_a_call in self._turns.losses for loss in of_a_call.numpy().reshape(-1)]
        self._turns.losses.clear()
        return values

    def optimizer_state(self) -> list[list[Floats]]:
        """Arrays of each slot, in the order of the parameters; none before the first step."""
        optimizer = self._model.optimizer
        if is_keras_2():
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            names = [name for name in ("momentum", "m", "v") if name in optimizer.get_slot_names()]
            return [[optimizer.get_slot(variable, name).numpy() for variable in self._trained] for name in names]
        slots = [getattr(optimizer, name, []) for name in ("momentums", "_momentums", "_velocities")]
        variables = self._model.trainable_variables
        by_variable = [
            {id(tf_variable(of)): tf_variable(kept) for of, kept in zip(variables, slot, strict=True)}
            for slot in slots
            if slot
        ]
        return [[slot[id(variable)].numpy() for variable in self._trained] for slot in by_variable]

    def steps_done(self) -> int:
        """The optimizer's own count."""
        return int(self._model.optimizer.iterations.numpy())

    def held(self) -> dict[str, Any]:
        """Copies of what the pipeline gathers from, in host memory."""
        return dict(zip(("images", "labels", "order"), (tensor.numpy() for tensor in self._source), strict=True))

    def picking(self) -> Any:
        """A function that gives the images and labels of the next step, from the first step on, through a pipeline.

        It begins anew after the last. In training the pipeline works beside the step before.
        """
        return iter(self._arguments["x"].repeat()).get_next

    def updating(self, initial: list[Any], gradients: list[Any]) -> tuple[Any, list[Any]]:
        """A function that updates copies of parameters once by these gradients, and the copies.

        By an optimizer of its own. Keras 3 divides by the loss scale in there, Keras 2 before.
        """
        import tensorflow as tf

        optimizer, scale = _optimizer(self._cell), self._cell.training.loss_scale
        if is_keras_2():
            own = values = [tf.Variable(array) for array in initial]
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        else:
            names = [KERAS_NAMES[name.rpartition("/")[2]] for name in self._cell.model.parameter_shapes]
            own = [_keras().Variable(array, name=name) for array, name in zip(initial, names, strict=True)]
            values = [variable.value for variable in own]
            optimizer.build(own)
            gradients = [gradient * scale for gradient in gradients]

        @tf.function(jit_compile=False, autograph=False)
        def updated(*by_variable: Any) -> Any:
            optimizer.apply_gradients(list(zip(by_variable, own, strict=True)))
            return tf.reshape(values[-1], [-1])[0]

        return partial(updated.get_concrete_function(*gradients), *gradients), values

    def last_loss(self) -> Any:
        """The losses of the last call where they lie."""
        return self._recorded

    def _wait(self, losses: Any) -> None:
        losses.numpy()

    @staticmethod
    def _reader(recorded: Any) -> Callable[[], Any]:
        """Gives the losses of the last call, without waiting for them; holds no trainer, which may be let go of."""
        read: Callable[[], Any] = recorded.read_value
        return read

    def close(self) -> None:
        """End ``fit`` where it is parked."""
        if self._stop is not None:
            self._stop()


def new_recording(at_once: int) -> Any:
    """The variable that ``recording_model_class`` writes to: a loss, or with several steps per call the last ones."""
    import tensorflow as tf

    return tf.Variable(0.0 if at_once == 1 else tf.zeros(at_once), trainable=False, name="last_loss")


def recording_model_class(recorded: Any, pick: Callable[[Any], Any] = lambda variable: variable) -> Any:
    """``keras.Sequential`` that writes each training step's loss to the variable ``recorded``.

    ``pick``: in a step on several devices which of its copies.
    """
    import tensorflow as tf

    class Recording(tf.keras.Sequential):  # type: ignore[misc]
        @tf.autograph.experimental.do_not_convert
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            # The oldest makes room: after a whole call the losses of its steps are there, in order.
            kept = pick(recorded)
            kept.assign(tf.concat([kept[1:], [loss]], 0) if kept.shape.rank else loss)
            return loss

    return Recording


class _Stopped(Exception):
    """Ends ``fit`` from inside its callback, at once; ``stop_training`` would train one more batch."""


class _Turns:
    """Whose turn it is. ``allowed`` steps may begin, ``begun`` have; losses are complete while parked.

    ``at_once``: the steps of a call, between which Keras asks nobody.
    """

    def __init__(self, read: Callable[[], Any], at_once: int) -> None:
        self._read = read
        self.at_once = at_once
        self.losses: list[Any] = []
        self.allowed = 0
        self.begun = 0
        self.error: BaseException | None = None
        self._resting = False
        self._over = False
        self._changed = threading.Condition()

    def allow(self, steps: int) -> None:
        with self._changed:
            self.allowed += steps
            self._changed.notify_all()

    def wait(self) -> None:
        """Until every allowed step is done. Raises the error that ended ``fit``, or WorkerCrashed if it ended early."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._over or (self._resting and self.begun >= self.allowed) or not self.allowed
            )
            if self.error is not None:
                raise self.error
            if self.begun < self.allowed:
                raise WorkerCrashed(f"Model.fit ended after {self.begun} of {self.allowed} steps")

    def stop(self) -> None:
        with self._changed:
            self.allowed = -1
            self._changed.notify_all()

    def keep_loss(self) -> None:
        """Keep the loss of the step that has just been enqueued, or those of the call."""
        if self.begun:
            self.losses.append(self._read())

    def park(self) -> None:
        """Rest until a step is allowed. Raises _Stopped."""
        with self._changed:
            self._resting = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.allowed < 0 or self.begun < self.allowed)
            self._resting = False
        if self.allowed < 0:
            raise _Stopped

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self.error = error
            self._over = True
            self._changed.notify_all()


def _fit(model: Any, arguments: dict[str, Any], turns: _Turns) -> None:
    """The thread: the one call of ``fit``."""
    try:
        model.fit(**arguments)
        turns.keep_loss()
    except _Stopped:
        turns.end(None)
    except BaseException as error:
        turns.end(error)
    else:
        turns.end(None)


def _end(turns: _Turns, thread: threading.Thread) -> None:
    turns.stop()
    thread.join(STOP_SECONDS)


def _parking_callback(turns: _Turns) -> Any:
    class Parking(_keras().callbacks.Callback):  # type: ignore[misc]
        # Keras 2 copies the logs to the host after each batch for callbacks that do not say this.
        _supports_tf_logs = True

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            turns.keep_loss()
            if turns.begun >= turns.allowed:
                turns.park()
            turns.begun += turns.at_once

    return Parking()


def _source(arrays: Arrays) -> tuple[Any, Any, Any]:
    """Images, labels and the rows of each step, in host memory."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        images, labels = tf.constant(arrays.train_images, tf.float32), tf.constant(arrays.train_labels, tf.int64)
        return images, labels, tf.constant(as_indices(Rows(arrays).in_order()))


def _batches(images: Any, labels: Any, order: Any) -> Any:
    """Batches (images, labels) in the order of the cell, over all epochs, gathered from host memory."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        rows = tf.data.Dataset.from_tensor_slices(order)
        batches = rows.map(
            tf.autograph.experimental.do_not_convert(lambda row: (tf.gather(images, row), tf.gather(labels, row)))
        )
        return batches.prefetch(PREFETCHED_BATCHES)


def _loss(network: Network, cell: Cell) -> Any:
    """Keras's own loss; it has none that smooths labels which are whole numbers."""
    if cell.training.label_smoothing:
        return network.losses
    return _keras().losses.SparseCategoricalCrossentropy(from_logits=True)


def _by_step(rates: Floats) -> Any:
    """A schedule of Keras's with a rate for each step, float32 (steps,)."""
    import tensorflow as tf

    table = tf.constant(rates)

    class ByStep(_keras().optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            return tf.gather(table, tf.minimum(tf.cast(step, tf.int64), len(rates) - 1))

    return ByStep()


def _optimizer(cell: Cell) -> Any:
    """Keras's own optimizer and schedule: its formulas are the canonical ones.

    Keras 2 has two families of them; the newer one turns XLA on by itself. A loss scale is Keras 2's wrapper or
    Keras 3's argument; Keras wraps an optimizer by itself only where the whole model has the policy mixed_float16.
    """
    optimizers = _keras().optimizers
    pieces = cell.training.learning_rates(cell.epoch_steps)
    rate: Any = pieces[0][1]
    if len(pieces) > MOST_PIECES:
        rate = _by_step(per_step(pieces, cell.total_steps))
    elif len(pieces) > 1:
        # Keras holds a value up to and including its boundary.
        boundaries = [first - 1 for first, _ in pieces[1:]]
        rate = optimizers.schedules.PiecewiseConstantDecay(boundaries, [value for _, value in pieces])
    spec, scale = cell.training.optimizer, cell.training.loss_scale
    further: dict[str, Any] = {"global_clipnorm": spec.clip_norm} if spec.clip_norm else {}
    if spec.weight_decay:
        further["weight_decay"] = spec.weight_decay
    if is_keras_2():
        optimizers = optimizers.legacy
    elif scale != 1.0:
        further["loss_scale_factor"] = scale
    if spec.name == "adam":
        found = optimizers.Adam(rate, beta_1=spec.beta_1, beta_2=spec.beta_2, epsilon=spec.epsilon, **further)
    else:
        momentum = 0.0 if spec.name == "sgd" else spec.momentum
        found = optimizers.SGD(rate, momentum=momentum, nesterov=spec.name == "nesterov", **further)
    if spec.weight_decay:
        found.exclude_from_weight_decay(var_names=[KERAS_NAMES[key] for key in NOT_DECAYED])
    if scale != 1.0 and is_keras_2():
        return _keras().mixed_precision.LossScaleOptimizer(found, dynamic=False, initial_scale=scale)
    return found


def _keras() -> Any:
    import tensorflow as tf

    return tf.keras
