"""Outputs that a person named: they go where the person pointed. Everything else is written by ``core.codec``.

    a link                             its target is written, the link stays
    a file, or nothing yet             replaced when all of it is written, never a part; a file keeps its mode and owner
    a fifo, a device, >(command)       written into
    - (and /dev/stdout)                standard output; a file of that name is ./-

A folder that a person named is made with its parents, where a link points to if it is one. What cannot be written is
one sentence that names the place as the person did.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from harness.core import codec, system
from harness.core.errors import HarnessError
from harness.refusals import unwritable

STANDARD_OUTPUT = Path("-")


def is_standard_output(place: Path) -> bool:
    """Whether what goes to ``place`` goes to standard output, where nothing else may then be said."""
    return place == STANDARD_OUTPUT or _descriptor(place) == 1


def is_stream(place: Path) -> bool:
    """Whether ``place`` is written into as it is: standard output, an open descriptor, a fifo, a device."""
    if place == STANDARD_OUTPUT or _descriptor(place) is not None:
        return True
    found = _status(place)
    return found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def write(place: Path, content: bytes | str) -> None:
    """Write a whole output, text as UTF-8.

    Raises HarnessError where it cannot be; of standard output the OSError itself, as every print does.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if is_standard_output(place):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        if is_stream(place):
            _pour(place, data)
        else:
            _replace(place, data)
    except OSError as error:
        raise _sentence(place, error) from error


def make_folder(place: Path) -> None:
    """Make a folder that a person named, where it is not there. Raises HarnessError where it cannot be."""
    try:
        os.makedirs(os.path.realpath(place), exist_ok=True)
    except OSError as error:
        raise unwritable(place, error) from error


def _descriptor(place: Path) -> int | None:
    return system.open_descriptor(os.fspath(place))


def _status(place: Path) -> os.stat_result | None:
    """Of the file behind all links; None where there is none yet, or where only writing can tell why not."""
    try:
        return place.stat()
    except OSError:
        return None


def _pour(place: Path, data: bytes) -> None:
    # A descriptor itself: opened anew, a file behind it would be written from its beginning, over what is there.
    descriptor = _descriptor(place)
    opened = os.open(place, os.O_WRONLY | getattr(os, "O_BINARY", 0)) if descriptor is None else os.dup(descriptor)
    with os.fdopen(opened, "wb") as stream:
        stream.write(data)


def _replace(place: Path, data: bytes) -> None:
    target = Path(os.path.realpath(place))
    try:
        old = place.stat()
    except FileNotFoundError:
        old = None
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if old is not None:
        # Raises what renaming would not ask: may it be written?
        os.close(system.patiently(partial(os.open, target, os.O_WRONLY)))
    with codec.written_atomically(target) as stream:
        stream.write(data)
        if old is not None:
            system.keep_access(stream.fileno(), old)


def _sentence(place: Path, error: OSError) -> HarnessError:
    if error.errno == errno.EISDIR:
        return HarnessError(f"{place}: is a folder; name a file in it")
    if error.errno == errno.EPIPE:
        return HarnessError(f"{place}: its reader went away before all of it was written")
    folder = Path(os.path.realpath(place)).parent
    if error.errno == errno.ENOENT and not folder.exists():
        return HarnessError(f"{place}: there is no folder {folder}")
    return unwritable(place, error)


def drop_output(stream: IO[str]) -> None:
    """Let all that is still to be written to ``stream``, its buffer included, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around writing to standard output: if its reader goes, as ``head`` does, the rest goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output(sys.stdout)
