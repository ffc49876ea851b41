"""JAX with Flax and optax: one jitted training step that carries its state, called from Python.

The state is donated at each call, so the loop says only ``state, loss = step(state, *data)``. Input
``resident``: images, labels and order live on the device and the step picks its own row of the order;
``host``: NumPy gathers each batch, which is then copied to the device. With several steps per call NumPy gathers the
batches of all of them at once. What is compiled is in ``backends.jax_programs``; here are the device, the data, and the
canonical names of Flax's arrays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from backends import device_choice, jax_devices, jax_parts, jax_programs
from backends.jax_yardstick import JaxYardstick
from backends.protocol import EVALUATION_BATCH, Arrays, Capabilities, Gradients
from backends.rows import Rows, Stretch
from harness.core import knobs, system
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, OutOfMemory, Unsupported, WrongDevice
from harness.core.model import LAYERS, ModelSpec
from harness.core.training import OPTIMIZERS, OPTIONS, PRECISIONS

if TYPE_CHECKING:
    from backends.protocol import Booleans, Floats, Integers

ACCELERATORS = ("cpu", "cuda")
MATMUL_PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32"}
FLAX_LEAVES = {
    "offset": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
"""Canonical key -> Flax's collection and leaf, where they are not ``params`` and the same word."""
SLOTS = {"velocity": "trace", "first": "mu", "second": "nu"}
"""Canonical slot of an optimizer -> field of the optax state that holds it."""


class JaxBackend:
    """JAX on CPU or CUDA. XLA compiles every step; there is no other mode."""

    name = "jax_flax"

    def capabilities(self) -> Capabilities:
        """The same for every version of JAX."""
        return Capabilities(
            accelerators=ACCELERATORS,
            modes=("jit",),
            inputs={"jit": ("resident", "host")},
            precisions=PRECISIONS,
            layers=tuple(LAYERS),
            optimizers=OPTIMIZERS,
            options=OPTIONS,
            can_fork=True,
            refusals={},
            loops={"jit": ("resident", "host")},
            plans=("jit",),
            microbatches=("jit",),
            devices=("jit",),
            knobs=knobs.OF_BACKENDS[self.name],
        )

    def load(self) -> None:
        """Import JAX, Flax and optax; JAX starts no backend, and so no thread, before its first use."""
        for package in ("jax", "flax.linen", "optax"):
            import_module(package)

    def versions(self) -> dict[str, str]:
        """JAX, its compiled half, and the libraries that make the step."""
        return {package: version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy")}

    def keep_programs(self, folder: str) -> None:
        """JAX's own persistent cache: an equal program is then loaded, not compiled, by the next process."""
        import jax

        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def initialise(self, target: Target) -> dict[str, Any]:
        """Start the one backend asked for.

        Of the visible GPUs JAX is shown only the target's. Several processors are made of those that there are.
        """
        import jax

        _require("accelerator", target.accelerator, ACCELERATORS)
        _require("matmul_precision", target.matmul_precision, tuple(MATMUL_PRECISIONS))
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if target.accelerator == "cuda":
            index = device_choice.index_of(target.device, "CUDA_VISIBLE_DEVICES")
            shown = range(index, index + target.devices)
            jax.config.update("jax_cuda_visible_devices", ",".join(map(str, shown)))
        elif target.devices > 1:
            jax.config.update("jax_num_cpu_devices", target.devices)
        jax.config.update("jax_platforms", target.accelerator)
        jax.config.update("jax_default_matmul_precision", MATMUL_PRECISIONS[target.matmul_precision])
        try:
            devices = jax.devices()
        except (RuntimeError, AssertionError) as error:
            # Where the system shows no NVIDIA GPU, JAX skips CUDA and then fails an assertion without a word.
            reason = _first_line(error) if str(error) else "the system shows none"
            raise WrongDevice(f"JAX found no {target.accelerator} device: {reason}") from error
        found = sorted({_accelerator(device) for device in devices})
        if found != [target.accelerator]:
            raise WrongDevice(f"asked for {target.accelerator}, but the devices of JAX are: {', '.join(found)}")
        device_choice.require_enough(target, len(devices))
        together = device_choice.together(target, [str(one) for one in devices], jax_devices.COLLECTIVE)
        return {
            **together,
            "accelerator": target.accelerator,
            "devices": [str(device) for device in devices],
            "device_name": devices[0].device_kind,
            "platform_version": " ".join(devices[0].client.platform_version.split()),
            "compute_threads": _compute_threads(),
            "xla": True,
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "tf32": target.matmul_precision == "tf32",
            "preallocation": os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] not in ("false", "False", "0"),
        }

    def session(self, cell: Cell, arrays: Arrays) -> JaxSession:
        """Build the cell; the first call of each program traces and compiles it."""
        able = self.capabilities()
        _require("mode", cell.target.mode, able.modes)
        _require("input", cell.target.input, able.inputs[cell.target.mode])
        _require("precision", cell.training.precision, able.precisions, able.refusals)
        return JaxSession(cell, arrays, knobs.chosen(cell.target.all_options, able.knobs), self.spread(cell.target))

    def spread(self, target: Target) -> jax_devices.Spread | None:
        """How arrays lie on several devices; None on one."""
        return jax_devices.Spread(target.devices) if target.devices > 1 else None

    def yardstick(self, target: Target) -> JaxYardstick:
        """On the one device that ``initialise`` left visible."""
        return JaxYardstick()

    def translate(self, error: BaseException) -> CellError | None:
        """XLA says RESOURCE_EXHAUSTED when an allocation fails on any device."""
        import jax

        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return OutOfMemory(_first_line(error))
        return None


class JaxSession:
    """One cell in JAX; see ``backends.protocol.Session``."""

    def __init__(
        self, cell: Cell, arrays: Arrays, forms: Mapping[str, str], spread: jax_devices.Spread | None = None
    ) -> None:
        """Copy parameters, and for input ``resident`` all data, to the device or devices.

        ``forms``: the value of every knob.
        """
        import jax

        self._jax = jax
        self._cell, self._forms, self._rows = cell, forms, Rows(arrays)
        self._places = _places(cell.model)
        self._at_once = cell.target.steps_per_call
        self._spread = spread
        self._programs = jax_programs.build(
            cell.model,
            cell.training,
            cell.epoch_steps,
            forms,
            self._at_once,
            cell.target.microbatch,
            self._spread and self._spread.whole,
        )
        self._state = self._programs.start(*_initial(cell.model, self._places, arrays.parameters))
        self._copy, self._copy_many = jax.device_put, jax.device_put
        if self._spread is not None:
            self._state = self._spread.replicate(self._state)
            self._copy, self._copy_many = self._spread.split, self._spread.split_columns
        self._host_data = (arrays.train_images, arrays.train_labels)
        self._test = _evaluation_batches(arrays.test_images, arrays.test_labels)
        self._resident: Any = None
        if cell.target.input == "resident":
            wanted = (self._host_data, self._rows.of_size, self._test)
            data, rows, self._test = jax.device_put(wanted) if self._spread is None else self._spread.hold(*wanted)
            self._resident = {size: (*data, own) for size, own in rows.items()}
        self._shifts = {one.shift: jax.numpy.int32(one.shift) for one in self._rows.stretches(0, len(self._rows))}
        self._position = 0
        self._forwards = 0
        self._losses: list[Any] = []
        self._last_loss: Any = None
        jax.block_until_ready((self._state, self._resident, self._test))

    def train(self, steps: int) -> None:
        """Enqueue steps; raises ContractError past the end of the order, where JAX would clamp the index."""
        for stretch in self._rows.stretches(self._position, steps):
            in_parts = len(self._cell.target.parts(stretch.batch_size)) > 1
            (self._accumulate if in_parts else self._train)(stretch)
        self._position += steps

    def _train(self, stretch: Stretch) -> None:
        state, losses, first, end = self._state, self._losses, stretch.first, stretch.end
        singly = first if self._at_once == 1 else end - (end - first) % self._at_once
        if self._resident is not None:
            step, data = self._programs.pick_and_advance_many, self._data(stretch)
            for _ in range(first, singly, self._at_once):
                state, loss = step(state, *data)
                losses.append(loss)
            step = self._programs.pick_and_advance
            for _ in range(singly, end):
                state, loss = step(state, *data)
                losses.append(loss)
        else:
            step, copy, (images, labels) = self._programs.advance_many, self._copy_many, self._host_data
            order = self._rows.of_size[stretch.batch_size]
            for place in range(first, singly, self._at_once):
                rows = order[place : place + self._at_once]
                state, loss = step(state, *copy((images[rows], labels[rows])))
                losses.append(loss)
            step, copy = self._programs.advance, self._copy
            for row in order[singly:end]:
                state, loss = step(state, *copy((images[row], labels[row])))
                losses.append(loss)
        self._state = state

    def _accumulate(self, stretch: Stretch) -> None:
        """Each step in microbatches, and one update."""
        parts = self._parts_of(stretch.batch_size)
        for row in range(stretch.first, stretch.end):
            self._state, loss = self._programs.update(self._state, self._added(self._state, stretch, row, parts))
            self._losses.append(loss)

    def _parts_of(self, batch_size: int) -> list[tuple[Any, Any, int]]:
        """Of each microbatch its place and its share of the batch, on the device, and its size."""
        numpy, sizes = self._jax.numpy, self._cell.target.parts(batch_size)
        return [(numpy.int32(place), numpy.float32(size / batch_size), size) for place, size in enumerate(sizes)]

    def _added(self, state: Any, stretch: Stretch, row: int, parts: list[tuple[Any, Any, int]]) -> Any:
        """Loss and gradients of the batch of a row, from those of its microbatches."""
        sums, (images, labels), begin = None, self._host_data, 0
        for place, share, size in parts:
            if self._resident is not None:
                data, *shift = self._data(stretch)[:3], *self._data(stretch)[3:]
                sums = self._programs.pick_and_add(state, sums, *data, place, share, size, *shift)
            else:
                chosen = self._rows.of_size[stretch.batch_size][row][begin : begin + size]
                batch = self._jax.device_put((images[chosen], labels[chosen]))
                sums = self._programs.add(state, sums, *batch, place, share)
            begin += size
        return sums

    def _data(self, stretch: Stretch) -> tuple[Any, ...]:
        """What a step takes beside the state."""
        data: tuple[Any, ...] = self._resident[stretch.batch_size]
        return (*data, self._shifts[stretch.shift]) if self._rows.several else data

    def prepare(self, batch_size: int) -> None:
        """One step on a copy of the state, which is dropped with what the step made of it."""
        state = self._jax.tree.map(self._jax.numpy.copy, self._state)
        stretch, parts = self._rows.first_of(batch_size), self._parts_of(batch_size)
        if len(parts) > 1:
            made = self._programs.update(state, self._added(state, stretch, stretch.first, parts))
        elif self._resident is not None:
            made = self._programs.pick_and_advance(state, *self._data(stretch))
        else:
            (images, labels), row = self._host_data, self._rows.of_size[batch_size][stretch.first]
            made = self._programs.advance(state, *self._copy((images[row], labels[row])))
        self._jax.block_until_ready(made)

    def synchronise(self) -> None:
        """Wait for every array of the state, and for the losses."""
        self._jax.block_until_ready((self._state, self._losses))

    def losses(self) -> list[float]:
        """One copy from the device per call."""
        if self._losses:
            self._last_loss = self._losses[-1]
        found = self._jax.device_get(self._losses)
        self._losses.clear()
        return [float(loss) for of_a_call in found for loss in of_a_call.reshape(-1)]

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        """Sum over batches of one shape, read back at the end."""
        parameters, statistics = self._state.parameters, self._state.statistics
        if self._spread is not None:
            parameters, statistics = self._spread.of_one((parameters, statistics))
        batches = self._test[:1] if first_batch_only else self._test
        sums = self._jax.device_get([self._programs.evaluate(parameters, statistics, *batch) for batch in batches])
        loss, hits, weight = (math.fsum(map(float, column)) for column in zip(*sums, strict=True))
        return loss / weight, hits / weight

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """The moved statistics are dropped."""
        state = self._state
        if self._spread is not None:
            images, labels = self._spread.split_if_even((images, labels))
        results = self._programs.differentiate(state.parameters, state.statistics, images, labels)
        loss, logits, gradients = self._jax.device_get(results)
        return Gradients(logits, float(loss), self._named("params", gradients))

    def forward(self, images: Floats, training: bool) -> Floats:
        """The number of the call is folded into the dropout key."""
        state = self._state
        if self._spread is not None:
            images = self._spread.split_if_even(images)
        logits = self._programs.infer(state.parameters, state.statistics, images, self._forwards, training=training)
        self._forwards += 1
        array: Floats = self._jax.device_get(logits)
        return array

    def parameters(self) -> dict[str, Floats]:
        """Copies in host memory."""
        return self._named("params", self._jax.device_get(self._state.parameters))

    def statistics(self) -> dict[str, Floats]:
        """Copies in host memory."""
        return self._named("batch_stats", self._jax.device_get(self._state.statistics))

    def optimizer_state(self) -> dict[str, Floats]:
        """Copies in host memory; optax's trace comes after the rate, so it is the canonical velocity."""
        state = self._jax.device_get(self._state.optimizer)
        found: dict[str, Floats] = {}
        for part in state:
            for slot, field in SLOTS.items():
                if field in getattr(part, "_fields", ()):
                    named = self._named("params", getattr(part, field))
                    found |= {f"{slot}/{name}": array for name, array in named.items()}
        return found

    def steps_done(self) -> int:
        """The counter that the step itself raises."""
        return int(self._state.step)

    def masks(self, step: int) -> dict[str, Booleans]:
        """Drawn again: the key is made of the step's number."""
        parts = self._cell.target.parts(len(self._rows.row(step)))
        found: dict[str, Booleans] = self._jax.device_get(self._programs.masks(step, parts=parts))
        return found

    def held(self) -> dict[str, Any]:
        """Copies in host memory of the resident data."""
        if self._resident is None:
            return {}
        images, labels, _ = next(iter(self._resident.values()))
        rows = {size: data[-1] for size, data in self._resident.items()}
        if self._spread is not None:
            images, labels = map(self._spread.odd_one, (images, labels))
        images, labels, rows = self._jax.device_get((images, labels, rows))
        return {"images": images, "labels": labels, "order": self._rows.in_order(rows)}

    def apart(self) -> list[str]:
        """Parts of the state that are not the same on every device; on one device there is nothing to compare."""
        return [] if self._spread is None else self._spread.apart(self._state._asdict())

    def collectives(self) -> dict[str, int]:
        """In the program of a call; JAX keeps it, so nothing is compiled again."""
        stretch = self._rows.first_of(self._rows.sizes[0])
        many, (images, labels) = self._at_once > 1, self._host_data
        if self._resident is not None:
            program = self._programs.pick_and_advance_many if many else self._programs.pick_and_advance
            return jax_devices.collectives(program, self._state, *self._data(stretch))
        rows = self._rows.of_size[stretch.batch_size][: self._at_once]
        if many:
            batches = self._copy_many((images[rows], labels[rows]))
            return jax_devices.collectives(self._programs.advance_many, self._state, *batches)
        return jax_devices.collectives(
            self._programs.advance, self._state, *self._copy((images[rows[0]], labels[rows[0]]))
        )

    def part(self, name: str, direction: str, given: Mapping[str, Any]) -> jax_parts.JaxPart:
        """See ``backends.protocol.StepPart``."""
        size = self._cell.training.batch_size
        data = self._resident[size] if self._resident else (*self._host_data, self._rows.of_size[size])
        source = jax_parts.BatchSource(data, is_resident=self._resident is not None)
        return jax_parts.part(self._cell, self._forms, self._places, source, name, direction, given)

    def trace(self, steps: int, folder: str) -> None:
        """Of JAX's own profiler; nothing of Python's calls, which would be most of the events."""
        options = self._jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        self._jax.profiler.start_trace(folder, profiler_options=options)
        try:
            self.train(steps)
            self.synchronise()
        finally:
            self._jax.profiler.stop_trace()

    def device(self) -> dict[str, Any]:
        """Every device that holds a parameter or the last loss; ``peak_bytes_in_use`` of JAX's allocator."""
        leaves = self._jax.tree.leaves(self._state.parameters)
        last = self._losses[-1:] or [self._last_loss] * (self._last_loss is not None)
        devices = sorted({place for leaf in (*leaves, *last) for place in leaf.devices()}, key=str)
        return {
            "accelerators": sorted({_accelerator(place) for place in devices}),
            "parameters_on": sorted({str(place) for leaf in leaves for place in leaf.devices()}),
            "loss_on": sorted({str(place) for loss in last for place in loss.devices()}),
            "peak_device_memory_bytes": (devices[0].memory_stats() or {}).get("peak_bytes_in_use"),
        }

    def close(self) -> None:
        """Drop every reference to device memory."""
        self._losses.clear()
        self._state = self._resident = self._last_loss = None
        self._test = []

    def _named(self, wanted: str, tree: Any) -> dict[str, Floats]:
        places = self._places.items()
        return {name: tree[module][leaf] for name, (collection, module, leaf) in places if collection == wanted}


def _places(model: ModelSpec) -> dict[str, tuple[str, str, str]]:
    """Canonical full name -> Flax's collection, module and leaf."""
    places = {}
    for name in (*model.parameter_shapes, *model.statistic_shapes):
        module, key = name.split("/")
        collection, leaf = FLAX_LEAVES.get(key, ("params", key))
        places[name] = (collection, module, leaf)
    return places


def _initial(
    model: ModelSpec, places: Mapping[str, tuple[str, str, str]], parameters: Mapping[str, Floats]
) -> tuple[Any, Any]:
    """Flax's two collections on the device: the given parameters, means of zero, variances of one."""
    import jax.numpy as jnp

    collections: dict[str, dict[str, dict[str, Any]]] = {"params": {}, "batch_stats": {}}
    for name, (collection, module, leaf) in places.items():
        if collection == "params":
            # Copied even on a CPU, where JAX may borrow NumPy's memory: the state's memory is donated.
            value = jnp.array(parameters[name], copy=True)
        else:
            value = jnp.full(model.statistic_shapes[name], 1.0 if leaf == "var" else 0.0)
        collections[collection].setdefault(module, {})[leaf] = value
    return collections["params"], collections["batch_stats"]


def _evaluation_batches(images: Floats, labels: Integers) -> list[tuple[Floats, Integers, Floats]]:
    """Images, labels and weights in batches of EVALUATION_BATCH; the padding has weight zero."""
    import numpy as np

    batches = []
    for start in range(0, len(images), EVALUATION_BATCH):
        part, truth = images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH]
        around = (0, EVALUATION_BATCH - len(part))
        weights = np.ones(len(part), np.float32)
        batches.append((np.pad(part, (around, (0, 0), (0, 0), (0, 0))), np.pad(truth, around), np.pad(weights, around)))
    return batches


def _require(what: str, value: str, allowed: tuple[str, ...], refusals: Mapping[str, str] | None = None) -> None:
    if value not in allowed:
        reason = (refusals or {}).get(value, f"allowed: {', '.join(allowed)}")
        raise Unsupported(f"jax_flax has no {what} {value!r}: {reason}")


def _accelerator(device: Any) -> str:
    """JAX calls every GPU ``gpu``; the client's version says whether it is CUDA."""
    is_cuda = device.platform == "gpu" and "cuda" in device.client.platform_version.lower()
    return "cuda" if is_cuda else str(device.platform)


def _compute_threads() -> int | None:
    """Threads of XLA's CPU pool, counted in this process; None where the system does not show threads by name."""
    names = system.thread_names()
    return None if names is None else names.count("tf_XLAEigen")


def _first_line(error: BaseException) -> str:
    """The first line of a foreign message, at most 300 characters."""
    return str(error).strip().splitlines()[0][:300]
