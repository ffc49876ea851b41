"""Interpreters: find a Python on this machine, check that one can serve a worker, call uv undisturbed.

Nothing here builds or downloads. A virtual environment's ``python`` is a link that must not be resolved: the
environment is found by the link's place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.core import system
from harness.core.errors import EnvironmentBuildError

OLDEST_PYTHON = (3, 10)
PROBE_SECONDS = 120
"""How long an interpreter may take to start and import NumPy: cold files on a network disk are slow."""

KEPT_UV_VARIABLES = re.compile(
    r"UV_(INDEX.*|DEFAULT_INDEX|EXTRA_INDEX_URL|NO_INDEX|FIND_LINKS|OFFLINE|KEYRING_PROVIDER|CREDENTIALS_DIR|INSECURE_HOST"
    r"|CONFIG_FILE|NO_CONFIG|CACHE_DIR|NO_CACHE|LINK_MODE|SYSTEM_CERTS|NATIVE_TLS|HTTP_.*|REQUEST_TIMEOUT|LOCK_TIMEOUT"
    r"|CONCURRENT_.*|PYTHON_.+)"
)
"""Variables of uv that say how to reach packages and Pythons. All others, such as overrides and project
settings, could change what is installed or where, and are withheld from it."""

NOT_FROM_HERE = """
import sys
sys.path = [folder for folder in sys.path if folder]
"""
"""First of all that an interpreter is asked by ``-c``, which puts the present folder first on its path: a json.py of a
person's may lie there."""

_PROBE = """
import json
answer = {"python": list(sys.version_info[:3]), "error": ""}
try:
    import numpy
except Exception as error:
    answer["error"] = "%s: %s" % (type(error).__name__, error)
print(json.dumps(answer))
"""


def find_python(version: str) -> Path | None:
    """Find an installed CPython such as ``3.11``: as uv finds it, else in pyenv's folders; None if there is none."""
    answer = _ask_uv("python", "find", "--system", "--no-project", f"cpython@{version}")
    if answer:
        return Path(answer.splitlines()[-1])
    for folder in _pyenv_folders():
        installed = [path for path in folder.glob(f"{version}.*") if path.name.rpartition(".")[2].isdecimal()]
        for path in sorted(installed, key=lambda path: int(path.name.rpartition(".")[2]), reverse=True):
            python = system.python_of_installation(path, version)
            if python.exists():
                return python
    return None


def how_to_get(version: str) -> str:
    """One line for a person whose machine has no such Python."""
    return (
        f"Python {version} is not on this machine: install it (`uv python install {version}`, `pyenv install {version}`"
        " or your system's packages), or name an interpreter of your own as `python` of a target"
    )


def downloadable(version: str) -> bool:
    """Whether uv knows a build of this Python for this machine and may download it."""
    if os.environ.get("UV_PYTHON_DOWNLOADS", "").lower() in ("never", "manual") or os.environ.get("UV_OFFLINE"):
        return False
    return bool(_ask_uv("python", "list", "--only-downloads", f"cpython@{version}"))


def problem_of(python: Path) -> str:
    """What is wrong with an interpreter, in one line; empty if it can serve a worker."""
    if not python.is_file():
        return f"there is no interpreter {python}"
    try:
        result = subprocess.run(
            [str(python), "-c", NOT_FROM_HERE + _PROBE],
            env=clean_variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_SECONDS,
        )
        answer = json.loads(result.stdout.splitlines()[-1])
        version, error = tuple(answer["python"]), answer["error"]
    except OSError as failure:
        return f"{python} cannot be run ({failure.strerror})"
    except subprocess.TimeoutExpired:
        return f"{python} did not answer within {PROBE_SECONDS} s"
    except (IndexError, KeyError, TypeError, ValueError):
        said = (result.stderr or result.stdout).strip().splitlines()
        last = f": {said[-1]}" if said else ""
        return f"{python} does not run as a Python interpreter (exit status {result.returncode}{last})"
    if version[:2] < OLDEST_PYTHON:
        return (
            f"{python} is Python {'.'.join(map(str, version))}; {'.'.join(map(str, OLDEST_PYTHON))} or later is needed"
        )
    return f"{python} cannot import NumPy ({error})" if error else ""


def uv_binary() -> str:
    """The uv that was installed with the harness, or else the one on the PATH."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentBuildError("uv, which builds environments, is missing: install it with `pip install uv`")
    return found


def clean_variables() -> dict[str, str]:
    """This process's variables without what would steer uv or a Python away from what is asked of them.

    Shims are left out of the PATH: pyenv's exist for versions that are not active too, then fail, and uv
    gives up there.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "UV_", "VIRTUAL_ENV", "__PYVENV")) or KEPT_UV_VARIABLES.fullmatch(key)
    }
    folders = kept.get("PATH", "").split(os.pathsep)
    return {**kept, "PATH": os.pathsep.join(folder for folder in folders if Path(folder).name != "shims")}


def _ask_uv(*arguments: str) -> str:
    """Standard output of a quick uv command, empty if it failed."""
    try:
        result = subprocess.run(
            [uv_binary(), "--color", "never", *arguments],
            cwd=os.path.abspath(os.sep),  # it would obey a uv.toml of the present folder, or stumble over it
            env=clean_variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _pyenv_folders() -> Iterator[Path]:
    """Folders in which pyenv, or pyenv-win, keeps its versions."""
    roots = [os.environ[key] for key in ("PYENV_ROOT", "PYENV") if os.environ.get(key)]
    roots += [os.path.expanduser(path) for path in ("~/.pyenv", "~/.pyenv/pyenv-win")]
    pyenv = shutil.which("pyenv")
    if pyenv:
        try:
            answer = subprocess.run([pyenv, "root"], capture_output=True, encoding="utf-8", timeout=PROBE_SECONDS)
            roots += answer.stdout.split("\n")[:1]
        except (OSError, subprocess.TimeoutExpired):
            pass
    for root in dict.fromkeys(roots):
        if root and (Path(root) / "versions").is_dir():
            yield Path(root) / "versions"
