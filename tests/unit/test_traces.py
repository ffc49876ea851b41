"""Profiles: read by their wire format, costliest operations by their own time, written for Perfetto."""

from __future__ import annotations

import gzip
import json

import pytest

from harness.analysis import traces
from harness.core.errors import ContractError


def varint(value: int) -> bytes:
    found = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        found.append(low | (0x80 if value else 0))
        if not value:
            return bytes(found)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def plane(name: str, line: str, taken: list[tuple[str, int, int]], began: int = 0) -> bytes:
    """A plane of one line whose events are (name, offset, duration) in milliseconds; ``began`` in nanoseconds."""
    names = sorted({one[0] for one in taken})
    entries = b"".join(block(4, number(1, place) + block(2, number(1, place) + block(2, text)))
                       for place, text in enumerate(names, start=1))  # fmt: skip
    events = b"".join(
        block(4, number(1, 1 + names.index(text)) + number(2, offset * 10**9) + number(3, duration * 10**9))
        for text, offset, duration in taken
    )
    double = varint(9 << 3 | 1) + bytes(8)  # a field that is not known is passed over
    return block(1, block(2, name) + double + block(3, block(2, line) + number(3, began) + events) + entries)


HOST = plane(
    "/host:CPU", "tf_Compute", [("FunctionRun", 0, 10), ("Conv2D", 1, 6), ("Conv2D", 8, 2), ("MatMul", 2, 3)], 5
)


def test_events_are_read_with_their_names_and_places() -> None:
    found = traces.events(HOST)
    assert [(one.name, one.plane, one.line) for one in found][:2] == [
        ("FunctionRun", "/host:CPU", "tf_Compute"),
        ("Conv2D", "/host:CPU", "tf_Compute"),
    ]
    assert found[1].start == pytest.approx(0.001 + 5e-9)
    assert found[1].seconds == pytest.approx(0.006)


def test_what_is_inside_an_operation_does_not_count_to_it() -> None:
    own = {(one.name, round(1e3 * one.own_seconds)) for one in traces.events(HOST)}
    assert own == {("FunctionRun", 2), ("Conv2D", 3), ("Conv2D", 2), ("MatMul", 3)}


def test_the_costliest_operations_leave_the_runtime_s_own_calls_out() -> None:
    found = traces.costliest(traces.events(HOST), 10)
    assert [(one.name, one.count, round(1e3 * one.seconds)) for one in found] == [("Conv2D", 2, 5), ("MatMul", 1, 3)]
    assert [one.name for one in traces.costliest(traces.events(HOST), 1)] == ["Conv2D"]


def test_where_a_device_has_a_plane_only_its_operations_count() -> None:
    device = plane("/device:GPU:0", "Stream #1", [("ampere::gemm<float>", 0, 1)])
    found = traces.costliest(traces.events(HOST + device), 10)
    assert [one.name for one in found] == ["ampere::gemm<float>"]


def test_perfetto_s_file_holds_every_event_in_microseconds() -> None:
    data = json.loads(gzip.decompress(traces.chrome_trace(traces.events(HOST))))
    complete = [one for one in data["traceEvents"] if one["ph"] == "X"]
    named = {one["args"]["name"] for one in data["traceEvents"] if one["ph"] == "M"}
    assert named == {"/host:CPU", "tf_Compute"}
    assert [one["name"] for one in complete] == ["FunctionRun", "Conv2D", "MatMul", "Conv2D"]
    assert complete[1]["dur"] == pytest.approx(6000.0)


@pytest.mark.parametrize("data", [HOST[:-3], b"\x0b", b"not a profile at all", b"\xff" * 12])
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    with pytest.raises(ContractError, match="not a profile that can be read"):
        traces.events(data)


def test_an_empty_profile_has_no_events() -> None:
    assert traces.events(b"") == []
    assert traces.costliest([], 10) == []
