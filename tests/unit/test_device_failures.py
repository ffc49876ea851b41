"""A framework's last words about its device become a typed failure."""

from __future__ import annotations

import pytest

from harness.core import device_failures
from harness.core.errors import DeviceLost, OutOfMemory

UNRECOVERABLE = (
    "2026-11-26 18:39:37.1: F tensorflow/c/logging.cc:43] The DirectML device has encountered an unrecoverable error "
    "(DXGI_ERROR_DEVICE_HUNG). This is most often caused by a timeout occurring on the GPU."
)


@pytest.mark.parametrize(
    "line",
    [
        UNRECOVERABLE,
        "HRESULT failed with 0x887a0005: dml_device_->GetDeviceRemovedReason()",
        "Internal: DirectML: device removed",
        "vkQueueSubmit: DeviceLost",
        "NVML: GPU is lost",
    ],
)
def test_a_lost_device(line: str) -> None:
    found = device_failures.meaning(f"all is well\n{line}\nFatal Python error: Aborted")
    assert isinstance(found, DeviceLost)
    assert found.status == "crashed"
    assert str(found).startswith("the device was lost: ")
    assert line.split()[-1] in str(found)


@pytest.mark.parametrize(
    "line", ["DML allocator out of memory!", "'d3d_device_->CreateHeap' failed with HRESULT 0x8007000e"]
)
def test_memory_of_the_device_that_ran_out(line: str) -> None:
    found = device_failures.meaning(f"{line}\n")
    assert isinstance(found, OutOfMemory)
    assert line in str(found)


def test_the_last_telling_line_counts() -> None:
    assert isinstance(device_failures.meaning(f"DML allocator out of memory!\n{UNRECOVERABLE}"), DeviceLost)


@pytest.mark.parametrize(
    "text", ["", "Check failed: the device is gone", "DirectML: creating device on adapter 0 (A GPU)"]
)
def test_other_words_mean_nothing(text: str) -> None:
    assert device_failures.meaning(text) is None
