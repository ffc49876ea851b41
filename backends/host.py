"""The worker host: imports one framework once, then serves cells, each in a forked child where that is possible.

The host never touches a device: that is what makes the fork safe. It sleeps while a child works, and says how
each child ended. Where it cannot fork it serves one cell itself and ends.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import traceback

from backends import loop, registry
from backends.pipe import Pipe
from backends.protocol import Backend
from backends.serving import failure, serve_cell
from harness.core import codec, system, variables
from harness.core.errors import ContractError
from harness.core.messages import ChildExited, HostReady, Open


def serve(pipe: Pipe, backend_name: str, code: str, may_fork: bool) -> int:
    """Serve until the pipe ends. ``code`` identifies the worker's own code. Returns the process's exit status."""
    backend: Backend | None = None
    try:
        backend = registry.create(backend_name)
        _, import_seconds = loop.timed(backend.load)
        forks = may_fork and system.can_fork() and backend.capabilities().can_fork
        ready = HostReady(
            pid=os.getpid(),
            import_seconds=import_seconds,
            forks=forks,
            worker=_facts(backend, backend_name, code),
            capabilities={
                **codec.to_json(backend.capabilities()),
                "yardstick": getattr(backend, "yardstick", None) is not None,
            },
        )
    except BaseException as error:
        traceback.print_exc()
        pipe.send(failure(backend, error))
        return 1
    # For the log only: a record, which may be published, holds no path of this machine.
    print(f"{platform.python_implementation()} {platform.python_version()}: {sys.executable}", file=sys.stderr)
    # Collections in children pass over what the import left, so they neither walk nor copy its pages.
    gc.collect()
    gc.freeze()
    pipe.send(ready)
    while True:
        try:
            request = pipe.receive()
        except ContractError as error:
            pipe.send(failure(backend, error))
            continue
        if request is None:
            return 0
        if not isinstance(request, Open):
            continue  # a question to a child that died before it read it
        if not forks:
            return serve_cell(pipe, backend, request)
        ended = _serve_in_child(pipe, backend, request)
        pipe.end_line()
        pipe.send(ended)


def _serve_in_child(pipe: Pipe, backend: Backend, opening: Open) -> ChildExited:
    ended = system.run_in_child(lambda: serve_cell(pipe, backend, opening), pipe.requests)
    return ChildExited(pid=ended.pid, exit_code=ended.exit_code, signal=ended.signal)


def _facts(backend: Backend, name: str, code: str) -> dict[str, object]:
    return {
        "backend": name,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "pid": os.getpid(),
        "packages": backend.versions(),
        "variables": variables.effective(os.environ),
        "code": code,
    }
