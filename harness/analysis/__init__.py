"""Records to tables and advice: pure functions; nothing here runs or writes anything.

``collect`` reads the records of a run once; ``analyse`` computes all tables from that. A table begins with the columns
WORK, of which the machine is one, and has a row for each thing that its function's docstring names. An estimate's
interval stands beside it as ``NAME_low`` and ``NAME_high``, null where there is none. ``Analysis.advice`` says what to
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.advice import Advice as Advice
    from harness.analysis.advice import Choice as Choice
    from harness.analysis.analysing import Analysis as Analysis
    from harness.analysis.analysing import Outline as Outline
    from harness.analysis.analysing import analyse as analyse
    from harness.analysis.analysing import outline as outline
    from harness.analysis.cells import agreement as agreement
    from harness.analysis.collected import Collected as Collected
    from harness.analysis.collected import collect as collect
    from harness.analysis.collected import comparable as comparable
    from harness.analysis.collected import summary as summary
    from harness.analysis.machines import Facts as Facts
    from harness.analysis.machines import side_by_side as side_by_side
    from harness.analysis.other_load import Blame as Blame
    from harness.analysis.tables import WORK as WORK

_PLACES = {
    "Advice": "advice",
    "Choice": "advice",
    "Analysis": "analysing",
    "Outline": "analysing",
    "analyse": "analysing",
    "outline": "analysing",
    "agreement": "cells",
    "Collected": "collected",
    "collect": "collected",
    "comparable": "collected",
    "summary": "collected",
    "Facts": "machines",
    "side_by_side": "machines",
    "Blame": "other_load",
    "WORK": "tables",
}
"""Name -> the module that has it, imported when it is first used: rows need a fraction of what fits and advice do."""

__all__ = [*_PLACES]  # all of them are texts


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"harness.analysis.{_PLACES[name]}"), name)
    globals()[name] = found
    return found
