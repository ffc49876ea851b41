"""``harness sweep --launcher ray``: heats as tasks of a Ray cluster, which this process follows to their records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.cluster import options as cluster_options
from harness.cluster.ray import options as asked
from harness.cluster.ray import tasks
from harness.cluster.ray.options import RayOptions
from harness.cluster.ray.tasks import Cluster, Ended, Work
from harness.commands import plan_table, printing, running
from harness.commands.progress import RunProgress
from harness.core import record as core_record
from harness.core.cell import Cell
from harness.core.errors import SchedulerError
from harness.plan.plan import by_place, packed
from harness.runs import folder as run_folder
from harness.runs import orphans
from harness.runs.locks import DEAD_CLAIM_SECONDS
from harness.runs.orphans import Ending
from harness.wording import plural

POLL_SECONDS = 2.0
"""How often records are looked for."""

LOOK_SECONDS = 10.0
"""How often the nodes are looked at."""

NODE_PATIENCE = 60.0
"""Seconds until tasks are given up that no live node can run."""

HEAD_PATIENCE = 30.0
"""Seconds without the cluster's head until the sweep stops; after 60 Ray would end this process."""

LOGS = "ray"

STATUSES = {
    tasks.LOST: "interrupted",
    tasks.CANCELLED: "interrupted",
    tasks.FAILED: "crashed",
    tasks.DONE: "crashed",
    tasks.MEMORY_OUT: "out_of_memory",
}
"""How a task ended -> status of the cells that it left without a record. What was stopped from outside is
``interrupted``: the same command runs it again."""

RETRIED = (tasks.LOST, tasks.FAILED)


@dataclass(frozen=True)
class _Task:
    """Heats that run together, and the attempts that they have left."""

    work: Work
    demand: Mapping[str, float]
    retries: int

    @property
    def name(self) -> str:
        heats = self.work.heats
        return f"heat {heats[0]}" if len(heats) == 1 else f"heats {', '.join(map(str, heats))}"

    def again(self) -> _Task:
        return replace(self, work=replace(self.work, attempt=self.work.attempt + 1), retries=self.retries - 1)


def options(prepared: plan_table.Prepared, flags: Sequence[str]) -> dict[str, RayOptions]:
    """Target label -> what to ask of Ray. Raises UsageError."""
    return asked.resolve(prepared.targets, plan_table.launcher_tables(prepared, "ray"), flags)


@dataclass(frozen=True)
class OnRay:
    """A cluster that is connected, and what is asked of it: target label -> options."""

    cluster: Cluster
    options: Mapping[str, RayOptions]


def connect(chosen: Mapping[str, RayOptions]) -> OnRay:
    """The cluster that the targets' options name. Raises SchedulerError."""
    return OnRay(tasks.connect(next(iter(chosen.values())).address), chosen)


def run_cells(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    prepared: plan_table.Prepared,
    on_ray: OnRay,
    progress: RunProgress,
) -> int:
    """Run waiting cells of the plan to their records. Returns how many heats others are running.

    KeyboardInterrupt goes up when the tasks have ended. Raises SchedulerError where the cluster cannot run them.
    """
    console, cluster = printing.standard_error(), on_ray.cluster
    places = cluster_options.of_places("ray", on_ray.options, kept.plan.places)
    nodes = cluster.nodes()
    heats = by_place(kept.plan, waiting)
    demands = asked.demands({place: places[place] for place in heats}, nodes)
    crowded = asked.crowded(list(demands.values()), nodes)
    if crowded is not None:
        printing.say(
            console,
            f"warning: node {crowded.name} ({asked.amounts({asked.CPU: crowded.resources.get(asked.CPU, 0.0)})}) has "
            f"room for two tasks at the same time ({'; '.join(map(asked.amounts, demands.values()))} asked for), which "
            "would disturb each other's times",
        )
    printing.build_environments(prepared.definitions, [cell.target for cell in waiting], console)
    running.with_reference(prepared.definitions, console)
    running.make_way(kept, waiting)
    due = [
        _Task(Work(kept.folder, group, _log(kept, group), attempt=1), demands[place], places[place].retries)
        for place, numbers in heats.items()
        for group in packed(kept.plan, numbers, places[place].heats_per_task)
    ]
    following = _Following(kept, waiting, cluster, progress, console)
    with tasks.silenced():
        try:
            with progress, running.terminable():
                following.to_the_end(due)
        finally:
            cluster.close()
    return sum(bool(kept.waiting(kept.plan.heats[heat].cells)) for numbers in heats.values() for heat in numbers)


class _Following:
    """Tasks from their start to their records."""

    def __init__(
        self, kept: run_folder.Run, waiting: Sequence[Cell], cluster: Cluster, progress: RunProgress, console: Console
    ) -> None:
        self._kept, self._cluster, self._progress, self._console = kept, cluster, progress, console
        self._untold = list(waiting)
        self._live: dict[Any, _Task] = {}
        self._unsettled: dict[int, tuple[Ending, float]] = {}
        self._fit = self._answered = time.monotonic()

    def to_the_end(self, due: Sequence[_Task]) -> None:
        """Start the tasks, and start those again that end early, until each cell has its record."""
        try:
            for task in due:
                self._start(task)
            looked = time.monotonic()
            while self._live or self._unsettled:
                if self._live:
                    for reference in self._cluster.wait(list(self._live), POLL_SECONDS):
                        self._has_ended(self._live.pop(reference), self._cluster.ended(reference))
                else:
                    time.sleep(POLL_SECONDS)
                self._settle_all()
                self._tell(core_record.INTERRUPTED)
                if time.monotonic() - looked >= LOOK_SECONDS:
                    self._look()
                    looked = time.monotonic()
        except (KeyboardInterrupt, SchedulerError):
            self._stop()
            raise
        finally:
            self._tell()

    def _start(self, task: _Task) -> None:
        self._live[self._cluster.start(task.work, task.demand)] = task

    def _has_ended(self, task: _Task, ended: Ended) -> None:
        if ended.how == tasks.REFUSED:
            raise SchedulerError(f"Ray task of {task.name}: {ended.says}")
        if ended.how in RETRIED and task.retries:
            again = task.again()
            of = f"attempt {again.work.attempt} of {again.work.attempt + again.retries}"
            printing.say(self._console, f"warning: {task.name}: {ended.says}; {of} begins")
            self._start(again)
            return
        self._settle(task, ended.how, ended.says)

    def _settle(self, task: _Task, how: str, says: str) -> None:
        """See to it that the cells of a task have their records, once nobody runs its heats any more.

        A node that has gone may hold its locks for a while, or be about to save what it has.
        """
        attempts = f" after {task.work.attempt} attempts" if task.work.attempt > 1 else ""
        ending = Ending(STATUSES[how], f"Ray task of {task.name}{attempts}: {says}", log=task.work.log)
        patience = 0.0 if how == tasks.DONE else DEAD_CLAIM_SECONDS
        self._unsettled |= dict.fromkeys(task.work.heats, (ending, time.monotonic() + patience))
        self._settle_all()

    def _settle_all(self) -> None:
        for heat, (ending, deadline) in list(self._unsettled.items()):
            orphans.settle(self._kept, heat, partial(replace, ending))
            if time.monotonic() >= deadline or not self._kept.waiting(self._kept.plan.heats[heat].cells):
                del self._unsettled[heat]

    def _look(self) -> None:
        """Give tasks up that no live node can run any more. Raises SchedulerError where the head has gone for good."""
        now = time.monotonic()
        try:
            nodes = self._cluster.nodes()
        except SchedulerError:
            if now - self._answered > HEAD_PATIENCE:
                raise
            return
        self._answered = now
        if any(asked.has(node, task.demand) for task in self._live.values() for node in nodes):
            self._fit = now
        if now - self._fit < NODE_PATIENCE:
            return
        for reference, task in list(self._live.items()):
            self._cluster.cancel([reference])
            del self._live[reference]
            self._settle(task, tasks.LOST, f"no live node has {asked.amounts(task.demand)} any more")

    def _stop(self) -> None:
        """End what runs; heats save what they have. A second Ctrl-C leaves that to Ray."""
        live = list(self._live)
        printing.say(self._console, f"stopping {plural(len(live), 'task')}")
        try:
            self._cluster.cancel(live)
            deadline = time.monotonic() + tasks.STOP_SECONDS + POLL_SECONDS
            while live and time.monotonic() < deadline:
                live = [one for one in live if one not in self._cluster.wait(live, POLL_SECONDS)]
                self._tell(core_record.INTERRUPTED)
        finally:
            self._cluster.cancel(live, force=True)

    def _tell(self, but: frozenset[str] = frozenset()) -> None:
        """Say of every new record that it is there; ``but`` those with a status that may not be the last."""
        waiting = {cell.cell_id for cell in self._kept.waiting(self._untold, but)}
        for cell in self._untold:
            record = self._kept.record(cell.cell_id) if cell.cell_id not in waiting else None
            if record is not None:
                self._progress.finished(record)
        self._untold = [cell for cell in self._untold if cell.cell_id in waiting]


def _log(kept: run_folder.Run, heats: Sequence[int]) -> Path:
    return kept.logs_folder / LOGS / f"heats-{heats[0]}.log"
