"""Define a CNN once, train it identically in several frameworks, and time it honestly.

>>> import harness
>>> cells = harness.load("harness-runs/quick-20261123-101500")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import polars

__version__ = "0.1.0"


def load(run: str | Path, table: str = "cells") -> polars.DataFrame:
    """A run folder as a data frame: one row per cell, or another ``table`` of its analysis (``loading.TABLES``).

    ``harness.analysis`` says what the columns are. Raises ``harness.core.errors.UsageError`` where there is no run or
    no such table, StoreError for records that cannot be read.
    """
    from harness.analysis import reading

    return reading.table(run, table)
