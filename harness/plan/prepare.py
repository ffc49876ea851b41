"""From what a person asked for to cells: the sweep, its targets, models and dataset, checked and made ready.

In: a preset, a file or a ``Sweep``, and what replaces its keys. Out: ``PreparedSweep``. What is fetched or made
meanwhile is told to a ``News``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.paths import OWN_FILE
from harness.plan import datasets, inputs, models, own_file, sweep, targets
from harness.plan.datasets import Prepared as PreparedDataset
from harness.plan.datasets.extent import Extent, extent
from harness.plan.news import News, Tell
from harness.plan.sweep import DATASET_SUFFIX, DATASETS, SweepDefinition
from harness.plan.targets import TargetDefinition

UNFETCHED = ""
"""The hash of a dataset that is still to be downloaded: cells of it have no identity yet."""


SizeFinder = Callable[[Sequence[Cell], Mapping[str, TargetDefinition], Path | None, str], Sequence[int]]
"""Gives the largest batch size that memory holds of each cell's work on its target, given what may be taken of it."""

Finder = Callable[[Sequence[Cell], Mapping[str, TargetDefinition], Path | None], sweep.RateOf]
"""Given cells, the definitions of their targets and the folder of the dataset's arrays: what gives their rates."""


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep expanded to cells; ``interleave`` to ``launchers`` are what ``sweep.Sweep`` has under these names.

    ``images``: the range of the dataset's pixels, None where they are still to be downloaded.
    """

    name: str
    definitions: Mapping[str, TargetDefinition]
    targets: tuple[Target, ...]
    planned: tuple[sweep.Planned, ...]
    dataset: Dataset
    dataset_source: str
    data_dir: Path | None
    interleave: str
    source: str
    own_targets: dict[str, Any]
    launchers: dict[str, dict[str, Any]]
    images: Extent | None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells, in the order of the plan."""
        return tuple(planned.cell for planned in self.planned)


def prepare(
    source: str | SweepDefinition,
    overrides: Mapping[str, Any],
    data_dir: Path | None = None,
    own_models: Mapping[str, ModelSpec] | None = None,
    news: News | None = None,
    fetch: bool = True,
    named: Callable[[Dataset], Dataset] = lambda dataset: dataset,
    find: Finder | None = None,
    find_sizes: SizeFinder | None = None,
) -> PreparedSweep:
    """Read and check everything the person wrote; get the dataset; draw what identifies the inputs.

    ``own_models``: models that are objects, by the names that the sweep has for them.
    Without ``fetch`` a dataset that would have to be downloaded is only described. ``named`` gives a dataset the name
    that a run which is there already has for the same bytes. ``find`` finds learning rates, ``find_sizes`` how large
    batches may be, where the sweep asks for that. Raises UsageError, DatasetError.
    """
    news = news or News()
    asked = sweep.load(source, overrides)
    definitions = own_file.target_definitions(asked.own_targets, asked.source)
    resolved = tuple(targets.resolve(text, definitions) for text in asked.targets)
    own = {**(source.models if isinstance(source, SweepDefinition) else {}), **(own_models or {})}
    specs = [own[text] if text in own else models.load(text) for text in asked.models]
    known = None if fetch else _undownloaded(asked.dataset, data_dir)
    images, folder = None, None
    if known is None:
        ready = prepare_dataset(asked.dataset, data_dir, news)
        known, images, folder = named(ready.dataset), extent(ready.folder), ready.folder
    dataset = datasets.limited(known, asked.train_examples, asked.test_examples, asked.asked_by)

    def identify(model: ModelSpec, seed: int, epochs: int) -> Inputs:
        return inputs.identify(model, dataset.train_examples, epochs, seed)

    def held(cell: Cell) -> int | None:
        return most.get((cell.model, cell.training.optimizer, cell.training.precision, cell.target))

    most: dict[Any, int] = {}
    if asked.up_to_memory:
        if find_sizes is None:
            raise UsageError(f"{asked.where('batch_size')}: what memory holds is found by 'harness sweep' only")
        probes = sweep.smallest(asked, specs, resolved, dataset, identify)
        for cell, size in zip(probes, find_sizes(probes, definitions, folder, asked.memory), strict=True):
            most[cell.model, cell.training.optimizer, cell.training.precision, cell.target] = size
        asked = sweep.with_sizes_up_to(asked, max(most.values()))
    elif asked.memory:
        raise UsageError(f"{asked.where('memory')}: only with a batch size such as 32..max")
    planned = sweep.expand(asked, specs, resolved, dataset, identify, held=held)
    if asked.finds_rates:
        if find is None:
            raise UsageError(f"{asked.where(f'training.{sweep.RATE_KEY}')}: rates are found by 'harness sweep' only")
        runs = [one.cell for one in planned if not one.skip]
        trained = [cell for cell in runs if cell.training.learning_rate.base == sweep.TO_FIND]
        planned = sweep.expand(asked, specs, resolved, dataset, identify, find(trained, definitions, folder), held)
    if images is not None:
        _tell(asked.dataset, dataset, images, news.tell)
    return PreparedSweep(
        name=asked.name,
        definitions=definitions,
        targets=resolved,
        planned=tuple(planned),
        dataset=dataset,
        dataset_source=asked.dataset,
        data_dir=data_dir,
        interleave=asked.interleave,
        source=asked.source,
        own_targets=asked.own_targets,
        launchers=asked.launchers,
        images=images,
    )


def prepare_dataset(source: str, data_dir: Path | None, news: News) -> PreparedDataset:
    """The dataset's arrays in the cache, fetched or made if they are not there yet. Raises UsageError, DatasetError."""
    if data_dir is not None and not data_dir.expanduser().is_dir():
        raise UsageError(f"--data-dir: found {str(data_dir)!r}, allowed: a folder that exists")
    if source.endswith(DATASET_SUFFIX) and not Path(source).expanduser().exists():
        raise UsageError(f"{source}: no such file")
    with news.bar() as show:
        return datasets.prepare(source, data_dir, show, news.keeping)


def planned_dataset(source: str | None, cell: Cell, data_dir: Path | None, run: Path, news: News) -> PreparedDataset:
    """The arrays that a cell was planned with: those of ``source``, else of its dataset's name.

    Raises UsageError if they are others.
    """
    planned = cell.dataset
    if source is None and planned.name not in DATASETS:
        raise UsageError(
            f"{run}: was planned with {planned.name!r}, a file of your own; name it: --dataset FILE{DATASET_SUFFIX}"
        )
    prepared = prepare_dataset(source or planned.name, data_dir, news)
    if prepared.dataset.sha256 != planned.sha256:
        raise UsageError(
            f"--dataset: {source or planned.name!r} is not what {run} was planned with: SHA-256 "
            f"{prepared.dataset.sha256[:16]}... found, {planned.sha256[:16]}... of {planned.name!r} planned"
        )
    return prepared


def launcher_tables(prepared: PreparedSweep, launcher: str) -> list[tuple[Mapping[str, Any], str]]:
    """A launcher's tables, those of ``harness.toml`` first, and the file that each stands in. Raises UsageError."""
    return [(own_file.own_table(launcher), OWN_FILE), (prepared.launchers[launcher], prepared.source)]


def _tell(source: str, dataset: Dataset, images: Extent, tell: Tell) -> None:
    """What a person may not expect of a dataset."""
    if source.endswith(DATASET_SUFFIX) and Path(source).stem != dataset.name:
        tell(f"{source}: the same bytes as {dataset.name!r}, so it is that dataset and goes by that name")
    if images.doubt:
        tell(f"warning: {dataset.name}: {images.doubt}")


def _undownloaded(source: str, data_dir: Path | None) -> Dataset | None:
    """What is known of a dataset that is not here and would have to be fetched; None for every other."""
    known = datasets.describe(source, data_dir)
    if known.state != "to download" or known.image_shape is None:
        return None
    return Dataset(
        name=known.name,
        sha256=UNFETCHED,
        train_examples=known.train_examples or 0,
        test_examples=known.test_examples or 0,
        image_shape=known.image_shape,
        classes=known.classes or 0,
    )
