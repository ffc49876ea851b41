"""What a framework's words say of its device: that it was lost, or that its memory ran out.

DirectML's plugin often says so in its log and then ends the process; where the framework still raises an error, the
words are the same. The codes are those of DXGI and Windows (``winerror.h``, ``dxgi.h``).
"""

from __future__ import annotations

from harness.core.errors import CellError, DeviceLost, OutOfMemory

LOST = (
    "directml device has encountered an unrecoverable error",
    "dxgi_error_device_removed",
    "dxgi_error_device_hung",
    "dxgi_error_device_reset",
    "dxgi_error_driver_internal_error",
    "0x887a0005",
    "0x887a0006",
    "0x887a0007",
    "0x887a0020",
    "device removed",
    "devicelost",
    "device lost",
    "gpu is lost",
)
"""In lower case, as they may stand in a line."""

OUT_OF_MEMORY = (
    "dml allocator out of memory",
    "dml descriptor allocator out of memory",
    "oom when closing the command list",
    "e_outofmemory",
    "0x8007000e",
)

LONGEST = 300
"""Characters of the line that is shown."""


def meaning(text: str) -> CellError | None:
    """The failure that the last telling line of ``text`` stands for; None if no line tells of one."""
    for line in reversed(text.splitlines()):
        said = " ".join(line.split())[:LONGEST]
        if any(sign in line.lower() for sign in LOST):
            return DeviceLost(f"the device was lost: {said}")
        if any(sign in line.lower() for sign in OUT_OF_MEMORY):
            return OutOfMemory(f"the device's memory ran out: {said}")
    return None
