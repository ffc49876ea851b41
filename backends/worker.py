"""The worker process: ``python -m backends.worker BACKEND``. Speaks ``harness.core.messages`` on stdin and stdout.

Its first act is to keep the original stdin and stdout for the protocol and to point file descriptors
1 and 2 at its log, so that whatever a framework prints, from Python or from native code, harms nothing.
It writes only below its working folder. It ends when stdin does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

OLDEST_PYTHON = (3, 10)


def main() -> None:
    """Claim the protocol, then import the rest, NumPy and the framework included, and serve."""
    requests, replies = _claim_protocol()
    if sys.version_info < OLDEST_PYTHON:
        sys.exit("a worker needs Python 3.10 or later, this is " + sys.version.split()[0])
    parent = os.getppid()
    from harness.core import system

    system.die_with_parent(parent)
    if system.hung_up(requests):
        return
    system.accept_cancel()
    options = _options()
    _live_in(os.getcwd())

    from backends.host import serve
    from backends.pipe import Pipe

    code = 0
    with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
        code = serve(Pipe(requests, replies), options.backend, options.code, may_fork=not options.no_fork)
    system.exit_now(code)


def _claim_protocol() -> tuple[int, int]:
    """File descriptors of requests and replies; 0 reads nothing from here on, 1 goes where 2 goes: the log."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m backends.worker", description="A worker; the harness starts it.")
    parser.add_argument("backend", help="name of a backend, or module:Class")
    parser.add_argument("--no-fork", action="store_true", help="serve one cell in this process, then end")
    parser.add_argument("--code", default="", help="hash of the worker's code, for the records")
    return parser.parse_args()


def _live_in(folder: str) -> None:
    """Not done by the harness: an interpreter that is a shell script (pyenv's, a module's) may need the true home."""
    home = os.path.join(folder, "home")
    os.makedirs(home, exist_ok=True)
    os.environ["HOME"] = os.environ["USERPROFILE"] = home


if __name__ == "__main__":
    main()
