"""Training as one ``tf.function`` step that a Python loop calls: modes ``graph`` and ``xla``.

With input ``resident`` the dataset, the order of examples and the step counter live on the device and a
step takes no argument; with ``host`` each batch is gathered by NumPy and handed over. Several steps per call are a loop
in a ``tf.function`` of their own, whose batches from the host are gathered all at once. The parameter update is one
TensorFlow operation per parameter, the canonical formula of ``harness.core.training``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.protocol import Arrays
from backends.rows import Rows, Stretch
from backends.tensorflow_model import Network, as_indices, per_step
from harness.core import knobs
from harness.core.cell import Cell
from harness.core.training import DECOUPLED, L2, OptimizerSpec

if TYPE_CHECKING:
    from backends.protocol import Floats


class StepTrainer:
    """Trains a ``Network`` step by step, or so many steps at once. The first calls of each trace and compile.

    ``forms``: the value of every knob.
    """

    def __init__(self, network: Network, cell: Cell, arrays: Arrays, device: str, forms: Mapping[str, str]) -> None:
        import tensorflow as tf

        self._network, self._cell = network, cell
        self._at_once = cell.target.steps_per_call
        self._rolled = forms[knobs.LOOP.name] == knobs.ROLLED
        self._compiled = cell.target.mode == "xla"
        self._resident = cell.target.input == "resident"
        self._rows = Rows(arrays)
        self._order = {size: as_indices(rows) for size, rows in self._rows.of_size.items()}
        self._done = self._shifted = 0
        self._losses: list[Any] = []
        self._last: Any = None
        self._step: dict[int, Any] = {}
        self._many: dict[int, Any] = {}
        self._sums: list[Any] = []
        self._images: Any
        self._labels: Any
        with tf.device(device):
            self._counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            self._shift = tf.Variable(0, dtype=tf.int64, trainable=False, name="shift") if self._rows.several else None
            self._update = _Update(cell, list(network.trained.values()), len(self._rows))
            if self._resident:
                self._hold(arrays)
            else:
                self._images, self._labels = arrays.train_images, arrays.train_labels.astype(np.int64)

    def _hold(self, arrays: Arrays) -> None:
        """Images, labels and order on the device."""
        import tensorflow as tf

        self._images = tf.constant(arrays.train_images, tf.float32)
        self._labels = tf.constant(arrays.train_labels, tf.int64)
        self._held = {size: tf.constant(order) for size, order in self._order.items()}

    def train(self, steps: int) -> None:
        """Enqueue ``steps`` steps: nothing in the loops but the call and keeping its loss."""
        for stretch in self._rows.stretches(self._done, steps):
            self._train(stretch)
        self._done += steps
        if self._losses:
            self._last = self._losses[-1]

    def _train(self, stretch: Stretch) -> None:
        size, first, end = stretch.batch_size, stretch.first, stretch.end
        calls, singly = divmod(end - first, self._at_once) if self._at_once > 1 else (0, end - first)
        many: Any = self._many_of(size) if calls else None
        step: Any = self._step_of(size) if singly else None
        keep = self._losses.append
        if self._resident:
            self._shift_to(stretch.shift)
            for _ in range(calls):
                keep(many())
            for _ in range(singly):
                keep(step())
        else:
            import tensorflow as tf

            images, labels, constant = self._images, self._labels, tf.constant
            order, between = self._order[size], first + calls * self._at_once
            for place in range(first, between, self._at_once):
                rows = order[place : place + self._at_once]
                keep(many(constant(images[rows]), constant(labels[rows])))
            for rows in order[between:end]:
                keep(step(constant(images[rows]), constant(labels[rows])))

    def _shift_to(self, shift: int) -> None:
        """Where the batch size changes: how many steps came before those of the rows that are picked from."""
        if self._shift is not None and shift != self._shifted:
            self._shift.assign(shift)
            self._shifted = shift

    def prepare(self, batch_size: int) -> None:
        """One step, after which every variable gets its value back."""
        import tensorflow as tf

        step, stretch = self._step_of(batch_size), self._rows.first_of(batch_size)
        variables = [*self._network.variables(), *self._update.variables(), self._counter]
        before = [tf.identity(variable) for variable in variables]
        if self._resident:
            self._shift_to(int(self._counter.numpy()) - stretch.first)
            self._wait(step())
        else:
            row = self._order[batch_size][stretch.first]
            self._wait(step(tf.constant(self._images[row]), tf.constant(self._labels[row])))
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)

    def synchronise(self) -> None:
        """Copy the last loss to the host: the only thing that waits on every device TensorFlow knows."""
        if self._last is not None:
            self._wait(self._last)

    def _wait(self, losses: Any) -> None:
        losses.numpy()

    def losses(self) -> list[float]:
        """Loss of each step since the last call."""
        values = [float(loss) for of_a_call in self._losses for loss in of_a_call.numpy().reshape(-1)]
        self._losses.clear()
        return values

    def optimizer_state(self) -> list[list[Floats]]:
        """Arrays of each slot, in the order of the parameters."""
        return self._update.slots()

    def steps_done(self) -> int:
        """The counter that the step itself raises."""
        return int(self._counter.numpy())

    def held(self) -> dict[str, Any]:
        """Copies of the resident data."""
        if not self._resident:
            return {}
        held = {size: order.numpy() for size, order in self._held.items()}
        return {"images": self._images.numpy(), "labels": self._labels.numpy(), "order": self._rows.in_order(held)}

    def picking(self) -> Any:
        """A function that gives the images and labels of the next step and nothing else, from the first step on.

        It begins anew after the last.
        """
        import tensorflow as tf

        order = self._order[self._cell.training.batch_size]
        if not self._resident:
            images, labels, constant = self._images, self._labels, tf.constant
            rows = itertools.cycle(order)

            def copied() -> tuple[Any, Any]:
                row = next(rows)
                return constant(images[row]), constant(labels[row])

            return copied
        counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="picked")

        @tf.function(jit_compile=self._compiled, autograph=False)
        def picked() -> tuple[Any, Any]:
            rows = tf.gather(self._held[order.shape[1]], counter)
            counter.assign((counter + 1) % len(order))
            return tf.gather(self._images, rows), tf.gather(self._labels, rows)

        return picked.get_concrete_function()

    def updating(self, initial: list[Any], gradients: list[Any]) -> tuple[Any, list[Any]]:
        """A function that updates copies of parameters by these gradients as step 0 does, and the copies."""
        import tensorflow as tf

        variables = [tf.Variable(array) for array in initial]
        update = _Update(self._cell, variables, len(self._rows))
        first = tf.Variable(0, dtype=tf.int64, trainable=False, name="first")

        @tf.function(jit_compile=self._compiled, autograph=False)
        def updated(*by_variable: Any) -> Any:
            update.apply(list(by_variable), first)
            return tf.reshape(variables[-1], [-1])[0]

        return partial(updated.get_concrete_function(*gradients), *gradients), variables

    def last_loss(self) -> Any:
        """The losses of the last call where they lie, or None before the first step."""
        return self._last

    def close(self) -> None:
        """Let go of the dataset and the compiled step."""
        self._images = self._labels = self._last = None
        self._step.clear()
        self._many.clear()
        self._losses.clear()

    def _step_of(self, batch_size: int) -> Any:
        """The function of one step, traced at its first use."""
        if batch_size not in self._step and len(self._cell.target.parts(batch_size)) > 1:
            self._step[batch_size] = self._accumulated_step(batch_size)
        if batch_size not in self._step:
            make = self._resident_step if self._resident else self._host_step
            self._step[batch_size] = make(batch_size)
        return self._step[batch_size]

    def _many_of(self, batch_size: int) -> Any:
        """The function of several steps, traced at its first use."""
        if batch_size not in self._many:
            make = self._resident_steps if self._resident else self._host_steps
            self._many[batch_size] = make(batch_size)
        return self._many[batch_size]

    def _accumulated_step(self, batch_size: int) -> Any:
        """A step in microbatches, and one update: a function for each size of them, and one that updates."""
        import tensorflow as tf

        sizes, variables = self._cell.target.parts(batch_size), list(self._network.trained.values())
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros_like(one), trainable=False) for one in (tf.constant(0.0), *variables)]
        sums, kept = self._sums, tf.Variable(0.0, trainable=False)

        def add(images: Any, labels: Any, share: float) -> Any:
            _, loss, gradients = self._network.differentiate(images, labels)
            for total, value in zip(sums, (loss, *gradients), strict=True):
                total.assign_add(value * share)

        def adding(size: int) -> Any:
            if self._resident:

                @tf.function(jit_compile=self._compiled, autograph=False)
                def picked(begin: Any) -> Any:
                    row = tf.slice(tf.gather(self._held[batch_size], self._row()), [begin], [size])
                    add(tf.gather(self._images, row), tf.gather(self._labels, row), size / batch_size)

                return picked.get_concrete_function(tf.TensorSpec((), tf.int32))

            @tf.function(jit_compile=self._compiled, autograph=False)
            def added(images: Any, labels: Any) -> Any:
                add(images, labels, size / batch_size)

            shape = (size, *self._images.shape[1:])
            return added.get_concrete_function(tf.TensorSpec(shape, tf.float32), tf.TensorSpec((size,), tf.int64))

        @tf.function(jit_compile=self._compiled, autograph=False)
        def update() -> Any:
            self._update.apply([total.read_value() for total in sums[1:]], self._counter)
            self._counter.assign_add(1)
            kept.assign(sums[0])
            for total in sums:
                total.assign(tf.zeros_like(total))
            return kept.read_value()

        functions = {size: adding(size) for size in dict.fromkeys(sizes)}
        updated, ends = update.get_concrete_function(), list(itertools.accumulate(sizes))
        begins = [tf.constant(end - size, tf.int32) for end, size in zip(ends, sizes, strict=True)]

        def step(*batch: Any) -> Any:
            for begin, end, size in zip(begins, ends, sizes, strict=True):
                if self._resident:
                    functions[size](begin)
                else:
                    functions[size](*(array[end - size : end] for array in batch))
            return updated()

        return step

    def _row(self) -> Any:
        """Which row of its size the next step takes."""
        return self._counter if self._shift is None else self._counter - self._shift

    def _resident_step(self, batch_size: int) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def step() -> Any:
            return self._train_on_next(batch_size)

        return step.get_concrete_function()

    def _resident_steps(self, batch_size: int) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def steps() -> Any:
            return self._repeated(lambda place: self._train_on_next(batch_size))

        return steps.get_concrete_function()

    def _host_step(self, batch_size: int) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def step(images: Any, labels: Any) -> Any:
            return self._train_on(images, labels)

        return step.get_concrete_function(
            tf.TensorSpec((batch_size, *self._images.shape[1:]), tf.float32), tf.TensorSpec((batch_size,), tf.int64)
        )

    def _host_steps(self, batch_size: int) -> Any:
        import tensorflow as tf

        @tf.function(jit_compile=self._compiled, autograph=False)
        def steps(images: Any, labels: Any) -> Any:
            return self._repeated(lambda place: self._train_on(images[place], labels[place]))

        batches = (self._at_once, batch_size)
        return steps.get_concrete_function(
            tf.TensorSpec((*batches, *self._images.shape[1:]), tf.float32), tf.TensorSpec(batches, tf.int64)
        )

    def _repeated(self, one: Callable[[Any], Any]) -> Any:
        """Losses (steps of a call,) of ``one`` for each place, one after the other, as graph operations."""
        import tensorflow as tf

        if not self._rolled:
            return tf.stack([one(place) for place in range(self._at_once)])
        kept = tf.TensorArray(tf.float32, size=self._at_once, element_shape=())
        _, kept = tf.while_loop(
            lambda place, _: place < self._at_once,
            lambda place, kept: (place + 1, kept.write(place, one(place))),
            (tf.constant(0), kept),
            parallel_iterations=1,
            maximum_iterations=self._at_once,
        )
        return kept.stack()

    def _train_on_next(self, batch_size: int) -> Any:
        import tensorflow as tf

        rows = tf.gather(self._held[batch_size], self._row())
        return self._train_on(tf.gather(self._images, rows), tf.gather(self._labels, rows))

    def _train_on(self, images: Any, labels: Any) -> Any:
        _, loss, gradients = self._network.differentiate(images, labels)
        self._update.apply(gradients, self._counter)
        self._counter.assign_add(1)
        return loss


class _Update:
    """The optimizer: its slots, and one fused operation per parameter."""

    def __init__(self, cell: Cell, variables: list[Any], steps: int) -> None:
        import tensorflow as tf

        self._spec = cell.training.optimizer
        self._variables = variables
        self._names = tuple(cell.model.parameter_shapes)
        slots = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2}[self._spec.name]
        self._slots = [[tf.Variable(tf.zeros_like(v), trainable=False) for v in variables] for _ in range(slots)]
        pieces = cell.training.learning_rates(cell.epoch_steps)
        self._rates = pieces[0][1] if len(pieces) == 1 else tf.constant(per_step(pieces, steps))
        if self._spec.name == "adam":
            self._powers = tf.constant(_beta_powers(self._spec, steps))

    def variables(self) -> list[Any]:
        """Every variable of every slot."""
        return [variable for slot in self._slots for variable in slot]

    def slots(self) -> list[list[Floats]]:
        """Arrays of each slot: canonical, as the operations fold the rate into the velocity."""
        return [[variable.numpy() for variable in slot] for slot in self._slots]

    def on(self, pick: Callable[[Any], Any]) -> _Update:
        """The same of other variables: those that ``pick`` gives for its own."""
        other = copy.copy(self)
        other._variables = [pick(variable) for variable in self._variables]
        other._slots = [[pick(variable) for variable in slot] for slot in self._slots]
        return other

    def apply(self, gradients: list[Any], step: Any) -> None:
        """Update every variable by the rate of ``step`` (counted from 0)."""
        import tensorflow as tf

        rate = self._rates if isinstance(self._rates, float) else tf.gather(self._rates, step)
        spec = self._spec
        if spec.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, spec.clip_norm)
        if spec.weight_decay:
            gradients = self._decayed(gradients, rate)
        powers = tf.unstack(tf.gather(self._powers, step)) if spec.name == "adam" else []
        for index, (variable, gradient) in enumerate(zip(self._variables, gradients, strict=True)):
            slots = [slot[index].handle for slot in self._slots]
            if spec.name == "sgd":
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            elif spec.name == "adam":
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle,
                    m=slots[0],
                    v=slots[1],
                    beta1_power=powers[0],
                    beta2_power=powers[1],
                    lr=rate,
                    beta1=spec.beta_1,
                    beta2=spec.beta_2,
                    epsilon=spec.epsilon,
                    grad=gradient,
                )
            else:
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=variable.handle,
                    accum=slots[0],
                    lr=rate,
                    grad=gradient,
                    momentum=spec.momentum,
                    use_nesterov=spec.name == "nesterov",
                )

    def _decayed(self, gradients: list[Any], rate: Any) -> list[Any]:
        """The gradients with what L2 adds; what is decoupled is taken off the variables at once."""
        spec, found = self._spec, []
        for name, variable, gradient in zip(self._names, self._variables, gradients, strict=True):
            if spec.decays(name, DECOUPLED):
                variable.assign_sub(rate * spec.weight_decay * variable)
            found.append(gradient + spec.weight_decay * variable if spec.decays(name, L2) else gradient)
        return found


def _beta_powers(spec: OptimizerSpec, steps: int) -> Floats:
    """beta_1^(t+1) and beta_2^(t+1), float32 (steps, 2).

    Powers of the float32 values that the operation multiplies by: rounding then cancels in the first steps.
    """
    betas = np.array([spec.beta_1, spec.beta_2], np.float32).astype(np.float64)
    powers: Floats = (betas ** np.arange(1, steps + 1)[:, None]).astype(np.float32)
    return powers
