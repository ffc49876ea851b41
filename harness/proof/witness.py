"""Steps of the timed run itself, done again by the reference: whether they were the work.

With dropout the reference takes the target's own masks, which must keep the share that was asked for; where a target
cannot show them, its steps must be as likely as those of replays with masks of their own (``expectation``). Where it
cannot show its optimizer's state nothing can be gone on from, and the record says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.cell import Cell, Target
from harness.core.errors import HarnessError
from harness.proof import expectation, replaying
from harness.proof.parity import COMPUTED, Quantity
from harness.proof.probes import dropout_rates
from harness.proof.probing import Arrays, load_probed
from harness.proof.replaying import Replays, Span
from harness.workers.cell_worker import CellWorker, Files


@dataclass(frozen=True)
class Testimony:
    """What the reference says of a span: ``quantities``, and ``not_shown``, why there are none, or fewer.

    ``seconds``: what doing the steps again took.
    """

    span: Span
    quantities: tuple[Quantity, ...] = ()
    not_shown: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def error(self) -> float | None:
        """The largest relative error; None where nothing was compared."""
        return max((one.error for one in self.quantities if one.name in COMPUTED), default=None)

    @property
    def fault(self) -> str:
        """What is wrong, in one line; empty if nothing is."""
        wrong = "; ".join(one.fault for one in self.quantities if not one.passed)
        first, last = self.span.first_step + 1, self.span.first_step + self.span.steps
        steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        return f"{steps} of the timed training: {wrong}" if wrong else ""


class Witnesses:
    """Judges spans with the reference's worker. ``timeout``: longest wait for one answer, in seconds."""

    def __init__(self, reference: Callable[[], tuple[Target, CellWorker]], timeout: float) -> None:
        self._reference = reference
        self._timeout = timeout

    def judge(self, cell: Cell, files: Files, span: Span) -> Testimony:
        """What the reference says of a span of a cell; where it fails, that nothing is shown."""
        began = time.monotonic()
        try:
            return replace(self._judged(cell, files, span), seconds=time.monotonic() - began)
        except HarnessError as error:
            return Testimony(span, not_shown=(str(error),), seconds=time.monotonic() - began)

    def _judged(self, cell: Cell, files: Files, span: Span) -> Testimony:
        before = load_probed(span.before)
        lacking = replaying.missing(before, cell.model, cell.training)
        if lacking:
            return Testimony(span, not_shown=(lacking,))
        not_shown: tuple[str, ...] = ()
        with replaying.opened(cell, self._reference, _reading(files), self._timeout) as replays:
            if span.masks is None and dropout_rates(cell.model):
                quantities = _expected(replays, span, before)
                not_shown = ("dropout's masks, so steps were compared with what other masks make of them",)
            else:
                quantities = replays.compared(span)
                if span.masks is not None:
                    quantities += replaying.mask_quantities(cell.model, load_probed(span.masks))
        return Testimony(span, replaying.worst(quantities), not_shown)


def _expected(replays: Replays, span: Span, before: Arrays) -> tuple[Quantity, ...]:
    found = load_probed(span.after) | {"losses": np.asarray(span.losses)}
    drawn = [replays.replay(span) for _ in range(expectation.REPLICAS)]
    return expectation.compare(before, drawn, found) + replaying.counted(span, before, found)


def _reading(files: Files) -> Files:
    """The same arrays, in a folder of the reference's own."""
    scratch = Path(files.scratch) / "reference"
    scratch.mkdir(parents=True, exist_ok=True)
    return Files(files.dataset, files.parameters, files.order, scratch)
