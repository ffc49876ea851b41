"""A sweep of cells that train in milliseconds, and how the tests run ``harness sweep`` on it: as a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import paths
from harness.core.record import Record
from harness.runs import folder as run_folder
from tests.command import HARNESS
from tests.process.processes import wait_until_none
from tests.process.small_cell import HERE, MARK

PATIENCE = 300.0
"""Seconds after which a command hangs; a busy machine takes some of them."""
BATCH_SIZES = (4, 8, 16)
MODEL = """
name = "small"
input_shape = [4, 4, 1]
layers = [{ kind = "flatten" }, { kind = "dense", units = 3 }]
"""
SWEEP = """
name = "small"
model = "model.toml"
dataset = "small.npz"
epochs = 2
training.optimizer = "sgd"
"""

Line = tuple[object, str, int, str]
"""Batch size, place, call, action: see ``scripted_backend``."""


@dataclass
class Sweeper:
    """A folder with a sweep file, its model and dataset. ``script`` says how the target "scripted" misbehaves.

    ``elsewhere``: heats run where the variables of a command do not come to, so that targets have the script's.
    """

    folder: Path
    cache: Path
    mark: str
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    elsewhere: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "model.toml").write_text(MODEL)
        np.savez(self.folder / "small.npz", **_images())
        self.add("scripted", "scripted_backend:ScriptedBackend")
        self.script()

    def add(self, name: str, backend: str, python: str = sys.executable, **variables: str) -> None:
        """Give the sweep file one more own target."""
        own = self._where_the_script_is() if self.elsewhere else {}
        self.targets[name] = {
            "backend": backend,
            "python": python,
            "path": str(HERE),
            "modes": ["numpy"],
            "env": {**own, **variables},
        }

    def script(self, *lines: Line) -> None:
        """Replace the script. One for a probe makes targets of this folder's own: none that others have proven."""
        (self.folder / "script.json").write_text(json.dumps(lines))
        if any(case == "probe" for case, *_ in lines):
            for table in self.targets.values():
                table["env"] = {**table["env"], "OWN": str(self.folder)}

    def tables(self) -> str:
        """The own targets as TOML."""
        return "\n".join(
            f"[targets.{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
            for name, table in self.targets.items()
        )

    def command(self, *flags: str, target: str = "scripted", batch_sizes: Sequence[int] = BATCH_SIZES) -> list[str]:
        """The command line; writes the sweep file."""
        (self.folder / "small.toml").write_text(SWEEP + self.tables())
        sizes = ",".join(map(str, batch_sizes))
        return [HARNESS, "sweep", "small.toml", "--target", target, "--batch-size", sizes, "--out", "run", *flags]

    def run(self, *flags: str, patience: float = PATIENCE, **choices: Any) -> subprocess.CompletedProcess[str]:
        """Run to its end. Whatever happens it leaves no process and no traceback."""
        return self.finished(self.command(*flags, **choices), patience)

    def harness(self, *arguments: str, patience: float | None = None) -> subprocess.CompletedProcess[str]:
        """Any other command of ``harness``, run as ``run`` does, with the own targets in ``harness.toml``."""
        (self.folder / "harness.toml").write_text(self.tables())
        return self.finished([HARNESS, *arguments], patience)

    def finished(self, command: Sequence[str], patience: float | None) -> subprocess.CompletedProcess[str]:
        """The end of a command, which leaves no process and no traceback."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=patience
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert wait_until_none(self.mark) == []
        return done

    @contextmanager
    def running(self, *flags: str, **choices: Any) -> Iterator[subprocess.Popen[str]]:
        """A sweep beside the test, which ends it."""
        with self.started(self.command(*flags, **choices)) as process:
            yield process

    @contextmanager
    def started(self, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """A command beside the test, which ends it."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
        assert wait_until_none(self.mark) == []

    def environment(self) -> dict[str, str]:
        """The variables of every command: a cache of the tests' own, the script, and a mark to find its processes by.

        The script is no variable of a target: each test's targets would be its own, and proven in each anew.
        """
        return {**os.environ, **self._where_the_script_is(), paths.CACHE_VARIABLE: str(self.cache), MARK: self.mark}

    def _where_the_script_is(self) -> dict[str, str]:
        return {"SCRIPT": str(self.folder / "script.json")}

    @property
    def kept(self) -> run_folder.Run:
        """The run folder."""
        return run_folder.Run.open(self.folder / "run")

    def records(self) -> dict[tuple[str, int], Record]:
        """(target, batch size) -> its one record."""
        found = {(record.cell.target.name, record.cell.training.batch_size): record for record in self.kept.records()}
        assert len(found) == len(list(self.kept.records()))
        return found

    def statuses(self) -> dict[tuple[str, int], str]:
        """(target, batch size) -> the status of its one record."""
        return {key: record.status for key, record in self.records().items()}

    def record_bytes(self) -> dict[str, bytes]:
        """Every file of records as it is on the disk."""
        folder = self.folder / "run" / "records"
        return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def made_cache(folder: Path) -> Path:
    """Make a folder a cache for tests: their proofs are their own, the environments the person's."""
    folder.mkdir(exist_ok=True)
    (folder / "environments").symlink_to(paths.cache_folder("environments"), target_is_directory=True)
    return folder


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Sleep until ``process`` has brought it about that a file is there."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str, str]:
    """Send a signal and wait for the end: exit status, standard output, standard error."""
    process.send_signal(how)
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def count(statuses: dict[tuple[str, int], str]) -> Counter[str]:
    """How many cells ended how."""
    return Counter(statuses.values())


def _images() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, size in (("train", 64), ("test", 30)):
        labels = np.arange(size, dtype=np.int32) % 3
        arrays[f"y_{part}"] = labels
        arrays[f"x_{part}"] = (generator.integers(0, 100, (size, 4, 4)) + 50 * labels[:, None, None]).astype(np.uint8)
    return arrays


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
