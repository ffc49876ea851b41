"""The worker's code as one folder named by its hash: ``harness/core`` and ``backends``, and nothing else.

It is all that stands on a worker's ``PYTHONPATH``: the harness's own libraries belong to another Python. Line ends are
normalised, so the hash is the same on every system; it is the code identity on every record.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.cache import in_use
from harness.cache.keeping import mark_used
from harness.core import system
from harness.core.errors import EnvironmentBuildError

ID_LENGTH = 16


@dataclass(frozen=True)
class Bundle:
    """``path`` goes on ``PYTHONPATH``; ``sha256`` covers the names and contents of all its files."""

    path: Path
    sha256: str


def bundle(cache: Path) -> Bundle:
    """The bundle of the installed code, made in ``cache`` unless it is there whole. Safe between processes.

    Raises EnvironmentBuildError if it cannot be written.
    """
    files = _sources()
    sha256 = _digest(files)
    place = cache / sha256[:ID_LENGTH]
    in_use.hold(place)
    try:
        if _present(place, files):
            mark_used(place)
            return Bundle(place, sha256)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=cache) as temporary:
            fresh = Path(temporary, "new")
            for name, content in files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            _put_in_place(fresh, place, files)
    except OSError as error:
        raise EnvironmentBuildError(f"{place}: the worker's code cannot be written ({error.strerror})") from error
    return Bundle(place, sha256)


def code_sha256() -> str:
    """The identity of the installed code: that of the bundle that would be made of it."""
    return _digest(_sources())


def _put_in_place(fresh: Path, place: Path, files: dict[str, bytes]) -> None:
    if place.exists():  # damaged, or another process has just made it
        if _present(place, files):
            return
        damaged = fresh.parent / "damaged"
        system.replace(place, damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        system.replace(fresh, place)
    except OSError:
        if not _present(place, files):
            raise


def _sources() -> dict[str, bytes]:
    """Path inside the bundle -> content, in the order of the paths."""
    files = {"harness/__init__.py": b""}
    for package in ("harness.core", "backends"):
        # Found, not imported: the harness never imports backends.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise EnvironmentBuildError(f"the package {package} is not installed beside the harness")
        root = Path(spec.submodule_search_locations[0])
        for path in root.rglob("*.py"):
            name = f"{package.replace('.', '/')}/{path.relative_to(root).as_posix()}"
            files[name] = path.read_bytes().replace(b"\r\n", b"\n")
    return dict(sorted(files.items()))


def _digest(files: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in files.items():
        total.update(f"{name}:{len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _present(place: Path, files: dict[str, bytes]) -> bool:
    try:
        return all((place / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False
