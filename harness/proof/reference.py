"""What the reference makes of probes: every target is compared with it, so each answer is asked for once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError, HarnessError
from harness.core.model import ModelSpec
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.plan import inputs
from harness.proof import probes
from harness.proof.probing import ATTEMPTS, Arrays, run_probe
from harness.workers.cell_worker import CellWorker


class Reference:
    """The reference's answers, remembered.

    ``start``: gives its target and its worker, started at the first need. ``scratch``: folder for probe files, emptied
    after use. ``timeout``: longest wait for one answer, in seconds.
    """

    def __init__(self, start: Callable[[], tuple[Target, CellWorker]], scratch: Path, timeout: float) -> None:
        self._start = start
        self._scratch = scratch
        self._timeout = timeout
        self._answers: dict[str, Arrays] = {}

    def facts(self) -> dict[str, Any]:
        """What it is, as a proof tells it."""
        target, worker = self._start()
        return {"backend": target.backend, "packages": worker.ready.worker.get("packages", {})}

    def answer(self, probe: probes.ProbeCell, evaluate: bool = False) -> Arrays:
        """What it makes of a probe, in float64. Raises HarnessError if it fails: nothing can be proven then."""
        training = replace(probe.cell.training, precision="float32")
        images = inputs.arrays_digest({"images": probe.images})
        parts = (probe.cell.model, training, probe.cell.dataset)
        identity = codec.digest([*(codec.digest(part) for part in parts), images, evaluate])[:16]
        attempt = 0
        while identity not in self._answers:
            attempt += 1
            try:
                target, worker = self._start()
                own = replace(probe, cell=replace(probe.cell, target=target, training=training))
                folder = self._scratch / f"reference-{identity}"
                self._answers[identity] = run_probe(own, worker, folder, self._timeout, evaluate, value_bytes=8)
            except CellError as error:
                if attempt == ATTEMPTS:
                    raise HarnessError(f"the reference, against which targets are proven, failed: {error}") from error
        return self._answers[identity]

    def best_draw(
        self,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        target: Target,
        initial: Arrays,
        like: TrainingSpec | None = None,
    ) -> tuple[probes.ProbeCell, Arrays]:
        """The training probe on which it stays farthest from a branch, and what it makes of that."""
        best: tuple[float, probes.ProbeCell] | None = None
        for draw in range(probes.DRAWS):
            probe = probes.training_probe(model, optimizer, precision, target, initial, draw, like)
            margin = float(self.answer(probe)["kink_margin"])
            if best is None or margin > best[0]:
                best = margin, probe
            if margin >= probes.SAFE_MARGIN:
                break
        assert best is not None
        return best[1], self.answer(best[1], evaluate=True)
