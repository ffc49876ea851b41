"""What a backend must be: the contract for those who write an adapter.

A ``Backend`` is one framework; a ``Session`` is one cell inside it. The worker calls, in this order,
each in the process that will train (a forked child, or a process of its own):

    backend.load()                    import the framework; touch no device (before the fork, in the host)
    backend.versions()                packages and versions, for the record
    backend.capabilities()            what it can do, as data
    backend.initialise(target)        choose and wake the device; returns facts about it
    backend.session(cell, arrays)     build model and optimizer, move resident data to the device
    session.train(n) ...              enqueue n steps
    session.synchronise()             wait until all of it has really happened

Rules. Layouts are canonical (see ``harness.core.model``): the adapter transposes, nobody else does.
Step t of the cell trains on ``arrays.order[t // steps_per_epoch, t % steps_per_epoch]``: a row of example
indices; where the batch size changes, on row t of ``arrays.pieces``, one after the other. Mathematics is canonical
(``harness.core.training``), its ``TrainingSpec.options`` included, of which a backend is asked for those alone that it
declares; dropout masks are the framework's own, seeded from ``cell.training.seed``.
``train`` may return before the work is done and must not wait for it; it does nothing that the shortest loop in that
framework would not do. Where ``cell.target.steps_per_call`` is K, which only a backend that declares it is asked for,
``train(n)`` makes n // K calls of K steps each and single steps of the rest; there is a loss for every step all the
same. Where ``cell.target.microbatch`` is M, which likewise is asked for, a step takes the examples of its row in parts
of ``cell.target.parts``, one after the other, each with dropout of its own, adds up their mean gradients weighted by
their share of the batch, and updates once. Where ``cell.target.devices`` is N, likewise, each step is trained on N
devices together, the n-th of which takes the n-th of N equal parts of the row: gradients, loss and batch statistics are
those of the whole batch, each device draws dropout masks of its own, and parameters stay equal on all of them, bit by
bit. ``initialise`` then says ``replica_devices``, ``collective`` and ``logical_devices`` (``backends.device_choice``),
``synchronise`` waits for all of them, and the session is ``Replicated``.

A backend that can keep compiled programs in a folder has a method
``keep_programs(folder)`` as well, which is called before ``initialise``. One that can show what its device does at most
has ``yardstick(target)``, which gives a ``Yardstick`` after ``initialise``.
A session that runs a step as single operations, each of which could fall back to another device, has
``placement(kernels_of)``: it trains two more steps and gives a ``Placed`` (``harness.core.messages``).

So that its training can be witnessed, a session that can has four more, none of which may cost a training step
anything (``Witnessed``): ``optimizer_state``, ``steps_done``, ``masks`` and ``held``. What a session has not is said in
the record and counts as not shown.

One that can run the parts of its step on their own has ``part(name, direction, given)``, which gives a ``StepPart``;
one whose framework has a profiler, ``trace(steps, folder)``, which trains so many steps under it, waits for them, and
leaves what the profiler writes in the folder. Foreign errors are translated by ``translate``. An adapter reads no
clock, prints nothing and writes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.cell import Cell, Target
from harness.core.errors import CellError
from harness.core.knobs import Knob
from harness.core.training import PLANS as PLANS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Integers = NDArray[np.integer[Any]]
    Booleans = NDArray[np.bool_]

EVALUATION_BATCH = 500
"""Images per evaluation step, the same for every cell; a last partial batch is padded and not counted."""


@dataclass(frozen=True)
class Arrays:
    """What a cell works on, in host memory.

    Images float32 (N, H, W, C), labels int32 (N,); ``parameters`` full name -> float32 array;
    ``order`` int32 (epochs, steps per epoch, batch size). Where the batch size changes, which only a backend that
    declares ``plans`` is asked for, ``pieces`` are one int32 array (steps, batch size) for each piece of the plan in
    training order (``backends.rows`` reads both forms); ``order`` then holds the epochs of the first piece alone, or
    where the size changes at a step, within an epoch maybe, its steps as one epoch.
    """

    train_images: Floats
    train_labels: Integers
    test_images: Floats
    test_labels: Integers
    parameters: Mapping[str, Floats]
    order: Integers
    pieces: tuple[Integers, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, as data that feeds the support table. ``modes`` has the default first.

    ``inputs`` maps each mode to the input forms it supports, default first. ``refusals`` maps a thing it cannot
    do (a layer, a precision; "THING on ACCELERATOR" or "THING in MODE" where elsewhere it can) to the reason, one line
    each. ``can_fork``: whether the loaded framework survives a fork, on systems where a process may fork at all.
    ``loops`` maps each mode that can train several steps in one call to the inputs with which it can; one that says
    nothing trains step by step. ``knobs``: what can be done in more than one way, to the same result.
    ``options``: those of ``harness.core.training.OPTIONS`` that it can train with; ``refusals`` may say why not, or
    "THING in MODE" of one that it cannot do there. ``plans``: the modes in which the batch size may change from step
    to step, whose sessions are ``ChangesBatchSize``.
    ``microbatches``: the modes that accumulate the gradient of a batch from parts (``Target.microbatch``).
    ``devices``: the modes that train on several devices (``Target.devices``).
    """

    accelerators: tuple[str, ...]
    modes: tuple[str, ...]
    inputs: Mapping[str, tuple[str, ...]]
    precisions: tuple[str, ...]
    layers: tuple[str, ...]
    optimizers: tuple[str, ...]
    can_fork: bool
    refusals: Mapping[str, str]
    loops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    knobs: tuple[Knob, ...] = ()
    options: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    microbatches: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gradients:
    """On one batch in training form: logits (B, classes), mean loss, and full parameter name -> gradient.

    The loss is that of training, label smoothing included. Gradients are the loss's own: not clipped, without decay.
    """

    logits: Floats
    loss: float
    gradients: Mapping[str, Floats]


class Session(Protocol):
    """One cell, built. All arrays returned are NumPy, canonical in layout."""

    def train(self, steps: int) -> None:
        """Enqueue the next ``steps`` training steps of the order; never past its end."""

    def synchronise(self) -> None:
        """Return only when every enqueued step is finished on the device."""

    def losses(self) -> list[float]:
        """Mean batch loss of each step since the last call, labels smoothed. Called after ``synchronise``, untimed."""

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        """Mean loss and accuracy over the test set (or its first EVALUATION_BATCH images), in evaluation form.

        Labels are as they are, not smoothed. Finished on return.
        """

    def gradients(self, images: Floats, labels: Integers) -> Gradients:
        """Logits, loss and gradients in training form at the present parameters; changes nothing.

        Moving statistics stay as they are. Dropout is that of a training step, its masks seeded from
        ``cell.training.seed``.
        """

    def forward(self, images: Floats, training: bool) -> Floats:
        """Logits (N, classes); ``training`` applies dropout (fresh at each call) and batch statistics."""

    def parameters(self) -> dict[str, Floats]:
        """Full name -> array of everything trained."""

    def statistics(self) -> dict[str, Floats]:
        """Full name -> array of the moving statistics."""

    def device(self) -> dict[str, Any]:
        """Facts for the record; others than these may follow.

        ``parameters_on`` and ``loss_on``: lists of the framework's own device names, where they really live; the latter
        is empty before the first step. On anything but a processor a cell counts only if neither names a processor,
        and if ``accelerators``, which may be left out, holds the target's accelerator alone.
        ``peak_device_memory_bytes``: the most bytes that the framework's allocator had handed out on the device at
        one time in this process, rounded up as it does; not what it had reserved from the driver, which is more.
        None where the framework does not tell, as on processors.
        """

    def close(self) -> None:
        """Release threads and memory."""


class Witnessed(Protocol):
    """What a session may have besides, each method for itself. Called after ``synchronise``, untimed."""

    def optimizer_state(self) -> dict[str, Floats]:
        """``SLOT/NAME`` -> array: of each parameter ``velocity``, or Adam's ``first`` and ``second`` moment.

        As ``harness.core.training`` writes them: the velocity has the rate in it and is added to the parameter.
        Zeros before the first step; empty for sgd.
        """

    def steps_done(self) -> int:
        """Training steps finished, as the optimizer or the step itself counts them on the device."""

    def masks(self, step: int) -> dict[str, Booleans] | None:
        """Layer name -> what dropout kept (B, ...) in training step ``step``, one of the past, counted from 0.

        For steps since which nothing but training drew masks. None where the framework cannot draw them again.
        """

    def held(self) -> dict[str, NDArray[Any]]:
        """What training reads, from where it reads it: ``images`` (N, H, W, C), ``labels`` (N,), ``order`` (steps, B).

        Without what is sent from the host batch by batch.
        """


class ChangesBatchSize(Protocol):
    """What a session has besides in a mode of ``Capabilities.plans``."""

    def prepare(self, batch_size: int) -> None:
        """Have all ready that a training step of this batch size needs, compiled and run once, and wait for it.

        Parameters, statistics, optimizer, counts and what dropout will draw stay exactly as they are.
        """


class Replicated(Protocol):
    """What a session has besides where its target asks for several devices. Called after ``synchronise``, untimed."""

    def apart(self) -> list[str]:
        """Names of what training changes (parameters, statistics, optimizer, counts) and the devices have unequal."""

    def collectives(self) -> dict[str, int]:
        """Operations of a training step that the devices do together, by kind, as the compiled program has them."""


class Yardstick(Protocol):
    """Two plain operations on the target's device, in the target's mode and ``matmul_precision``.

    Each method makes its arrays and returns what does the operation a number of times in a row, each on the
    result of the one before, and returns only when all of it has really happened on the device.
    """

    dtype: str
    value_bytes: int

    def product(self, size: int) -> Callable[[int], None]:
        """Multiply two square matrices of ``size`` rows whose entries keep the results of the same magnitude."""

    def addition(self, values: int) -> Callable[[int], None]:
        """Add one array of ``values`` to another in place: two are read, one is written, none is allocated."""


class StepPart(Protocol):
    """One part of a training step on its own, at the cell's batch size, precision and mode, on the cell's device.

    ``name`` and ``direction`` are of ``harness.core.parts.askable``. It is the program that the step would have for
    that part, compiled alone: the same layer, in training form, with the same options. ``given`` are canonical float32
    arrays in host memory; they are moved to the device, and to the type of activations where they are such, before any
    time counts.

    - A layer: ``input`` (B, ...), ``parameter/KEY`` of its own, and for ``both`` ``output_gradient`` (B, ...). ``both``
      gives the gradient by its input only where ``harness.core.parts.trained_before``: no step needs it elsewhere.
    - ``loss``: ``input`` (B, classes), the logits, and ``labels`` (B,) int32; the mean over the batch.
    - ``optimizer``: ``parameter/NAME`` and ``gradient/NAME`` of all parameters; the update of step 0 from empty state.
    - ``input``: nothing; it picks the batch of a step as the cell's input form has it.
    - ``dispatch``: nothing; a call of the framework that does next to nothing.

    The cell's own parameters and its place in the order stay as they are; what was moved of the moving statistics may
    stay moved.
    """

    def run(self, times: int) -> None:
        """Do it ``times`` times, each after the one before; return only when all of it has really happened."""

    def values(self) -> dict[str, Floats]:
        """What it gives, done once, as NumPy arrays in canonical layout.

        A layer: ``output`` and, for ``both``, ``gradient/KEY`` and ``gradient/input``. ``loss``: likewise, ``output``
        being (). ``optimizer``: ``parameter/NAME`` after the update. ``input``: ``images`` and ``labels`` of step 0.
        ``dispatch``: nothing.
        """


class Backend(Protocol):
    """One framework. The class takes no arguments; importing its module must not import the framework."""

    name: str

    def capabilities(self) -> Capabilities:
        """What it can do with the framework version that ``load`` imported."""

    def load(self) -> None:
        """Import the framework. After this a fork must still be safe, or ``can_fork`` be false."""

    def versions(self) -> dict[str, str]:
        """Package name -> version of what matters for the result."""

    def initialise(self, target: Target) -> dict[str, Any]:
        """Wake the device, set threads and precision. Raises WrongDevice or Unsupported. Returns facts (JSON)."""

    def session(self, cell: Cell, arrays: Arrays) -> Session:
        """Build the cell. Raises Unsupported with the reason."""

    def translate(self, error: BaseException) -> CellError | None:
        """The typed error that a framework's exception stands for, or None if it is not known."""
