"""What is in the user's cache: every entry with its kind, size and last use, and why nobody will use it again.

In: the cache's folder, and what the present code and targets use. Out: entries, the largest kinds first; nothing is
changed. ``remove`` takes one away, unless a running harness uses it, and never by a link that leads out of the cache.

    environments/  datasets/                one folder each, large
    proofs/  limits/  learning-rates/       small files that save later runs their time
    pages/  speeds.json                     likewise
    bundles/                                the workers' code
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.cache import in_use
from harness.paths import (
    BUNDLES,
    DATASETS,
    ENVIRONMENTS,
    LARGEST_BATCHES,
    LEARNING_RATES,
    LIMITS,
    PAGES,
    PROOFS,
    SPEEDS_FILE,
)
from harness.plan.datasets import cache as datasets
from harness.workers import environments
from harness.workers.code_bundle import ID_LENGTH

SPEEDS = "speeds"
OTHER = "other"
KINDS = (ENVIRONMENTS, DATASETS, PROOFS, LIMITS, LEARNING_RATES, LARGEST_BATCHES, BUNDLES, PAGES, SPEEDS)
"""Those that can be cleared. What is none of them is of kind ``other``, and not the harness's to remove."""

LEFT_SECONDS = 3600.0
"""A hidden file or folder of a writing that takes moments is nobody's any more when it is older."""

NOT_FINISHED = "left by a process that did not finish it"
OTHER_CODE = "of other code than the present"


@dataclass(frozen=True)
class Current:
    """What the present code uses: its hash, its drawing scripts' file, its datasets' keys.

    ``environments``: the identity of each target's environment -> the names of its targets.
    """

    code: str
    charts: str
    datasets: frozenset[str]
    environments: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Entry:
    """One thing in the cache. ``last_used`` in seconds since 1970; ``unused``: why nobody will use it, or empty.

    ``building``: locks that are held while somebody makes it.
    """

    kind: str
    path: Path
    title: str
    bytes: int
    last_used: float
    unused: str = ""
    building: tuple[Path, ...] = ()


def look(base: Path, current: Current) -> list[Entry]:
    """Every entry of the cache in ``base``, by kind, then by name."""
    readers: dict[str, Callable[[Path, Current], Entry | None]] = {
        ENVIRONMENTS: _environment,
        DATASETS: _dataset,
        PROOFS: _proof,
        LIMITS: _limit,
        LEARNING_RATES: partial(_searched, LEARNING_RATES),
        LARGEST_BATCHES: partial(_searched, LARGEST_BATCHES),
        BUNDLES: _bundle,
        PAGES: _page,
    }
    found = []
    for kind, read in readers.items():
        found += [entry for path in _inside(base / kind) if (entry := read(path, current)) is not None]
    for path in _inside(base):
        if path.name == SPEEDS_FILE:
            found.append(_entry(SPEEDS, path, "how fast cells of earlier runs were"))
        elif path.name not in readers and not _is_lock(path):
            found.append(_entry(OTHER, path, path.name))
    return found


def remove(base: Path, entry: Entry) -> bool:
    """Remove an entry of ``look``; False if a running harness uses it.

    Raises OSError where it may not be removed, or where its folder is a link, which is not followed.
    """
    if entry.path.parent != base and entry.path.parent.is_symlink():
        raise OSError(0, f"{entry.path.parent} is a link, which is not followed", str(entry.path))
    return in_use.remove(entry.path, entry.building)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count themselves, and are not followed."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        with os.scandir(path) as inside:
            return sum(_size(entry) for entry in inside)
    except OSError:  # gone meanwhile, or not ours to look at
        return 0


def _size(entry: os.DirEntry[str]) -> int:
    """As ``size``; asks the system once for each file, of which an environment has tens of thousands."""
    if entry.is_dir(follow_symlinks=False):
        return size(Path(entry.path))
    return entry.stat(follow_symlinks=False).st_size


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _entry(
    kind: str,
    path: Path,
    title: str,
    unused: str = "",
    used: Path | None = None,
    building: tuple[Path, ...] = (),
) -> Entry:
    """``used``: the file whose time is that of the last use, if it is not ``path`` itself."""
    try:
        last = (used or path).lstat().st_mtime
    except OSError:
        last = 0.0
    return Entry(kind, path, title, size(path), last, unused, building)


def _environment(path: Path, current: Current) -> Entry | None:
    if _is_lock(path):
        return None
    if path.suffix == ".log":
        built = path.with_suffix("")
        unused = "" if built.exists() else "its environment is not there"
        return _entry(ENVIRONMENTS, path, "log of a build", unused, building=(environments.lock_of(built),))
    if path.name.startswith(environments.UNFINISHED):
        beginning = path.name.removeprefix(environments.UNFINISHED).partition("-")[0]
        locks = tuple(path.parent.glob(f"{beginning}*.lock"))
        return _entry(ENVIRONMENTS, path, path.name, NOT_FINISHED, building=locks)
    if path.name.endswith(in_use.REMOVED):
        return _entry(ENVIRONMENTS, path, path.name, NOT_FINISHED)
    names = [name for identity, names in current.environments.items() if _is_of(path, identity) for name in names]
    unused = "" if names else "no target here has its lock file"
    marker = path / environments.MARKER
    return _entry(ENVIRONMENTS, path, ", ".join(names), unused, marker, (environments.lock_of(path),))


def _is_of(path: Path, identity: str) -> bool:
    """Whether an environment is one of that identity, for this platform or another that shares the disk."""
    return path.name.startswith(f"{environments.name_of(identity)}-")


def _dataset(path: Path, current: Current) -> Entry | None:
    if _is_lock(path):
        return None
    if path.name.startswith("."):
        key = path.name[1:].removesuffix(".parts").partition(".")[0]
        building = (datasets.lock_of(path.with_name(key)),)
        if path.name.endswith(".parts"):
            unused = NOT_FINISHED if (path.parent / key).exists() else ""
            return _entry(DATASETS, path, f"unfinished download of {key}", unused, building=building)
        return _entry(DATASETS, path, path.name, NOT_FINISHED, building=building)
    description = path / datasets.DESCRIPTION
    own = path.name.startswith("own-")
    unused = "" if own or path.name in current.datasets else "of another version of the harness"
    title = str(_read(description).get("name", path.name))
    return _entry(DATASETS, path, title, unused, description, (datasets.lock_of(path),))


def _proof(path: Path, current: Current) -> Entry | None:
    return _measured(PROOFS, path, current)


def _limit(path: Path, current: Current) -> Entry | None:
    return _measured(LIMITS, path, current)


def _searched(kind: str, path: Path, current: Current) -> Entry | None:
    """What a search found, whatever the state of the code."""
    return _left(kind, path) if path.name.startswith(".") else _entry(kind, path, path.name)


def _measured(kind: str, path: Path, current: Current) -> Entry | None:
    """What was found out of a target, which holds for one state of the code."""
    if path.name.startswith("."):
        return _left(kind, path)
    key = _read(path).get("key")
    is_current = isinstance(key, dict) and key.get("code") == current.code
    return _entry(kind, path, path.name, "" if is_current else OTHER_CODE)


def _bundle(path: Path, current: Current) -> Entry | None:
    if path.name.startswith("."):
        return None if _is_lock(path) else _left(BUNDLES, path)
    return _entry(BUNDLES, path, path.name, "" if path.name == current.code[:ID_LENGTH] else OTHER_CODE)


def _page(path: Path, current: Current) -> Entry | None:
    if path.name.startswith("."):
        return _left(PAGES, path)
    unused = "" if path.name == current.charts else "of another version of the library that draws"
    return _entry(PAGES, path, path.name, unused)


def _left(kind: str, path: Path) -> Entry | None:
    """A hidden file or folder: of a writing under way, or left by one."""
    found = _entry(kind, path, path.name, NOT_FINISHED)
    return found if time.time() - found.last_used > LEFT_SECONDS else None


def _is_lock(path: Path) -> bool:
    """A lock is kept whatever becomes of its entry: who removes one while another waits for it lets two in."""
    return path.suffix == ".lock"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
