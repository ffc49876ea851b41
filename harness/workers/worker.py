"""One worker host as its user sees it: questions in, answers or a ``CellError`` out, whatever the host does.

Several workers may be resident at once, each with a cell open, taking turns. One thread at a time uses a worker.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from harness.core import device_failures, messages, system
from harness.core.errors import (
    CellError,
    ContractError,
    OutOfMemory,
    Unsupported,
    WorkerCrashed,
    WorkerTimeout,
    WrongDevice,
)
from harness.core.messages import ChildExited, Close, Closed, Failed, HostReady, Open, Opened, Reply, Request, Train
from harness.workers import last_words
from harness.workers.channel import Channel, Event, Line, Overlong, ProcessEnded
from harness.workers.launch import Launch

SETTLE_SECONDS = 5.0
"""How long a child that has said its last may take to end, and a host to say that it has."""

LAST_WORDS_SECONDS = 0.2
"""How long the news of how a process ended may take after the first sign of it, such as half a line."""

START_SECONDS = 300.0
"""How long a host may take to import its framework, unless its user says otherwise: cold files on a network disk."""

STOP_SECONDS = 2.0
"""How long a host may take to end after its pipe is closed."""

ERRORS: dict[str, type[CellError]] = {
    error.status: error for error in (Unsupported, OutOfMemory, WrongDevice, WorkerTimeout, WorkerCrashed)
}
ANSWERS: dict[type, type] = {
    Open: messages.Opened,
    Train: messages.Block,
    messages.Compile: messages.Compiled,
    messages.Evaluate: messages.Evaluated,
    messages.Probe: messages.Probed,
    messages.Forward: messages.Forwarded,
    messages.Synchrony: messages.Synchronised,
    messages.Placement: messages.Placed,
    messages.Limit: messages.Limited,
    messages.Snapshot: messages.Snapshotted,
    messages.Masks: messages.Masked,
    messages.Inventory: messages.Inventoried,
    messages.Replay: messages.Replayed,
    messages.Part: messages.PartTimed,
    messages.Trace: messages.Traced,
    Close: Closed,
}

DUMPS = ("Fatal Python error", "Windows fatal exception")
"""What ``faulthandler`` (Modules/faulthandler.c, Python/traceback.c) begins with, before where each thread was."""

_OF_A_DUMP = re.compile(
    r"\s*$|  |<|Thread 0x|Current thread|Stack \(most recent|Extension modules: |Python runtime state: "
)
_SIGKILL = 9
_TAIL_BYTES = 65536
_SHOWN_CHARACTERS = 300
_T = TypeVar("_T")


class Worker:
    """One host process. Starts it on creation without waiting, so several can import at the same time.

    ``start_timeout``: seconds from then on until it must be ready.
    """

    def __init__(self, launch: Launch, start_timeout: float = START_SECONDS) -> None:
        self.log = launch.log
        self._python = launch.python
        self._start_timeout = start_timeout
        self._deadline = time.monotonic() + start_timeout
        self._ready: HostReady | None = None
        self._problem: CellError | None = None
        self._is_open = False
        self._posted: Request | None = None
        self._mark()
        self._channel = Channel(launch)

    @property
    def alive(self) -> bool:
        """Whether it can open a cell, or may yet come to that."""
        return self._problem is None and self._channel.alive

    @property
    def ready(self) -> HostReady:
        """What the host says of itself once its framework is imported; waits for that. Raises CellError."""
        if self._ready is None:
            if self._problem is not None:
                raise type(self._problem)(str(self._problem))
            try:
                remaining = self._deadline - time.monotonic()
                self._ready = self._answer(HostReady, "start", remaining, self._start_timeout)
            except CellError as error:
                self._problem = error
                self.stop()
                raise
        return self._ready

    def open(self, request: Open, timeout: float) -> Opened:
        """Prepare a cell, in a new child where the host forks. ``timeout`` in seconds. Raises CellError."""
        if self._posted != request or not self._is_open:
            self._begin()
        return self._question(request, Opened, timeout)

    def post(self, request: Request) -> None:
        """Ask without waiting, so that several workers can be at it; the same question next gets the answer.

        Raises CellError.
        """
        if isinstance(request, Open):
            self._begin()
        self._send(request)
        self._posted = request

    def ask(self, request: Request, timeout: float) -> Reply:
        """One question about the open cell, one answer of its kind. Raises CellError, which ends the cell."""
        if isinstance(request, Open):
            return self.open(request, timeout)
        reply: Reply = self._question(request, ANSWERS[type(request)], timeout)
        if (
            isinstance(request, Train)
            and isinstance(reply, messages.Block)
            and (reply.settle, reply.steps) != (request.settle, request.steps)
        ):
            asked = f"{request.settle} and {request.steps}" if request.settle else f"{request.steps}"
            raise self._nonsense(Line(messages.encode(reply)), f"when asked for {asked} steps")
        return reply

    def said(self) -> str:
        """The end of what it wrote to its log since the cell was opened; empty if the log cannot be read."""
        return "\n".join(_lines(self.log, self._log_start))

    def finish(self, timeout: float) -> Closed:
        """End the cell well. A worker that forks is then free for the next; another ends. Raises CellError."""
        closed = self._question(Close(), Closed, timeout)
        self._settle()
        return closed

    def abandon(self) -> None:
        """Kill the open cell, if there is one, at once: its child where the host forks, else the host."""
        if not self._is_open:
            return
        if self._forks:
            self._channel.cancel_child()
            self._settle()
        else:
            self._is_open = False
            self._channel.end(grace=0.0)

    def stop(self) -> None:
        """End the host and all that it started. May be called again."""
        self._is_open = False
        self._channel.end(grace=STOP_SECONDS)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _forks(self) -> bool:
        return self._ready is not None and self._ready.forks

    def _mark(self) -> None:
        """What happens to the log and to the kernel's counter from here on belongs to what is done next."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._kills_before = system.out_of_memory_kills()

    def _begin(self) -> None:
        self.ready  # noqa: B018  # waits for the import under its own time limit
        if self._is_open:
            raise WorkerCrashed("the worker has a cell open already")
        self._mark()
        self._is_open = True
        self._posted = None

    def _question(self, request: Request, expected: type[_T], timeout: float) -> _T:
        posted, self._posted = self._posted, None
        if not self._is_open or posted is None:
            self._send(request)
        elif posted != request:
            raise ValueError(f"{request.kind} is asked while the answer to {posted.kind} is due")
        return self._answer(expected, request.kind, timeout, timeout)

    def _send(self, request: Request) -> None:
        if not self._is_open:
            raise WorkerCrashed("the cell has ended already")
        unasked = self._channel.receive(0)
        if unasked is None and not self._channel.alive:
            unasked = self._channel.receive(LAST_WORDS_SECONDS)  # its end is known a moment before how it ended
        if unasked is not None:
            raise self._failure(unasked, f"before {request.kind} was asked")
        if not self._channel.alive:
            self._is_open = False
            raise WorkerCrashed("the worker has ended")
        self._channel.send(messages.encode(request))  # if nobody reads it, the next event says why

    def _answer(self, expected: type[_T], doing: str, timeout: float, allowed: float) -> _T:
        event = self._channel.receive(timeout)
        if event is None:
            self.abandon()
            raise WorkerTimeout(f"{doing}: no answer within {allowed:g} s")
        reply = _decoded(event)
        if isinstance(reply, expected):
            return reply
        raise self._failure(event, f"during {doing}")

    def _failure(self, event: Event, when: str) -> CellError:
        """What an event means that is not the answer due; the cell is over."""
        if isinstance(event, ProcessEnded):
            self._is_open = False
            if event.code is None:
                return WorkerCrashed(f"{self._python}: cannot be started ({event.reason})")
            return self._death(f"worker {system.exit_description(event.code)}", when, -event.code)
        reply = _decoded(event)
        if isinstance(reply, ChildExited):
            self._is_open = False
            code = -reply.signal if reply.signal else reply.exit_code
            return self._death(f"worker {system.exit_description(code)}", when, reply.signal)
        if isinstance(reply, Failed) and reply.status in ERRORS:
            self._settle()
            error = ERRORS[reply.status](reply.reason)
            error.peak_memory_bytes = reply.peak_memory_bytes
            return error
        return self._nonsense(event, when)

    def _nonsense(self, event: Event, when: str) -> CellError:
        following = self._channel.receive(LAST_WORDS_SECONDS)
        if following is not None and isinstance(_decoded(following), (ProcessEnded, ChildExited)):
            return self._failure(following, when)
        self.abandon()
        shown = event.data[:80] if isinstance(event, Line) else event.start[:80] if isinstance(event, Overlong) else b""
        size = f" (more than {messages.MAX_LINE_BYTES} bytes)" if isinstance(event, Overlong) else ""
        return WorkerCrashed(f"the worker said {shown.decode('utf-8', 'backslashreplace')!r}{size} {when}")

    def _death(self, what: str, when: str, killer: int) -> CellError:
        kills = system.out_of_memory_kills()
        if killer == _SIGKILL and kills is not None and self._kills_before is not None and kills > self._kills_before:
            return OutOfMemory(f"the kernel killed the worker {when}: memory ran out")
        known = device_failures.meaning(self.said())
        if known is not None:
            return known
        last = last_line(self.log, self._log_start)
        return WorkerCrashed(f"{what} {when}" + (f"; its last words: {last}" if last else ""))

    def _settle(self) -> None:
        """The open cell is over: wait for its process to end, by force if need be."""
        self._is_open = False
        if self._ends_within(SETTLE_SECONDS):
            return
        if self._forks:
            self._channel.cancel_child()
            if self._ends_within(SETTLE_SECONDS):
                return
        self._channel.end(grace=0.0)

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            event = self._channel.receive(deadline - time.monotonic())
            if event is None:
                return False
            if isinstance(event, ProcessEnded) or isinstance(_decoded(event), ChildExited):
                return True


def _decoded(event: Event) -> Reply | ProcessEnded | None:
    """The reply in an event; the event itself if it is an end; None for what is no message."""
    if isinstance(event, ProcessEnded):
        return event
    if isinstance(event, Overlong):
        return None
    try:
        return messages.decode_reply(event.data)
    except ContractError:
        return None


def last_line(log: Path, start: int) -> str:
    """The line of a log since byte ``start`` that tells most, the interpreter's dumps of fatal errors left out.

    The heading of the last dump where there is no other line.
    """
    lines = _lines(log, start)
    dumps = [line for line in lines if line.startswith(DUMPS)]
    said = last_words.telling(list(_without_dumps(lines)))
    return said[:_SHOWN_CHARACTERS] or (dumps[-1] if dumps else "")


def _without_dumps(lines: Iterable[str]) -> Iterator[str]:
    """What was said beside the dumps. Windows tells of exceptions that the program outlives: more may follow."""
    dumping = False
    for line in lines:
        dumping = line.startswith(DUMPS) or (dumping and _OF_A_DUMP.match(line) is not None)
        if not dumping:
            yield line


def _lines(log: Path, start: int) -> list[str]:
    """The lines of a log since byte ``start``, the last of them where there are very many."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(start, size - _TAIL_BYTES))
            return stream.read().decode("utf-8", "backslashreplace").splitlines()
    except OSError:
        return []
