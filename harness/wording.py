"""Words that several outputs share."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """``1 epoch``, ``2,000 epochs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
