"""The two-node Slurm of the tests, and sweeps that are submitted to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs import folder as run_folder
from tests.command import HARNESS
from tests.process.small_sweep import Sweeper

PATIENCE = 600.0


@dataclass
class TwoNodes:
    """Started and ended by ``script``; its state is in ``folder``. Nodes n1 (feature cuda) and n2 (feature dml)."""

    script: Path
    folder: Path
    port: int = field(default_factory=lambda: _free_ports(3))

    def environment(self) -> dict[str, str]:
        """What finds this Slurm."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def up(self) -> None:
        self._script("up")

    def down(self) -> None:
        self._script("down")

    def kill_node(self, name: str) -> None:
        """As if it had lost its power."""
        self._script("killnode", name[1:])

    def hurry(self, job: str) -> None:
        """Wait until a job is back in the queue, and spare it the two minutes that Slurm has such a one wait."""
        ask = lambda: self.ask("squeue", "-h", "-r", "-j", job, "-o", "%i %T %r", check=False)  # noqa: E731
        rows = until(lambda: [row.split() for row in ask().splitlines() if "PENDING BeginTime" in row], "the requeue")
        for task, *_ in rows:
            self.ask("scontrol", "update", f"JobId={task}", "StartTime=now")

    def start_node(self, name: str) -> None:
        self._script("node", name[1:])
        self.wait_idle()

    def restart_controller(self, *settings: str, down: float = 2.0) -> None:
        """Stop it, change lines of its configuration (NAME=VALUE), and start it again ``down`` seconds later."""
        process = int((self.folder / "pid" / "slurmctld.pid").read_text())
        os.kill(process, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{process}").exists() or _is_zombie(process), "the controller to stop")
        time.sleep(down)
        conf = self.folder / "slurm.conf"
        names = tuple(f"{setting.partition('=')[0]}=" for setting in settings)
        kept = [line for line in conf.read_text().splitlines() if not names or not line.startswith(names)]
        conf.write_text("\n".join([*settings, *kept]) + "\n")
        subprocess.run(["slurmctld", "-f", str(conf)], check=True, env=self.environment())
        until(lambda: self.ask("scontrol", "ping", check=False).count(" UP"), "the controller to start")

    def ask(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's programs prints."""
        return subprocess.run(command, env=self.environment(), check=check, capture_output=True, text=True).stdout

    def wait_idle(self) -> None:
        """Until both nodes are free, or rather nothing is left on them."""
        states = lambda: self.ask("sinfo", "-h", "-N", "-o", "%t", check=False).split()  # noqa: E731
        until(lambda: states() == ["idle", "idle"], "both nodes to be idle")

    def _script(self, *arguments: str) -> None:
        command = ["bash", str(self.script), arguments[0], str(self.folder), *arguments[1:]]
        environment = {**os.environ, "BASEPORT": str(self.port)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout


@dataclass
class ClusterSweeper(Sweeper):
    """As ``Sweeper``, but what it starts goes on: the jobs."""

    nodes: TwoNodes = None  # type: ignore[assignment]

    def environment(self) -> dict[str, str]:
        found = {**super().environment(), **{key: self.nodes.environment()[key] for key in ("SLURM_CONF", "PATH")}}
        return {**found, "PATH": f"{self.site}:{found['PATH']}"}

    @property
    def site(self) -> Path:
        """The site's own programs, before Slurm's."""
        return self.folder.parent / "site"

    def wrap(self, name: str, script: str) -> None:
        """Put a site's own program before one of Slurm's; ``$real`` in the script is that one."""
        self.site.mkdir(exist_ok=True)
        real = shutil.which(name, path=self.nodes.environment()["PATH"])
        path = self.site / name
        path.write_text(f"#!/bin/bash\nreal={real}\n{script}\n")
        path.chmod(0o755)

    def finished(self, command: Sequence[str], patience: float | None = PATIENCE) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=patience
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def submit(self, *flags: str, **choices: Any) -> subprocess.CompletedProcess[str]:
        """``harness sweep --launcher slurm``."""
        return self.run("--launcher", "slurm", *flags, patience=PATIENCE, **choices)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """``harness wait``: the end of the run."""
        return self.finished([HARNESS, "wait", "run"])

    def status(self) -> dict[str, Any]:
        """``harness status --json``."""
        done = self.finished([HARNESS, "status", "run", "--json"])
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def nodes_of_records(self) -> set[str]:
        """Where the cells ran."""
        return {record.machine["slurm"]["node"] for record in self.kept.records()}

    def until_running(self, job: str, task: int = 0) -> str:
        """Wait until a task runs; returns its node."""
        ask = lambda: self.nodes.ask("squeue", "-h", "-r", "-t", "R", "-j", job, "-o", "%K %N", check=False)  # noqa: E731
        rows = until(lambda: [row for row in ask().splitlines() if row.split()[0] == str(task)], f"{job}_{task} to run")
        return str(rows[0].split()[1])


def until(what: Callable[[], Any], name: str, seconds: float = PATIENCE) -> Any:
    """Ask again and again until something is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {name}"
        time.sleep(0.1)
    return found


def each_once(run: run_folder.Run) -> dict[str, str]:
    """cell_id -> status; every planned cell has exactly one record."""
    statuses = run.statuses()
    assert statuses.keys() == run.cells.keys()
    return statuses


def _free_ports(count: int) -> int:
    """The first of several neighbouring ports that nobody has."""
    for first in range(20000 + os.getpid() % 5000, 30000, count + 1):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no ports are free")


def _is_zombie(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
