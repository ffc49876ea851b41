"""The reference on a device that is not there, and on one that it only says is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.reference import ReferenceBackend
from harness.core.cell import Target
from harness.core.errors import WrongDevice


class DevicelessBackend(ReferenceBackend):
    def initialise(self, target: Target) -> dict[str, Any]:
        raise WrongDevice(f"asked for device {target.device}, but 0 can be seen")


class LyingBackend(ReferenceBackend):
    """Says that it woke what was asked for, and computes on the processor."""

    def initialise(self, target: Target) -> dict[str, Any]:
        return {**super().initialise(replace(target, accelerator="cpu")), "accelerator": target.accelerator}
