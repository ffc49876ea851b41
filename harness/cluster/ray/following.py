"""Heats as tasks of a Ray cluster, which this process follows to their records.

In: a run, its cells that wait, and a connected cluster. Out: records, each of which is passed on as it is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.cluster import options as cluster_options
from harness.cluster.ray import options as asked
from harness.cluster.ray import tasks
from harness.cluster.ray.options import RayOptions
from harness.cluster.ray.tasks import Cluster, TaskEnd, TaskWork
from harness.core import record as core_record
from harness.core.cell import Cell
from harness.core.errors import SchedulerError
from harness.core.record import Record
from harness.plan.news import Tell
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
class RayTask:
    """Heats that run together, and the attempts that they have left."""

    work: TaskWork
    demand: Mapping[str, float]
    retries: int

    @property
    def name(self) -> str:
        """What it is called where it is told of."""
        heats = self.work.heats
        return f"heat {heats[0]}" if len(heats) == 1 else f"heats {', '.join(map(str, heats))}"

    def again(self) -> RayTask:
        """Its next attempt."""
        return replace(self, work=replace(self.work, attempt=self.work.attempt + 1), retries=self.retries - 1)


@dataclass(frozen=True)
class OnRay:
    """A cluster that is connected, and what is asked of it: target label -> options."""

    cluster: Cluster
    options: Mapping[str, RayOptions]


def connect(chosen: Mapping[str, RayOptions]) -> OnRay:
    """The cluster that the targets' options name. Raises SchedulerError."""
    return OnRay(tasks.connect(next(iter(chosen.values())).address), chosen)


def due(kept: run_folder.Run, waiting: Sequence[Cell], on_ray: OnRay, tell: Tell) -> list[RayTask]:
    """The tasks that run waiting cells of the plan. Raises SchedulerError where the cluster has no node for one."""
    places = cluster_options.of_places("ray", on_ray.options, kept.plan.places)
    nodes = on_ray.cluster.nodes()
    heats = by_place(kept.plan, waiting)
    demands = asked.demands({place: places[place] for place in heats}, nodes)
    crowded = asked.crowded(list(demands.values()), nodes)
    if crowded is not None:
        tell(
            f"warning: node {crowded.name} ({asked.amounts({asked.CPU: crowded.resources.get(asked.CPU, 0.0)})}) has "
            f"room for two tasks at the same time ({'; '.join(map(asked.amounts, demands.values()))} asked for), which "
            "would disturb each other's times"
        )
    return [
        RayTask(TaskWork(kept.folder, group, _log(kept, group), attempt=1), demands[place], places[place].retries)
        for place, numbers in heats.items()
        for group in packed(kept.plan, numbers, places[place].heats_per_task)
    ]


def follow(
    kept: run_folder.Run,
    waiting: Sequence[Cell],
    due: Sequence[RayTask],
    on_ray: OnRay,
    finished: Callable[[Record], None],
    tell: Tell,
) -> int:
    """Run tasks to the records of their cells. Returns how many heats others are running.

    ``finished`` gets each new record. KeyboardInterrupt goes up when the tasks have ended. Raises SchedulerError where
    the cluster cannot run them. The connection is closed in any case.
    """
    with tasks.silenced():
        try:
            _Following(kept, waiting, on_ray.cluster, finished, tell).to_the_end(due)
        finally:
            on_ray.cluster.close()
    heats = {heat for task in due for heat in task.work.heats}
    return sum(bool(kept.waiting(kept.plan.heats[heat].cells)) for heat in heats)


class _Following:
    """Tasks from their start to their records."""

    def __init__(
        self,
        kept: run_folder.Run,
        waiting: Sequence[Cell],
        cluster: Cluster,
        finished: Callable[[Record], None],
        tell: Tell,
    ) -> None:
        self._kept, self._cluster, self._finished, self._say = kept, cluster, finished, tell
        self._untold = list(waiting)
        self._live: dict[Any, RayTask] = {}
        self._unsettled: dict[int, tuple[Ending, float]] = {}
        self._fit = self._answered = time.monotonic()

    def to_the_end(self, due: Sequence[RayTask]) -> None:
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

    def _start(self, task: RayTask) -> None:
        self._live[self._cluster.start(task.work, task.demand)] = task

    def _has_ended(self, task: RayTask, ended: TaskEnd) -> None:
        if ended.how == tasks.REFUSED:
            raise SchedulerError(f"Ray task of {task.name}: {ended.says}")
        if ended.how in RETRIED and task.retries:
            again = task.again()
            of = f"attempt {again.work.attempt} of {again.work.attempt + again.retries}"
            self._say(f"warning: {task.name}: {ended.says}; {of} begins")
            self._start(again)
            return
        self._settle(task, ended.how, ended.says)

    def _settle(self, task: RayTask, how: str, says: str) -> None:
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
        self._say(f"stopping {plural(len(live), 'task')}")
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
                self._finished(record)
        self._untold = [cell for cell in self._untold if cell.cell_id in waiting]


def _log(kept: run_folder.Run, heats: Sequence[int]) -> Path:
    return kept.logs_folder / LOGS / f"heats-{heats[0]}.log"
