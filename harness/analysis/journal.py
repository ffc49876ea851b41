"""The row of each record that is saved, written down by whoever saves it, so that the first reader has it already.

    RUN/.index.lines/RANDOM    a line for each record that one process saved, each with a digest of its own

It is never the truth. A line counts only where its digest is that of its content, of the code that made it and of the
plan of its run, and where the record's file is still the one that was saved. Whatever is absent, cut off, damaged or of
an earlier attempt is passed over, and the record is read. Nothing here fails a save. A line is one write to the end of
a file that no other process writes to, which is opened for that alone: readers may remove it at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.core import codec
from harness.paths import PLAN_FILE

if TYPE_CHECKING:
    from harness.runs.folder import Run

FOLDER = ".index.lines"

Signature: TypeAlias = tuple[str, int, int, int, int]
"""Of a record's file: name, bytes, when it was changed, and in any way, in nanoseconds; inode."""

_SIGNATURE_LENGTH = 5
_LARGEST_INODE = 0xFFFF_FFFF_FFFF_FFFF
_SECOND = 1_000_000_000
_MADE_BY = ("core", "analysis", "runs", "statistics.py")
"""What of this package decides what is in a row."""


def keep(run: Run) -> None:
    """Have a line written of each record that is saved through ``run`` from now on."""
    run.on_saved = Journal(run.folder).note


class Journal:
    """Writes the lines of one process. Nothing is imported or made before the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, path: Path, content: bytes) -> None:
        """Write the line of a record that has just been saved as ``path`` and ``content``, if that can be done."""
        with suppress(Exception):  # all that can be lost is the time of reading the record
            row = self._row(content)
            found = signature(os.path.join(path.parent, ""), path.name)
            # Where a disk counts in whole seconds a later change might not show.
            if row is not None and found[2] % _SECOND and path.read_bytes() == content:
                self._append(json.dumps([*found, *row]).encode("ascii"))

    def _row(self, content: bytes) -> tuple[Any, ...] | None:
        """What reading the file would give."""
        from harness.analysis import quick_reading

        with suppress(quick_reading.NotUsual):
            return quick_reading.row_of(content)
        return None

    def _append(self, content: bytes) -> None:
        self._file.parent.mkdir(exist_ok=True)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            # The line before may have been cut off by a full disk: this one begins anew.
            os.write(descriptor, b"\n%s %s\n" % (_digest(self._origin, content), content))
        finally:
            os.close(descriptor)

    @cached_property
    def _file(self) -> Path:
        return self._folder / FOLDER / os.urandom(8).hex()

    @cached_property
    def _origin(self) -> bytes:
        return origin(self._folder)


class Journals:
    """Those that a run has now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found = {path: _state(path) for path in _listed(folder / FOLDER)}

    def rows(self, wanted: dict[str, Signature], columns: int) -> dict[str, list[Any]]:
        """Signature and row, together of so many ``columns``, of those of the ``wanted`` files that have a line."""
        found: dict[str, list[Any]] = {}
        if not self._found or not wanted:
            return found
        made_by = origin(self._folder)
        for path in self._found:
            for values in _values(path, made_by):
                if wanted.get(values[0]) == tuple(values[:_SIGNATURE_LENGTH]) and len(values) == columns:
                    found[values[0]] = values
        return found

    def remove(self, before: int) -> None:
        """Remove those that nobody has written to since ``before``, in nanoseconds, as all of their rows are kept."""
        for path, state in self._found.items():
            with suppress(OSError):
                if state is not None and state[1] < before and _state(path) == state:
                    path.unlink()


def signature(folder: str, name: str) -> Signature:
    """Of a file in a folder, whose name ends as those of folders do; of none where it cannot be looked at."""
    try:
        found = os.stat(folder + name)
    except OSError:
        return name, -1, 0, 0, 0  # reading it tells what is wrong, unless it is set aside meanwhile
    return name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & _LARGEST_INODE


def plan_digest(folder: Path) -> str:
    """Of the plan of a run. Raises OSError."""
    return hashlib.sha256((folder / PLAN_FILE).read_bytes()).hexdigest()


def origin(folder: Path) -> bytes:
    """What a line of a run must have been made by, and for. Raises OSError."""
    return f"{codec.SCHEMA_VERSION} {code()} {plan_digest(folder)} ".encode("ascii")


@cache
def code() -> str:
    """Of all that decides what a row holds: this package's code, and the libraries and kind of machine that compute."""
    made_with = ("numpy", version("numpy"), "polars", version("polars"), sysconfig.get_platform())
    digest = hashlib.sha256(" ".join(made_with).encode())
    package = resources.files("harness")
    for part in _MADE_BY:
        for name, content in _sources(package / part):
            digest.update(f"{part}/{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _sources(place: Any) -> Iterable[tuple[str, bytes]]:
    if place.is_file():
        return [(place.name, place.read_bytes())]
    return [(one.name, one.read_bytes()) for one in sorted(place.iterdir(), key=str) if one.name.endswith(".py")]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _values(path: Path, made_by: bytes) -> Iterator[list[Any]]:
    """What the whole lines of a journal hold."""
    from pydantic_core import from_json  # three times as fast as ``json``

    with suppress(OSError), path.open("rb") as stream:
        for line in stream:
            digest, _, content = line.rstrip(b"\n").partition(b" ")
            if content and digest == _digest(made_by, content):
                yield from_json(content)


def _digest(made_by: bytes, content: bytes) -> bytes:
    return hashlib.sha256(made_by + content).hexdigest().encode("ascii")
