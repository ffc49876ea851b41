"""How much processor time and memory a container gives at most, and how long it has held work back for that.

A quota stands in control groups: so many microseconds of processor time in each period, all processors together. Who
has used them up waits for the next period, with processors idle. Every group around a process may have one, and the
tightest counts; so it is with limits of memory, beyond which the kernel kills. Sources: the kernel's
``admin-guide/cgroup-v2`` (``cpu.max``, ``cpu.stat``, ``memory.max``, ``memory.current``), ``admin-guide/cgroup-v1``
(``memory.limit_in_bytes``, ``memory.usage_in_bytes``), ``scheduler/sched-bwc`` (``cpu.cfs_quota_us``,
``cpu.cfs_period_us``, ``cpu.stat``), cgroups(7) and proc(5).

    /proc/self/cgroup       which group this process is in, for each hierarchy
    /proc/self/mountinfo    where hierarchies are mounted, and from which group on: all of one, or a container's part

Both versions are looked for, as systems mount them side by side. In a container with a namespace of its own the groups
above it cannot be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Below which all is read; tests have another one."""

_MICROSECOND, _NANOSECOND = 1e-6, 1e-9
_THROTTLED = {"throttled_usec": _MICROSECOND, "throttled_time": _NANOSECOND}
"""Keys of ``cpu.stat``, of version 2 and 1, and their unit in seconds."""


_NO_LIMIT = 1 << 60
"""Bytes. Version 1 has the largest number that it can write where there is no limit."""


def processor_quota(root: Path = ROOT) -> float | None:
    """How many processors may be used at a time, such as 0.3, on average over a period; None without a quota.

    The processors that the process may be put on can be fewer: ``usable_processors``.
    """
    found = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    return min(found, default=None)


def throttled_seconds(root: Path = ROOT) -> dict[str, float]:
    """Group -> processor seconds for which its processes were held back since it was made, for those around this one.

    Counted on each processor by itself, so that it grows by more than a second a second where several are wanted.
    Groups within each other count the same waiting each. Empty where the system does not tell.
    """
    told = ((str(group), _throttled(group)) for group in _groups(root, "cpu"))
    return {group: seconds for group, seconds in told if seconds is not None}


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the processes of the tightest group around this one may have together; None without a limit."""
    limits = (_memory(group) for group in _groups(root, "memory"))
    return min((limit for limit, _ in limits if limit is not None), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that may still be taken until the first such limit; None without one.

    What files' pages take that were not used of late is given back before anything is killed.
    """
    found = (_memory(group) for group in _groups(root, "memory"))
    return min((max(limit - used, 0) for limit, used in found if limit is not None), default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups around this process that can be seen, those of each hierarchy from the inside out.

    ``controller``: ``cpu`` or ``memory``; version 2 has one hierarchy for all, version 1 one for each.
    """
    paths = dict(_own_paths(root, controller))
    for hierarchy, top, place in _mounts(root, controller):
        path = paths.get(hierarchy)
        if path is None:
            continue
        mounted = root / place.relative_to("/")
        if top.parts[1:2] == ("..",):  # mounted from above this namespace: where in it we are cannot be told
            yield mounted
        elif path.is_relative_to(top) and ".." not in path.parts:
            inside = path.relative_to(top)
            yield from (mounted / group for group in (inside, *inside.parents))


def _own_paths(root: Path, controller: str) -> Iterator[tuple[str, PurePosixPath]]:
    """Hierarchy, ``cgroup2`` or ``cgroup``, and this process's group in it."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup2", PurePosixPath(path)
        elif controller in controllers.split(","):
            yield "cgroup", PurePosixPath(path)


def _mounts(root: Path, controller: str) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Hierarchy, the group that is at its top there, and the folder where it is mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        place, mounted = before.split(), after.split()
        if len(place) < 5 or not mounted:
            continue
        kind, options = mounted[0], mounted[-1].split(",")
        if kind == "cgroup2" or (kind == "cgroup" and controller in options):
            yield kind, PurePosixPath(_unescaped(place[3])), PurePosixPath(_unescaped(place[4]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _quota(group: Path) -> float | None:
    """Processors, from a group's own files of either version."""
    limits = " ".join(_lines(group / "cpu.max")).split()
    if not limits:
        limits = [line for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for line in _lines(group / name)]
    if len(limits) != 2 or not all(limit.isdecimal() for limit in limits):  # "max", and -1 in version 1: none
        return None
    quota, period = map(int, limits)
    return quota / period if quota and period else None


def _throttled(group: Path) -> float | None:
    for line in _lines(group / "cpu.stat"):
        name, _, value = line.partition(" ")
        if name in _THROTTLED and value.isdecimal():
            return int(value) * _THROTTLED[name]
    return None


def _memory(group: Path) -> tuple[int | None, int]:
    """Limit and what is used of it, in bytes, from a group's own files of either version."""
    limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    counts = dict(line.split(" ", 1) for line in _lines(group / "memory.stat") if " " in line)
    spare = counts.get("total_inactive_file") or counts.get("inactive_file") or "0"
    return (limit if limit is not None and limit < _NO_LIMIT else None), used - int(spare)


def _number(file: Path) -> int | None:
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
