"""What tables need of records, straight from the bytes of their files: block times become arrays, never Python numbers.

Nearly all of a record are block times, and making numbers of them takes most of the time of reading it. In: the bytes.
Out: the record without its blocks, and these as arrays; of many files, their rows. Every value is still checked: what
is not of the usual form, or not in order, is left to the reader that decodes everything, whose word counts.
"""

from __future__ import annotations

import dataclasses
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
_KINDS = b'"kind": ['
_OWN = ("cell", "blocks")
_PARTS = typing.get_type_hints(Cell)
_COLUMNS = {field.name: typing.get_type_hints(Blocks)[field.name] for field in dataclasses.fields(Blocks)}
_CODES = {list[int]: ("i", np.int64), list[float]: ("d", np.float64)}
_CODES |= {list[int | None]: _CODES[list[int]], list[float | None]: _CODES[list[float]]}
_NONE: Any = np.array([], dtype=np.float64)


class NotUsual(Exception):
    """The record must be decoded as a whole, which also tells what is wrong with it, if something is."""


class QuickReader:
    """Reads records one after the other, in memory that it uses again."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def read(self, content: bytes) -> tuple[Record, BlockArrays]:
        """A record with empty blocks, and these. Raises NotUsual."""
        try:
            return self._read(content)
        except (ValueError, TypeError, KeyError, AttributeError, ContractError, RecursionError) as error:
            raise NotUsual from error

    def _read(self, content: bytes) -> tuple[Record, BlockArrays]:
        start = content.index(_BLOCKS) + len(_BLOCKS)
        end = content.index(b"\n", start)
        if not (content.startswith(b"{") and content[:start].isascii() and content[end:].isascii()):
            raise NotUsual
        document: Any = self._parser.parse(content)
        keys = _keys(document)
        plain = {key: _plain(document[key]) for key in keys if key not in _OWN}
        if plain.pop("schema_version", None) != codec.SCHEMA_VERSION:
            raise NotUsual
        head = codec.from_json(_head(), plain)
        record = Record(cell=_cell(document["cell"]), **vars(head))
        if record.status not in STATUSES:
            raise NotUsual
        return record, _arrays(document["blocks"], content, start, end, record)


def rows(paths: Sequence[str]) -> list[tuple[Any, ...] | None]:
    """Of each file the row of its record (``record_row``), None for one that is not usual, or not to be read."""
    reader = QuickReader()
    found: list[tuple[Any, ...] | None] = [None] * len(paths)
    read: dict[int, tuple[Record, BlockArrays]] = {}
    for place, path in enumerate(paths):
        with suppress(NotUsual, OSError), open(path, "rb", buffering=0) as stream:
            read[place] = reader.read(stream.read())
    for (place, (record, _)), figures in zip(
        read.items(), blocks.figures([arrays for _, arrays in read.values()]), strict=True
    ):
        found[place] = row(record, figures)
    return found


def _keys(found: Any) -> list[str]:
    keys = list(found.keys())
    if len(set(keys)) < len(keys):
        raise NotUsual
    return keys


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


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


def _cell(found: Any) -> Cell:
    """Decoded part by part: the cells of a run share most of theirs."""
    values = {}
    for key in _keys(found):
        value = found[key]
        values[key] = (
            _part(_PARTS[key], value.mini)
            if isinstance(value, simdjson.Object)
            else codec.from_json(_PARTS[key], value)
        )
    return Cell(**values)


@lru_cache(maxsize=4096)
def _part(cls: Any, text: bytes) -> Any:
    return codec.from_json(cls, simdjson.loads(text))


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
    code, dtype = _CODES[_COLUMNS[key]]
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
