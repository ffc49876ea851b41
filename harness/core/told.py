"""Questions to the system, or to a library at the edge, that may have no answer.

A container hides files, Windows has its performance counters off, a driver is absent: each says so by an error of its
own kind, which is no failure of the work at hand. The fact is then None, and why is kept for where it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def asked(question: Callable[[], T]) -> tuple[T | None, str]:
    """The answer and an empty text, or None and why there is none, in one line."""
    try:
        return question(), ""
    except Exception as error:
        return None, " ".join(str(error).split()) or type(error).__name__
