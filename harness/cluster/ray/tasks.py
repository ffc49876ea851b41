"""Ray itself: connecting to a cluster, starting tasks that run heats there, and how they ended.

A task runs ``python -m harness heat RUN HEAT...`` with the interpreter of the sweep, and holds the writing end of its
standard input. That ends when the task is cancelled, or its process or node is killed, and the heat stops as it does
on Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster.ray.options import CPU, GPU, MEMORY, Node
from harness.core.errors import SchedulerError, UsageError
from harness.machine import allocation
from harness.paths import CACHE_VARIABLE

DEFAULT_ADDRESS = "auto"
LOCAL = "local"
ADDRESS_VARIABLE = "RAY_ADDRESS"
CLIENT_SCHEME = "ray://"
HOW_TO_START = "start one with 'ray start --head' (on each further machine 'ray start --address=HEAD:6379')"

CONNECT_PATIENCE = 10.0
"""Seconds until a cluster's head has to answer; Ray itself would try for minutes, and then end the process."""

LOOK_SECONDS = 1.0
"""How often a task looks whether its heats have ended: what it costs is taken from those."""

STOP_SECONDS = 25.0
"""How long heats that are stopped may take to save what they have."""

QUIET = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would copy the present folder to every node
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that Ray reads as it is loaded, where the person has not set them."""

LOST, FAILED, MEMORY_OUT, REFUSED, CANCELLED, DONE = "lost", "failed", "memory", "refused", "cancelled", "done"
"""How a task ends: its node has gone; it has failed; Ray ended it for want of memory; its node cannot run heats at all;
the sweep has stopped it; its heats have run."""


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended: one of the words above, and what there is to say, which begins with a verb or a noun."""

    how: str
    says: str = ""


@dataclass(frozen=True)
class TaskWork:
    """What a task is to run. ``attempt`` counts from 1; ``log`` is where it writes."""

    run: Path
    heats: tuple[int, ...]
    log: Path
    attempt: int


class Cluster:
    """A connection to a Ray cluster; make it with ``connect``, and ``close`` it."""

    def __init__(self, ray: Any, address: str) -> None:
        self._ray = ray
        self.address = address
        self._head = _host_and_port(ray.get_runtime_context().gcs_address)
        self._run_heats = ray.remote(max_retries=0)(_task())

    def nodes(self) -> list[Node]:
        """The live nodes. Raises SchedulerError where the cluster's head does not answer."""
        _require_answer(self._head, self.address)
        return [
            Node(one["NodeID"], one["NodeManagerHostname"], one["Resources"])
            for one in self._ray.nodes()
            if one["Alive"]
        ]

    def start(self, work: TaskWork, demand: Mapping[str, float]) -> Any:
        """Start a task, on whatever node has room for it, now or later; returns Ray's reference.

        Raises SchedulerError with what Ray said.
        """
        cache = os.environ.get(CACHE_VARIABLE)
        variables = {
            allocation.RAY_ATTEMPT: str(work.attempt),
            **({CACHE_VARIABLE: str(Path(cache).absolute())} if cache else {}),
        }
        command = [sys.executable, "-m", "harness", "heat", str(work.run), *map(str, work.heats)]
        options: dict[str, Any] = {
            "num_cpus": demand.get(CPU, 0.0),
            "num_gpus": demand.get(GPU, 0.0),
            "resources": {name: amount for name, amount in demand.items() if name not in (CPU, GPU, MEMORY)},
        }
        if demand.get(MEMORY):
            options["memory"] = int(demand[MEMORY])
        try:
            task = self._run_heats.options(**options)
            return task.remote(command, str(work.run), str(work.log), variables, allocation.RAY_NODE)
        except Exception as error:  # Ray raises whatever it meets
            raise SchedulerError(f"Ray cluster at {self.address}: {_first_line(error)}") from error

    def wait(self, tasks: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the tasks that have ended, as soon as one has."""
        ended: list[Any] = self._ray.wait(list(tasks), num_returns=1, timeout=seconds)[0]
        return ended

    def ended(self, task: Any) -> TaskEnd:
        """How a task has ended."""
        errors = self._ray.exceptions
        try:
            node, status, line = self._ray.get(task)
        except errors.TaskCancelledError:
            return TaskEnd(CANCELLED, "was cancelled")
        except (errors.NodeDiedError, errors.LocalRayletDiedError) as error:
            return TaskEnd(LOST, f"node died ({_first_line(error)})")
        except errors.OutOfMemoryError as error:
            return TaskEnd(MEMORY_OUT, f"ended by Ray because its node ran out of memory ({_first_line(error)})")
        except (errors.ObjectLostError, errors.RpcError, errors.GetTimeoutError) as error:
            return TaskEnd(LOST, f"answer was lost, which says nothing of its heats ({_first_line(error)})")
        except errors.RayError as error:
            return TaskEnd(FAILED, f"failed ({_first_line(error)})")
        if status is None or status == UsageError.exit_status:
            return TaskEnd(REFUSED, f"node {node}: {line}")
        if status:
            ended = f"exit status {status}" if status > 0 else f"signal {-status}"
            return TaskEnd(FAILED, f"ended with {ended} on node {node}{f': {line}' if line else ''}")
        return TaskEnd(DONE, f"ended on node {node} without a record{f': {line}' if line else ''}")

    def cancel(self, tasks: Sequence[Any], force: bool = False) -> None:
        """Stop tasks: their heats save what they have, unless by ``force``."""
        for task in tasks:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=force)

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        with suppress(SchedulerError):  # without its head Ray would wait a minute, and then end this process
            _require_answer(self._head, self.address)
            self._ray.shutdown()


def connect(address: str) -> Cluster:
    """Connect to a cluster; with the address "local" start one on this machine for as long as it takes.

    Raises UsageError where Ray is not installed, SchedulerError where no cluster answers.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            '--launcher ray: Ray is not installed here: pip install "backend-harness[ray]" (in a clone: uv sync '
            f"--extra ray), of the version that the cluster has ({error})"
        ) from error
    asked = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    found = _found() if asked == DEFAULT_ADDRESS else asked
    if found not in (DEFAULT_ADDRESS, LOCAL):
        _require_answer(_host_and_port(found), found)
    try:
        with silenced(), _own_signals(), _out_of_the_way():
            dashboard = {"include_dashboard": False} if found == LOCAL else {}
            ray.init(address=found, log_to_driver=False, logging_level="ERROR", **dashboard)
    except Exception as error:  # Ray raises whatever it meets
        raise SchedulerError(f"Ray cluster at {found}: {_first_line(error)}") from error
    return Cluster(ray, found)


@contextmanager
def _out_of_the_way() -> Iterator[None]:
    """Ray puts the folder that it is connected from first on the path of all of its workers: here the Python's."""
    before = os.getcwd()
    os.chdir(sys.prefix)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def silenced() -> Iterator[None]:
    """Ray tells of nodes that die on standard output, which is for data."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _task() -> Callable[..., tuple[str, int | None, str]]:
    """What runs on a node. A function within another travels whole, so Ray's Python there needs no harness."""
    look, patience = LOOK_SECONDS, STOP_SECONDS

    def run_heats(
        command: list[str], run: str, log: str, variables: dict[str, str], name_of_node: str
    ) -> tuple[str, int | None, str]:
        """Node, exit status (None: this node cannot run them) and last line."""
        import os
        import socket
        import subprocess
        import time

        import ray

        node = socket.gethostname()
        for path, what in ((run, "the run folder"), (command[0], "the harness's Python")):
            if not os.path.exists(path):
                return node, None, f"{what} {path} is not there; it has to be on a disk that all nodes see"
        os.makedirs(os.path.dirname(log), exist_ok=True)
        environment = {**os.environ, **variables, name_of_node: ray.get_runtime_context().get_node_id()}
        with open(log, "ab") as output:
            began = output.tell()
            process = subprocess.Popen(
                command,
                cwd=os.path.dirname(log),  # ``-m`` puts it first on the path, and no file of a person's lies there
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
            try:
                while process.poll() is None:
                    time.sleep(look)
            finally:
                if process.stdin is not None:
                    process.stdin.close()
                deadline = time.monotonic() + patience
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
                process.kill()  # its workers end with it
        with open(log, "rb") as written:
            written.seek(began)
            lines = written.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return node, process.wait(), said[-1] if said else ""

    return run_heats


def _found() -> str:
    """Where the cluster of this machine is. Raises SchedulerError if there is none."""
    try:
        from ray._private.services import canonicalize_bootstrap_address_or_die as find
    except ImportError:  # Ray then looks by itself
        return DEFAULT_ADDRESS
    try:
        return str(find(DEFAULT_ADDRESS))
    except ConnectionError as error:
        raise SchedulerError(
            f"no Ray cluster found on this machine: {HOW_TO_START}, or name one by --ray address=HOST:PORT or "
            f"{ADDRESS_VARIABLE} ({_first_line(error)})"
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix(CLIENT_SCHEME).rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"--ray: address: found {address!r}, allowed: HOST:PORT, {DEFAULT_ADDRESS} or {LOCAL}")
    return host.strip("[]"), int(port)


def _require_answer(place: tuple[str, int], address: str) -> None:
    try:
        socket.create_connection(place, CONNECT_PATIENCE).close()
    except OSError as error:
        raise SchedulerError(
            f"Ray cluster at {address}: its head does not answer ({error.strerror or error}); {HOW_TO_START}"
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray makes SIGTERM an exit of its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
