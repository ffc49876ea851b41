"""A record: what one planned cell yielded, or how it failed. One JSON file each, never changed afterwards.

All times are seconds, all sizes bytes. Raw block times are kept; every derived number is
computed from them later, so a better method can be applied to an old run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import accumulate
from operator import add
from typing import Any

from harness.core.cell import Cell
from harness.core.codec import LATER

STATUSES = (
    "ok",
    "out_of_memory",
    "timeout",
    "crashed",
    "unsupported",
    "wrong_device",
    "parity_failed",
    "skipped",
    "interrupted",
)
FAILED = tuple(status for status in STATUSES if status not in ("ok", "skipped"))
NOT_THE_WORK = ("parity_failed", "wrong_device")
"""Statuses whose times say nothing about the target: no headline shows them."""

LARGEST_LOSS = 3.4028234663852886e38
"""The largest number of float32, in which cells are trained. The reference computes in a wider type: a loss that only
that one holds would be infinite everywhere else."""

BLOCK_KINDS = ("compile", "warmup", "train")


@dataclass(frozen=True)
class Phases:
    """Seconds of each phase, by wall clock; None where the cell did not get that far.

    ``compile`` is the first training step, which traces and compiles, plus the first evaluation batch, likewise, plus
    what the other batch sizes of a plan took (``Compilation``). ``warmup`` and ``train`` are the sums of those blocks.
    ``framework_import`` was spent in a host that may have served other cells too.
    """

    framework_import: float | None = None
    initialise_device: float | None = None
    load_data: float | None = None
    build: float | None = None
    compile: float | None = None
    warmup: float | None = None
    train: float | None = None
    evaluate: float | None = None


@dataclass(frozen=True)
class Blocks:
    """Every block of training steps in order, as parallel lists.

    ``kind``: ``compile`` (the first step), ``warmup``, or ``train``; only ``train`` counts as throughput.
    ``started`` is the machine's monotonic clock in seconds, of which only differences mean something.
    ``seconds`` runs from the first step's start to the end of a true synchronisation. ``cpu_seconds`` is
    the process's processor time in the block, all threads together.

    A block in a heat may begin with ``settle`` steps that are trained and not timed, in ``settle_seconds``;
    ``round`` numbers the heat's rounds, in which every lane has one block (-1: outside of rounds).
    ``idle_cpu_seconds``: processor time of the process between its last block and this one. ``preempted``:
    involuntary context switches in the timed steps; ``stolen_seconds``: taken from the whole machine by its host
    meanwhile (both None where the system does not tell). ``rest_seconds``: after the timed steps, until the process
    was at rest, where that was waited for. These lists are empty in records of before there were heats, and the last
    in somewhat later ones.
    """

    epoch: list[int] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    mean_loss: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    settle: list[int] = field(default_factory=list, metadata=LATER)
    settle_seconds: list[float] = field(default_factory=list, metadata=LATER)
    round: list[int] = field(default_factory=list, metadata=LATER)
    idle_cpu_seconds: list[float] = field(default_factory=list, metadata=LATER)
    preempted: list[int | None] = field(default_factory=list, metadata=LATER)
    stolen_seconds: list[float | None] = field(default_factory=list, metadata=LATER)
    rest_seconds: list[float] = field(default_factory=list, metadata=LATER)


@dataclass(frozen=True)
class Epoch:
    """State after one epoch, or at an evaluation within one: ``steps`` is then how many are trained since the start.

    At the end of an epoch it is 0. ``train_loss`` is the mean over the epoch's steps so far, dropout included.
    """

    epoch: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    evaluate_seconds: float
    steps: int = field(default=0, metadata=LATER)


@dataclass(frozen=True)
class Compilation:
    """Seconds until a batch size of a plan was ready to be trained, its first step included; before anything is timed.

    That of the first size is a step of the training; those of the others are taken back.
    """

    batch_size: int
    seconds: float


@dataclass(frozen=True)
class HeatFacts:
    """How a cell ran beside others. With nothing given it says nothing: of a cell that never ran, or that ran before
    there were heats; ``interleave`` is empty in no other record.

    ``interleave``: "block", "cell" or "none", as it was really done; ``fallback`` says why, where that is not what was
    asked for. ``cells``: all of the heat. ``rounds`` of which ``dropped`` (number -> reason) do not count;
    ``block_steps`` timed after ``settle_steps`` others; ``measured_seconds``: time limit of the rounds, None if the
    cells were to run to their end. ``idle_share``: processor time of this lane while it waited, over that time.
    ``opened_together``: the lanes were built and compiled at the same time, so those phases are not one lane's own.
    ``other_processors`` and ``stolen_processors``: how busy others kept the machine meanwhile;
    ``throttled_processors``: what a quota held back; ``load_untold``: why the first is not known
    (``harness.machine.other_load.Load``). Records from before these four lack them, and load as if nothing was told.
    """

    interleave: str = ""
    cells: tuple[str, ...] = ()
    fallback: str = ""
    rounds: int = 0
    dropped: dict[str, str] | None = None
    block_steps: int = 0
    settle_steps: int = 0
    measured_seconds: float | None = None
    idle_share: float | None = None
    opened_together: bool = False
    other_processors: float | None = field(default=None, metadata=LATER)
    stolen_processors: float | None = field(default=None, metadata=LATER)
    throttled_processors: float | None = field(default=None, metadata=LATER)
    load_untold: str = field(default="", metadata=LATER)


@dataclass(frozen=True)
class SameWork:
    """What was shown of a cell's own work, beside the proof of its target. With nothing given nothing was.

    The proof at its batch size (``harness.proof.sized``): its id under ``proofs/``, how many ``steps`` were trained for
    it, its largest relative ``error``, and ``notes`` of what was done otherwise than usual. The timed run itself
    (``harness.proof.witness``): the reference did ``witnessed_steps`` steps again from ``first_witnessed`` on (counted
    from 0); ``witness_error`` is the largest relative error of these. ``counted_steps``: training steps by the
    device's own count; ``held``: what of order, labels and images was read back from it, and was what was shipped.
    ``not_shown``: what the backend could not show, a line each. ``looking_seconds`` were spent on reading states
    meanwhile, ``replaying_seconds`` on doing steps again after it, both outside of everything that is timed.
    """

    proof: str = ""
    steps: int = 0
    error: float | None = None
    notes: tuple[str, ...] = ()
    witnessed_steps: int = 0
    first_witnessed: int = 0
    witness_error: float | None = None
    counted_steps: int | None = None
    held: tuple[str, ...] = ()
    not_shown: tuple[str, ...] = ()
    looking_seconds: float = 0.0
    replaying_seconds: float = 0.0


@dataclass(frozen=True)
class Record:
    """What became of one cell.

    ``reason`` is one line, empty for ``ok``. ``proof`` is the id of the parity proof under
    ``proofs/``. ``worker`` holds what the worker says of itself: python, packages, device,
    threads, code hash. ``machine`` what the harness says of the machine. ``log`` is relative to the run folder.
    ``peak_memory_bytes``: largest resident set of the worker process in the host's memory, framework included. Of the
    device's memory ``worker["device"]["peak_device_memory_bytes"]`` tells the most that the framework's allocator had
    handed out, ``power["gpu"]["process_memory_bytes"]`` the most that the driver counted for the process.
    ``heat``: how it ran beside others; where there is nothing to say, as ``HeatFacts`` tells, the file has no such key.
    ``power``: how the device ran meanwhile, and the energy (``harness.measure.instruments``). ``limit``: what
    the device can do at most (``harness.measure.device_limits``). Both are empty where nothing was told. ``same_work``:
    what was shown of this cell's own work; records from before that have none. ``compilations``: of each batch size of
    a plan, in the order of their first use; none where the batch size is fixed.
    """

    cell: Cell
    cell_id: str
    work_id: str
    status: str
    reason: str = ""
    attempt: int = 1
    started: str = ""
    finished: str = ""
    phases: Phases = Phases()
    blocks: Blocks = Blocks()
    epochs: tuple[Epoch, ...] = ()
    peak_memory_bytes: int | None = None
    proof: str = ""
    worker: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    heat: HeatFacts = field(default=HeatFacts(), metadata=LATER)
    power: dict[str, Any] = field(default_factory=dict, metadata=LATER)
    limit: dict[str, Any] = field(default_factory=dict, metadata=LATER)
    same_work: SameWork = field(default=SameWork(), metadata=LATER)
    compilations: tuple[Compilation, ...] = field(default=(), metadata=LATER)

    @property
    def diverged(self) -> bool:
        """Whether a loss became infinite or no number (LARGEST_LOSS): what it learned from then on is worth nothing.

        The status of a cell that diverged and was trained to its end is ``ok``; its speed is that of the work.
        """
        return any(not abs(loss) <= LARGEST_LOSS for loss in self._losses())

    @property
    def timed_images(self) -> int:
        """Images that the steps timed in its ``train`` blocks trained on."""
        blocks = self.blocks
        settled = blocks.settle or [0] * len(blocks.steps)
        ends = accumulate(map(add, blocks.steps, settled))
        sizes = self.cell.batch_sizes_at(end - 1 for end in ends)
        timed = zip(blocks.kind, blocks.steps, sizes, strict=True)
        return sum(steps * size for kind, steps, size in timed if kind == "train")

    def _losses(self) -> Iterator[float]:
        yield from self.blocks.mean_loss
        for epoch in self.epochs:
            yield from (epoch.train_loss, epoch.test_loss)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


INTERRUPTED = frozenset({"interrupted"})
"""Statuses of records that make way for another attempt unasked."""


FAILED_TOO = frozenset({*FAILED, "skipped"})
"""Those that do on request: with what failed, what was skipped because a smaller batch had failed."""
