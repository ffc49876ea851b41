"""Backends that say that they compute on a GPU and compute on the processor: the reference under another name.

Each lies as far as its name says, and tells the truth of the rest, as a framework that quietly falls back does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backends.protocol import Arrays, Capabilities
from backends.reference import ReferenceBackend, ReferenceSession
from harness.core.cell import Cell, Target
from harness.core.messages import Operation, Placed

NOTHING: Mapping[str, Any] = {}
ON_GPU: Mapping[str, Any] = {"parameters_on": ["GPU:0"], "loss_on": ["GPU:0"]}
NOWHERE: Mapping[str, Any] = {"parameters_on": [], "loss_on": []}


class BoastingBackend(ReferenceBackend):
    """Claims the accelerator that it is asked for, and no more."""

    woken: str | None = None
    said_at_end: Mapping[str, Any] = NOTHING
    said_in_probes: Mapping[str, Any] = NOTHING
    log = ""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), accelerators=("cuda", "directml"))

    def initialise(self, target: Target) -> dict[str, Any]:
        facts = ReferenceBackend().initialise(replace(target, accelerator="cpu"))
        if self.log:
            print(self.log, flush=True)
        return {**facts, "accelerator": self.woken or target.accelerator}

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        made = LyingSession(cell, arrays)
        made.said = self.said_in_probes if cell.dataset.name == "probe" else self.said_at_end
        return made


class LyingSession(ReferenceSession):
    """Its device facts are those of the processor but for what is ``said``."""

    said: Mapping[str, Any]

    def device(self) -> dict[str, Any]:
        return {**super().device(), **self.said}


class SilentBackend(BoastingBackend):
    """Says nothing of where anything lives."""

    said_in_probes = said_at_end = NOWHERE


class TurningBackend(BoastingBackend):
    """Leaves the device only after it was proven."""

    said_in_probes = ON_GPU


class HonestBackend(BoastingBackend):
    """As far as anyone can tell here it computes where it says."""

    said_in_probes = said_at_end = ON_GPU


class WokenBackend(HonestBackend):
    """Wakes the processor, and says so."""

    woken = "cpu"


class AdaptedBackend(HonestBackend):
    """Its log names an adapter, as DirectML's does."""

    log = "I tensorflow/c/logging.cc:34] DirectML: creating device on adapter 0 (Some GPU)"


class FallingBackBackend(HonestBackend):
    """One kind of operation of its step runs on the processor."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        made: Any = super().session(cell, arrays)
        made.placement = lambda kernels_of: Placed(
            tells=True,
            ran=[Operation("MatMul", ["T=float"], 3, "GPU:0"), Operation("RandomUniform", ["dtype=float"], 2, "CPU:0")],
        )
        return made  # type: ignore[no-any-return]
