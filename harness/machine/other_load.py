"""How busy others kept this machine for a while: processes that are not ours, and the host that gives us processors.

Two readings of what the system has counted, at the start and at the end, and what it grew by in between: nothing runs
meanwhile. Systems count in ticks of about a hundredth of a second for each processor, so a while is a second or more.
A container's quota is told beside it: what that holds back is nobody else's doing, and looks like it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psutil

from harness.core import system
from harness.core.told import asked

STANDING_STILL = "the system's counters of processor time stand still"
"""As in a sandbox."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""What ``psutil.cpu_times`` calls work. Guests are within ``user``; on Windows interrupts are within ``system``."""


@dataclass(frozen=True)
class Load:
    """Means over a while, in processors: 1.0 is one logical processor all the time.

    ``other_processors``: busy with processes that are neither this one nor descended from it. ``stolen_processors``:
    wanted here while the hypervisor ran something else on them. ``throttled_processors``: wanted here while a quota
    held the work back (``system.throttled_seconds``). None where the system does not tell; ``untold``: why the first.
    """

    other_processors: float | None = None
    stolen_processors: float | None = None
    throttled_processors: float | None = None
    untold: str = ""


@dataclass(frozen=True)
class _Process:
    """Processor seconds of a process: its own, and those of its children that ended and that it waited for."""

    own: float
    children: float


@dataclass(frozen=True)
class _Reading:
    time: float
    busy: float
    all: float
    stolen: float | None
    ours: dict[psutil.Process, _Process]
    throttled: Mapping[str, float] = field(default_factory=dict)
    untold: str = ""


class Neighbours:
    """Between ``start`` and ``stop``: the load that is not ours. As a context manager it leaves it in ``load``.

    What is ours: this process and all that it started, directly or not, also those that end or begin meanwhile. An
    ended one is known by the times that its parent took over when it waited for it. macOS and Windows do not tell them:
    there the work of a process that ended counts as another's. So does, everywhere, that of one that was started and
    has lost its parent in between. Where a kernel counts stolen time as a process's own, others' comes out too low.
    """

    def __init__(self) -> None:
        self.load = Load()
        self._before: _Reading | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self._before = _read(())

    def stop(self) -> Load:
        """The load since ``start``; nothing is known without one. May be called again, for a longer while."""
        if self._before is not None:
            self.load = _between(self._before, _read(self._before.ours))
        return self.load

    def __enter__(self) -> Neighbours:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _read(known: Iterable[psutil.Process]) -> _Reading:
    """``known``: those that were ours before, some of which may have lost the parent by which they are found."""
    (counted, why), (ours, why_not_ours) = asked(psutil.cpu_times), asked(lambda: _processes(known))
    return _Reading(
        time=time.monotonic(),
        busy=0.0 if counted is None else sum(getattr(counted, name, 0.0) for name in BUSY),
        all=0.0 if counted is None else sum(counted),
        stolen=getattr(counted, "steal", None),
        ours=ours or {},
        throttled=system.throttled_seconds(),
        untold=why or why_not_ours,
    )


def _processes(known: Iterable[psutil.Process]) -> dict[psutil.Process, _Process]:
    ours: dict[psutil.Process, _Process] = {}
    me = psutil.Process()
    for process in dict.fromkeys((me, *me.children(recursive=True), *known)):
        try:
            if process.is_running():
                times = process.cpu_times()
                ours[process] = _Process(times.user + times.system, times.children_user + times.children_system)
        except psutil.Error:
            continue  # it ended while it was looked at
    return ours


def _between(before: _Reading, after: _Reading) -> Load:
    seconds = after.time - before.time
    if seconds <= 0:
        return Load()
    waited = held_back(before.throttled, after.throttled)
    throttled = None if waited is None else waited / seconds
    untold = before.untold or after.untold or ("" if after.all > before.all else STANDING_STILL)
    if untold:
        return Load(throttled_processors=throttled, untold=untold)
    other = (after.busy - before.busy - _own_seconds(before.ours, after.ours)) / seconds
    stolen = None
    if before.stolen is not None and after.stolen is not None:
        stolen = max(0.0, after.stolen - before.stolen) / seconds
    return Load(max(0.0, other), stolen, throttled)


def held_back(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Processor seconds for which a quota held work back, between two answers of ``system.throttled_seconds``.

    Of groups within each other, which count the same waiting, that of the one that held back most.
    """
    return max((after[group] - before[group] for group in before.keys() & after.keys()), default=None)


def _own_seconds(before: dict[psutil.Process, _Process], after: dict[psutil.Process, _Process]) -> float:
    """What our processes used between two readings.

    What a parent took over from a child that ended contains what that child had used before the first reading.
    """
    none = _Process(0.0, 0.0)
    own = sum(now.own - before.get(process, none).own for process, now in after.items())
    taken_over = sum(now.children - before.get(process, none).children for process, now in after.items())
    ended = sum(was.own + was.children for process, was in before.items() if process not in after)
    return own + max(0.0, taken_over - ended)
