"""The files of a run folder: how they are written and read back, and a person's sentence for what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from harness.core import codec, system
from harness.core.errors import ContractError, StoreError
from harness.core.record import Record

T = TypeVar("T")


def document(plain: dict[str, Any]) -> bytes:
    """JSON with one top-level key a line: a quarter of the size of indented JSON, and still to be read by eye."""
    entries = {"schema_version": codec.SCHEMA_VERSION, **plain}
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in entries.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def read(path: Path, cls: type[T]) -> T:
    """Decode one file. Raises StoreError if it is damaged or of another version."""
    from pydantic_core import from_json  # five times as fast as ``json`` on the block times of a record

    try:
        data = from_json(system.patiently(path.read_bytes), allow_inf_nan=False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        advice = "; remove it, and its cell is run again" if cls is Record else ""
        raise StoreError(f"{path}: damaged, it is not JSON ({error}){advice}") from error
    version = data.pop("schema_version", None) if isinstance(data, dict) else None
    if version != codec.SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {version!r}, this harness reads {codec.SCHEMA_VERSION}")
    try:
        return codec.from_json(cls, data, str(path))
    except ContractError as error:
        raise StoreError(str(error)) from error
