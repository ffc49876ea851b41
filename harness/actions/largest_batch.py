"""``harness.largest_batch``: the largest batch size that each target trains within its memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.actions import values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.cache.keeping import mark_used
from harness.core import codec
from harness.core.cell import Cell, Target
from harness.core.errors import HarnessError, UsageError
from harness.core.model import ModelSpec
from harness.core.told import asked
from harness.core.training import TrainingSpec
from harness.machine import facts as machine_facts
from harness.machine import nvidia
from harness.measure import session
from harness.measure.instruments import device_facts
from harness.measure.largest_batch import Attempt, LargestBatch, Search
from harness.paths import LARGEST_BATCHES, cache_place
from harness.plan import inputs, models, own_file
from harness.plan.prepare import prepare_dataset
from harness.plan.sweep import require_fit
from harness.plan.targets import TargetDefinition
from harness.report.printed import new_table, print_table, say
from harness.runs import kept_files
from harness.wording import megabytes, plural
from harness.workers.cell_worker import Files

if TYPE_CHECKING:
    import polars as pl

MOST_OF_FREE = 0.9
"""Of the main memory that is free now no more may be asked for: the rest is for everybody else on the machine."""

VERSION = 1
"""Of how sizes are searched for; another one searches anew."""

ADVISED = 0.9
"""Of the largest size that fitted: what training takes differs a little from process to process and over an epoch."""


@dataclass(frozen=True, repr=False)
class LargestBatches(Shown):
    """What was found for each target."""

    found: tuple[LargestBatch, ...]

    @property
    def is_whole(self) -> bool:
        """Whether each target has a largest size."""
        return all(one.is_whole for one in self.found)

    @property
    def table(self) -> pl.DataFrame:
        """A row for each size that was tried."""
        import polars as pl

        rows = [{**_named(one), **codec.to_json(attempt)} for one in self.found for attempt in one.attempts]
        return pl.DataFrame(rows, infer_schema_length=None)

    def plain(self) -> list[Any]:
        """A dict for each target."""
        return [
            {**codec.to_json(one), "largest": one.largest.batch_size if one.largest else None} for one in self.found
        ]

    def print_to(self, console: Console) -> None:
        """A row for each target, then what each says in words."""
        numbers = ("largest", "too large", "main memory", "device memory", "limit")
        first = self.found[0]
        title = f"Largest batch size of {first.model} with {first.optimizer}, {first.precision}, on {first.dataset}"
        table = new_table("target", *numbers, "tries", numbers=(*numbers, "tries"), title=title)
        for one in self.found:
            table.add_row(one.target, *_figures(one), str(len(one.attempts)))
        print_table(table, console)
        for one in self.found:
            say(console, f"{one.target}: {_sentence(one)}")


def largest_batch(
    names: str | Iterable[str] = (),
    *,
    model: str | ModelSpec = "mnist-cnn",
    dataset: Place = "digits",
    optimizer: str = "momentum",
    compute_precision: str = "float32",
    memory: str | int | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> LargestBatches:
    """Find the largest batch size that each target trains within its memory, by trying on fresh processes.

    Args:
        names: targets, as NAME[:MODE][@KEY=VALUE], @microbatch=M among them; a name without a mode stands for all its
            modes; tensorflow-cpu and jax-cpu if none is given.
        model: a built-in one's name, a file that ends in .toml, or a ``harness.Model``.
        dataset: "mnist", "digits", or a file that ends in .npz; no batch is larger than it.
        optimizer, compute_precision: how to train.
        memory: what a worker on processors may take of main memory, such as "4GiB"; needed for those.
        data_dir: a folder with the four MNIST files.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per try, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that. What goes wrong with a target is in the
    result.
    """
    wait = values.timeout(timeout)
    definitions = own_file.target_definitions()
    wanted = session.every_mode(values.texts(names), definitions)
    limit = _limit(memory, wanted)
    spec = model if isinstance(model, ModelSpec) else models.load(values.text("--model", model))
    training = TrainingSpec(1, 1, values.optimizer(optimizer), precision=values.compute_precision(compute_precision))
    prepared = prepare_dataset(values.dataset(dataset), values.place(data_dir), NEWS)
    require_fit("--model", spec, prepared.dataset)
    drawn = inputs.identify(spec, prepared.dataset.train_examples, 1, training.seed)
    cells = [Cell(spec, training, prepared.dataset, drawn, one) for one in wanted]
    return LargestBatches(tuple(_searched(cells, definitions, prepared.folder, limit, wait, fork)))


@dataclass(frozen=True)
class HeldSizes:
    """How large a sweep's batches may be: looked up, or searched for and kept in the user's cache.

    ``memory``: what may be taken, where the sweep does not say; ``only_known``: search nothing. ``timeout`` and
    ``fork`` are those of the sweep.
    """

    memory: str | int | None
    only_known: bool
    timeout: float
    fork: bool

    def find(
        self,
        cells: Sequence[Cell],
        definitions: Mapping[str, TargetDefinition],
        dataset: Path | None,
        memory: str,
    ) -> list[int]:
        """The largest batch size of each cell's work on its target, with a margin; 0 where not even one image fits.

        ``dataset``: the folder of the arrays; None where they are not here yet. Raises UsageError, HarnessError.
        """
        asked = memory if self.memory is None else self.memory
        limit = _limit(asked or None, [cell.target for cell in cells])
        places = {cell: cache_place(LARGEST_BATCHES, f"{_key(cell, limit)}.json") for cell in cells}
        known = {cell: found for cell, path in places.items() if (found := _recalled(path)) is not None}
        missing = [cell for cell in cells if cell not in known]
        if missing and (self.only_known or dataset is None):
            raise UsageError(
                "--batch-size: how much memory holds is not known yet; it is searched for without --plan, by "
                "--launcher local"
            )
        if missing and dataset is not None:
            tell(f"how large batches may be: {plural(len(missing), 'search')}")
            searches = _searched(missing, definitions, dataset, limit, self.timeout, self.fork)
            for cell, one in zip(missing, searches, strict=True):
                if not one.is_whole and one.too_large is None:
                    raise HarnessError(f"--batch-size: {one.target}: {_sentence(one)}")
                NEWS.keeping.keep(places[cell], partial(codec.write_json, value=one))
                known[cell] = one
        return [_advised(known[cell]) for cell in cells]


def _searched(
    cells: Sequence[Cell],
    definitions: Mapping[str, TargetDefinition],
    dataset: Path,
    limit: int | None,
    timeout: float,
    fork: bool,
) -> list[LargestBatch]:
    """One search after the other, whatever the cells' own batch sizes."""
    problems = session.build_environments(definitions, [cell.target for cell in cells], NEWS)
    found = []
    hosts = session.temporary_hosts(definitions, problems, "largest-batch", timeout, fork, NEWS.keeping)
    with hosts as (pool, _, place):
        for cell in cells:
            target = cell.target
            of_target = limit if target.accelerator == "cpu" else None
            files = partial(_files, place, dataset)
            tries = Search(partial(pool.worker, target), files, of_target, timeout, partial(_tell, target))
            found.append(tries.run(cell))
    return found


def _key(cell: Cell, limit: int | None) -> str:
    """What it depends on, as a hash."""
    machine = machine_facts.facts()
    kept = machine["id"], machine["processor"], [device_facts(device) for device in nvidia.devices()]
    allowed = limit if cell.target.accelerator == "cpu" else None
    training = cell.training.optimizer, cell.training.precision
    parts = (cell.model, *training, cell.dataset, cell.target)
    return codec.digest([VERSION, *map(codec.digest, parts), allowed, *kept])[:16]


def _recalled(path: Path) -> LargestBatch | None:
    found = kept_files.read(path, LargestBatch) if path.exists() else None
    if found is not None:
        mark_used(path)
    return found


def _files(place: Path, dataset: Path, cell: Cell) -> Files:
    drawn, scratch = place / "inputs", place / cell.cell_id
    for folder in (drawn, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    parameters, order = inputs.write(drawn, cell)
    return Files(dataset, parameters, order, scratch)


def _limit(memory: str | int | None, wanted: Sequence[Target]) -> int | None:
    """Bytes of main memory for workers on processors. Raises UsageError."""
    on_processors = [one.label for one in wanted if one.accelerator == "cpu"]
    free = asked(machine_facts.available_memory)[0]
    free_now = "" if free is None else f" ({megabytes(free)} are free now)"
    if memory is None:
        if on_processors:
            raise UsageError(
                f"{on_processors[0]} trains in main memory, which others need too: say how much of it a worker may "
                f"take with --memory, such as --memory 4GiB{free_now}"
            )
        return None
    if not on_processors:
        raise UsageError("--memory: only for targets on processors; a GPU's memory is its limit")
    limit = values.bytes_of("--memory", memory)
    if free is not None and limit > MOST_OF_FREE * free:
        raise UsageError(
            f"--memory: found {str(memory)!r}, allowed: up to {megabytes(int(MOST_OF_FREE * free))}, "
            f"{MOST_OF_FREE:.0%} of the main memory that is free now"
        )
    return limit


def _tell(target: Target, attempt: Attempt) -> None:
    end = "fits" if attempt.fits else f"does not fit: {attempt.reason}"
    held = "" if attempt.memory_bytes is None else f", {megabytes(attempt.memory_bytes)} of main memory"
    tell(f"{target.label}, batch size {attempt.batch_size:,}: {end}{held}")


def _named(one: LargestBatch) -> dict[str, Any]:
    return {key: getattr(one, key) for key in ("target", "model", "optimizer", "precision", "dataset")}


def _figures(one: LargestBatch) -> tuple[str, str, str, str, str]:
    largest, beyond = one.largest, one.too_large
    return (
        f"{largest.batch_size:,}" if largest else "none",
        f"{beyond.batch_size:,}" if beyond else "",
        _bytes(largest.memory_bytes if largest else None),
        _bytes(largest.device_memory_bytes if largest else None),
        _bytes(one.limit_bytes),
    )


def _bytes(count: int | None) -> str:
    return "" if count is None else megabytes(count)


def _sentence(one: LargestBatch) -> str:
    largest, beyond = one.largest, one.too_large
    problem = f"; the search ended early: {one.problem}" if one.problem else ""
    if largest is None:
        return f"not even batch size 1 fits: {beyond.reason}" if beyond else f"FAILED: {one.problem}"
    if beyond is None and not problem:
        return f"all {one.train_examples:,} images of {one.dataset} fit in one batch: memory sets no limit here."
    if beyond is None:
        return f"{largest.batch_size:,} fits{problem}"
    return (
        f"{largest.batch_size:,} fits, {beyond.batch_size:,} does not{problem}; with a margin of "
        f"{1 - ADVISED:.0%}, train with {_advised(one):,} at most."
    )


def _advised(one: LargestBatch) -> int:
    """The largest size to train with: all images where they fit; 0 where not even one does."""
    if one.largest is None:
        return 0
    largest = one.largest.batch_size
    return largest if one.too_large is None and not one.problem else max(int(ADVISED * largest), 1)
