"""A Ray cluster of a head and two nodes on this machine, in a process of its own: what it prints and warns stays there.

Run as a program it holds the cluster and takes commands, one a line: ``kill NUMBER``, ``start NUMBER``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.two_nodes import until
from tests.process.processes import marked
from tests.process.small_cell import MARK

STORE_BYTES = 80 * 1024 * 1024
"""Of each node's object store, the least that Ray allows: heats keep nothing in it."""

HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
"""How soon a node that has gone is known to be dead; Ray's own is some 20 s."""


@dataclass
class RayNodes:
    """Nodes 1 and 2 with two processors each, and the resource ``first`` or ``second``; the head runs no tasks."""

    folder: Path
    mark: str
    address: str = ""
    ids: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        variables = {
            MARK: self.mark,
            "RAY_TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": root,
            "PYTHONWARNINGS": "ignore",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.ray_nodes"],
            cwd=root,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()["address"]
        self.start(1)
        self.start(2)

    def start(self, number: int) -> None:
        self.ids[number] = self._ask(f"start {number}")["id"]

    def kill(self, number: int) -> None:
        """As if it had lost its power."""
        self._ask(f"kill {number}")
        del self.ids[number]

    def number_of(self, log: str) -> int:
        """The node on which a record's log was written."""
        (found,) = (number for number, id in self.ids.items() if f"ray-{id[:8]}-" in log)
        return found

    def heats(self, folder: Path) -> list[psutil.Process]:
        """The processes that run heats of a folder on the nodes."""
        found = []
        for pid in marked(self.mark):
            with contextlib.suppress(psutil.Error):  # gone meanwhile
                process = psutil.Process(pid)
                if is_heat(process.cmdline(), folder):
                    found.append(process)
        return found

    def down(self) -> None:
        self._process.communicate("")
        until(lambda: marked(self.mark) == [], "Ray's processes to end")

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """Ray prints on standard output as it likes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"answer"'):
                found: dict[str, Any] = json.loads(line)["answer"]
                return found
        raise AssertionError("the cluster's process has ended")


def is_heat(command: Sequence[str], folder: Path) -> bool:
    return list(command[1:4]) == ["-m", "harness", "heat"] and command[4].startswith(str(folder))


def serve() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "_system_config": HEALTH,
        },
    )
    nodes: dict[int, Any] = {}
    answer(address=cluster.address)
    for line in sys.stdin:
        what, number = line.split()[0], int(line.split()[1])
        if what == "start":
            name = ("first", "second")[number - 1]
            nodes[number] = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES, resources={name: 1})
            answer(id=nodes[number].node_id)
        else:
            cluster.remove_node(nodes.pop(number), allow_graceful=False)
            answer()
    cluster.shutdown()


def answer(**values: Any) -> None:
    print(json.dumps({"answer": values}), flush=True)


if __name__ == "__main__":
    serve()
