"""What a worker is started with: its command, and an environment in which it writes only where it may."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.variables import is_computing
from harness.workers.code_bundle import Bundle

FOLDERS = {
    "TMPDIR": "tmp",
    "TMP": "tmp",
    "TEMP": "tmp",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "KERAS_HOME": "keras",
    "MPLCONFIGDIR": "matplotlib",
    "CUDA_CACHE_PATH": "cuda",
}
"""Variables that tell libraries where to write -> folder inside the worker's own."""

FIXED = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
"""The interpreter's own settings: nothing of the person's, nothing written, all output kept."""

DROPPED = ("VIRTUAL_ENV",)
"""It belongs to another Python."""


@dataclass(frozen=True)
class Launch:
    """How to start one host.

    ``python``: the interpreter, a link kept as it is. ``backend``: a name or ``module:Class``. ``env``: the
    target's own variables. ``scratch``: a folder of the run in which the host gets a fresh one, removed at its end.
    ``log``: where all it prints is appended. ``extra_path``: folders of third-party backends.
    """

    python: Path
    backend: str
    bundle: Bundle
    env: Mapping[str, str]
    scratch: Path
    log: Path
    fork: bool = True
    extra_path: tuple[Path, ...] = ()

    def command(self) -> list[str]:
        """The host's command line."""
        options = ["--code", self.bundle.sha256] + ([] if self.fork else ["--no-fork"])
        return [str(self.python), "-m", "backends.worker", self.backend, *options]

    def environment(self, folder: Path) -> dict[str, str]:
        """The host's whole environment; ``folder`` is its own, in which the folders named are made."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("PYTHON") and name.upper() not in DROPPED and not is_computing(name)
        }
        for name in set(FOLDERS.values()):
            (folder / name).mkdir(parents=True, exist_ok=True)
        places = {variable: str(folder / name) for variable, name in FOLDERS.items()}
        path = os.pathsep.join(str(part) for part in (self.bundle.path, *self.extra_path))
        return {**kept, **places, "TF_CPP_MIN_LOG_LEVEL": "0", **self.env, **FIXED, "PYTHONPATH": path}
