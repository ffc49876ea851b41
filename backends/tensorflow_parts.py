"""The parts of a TensorFlow training step, each a ``tf.function`` of its own: see ``backends.protocol.StepPart``.

A layer is the cell's own Keras layer. Only while its values are asked for do its variables hold the parameters that the
part was given; what is timed has those of the cell. Where calls could be put into a queue they follow each other in it,
and the last is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from backends.tensorflow_layers import KERAS_NAMES, tf_variable
from backends.tensorflow_model import Network
from harness.core import parts
from harness.core.cell import Cell
from harness.core.model import LayerTrace

if TYPE_CHECKING:
    from backends.protocol import Floats

Call = Callable[[], Any]
Named = Callable[[Any], Mapping[str, Any]]


class Trainer(Protocol):
    """What the trainer of each mode lends its parts to be run alone."""

    def picking(self) -> Any:
        """A function that gives the next step's images and labels."""

    def updating(self, initial: list[Any], gradients: list[Any]) -> tuple[Any, list[Any]]:
        """A function that updates copies of parameters, and the copies."""


class TensorFlowPart:
    """``start`` gives what is called again and again, and what makes arrays by name of that which a call gives.

    ``lent``: variables, and the values that they have while the part's own values are asked for.
    """

    def __init__(self, start: Callable[[], tuple[Call, Named]], lent: Sequence[tuple[Any, Any]] = ()) -> None:
        self._start = start
        self._lent = lent
        self._call: Call | None = None

    def run(self, times: int) -> None:
        """Read one number of the last result back: the only thing that waits on every device TensorFlow knows."""
        import tensorflow as tf

        if self._call is None:
            self._call, _ = self._start()
        call, gave = self._call, None
        for _ in range(times):
            gave = call()
        last = tf.nest.flatten(gave)[-1]
        if last.shape.rank:
            last = tf.reshape(last, [-1])[0]
        last.numpy()

    def values(self) -> dict[str, Floats]:
        """Of a first call."""
        import tensorflow as tf

        before = [variable.numpy() for variable, _ in self._lent]
        for variable, value in self._lent:
            variable.assign(value)
        try:
            call, named = self._start()
            found = dict(named(call()))
        finally:
            for (variable, _), kept in zip(self._lent, before, strict=True):
                variable.assign(kept)
        return {
            name: (tf.cast(value, tf.float32) if value.dtype.is_floating else tf.convert_to_tensor(value)).numpy()
            for name, value in found.items()
        }


def part(
    cell: Cell, network: Network, trainer: Trainer, name: str, direction: str, given: Mapping[str, Any]
) -> TensorFlowPart:
    """The part of that name; it is traced and compiled at its first call."""
    if name == parts.DISPATCH:
        return _dispatch(network)
    if name == parts.INPUT:
        return TensorFlowPart(lambda: (trainer.picking(), lambda gave: {"images": gave[0], "labels": gave[1]}))
    if name == parts.OPTIMIZER:
        return _optimizer(cell, trainer, given)
    if name == parts.LOSS:
        return _loss(network, direction, given)
    trace = next(trace for trace in cell.model.traced if trace.name == name)
    return _layer(cell, network, trace, direction, given)


def _dispatch(network: Network) -> TensorFlowPart:
    import tensorflow as tf

    @tf.function(jit_compile=network.compiled, autograph=False)
    def add(value: Any) -> Any:
        return value + 1.0

    one = tf.constant(1.0)
    call = add.get_concrete_function(one)
    return TensorFlowPart(lambda: (lambda: call(one), lambda gave: {}))


def _optimizer(cell: Cell, trainer: Trainer, given: Mapping[str, Any]) -> TensorFlowPart:
    import tensorflow as tf

    names = list(cell.model.parameter_shapes)
    gradients = [tf.constant(given[f"gradient/{name}"]) for name in names]

    def start() -> tuple[Call, Named]:
        call, variables = trainer.updating([given[f"parameter/{name}"] for name in names], gradients)

        def named(_: Any) -> Mapping[str, Any]:
            read = [tf.convert_to_tensor(variable) for variable in variables]
            return {f"parameter/{name}": value for name, value in zip(names, read, strict=True)}

        return call, named

    return TensorFlowPart(start)


def _loss(network: Network, direction: str, given: Mapping[str, Any]) -> TensorFlowPart:
    import tensorflow as tf

    logits, labels = tf.constant(given["input"], tf.float32), tf.constant(given["labels"], tf.int64)

    @tf.function(jit_compile=network.compiled, autograph=False)
    def call(logits: Any, labels: Any) -> Mapping[str, Any]:
        if direction == parts.FORWARD:
            return {"output": network.loss(labels, logits)}
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = network.loss(labels, logits)
        return {"output": loss, "gradient/input": tape.gradient(loss, logits)}

    traced = call.get_concrete_function(logits, labels)
    return TensorFlowPart(lambda: (lambda: traced(logits, labels), dict))


def _layer(cell: Cell, network: Network, trace: LayerTrace, direction: str, given: Mapping[str, Any]) -> TensorFlowPart:
    import tensorflow as tf

    dtype = cell.training.compute_dtype
    layer = network.model.get_layer(trace.name)
    variables = {key: tf_variable(getattr(layer, KERAS_NAMES[key])) for key in trace.parameters}
    values = tf.cast(tf.constant(given["input"], tf.float32), dtype)
    lent = [(variable, given[f"parameter/{key}"]) for key, variable in variables.items()]
    lent += [(tf_variable(getattr(layer, key)), None) for key in trace.statistics]
    lent = [(variable, variable.numpy() if value is None else value) for variable, value in lent]

    if direction == parts.FORWARD:

        @tf.function(jit_compile=network.compiled, autograph=False)
        def forward(values: Any) -> Mapping[str, Any]:
            return {"output": layer(values, training=True)}

        once = forward.get_concrete_function(values)
        return TensorFlowPart(lambda: (lambda: once(values), dict), lent)

    by_input = parts.trained_before(cell.model, trace.name)

    @tf.function(jit_compile=network.compiled, autograph=False)
    def both(values: Any, gradient: Any) -> Mapping[str, Any]:
        with tf.GradientTape() as tape:
            if by_input:
                tape.watch(values)
            output = layer(values, training=True)
        wanted = {f"gradient/{key}": variable for key, variable in variables.items()}
        if by_input:
            wanted["gradient/input"] = values
        found = tape.gradient(output, wanted, output_gradients=tf.cast(gradient, output.dtype))
        return {"output": output, **found}

    gradient = tf.cast(tf.constant(given["output_gradient"], tf.float32), dtype)
    traced = both.get_concrete_function(values, gradient)
    return TensorFlowPart(lambda: (lambda: traced(values, gradient), dict), lent)
