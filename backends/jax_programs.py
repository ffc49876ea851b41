"""What JAX compiles for a cell: the model as a linen module, the optimizer as an optax chain, the step.

Pure functions of a ``State``; ``backends.jax_flax`` feeds them and keeps the state. Names are Flax's:
the collection ``params`` has a module per layer with leaves kernel, bias, scale; ``batch_stats``, mean and var.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from backends import jax_gradients
from harness.core import knobs
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    LayerTrace,
    MaxPool,
    ModelSpec,
    pair_strides,
)
from harness.core.training import DECOUPLED, L2, TrainingSpec

MOST_JOINED = 8
"""Pieces of a schedule that are joined; more are a table by step, as each piece joined is an operation of its own."""


class State(NamedTuple):
    """What a step takes and gives back, a pytree on the device. ``step`` () int32 counts finished steps."""

    step: Any
    parameters: Any
    statistics: Any
    optimizer: Any


class Programs(NamedTuple):
    """The functions of a cell, jitted. Images (B, H, W, C) float32, labels (B,) int32, rows (steps, B) int32.

    ``start(parameters, statistics)``: the State before step 0.
    ``advance(state, images, labels)``: new state and mean loss of one batch; the old state is donated.
    ``pick_and_advance(state, images, labels, rows, shift)``: the same on the examples that row ``state.step`` lists;
    with ``shift`` () int32, which is left out where there is none, row ``state.step - shift``.
    ``advance_many(state, images, labels)``: the K steps of a call, on images (K, B, H, W, C) and labels (K, B); losses
    (K,). ``pick_and_advance_many(state, images, labels, rows)``: the same on the next K rows.
    ``evaluate(parameters, statistics, images, labels, weights)``: sums of loss, of hits and of weights.
    ``differentiate(parameters, statistics, images, labels)``: loss, logits, gradients in training form.
    ``infer(parameters, statistics, images, number, training=...)``: logits; ``number`` varies the dropout.
    ``add(state, sums, images, labels, place, share)``: what the examples of a microbatch, the ``place``-th, which are a
    ``share`` of the batch, add to the batch's loss and gradients; ``sums`` is None before the first, and donated.
    ``pick_and_add(state, sums, images, labels, rows, place, share, size, shift)``: the same on ``size`` of a row's.
    ``update(state, sums)``: new state and mean loss of the batch; the old state is donated.
    ``masks(step, parts)``: layer name -> what dropout keeps (B, ...) in a training step.
    """

    start: Any
    advance: Any
    pick_and_advance: Any
    advance_many: Any
    pick_and_advance_many: Any
    evaluate: Any
    differentiate: Any
    infer: Any
    masks: Any
    add: Any
    pick_and_add: Any
    update: Any


def build(
    model: ModelSpec,
    training: TrainingSpec,
    epoch_steps: int | Sequence[int],
    forms: Mapping[str, str],
    at_once: int = 1,
    microbatch: int = 0,
    placed: Any = None,
) -> Programs:
    """The programs of one cell; nothing is traced or compiled before the first call of each.

    ``epoch_steps``: those of every epoch, or of each. ``forms``: the value of every knob of this backend. ``at_once``:
    the steps of a call. ``microbatch``: examples of each part of a batch but the last, 0 where it is taken whole.
    ``placed``: the sharding of what a step gives, where it is trained on several devices.
    """
    import jax
    import jax.numpy as jnp
    import optax

    module = _module(model, training.compute_dtype, forms)
    scale = training.loss_scale
    rule = optimizer_rule(training, epoch_steps)
    steps_key, passes_key = jax.random.split(jax.random.key(training.seed))

    def start(parameters: Any, statistics: Any) -> State:
        return State(jnp.zeros((), jnp.int32), parameters, statistics, rule.init(parameters))

    def loss_of(parameters: Any, statistics: Any, images: Any, labels: Any, key: Any) -> Any:
        variables = {"params": parameters, "batch_stats": statistics}
        logits, moved = module.apply(variables, images, True, mutable=["batch_stats"], rngs={"dropout": key})
        loss = mean_loss(training, logits, labels)
        return loss * scale, (loss, logits, moved.get("batch_stats", {}))

    def differentiated(*given: Any) -> Any:
        """Loss, logits, statistics moved, gradients."""
        gradients, results = jax.grad(loss_of, has_aux=True)(*given)
        return *results, jax.tree.map(lambda gradient: gradient / scale, gradients)

    def advance(state: State, images: Any, labels: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(steps_key, state.step)
        loss, _, statistics, gradients = differentiated(state.parameters, state.statistics, images, labels, key)
        updates, optimizer = rule.update(gradients, state.optimizer, state.parameters)
        return State(state.step + 1, optax.apply_updates(state.parameters, updates), statistics, optimizer), loss

    def pick_and_advance(state: State, images: Any, labels: Any, rows: Any, shift: Any = None) -> tuple[State, Any]:
        row = rows[state.step if shift is None else state.step - shift]
        return advance(state, images[row], labels[row])

    def key_of(step: Any, place: Any) -> Any:
        return jax.random.fold_in(jax.random.fold_in(steps_key, step), place)

    def add(state: State, sums: Any, images: Any, labels: Any, place: Any, share: Any) -> Any:
        key = key_of(state.step, place)
        loss, _, _, gradients = differentiated(state.parameters, state.statistics, images, labels, key)
        own = jax.tree.map(lambda value: value * share, (loss, gradients))
        return own if sums is None else jax.tree.map(jnp.add, sums, own)

    def pick_and_add(
        state: State,
        sums: Any,
        images: Any,
        labels: Any,
        rows: Any,
        place: Any,
        share: Any,
        size: int,
        shift: Any = None,
    ) -> Any:
        row = rows[state.step if shift is None else state.step - shift]
        part = jax.lax.dynamic_slice_in_dim(row, place * microbatch, size)
        return add(state, sums, images[part], labels[part], place, share)

    def update(state: State, sums: Any) -> tuple[State, Any]:
        loss, gradients = sums
        updates, optimizer = rule.update(gradients, state.optimizer)
        parameters = optax.apply_updates(state.parameters, updates)
        return State(state.step + 1, parameters, state.statistics, optimizer), loss

    def many(state: State, batches: Any, one: Any) -> tuple[State, Any]:
        """``one`` at_once times; ``batches`` are given to it one after the other, if there are any."""
        if forms[knobs.LOOP.name] == knobs.ROLLED:
            return jax.lax.scan(lambda before, batch: one(before, *batch), state, batches, length=at_once)
        losses = []
        for place in range(at_once):
            state, loss = one(state, *(batch[place] for batch in batches))
            losses.append(loss)
        return state, jnp.stack(losses)

    def advance_many(state: State, images: Any, labels: Any) -> tuple[State, Any]:
        return many(state, (images, labels), advance)

    def pick_and_advance_many(state: State, images: Any, labels: Any, rows: Any) -> tuple[State, Any]:
        return many(state, (), partial(pick_and_advance, images=images, labels=labels, rows=rows))

    def evaluate(parameters: Any, statistics: Any, images: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
        logits = module.apply({"params": parameters, "batch_stats": statistics}, images, False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = jnp.argmax(logits, axis=-1) == labels
        return jnp.sum(weights * losses), jnp.sum(weights * hits), jnp.sum(weights)

    def differentiate(parameters: Any, statistics: Any, images: Any, labels: Any) -> tuple[Any, Any, Any]:
        loss, logits, _, gradients = differentiated(parameters, statistics, images, labels, passes_key)
        return loss, logits, gradients

    def infer(parameters: Any, statistics: Any, images: Any, number: Any, training: bool) -> Any:
        variables = {"params": parameters, "batch_stats": statistics}
        key = jax.random.fold_in(passes_key, number)
        return module.apply(variables, images, training, mutable=["batch_stats"], rngs={"dropout": key})[0]

    def masks(step: Any, parts: tuple[int, ...]) -> dict[str, Any]:
        whole = jax.random.fold_in(steps_key, step)
        keys = [key_of(step, place) for place in range(len(parts))] if len(parts) > 1 else [whole]
        sized = zip(parts, keys, strict=True)
        found = [_dropouts(model, size).apply({}, rngs={"dropout": key}) for size, key in sized]
        return {name: jnp.concatenate([own[name] for own in found]) for name in found[0]}

    where = {} if placed is None else {"out_shardings": placed}
    return Programs(
        start=start,
        advance=jax.jit(advance, donate_argnums=0, **where),
        pick_and_advance=jax.jit(pick_and_advance, donate_argnums=0, **where),
        advance_many=jax.jit(advance_many, donate_argnums=0, **where),
        pick_and_advance_many=jax.jit(pick_and_advance_many, donate_argnums=0, **where),
        evaluate=jax.jit(evaluate),
        differentiate=jax.jit(differentiate),
        infer=jax.jit(infer, static_argnames="training"),
        masks=jax.jit(masks, static_argnames="parts"),
        add=jax.jit(add, donate_argnums=1),
        pick_and_add=jax.jit(pick_and_add, donate_argnums=1, static_argnames="size"),
        update=jax.jit(update, donate_argnums=(0, 1)),
    )


def layer_alone(trace: LayerTrace, dtype: str, forms: Mapping[str, str]) -> Any:
    """One layer as a linen module with its own name: values (B, ...), training -> values, as ``build`` has it."""
    import flax.linen as nn

    def alone(_: Any, values: Any, training: bool) -> Any:
        return _layer(trace, values, training, dtype, forms)

    return type("Layer", (nn.Module,), {"__call__": nn.compact(alone)})()


def _module(model: ModelSpec, dtype: str, forms: Mapping[str, str]) -> Any:
    """The model as a linen module: images (B, H, W, C), training -> logits (B, classes) float32.

    ``dtype`` is that of activations and products; Flax keeps parameters and statistics in float32. ``forms``: the
    value of every knob.
    """
    import flax.linen as nn

    def network(_: Any, values: Any, training: bool) -> Any:
        values = values.astype(dtype)
        for trace in model.traced:
            values = _layer(trace, values, training, dtype, forms)
        return values.astype("float32")

    return type("Network", (nn.Module,), {"__call__": nn.compact(network)})()


def _dropouts(model: ModelSpec, batch_size: int) -> Any:
    """The model's dropout alone, on ones: () -> layer name -> what is kept.

    Flax makes a module's key of the step's and of the module's name, so that the masks are those of the whole model.
    """
    import flax.linen as nn
    import jax.numpy as jnp

    def network(_: Any) -> dict[str, Any]:
        return {
            trace.name: _layer(trace, jnp.ones((batch_size, *trace.input_shape)), True, "float32", {}) != 0
            for trace in model.traced
            if isinstance(trace.layer, Dropout)
        }

    return type("Dropouts", (nn.Module,), {"__call__": nn.compact(network)})()


def _layer(trace: LayerTrace, values: Any, training: bool, dtype: str, forms: Mapping[str, str]) -> Any:
    import flax.linen as nn

    layer, name = trace.layer, trace.name
    if isinstance(layer, Conv2D):
        convolution = nn.Conv(
            features=layer.filters,
            kernel_size=layer.kernel,
            strides=layer.strides,
            padding=layer.padding.upper(),
            use_bias=layer.bias,
            dtype=dtype,
            name=name,
            **_own_gradient(forms),
        )
        return _activate(layer.activation, convolution(values))
    if isinstance(layer, Dense):
        return _activate(layer.activation, nn.Dense(layer.units, use_bias=layer.bias, dtype=dtype, name=name)(values))
    if isinstance(layer, MaxPool):
        if forms[knobs.POOL_GRADIENT.name] == knobs.FIRST_MAXIMUM and jax_gradients.can_pool(layer, values.shape):
            return jax_gradients.max_pool(values, layer.pool)
        return nn.max_pool(values, layer.pool, pair_strides(layer), layer.padding.upper())
    if isinstance(layer, AveragePool):
        padding = layer.padding.upper()
        pooled = nn.avg_pool(values, layer.pool, pair_strides(layer), padding, count_include_pad=False)
        return pooled.astype(values.dtype)  # it divides by counts in float32, and stays there
    if isinstance(layer, GlobalAveragePool):
        return values.mean(axis=(1, 2))
    if isinstance(layer, BatchNorm):
        return nn.BatchNorm(
            use_running_average=not training,
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            use_fast_variance=False,  # E[x^2] - E[x]^2 cancels where a channel's mean is large
            dtype=dtype,
            name=name,
        )(values)
    if isinstance(layer, Activation):
        return _activate(layer.function, values)
    if isinstance(layer, Flatten):
        return values.reshape(values.shape[0], -1)
    assert isinstance(layer, Dropout)
    return nn.Dropout(layer.rate, deterministic=not training, name=name)(values)


def _own_gradient(forms: Mapping[str, str]) -> dict[str, Any]:
    """What a convolution is told where its gradients are not JAX's own."""
    is_canonical = forms[knobs.CONVOLUTION_GRADIENT.name] == knobs.CANONICAL
    return {"conv_general_dilated": jax_gradients.convolution} if is_canonical else {}


def _activate(function: str, values: Any) -> Any:
    import flax.linen as nn

    return values if function == "linear" else getattr(nn, function)(values)


def mean_loss(training: TrainingSpec, logits: Any, labels: Any) -> Any:
    """Mean softmax cross-entropy () of a batch as training has it, from logits (B, classes) and labels (B,)."""
    import jax
    import optax

    if not training.label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), training.label_smoothing)
    return optax.softmax_cross_entropy(logits, wanted).mean()


def optimizer_rule(training: TrainingSpec, epoch_steps: int | Sequence[int]) -> Any:
    """The optimizer of ``harness.core.training`` as an optax transformation.

    The rate comes before the trace, so that the velocity carries it; ``optax.sgd`` multiplies after.
    """
    import optax

    spec = training.optimizer
    schedule = _schedule(training, epoch_steps)
    rate = optax.scale_by_learning_rate(schedule)
    parts = [optax.clip_by_global_norm(spec.clip_norm)] if spec.clip_norm else []
    if spec.weight_decay and spec.weight_decay_form == L2:
        parts.append(optax.add_decayed_weights(spec.weight_decay, _kernels))
    if spec.name == "adam":
        parts += [_scale_by_adam(spec.beta_1, spec.beta_2, spec.epsilon), rate]
    elif spec.name == "sgd":
        parts.append(rate)
    else:
        parts += [rate, optax.trace(spec.momentum, nesterov=spec.name == "nesterov")]
    if spec.weight_decay and spec.weight_decay_form == DECOUPLED:
        parts.append(_decoupled_decay(spec.weight_decay, schedule))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _schedule(training: TrainingSpec, epoch_steps: int | Sequence[int]) -> Any:
    """The rate: a number, or what gives it for the number of a step."""
    import jax.numpy as jnp
    import numpy as np
    import optax

    pieces = training.learning_rates(epoch_steps)
    if len(pieces) == 1:
        # No schedule, so no counter in the state: on a CPU that counter alone cost 3 % of a step.
        return pieces[0][1]
    if len(pieces) <= MOST_JOINED:
        schedules = [optax.constant_schedule(rate) for _, rate in pieces]
        return optax.join_schedules(schedules, [first for first, _ in pieces[1:]])
    starts, rates = zip(*pieces, strict=True)
    lengths = np.diff([*starts, max(starts[-1] + 1, training.total_steps(epoch_steps))])
    by_step = np.repeat(np.asarray(rates, np.float32), lengths)
    return lambda step: jnp.asarray(by_step)[step]


def _kernels(parameters: Any) -> Any:
    """Which of Flax's parameters weight decay is for."""
    return {module: {leaf: leaf == "kernel" for leaf in leaves} for module, leaves in parameters.items()}


def _decoupled_decay(decay: float, schedule: Any) -> Any:
    """Beside the step of the optimizer before it in a chain, minus rate times ``decay`` times each kernel."""
    import jax
    import jax.numpy as jnp
    import optax

    def init(_: Any) -> Any:
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32)) if callable(schedule) else optax.EmptyState()

    def update(updates: Any, state: Any, parameters: Any) -> Any:
        rate = schedule(state.count) if callable(schedule) else schedule
        decayed = jax.tree.map(
            lambda step, value, decays: step - rate * decay * value if decays else step,
            updates,
            parameters,
            _kernels(parameters),
        )
        return decayed, state._replace(count=state.count + 1) if callable(schedule) else state

    return optax.GradientTransformation(init, update)


def _scale_by_adam(beta_1: float, beta_2: float, epsilon: float) -> Any:
    """Adam with the epsilon-hat of Kingma and Ba, end of section 2; optax has only the epsilon of algorithm 1."""
    import jax
    import jax.numpy as jnp
    import optax

    def init(parameters: Any) -> Any:
        first, second = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=first, nu=second)

    def update(gradients: Any, state: Any, _: Any = None) -> Any:
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * g * g, state.nu, gradients)
        correction = jnp.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)
