"""The parts of a JAX training step, each jitted on its own: see ``backends.protocol.StepPart``.

Calls are chained by a counter that each takes and gives: without it, calls that do not depend on each other could run
beside each other. The counter is also what dropout's key is made of, as the number of the step is in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backends import jax_programs
from harness.core import parts
from harness.core.cell import Cell
from harness.core.model import LayerTrace

if TYPE_CHECKING:
    from backends.protocol import Floats

Places = Mapping[str, tuple[str, str, str]]
"""Canonical full name -> Flax's collection, module and leaf."""


class BatchSource(NamedTuple):
    """Images, labels and rows of the order: on the device, or in host memory."""

    data: Any
    is_resident: bool


class JaxPart:
    """``call``: what is carried from call to call -> the next of it, and what the call gave.

    ``carried``: what the first call takes, and ``named``: the arrays under canonical names.
    """

    def __init__(
        self,
        call: Callable[[Any], tuple[Any, Any]],
        start: Callable[[], Any],
        named: Callable[[Any], Mapping[str, Any]] = dict,
    ) -> None:
        self._call = call
        self._start = start
        self._named = named
        self._carried: Any = None

    def run(self, times: int) -> None:
        """Wait for every array of the last call, and what it carries depends on all before."""
        import jax

        carried = self._start() if self._carried is None else self._carried
        call, given = self._call, None
        for _ in range(times):
            carried, given = call(carried)
        self._carried = carried
        jax.block_until_ready((carried, given))

    def values(self) -> dict[str, Floats]:
        """Of a call from the start."""
        import jax
        import numpy as np

        carried, given = self._call(self._start())
        named = jax.device_get(self._named(carried if given is None else given))
        return {
            name: np.asarray(value, None if np.issubdtype(value.dtype, np.integer) else np.float32)
            for name, value in named.items()
        }


def part(
    cell: Cell,
    forms: Mapping[str, str],
    places: Places,
    source: BatchSource,
    name: str,
    direction: str,
    given: Mapping[str, Any],
) -> JaxPart:
    """The part of that name; it is traced and compiled at its first call. ``forms``: the value of every knob."""
    if name == parts.DISPATCH:
        return _dispatch()
    if name == parts.INPUT:
        return _input(source)
    if name == parts.LOSS:
        return _loss(cell, direction, given)
    if name == parts.OPTIMIZER:
        return _optimizer(cell, places, given)
    trace = next(trace for trace in cell.model.traced if trace.name == name)
    return _layer(cell, trace, forms, places, direction, given)


def _counter() -> Any:
    import jax.numpy as jnp

    return jnp.zeros((), jnp.int32)


def _dispatch() -> JaxPart:
    import jax

    advance = jax.jit(lambda counter: counter + 1)
    return JaxPart(lambda counter: (advance(counter), {}), _counter)


def _input(source: BatchSource) -> JaxPart:
    import jax

    (images, labels, rows) = source.data

    if source.is_resident:

        @jax.jit
        def pick(counter: Any, images: Any, labels: Any, rows: Any) -> tuple[Any, Any]:
            row = rows[counter]
            return (counter + 1) % len(rows), {"images": images[row], "labels": labels[row]}

        return JaxPart(lambda counter: pick(counter, images, labels, rows), _counter)

    def copy(number: int) -> tuple[int, Any]:
        row = rows[number]
        picked, truth = jax.device_put((images[row], labels[row]))
        return (number + 1) % len(rows), {"images": picked, "labels": truth}

    return JaxPart(copy, lambda: 0)


def _loss(cell: Cell, direction: str, given: Mapping[str, Any]) -> JaxPart:
    import jax

    logits, labels = jax.device_put((given["input"], given["labels"]))

    def loss_of(logits: Any, labels: Any) -> Any:
        return jax_programs.mean_loss(cell.training, logits, labels)

    @jax.jit
    def call(counter: Any, logits: Any, labels: Any) -> tuple[Any, Any]:
        if direction == parts.FORWARD:
            return counter + 1, {"output": loss_of(logits, labels)}
        loss, gradient = jax.value_and_grad(loss_of)(logits, labels)
        return counter + 1, {"output": loss, "gradient/input": gradient}

    return JaxPart(lambda counter: call(counter, logits, labels), _counter)


def _optimizer(cell: Cell, places: Places, given: Mapping[str, Any]) -> JaxPart:
    """What is carried are parameters and state, whose memory is donated as in a step."""
    import jax
    import jax.numpy as jnp
    import optax

    rule = jax_programs.optimizer_rule(cell.training, cell.epoch_steps)
    gradients = jax.device_put(_tree(places, given, "gradient/"))

    def update(carried: Any, gradients: Any) -> Any:
        parameters, state = carried
        updates, state = rule.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    step = jax.jit(update, donate_argnums=0)

    def start() -> Any:
        parameters = jax.tree.map(lambda array: jnp.array(array, copy=True), _tree(places, given, "parameter/"))
        return parameters, rule.init(parameters)

    def named(carried: Any) -> dict[str, Any]:
        parameters = carried[0]
        return {
            f"parameter/{name}": parameters[module][leaf]
            for name, (collection, module, leaf) in places.items()
            if collection == "params"
        }

    return JaxPart(lambda carried: (step(carried, gradients), None), start, named)


def _layer(
    cell: Cell,
    trace: LayerTrace,
    forms: Mapping[str, str],
    places: Places,
    direction: str,
    given: Mapping[str, Any],
) -> JaxPart:
    import jax
    import jax.numpy as jnp

    dtype = cell.training.compute_dtype
    module = jax_programs.layer_alone(trace, dtype, forms)
    key = jax.random.key(cell.training.seed)
    own = {short: places[f"{trace.name}/{short}"] for short in (*trace.parameters, *trace.statistics)}
    parameters = {own[short][2]: jnp.asarray(given[f"parameter/{short}"]) for short in trace.parameters}
    statistics = {
        own[short][2]: jnp.full(trace.statistics[short], 1.0 if own[short][2] == "var" else 0.0)
        for short in trace.statistics
    }
    values = jax.device_put(jnp.asarray(given["input"], dtype))
    by_input = parts.trained_before(cell.model, trace.name)

    def forward(parameters: Any, values: Any, statistics: Any, counter: Any) -> tuple[Any, Any]:
        variables = {"params": {trace.name: parameters}, "batch_stats": {trace.name: statistics}}
        rngs = {"dropout": jax.random.fold_in(key, counter)}
        return module.apply(variables, values, True, mutable=["batch_stats"], rngs=rngs)

    def named(gave: Mapping[str, Any]) -> dict[str, Any]:
        found = {"output": gave["output"]}
        by_parameter, gradient = gave.get("by_parameter", {}), gave.get("by_input")
        found |= {f"gradient/{short}": by_parameter[own[short][2]] for short in trace.parameters if by_parameter}
        return found if gradient is None else {**found, "gradient/input": gradient}

    if direction == parts.FORWARD:

        @jax.jit
        def once(counter: Any, parameters: Any, values: Any, statistics: Any) -> tuple[Any, Any]:
            output, moved = forward(parameters, values, statistics, counter)
            return counter + 1, {"output": output, "moved": moved}

        return JaxPart(lambda counter: once(counter, parameters, values, statistics), _counter, named)

    gradient = jax.device_put(jnp.asarray(given["output_gradient"], dtype))

    @jax.jit
    def both(counter: Any, parameters: Any, values: Any, statistics: Any, gradient: Any) -> tuple[Any, Any]:
        def of(parameters: Any, values: Any) -> tuple[Any, Any]:
            return forward(parameters, values, statistics, counter)

        if by_input:
            output, pullback, moved = jax.vjp(of, parameters, values, has_aux=True)
            by_parameter, by_values = pullback(gradient)
        else:
            output, pullback, moved = jax.vjp(lambda own: of(own, values), parameters, has_aux=True)
            (by_parameter,), by_values = pullback(gradient), None
        gave = {"output": output, "moved": moved, "by_parameter": by_parameter, "by_input": by_values}
        return counter + 1, gave

    return JaxPart(lambda counter: both(counter, parameters, values, statistics, gradient), _counter, named)


def _tree(places: Places, given: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """Flax's tree of the arrays under canonical names."""
    found: dict[str, dict[str, Any]] = {}
    for name, (collection, module, leaf) in places.items():
        if collection == "params":
            found.setdefault(module, {})[leaf] = given[f"{prefix}{name}"]
    return found
