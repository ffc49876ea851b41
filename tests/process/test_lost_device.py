"""A process that dies of its device says so, and the failure is typed."""

from __future__ import annotations

import pytest

from harness.core.errors import CellError, DeviceLost, OutOfMemory
from harness.core.messages import Train
from harness.workers import Worker
from tests.process.small_cell import Place

TIMEOUT = 60.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("The DirectML device has encountered an unrecoverable error (DXGI_ERROR_DEVICE_REMOVED).", DeviceLost),
        ("DML allocator out of memory!", OutOfMemory),
    ],
)
def test_last_words_about_the_device(host: Worker, place: Place, words: str, expected: type[CellError]) -> None:
    host.open(place.request(("train", 1, f"abort saying:{words}")), TIMEOUT)
    with pytest.raises(expected, match=words.split("(")[0]):
        host.ask(Train(1), TIMEOUT)


def test_words_of_an_earlier_cell_are_not_those_of_the_next(host: Worker, place: Place) -> None:
    host.open(place.request(("train", 1, "abort saying:DML allocator out of memory!")), TIMEOUT)
    with pytest.raises(OutOfMemory):
        host.ask(Train(1), TIMEOUT)
    host.open(place.request(("train", 1, "segfault")), TIMEOUT)
    with pytest.raises(CellError) as caught:
        host.ask(Train(1), TIMEOUT)
    assert not isinstance(caught.value, OutOfMemory)
