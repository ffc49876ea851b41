"""Which processors this process may use, and keeping it to some of them."""

from __future__ import annotations

import os
import sys

from harness.core.errors import Unsupported
from harness.core.system import windows

_NICEST = 19


def usable_processors() -> tuple[int, ...]:
    """The numbers of the processors that this process may use. On Windows, of those in its processor group of 64."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    if sys.platform == "win32":
        mask = windows.affinity()
        return tuple(number for number in range(mask.bit_length()) if mask >> number & 1)
    return tuple(range(os.cpu_count() or 1))


def yield_to_others() -> None:
    """Take the lowest priority, so that this process runs when no other one wants the processor."""
    if sys.platform == "win32":
        windows.take_idle_priority()
    else:
        os.nice(_NICEST)


def use_processors(count: int) -> tuple[int, ...]:
    """Limit this process to ``count`` of its processors, spread evenly over them; 0 leaves all. Returns their numbers.

    Raises Unsupported if there are fewer, or where the system has no such limit (macOS).
    """
    usable = usable_processors()
    if count == 0:
        return usable
    if count > len(usable):
        raise Unsupported(f"{count} processors asked for, {len(usable)} may be used")
    chosen = tuple(usable[index * len(usable) // count] for index in range(count))
    if sys.platform == "linux":
        os.sched_setaffinity(0, chosen)
    elif sys.platform == "win32":
        windows.set_affinity(sum(1 << number for number in chosen))
    else:
        raise Unsupported(f"{sys.platform} cannot limit a process to some of its processors")
    return chosen
