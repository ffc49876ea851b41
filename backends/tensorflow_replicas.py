"""Several devices in TensorFlow: ``MirroredStrategy``, which has a replica of the model on each, in one process.

A replica takes its part of the batch on its own device. What they do together is TensorFlow's own: gradients are
averaged over replicas by the strategy (``ReplicaContext.all_reduce``), each then updates its own copy of the parameters
by the same numbers, and so does batch normalisation with the means that it needs. In mode ``xla`` what a replica
computes is compiled; the sums over devices and the update stay outside, as replicas cannot meet in a compiled function.

Here are the network and the trainer of one's own steps; ``fit`` splits its batches itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.protocol import Arrays, Gradients
from backends.tensorflow_fit import FitTrainer
from backends.tensorflow_layers import tf_variable
from backends.tensorflow_model import Network
from backends.tensorflow_replica_layers import copies, is_mirrored, number_of, own
from backends.tensorflow_steps import StepTrainer

if TYPE_CHECKING:
    from backends.protocol import Booleans, Floats, Integers
    from harness.core.cell import Cell

COLLECTIVES = ("CollectiveReduceV2", "CollectiveReduceV3", "NcclAllReduce", "CollectiveReduce")
"""Operations that devices do together. Where there are none, replicas' values meet in an ``AddN`` on one device."""
ADDED = "AddN over devices"


class Replicas:
    """A strategy over ``devices``, such as ``/CPU:0`` and ``/CPU:1``; variables made in its ``scope`` have copies."""

    def __init__(self, devices: Sequence[str]) -> None:
        import tensorflow as tf

        self.devices = tuple(devices)
        self.strategy = tf.distribute.MirroredStrategy(self.devices)
        self.mean = tf.distribute.ReduceOp.MEAN

    @property
    def count(self) -> int:
        """How many."""
        return len(self.devices)

    def scope(self) -> AbstractContextManager[Any]:
        """Where variables are made on every device."""
        scope: AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def run(self, replica: Callable[[int, Any], Any]) -> tuple[Any, ...]:
        """Within a ``tf.function``: what ``replica`` gives on each device, from its number and its context."""
        import tensorflow as tf

        def numbered() -> Any:
            context = tf.distribute.get_replica_context()
            return replica(number_of(context), context)

        return tuple(self.strategy.experimental_local_results(self.strategy.run(numbered)))

    def part(self, number: int, batch: Any) -> Any:
        """The rows of a batch that a replica takes, cut off in host memory, where the batch is."""
        import tensorflow as tf

        share = batch.shape[0] // self.count
        with tf.device("/CPU:0"):
            return batch[number * share : (number + 1) * share]


def collective_name(strategy: Any) -> str:
    """What TensorFlow calls the way in which it adds up over devices."""
    extended = strategy.extended
    operations = getattr(extended, "_cross_device_ops", None) or getattr(extended, "_inferred_cross_device_ops", None)
    return f"MirroredStrategy, {type(operations).__name__}"


def collectives(graphs: Iterable[Any]) -> dict[str, int]:
    """How many operations of traced functions several devices do together, by kind."""
    found: Counter[str] = Counter()
    for graph in graphs:
        definition = graph.as_graph_def()
        for nodes in (definition.node, *(function.node_def for function in definition.library.function)):
            where = {node.name: node.device for node in nodes}
            for node in nodes:
                if node.op in COLLECTIVES:
                    found[node.op] += 1
                elif node.op == "AddN" and len({where.get(one.partition(":")[0], "") for one in node.input}) > 1:
                    found[ADDED] += 1
    return dict(sorted(found.items()))


class ReplicaNetwork(Network):
    """A network in the scope of a strategy: what is in training form is computed by all replicas, on parts of a batch.

    Batches that they cannot split evenly, and evaluation, are the first device's.
    """

    def __init__(self, replicas: Replicas, cell: Cell, parameters: Mapping[str, Floats], model_class: Any) -> None:
        self.replicas = replicas
        compiled = cell.target.mode == "xla"
        with replicas.scope():
            super().__init__(cell.model, cell.training, parameters, compiled, model_class, replicated=True)

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Averaged over replicas, as in a step."""
        import tensorflow as tf

        if len(images) % self.replicas.count:
            return super().gradients(images, labels)
        differentiate = self.differentiating()

        @tf.function(autograph=False)
        def differentiated(batch: Any, truth: Any) -> Any:
            def replica(number: int, context: Any) -> Any:
                part = self.replicas.part
                logits, loss, gradients = differentiate(part(number, batch), part(number, truth))
                return logits, loss, context.all_reduce(self.replicas.mean, gradients)

            return self.replicas.run(replica)

        found = self._leaving_statistics(
            lambda: differentiated(tf.constant(images, tf.float32), tf.constant(labels, tf.int64))
        )
        gradients = {name: value.numpy() for name, value in zip(self.trained, found[0][2], strict=True)}
        return Gradients(
            logits=np.concatenate([logits.numpy() for logits, *_ in found]),
            loss=float(np.mean([loss.numpy() for _, loss, _ in found], dtype=np.float64)),
            gradients=gradients,
        )

    def forward(self, images: Floats, training: bool) -> Floats:
        """In training form each replica has a part of the images."""
        import tensorflow as tf

        if not training or len(images) % self.replicas.count:
            return super().forward(images, training)

        @tf.function(autograph=False)
        def logits_of(batch: Any) -> Any:
            return self.replicas.run(lambda number, _: self.model(self.replicas.part(number, batch), training=True))

        found = self._leaving_statistics(lambda: logits_of(tf.constant(images, tf.float32)))
        logits: Floats = np.concatenate([part.numpy() for part in found])
        return logits

    def differentiating(self) -> Callable[..., Any]:
        """``differentiate`` for a replica; where functions are compiled by XLA, so is this."""
        import tensorflow as tf

        if not self.compiled:
            return self.differentiate
        compiled: Callable[..., Any] = tf.function(self.differentiate, jit_compile=True, autograph=False)
        return compiled

    def masks(self, passes_ago: int, batch_size: int) -> dict[str, Booleans] | None:
        """Drawn again by the replicas, each its part."""
        import tensorflow as tf

        if batch_size not in self._masking:
            share = batch_size // self.replicas.count

            def replica(number: int, _: Any) -> Any:
                return {
                    trace.name: layer(tf.ones((share, *trace.input_shape)), training=True) != 0
                    for trace, layer in self._dropouts
                }

            @tf.function(autograph=False)
            def kept() -> dict[str, Any]:
                found = self.replicas.run(replica)
                with tf.device("/CPU:0"):
                    return {name: tf.concat([part[name] for part in found], 0) for name in found[0]}

            self._masking[batch_size] = kept.get_concrete_function()
        return super().masks(passes_ago, batch_size)


class ReplicaTrainer(StepTrainer):
    """Trains a ``ReplicaNetwork``: all replicas do a step at once. With input ``resident`` each device has the data."""

    _network: ReplicaNetwork

    def __init__(
        self, network: ReplicaNetwork, cell: Cell, arrays: Arrays, device: str, forms: Mapping[str, str]
    ) -> None:
        self._replicas = network.replicas
        self._data: list[tuple[Any, Any]] = []
        self._columns: dict[int, list[Any]] = {}
        with network.replicas.scope():
            super().__init__(network, cell, arrays, device, forms)
        self._compiled = False  # of the whole step: what a replica computes is, see the network
        self._differentiate = network.differentiating()

    def losses(self) -> list[float]:
        """The mean over the replicas, whose parts are equal, of each step since the last call."""
        found = [np.stack([loss.numpy() for loss in of_a_call]).astype(np.float64) for of_a_call in self._losses]
        self._losses.clear()
        return [float(loss) for of_a_call in found for loss in of_a_call.mean(axis=0).reshape(-1)]

    def held(self) -> dict[str, Any]:
        """What each replica picks from: of images and labels a copy that is not the first one's, if there is one."""
        if not self._resident:
            return {}
        found = {}
        for place, name in enumerate(("images", "labels")):
            first, *others = (data[place].numpy() for data in self._data)
            found[name] = next((one for one in others if one.tobytes() != first.tobytes()), first)
        rows = {size: np.concatenate([part.numpy() for part in parts], 1) for size, parts in self._columns.items()}
        return {**found, "order": self._rows.in_order(rows)}

    def changed(self) -> dict[str, Any]:
        """Name -> mirrored variable of what a step changes besides the network."""
        slots = {f"slot {place}": variable for place, variable in enumerate(self._update.variables())}
        return {**slots, "steps": self._counter}

    def graphs(self) -> list[Any]:
        """Those of the traced steps."""
        return [function.graph for function in (*self._step.values(), *self._many.values())]

    def close(self) -> None:
        """Let go of every device's data, too."""
        super().close()
        self._data.clear()
        self._columns.clear()

    def _wait(self, losses: Any) -> None:
        """Read each replica's, from its own device."""
        for loss in losses:
            loss.numpy()

    def _hold(self, arrays: Arrays) -> None:
        """All images and labels on every device, and of the order the columns of its replica."""
        import tensorflow as tf

        self._columns.update({size: [] for size in self._order})
        for number, device in enumerate(self._replicas.devices):
            with tf.device(device):
                images = tf.identity(tf.constant(arrays.train_images, tf.float32))
                self._data.append((images, tf.identity(tf.constant(arrays.train_labels, tf.int64))))
                for size, order in self._order.items():
                    share = size // self._replicas.count
                    columns = np.ascontiguousarray(order[:, number * share : (number + 1) * share])
                    self._columns[size].append(tf.identity(tf.constant(columns)))
        self._images = arrays.train_images

    def _train_on_next(self, batch_size: int) -> Any:
        import tensorflow as tf

        def picked(number: int) -> tuple[Any, Any]:
            images, labels = self._data[number]
            row = own(self._counter) - (0 if self._shift is None else own(self._shift))
            rows = tf.gather(self._columns[batch_size][number], row)
            return tf.gather(images, rows), tf.gather(labels, rows)

        return self._train_by(picked)

    def _train_on(self, images: Any, labels: Any) -> Any:
        part = self._replicas.part
        return self._train_by(lambda number: (part(number, images), part(number, labels)))

    def _train_by(self, pick: Callable[[int], tuple[Any, Any]]) -> Any:
        """The losses of one step, one for each replica."""

        def replica(number: int, context: Any) -> Any:
            _, loss, gradients = self._differentiate(*pick(number))
            gradients = context.all_reduce(self._replicas.mean, gradients)
            self._update.on(own).apply(gradients, own(self._counter))
            own(self._counter).assign_add(1)
            return loss

        return self._replicas.run(replica)

    def _repeated(self, one: Callable[[Any], Any]) -> Any:
        """Of each replica its losses (steps of a call,)."""
        import tensorflow as tf

        if not self._rolled:
            steps = [one(place) for place in range(self._at_once)]
            return self._on_each(tf.stack, zip(*steps, strict=True))
        kept = tuple(tf.TensorArray(tf.float32, size=self._at_once, element_shape=()) for _ in self._replicas.devices)

        def turn(place: Any, kept: Any) -> Any:
            losses = one(place)
            return place + 1, tuple(array.write(place, loss) for array, loss in zip(kept, losses, strict=True))

        _, kept = tf.while_loop(
            lambda place, _: place < self._at_once,
            turn,
            (tf.constant(0), kept),
            parallel_iterations=1,
            maximum_iterations=self._at_once,
        )
        return self._on_each(lambda array: array.stack(), kept)

    def _on_each(self, give: Callable[[Any], Any], of_replica: Iterable[Any]) -> tuple[Any, ...]:
        """What ``give`` makes of what each replica has, on that replica's device."""
        import tensorflow as tf

        found = []
        for device, one in zip(self._replicas.devices, of_replica, strict=True):
            with tf.device(device):
                found.append(tf.identity(give(one)))
        return tuple(found)


class Recorder:
    """Gives a replica its copy of the variable for losses, and keeps the graph in which it was asked for it."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []

    def __call__(self, recorded: Any) -> Any:
        """Within a replica."""
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        if not any(graph is known for known in self.graphs):
            self.graphs.append(graph)
        return own(recorded)


class ReplicaFitTrainer(FitTrainer):
    """``fit`` on several devices: each replica keeps its own loss, which Keras has divided by their number.

    ``recorder``: collects the graphs in which it is traced.
    """

    def __init__(self, network: ReplicaNetwork, cell: Cell, arrays: Arrays, recorded: Any, recorder: Recorder) -> None:
        with network.replicas.scope():
            super().__init__(network, cell, arrays, recorded)
        self._recorder = recorder

    def losses(self) -> list[float]:
        """The sum over the replicas."""
        values = [math.fsum(float(loss.numpy()) for loss in of_a_step) for of_a_step in self._turns.losses]
        self._turns.losses.clear()
        return values

    def last_loss(self) -> Any:
        """The last loss of each replica where it lies."""
        return tuple(copies(self._recorded))

    def changed(self) -> dict[str, Any]:
        """Name -> mirrored variable of what a step changes besides the network."""
        optimizer = self._model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        of_optimizer = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        kept = {f"optimizer {place}": tf_variable(one) for place, one in enumerate(of_optimizer)}
        return {name: one for name, one in kept.items() if is_mirrored(one)}

    def graphs(self) -> list[Any]:
        """Those in which Keras traced its training step."""
        return self._recorder.graphs

    def _wait(self, losses: Any) -> None:
        for loss in losses:
            loss.numpy()

    @staticmethod
    def _reader(recorded: Any) -> Callable[[], Any]:
        own_losses = copies(recorded)
        return lambda: tuple(copy.read_value() for copy in own_losses)


def apart(changed: Mapping[str, Any]) -> list[str]:
    """The names of mirrored variables whose copies are not equal, bit by bit."""
    return [name for name, one in changed.items() if len({copy.numpy().tobytes() for copy in copies(one)}) > 1]
