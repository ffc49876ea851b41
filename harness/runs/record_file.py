"""The file of a record: its bytes, the record in them, and its head, which is read without the rest.

JSON with one top-level key a line, the scalars first: a record holds megabytes of block times, and what became of its
cell stands in its first few hundred bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from harness.core import codec
from harness.core.errors import StoreError
from harness.core.record import STATUSES, Record
from harness.runs import files

_FIRST_KEYS = ("cell_id", "work_id", "status", "reason", "attempt", "started", "finished")
_HEAD_BYTES = 512
_ENDING = b"}\n"


class Head(NamedTuple):
    """What a record's first lines say."""

    cell_id: str
    status: str


def encode(record: Record) -> bytes:
    """The bytes of a record's file. Equal records give equal bytes."""
    plain = codec.to_json(record)
    first = {key: plain.pop(key) for key in _FIRST_KEYS}
    return files.document(first | plain)


def read(path: Path) -> Record:
    """The record in a file. Raises StoreError if it is damaged or of another version."""
    record = files.read(path, Record)
    if record.status not in STATUSES:
        raise StoreError(f"{path}: status {record.status!r} is not known; allowed: {', '.join(STATUSES)}")
    return record


def read_head(path: Path) -> Head:
    """From the first lines, provided that the file ends as a whole one does; else from all of it, as ``read``."""
    head = _first_lines(path)
    if head is not None:
        return head
    record = read(path)
    return Head(record.cell_id, record.status)


def _first_lines(path: Path) -> Head | None:
    """None where they are not those of a whole record of this version."""
    try:
        with path.open("rb", buffering=0) as stream:
            beginning = stream.read(_HEAD_BYTES)
            stream.seek(-len(_ENDING), os.SEEK_END)
            ending = stream.read(len(_ENDING))
        start, *lines = beginning.split(b"\n", 5)
        found = json.loads(b"{" + b"".join(lines[:4]).rstrip(b",") + b"}")
        head = Head(found["cell_id"], found["status"])
        whole = start == b"{" and ending == _ENDING and found["schema_version"] == codec.SCHEMA_VERSION
    except (OSError, ValueError, KeyError):
        return None
    return head if whole and head.status in STATUSES else None
