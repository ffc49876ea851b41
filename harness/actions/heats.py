"""The cells of what is measured in heats: for each batch size, the same lanes again and again in fresh processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.actions import said, values
from harness.actions.progress import NEWS, duration, tell
from harness.analysis import journal
from harness.analysis.comparison import Comparison, LaneKey
from harness.core.cell import Cell, Dataset, Target
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.record import Record, now
from harness.core.training import TrainingSpec
from harness.measure.lane import Progress
from harness.plan import datasets, inputs, models
from harness.plan.plan import Plan
from harness.plan.prepare import prepare_dataset
from harness.plan.sweep import LARGEST_COUNT, require_fit
from harness.report import comparing
from harness.runs.folder import Run

DEFAULT_BATCH_SIZES = (32, 128, 512)
STEPS = 3000
"""Training steps that a heat may take at most, in whole epochs: their order is drawn beforehand."""

MOST_EPOCHS = 200


def batch_sizes(texts: Sequence[str], usual: Sequence[int] = DEFAULT_BATCH_SIZES) -> list[int]:
    """Those that flags name, in order, else the usual ones. Raises UsageError.

    A plan of them is refused: heats here run for as long as it takes to tell targets apart, a plan for its epochs.
    """
    plan = next((text for text in texts if ":" in text), "")
    if plan:
        raise UsageError(f"--batch-size: found {plan!r}, allowed: fixed sizes; harness sweep trains plans of them")
    return sorted({values.whole_number("--batch-size", text, 1, LARGEST_COUNT) for text in texts}) or list(usual)


def asked(
    given: Mapping[str, Any], target: Target, usual: Sequence[int] = DEFAULT_BATCH_SIZES
) -> tuple[list[Cell], Path]:
    """The works that an action's arguments ask for, whatever their target, and the folder of their dataset.

    ``given``: ``batch_size`` (``usual`` where there is none), ``model``, ``dataset``, ``optimizer``,
    ``compute_precision`` and ``data_dir``. Raises UsageError for what is wrong in them.
    """
    model = given["model"]
    spec = model if isinstance(model, ModelSpec) else models.load(values.text("--model", model))
    sizes = batch_sizes(values.texts(given["batch_size"]), usual)
    precision = values.compute_precision(given["compute_precision"])
    training = TrainingSpec(1, 1, values.optimizer(given["optimizer"]), precision=precision)
    prepared = prepare_dataset(values.dataset(given["dataset"]), values.place(given["data_dir"]), NEWS)
    return works(spec, datasets.limited(prepared.dataset, None, None), sizes, training, target), prepared.folder


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


def kept(folder: Path, name: str, command: str, cells: Sequence[Cell]) -> Run:
    """The run folder of heats whose lanes take turns: a new one, or the one that is there with the same cells."""
    plan = Plan(
        name=name,
        command=command,
        created=now(),
        harness_version=said.harness_version(),
        cells=tuple(cells),
        interleave="block",
    )
    run = Run.create(folder, plan)
    journal.keep(run)
    return run


def told(found: Sequence[Comparison], left: float) -> None:
    """Say how comparisons stand after a heat; ``left``: seconds of the budget."""
    for one in found:
        tell(f"{comparing.line(one)}; {duration(max(left, 0.0))} of the budget left")


class Quiet:
    """Who watches heats, which are told one by one, not cell by cell. What fails is said at once, if it is not told
    with its heat.
    """

    def __init__(self, says_failures: bool = True) -> None:
        self._says_failures = says_failures

    def started(self, cell: Cell, doing: str) -> None:
        """Nothing."""

    def progressed(self, progress: Progress) -> None:
        """Nothing: drawing would take the processor that the next block is measured on."""

    def finished(self, record: Record) -> None:
        """Say what went wrong."""
        if self._says_failures and record.status not in ("ok", "skipped"):
            what = f"{record.cell.target.label}, batch {record.cell.training.batch_size}"
            tell(f"{what}: {record.status.replace('_', ' ')}: {record.reason}")
