"""``harness sweep``: from what a person asked for to a run folder full of records, and its table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import shells
from harness.cluster.options import places
from harness.commands import ending, plan_table, printing, running
from harness.commands import ray as commands_ray
from harness.commands import slurm as commands_slurm
from harness.commands.progress import RunProgress
from harness.core import record
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.record import now
from harness.paths import OWN_FILE, SPEEDS_FILE, cache_place
from harness.plan import own_file, shards
from harness.plan.estimate import Estimates
from harness.runs import folder as run_folder
from harness.runs import setting
from harness.runs.folder import default_folder
from harness.wording import plural

LONGEST_TABLE_UNASKED = 1000
"""Rows. Of a larger run that was complete already only the command that shows it is printed: it reads every record."""


@dataclass(frozen=True)
class Request:
    """The flags of ``harness sweep``; ``overrides`` are those that replace keys of the sweep."""

    source: str
    overrides: Mapping[str, Any]
    out: Path | None
    data_dir: Path | None
    plan_only: bool
    json: bool
    live: bool
    retry: bool
    timeout: float
    fork: bool
    launcher: str = "local"
    slurm: Sequence[str] = ()
    ray: Sequence[str] = ()
    shard: str | None = None
    only: Sequence[str] = ()


def run(request: Request) -> int:
    """Plan, and unless only that was asked, run or submit. Returns the exit status."""
    _check(request)
    shard = shards.shard(request.shard)
    prepared = plan_table.prepare(
        request.source, request.overrides, request.data_dir, not request.plan_only, request.out
    )
    options = commands_slurm.slurm_options(prepared, request.slurm) if request.launcher == "slurm" else {}
    of_ray = commands_ray.options(prepared, request.ray) if request.launcher == "ray" else {}
    plan = run_folder.Plan(
        name=prepared.name,
        command=shells.joined(["harness", *sys.argv[1:]]),
        created=now(),
        harness_version=harness.__version__,
        cells=tuple(planned.cell for planned in prepared.planned),
        skips={planned.cell.cell_id: planned.skip for planned in prepared.planned if planned.skip},
        interleave=prepared.interleave,
        places=places(options or of_ray),
    )
    estimates = Estimates(cache_place(SPEEDS_FILE))
    if request.plan_only:
        part = shards.chosen(plan, shard, request.only)
        recorded = _recorded(request.out)
        plan_table.show(prepared, estimates, recorded, part, request.json)
        if options and not request.json:
            to_run = [cell for cell in plan.cells if cell.cell_id in part and cell.cell_id not in recorded]
            commands_slurm.show_arrays(plan, to_run, options)
        return 0
    if request.launcher == "slurm":
        commands_slurm.require_slurm(options)
    on_ray = commands_ray.connect(of_ray) if of_ray else None
    kept = run_folder.Run.create(request.out or default_folder(prepared.name), plan)
    part = shards.chosen(kept.plan, shard, request.only)
    with kept.locked():
        setting.write(kept, _setting(prepared, request))
        waiting = [cell for cell in _waiting(kept, request.retry) if cell.cell_id in part]
        if request.launcher == "slurm":
            return commands_slurm.submit(kept, waiting, prepared, options, request.retry, request.json)
        with _watched(kept.folder) if request.live and waiting else nullcontext():
            ended = execute(kept, waiting, prepared, estimates, request, on_ray) if waiting else Ended()
        reading, page = ending.page_of(kept) if waiting else (None, "")
    resume = _resuming(plan.command, request.out is not None, kept.folder) if ended.stopped else None
    if not waiting and not request.json and len(kept.plan.cells) > LONGEST_TABLE_UNASKED:
        folder_text = shells.quoted(str(kept.folder))
        printing.say(
            printing.standard_output(),
            f"Nothing to run, every cell has its record. Show the table: harness report {folder_text}",
        )
        return ending.exit_status(kept)
    if ended.elsewhere:
        printing.say(
            printing.standard_error(), f"{plural(ended.elsewhere, 'heat')} left to other processes that run them"
        )
    _tell_rest(kept, part)
    return ending.finish(kept, request.json, resume, reading, page)


def _check(request: Request) -> None:
    """Flags that do not go together. Raises UsageError."""
    if request.launcher == "slurm" and request.live:
        raise UsageError(
            "--live: a page is served by the process that follows the sweep, not with --launcher slurm, which returns; "
            "'harness wait' writes it at the end"
        )
    if request.launcher != "local" and request.only:
        raise UsageError(
            f"--only: heats go to --launcher {request.launcher} whole; --shard K/N parts a plan between machines or "
            "clusters, and targets that ask for other hardware have heats of their own anyway"
        )
    for launcher, given in (("slurm", request.slurm), ("ray", request.ray)):
        if given and request.launcher != launcher:
            raise UsageError(f"--{launcher}: only with --launcher {launcher}")


def _setting(prepared: plan_table.Prepared, request: Request) -> setting.Setting:
    own = [(own_file.own_table("targets"), Path(OWN_FILE)), (prepared.own_targets, Path(prepared.source))]
    return setting.Setting(
        dataset=prepared.dataset_source,
        data_dir=str(prepared.data_dir.expanduser().absolute()) if prepared.data_dir else "",
        targets=tuple(setting.tables(tables, file) for tables, file in own if tables),
        timeout=request.timeout,
        fork=request.fork,
        images=prepared.images,
    )


def _tell_rest(kept: run_folder.Run, part: frozenset[str]) -> None:
    """What this part of the plan leaves to others."""
    rest = len(kept.plan.cells) - len(part)
    if rest:
        printing.say(
            printing.standard_error(),
            f"{plural(rest, 'cell')} of the plan {'is' if rest == 1 else 'are'} not of this part; unite the folders of "
            "all parts: harness merge RUN RUN ... --out FOLDER",
        )


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """The run's page is served meanwhile."""
    from harness.commands import live

    with live.serving(folder) as address:
        console = printing.standard_error()
        printing.say(console, f"live page: {address}" if address else "warning: the live page could not be served")
        yield


def _recorded(folder: Path | None) -> dict[str, str]:
    """The statuses of the cells that have their record already, where a run folder is named and there."""
    if folder is None or not (folder / run_folder.PLAN_FILE).is_file():
        return {}
    return run_folder.Run.open(folder).statuses()


def _again(retry: bool) -> frozenset[str]:
    """Statuses of records that make way for another attempt."""
    return record.FAILED_TOO if retry else record.INTERRUPTED


def _waiting(kept: run_folder.Run, retry: bool) -> list[Cell]:
    """The cells to run: those without a record or with one to try again, but not those that the plan skips."""
    pending = kept.pending(_again(retry))
    if not retry:
        return pending
    planned_skips = {cell_id for cell_id in kept.statuses() if cell_id in kept.plan.skips}
    return [cell for cell in pending if cell.cell_id not in planned_skips]


def _resuming(command: str, has_folder: bool, folder: Path) -> str:
    return command if has_folder else f"{command} --out {shells.quoted(str(folder))}"


@dataclass(frozen=True)
class Ended:
    """How running ended: whether the person stopped it, and how many heats others are running."""

    stopped: bool = False
    elsewhere: int = 0


def execute(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    prepared: plan_table.Prepared,
    estimates: Estimates,
    request: Request,
    on_ray: commands_ray.OnRay | None,
) -> Ended:
    """Run the cells that wait, on this machine or as tasks of Ray's."""
    console = printing.standard_error()
    printing.say(console, f"{plural(len(waiting), 'cell')} to run, records in {kept.folder}")
    if prepared.images is not None:
        printing.say(console, f"images of {prepared.dataset.name}: {prepared.images.words}")
    dataset = printing.prepare_dataset(prepared.dataset_source, prepared.data_dir, console)
    work = running.Work(prepared.definitions, dataset.folder, request.timeout, request.fork, _again(request.retry))
    expected = {cell.cell_id: _expected(cell, kept, estimates) for cell in waiting}
    try:
        if on_ray is not None:  # whose machines say nothing of this one's speed
            elsewhere = commands_ray.run_cells(kept, waiting, prepared, on_ray, RunProgress(console, expected))
        else:
            elsewhere = running.run_cells(
                kept, waiting, work, console, lambda: RunProgress(console, expected, estimates.learn)
            )
    except KeyboardInterrupt:
        return Ended(stopped=True)
    finally:
        estimates.save(printing.keeping)
    shutil.rmtree(kept.scratch_folder, ignore_errors=True)
    return Ended(elsewhere=elsewhere)


def _expected(cell: Cell, kept: run_folder.Run, estimates: Estimates) -> float:
    return 0.0 if cell.cell_id in kept.plan.skips else estimates.seconds(cell)
