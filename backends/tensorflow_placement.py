"""Where the operations of a TensorFlow training step run, and which of them a kind of device has kernels for.

TensorFlow places what has no kernel on the asked device on the processor without a word. The runtime hands out the
graphs of a function when it prepares one to run: as traced, and cut into one part per device. So the kernels are
made anew and one step is run; the largest function among those run is the step. A step compiled whole by XLA is one
program for one device: no such graph comes, and no operation of it can be elsewhere.

Kernels are looked up as TensorFlow does it (``FindKernelRegistration`` in ``core/framework/op_kernel.cc``): by kind of
device, label and the constraints on types, with those for any kind (``DEFAULT``) where the kind has none. A plugin's
kernels are in the registry once it is loaded, whether or not its device is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from harness.core.messages import Operation, Placed

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""A call runs wherever its function's operations do: they are looked at in its place."""

ARGUMENTS = ("_Arg", "_DeviceArg", "_Retval", "_DeviceRetval", "Placeholder")
"""Not computed: what a function is given, and gives back."""

ANY_KIND = "DEFAULT"
"""The kind of device of kernels that serve every kind without one of its own."""


def placement(step: Callable[[], None], kind: str) -> Placed:
    """Run ``step`` twice and say where its operations ran; look them up among the kernels of a ``kind`` of device.

    ``step`` trains one step and waits for it. The first call may still build what later ones find.
    """
    from tensorflow.python.eager import context

    step()
    eager = context.context()
    eager.clear_kernel_cache()  # graphs are handed out only where a kernel is made
    eager.enable_run_metadata()
    try:
        step()
        functions = eager.export_run_metadata().function_graphs
    finally:
        eager.disable_run_metadata()
    found = max(functions, key=_size, default=None)
    if found is None or not _trains(found):
        return Placed(tells=True, kernels_of=kind)
    library = {function.signature.name: function.node_def for function in found.pre_optimization_graph.library.function}
    return Placed(
        tells=True,
        kernels_of=kind,
        traced=_counted(
            (node.op, _types(node), "", _kernel(node, kind))
            for node in _nodes(found.pre_optimization_graph.node, library)
        ),
        ran=_counted(
            (node.op, _types(node), _short(node.device), "")
            for part in found.partition_graphs
            for node in part.node
            if node.op not in ARGUMENTS
        ),
    )


def _size(function: Any) -> int:
    return sum(len(part.node) for part in function.partition_graphs)


def _trains(function: Any) -> bool:
    """Whether it is a step: a function that changes variables by what it computed, not one that reads a loss."""
    return any("Apply" in node.op or "Assign" in node.op for part in function.partition_graphs for node in part.node)


def _nodes(nodes: Iterable[Any], library: Mapping[str, Any]) -> Iterator[Any]:
    """Every operation, those of functions that are called or passed on included."""
    for node in nodes:
        if node.op in library:
            yield from _nodes(library[node.op], library)
        elif node.op not in ARGUMENTS:
            if node.op not in CALLS:
                yield node
            for value in node.attr.values():
                for function in (value.func, *value.list.func):
                    yield from _nodes(library.get(function.name, ()), library)


def _counted(operations: Iterable[tuple[str, tuple[str, ...], str, str]]) -> list[Operation]:
    return [
        Operation(name, list(types), count, device, kernel)
        for (name, types, device, kernel), count in sorted(Counter(operations).items())
    ]


def _short(device: str) -> str:
    """``/job:localhost/replica:0/task:0/device:GPU:0`` -> ``GPU:0``."""
    return device.rpartition("device:")[2]


def _types(node: Any) -> tuple[str, ...]:
    """The element types that select a kernel, as ``T=float``."""
    return tuple(
        f"{name}={'+'.join(dict.fromkeys(map(_type_name, found)))}"
        for name, found in sorted(_type_attributes(node).items())
        if found
    )


def _type_name(number: int) -> str:
    from tensorflow.core.framework import types_pb2

    return str(types_pb2.DataType.Name(number)).removeprefix("DT_").lower()


def _type_attributes(node: Any) -> dict[str, list[int]]:
    """Attribute -> its element types; an attribute that the node leaves out has the operation's default."""
    from tensorflow.python.framework import op_def_registry

    found = {}
    definition = op_def_registry.get(node.op)
    for attribute in definition.attr if definition is not None else ():
        if attribute.type not in ("type", "list(type)"):
            continue
        value = node.attr.get(attribute.name, attribute.default_value)
        found[attribute.name] = [value.type] if attribute.type == "type" else list(value.list.type)
    return found


def _kernel(node: Any, kind: str) -> str:
    """See ``harness.core.messages.Operation.kernel``."""
    from tensorflow.python.framework import kernels, op_def_registry

    label = node.attr["_kernel"].s.decode() if "_kernel" in node.attr else ""
    types = _type_attributes(node)
    registered = kernels.get_registered_kernels_for_op(node.op).kernel
    for wanted in (kind, ANY_KIND):
        for kernel in registered:
            if kernel.device_type == wanted and kernel.label == label and _fits(kernel.constraint, types):
                results = {result.name for result in op_def_registry.get(node.op).output_arg}
                return "host memory" if results and results <= set(kernel.host_memory_arg) else "device"
    return "none"


def _fits(constraints: Iterable[Any], types: Mapping[str, list[int]]) -> bool:
    """Whether all the types of each constrained attribute are allowed."""
    return all(
        set(types.get(constraint.name, ())) <= set(constraint.allowed_values.list.type) for constraint in constraints
    )
