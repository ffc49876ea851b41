"""What tables need of records, straight from the bytes of their files: block times become arrays, never Python numbers.

Nearly all of a record are block times, and making numbers of them takes most of the time of reading it. In: the bytes.
Out: the record without its blocks, and these as arrays; of many files, their rows. Every value is still checked: what
is not of the usual form, or not in order, is left to the reader that decodes everything, whose word counts.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import numpy as np
import simdjson

from harness.analysis import blocks
from harness.analysis.blocks import BlockArrays
from harness.analysis.record_row import row
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import ContractError
from harness.core.record import NOT_THE_WORK, STATUSES, Blocks, Record

_BLOCKS = b'\n"blocks": {'
_OWN = ("cell", "blocks")
_CELL, _KINDS = b'\n"cell": ', b'"kind": ['
_PARTS = typing.get_type_hints(Cell)
_FURTHER_PARTS = ("training", "dataset", "inputs", "target", "repeat")
"""Of a cell, behind its model."""

_COLUMNS = typing.get_type_hints(Blocks)
_CODES = {list[int]: ("i", np.int64), list[float]: ("d", np.float64)}
_CODES |= {list[int | None]: _CODES[list[int]], list[float | None]: _CODES[list[float]]}
_NUMBERS = {name: _CODES[kind] for name, kind in _COLUMNS.items() if name != "kind"}
_NONE: Any = np.array([], dtype=np.float64)


class NotUsual(Exception):
    """The record must be decoded as a whole, which also tells what is wrong with it, if something is."""


class QuickReader:
    """Reads records one after the other, in memory that it uses again."""

    def __init__(self) -> None:
        self._whole, self._rest = simdjson.Parser(), simdjson.Parser()

    def read(self, content: bytes) -> tuple[Record, BlockArrays]:
        """A record with empty blocks, and these. Raises NotUsual."""
        try:
            return self._read(content)
        except (ValueError, TypeError, KeyError, AttributeError, ContractError, RecursionError) as error:
            raise NotUsual from error

    def _read(self, content: bytes) -> tuple[Record, BlockArrays]:
        cell = content.index(_CELL) + len(_CELL)
        behind_cell = content.index(b"\n", cell)
        start = content.index(_BLOCKS, behind_cell) + len(_BLOCKS)
        end = content.rindex(b"}", start, content.index(b"\n", start))
        document: Any = self._whole.parse(content)
        rest: Any = self._rest.parse(content[:cell] + b"0," + content[behind_cell:start] + content[end:])
        head = rest.as_dict()
        unique = len(_keys(document)) == len(head)
        if not unique or not content.isascii() or head.pop("schema_version", None) != codec.SCHEMA_VERSION:
            raise NotUsual
        del rest, head["cell"], head["blocks"]
        made = codec.from_json(_head(), head)
        record = Record(cell=_cell(content[cell:behind_cell].removesuffix(b",")), **vars(made))
        if record.status not in STATUSES:
            raise NotUsual
        return record, _arrays(document["blocks"], content, start, end, record)


def rows(paths: Sequence[str]) -> list[tuple[Any, ...] | None]:
    """Of each file the row of its record (``record_row``), None for one that is not usual, or not to be read."""
    reader = QuickReader()
    found: list[tuple[Any, ...] | None] = [None] * len(paths)
    read: dict[int, tuple[Record, BlockArrays]] = {}
    for place, path in enumerate(paths):
        with suppress(NotUsual, OSError):
            read[place] = reader.read(_content(path))
    for (place, (record, _)), figures in zip(
        read.items(), blocks.figures([arrays for _, arrays in read.values()]), strict=True
    ):
        found[place] = row(record, figures)
    return found


def row_of(content: bytes) -> tuple[Any, ...]:
    """The row of the record in a file's bytes. Raises NotUsual."""
    record, arrays = QuickReader().read(content)
    return row(record, blocks.figures([arrays])[0])


def _content(path: str) -> bytes:
    """Of a file, in as few calls of the system as it takes."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        content = os.read(descriptor, size)
    finally:
        os.close(descriptor)
    if len(content) < size:
        raise NotUsual
    return content


def _keys(found: Any) -> list[str]:
    keys = list(found.keys())
    if len(set(keys)) < len(keys):
        raise NotUsual
    return keys


@cache
def _head() -> Any:
    """A record but for its cell and blocks."""
    hints = typing.get_type_hints(Record)
    fields: list[Any] = [
        (one.name, hints[one.name], _same_default(one)) for one in dataclasses.fields(Record) if one.name not in _OWN
    ]
    return dataclasses.make_dataclass("Record", fields, frozen=True)


def _same_default(field: dataclasses.Field[Any]) -> Any:
    return dataclasses.field(default=field.default, default_factory=field.default_factory)


def _cell(text: bytes) -> Cell:
    """Decoded part by part: the cells of a run share most of theirs."""
    start, name, values = len(b'{"model": '), "model", {}
    if not text.startswith(b'{"model": '):
        raise NotUsual
    for following in _FURTHER_PARTS:
        separator = b', "%s": ' % following.encode()
        end = text.index(separator, start)
        values[name] = _part(_PARTS[name], text[start:end])
        start, name = end + len(separator), following
    values |= _rest(b'{"repeat": ' + text[start:])
    return Cell(**values)


@lru_cache(maxsize=4096)
def _part(cls: Any, text: bytes) -> Any:
    return codec.from_json(cls, simdjson.loads(text))


@lru_cache(maxsize=64)
def _rest(text: bytes) -> dict[str, Any]:
    """What stands behind the parts of a cell: a few numbers."""
    found: Any = simdjson.Parser().parse(text)
    return {key: codec.from_json(_PARTS[key], found[key]) for key in _keys(found)}


def _arrays(found: Any, content: bytes, start: int, end: int, record: Record) -> BlockArrays:
    keys = _keys(found)
    # One bracket for each column: none holds another one, which a buffer would not show.
    if _brackets(content, start, end, len(keys)) != len(keys):
        raise NotUsual
    columns = {key: _column(key, found[key]) for key in keys if key != "kind"}
    timed, trained = _kinds(content, start, end) if "kind" in keys else (_NONE.astype(bool),) * 2
    made = BlockArrays(
        timed=timed,
        trained=trained,
        steps=columns.get("steps", _NONE.astype(np.int64)),
        seconds=columns.get("seconds", _NONE),
        mean_loss=columns.get("mean_loss", _NONE),
        settle_steps=int(columns["settle"].sum()) if "settle" in columns else 0,
        preempted=columns.get("preempted", _NONE),
        stolen_seconds=columns.get("stolen_seconds", _NONE),
        batch_size=record.cell.training.batch_size,
        works=record.status not in NOT_THE_WORK,
        sizes=blocks.sizes_of(record.cell, columns.get("steps", _NONE), columns.get("settle", _NONE)),
    )
    made.check()
    if not np.isfinite(made.seconds).all():
        raise NotUsual
    return made


def _brackets(content: bytes, start: int, end: int, most: int) -> int:
    """Opening ones, up to one more than ``most``; ``bytes.count`` takes as long as all the parsing."""
    for number in range(most + 1):
        start = content.find(b"[", start, end) + 1
        if not start:
            return number
    return most + 1


def _column(key: str, found: Any) -> Any:
    """As an array, or as a list where the system told nothing of some block."""
    code, dtype = _NUMBERS[key]
    try:
        return np.frombuffer(found.as_buffer(of_type=code), dtype=dtype)
    except TypeError:
        values: Any = codec.from_json(_COLUMNS[key], found.as_list())
        return values if None in values else np.array(values, dtype=dtype)


def _kinds(content: bytes, start: int, end: int) -> tuple[Any, Any]:
    begin = content.index(_KINDS, start, end) + len(_KINDS) - 1
    return _of_kinds(content[begin : content.index(b"]", begin) + 1])


@lru_cache(maxsize=64)
def _of_kinds(text: bytes) -> tuple[Any, Any]:
    """Which are timed, and which trained: remembered, as the records of a run have few different lists."""
    kinds = codec.from_json(list[str], simdjson.loads(text))
    return blocks.timed(kinds), blocks.trained(kinds)
