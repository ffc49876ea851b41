from __future__ import annotations

from dataclasses import replace

import pytest

from backends import device_choice
from harness.core.errors import WrongDevice
from tests.unit.records import JAX

VARIABLE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("variable", "device", "index"),
    [
        (None, 0, 0),
        (None, 2, 2),
        ("2", 2, 0),  # the target's own env has hidden all others
        ("0", 0, 0),
        ("3", 0, 0),  # a scheduler's job on one device: its first is the target's device 0
        ("4,5,6", 1, 1),
        ("0,1,2,3", 3, 3),
        ("GPU-8932f937-d72c", 0, 0),
        ("3", 1, 1),  # one other device is visible: not to be taken for device 1
        ("0", 1, 1),
    ],
)
def test_a_targets_device_is_never_guessed(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, device: int, index: int
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    assert device_choice.index_of(device, VARIABLE) == index


def test_a_device_that_the_harness_shows_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    monkeypatch.setenv("HARNESS_DEVICE", "1")
    assert device_choice.index_of(1, VARIABLE) == 0
    assert device_choice.index_of(2, VARIABLE) == 2


def test_a_device_that_cannot_be_seen_is_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    device_choice.require_visible(0, 1, 3, VARIABLE)
    with pytest.raises(WrongDevice, match=r"^asked for device 1, but 1 can be seen \(CUDA_VISIBLE_DEVICES is '3'; "):
        device_choice.require_visible(1, 1, 1, VARIABLE)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(WrongDevice, match=r"CUDA_VISIBLE_DEVICES is not set"):
        device_choice.require_visible(4, 4, 4, VARIABLE)


def test_fewer_devices_than_asked_for_are_the_wrong_ones() -> None:
    two = replace(JAX, accelerator="cuda", devices=2)
    device_choice.require_enough(two, 2)
    with pytest.raises(WrongDevice, match=r"^asked for 2 devices \(cuda\), but 1 can be seen$"):
        device_choice.require_enough(two, 1)


def test_only_several_devices_are_told_of() -> None:
    assert device_choice.together(JAX, ["a"], "sum") == {}
    assert device_choice.together(replace(JAX, devices=2), ["a", "b"], "sum") == {
        "replica_devices": ["a", "b"],
        "collective": "sum",
        "logical_devices": True,
    }
