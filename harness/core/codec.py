"""Dataclasses to JSON and back, canonical hashes, and file writes that are whole or absent.

``to_json`` turns a dataclass into plain JSON values by its annotations (an ``int`` in a ``float``
field becomes a float, so equal values have equal text); ``from_json`` checks every key and type and
raises ``ContractError`` naming the path. Supported annotations: ``str int float bool None``,
``tuple[T, ...]``, ``tuple[A, B]``, ``list[T]``, ``dict[str, T]``, ``T | None``, ``Any``, dataclasses, and unions of
dataclasses that have a class attribute ``kind``, written as the key ``kind``.

JSON has no NaN or infinity: those floats travel as the strings "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from harness.core import system
from harness.core.errors import ContractError

SCHEMA_VERSION = 1
"""Version of every file and message. History: 1 = first."""

LATER = {"later": True}
"""Metadata of a dataclass field that files did not have from the first: it is written only where it is not its default.

So a file of before that field keeps its bytes when it is read and written again.
"""

_KEPT_NAME = 50
"""Characters of a file's name in that of its temporary file."""

T = TypeVar("T")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any) -> Any:
    """Return ``value`` (a dataclass instance) as dicts, lists, strings, numbers, booleans, None."""
    annotation: Any = type(value)
    return _encoder(annotation)(value)


def from_json(cls: type[T], data: Any, where: str = "") -> T:
    """Build ``cls`` from what ``to_json`` gave. Raises ContractError naming the path on any mismatch."""
    annotation: Any = cls
    decoded: T = _decoder(annotation)(data, where or cls.__name__)
    return decoded


def canonical(value: Any) -> str:
    """JSON text of plain values that is the same on every Python: sorted keys, no spaces, ASCII."""
    return _CANONICAL.encode(value)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a dataclass or of plain JSON values.

    Of dataclasses, fields that have their default are left out. So a field that is added later, with a default
    that stands for what was done before, changes no identity; and a default, once released, must not change.
    """
    annotation: Any = type(value)
    plain = _encoder(annotation, True)(value) if dataclasses.is_dataclass(value) else value
    return hashlib.sha256(canonical(plain).encode("ascii")).hexdigest()


@contextmanager
def written_atomically(path: Path, new: bool = False) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the file ``path`` when the block ends well, and nothing otherwise.

    A reader, or a crash, sees the old or the new content, never a part. Data and folder entry are
    synced to the disk; the person's file mode mask is respected. Raises OSError; leaves no temporary file.
    With ``new`` a file that is there already stays, and FileExistsError is raised: of several machines that write one
    name at the same time, one succeeds.
    """
    # Shortened, as a name that just fits the file system has no room for more.
    temporary = path.with_name(f".{path.name[:_KEPT_NAME]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _put_in_place(temporary, path, new)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    system.sync_folder(path.parent)


def _put_in_place(temporary: Path, path: Path, new: bool) -> None:
    if new:
        try:
            os.link(temporary, path)  # the one operation that never writes over, on network disks too
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        else:
            with suppress(OSError):  # all is done; what is left of it is removed by the next who writes there
                system.patiently(temporary.unlink)
            return
    system.replace(temporary, path)


def write_atomically(path: Path, content: bytes | str, new: bool = False) -> None:
    """Write a whole file as ``written_atomically`` does."""
    with written_atomically(path, new) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass (or plain values) as JSON, atomically, with the schema version beside it."""
    plain = to_json(value) if dataclasses.is_dataclass(value) else value
    text = json.dumps({"schema_version": SCHEMA_VERSION, **plain}, indent=1, allow_nan=False)
    write_atomically(path, text + "\n")


def read_json(path: Path, cls: type[T]) -> T:
    """Read what ``write_json`` wrote. Raises ContractError for damaged files and other versions."""
    try:
        data = json.loads(system.patiently(path.read_bytes))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ContractError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ContractError(f"{path}: expected a JSON object, found {type(data).__name__}")
    version = data.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ContractError(f"{path}: schema version {version!r}, this harness reads {SCHEMA_VERSION}")
    return from_json(cls, data, str(path))


def type_name(cls: type) -> str:
    """The name under which a dataclass of a union travels."""
    return str(getattr(cls, "kind", cls.__name__))


def _encode_float(value: Any) -> Any:
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _encode_any(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, dict):
        return {str(key): _encode_any(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode_any(item) for item in value]
    return value


@cache
def _encoder(annotation: Any, terse: bool = False) -> Callable[[Any], Any]:
    """The function that encodes values of ``annotation``; ``terse`` leaves out fields that have their default."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return _encode_float
    if annotation in (int, str, bool, type(None)):
        return lambda value: value
    if origin in (tuple, list):
        if origin is list or arguments[-1] is Ellipsis:
            item = _encoder(arguments[0], terse)
            return lambda value: [item(element) for element in value]
        items = [_encoder(argument, terse) for argument in arguments]
        return lambda value: [encode(element) for encode, element in zip(items, value, strict=True)]
    if origin is dict:
        entry = _encoder(arguments[1], terse)
        return lambda value: {key: entry(element) for key, element in value.items()}
    if _is_union(origin):
        chosen = [argument for argument in arguments if argument is not type(None)]
        if len(chosen) == 1:
            inner = _encoder(chosen[0], terse)
            return lambda value: None if value is None else inner(value)
        by_type = {argument: _encoder(argument, terse) for argument in chosen}
        return lambda value: None if value is None else by_type[type(value)](value)
    if dataclasses.is_dataclass(annotation):
        return _dataclass_encoder(annotation, terse)
    return _encode_any


def _dataclass_encoder(cls: Any, terse: bool) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(cls)
    fields = [
        (field.name, _encoder(hints[field.name], terse), _left_out(field, terse)) for field in dataclasses.fields(cls)
    ]
    kind = getattr(cls, "kind", None)
    tag = {} if kind is None else {"kind": kind}
    if all(absent is dataclasses.MISSING for _, _, absent in fields):
        return lambda value: {**tag, **{name: encode(getattr(value, name)) for name, encode, _ in fields}}

    def encode_shortened(value: Any) -> Any:
        given = ((name, encode, getattr(value, name), absent) for name, encode, absent in fields)
        return {**tag, **{name: encode(found) for name, encode, found, absent in given if found != absent}}

    return encode_shortened


def _left_out(field: dataclasses.Field[Any], terse: bool) -> Any:
    """The value of a field that is not written; MISSING, which no value equals, if all are."""
    if not terse and not field.metadata.get("later"):
        return dataclasses.MISSING
    if field.metadata.get("later") and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_union(origin: Any) -> bool:
    return origin is typing.Union or origin is types.UnionType


def _mismatch(where: str, expected: str, found: Any) -> ContractError:
    shown = repr(found)
    return ContractError(f"{where}: expected {expected}, found {shown[:60]}{'...' if len(shown) > 60 else ''}")


def _exact_types(annotation: Any) -> tuple[type, ...]:
    """Types of which a value of ``annotation`` is decoded already."""
    parts = typing.get_args(annotation) if _is_union(typing.get_origin(annotation)) else (annotation,)
    return tuple(part for part in parts if part in (int, float, str, bool, type(None)))


@cache
def _decoder(annotation: Any) -> Callable[[Any, str], Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return lambda data, where: data
    if annotation is float:
        return _decode_float
    if annotation in (int, str, bool, type(None)):
        return lambda data, where: _decode_exact(annotation, data, where)
    if origin in (tuple, list):
        return _sequence_decoder(origin, arguments)
    if origin is dict:
        return _dict_decoder(arguments[1])
    if _is_union(origin):
        return _union_decoder(arguments)
    if dataclasses.is_dataclass(annotation):
        return _dataclass_decoder(annotation)
    raise TypeError(f"codec: unsupported annotation {annotation!r}")


def _decode_float(data: Any, where: str) -> float:
    if isinstance(data, str) and data in _NON_FINITE:
        return _NON_FINITE[data]
    if isinstance(data, bool) or not isinstance(data, (int, float)):
        raise _mismatch(where, "a number", data)
    return float(data)


def _decode_exact(cls: type, data: Any, where: str) -> Any:
    if type(data) is not cls:
        raise _mismatch(where, {int: "an integer", str: "a string", bool: "true or false"}.get(cls, "null"), data)
    return data


def _sequence_decoder(origin: Any, arguments: tuple[Any, ...]) -> Callable[[Any, str], Any]:
    if origin is list or arguments[-1] is Ellipsis:
        item = _decoder(arguments[0])
        exact = {arguments[0]} & {int, float, str, bool}

        def decode_many(data: Any, where: str) -> Any:
            if not isinstance(data, list):
                raise _mismatch(where, "a list", data)
            if set(map(type, data)) <= exact:  # ten times as quick for the thousands of block times of a record
                return origin(data)
            return origin(item(element, f"{where}[{index}]") for index, element in enumerate(data))

        return decode_many
    items = [_decoder(argument) for argument in arguments]
    plain = list(arguments) if set(arguments) <= {int, float, str, bool} else None

    def decode_fixed(data: Any, where: str) -> Any:
        if not isinstance(data, list) or len(data) != len(items):
            raise _mismatch(where, f"a list of {len(items)}", data)
        if list(map(type, data)) == plain:  # thousands of cells of a plan
            return tuple(data)
        return tuple(
            decode(element, f"{where}[{index}]")
            for index, (decode, element) in enumerate(zip(items, data, strict=True))
        )

    return decode_fixed


def _dict_decoder(annotation: Any) -> Callable[[Any, str], Any]:
    entry = _decoder(annotation)

    def decode(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise _mismatch(where, "an object", data)
        return {key: entry(element, f"{where}.{key}") for key, element in data.items()}

    return decode


def _union_decoder(arguments: tuple[Any, ...]) -> Callable[[Any, str], Any]:
    chosen = [argument for argument in arguments if argument is not type(None)]
    nullable = len(chosen) < len(arguments)
    if len(chosen) == 1:
        inner = _decoder(chosen[0])
        return lambda data, where: None if data is None else inner(data, where)
    by_name = {type_name(argument): argument for argument in chosen}

    def decode(data: Any, where: str) -> Any:
        if data is None and nullable:
            return None
        if not isinstance(data, dict) or data.get("kind") not in by_name:
            found = data.get("kind") if isinstance(data, dict) else data
            raise _mismatch(where, f"an object whose kind is one of {', '.join(sorted(by_name))}", found)
        return _decoder(by_name[data["kind"]])(data, where)

    return decode


def _dataclass_decoder(cls: Any) -> Callable[[Any, str], Any]:
    hints = typing.get_type_hints(cls)
    decoders = {field.name: _decoder(hints[field.name]) for field in dataclasses.fields(cls)}
    exact = {name: _exact_types(hints[name]) for name in decoders}
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    kind = getattr(cls, "kind", None)

    def decode(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise _mismatch(where, f"an object ({cls.__name__})", data)
        values = {}
        for key, element in data.items():
            if type(element) in exact.get(key, ()):
                values[key] = element
            elif key == "kind" and kind is not None:
                if element != kind:
                    raise _mismatch(f"{where}.kind", repr(kind), element)
            elif key in decoders:
                values[key] = decoders[key](element, f"{where}.{key}")
            else:
                raise ContractError(f"{where}: unknown key {key!r}")
        missing = sorted(required - values.keys())
        if missing:
            raise ContractError(f"{where}: missing key {missing[0]!r}")
        return cls(**values)

    return decode
