"""TensorFlow with Keras: one source for TensorFlow 2.10 (Keras 2) and TensorFlow 2.21 (Keras 3).

Modes: ``graph`` (a ``tf.function`` step called in a loop), ``xla`` (the same, compiled by XLA), ``fit``
(``Model.compile`` and ``Model.fit``). XLA is on in ``xla`` and nowhere else. Accelerators: ``cpu``, ``cuda``,
and ``directml`` through its plugin for TensorFlow 2.10. The step is in ``tensorflow_steps``, ``fit`` in
``tensorflow_fit``, the model in ``tensorflow_model``; here is what concerns the process and the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import device_choice, tensorflow_parts, tensorflow_placement, tensorflow_replicas
from backends.protocol import EVALUATION_BATCH, Arrays, Capabilities, Gradients
from backends.tensorflow_fit import FitTrainer, new_recording, recording_model_class
from backends.tensorflow_layers import is_keras_2
from backends.tensorflow_model import Network
from backends.tensorflow_replica_layers import copies, is_mirrored
from backends.tensorflow_replicas import Recorder, ReplicaFitTrainer, ReplicaNetwork, Replicas, ReplicaTrainer
from backends.tensorflow_steps import StepTrainer
from backends.tensorflow_yardstick import TensorFlowYardstick
from harness.core import device_failures, knobs, system
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, ContractError, OutOfMemory, Unsupported, WorkerCrashed, WrongDevice
from harness.core.messages import Placed
from harness.core.model import LAYERS, BatchNorm
from harness.core.training import OPTIMIZERS, OPTIONS, PRECISIONS

if TYPE_CHECKING:
    from backends.protocol import Booleans, Floats, Integers

INPUTS = {"graph": ("resident", "host"), "xla": ("resident", "host"), "fit": ("host",)}
PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-intel",
    "tensorflow-directml-plugin",
    "keras",
    "numpy",
    "protobuf",
)
DEVICE_CHOICE = {"cuda": "CUDA_VISIBLE_DEVICES", "directml": "DML_VISIBLE_DEVICES"}
"""The variables by which devices are hidden from TensorFlow before it starts."""
TF32 = {"highest": False, "tf32": True}
SLOTS = {"sgd": (), "momentum": ("velocity",), "nesterov": ("velocity",), "adam": ("first", "second")}
"""Canonical names of an optimizer's slots, in TensorFlow's order."""
OUT_OF_MEMORY_SIGNS = ("out of memory", "OOM", "failed to allocate", "ALLOC_FAILED", "bad_alloc")
NO_BFLOAT16_ON_DIRECTML = "DirectML has no bfloat16 kernels for conv, matmul, relu, pool and cast"
NO_BFLOAT16_IN_KERAS_2 = "TensorFlow 2.10 fails in bfloat16 convolutions, average pools and fused batch normalisation"
"""Measured on CPUs; its other devices are not offered what was never tried."""
NO_WEIGHT_DECAY_IN_KERAS_2 = "Keras 2.10's optimizers have none, but for those that turn XLA on by themselves"
NO_DEVICES_ON_DIRECTML = "its plugin copies nothing between devices, and sees one adapter at a time"
"""Its maintainers, tensorflow-directml-plugin issue 258."""
XLA_AND_BATCH_NORM = (
    "batch normalisation adds up over the devices in the middle of a step, and a function that XLA compiles cannot "
    "wait for other devices there"
)
CLIPPED_ALONE = "Keras 3 clips each device's gradient by its own norm, before they are added up"
REASON_LENGTH = 300


class TensorFlowBackend:
    """One process's TensorFlow."""

    name = "tensorflow_keras"

    def __init__(self) -> None:
        self._device = "/CPU:0"
        self._accelerator = "cpu"
        self.replicas: Replicas | None = None
        self._refused: dict[str, str] = {}

    def capabilities(self) -> Capabilities:
        """What the loaded version can do; ``initialise`` refuses an accelerator that is not there."""
        return Capabilities(
            accelerators=("cpu", "cuda", "directml"),
            modes=tuple(INPUTS),
            inputs=dict(INPUTS),
            precisions=tuple(name for name in PRECISIONS if name not in self._refused),
            layers=tuple(LAYERS),
            optimizers=OPTIMIZERS,
            options=OPTIONS,
            can_fork=True,
            refusals={
                **self._refused,
                "l2_weight_decay in fit": "Keras would add it to the loss, which it reports and clips with it",
                "mixed_bfloat16 on directml": NO_BFLOAT16_ON_DIRECTML,
                "xla on directml": "TensorFlow has no XLA compiler for DirectML",
                "devices on directml": NO_DEVICES_ON_DIRECTML,
                "devices with steps_per_call in fit": "Keras's loop of several steps in a call fails with a strategy",
                "microbatch in fit": "Model.fit updates after every batch that its pipeline gives it",
                "plan of batch sizes in fit": "Model.fit compiles a batch size when it first meets it, in training",
                "fit with input resident": "Model.fit reads its batches from a tf.data pipeline in host memory",
            },
            loops={"graph": INPUTS["graph"], "xla": INPUTS["xla"], "fit": INPUTS["fit"]},
            plans=("graph", "xla"),
            microbatches=("graph", "xla"),
            devices=tuple(INPUTS),
            knobs=knobs.OF_BACKENDS[self.name],
        )

    def load(self) -> None:
        """Import TensorFlow and Keras; no operation runs and no device is touched, so a fork is safe."""
        import tensorflow as tf

        # tf.keras is imported on first use: here, once for all forks, rather than in each of them.
        for part in ("layers", "optimizers", "callbacks", "losses"):
            getattr(tf.keras, part)
        if is_keras_2():
            self._refused = {
                "mixed_bfloat16": NO_BFLOAT16_IN_KERAS_2,
                "decoupled_weight_decay in fit": NO_WEIGHT_DECAY_IN_KERAS_2,
            }
        tf.get_logger().setLevel("ERROR")

    def versions(self) -> dict[str, str]:
        """Versions of the installed packages that matter, and of the Keras in use."""
        import tensorflow as tf

        found = {"tensorflow": str(tf.__version__), "keras": str(tf.keras.__version__)}
        for package in PACKAGES:
            try:
                found.setdefault(package, metadata.version(package))
            except metadata.PackageNotFoundError:
                continue
        return found

    def initialise(self, target: Target) -> dict[str, Any]:
        """Choose the device, forbid or allow TF32, run one operation there, and say what is found.

        Thread counts are left to TensorFlow, which takes the processors of the affinity mask that
        holds when the first operation runs.
        """
        import tensorflow as tf

        if target.matmul_precision not in TF32:
            raise Unsupported(
                f"matmul_precision {target.matmul_precision!r} is not known here; allowed: {', '.join(TF32)}"
            )
        if not is_keras_2() and tf.keras.config.backend() != "tensorflow":
            raise Unsupported(
                f"Keras computes with {tf.keras.config.backend()!r} here: KERAS_BACKEND must be tensorflow or unset"
            )
        tf.config.experimental.enable_tensor_float_32_execution(TF32[target.matmul_precision])
        details = self._choose(target)
        with tf.device(self._device):
            where = tf.add(tf.constant(1.0), 1.0).device
        if (":CPU:" in where) != (target.accelerator == "cpu"):
            raise WrongDevice(f"asked for {target.accelerator}, but the first operation ran on {where}")
        return {
            **self._together(target),
            "accelerator": target.accelerator,
            "device_name": details.get("device_name", "CPU"),
            "compute_capability": ".".join(map(str, details.get("compute_capability", ()))) or None,
            "devices": [device.name for device in tf.config.list_logical_devices()],
            "first_operation_on": where,
            "intra_op_threads_asked": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op_threads_asked": tf.config.threading.get_inter_op_parallelism_threads(),
            "threads": system.thread_count(),
            "xla": target.mode == "xla",
            "tf32": bool(tf.config.experimental.tensor_float_32_execution_enabled()),
            "onednn": _onednn(),
            "preallocation": False,  # memory growth is on: see _choose
            "is_cuda_build": bool(tf.sysconfig.get_build_info()["is_cuda_build"]),
            "dropout": "stateful" if is_keras_2() and target.mode == "fit" else "stateless",
        }

    def session(self, cell: Cell, arrays: Arrays) -> TensorFlowSession:
        """Build the cell. Raises Unsupported for a mode, input or precision that is not offered."""
        self._require(cell)
        forms = knobs.chosen(cell.target.all_options, self.capabilities().knobs)
        return TensorFlowSession(cell, arrays, self._device, forms, self.replicas)

    def yardstick(self, target: Target) -> TensorFlowYardstick:
        """On the device that ``initialise`` chose; products through XLA in mode ``xla`` alone."""
        return TensorFlowYardstick(self._device, compiled=target.mode == "xla")

    def translate(self, error: BaseException) -> CellError | None:
        """Most specific first: a lost device, then memory, then what has no kernel or compiler."""
        import tensorflow as tf

        if isinstance(error, CellError):
            return error
        reason = " ".join(str(error).split())[:REASON_LENGTH]
        if isinstance(error, tf.errors.OpError) and (native := device_failures.meaning(str(error))) is not None:
            return native
        if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
            return OutOfMemory(f"TensorFlow ran out of memory: {reason}")
        if not isinstance(error, tf.errors.OpError):
            return None
        if any(sign in reason for sign in OUT_OF_MEMORY_SIGNS):
            return OutOfMemory(f"TensorFlow ran out of memory: {reason}")
        if (
            isinstance(error, (tf.errors.UnimplementedError, tf.errors.NotFoundError))
            or "Could not find compiler" in reason
        ):
            return Unsupported(f"TensorFlow has no kernel for this: {reason}")
        return WorkerCrashed(f"TensorFlow {type(error).__name__}: {reason}")

    def _together(self, target: Target) -> dict[str, Any]:
        """Several devices as one strategy; facts about it."""
        import tensorflow as tf

        if target.devices == 1:
            return {}
        kind = self._device.strip("/").partition(":")[0]
        found = tf.config.list_logical_devices(kind)
        device_choice.require_enough(target, len(found))
        self.replicas = Replicas([f"/{kind}:{number}" for number in range(target.devices)])
        collective = tensorflow_replicas.collective_name(self.replicas.strategy)
        return device_choice.together(target, [device.name for device in found[: target.devices]], collective)

    def _choose(self, target: Target) -> dict[str, Any]:
        """Make the target's device the only one besides the CPU. Returns TensorFlow's details of it.

        Likewise several; of a processor as many logical ones are made.
        """
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        self._accelerator = target.accelerator
        if target.accelerator == "cpu":
            tf.config.set_visible_devices([], "GPU")
            self._device = "/CPU:0"
            if target.devices > 1:
                (processor,) = tf.config.list_physical_devices("CPU")
                logical = [tf.config.LogicalDeviceConfiguration() for _ in range(target.devices)]
                tf.config.set_logical_device_configuration(processor, logical)
            return {}
        if target.accelerator not in DEVICE_CHOICE:
            allowed = ", ".join(("cpu", *DEVICE_CHOICE))
            raise Unsupported(f"accelerator {target.accelerator!r} is not known to TensorFlow here; allowed: {allowed}")
        built_for_cuda = bool(tf.sysconfig.get_build_info()["is_cuda_build"])
        if built_for_cuda != (target.accelerator == "cuda"):
            raise WrongDevice(
                f"asked for {target.accelerator}, but this TensorFlow {tf.__version__} is "
                f"{'a CUDA build' if built_for_cuda else 'not a CUDA build'}"
            )
        if not gpus:
            raise WrongDevice(f"asked for {target.accelerator}, but TensorFlow {tf.__version__} sees no such device")
        variable = DEVICE_CHOICE[target.accelerator]
        index = device_choice.index_of(target.device, variable)
        device_choice.require_visible(index, len(gpus), target.device, variable)
        chosen = gpus[index]
        details = dict(tf.config.experimental.get_device_details(chosen))
        if target.accelerator == "cuda" and "compute_capability" not in details:
            raise WrongDevice(f"asked for cuda, but {chosen.name} tells no compute capability: {details}")
        if target.accelerator == "directml" and details.get("device_name") != "DML":
            raise WrongDevice(f"asked for directml, but {chosen.name} is {details.get('device_name')!r}, not DML")
        wanted = gpus[index : index + target.devices]
        device_choice.require_enough(target, len(wanted))
        tf.config.set_visible_devices(wanted, "GPU")
        for one in wanted:
            tf.config.experimental.set_memory_growth(one, True)
        self._device = "/GPU:0"
        return details

    def _require(self, cell: Cell) -> None:
        offered = self.capabilities()
        mode, form = cell.target.mode, cell.target.input
        if mode not in offered.modes:
            raise Unsupported(f"TensorFlow has no mode {mode!r}; allowed: {', '.join(offered.modes)}")
        if form not in offered.inputs[mode]:
            raise Unsupported(f"mode {mode} has no input {form!r}; allowed: {', '.join(offered.inputs[mode])}")
        precision = cell.training.precision
        why = offered.refusals.get(f"{precision} on {self._accelerator}", offered.refusals.get(precision))
        if why is not None or precision not in offered.precisions:
            raise Unsupported(f"precision {precision}: {why or 'unknown'}")
        if cell.training.optimizer.name not in offered.optimizers:
            raise Unsupported(
                f"no optimizer {cell.training.optimizer.name!r}; allowed: {', '.join(offered.optimizers)}"
            )
        at_once = cell.target.steps_per_call
        if mode == "fit" and cell.steps_per_epoch % at_once:
            raise Unsupported(
                f"fit with steps_per_call={at_once}: Model.fit has no single steps beside steps_per_execution, and the "
                f"{cell.steps_per_epoch} steps of an epoch are no multiple of {at_once}"
            )
        normalises = any(isinstance(trace.layer, BatchNorm) for trace in cell.model.traced)
        if mode == "xla" and cell.target.devices > 1 and normalises:
            raise Unsupported(f"xla with devices={cell.target.devices}: {XLA_AND_BATCH_NORM}")
        if mode == "fit" and cell.target.devices > 1 and cell.training.optimizer.clip_norm and not is_keras_2():
            raise Unsupported(f"clip_norm in fit with devices={cell.target.devices}: {CLIPPED_ALONE}")
        if mode == "xla" and self._accelerator == "directml":
            raise Unsupported(offered.refusals["xla on directml"])


class TensorFlowSession:
    """One cell: a ``Network`` and the trainer of its mode."""

    def __init__(
        self, cell: Cell, arrays: Arrays, device: str, forms: Mapping[str, str], replicas: Replicas | None = None
    ) -> None:
        import tensorflow as tf

        fit = cell.target.mode == "fit"
        self._trainer: FitTrainer | StepTrainer
        self._network: Network
        if replicas is not None:
            self._network, self._trainer = _replicated(cell, arrays, device, forms, replicas)
        else:
            with tf.device(device):
                recorded = new_recording(cell.target.steps_per_call) if fit else None
                self._network = Network(
                    cell.model,
                    cell.training,
                    arrays.parameters,
                    compiled=cell.target.mode == "xla",
                    model_class=recording_model_class(recorded) if fit else tf.keras.Sequential,
                )
            if fit:
                self._trainer = FitTrainer(self._network, cell, arrays, recorded)
            else:
                self._trainer = StepTrainer(self._network, cell, arrays, device, forms)
        self._test = (arrays.test_images, arrays.test_labels)
        self._steps_left = cell.total_steps
        self._optimizer = cell.training.optimizer.name
        self._cell, self._device = cell, device
        self._kind = device.strip("/").partition(":")[0]

    def train(self, steps: int) -> None:
        """Enqueue the next ``steps`` steps. Raises ContractError beyond the end of the order."""
        if steps > self._steps_left:
            raise ContractError(f"asked for {steps} more steps, but only {self._steps_left} are left of the order")
        self._steps_left -= steps
        self._trainer.train(steps)

    def prepare(self, batch_size: int) -> None:
        """Trace, compile and run the step of a batch size without a trace in what is trained; not in ``fit``."""
        if isinstance(self._trainer, StepTrainer):
            self._trainer.prepare(batch_size)

    def synchronise(self) -> None:
        """Return when every enqueued step is finished on the device."""
        self._trainer.synchronise()

    def losses(self) -> list[float]:
        """Mean batch loss of each step since the last call."""
        return self._trainer.losses()

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        """Mean loss and accuracy over the test set, or its first EVALUATION_BATCH images."""
        images, labels = self._test
        end = EVALUATION_BATCH if first_batch_only else len(images)
        return self._network.evaluate(images[:end], labels[:end])

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Logits, loss and gradients in training form at the present parameters; changes nothing."""
        return self._network.gradients(images, labels)

    def forward(self, images: Floats, training: bool) -> Floats:
        """Logits (N, classes); the moving statistics stay as they are."""
        return self._network.forward(images, training)

    def parameters(self) -> dict[str, Floats]:
        """Full name -> array of everything trained."""
        return self._network.parameters()

    def statistics(self) -> dict[str, Floats]:
        """Full name -> array of the moving statistics."""
        return self._network.statistics()

    def optimizer_state(self) -> dict[str, Floats]:
        """Copies in host memory: Keras's optimizers and TensorFlow's operations have the canonical velocity."""
        slots = self._trainer.optimizer_state()
        names = SLOTS[self._optimizer]
        if not slots:
            slots = [[np.zeros(variable.shape, np.float32) for variable in self._network.trained.values()]] * len(names)
        return {
            f"{slot}/{name}": array
            for slot, arrays in zip(names, slots, strict=True)
            for name, array in zip(self._network.trained, arrays, strict=True)
        }

    def steps_done(self) -> int:
        """As the optimizer of ``fit``, or else the step itself, counts."""
        return self._trainer.steps_done()

    def masks(self, step: int) -> dict[str, Booleans] | None:
        """Drawn again from the layers' counts; Keras 2's ``fit`` draws from a stream, which cannot be read again."""
        cell = self._cell
        since = range(step, self._trainer.steps_done())
        passes = sum(len(cell.target.parts(cell.batch_size_at(one))) for one in since)
        found = []
        for place, size in enumerate(cell.target.parts(cell.batch_size_at(step))):
            masks = self._network.masks(passes - place, size)
            if masks is None:
                return None
            found.append(masks)
        return {name: np.concatenate([masks[name] for masks in found]) for name in found[0]}

    def held(self) -> dict[str, Any]:
        """Copies of the resident data, or of what the pipeline of ``fit`` gathers from."""
        return self._trainer.held()

    def device(self) -> dict[str, Any]:
        """Device strings of the parameters and the last loss; peak memory where the device counts it."""
        import tensorflow as tf

        loss = self._trainer.last_loss()
        losses = loss if isinstance(loss, tuple) else () if loss is None else (loss,)
        trained = [
            one
            for variable in self._network.trained.values()
            for one in (copies(variable) if is_mirrored(variable) else [variable])
        ]
        facts: dict[str, Any] = {
            "parameters_on": sorted({str(variable.device) for variable in trained}),
            "loss_on": [str(getattr(one, "backing_device", one.device)) for one in losses],
            "peak_device_memory_bytes": None,
            "threads": system.thread_count(),
        }
        if any(":GPU:" in place for place in facts["parameters_on"]):
            with contextlib.suppress(ValueError, tf.errors.OpError):
                facts["peak_device_memory_bytes"] = int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        return facts

    def apart(self) -> list[str]:
        """Names of variables whose copies are not the same on every device; on one there is nothing to compare."""
        if not isinstance(self._trainer, (ReplicaTrainer, ReplicaFitTrainer)):
            return []
        network = {**self._network.trained, **self._network.moving}
        return tensorflow_replicas.apart({**network, **self._trainer.changed()})

    def collectives(self) -> dict[str, int]:
        """In the traced graphs of the steps."""
        if not isinstance(self._trainer, (ReplicaTrainer, ReplicaFitTrainer)):
            return {}
        return tensorflow_replicas.collectives(self._trainer.graphs())

    def placement(self, kernels_of: str) -> Placed:
        """Where each operation of a step runs; trains two more steps. ``kernels_of``: see ``messages.Placement``."""

        def step() -> None:
            self.train(1)
            self.synchronise()

        return tensorflow_placement.placement(step, kernels_of or self._kind)

    def part(self, name: str, direction: str, given: Mapping[str, Any]) -> tensorflow_parts.TensorFlowPart:
        """See ``backends.protocol.StepPart``."""
        import tensorflow as tf

        with tf.device(self._device):
            return tensorflow_parts.part(self._cell, self._network, self._trainer, name, direction, given)

    def trace(self, steps: int, folder: str) -> None:
        """Of TensorFlow's own profiler; nothing of Python's calls."""
        import tensorflow as tf

        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
        tf.profiler.experimental.start(folder, options=options)
        try:
            self.train(steps)
            self.synchronise()
        finally:
            tf.profiler.experimental.stop()

    def close(self) -> None:
        """End the thread of ``fit``; let go of dataset and step."""
        self._trainer.close()


def _replicated(
    cell: Cell, arrays: Arrays, device: str, forms: Mapping[str, str], replicas: Replicas
) -> tuple[Network, ReplicaFitTrainer | ReplicaTrainer]:
    """Network and trainer of a cell on several devices."""
    import tensorflow as tf

    fit = cell.target.mode == "fit"
    with replicas.scope():
        recorded = new_recording(cell.target.steps_per_call) if fit else None
    recorder = Recorder()
    model_class = recording_model_class(recorded, recorder) if fit else tf.keras.Sequential
    network = ReplicaNetwork(replicas, cell, arrays.parameters, model_class)
    if not fit:
        return network, ReplicaTrainer(network, cell, arrays, device, forms)
    return network, ReplicaFitTrainer(network, cell, arrays, recorded, recorder)


def _onednn() -> bool | None:
    """Whether CPU operations go through oneDNN; TensorFlow tells only in a private module."""
    try:
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        return None
    return bool(_pywrap_util_port.IsMklEnabled())
