"""The cells of what is measured in heats: for each batch size, the same lanes again and again in fresh processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.actions import values
from harness.analysis.comparison import LaneKey
from harness.core.cell import Cell, Dataset, Target
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec
from harness.plan import inputs
from harness.plan.sweep import LARGEST_COUNT, require_fit

DEFAULT_BATCH_SIZES = (32, 128, 512)
STEPS = 3000
"""Training steps that a heat may take at most, in whole epochs: their order is drawn beforehand."""

MOST_EPOCHS = 200


def batch_sizes(texts: Sequence[str], usual: Sequence[int] = DEFAULT_BATCH_SIZES) -> list[int]:
    """Those that flags name, in order, else the usual ones. Raises UsageError."""
    return sorted({values.whole_number("--batch-size", text, 1, LARGEST_COUNT) for text in texts}) or list(usual)


def works(
    model: ModelSpec, dataset: Dataset, sizes: Sequence[int], training: TrainingSpec, target: Target
) -> list[Cell]:
    """A cell of each batch size, long enough for any heat; ``training`` but for its batch size and epochs.

    Raises UsageError for what does not fit the dataset.
    """
    require_fit("--model", model, dataset)
    found = []
    for size in sizes:
        if size > dataset.train_examples:
            raise UsageError(f"--batch-size: found {size}, but {dataset.name} has {dataset.train_examples} images")
        epochs = min(math.ceil(STEPS / (dataset.train_examples // size)), MOST_EPOCHS)
        drawn = inputs.identify(model, dataset.train_examples, epochs, training.seed)
        found.append(Cell(model, replace(training, batch_size=size, epochs=epochs), dataset, drawn, target))
    return found


def repeated(works: Sequence[Cell], lanes: Sequence[LaneKey], repeats: int) -> list[Cell]:
    """Of each work so many heats of these lanes."""
    return [
        replace(work, target=key.target, repeat=repeat, lane=key.lane)
        for work in works
        for repeat in range(repeats)
        for key in lanes
    ]
