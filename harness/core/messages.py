"""The lines exchanged with a worker: one JSON object a line, with its type under ``kind``.

The harness asks, the worker answers: there is never more than one question under way. A host
announces itself with ``HostReady``; on ``Open`` it forks a child (or serves the cell itself where it
cannot fork), which answers ``Opened`` and then each question until ``Close``. ``Failed`` may answer any
question and ends the cell. When a child has ended, the host says ``ChildExited``. Arrays travel as
files whose paths the messages name.

    harness                     host                child
    (starts it)          -----> imports framework
                         <----- HostReady
    Open                 -----> forks        -----> builds
                         <--------------------------Opened
    Train, Compile, Evaluate, Probe, Forward, Synchrony, Limit, Placement, Snapshot, Masks, Inventory, Replay, Part,
    Trace                -------------------------> works
                         <-------------------------- Block, Compiled, Evaluated, Probed, Forwarded, Synchronised,
                                                     Limited, Placed, Snapshotted, Masked, Inventoried, Replayed,
                                                     PartTimed, Traced
    Close                -------------------------->
                         <-------------------------- Closed, then exits
                         <----- ChildExited
    (closes stdin)       -----> exits
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import ContractError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is no message."""


@dataclass(frozen=True)
class Open:
    """Prepare one cell.

    ``dataset``: a folder with train_images.npy (N, H, W, C), train_labels.npy (N,), test_images.npy,
    test_labels.npy; uint8 images are divided by 255, float images taken as they are.
    ``parameters``: an .npz, full parameter name -> float32 array. ``order``: an .npy of int32
    (epochs, examples), a permutation of the examples per epoch. ``programs``: a folder in which a backend that can
    may keep compiled programs and find them again, so that the next process need not compile; empty: every process
    compiles afresh. ``scratch``: besides ``programs`` the only folder that the worker may write to.
    """

    kind: ClassVar[str] = "open"
    cell: Cell
    dataset: str
    parameters: str
    order: str
    scratch: str
    programs: str = ""


@dataclass(frozen=True)
class Train:
    """Run the next ``settle + steps`` training steps. They must not cross an epoch's end.

    The first ``settle`` are trained and synchronised before the clock starts: after another lane's turn the
    caches hold that one's data. Then ``steps`` follow, timed, with a synchronisation at their end.

    With ``rest`` the answer waits until no thread of the worker is at work any more, so that whoever runs next has
    the machine to itself: a framework may go on after its results are there, as XLA does when it gives a step's
    scratch memory back. In training such work goes on beside the next step and is part of what that takes; so it is
    never timed on its own, and who asks for ``rest`` asks for ``settle`` too where there is much of it.
    """

    kind: ClassVar[str] = "train"
    steps: int
    settle: int = 0
    rest: bool = False


@dataclass(frozen=True)
class Compile:
    """Compile what a training step of this batch size of the cell's plan needs, and leave its state as it is."""

    kind: ClassVar[str] = "prepare"
    batch_size: int


@dataclass(frozen=True)
class Evaluate:
    """Evaluate on the whole test set."""

    kind: ClassVar[str] = "evaluate"


@dataclass(frozen=True)
class Probe:
    """For parity: write what the first batch gives and what ``steps`` steps lead to, as .npz ``output``.

    Keys: ``logits`` (B, classes), ``loss`` (), ``gradient/NAME`` on the initial parameters in
    training form; then ``losses`` (steps,), ``parameter/NAME`` and ``statistic/NAME`` after the
    steps; ``evaluation_logits`` (B, classes) in evaluation form after the steps. The reference adds
    ``kink_margin`` (): how far all steps stayed from a branch of the mathematics (``backends.reference``).
    ``evaluate`` asks for ``test_loss`` () and ``test_accuracy`` () over the test set after the steps too.
    """

    kind: ClassVar[str] = "probe"
    steps: int
    output: str
    evaluate: bool = False


@dataclass(frozen=True)
class Forward:
    """Write ``logits`` (repeats, examples, classes) of the first ``examples`` training images, as .npz ``output``."""

    kind: ClassVar[str] = "forward"
    examples: int
    repeats: int
    training: bool
    output: str


@dataclass(frozen=True)
class Synchrony:
    """Time blocks of each step count in ``steps``, and one block of ``control`` steps that nothing waits for.

    ``repeats`` times over, each beginning with two steps to find what a read-back takes when nothing is outstanding.
    That is ``repeats * (2 + sum(steps) + control)`` training steps, which must not cross an epoch's end.
    """

    kind: ClassVar[str] = "synchrony"
    steps: list[int]
    control: int
    repeats: int


@dataclass(frozen=True)
class Limit:
    """Measure what the device can do at most through this framework, whatever the cell trains.

    ``memory_bytes``: the most that the arrays for it may take together.
    """

    kind: ClassVar[str] = "limit"
    memory_bytes: int


@dataclass(frozen=True)
class Placement:
    """Say of every operation of a training step where it runs: two more steps are trained for that, their losses lost.

    ``kernels_of``: the kind of device, as the framework calls it, whose kernels the operations are looked up among;
    empty for the cell's own. It need not be there: its kernels are registered when its library is loaded.
    """

    kind: ClassVar[str] = "placement"
    kernels_of: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Write the cell's state as it is now, as .npz ``output``.

    Keys: ``parameter/NAME`` and ``statistic/NAME``; ``optimizer/SLOT/NAME`` and ``steps`` () as the device counts
    them, where the backend can show them (``backends.protocol.Witnessed``). Of a target with several devices, ``apart``
    () is how many of all arrays that training changes they have unequal.
    """

    kind: ClassVar[str] = "snapshot"
    output: str


@dataclass(frozen=True)
class Masks:
    """Write what dropout kept in ``steps`` training steps from ``first_step`` on, all past, as .npz ``output``.

    Keys: ``STEP/LAYER`` -> bool (B, ...). Since those steps nothing but training may have drawn masks.
    """

    kind: ClassVar[str] = "masks"
    first_step: int
    steps: int
    output: str


@dataclass(frozen=True)
class Inventory:
    """Say how many steps the device has counted, and what it holds of the data."""

    kind: ClassVar[str] = "inventory"


@dataclass(frozen=True)
class Replay:
    """Asked of the reference's worker: train ``steps`` steps of the open cell from a state, and tell how far rounding
    may move each number.

    ``state``: an .npz as ``Snapshot`` writes it. ``roundoff``: unit roundoff of what the target computes in. ``masks``:
    an .npz as ``Masks`` writes it; empty for none: then dropout layers draw the reference's own. Keys of the .npz
    ``output``: ``losses`` (steps,), ``parameter/NAME``, ``statistic/NAME`` and ``optimizer/SLOT/NAME`` after the steps;
    with ``gradients`` also ``gradient/NAME``, ``logits`` and ``loss`` of the first step's batch at the given state; and
    for each KEY of these ``deviation/KEY`` of the same shape: the standard deviation of what rounding does to it.
    """

    kind: ClassVar[str] = "replay"
    state: str
    first_step: int
    steps: int
    output: str
    roundoff: float
    masks: str = ""
    gradients: bool = False


@dataclass(frozen=True)
class Part:
    """Run a part of the training step on its own: ``settle`` calls in a row, then ``calls``, which are timed.

    ``name`` and ``direction``: see ``harness.core.parts.askable``. ``given``: an .npz of the arrays that it works on,
    as ``backends.protocol.StepPart`` names them; empty where the part was asked for before, which keeps what it was
    given. ``output``: where to write what it gives, one call before any that is timed, as an .npz; empty for nowhere.
    """

    kind: ClassVar[str] = "part"
    name: str
    direction: str
    calls: int
    settle: int = 0
    given: str = ""
    output: str = ""


@dataclass(frozen=True)
class Trace:
    """Train ``steps`` more steps under the framework's own profiler, which writes below ``folder``; losses are lost."""

    kind: ClassVar[str] = "trace"
    steps: int
    folder: str


@dataclass(frozen=True)
class Close:
    """End the cell."""

    kind: ClassVar[str] = "close"


@dataclass(frozen=True)
class HostReady:
    """The framework is imported.

    ``worker``: python, platform, packages (name -> version), code hash, backend. ``capabilities``: those of the
    backend, and ``yardstick``, whether it can answer ``Limit``.
    """

    kind: ClassVar[str] = "host_ready"
    pid: int
    import_seconds: float
    forks: bool
    worker: dict[str, Any]
    capabilities: dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """The cell is built. Seconds of each phase; ``device``: where it runs, threads, what the framework says."""

    kind: ClassVar[str] = "opened"
    pid: int
    initialise_seconds: float
    load_seconds: float
    build_seconds: float
    device: dict[str, Any]


@dataclass(frozen=True)
class Block:
    """``steps`` steps took ``seconds``, synchronisation included; ``losses`` has each step's loss.

    ``started``: the machine's monotonic clock, in seconds, when the first timed step began. Workers of one
    machine read the same clock, so their blocks can be put in order, and a gap in it shows. ``settle`` steps came
    before, in ``settle_seconds``; their losses are the first. Of this process: ``idle_cpu_seconds`` is the processor
    time that it used since its last block ended, ``preempted`` how often the kernel took a processor from it during
    the timed steps (None where the system does not tell). ``stolen_seconds``: processor time that the machine's own
    host took from all of its processors meanwhile, likewise. ``rest_seconds``: how long threads were still at work
    after the steps, where that was waited for.
    """

    kind: ClassVar[str] = "block"
    steps: int
    started: float
    seconds: float
    cpu_seconds: float
    losses: list[float]
    settle: int = 0
    settle_seconds: float = 0.0
    idle_cpu_seconds: float = 0.0
    preempted: int | None = None
    stolen_seconds: float | None = None
    rest_seconds: float = 0.0


@dataclass(frozen=True)
class Compiled:
    """Steps of that batch size are ready; it took ``seconds``."""

    kind: ClassVar[str] = "prepared"
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Mean loss and accuracy over the test set. ``compile_seconds``: at first that of one batch before, then 0."""

    kind: ClassVar[str] = "evaluated"
    loss: float
    accuracy: float
    seconds: float
    compile_seconds: float


@dataclass(frozen=True)
class Probed:
    """The file asked for by Probe is written."""

    kind: ClassVar[str] = "probed"


@dataclass(frozen=True)
class Forwarded:
    """The file asked for by Forward is written."""

    kind: ClassVar[str] = "forwarded"


@dataclass(frozen=True)
class ClaimedEnd:
    """``steps`` steps were said to be done after ``seconds``; what was found when that was not believed.

    ``late_seconds``: how long the read-back of every parameter took then. ``missing``: how many steps had no loss
    even after that.
    """

    steps: int
    seconds: float
    late_seconds: float
    missing: int


@dataclass(frozen=True)
class Synchronised:
    """``blocks`` ended as every block does; ``controls`` when ``train`` returned, without synchronisation.

    ``idle_seconds``: a read-back of every parameter, one for each repeat, when nothing can be outstanding.
    """

    kind: ClassVar[str] = "synchronised"
    blocks: list[ClaimedEnd]
    controls: list[ClaimedEnd]
    idle_seconds: list[float]


@dataclass(frozen=True)
class Limited:
    """What the device did at most, in values of ``dtype``.

    ``product_flops_per_second``: the best rate of multiplying two square matrices, at ``product_size`` rows, where a
    product is 2 n^3 operations. ``memory_bytes_per_second``: the best rate of adding one array of ``array_bytes`` to
    another in place, where two are read and one is written.
    """

    kind: ClassVar[str] = "limited"
    product_flops_per_second: float
    product_size: int
    memory_bytes_per_second: float
    array_bytes: int
    dtype: str


@dataclass(frozen=True)
class Operation:
    """``count`` operations alike in a training step.

    ``types``: element types that select the kernel, such as ``T=float``. As traced: ``kernel`` is ``device`` if the
    kind of device has a kernel for it, ``host memory`` if that kernel leaves its results in host memory, else ``none``.
    As run: ``device`` is where, such as ``CPU:0``.
    """

    name: str
    types: list[str]
    count: int
    device: str = ""
    kernel: str = ""


@dataclass(frozen=True)
class Placed:
    """The operations of a training step as traced, and as the runtime, having rewritten them, ran them.

    Both are empty where the step is one program, compiled whole for one device, and where the backend does not tell:
    ``tells`` says which.
    """

    kind: ClassVar[str] = "placed"
    tells: bool
    kernels_of: str = ""
    traced: list[Operation] = field(default_factory=list)
    ran: list[Operation] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshotted:
    """The file asked for by Snapshot is written."""

    kind: ClassVar[str] = "snapshotted"


@dataclass(frozen=True)
class Masked:
    """The file asked for by Masks is written if the backend ``tells`` its masks."""

    kind: ClassVar[str] = "masked"
    tells: bool


@dataclass(frozen=True)
class Inventoried:
    """``steps`` as the device counts them, None where the backend does not tell.

    ``digests``: BLAKE2b (16 bytes, hex) of ``images`` as float32, ``labels`` as int32 and ``order`` (steps, B), or
    row after row where the batch size changes, as int32, each as little-endian bytes in C order; those that the device
    does not hold are left out. Of a target with several devices, ``apart`` names what they have unequal of all that
    training changes, and ``collectives`` counts what they do together in a step, by kind of operation.
    """

    kind: ClassVar[str] = "inventoried"
    steps: int | None
    digests: dict[str, str]
    apart: list[str] = field(default_factory=list)
    collectives: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Replayed:
    """The file asked for by Replay is written."""

    kind: ClassVar[str] = "replayed"


@dataclass(frozen=True)
class PartTimed:
    """``calls`` calls of a part took ``seconds``, until all had really happened; the rest is as in ``Block``."""

    kind: ClassVar[str] = "part_timed"
    calls: int
    started: float
    seconds: float
    cpu_seconds: float
    rest_seconds: float = 0.0


@dataclass(frozen=True)
class Traced:
    """So many steps were trained under the profiler, in ``seconds``, its own cost among them."""

    kind: ClassVar[str] = "traced"
    steps: int
    seconds: float


@dataclass(frozen=True)
class Closed:
    """The cell ended well."""

    kind: ClassVar[str] = "closed"
    peak_memory_bytes: int | None
    device: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The cell cannot go on; ``status`` is one of ``record.STATUSES``, ``reason`` one line."""

    kind: ClassVar[str] = "failed"
    status: str
    reason: str
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class ChildExited:
    """A forked child ended: ``exit_code`` of its own, or the ``signal`` that ended it (0 if none)."""

    kind: ClassVar[str] = "child_exited"
    pid: int
    exit_code: int
    signal: int


Request = Union[  # noqa: UP007
    Open,
    Train,
    Compile,
    Evaluate,
    Probe,
    Forward,
    Synchrony,
    Limit,
    Placement,
    Snapshot,
    Masks,
    Inventory,
    Replay,
    Part,
    Trace,
    Close,
]
Reply = Union[  # noqa: UP007
    HostReady,
    Opened,
    Block,
    Compiled,
    Evaluated,
    Probed,
    Forwarded,
    Synchronised,
    Limited,
    Placed,
    Snapshotted,
    Masked,
    Inventoried,
    Replayed,
    PartTimed,
    Traced,
    Closed,
    Failed,
    ChildExited,
]
REQUESTS: tuple[type, ...] = typing.get_args(Request)
REPLIES: tuple[type, ...] = typing.get_args(Reply)


def encode(message: Request | Reply) -> bytes:
    """One line, newline included."""
    return json.dumps(codec.to_json(message), separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises ContractError for anything that is not a request."""
    message: Request = _decode(line, REQUESTS)
    return message


def decode_reply(line: bytes) -> Reply:
    """Raises ContractError for anything that is not a reply."""
    message: Reply = _decode(line, REPLIES)
    return message


def _decode(line: bytes, allowed: tuple[type, ...]) -> Any:
    shown = line[:80].decode("utf-8", "backslashreplace").strip()
    try:
        data = json.loads(line)
    except ValueError as error:
        raise ContractError(f"not a message: {shown!r}") from error
    by_kind = {codec.type_name(cls): cls for cls in allowed}
    if not isinstance(data, dict) or data.get("kind") not in by_kind:
        raise ContractError(f"not a known message: {shown!r}")
    cls = by_kind[data["kind"]]
    assert dataclasses.is_dataclass(cls)
    return codec.from_json(cls, data)
