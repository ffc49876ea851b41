"""``harness batch-plan``: a plan of batch sizes, decided once in a closed loop, for sweeps to replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console

from harness.actions import values
from harness.actions.noise_scale import MOST_BATCHES, news
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.analysis.noise_scale import FEWEST_BATCHES
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.training import EPOCH, PRECISIONS, STEP
from harness.measure import session
from harness.measure.batch_loop import Bounds, Decision, decide
from harness.measure.noise_probe import Meter
from harness.plan import inputs
from harness.plan.batch_rules import CLOSED_RULES
from harness.plan.prepare import PreparedSweep, prepare, prepare_dataset
from harness.plan.sweep import LARGEST_COUNT
from harness.report.headline import figure
from harness.report.printed import new_table, print_table, say
from harness.workers.cell_worker import Files


@dataclass(frozen=True, repr=False)
class BatchPlan(Shown):
    """What was decided. ``cell``: the work with its first batch size, on the target that decided by ``rule``.

    ``every``: the steps between decisions; 0 where there was one for each epoch.
    """

    cell: Cell
    rule: str
    decisions: tuple[Decision, ...]
    every: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every batch size was decided."""
        measured = all(one.measured.estimate is not None for one in self.decisions)
        return measured and (bool(self.every) or len(self.decisions) == self.cell.training.epochs - 1)

    @property
    def pieces(self) -> dict[str, int]:
        """First epoch, or ``step300``, -> batch size, as ``batch_size`` of a sweep takes it."""
        training, unit = self.cell.training, STEP if self.every else ""
        changes = tuple((_start(one, self.every), one.batch_size) for one in self.decisions)
        planned = replace(training, batch_changes=changes, batch_changes_by=STEP if self.every else EPOCH)
        return {"0": training.batch_size, **{f"{unit}{start}": size for start, size in planned.batch_changes}}

    def plain(self) -> dict[str, Any]:
        """The plan and what each decision went by."""
        return {
            "rule": self.rule,
            "target": self.cell.target.label,
            "batch_size": self.pieces,
            "decisions": [codec.to_json(one) for one in self.decisions],
        }

    def print_to(self, console: Console) -> None:
        """A row for each decision, then the plan as a sweep file and a flag have it."""
        training, told = self.cell.training, ("rate", "loss", "tr(Sigma)", "|G|^2", "asked for")
        title = f"Batch sizes of {self.cell.model.name} by {self.rule}, decided on {self.cell.target.label}"
        unit = STEP if self.every else EPOCH
        table = new_table(unit, "batch size", *told, numbers=(unit, "batch size", *told), title=title)
        table.add_row("0", str(training.batch_size), *[""] * len(told))
        for one in self.decisions:
            table.add_row(f"{_start(one, self.every):,}", str(one.batch_size), *_figures(one))
        print_table(table, console)
        for one in self.decisions:
            if one.measured.problem:
                say(console, f"{unit} {_start(one, self.every):,}: {one.measured.problem}")
        if self.is_whole:
            pieces = self.pieces.items()
            say(console, f"In a sweep file: batch_size = {{ {', '.join(f'{at} = {size}' for at, size in pieces)} }}")
            say(console, f"As a flag: --batch-size {','.join(f'{at}:{size}' for at, size in pieces)}")


def batch_plan(
    source: str,
    rule: str,
    *,
    target: str | None = None,
    smallest: int | str = 16,
    largest: int | str = 1024,
    batches: int | str = 16,
    decide_every: int | str | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> BatchPlan:
    """Decide a plan of batch sizes for the one work of a sweep.

    ``source``: a preset or a file with one fixed batch size; ``rule``: one of CLOSED_RULES; ``target``: the sweep's
    first if not given. ``decide_every``: so many steps have one decision each, in place of each epoch. Raises
    UsageError.
    """
    if rule not in CLOSED_RULES:
        raise UsageError(f"the rule: found {rule!r}, allowed: {', '.join(CLOSED_RULES)}")
    wait, count = values.timeout(timeout), values.whole_number("--batches", str(batches), FEWEST_BATCHES, MOST_BATCHES)
    bounds = Bounds(
        values.whole_number("--smallest", str(smallest), 1, LARGEST_COUNT),
        values.whole_number("--largest", str(largest), 1, LARGEST_COUNT),
    )
    every = 0 if decide_every is None else values.whole_number("--decide-every", str(decide_every), 1, LARGEST_COUNT)
    prepared = prepare(source, {} if target is None else {"target": target}, values.place(data_dir), news=NEWS)
    cell = _the_one_work(prepared, bounds)
    if every >= cell.total_steps:
        raise UsageError(f"--decide-every: found {every}, allowed: fewer than the {cell.total_steps} steps of training")
    folder = prepare_dataset(prepared.dataset_source, prepared.data_dir, NEWS).folder
    problems = session.build_environments(prepared.definitions, [cell.target], NEWS)
    hosts = session.temporary_hosts(prepared.definitions, problems, "batch-plan", wait, fork, NEWS.keeping)
    with hosts as (pool, _, place):
        parameters, order = inputs.write(place, cell)
        files = Files(folder, parameters, order, place / "work", place / "programs")
        meter = Meter(files, partial(pool.worker, cell.target), wait, news())
        decisions = _told(decide(cell, rule, bounds, count, meter, every), every)
        return BatchPlan(cell, rule, tuple(decisions), every)


def _the_one_work(prepared: PreparedSweep, bounds: Bounds) -> Cell:
    """The sweep's only work, on its first target, in float32. Raises UsageError."""
    works = {cell.work_id: cell for cell in reversed(prepared.cells)}
    cell = prepared.cells[0]
    training = cell.training
    if len(works) > 1:
        raise UsageError(f"{prepared.source}: has {len(works)} works, allowed: one, of one batch size, rate and seed")
    if training.batch_changes or training.learning_rate.scaling != "none":
        raise UsageError(f"{prepared.source}: allowed: one fixed batch size, and a rate that is not scaled to it")
    if not bounds.smallest <= training.batch_size <= min(bounds.largest, cell.dataset.train_examples):
        raise UsageError(
            f"{prepared.source}: key batch_size: found {training.batch_size}, allowed: a number between --smallest "
            f"{bounds.smallest} and --largest {bounds.largest}, and no more than the training examples"
        )
    if bounds.largest > cell.dataset.train_examples:
        raise UsageError(f"--largest: found {bounds.largest}, but there are {cell.dataset.train_examples} examples")
    return replace(cell, training=replace(training, precision=PRECISIONS[0]))


def _told(decisions: Iterator[Decision], every: int) -> Iterator[Decision]:
    for one in decisions:
        tell(f"{STEP if every else EPOCH} {_start(one, every):,}: batch size {one.batch_size}")
        yield one


def _start(one: Decision, every: int) -> int:
    """The step, or without ``every`` the epoch, from which on the size is what was decided."""
    return one.measured.step if every else one.epoch


def _figures(one: Decision) -> list[str]:
    found = one.measured.estimate
    shown = (one.rate, one.measured.loss, *((None, None) if found is None else (found.variance, found.gradient_square)))
    return [*("" if value is None else f"{value:.3g}" for value in shown), figure(one.wanted)]
