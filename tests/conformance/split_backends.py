"""Real backends with one planted fault each that only training on several devices can have.

The fault is the name of the cell's target, as in ``untrained_backends``. The session is the real one, and what it is
made of is changed beneath it. JAX's compiler puts in the sums over devices by itself, so most of its faults are written
with ``shard_map``, where a person says what is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends import jax_devices, jax_programs, tensorflow_replica_layers, tensorflow_replicas
from backends.jax_flax import JaxBackend
from backends.protocol import Arrays
from backends.tensorflow_keras import TensorFlowBackend
from harness.core.cell import Cell

FAULTS = (
    "SumForMean",
    "MeanOfUnequalMeans",
    "OneGradientNotReduced",
    "NoGradientReduced",
    "RowsTakenTwice",
    "StatisticsPerReplica",
    "SameMaskOnAll",
)


class OnTensorFlow(TensorFlowBackend):
    def session(self, cell: Cell, arrays: Arrays) -> Any:
        import tensorflow as tf

        fault, context_of = cell.target.name, tf.distribute.ReplicaContext
        right_reduce, replicas = context_of.all_reduce, tensorflow_replicas.Replicas

        def reduced(gradients: Callable[[Any, Any, Any], Any], statistics: Any = right_reduce) -> None:
            """Gradients come as a list, the statistics of batch normalisation one by one."""

            def all_reduce(context: Any, operation: Any, value: Any) -> Any:
                return (gradients if isinstance(value, list) else statistics)(context, operation, value)

            context_of.all_reduce = all_reduce

        if fault == "SumForMean":
            reduced(lambda context, _, value: right_reduce(context, tf.distribute.ReduceOp.SUM, value))
        elif fault == "OneGradientNotReduced":
            reduced(lambda context, how, value: [value[0], *right_reduce(context, how, value[1:])])
        elif fault == "NoGradientReduced":
            reduced(lambda context, how, value: value)
        elif fault == "StatisticsPerReplica":
            reduced(right_reduce, lambda context, how, value: value)
        elif fault == "RowsTakenTwice":
            right_part = replicas.part
            replicas.part = lambda self, _, batch: right_part(self, 0, batch)  # type: ignore[method-assign]
        elif fault == "MeanOfUnequalMeans":

            def part(self: Any, number: int, batch: Any) -> Any:
                share = batch.shape[0] // self.count + 1
                with tf.device("/CPU:0"):
                    return batch[:share] if number == 0 else batch[share:]

            replicas.part = part  # type: ignore[method-assign]
        elif fault == "SameMaskOnAll":
            tensorflow_replica_layers.key_of = lambda seed, number: seed
        return super().session(cell, arrays)


class OnJax(JaxBackend):
    def session(self, cell: Cell, arrays: Arrays) -> Any:
        import jax
        import jax.numpy as jnp
        import optax

        fault, axis = cell.target.name, jax_devices.AXIS
        right_rule, right_loss, spread = jax_programs.optimizer_rule, jax_programs.mean_loss, jax_devices.Spread
        over_all: dict[str, Callable[[Any], Any]] = {
            "SumForMean": lambda leaves: jax.lax.psum(leaves, axis),
            "OneGradientNotReduced": lambda leaves: [leaves[0], *jax.lax.pmean(leaves[1:], axis)],
            "NoGradientReduced": lambda leaves: leaves,
            "StatisticsPerReplica": lambda leaves: jax.lax.pmean(leaves, axis),
            "SameMaskOnAll": lambda leaves: jax.lax.pmean(leaves, axis),
        }

        def rule_of(*given: Any) -> Any:
            rule = right_rule(*given)

            def update(gradients: Any, *others: Any) -> Any:
                leaves, tree = jax.tree.flatten(gradients)
                return rule.update(jax.tree.unflatten(tree, over_all[fault](leaves)), *others)

            return optax.GradientTransformation(rule.init, update)

        def unequal(training: Any, logits: Any, labels: Any) -> Any:
            first = len(labels) // cell.target.devices + 1
            halves = (right_loss(training, logits[part], labels[part]) for part in (slice(first), slice(first, None)))
            return sum(halves) / 2

        if fault == "MeanOfUnequalMeans":
            jax_programs.mean_loss = unequal
        elif fault == "RowsTakenTwice":
            right_split = spread.split_columns
            half = cell.training.batch_size // 2
            spread.split_columns = (
                lambda self, tree: right_split(  # type: ignore[method-assign]
                    self, jax.tree.map(lambda rows: jnp.concatenate([rows[:, :half]] * 2, 1), tree)
                )
            )
        elif fault in over_all:
            jax_programs.optimizer_rule = rule_of
        session = super().session(cell, arrays)
        if fault in over_all:
            session._programs = _by_hand(session._programs, session._spread, fault != "NoGradientReduced")
        return session


def _by_hand(programs: Any, spread: Any, reduces: bool) -> Any:
    """The step as each device would do it alone on its own columns; what is added up says the optimizer's rule.

    ``reduces``: whether the loss is.
    """
    import jax
    from jax.sharding import PartitionSpec

    whole, columns = PartitionSpec(), PartitionSpec(None, jax_devices.AXIS)
    right = programs.pick_and_advance.__wrapped__

    def alone(*given: Any) -> Any:
        state, loss = right(*given)
        return state, jax.lax.pmean(loss, jax_devices.AXIS) if reduces else loss

    split = jax.shard_map(
        alone,
        mesh=spread.whole.mesh,
        in_specs=(whole, whole, whole, columns),
        out_specs=(whole, whole),
        check_vma=False,
    )
    return programs._replace(pick_and_advance=jax.jit(split, donate_argnums=0))
