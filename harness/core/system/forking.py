"""One child per cell, forked from a host, and ends of processes that must not wait for anybody."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from harness.core.errors import Unsupported

_PR_SET_PDEATHSIG = 1
_POSIX_ONLY = "Windows cannot do this"


@dataclass(frozen=True)
class ChildExit:
    """How a forked child ended: with a status of its own, or by ``signal`` (0 if none)."""

    pid: int
    exit_code: int
    signal: int


def can_fork() -> bool:
    """Whether a process may fork after importing a framework. Not on macOS, whose own libraries forbid it."""
    return sys.platform == "linux"


def cancel_child(pid: int) -> None:
    """Tell the host ``pid`` to kill the child that it waits for in ``run_in_child``. POSIX only.

    A host that has ended just now, as a scheduler ends all processes of a job at once, has no child any more.
    """
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)


def terminate_main_thread() -> None:
    """Deliver SIGTERM to this process's main thread, whatever it waits for."""
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)


def ending_signals() -> tuple[signal.Signals, ...]:
    """Signals that ask a process to end, but for Ctrl-C's: SIGTERM, and that its terminal has gone.

    The latter only where it would end this process: under ``nohup`` it does not. On Windows a console that is closed.
    """
    if sys.platform == "win32":
        return (signal.SIGTERM, signal.SIGBREAK)
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM,) if ignored else (signal.SIGTERM, signal.SIGHUP)


def accept_cancel() -> None:
    """From here on a ``cancel_child`` that comes when there is no child is harmless."""
    if sys.platform != "win32":
        signal.signal(signal.SIGUSR1, lambda number, frame: None)


def run_in_child(work: Callable[[], int], pipe: int) -> ChildExit:
    """Fork; the child exits with what ``work`` returns. Wait for its end, asleep. POSIX only.

    The child is killed when ``cancel_child`` asks for it, when the other end of ``pipe`` is closed, or
    (on Linux) when this process dies.
    """
    if sys.platform == "win32":
        raise Unsupported(_POSIX_ONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    woken, waking = os.pipe()
    for descriptor in (woken, waking):
        os.set_blocking(descriptor, False)
    # Both signals only write their number to `waking`: all decisions fall in the loop below, so no signal can race.
    previous = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        os.close(woken)
        os.close(waking)
        _run_and_exit(work, parent)
    try:
        status = _wait_for_child(pid, woken, pipe)
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, previous)
        os.close(woken)
        os.close(waking)
    if os.WIFSIGNALED(status):
        return ChildExit(pid, 0, os.WTERMSIG(status))
    return ChildExit(pid, os.WEXITSTATUS(status), 0)


def _run_and_exit(work: Callable[[], int], parent: int) -> None:
    code = 1
    try:
        die_with_parent(parent)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        exit_now(code)


def _wait_for_child(pid: int, woken: int, pipe: int) -> int:
    """The child's wait status."""
    if sys.platform == "win32":
        raise Unsupported(_POSIX_ONLY)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(pipe, 0)  # hang-up only: what there is to read is the child's
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == pipe:
                os.kill(pid, signal.SIGKILL)
                return os.waitpid(pid, 0)[1]
            if signal.SIGUSR1 in os.read(descriptor, 4096):
                os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status


def exit_now(code: int) -> None:
    """End this process without running a framework's exit handlers, which may hang; what was printed is kept."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of ``parent`` that started it ends, even amid native code.

    Linux only. Elsewhere the end of the pipe to the parent must do it.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def hung_up(pipe: int) -> bool:
    """Whether the other end of a pipe is closed, without reading from it. Always False on Windows."""
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
