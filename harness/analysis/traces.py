"""A framework's profile of some training steps: its events, the costliest operations, and the same for Perfetto.

In: an ``.xplane.pb`` as the profilers of JAX and TensorFlow write it, a protocol buffer ``XSpace`` (openxla/xla,
``third_party/tsl/tsl/profiler/protobuf/xplane.proto``). It is read by its wire format (protobuf.dev, "Encoding"), so no
library of either framework is needed. Out: ``Event``s; ``costliest`` of them; Chrome's trace format, which Perfetto
opens ("Trace Event Format", complete events).

The profilers note whole calls and what is called within them on one line each, one inside the other. An operation's own
time is its duration less that of what is inside it. Where a profile has planes of devices, only what ran there counts
as an operation. On processors all is on the host's plane, and what the runtime does itself, waiting among it, stands
beside the operations; it is told by its names, which are those of C++ functions and of a few calls (``_RUNTIME``).
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import ContractError

Field = tuple[int, Any]
"""Number of a field, and its value: an int, or bytes."""

_PICOSECONDS = 1e-12
_DEVICE_PLANE = "/device:"
_OPERATION = re.compile(r"[\w.\-/]+")
_RUNTIME = (
    "FunctionRun",
    "ParallelFor",
    "Executor",
    "TFE_",
    "Eager",
    "Thunk",
    "PjRt",
    "Tfrt",
    "Pjit",
    "step",
    "train_step",
)


@dataclass(frozen=True)
class Event:
    """One event: what, on which plane (a device, or the host) and line (a thread, a stream), in seconds."""

    name: str
    plane: str
    line: str
    start: float
    seconds: float
    own_seconds: float


@dataclass(frozen=True)
class TracedOperation:
    """All events of one name: how many, and their own seconds together."""

    name: str
    count: int
    seconds: float


def events(data: bytes) -> list[Event]:
    """Every event of an ``XSpace``. Raises ContractError for what is none."""
    try:
        return [event for number, plane in _fields(data) if number == 1 for event in _of_plane(plane)]
    except (IndexError, TypeError, ValueError) as error:
        raise ContractError(f"not a profile that can be read ({error})") from error


def costliest(found: Sequence[Event], count: int) -> list[TracedOperation]:
    """The operations with most time of their own."""
    times: dict[str, list[float]] = defaultdict(list)
    on_devices = [event for event in found if event.plane.startswith(_DEVICE_PLANE)]
    for event in on_devices or [event for event in found if _is_operation(event.name)]:
        times[event.name].append(event.own_seconds)
    operations = [TracedOperation(name, len(own), sum(own)) for name, own in times.items()]
    return sorted(operations, key=lambda one: (-one.seconds, one.name))[:count]


def _is_operation(name: str) -> bool:
    return bool(_OPERATION.fullmatch(name)) and not name.startswith(_RUNTIME)


def chrome_trace(found: Sequence[Event]) -> bytes:
    """The events in Chrome's trace format, gzipped: what https://ui.perfetto.dev opens."""
    planes = {name: number for number, name in enumerate(dict.fromkeys(event.plane for event in found), start=1)}
    lines = {key: number for number, key in enumerate(dict.fromkeys((one.plane, one.line) for one in found), start=1)}
    named: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}} for name, pid in planes.items()
    ]
    named += [
        {"ph": "M", "name": "thread_name", "pid": planes[plane], "tid": tid, "args": {"name": line}}
        for (plane, line), tid in lines.items()
    ]
    complete = [
        {
            "ph": "X",
            "name": event.name,
            "pid": planes[event.plane],
            "tid": lines[event.plane, event.line],
            "ts": 1e6 * event.start,
            "dur": 1e6 * event.seconds,
        }
        for event in found
    ]
    text = json.dumps({"displayTimeUnit": "ms", "traceEvents": named + complete}, separators=(",", ":"))
    return gzip.compress(text.encode("utf-8"), mtime=0)


def _of_plane(data: bytes) -> Iterator[Event]:
    """XPlane: name 2, lines 3, event_metadata 4 (a map)."""
    fields = list(_fields(data))
    plane = _text(fields, 2)
    names = dict(_metadata(entry) for number, entry in fields if number == 4)
    for number, line in fields:
        if number == 3:
            yield from _of_line(line, plane, names)


def _metadata(entry: bytes) -> tuple[int, str]:
    """A map's entry: key 1, value 2, an XEventMetadata: name 2, display_name 4."""
    found = dict(_fields(entry))
    value = list(_fields(found.get(2, b"")))
    return found.get(1, 0), _text(value, 4) or _text(value, 2)


def _of_line(data: bytes, plane: str, names: dict[int, str]) -> list[Event]:
    """XLine: name 2, timestamp_ns 3, events 4, display_name 11. XEvent: metadata_id 1, offset_ps 2, duration_ps 3."""
    fields = list(_fields(data))
    line = _text(fields, 11) or _text(fields, 2)
    began = next((value for number, value in fields if number == 3), 0) * 1e-9
    taken = []
    for number, event in fields:
        if number == 4:
            found = dict(_fields(event))
            taken.append((found.get(2, 0), found.get(3, 0), names.get(found.get(1, 0), "")))
    taken.sort(key=lambda one: (one[0], -one[1]))
    own = [duration for _, duration, _ in taken]
    open_events: list[int] = []
    for place, (offset, duration, _) in enumerate(taken):
        while open_events and taken[open_events[-1]][0] + taken[open_events[-1]][1] <= offset:
            open_events.pop()
        if open_events:
            own[open_events[-1]] -= duration
        open_events.append(place)
    return [
        Event(name, plane, line, began + offset * _PICOSECONDS, duration * _PICOSECONDS, max(left, 0) * _PICOSECONDS)
        for (offset, duration, name), left in zip(taken, own, strict=True)
    ]


def _text(fields: Iterable[Field], wanted: int) -> str:
    return next((value.decode("utf-8", "replace") for number, value in fields if number == wanted), "")


def _fields(data: bytes) -> Iterator[Field]:
    """The fields of a message in wire format. Raises IndexError or ValueError where it ends early or is none."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
        elif kind == 2:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise ValueError("it ends in the middle")
            yield number, data[place : place + size]
            place += size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield number, int.from_bytes(data[place : place + size], "little")
            place += size
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
