"""What is told to a person while something is made ready or runs, and who takes it: a terminal, a notebook, nobody.

What works never prints. It gets a ``News`` and tells that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from harness.cache.keeping import Keeping

Tell = Callable[[str], None]
"""Takes one line."""

Show = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much (0 where that is not known)."""


def _nobody(*told: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class News:
    """Who listens: ``tell`` to lines; ``bar`` opens what shows one long job; ``keeping`` to what cannot be kept.

    ``keeping`` warns once, so whatever belongs together uses one ``News``.
    """

    tell: Tell = _nobody
    bar: Callable[[], AbstractContextManager[Show]] = lambda: nullcontext(_nobody)
    keeping: Keeping = field(default_factory=Keeping)
