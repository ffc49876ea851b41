"""What an experiment tracker is told of a run: of each cell what it was, what came of it, and how its epochs went.

Frames of ``harness.analysis`` go in, one ``TrackedCell`` after the other comes out; ``to_tensorboard`` and
``to_mlflow`` write them down. Only a cell that ended well has figures: those of a failed one are of other work, or of a
part of it. One that ``diverged`` ended well as a run: its figures are told, and that it did.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SETTINGS = (
    "target",
    "batch_size",
    "epochs",
    "seed",
    "optimizer",
    "learning_rate",
    "scaling",
    "precision",
    "model",
    "dataset",
    "train_examples",
    "backend",
    "accelerator",
    "mode",
    "input",
    "interleave",
    "repeat",
    "lane",
    "batch_plan",
)
"""Columns of ``analysis.summary`` that say what a cell was asked to do; trackers show the first ones first."""

FIGURES = {
    "final_accuracy": "share of the test examples recognised after the last epoch",
    "images_per_second": "median over blocks of training steps, compilation and warm-up not counted",
    "train_seconds": "all timed training steps but those that compiled",
    "compile_seconds": "first training step and first evaluation batch",
    "final_test_loss": "mean cross-entropy of the test examples after the last epoch",
    "final_train_loss": "mean over the steps of the last epoch, dropout included",
    "seconds_per_epoch": "the training steps of an epoch at their mean pace",
    "evaluate_seconds": "evaluation of the test examples, all epochs together",
    "import_seconds": "import of the framework",
    "build_seconds": "building the model",
    "peak_memory_bytes": "largest resident set of the worker in the machine's memory",
    "peak_device_memory_bytes": "most that the framework's allocator had in use on the device",
    "process_device_memory_bytes": "most device memory that the driver counted for the worker",
    "flops_per_second": "floating-point operations of the model's passes, of images_per_second",
    "limit_share": "flops_per_second relative to the device's matrix products",
    "joules_per_image": "energy of the GPU",
    "host_joules_per_image": "energy of the processors",
}
"""Columns of ``analysis.summary`` with one number for each cell, and what they mean; the main ones first."""

EPOCH_FIGURES = ("test_accuracy", "test_loss", "train_loss")

FACTS = ("cell_id", "work_id", "status", "reason", "attempt", "started", "proof", "machine", "diverged")
"""Columns of ``analysis.summary`` that identify a cell's record and say how it ended."""


@dataclass(frozen=True)
class TrackedEpoch:
    """An epoch, counted from 1; ``reached``: seconds since 1970, its training alone counted from the cell's start."""

    epoch: int
    reached: float
    figures: dict[str, float]


@dataclass(frozen=True)
class TrackedCell:
    """One record. ``started``: seconds since 1970. What is not known is in none of the dictionaries.

    ``facts`` are texts; ``identity`` is of this one record: retried, or run by another machine, a cell has another.
    """

    title: str
    started: float
    settings: dict[str, str | int | float]
    facts: dict[str, str]
    figures: dict[str, float]
    epochs: tuple[TrackedEpoch, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """Tells records from each other; ``identity_of`` reads it from facts that a tracker gives back."""
        return identity_of(self.facts)

    @property
    def ended(self) -> float:
        """When the last epoch was reached, in seconds since 1970."""
        return self.epochs[-1].reached if self.epochs else self.started


def identity_of(facts: Mapping[str, str]) -> tuple[str, ...]:
    """The facts that tell one record from all others, empty where one is missing."""
    return tuple(facts.get(name, "") for name in ("cell_id", "attempt", "started"))


def tracked_cells(cells: pl.DataFrame, epochs: pl.DataFrame) -> Iterator[TrackedCell]:
    """The cells of ``analysis.summary`` in its order, each with its rows of the epochs' frame."""
    rows = defaultdict(list)
    for cell_id, *values in epochs.select("cell_id", "epoch", "seconds", *EPOCH_FIGURES).iter_rows():
        rows[cell_id].append(values)
    for row in cells.iter_rows(named=True):
        started = datetime.fromisoformat(row["started"]).timestamp() if row["started"] else 0.0
        well = row["status"] == "ok"
        yield TrackedCell(
            title=f"{row['target']}, batch size {row['batch_plan'] or row['batch_size']}",
            started=started,
            settings=_known(row, SETTINGS),
            facts={name: str(value) for name, value in _known(row, FACTS).items()},
            figures=_known(row, FIGURES) if well else {},
            epochs=tuple(_epoch(started, *values) for values in rows[row["cell_id"]]) if well else (),
        )


def require(extra: str, *modules: str) -> None:
    """Import the modules of an optional extra; UsageError with the command that installs them where one is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == module
            problem = "is not installed" if missing else f"cannot be imported ({error})"
            raise UsageError(
                f'{module} {problem}: pip install "backend-harness[{extra}]" (in a clone: uv sync --extra {extra})'
            ) from error


def _known(row: Mapping[str, Any], names: tuple[str, ...] | Mapping[str, str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name] not in (None, "")}


def _epoch(started: float, epoch: int, seconds: float | None, *figures: float | None) -> TrackedEpoch:
    known = {name: value for name, value in zip(EPOCH_FIGURES, figures, strict=True) if value is not None}
    return TrackedEpoch(epoch, started + (seconds or 0.0), known)
