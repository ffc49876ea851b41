"""``harness noise-scale``: the gradient noise scale of a run's work, measured on one target and kept with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.actions import values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.analysis.noise_scale import FEWEST_BATCHES
from harness.core import codec
from harness.core.cell import Cell, Target
from harness.core.errors import StoreError, UsageError
from harness.measure import noise_probe, session
from harness.measure.noise_probe import Meter
from harness.plan import inputs, own_file, targets
from harness.plan.prepare import planned_dataset
from harness.plan.targets import TargetDefinition
from harness.report.printed import new_table, print_table, say
from harness.runs import folder as run_folder
from harness.runs import noise_scales
from harness.runs.noise_scales import NoiseScale
from harness.workers.cell_worker import Files

MOST_BATCHES = 4096
NEWS_SECONDS = 10.0
"""How often at most the progress of one thing is told."""


@dataclass(frozen=True, repr=False)
class NoiseScales(Shown):
    """Noise scales of a run's works; ``is_whole``: all were measured, and kept where they had not been."""

    found: tuple[NoiseScale, ...]
    is_whole: bool

    def plain(self) -> list[Any]:
        """A dict for each point."""
        return [codec.to_json(one) for one in self.found]

    def print_to(self, console: Console) -> None:
        """A row for each point, then what failed."""
        _print(self.found, console)


@dataclass(frozen=True)
class _Source:
    """Where the run's dataset is, and how workers run."""

    dataset: str | None
    data_dir: Path | None
    timeout: float
    fork: bool


def measure_noise_scale(
    run: Place,
    *,
    target: str | None = None,
    batches: int | str = 32,
    steps: int | str | Iterable[int | str] = (),
    dataset: str | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> NoiseScales:
    """Measure what the run folder has not yet, keep it, and give it all.

    ``target``: the run's first if not given; ``steps`` empty: the usual points. Raises UsageError, StoreError.
    """
    kept = _open(values.path(run))
    definitions = own_file.target_definitions()
    where = targets.resolve(target or kept.plan.cells[0].target.label, definitions)
    count = values.whole_number("--batches", str(batches), FEWEST_BATCHES, MOST_BATCHES)
    wanted = {
        cell: [noise_probe.expected(cell, step, count) for step in _steps(values.texts(steps), cell)]
        for cell in noise_probe.works(kept.plan.cells, where)
    }
    found = {one.id: one for one in noise_scales.stored(kept.folder)}
    waiting = {cell: [one.step for one in points if one.id not in found] for cell, points in wanted.items()}
    not_kept: list[StoreError] = []
    if any(waiting.values()):
        source = _Source(dataset, values.place(data_dir), timeout, fork)
        with kept.locked():
            found |= _measured(kept, waiting, count, definitions, where, source, not_kept)
    shown = tuple(found[one.id] for points in wanted.values() for one in points)
    return NoiseScales(shown, not (not_kept or any(one.estimate is None for one in shown)))


def _open(folder: Path) -> run_folder.Run:
    kept = run_folder.open_run(folder)
    if not kept.plan.cells:
        raise UsageError(f"{folder}: the plan of this run has no cells")
    return kept


def _steps(texts: Sequence[str], cell: Cell) -> tuple[int, ...]:
    last = cell.total_steps
    for text in texts:
        if not (text.isascii() and text.isdecimal() and int(text) <= last):
            raise UsageError(
                f"--steps: found {text!r}, allowed: whole numbers from 0 to {last}, where the training of "
                f"{cell.model.name} with batch size {cell.training.batch_size} ends"
            )
    return tuple(sorted({int(text) for text in texts})) or noise_probe.usual_steps(cell)


def _measured(
    kept: run_folder.Run,
    waiting: Mapping[Cell, Sequence[int]],
    batches: int,
    definitions: Mapping[str, TargetDefinition],
    target: Target,
    source: _Source,
    not_kept: list[StoreError],
) -> dict[str, NoiseScale]:
    """Measure the works at their points; what was measured is kept, each as soon as it is known.

    Where that cannot be, the reason goes to ``not_kept``, and what was measured is at least shown.
    """
    works = {cell: points for cell, points in waiting.items() if points}
    session.require_room(kept, list(works))
    folders = {cell: planned_dataset(source.dataset, cell, source.data_dir, kept.folder, NEWS).folder for cell in works}
    problems = session.build_environments(definitions, [target], NEWS)
    found: dict[str, NoiseScale] = {}
    hosts = session.temporary_hosts(definitions, problems, "noise-scale", source.timeout, source.fork, NEWS.keeping)
    with hosts as (pool, _, place):
        for number, (cell, points) in enumerate(works.items()):
            parameters, order = inputs.write(kept.inputs_folder, cell)
            files = Files(folders[cell], parameters, order, place / f"work-{number}", place / "programs")
            meter = Meter(files, partial(pool.worker, target), source.timeout, news())
            for one in meter.measure(cell, points, batches):
                found[one.id] = one
                if one.estimate is not None:
                    try:
                        noise_scales.keep(kept.folder, one)
                    except StoreError as error:
                        not_kept.append(error)
                        tell(f"warning: {error}; what was measured is shown, and not kept")
                tell(f"{one.model} on {one.target}, step {one.step:,}: {one.problem or 'measured'}")
    return found


def news() -> Callable[[str, int, int], None]:
    """Something that tells on standard error what has begun, and now and then how far it is."""
    last: dict[str, float] = {}

    def told(what: str, done: int, total: int) -> None:
        if time.monotonic() - last.get(what, -NEWS_SECONDS) >= NEWS_SECONDS:
            last[what] = time.monotonic()
            tell(f"{what}: {done:,} of {total:,}")

    return told


def _print(found: Sequence[NoiseScale], console: Console) -> None:
    numbers = ("step", "epoch", "noise scale", "|G|^2", "tr(Sigma)")
    title = "Gradient noise scale: tr(Sigma) / |G|^2, in examples"
    table = new_table("work", *numbers[:3], "95 % interval", *numbers[3:], numbers=numbers, title=title)
    before = ""
    for one in found:
        name = _name(one)
        table.add_row(name if name != before else "", f"{one.step:,}", f"{one.epoch:.3g}", *_figures(one))
        before = name
    print_table(table, console)
    first = found[0]
    drawn = f"{first.batches} batches of {first.batch_size} examples at each point, on {first.target}"
    say(console, f"{drawn}; trained with the run's smallest batch size.")
    say(
        console,
        "Steps on batches well below it scale nearly perfectly, on batches well above it hardly "
        "(McCandlish et al., arXiv 1812.06162).",
    )
    for one in found:
        if one.problem:
            failed = "FAILED " if one.estimate is None else ""
            say(console, f"{failed}{_name(one)}, step {one.step:,}: {one.problem}")


def _name(one: NoiseScale) -> str:
    return f"{one.model}, {one.dataset}, {one.optimizer} at learning rate {one.learning_rate:g}"


def _figures(one: NoiseScale) -> tuple[str, str, str, str]:
    """Noise scale, interval, |G|^2 and tr(Sigma) as texts."""
    if (found := one.estimate) is None:
        return "", "FAILED", "", ""
    scale = "" if found.noise_scale is None else _examples(found.noise_scale)
    if found.low is None:
        interval = "anything"
    elif found.high is None:
        interval = f"{_examples(found.low)} or more"
    else:
        interval = f"{_examples(found.low)} to {_examples(found.high)}"
    return scale, interval, f"{found.gradient_square:.3g}", f"{found.variance:.3g}"


def _examples(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
