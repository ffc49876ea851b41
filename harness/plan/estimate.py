"""How long cells will take: from what earlier runs on this machine measured, or from a stated assumption."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

from harness.cache.keeping import Keeping
from harness.core import codec
from harness.core.cell import Cell
from harness.core.record import Record

ASSUMED_FLOPS_PER_SECOND = 12e9
"""Training rate where nothing was measured yet: a small desktop processor on a small CNN."""

ASSUMED_OVERHEAD_SECONDS = 4.0
"""Building, compiling and ending one cell, where nothing was measured yet."""

Key = tuple[str, str, int]


class Estimates:
    """Seconds per cell. ``path`` is a file in the user's cache; unreadable content counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[Key, tuple[float, float]] = {}
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            self._known = {(str(a), str(b), int(c)): (float(rate), float(over)) for a, b, c, rate, over in rows}
        except (OSError, ValueError, TypeError):
            return

    def seconds(self, cell: Cell) -> float:
        """Wall-clock seconds of one cell, opening to closing; environments and parity not included."""
        rate, overhead = self._rate(cell)
        trained = cell.total_images
        evaluated = cell.training.epochs * cell.dataset.test_examples
        forward_share = cell.model.forward_flops / cell.model.training_flops
        return overhead + (trained + evaluated * forward_share) / rate

    def is_measured(self, cell: Cell) -> bool:
        """Whether the estimate of this cell rests on an earlier run on this machine."""
        return self._nearest(cell) is not None

    def learn(self, record: Record) -> None:
        """Take a finished cell into account; ``save`` keeps it for later runs."""
        seconds = sum(s for s, kind in zip(record.blocks.seconds, record.blocks.kind, strict=True) if kind == "train")
        images = record.timed_images
        if record.status != "ok" or not images or not seconds:
            return
        phases = record.phases
        parts = (phases.initialise_device, phases.load_data, phases.build, phases.compile, phases.warmup)
        overhead = sum(part or 0.0 for part in parts)
        self._known[_key(record.cell)] = (images / seconds, overhead)

    def save(self, keeping: Keeping) -> None:
        """Write what is known; a cache that cannot be written only costs later runs their estimates."""
        rows = [[*key, *value] for key, value in sorted(self._known.items())]
        keeping.keep(self._path, partial(codec.write_atomically, content=json.dumps(rows) + "\n"))

    def _rate(self, cell: Cell) -> tuple[float, float]:
        nearest = self._nearest(cell)
        if nearest is not None:
            return self._known[nearest]
        return ASSUMED_FLOPS_PER_SECOND / cell.model.training_flops, ASSUMED_OVERHEAD_SECONDS

    def _nearest(self, cell: Cell) -> Key | None:
        label, model, batch_size = _key(cell)
        same = [key for key in self._known if key[:2] == (label, model)]
        return min(same, key=lambda key: abs(math.log(key[2] / batch_size)), default=None)


def _key(cell: Cell) -> Key:
    """Of a plan the size of its images' average step, so that it is near what trains about as fast."""
    training = cell.training
    size = round(cell.total_images / max(cell.total_steps, 1)) if training.batch_changes else training.batch_size
    return cell.target.label, cell.model.name, size
