"""The cells of what is measured in heats: for each batch size, the same lanes again and again in fresh processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.actions import values
from harness.analysis.comparison import LaneKey
from harness.core.cell import Cell, Dataset
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec
from harness.plan import inputs
from harness.plan.sweep import DATASET_SUFFIX, DATASETS, LARGEST_COUNT, require_fit
from harness.wording import nearest

DEFAULT_BATCH_SIZES = (32, 128, 512)
STEPS = 3000
"""Training steps that a heat may take at most, in whole epochs: their order is drawn beforehand."""

MOST_EPOCHS = 200


def dataset(name: str) -> str:
    """The dataset that a flag names. Raises UsageError."""
    if name not in DATASETS and not name.endswith(DATASET_SUFFIX):
        allowed = f"{', '.join(DATASETS)}, or a file that ends in {DATASET_SUFFIX}"
        raise UsageError(f"--dataset: found {name!r}{nearest(name, DATASETS)}, allowed: {allowed}")
    return name


def batch_sizes(texts: Sequence[str]) -> list[int]:
    """Those that flags name, else the usual ones. Raises UsageError."""
    found = {values.whole_number("--batch-size", text, 1, LARGEST_COUNT) for text in texts}
    return sorted(found) or list(DEFAULT_BATCH_SIZES)


def cells(
    model: ModelSpec,
    dataset: Dataset,
    sizes: Sequence[int],
    training: TrainingSpec,
    lanes: Sequence[LaneKey],
    repeats: int,
) -> list[Cell]:
    """Of each batch size so many heats; ``training`` but for its batch size and epochs. Raises UsageError."""
    require_fit("--model", model, dataset)
    found = []
    for size in sizes:
        if size > dataset.train_examples:
            raise UsageError(f"--batch-size: found {size}, but {dataset.name} has {dataset.train_examples} images")
        epochs = min(math.ceil(STEPS / (dataset.train_examples // size)), MOST_EPOCHS)
        trained = replace(training, batch_size=size, epochs=epochs)
        drawn = inputs.identify(model, dataset.train_examples, epochs, training.seed)
        found += [
            Cell(model, trained, dataset, drawn, key.target, repeat, key.lane)
            for repeat in range(repeats)
            for key in lanes
        ]
    return found
