"""``harness.study(run=True)``: the study's own sweeps, part by part, each a run folder that resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.actions import telling, values
from harness.actions.plan_table import PlannedSweep
from harness.actions.progress import duration
from harness.actions.shown import Shown
from harness.actions.sweep import sweep
from harness.core.errors import UsageError
from harness.report.printed import say
from harness.wording import nearest, plural

PARTS = ("time", "accuracy", "batch")
"""Each a preset of its own, ``study-time`` and so on."""


@dataclass(frozen=True, repr=False)
class StudyPlan(Shown):
    """What the parts of the study would run, and for how long."""

    parts: Mapping[str, PlannedSweep]

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(one.seconds for one in self.parts.values())

    @property
    def is_whole(self) -> bool:
        """A plan always is."""
        return True

    def print_to(self, console: Console) -> None:
        """A line for each part."""
        for name, planned in self.parts.items():
            cells = plural(len(planned.part), "cell")
            say(console, f"--part {name}: {cells}, about {duration(planned.seconds)} here (harness sweep study-{name})")
        say(console, f"all of it: about {duration(self.seconds)}")

    def plain(self) -> dict[str, Any]:
        """Part -> cells and seconds."""
        return {name: {"cells": len(one.part), "seconds": one.seconds} for name, one in self.parts.items()}


def chosen(part: object) -> tuple[str, ...]:
    """The parts that a flag names, all if it names none. Raises UsageError."""
    found = values.texts(part) or PARTS
    for one in found:
        if one not in PARTS:
            raise UsageError(f"--part: found {one!r}{nearest(one, PARTS)}, allowed: {', '.join(PARTS)}")
    return tuple(found)


def planned(parts: Sequence[str], asked: Mapping[str, Any]) -> StudyPlan:
    """What would run. ``asked``: keywords of ``harness.sweep`` that replace those of the presets."""
    return StudyPlan({part: sweep(f"study-{part}", plan=True, **asked) for part in parts})


def run(parts: Sequence[str], folder: Path, asked: Mapping[str, Any]) -> None:
    """Run the parts, one after the other, each into its folder in ``folder``; what is there resumes.

    Raises ``harness.RunStopped`` where somebody stops it.
    """
    for part in parts:
        telling.tell(f"part {part} of the study: {folder / part}")
        sweep(f"study-{part}", out=folder / part, **asked)
