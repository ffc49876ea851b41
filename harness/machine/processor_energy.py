"""Energy of the processors, added up from counters that begin again at 0 now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.core import system

Counters = Mapping[str, tuple[int, int]]


@dataclass
class HostEnergy:
    """All that the processor packages use from the first reading on.

    A counter's range is 65 kJ or more, so it begins again after minutes at the earliest: read twice a second, none is
    missed.
    """

    read: Callable[[], Counters] = system.package_energies
    _last: dict[str, int] = field(default_factory=dict)
    _microjoules: int = 0

    def joules(self) -> float | None:
        """Joules since the first call; None where the system does not tell."""
        counters = self.read()
        if not counters:
            return None
        for package, (count, around) in counters.items():
            before = self._last.get(package, count)
            self._microjoules += count - before if count >= before else count + around - before
            self._last[package] = count
        return self._microjoules / 1e6
