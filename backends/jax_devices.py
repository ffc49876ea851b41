"""Several devices in JAX: where arrays lie so that one jitted step trains a batch on all of them together.

The mesh has one axis. State and data are whole on each device, the rows of the order and batches from the host are
split along the batch: the compiler then splits the step, and puts in the sums over devices that the step of the whole
batch needs. Axes are of the type ``Auto``, for which ``jit`` means the same as on one device.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

AXIS = "batch"
COLLECTIVE = "XLA all-reduce"
COLLECTIVES = re.compile(r"\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
"""Operations of a compiled program that several devices do together."""


class Spread:
    """How the arrays of a cell lie on the first ``count`` devices that JAX sees."""

    def __init__(self, count: int) -> None:
        import jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec

        self._jax, self._count = jax, count
        mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        self.whole = NamedSharding(mesh, PartitionSpec())
        self._by_example = NamedSharding(mesh, PartitionSpec(AXIS))
        self._by_column = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def replicate(self, tree: Any) -> Any:
        """Every array on every device."""
        return self._jax.device_put(tree, self.whole)

    def hold(self, data: Any, rows: Any, test: Any) -> tuple[Any, Any, Any]:
        """Images and labels, of the order each device's own columns, and what the first device evaluates."""
        return self.replicate(data), self.split_columns(rows), self._jax.device_put(test, self._jax.devices()[0])

    def split(self, tree: Any) -> Any:
        """Arrays (B, ...), each device its equal part of B."""
        return self._jax.device_put(tree, self._by_example)

    def split_columns(self, tree: Any) -> Any:
        """Arrays (steps, B, ...), each device its equal part of B."""
        return self._jax.device_put(tree, self._by_column)

    def split_if_even(self, tree: Any) -> Any:
        """As ``split``; what has no equal parts stays as it is."""
        even = all(len(array) % self._count == 0 for array in self._jax.tree.leaves(tree))
        return self.split(tree) if even else tree

    def of_one(self, tree: Any) -> Any:
        """What the first device has of arrays that are whole on each."""
        return self._jax.tree.map(lambda array: array.addressable_data(0), tree)

    def odd_one(self, array: Any) -> Any:
        """A copy of a whole array that differs from the first device's, bit by bit, or that one if none does."""
        first, *others = (shard.data for shard in array.addressable_shards)
        return next((other for other in others if _bytes(other) != _bytes(first)), first)

    def apart(self, tree: Any) -> list[str]:
        """The places in a tree of those arrays that are not the same, bit by bit, whole and on every device."""
        found = []
        for path, array in self._jax.tree_util.tree_leaves_with_path(tree):
            shards = array.addressable_shards
            is_whole = len(shards) == self._count and all(shard.data.shape == array.shape for shard in shards)
            if not is_whole or len({_bytes(shard.data) for shard in shards}) > 1:
                found.append(self._jax.tree_util.keystr(path))
        return found


def collectives(program: Any, *arguments: Any) -> dict[str, int]:
    """How many operations of each kind in a jitted program's compiled form all devices do together."""
    return dict(sorted(Counter(COLLECTIVES.findall(program.lower(*arguments).compile().as_text())).items()))


def _bytes(array: Any) -> bytes:
    import numpy as np

    return np.asarray(array).tobytes()
