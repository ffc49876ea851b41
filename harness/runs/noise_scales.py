"""What ``harness noise-scale`` measured in a run, one file for each point: ``RUN/noise-scale/ID.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.core import codec
from harness.core.cell import ID_LENGTH, Cell
from harness.runs import kept_files
from harness.statistics import LEVEL

FOLDER = "noise-scale"


@dataclass(frozen=True)
class Estimate:
    """The noise scale in examples, with the ends of its interval at ``LEVEL``; None for what is not measurable.

    ``variance`` is tr(Sigma), ``gradient_square`` |G|^2, both unbiased, so that the latter may be negative. Without
    ``noise_scale``, ``low`` may still be known; without ``high``, no noise scale from ``low`` on is excluded.
    """

    variance: float
    gradient_square: float
    noise_scale: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class NoiseScale:
    """The noise scale at one point of training; ``key`` is what it depends on, ``id`` its hash.

    ``work``: see ``work_of``; ``model`` to ``seed`` say the same for a person. The parameters are those after ``step``
    steps of training with ``trained_batch_size``. There ``batches`` batches of ``batch_size`` examples were drawn;
    ``loss`` is the mean of theirs. ``problem``: why there is no noise scale; without an ``estimate`` nothing was
    measured, and it is not kept.
    """

    id: str
    key: dict[str, Any]
    work: str
    model: str
    dataset: str
    train_examples: int
    optimizer: str
    learning_rate: float
    seed: int
    target: str
    step: int
    steps_per_epoch: int
    trained_batch_size: int
    batches: int
    batch_size: int
    estimate: Estimate | None = None
    problem: str = ""
    created: str = ""
    level: float = LEVEL
    loss: float | None = field(default=None, metadata=codec.LATER)

    @property
    def epoch(self) -> float:
        """Passes over the training examples before this point."""
        return self.step / self.steps_per_epoch if self.steps_per_epoch else 0.0


def work_of(cell: Cell) -> str:
    """Equal for cells that one noise scale is measured for: of a model, dataset, optimizer and learning rate."""
    return _digest(cell.model, cell.dataset, cell.training.optimizer, cell.training.learning_rate)


def stored(folder: Path) -> list[NoiseScale]:
    """Those of a run folder, by model, then work, target and step, later ones of equal points last.

    A file that is damaged or of another version counts as none: it is measured again.
    """
    found = kept_files.read_all(folder / FOLDER, NoiseScale)
    return sorted(found, key=lambda one: (one.model, one.work, one.target, one.step, one.created, one.id))


def keep(folder: Path, measured: NoiseScale) -> None:
    """Write one into a run folder. Raises StoreError."""
    kept_files.write(folder / FOLDER / f"{measured.id}.json", measured)


@lru_cache(maxsize=4096)
def _digest(*parts: Any) -> str:
    """Remembered: the thousands of cells of a run share few works."""
    return codec.digest([codec.digest(part) for part in parts])[:ID_LENGTH]
