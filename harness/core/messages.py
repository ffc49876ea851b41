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
    Train, Evaluate, Probe, Forward  --------------> works
                         <-------------------------- Block, Evaluated, Probed, Forwarded
    Close                -------------------------->
                         <-------------------------- Closed, then exits
                         <----- ChildExited
    (closes stdin)       -----> exits
"""

from __future__ import annotations

import dataclasses
import json
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
    (epochs, examples), a permutation of the examples per epoch. ``scratch``: the only folder the
    worker may write to.
    """

    kind: ClassVar[str] = "open"
    cell: Cell
    dataset: str
    parameters: str
    order: str
    scratch: str


@dataclass(frozen=True)
class Train:
    """Run the next ``steps`` training steps, then synchronise. They must not cross an epoch's end."""

    kind: ClassVar[str] = "train"
    steps: int


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
class Close:
    """End the cell."""

    kind: ClassVar[str] = "close"


@dataclass(frozen=True)
class HostReady:
    """The framework is imported. ``worker``: python, platform, packages (name -> version), code hash, backend."""

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

    ``started``: the machine's monotonic clock, in seconds, when the first step began. Workers of one
    machine read the same clock, so their blocks can be put in order, and a gap in it shows.
    """

    kind: ClassVar[str] = "block"
    steps: int
    started: float
    seconds: float
    cpu_seconds: float
    losses: list[float]


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


Request = Union[Open, Train, Evaluate, Probe, Forward, Close]  # noqa: UP007
Reply = Union[HostReady, Opened, Block, Evaluated, Probed, Forwarded, Closed, Failed, ChildExited]  # noqa: UP007
REQUESTS: tuple[type, ...] = (Open, Train, Evaluate, Probe, Forward, Close)
REPLIES: tuple[type, ...] = (HostReady, Opened, Block, Evaluated, Probed, Forwarded, Closed, Failed, ChildExited)


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
