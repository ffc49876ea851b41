"""Words that several outputs share."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """``1 epoch``, ``2,000 epochs``, ``3 processes``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{ending}"
