"""Small results that stand beside a run's records: one JSON file each in a folder of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from harness import refusals
from harness.core import codec
from harness.core.errors import ContractError

T = TypeVar("T")


def read_all(folder: Path, kind: type[T]) -> list[T]:
    """Those of a folder, in no order. A file that is damaged or of another version counts as none."""
    return [one for path in folder.glob("*.json") if (one := read(path, kind)) is not None]


def read(path: Path, kind: type[T]) -> T | None:
    """One of them; None where the file is damaged or of another version."""
    try:
        return codec.read_json(path, kind)
    except ContractError:
        return None


def write(path: Path, value: Any) -> None:
    """Write one; its folder is made if need be. Raises StoreError."""
    try:
        path.parent.mkdir(exist_ok=True)
        codec.write_json(path, value)
    except OSError as error:
        raise refusals.unwritable(path, error) from error
