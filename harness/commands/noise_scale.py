"""``harness noise-scale``: the gradient noise scale of a run's work, measured on one target and kept with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.analysis.noise_scale import FEWEST_BATCHES
from harness.commands import printing, running
from harness.core import codec
from harness.core.cell import Cell, Target
from harness.core.errors import StoreError, UsageError
from harness.measure import noise_probe
from harness.measure.noise_probe import Meter
from harness.plan import inputs, own_file, targets
from harness.plan.targets import TargetDefinition
from harness.runs import folder as run_folder
from harness.runs import noise_scales
from harness.runs.noise_scales import NoiseScale
from harness.workers.cell_worker import Files

MOST_BATCHES = 4096
NEWS_SECONDS = 10.0
"""How often at most the progress of one thing is told."""


@dataclass(frozen=True)
class Request:
    """The flags of ``harness noise-scale``; ``steps`` empty: the usual points; ``target`` None: the run's first."""

    run: Path
    target: str | None
    batches: str
    steps: Sequence[str]
    dataset: str | None
    data_dir: Path | None
    json: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Measure what the run folder has not yet, keep it, print it all. Exit status 1 if something failed."""
    kept = _open(request.run)
    definitions = own_file.target_definitions()
    target = targets.resolve(request.target or kept.plan.cells[0].target.label, definitions)
    batches = printing.whole_number("--batches", request.batches, FEWEST_BATCHES, MOST_BATCHES)
    wanted = {
        cell: [noise_probe.expected(cell, step, batches) for step in _steps(request.steps, cell)]
        for cell in noise_probe.works(kept.plan.cells, target)
    }
    found = {one.id: one for one in noise_scales.stored(kept.folder)}
    waiting = {cell: [one.step for one in points if one.id not in found] for cell, points in wanted.items()}
    not_kept: list[StoreError] = []
    if any(waiting.values()):
        with kept.locked():
            found |= _measured(kept, waiting, batches, definitions, target, request, not_kept)
    shown = [found[one.id] for points in wanted.values() for one in points]
    if request.json:
        printing.write_json([codec.to_json(one) for one in shown])
    else:
        _print(shown)
    return 1 if not_kept or any(one.estimate is None for one in shown) else 0


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
    request: Request,
    not_kept: list[StoreError],
) -> dict[str, NoiseScale]:
    """Measure the works at their points; what was measured is kept, each as soon as it is known.

    Where that cannot be, the reason goes to ``not_kept``, and what was measured is at least shown.
    """
    console = printing.standard_error()
    works = {cell: points for cell, points in waiting.items() if points}
    running.require_room(kept, list(works))
    folders = {
        cell: printing.planned_dataset(request.dataset, cell, request.data_dir, kept.folder).folder for cell in works
    }
    problems = printing.build_environments(definitions, [target], console)
    found: dict[str, NoiseScale] = {}
    with running.temporary_hosts(definitions, problems, "noise-scale", request.timeout, request.fork) as (
        pool,
        _,
        place,
    ):
        for number, (cell, points) in enumerate(works.items()):
            parameters, order = inputs.write(kept.inputs_folder, cell)
            files = Files(folders[cell], parameters, order, place / f"work-{number}", place / "programs")
            meter = Meter(files, partial(pool.worker, target), request.timeout, _news())
            for one in meter.measure(cell, points, batches):
                found[one.id] = one
                if one.estimate is not None:
                    try:
                        noise_scales.keep(kept.folder, one)
                    except StoreError as error:
                        not_kept.append(error)
                        printing.say(console, f"warning: {error}; what was measured is shown, and not kept")
                printing.say(console, f"{one.model} on {one.target}, step {one.step:,}: {one.problem or 'measured'}")
    return found


def _news() -> Callable[[str, int, int], None]:
    """Tells on standard error what has begun, and now and then how far it is."""
    console = printing.standard_error()
    told: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        if time.monotonic() - told.get(what, -NEWS_SECONDS) >= NEWS_SECONDS:
            told[what] = time.monotonic()
            printing.say(console, f"{what}: {done:,} of {total:,}")

    return tell


def _print(found: Sequence[NoiseScale]) -> None:
    numbers = ("step", "epoch", "noise scale", "|G|^2", "tr(Sigma)")
    title = "Gradient noise scale: tr(Sigma) / |G|^2, in examples"
    table = printing.new_table("work", *numbers[:3], "95 % interval", *numbers[3:], numbers=numbers, title=title)
    console = printing.standard_output()
    before = ""
    for one in found:
        name = _name(one)
        table.add_row(name if name != before else "", f"{one.step:,}", f"{one.epoch:.3g}", *_figures(one))
        before = name
    printing.print_table(table)
    first = found[0]
    drawn = f"{first.batches} batches of {first.batch_size} examples at each point, on {first.target}"
    printing.say(console, f"{drawn}; trained with the run's smallest batch size.")
    printing.say(
        console,
        "Steps on batches well below it scale nearly perfectly, on batches well above it hardly "
        "(McCandlish et al., arXiv 1812.06162).",
    )
    for one in found:
        if one.problem:
            failed = "FAILED " if one.estimate is None else ""
            printing.say(console, f"{failed}{_name(one)}, step {one.step:,}: {one.problem}")


def _name(one: NoiseScale) -> str:
    return f"{one.model}, {one.dataset}, {one.optimizer} {one.learning_rate:g}"


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
