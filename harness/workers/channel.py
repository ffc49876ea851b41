"""A host process and its pipes, as a queue of what it says and how it ends.

One thread per host starts it, reads it and waits for its end; whoever asks sleeps in ``receive``. The thread
that starts a process must live as long as the process, for Linux kills the host when that thread ends.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.core import system
from harness.core.messages import MAX_LINE_BYTES
from harness.workers.launch import Launch

WAITING = 64
"""Lines kept until somebody asks; a host that says more, which none should, is held up by its pipe."""

KILL_SECONDS = 10.0
"""How long the kernel may take to end a process that was killed."""

LONGEST_SLEEP = 1.0
"""Seconds. A signal that the system hands to another thread does not wake the one that sleeps, and Python heeds signals
in the main thread only: so it looks now and then, or the end of a terminal or of a job's time would go unheard."""

_CHUNK = 65536


@dataclass(frozen=True)
class Line:
    """One whole line, without its end."""

    data: bytes


@dataclass(frozen=True)
class Overlong:
    """A line too long for a message; how it began."""

    start: bytes


@dataclass(frozen=True)
class ProcessEnded:
    """The process is gone. ``code`` is its ``Popen.returncode``; None if it never started, with the reason."""

    code: int | None
    reason: str = ""


Event = Line | Overlong | ProcessEnded


class Channel:
    """Starts the process on creation, without waiting for it."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._events: queue.Queue[Event] = queue.Queue(WAITING)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"worker {launch.backend}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the process is there, or about to be."""
        return not self._ended.is_set()

    def send(self, data: bytes) -> bool:
        """Write to the process; False if it no longer listens."""
        self._started.wait()
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):  # broken pipe; closed by `end`
            return False
        return True

    def receive(self, timeout: float) -> Event | None:
        """The next event, asleep until it comes; None after ``timeout`` seconds."""
        ends = time.monotonic() + timeout
        while True:
            left = min(ends - time.monotonic(), LONGEST_SLEEP)
            try:
                return self._events.get(timeout=left) if left > 0 else self._events.get_nowait()
            except queue.Empty:
                if left <= 0:
                    return None

    def cancel_child(self) -> None:
        """Have the host kill the child that it waits for."""
        if self._process is not None and self.alive:
            system.cancel_child(self._process.pid)

    def end(self, grace: float) -> None:
        """Close the pipe, give the process ``grace`` seconds to end, then kill it and all it started."""
        self._started.wait()
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        if not self._wait_for_end(grace):
            system.end_group(process)
            self._wait_for_end(KILL_SECONDS)

    def _wait_for_end(self, seconds: float) -> bool:
        """Whether the process ends within ``seconds``; what it still says is dropped, so nothing holds it up."""
        deadline = time.monotonic() + seconds
        while not self._ended.is_set() and self.receive(deadline - time.monotonic()) is not None:
            pass
        return self._ended.is_set()

    def _run(self) -> None:
        ended = ProcessEnded(None, "it could not be started")
        try:
            ended = self._live()
        except (OSError, ValueError) as error:
            ended = ProcessEnded(None, str(error))
        finally:
            self._started.set()
            # In this order: whoever has received the end no longer finds the process alive.
            self._ended.set()
            self._events.put(ended)

    def _live(self) -> ProcessEnded:
        self._launch.scratch.mkdir(parents=True, exist_ok=True)
        self._launch.log.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="host-", dir=system.starting_place(self._launch.scratch)))
        try:
            process = self._start(folder)
            self._started.set()
            assert process.stdout is not None
            self._read(process.stdout)
            return ProcessEnded(system.wait_for_group(process))
        finally:
            system.remove_folder(folder)

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        with self._launch.log.open("ab") as log:
            self._process = system.start_group(
                self._launch.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=self._launch.environment(folder),
                bufsize=0,
            )
        return self._process

    def _read(self, stream: IO[bytes]) -> None:
        unfinished, skipping = bytearray(), False
        with stream:
            while chunk := stream.read(_CHUNK):
                unfinished += chunk
                if b"\n" in chunk:
                    *lines, rest = unfinished.split(b"\n")
                    for line in lines[skipping:]:
                        if line:
                            self._events.put(Line(bytes(line)))
                    unfinished, skipping = rest, False
                if len(unfinished) > MAX_LINE_BYTES:
                    if not skipping:
                        self._events.put(Overlong(bytes(unfinished[:200])))
                    unfinished, skipping = bytearray(), True
            if unfinished and not skipping:
                self._events.put(Line(bytes(unfinished)))
