"""The rows of a run's records, of which those that have not changed need not be read: an index beside the records.

    RUN/.index.arrow    a line of JSON, then an Arrow file: a row of ``analysis.rows`` for each record
    RUN/.index.lines/   rows that came while records were saved (``analysis.journal``), until a reader moves them there

It is never the truth. A row counts only while the record's file is the one that it was made of, by name, size, times of
change and inode; only of a run with the very same plan; and only where it was made by the very same code and libraries.
An index that is absent, damaged or of another kind is made again, and where it cannot be written it is not. To be
fooled it takes somebody who changes a record in place, keeps its size, and sets both times of the file back, which the
systems other than Windows let nobody do without setting the clock.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import journal, rows
from harness.analysis.journal import Signature
from harness.core import codec
from harness.core.errors import ContractError, StoreError
from harness.core.system.processors import usable_processors
from harness.runs.folder import Run

INDEX_FILE = ".index.arrow"

WORTH_KEEPING = 20_000_000
"""Bytes of records that must have been read, for an index to be written: fewer are read in a fraction of a second."""

READ_TOGETHER = 8_000_000
"""Bytes of records that are read before the figures of their blocks are computed."""

WORTH_HELP, MOST_HELPERS = 60_000_000, 3
"""Bytes of records from which on helpers are started, which takes a fifth of a second, and how many."""

_ROWS_TOGETHER = 2_000

SETTLED_NANOSECONDS = 3_000_000_000
"""Age of a file from which a change shows in its times: file systems count them in steps of up to two seconds."""

_KEY: dict[str, Any] = {
    "file: name": pl.String,
    "file: bytes": pl.Int64,
    "file: changed": pl.Int64,
    "file: changed in any way": pl.Int64,
    "file: inode": pl.UInt64,
}


def read(run: Run, unreadable: list[StoreError] | None = None, helped: bool = False) -> pl.DataFrame:
    """The rows of every finished record, sorted by cell_id, and keep an index of them.

    ``helped``: whether other processors may be used as well.

    A damaged or foreign file raises StoreError, or is added to ``unreadable`` and passed over.
    """
    began = time.time_ns()
    present = _present(run)
    known, lines = _known(run), journal.Journals(run.folder)
    kept = _of_the_present(known, present)
    unknown = _without(present, kept) if kept.height < len(present) else {}
    noted = _noted(lines, unknown)
    changed = _without(unknown, noted)
    if not known.height and not noted.height:
        _ = run.plan  # all else is of a plan that was read and is the same
    made = _made(run, list(changed.values()), unreadable, helped) if changed else known.clear()
    found = pl.concat([kept, noted, made]).sort("file: name") if unknown else kept
    settled = began - SETTLED_NANOSECONDS
    if sum(int(new["file: bytes"].sum()) for new in (noted, made)) >= WORTH_KEEPING:
        is_kept = _keep(run, found.filter(pl.col("file: changed") < settled))
    else:
        is_kept = not unknown
    if is_kept:
        lines.remove(settled)
    return found.drop(list(_KEY))


def _present(run: Run) -> dict[str, Signature]:
    """The files of records that there are, by name."""
    folder = os.path.join(run.records_folder, "")  # ten thousand paths as objects would take as long as all the rest
    return {name: journal.signature(folder, name) for name in run.record_names()}


def _of_the_present(known: pl.DataFrame, present: dict[str, Signature]) -> pl.DataFrame:
    """Rows of files that are still what they were."""
    keys = known.select(list(_KEY)).rows()
    if keys == list(present.values()):  # both are sorted by name
        return known
    return known.filter([present.get(key[0]) == key for key in keys])


def _without(files: dict[str, Signature], found: pl.DataFrame) -> dict[str, Signature]:
    there = set(found["file: name"])
    return {name: key for name, key in files.items() if name not in there}


def _noted(lines: journal.Journals, wanted: dict[str, Signature]) -> pl.DataFrame:
    """Rows that were written down as records were saved."""
    columns = _schema()
    found = list(lines.rows(wanted, len(columns)).values())
    parts = [found[start : start + _ROWS_TOGETHER] for start in range(0, len(found), _ROWS_TOGETHER)]
    return pl.concat([rows.frame([], columns), *(rows.frame([tuple(one) for one in part], columns) for part in parts)])


def _made(run: Run, files: Sequence[Signature], unreadable: list[StoreError] | None, helped: bool) -> pl.DataFrame:
    """Rows made of the records themselves. A file was looked at before it is read: a later change of it shows."""
    from harness.analysis import quick_reading
    from harness.runs import helpers

    worth_it = helped and sum(key[1] for key in files) >= WORTH_HELP
    count = min(len(usable_processors()) - 1, MOST_HELPERS) if worth_it else 0

    found, frames, damaged = [], [rows.frame([], _schema())], {}
    parts, folder = _parts(files), os.path.join(run.records_folder, "")
    paths = [[folder + key[0] for key in part] for part in parts]
    for number, made in helpers.shared(quick_reading.rows, paths, count):
        for key, row in zip(parts[number], made, strict=True):
            try:
                if row is None or key[0] != f"{row[0]}.json" or row[0] not in run.cells:
                    row = _decoded(run, Path(folder + key[0]))
                found.append((*key, *row))
            except StoreError as error:
                if os.path.exists(folder + key[0]):
                    damaged[key[0]] = error
        if len(found) >= _ROWS_TOGETHER:
            frames.append(rows.frame(found, _schema()))
            found = []
    frames.append(rows.frame(found, _schema()))
    problems = [damaged[name] for name in sorted(damaged)]
    if unreadable is None and problems:
        raise problems[0]
    if unreadable is not None:
        unreadable += problems
    return pl.concat(frames)


def _parts(files: Sequence[Signature]) -> list[list[Signature]]:
    """Files to be read together, those of alike sizes beside each other: they have equally many blocks."""
    parts: list[list[Signature]] = []
    room = 0
    for key in sorted(files, key=lambda key: key[1]):
        if not parts or room < key[1]:
            parts.append([])
            room = READ_TOGETHER
        parts[-1].append(key)
        room -= key[1]
    return parts


def _decoded(run: Run, path: Path) -> tuple[Any, ...]:
    """The row of a record that is decoded as a whole. Raises StoreError."""
    from harness.analysis import blocks, record_row

    record = run.read(path)
    try:
        return record_row.row(record, blocks.of_record(record))
    except ContractError as error:
        raise StoreError(f"{path}: damaged, {error}") from error


def _schema() -> dict[str, Any]:
    return {**_KEY, **rows.schema()}


def _known(run: Run) -> pl.DataFrame:
    """Rows of the index, none where there is none that can be used."""
    nothing = pl.DataFrame(schema=_schema())
    try:
        head, _, body = (run.folder / INDEX_FILE).read_bytes().partition(b"\n")
        if json.loads(head) != _head(run, body):
            return nothing
        found = pl.read_ipc(io.BytesIO(body))
    except (OSError, ValueError, RecursionError, pl.exceptions.PolarsError):
        return nothing
    return found if dict(found.schema) == _schema() else nothing


def _keep(run: Run, found: pl.DataFrame) -> bool:
    """Write the index, where that can be done: whether it was."""
    body = io.BytesIO()
    found.write_ipc(body, compression="lz4")
    content = body.getvalue()
    try:
        codec.write_atomically(run.folder / INDEX_FILE, json.dumps(_head(run, content)).encode() + b"\n" + content)
    except OSError:
        return False
    return True


def _head(run: Run, body: bytes) -> dict[str, Any]:
    """What an index must say of itself to be used."""
    return {
        "schema_version": codec.SCHEMA_VERSION,
        "made_by": journal.code(),
        "plan": journal.plan_digest(run.folder),
        "rows": hashlib.sha256(body).hexdigest(),
    }
