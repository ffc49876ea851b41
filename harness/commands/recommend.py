"""``harness recommend``: what to use on the machine that a run was made on, why, and what to measure next."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from harness.analysis import Advice
from harness.analysis import reading as analysis_reading
from harness.commands import printing
from harness.core import codec
from harness.core.errors import UsageError
from harness.report import advice, terminal
from harness.report.machines import machines
from harness.runs import folder as run_folder


def run(folder: Path, accuracy: str | None, json: bool) -> int:
    """Print the advice. Exit status 1 if there is none, or a record could not be read."""
    wanted = accuracy_of(accuracy)
    reading = analysis_reading.read(run_folder.open_run(folder), wanted)
    for problem in reading.unreadable:
        printing.say(printing.standard_error(), f"warning: {problem}; it does not count")
    found = reading.found.advice
    if json:
        printing.write_json({"run": str(reading.run.folder), "advice": [_plain(one) for one in found]})
    else:
        _show(reading)
    missing = not found or any(one.goal == "none" for one in found)
    return 1 if missing or reading.unreadable else 0


def accuracy_of(text: str | None) -> float | None:
    """A test accuracy as a share of one. Raises UsageError; 98 for 0.98 is a likely slip, so it is named."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        meant = f" (for {value:g} % write {value / 100:g})" if 1 < value <= 100 else ""
        raise UsageError(
            f"--accuracy: found {text!r}, allowed: a share of one, above 0 and up to 1, such as 0.98{meant}"
        )
    return value


def _show(reading: analysis_reading.Reading) -> None:
    console = printing.standard_output()
    found = reading.found.advice
    several = machines(reading.found.cells, reading.found.side_by_side, reading.found.machines)
    if several is not None:
        terminal.print_machines(several, console)
        printing.say(console, "")
    if not found:
        printing.say(console, "There is no answer: no cell has been run.")
    for number, one in enumerate(found):
        if number:
            printing.say(console, "")
        if len(found) > 1:
            console.print(advice.heading(one), style="bold")
        console.print(advice.sentence(one), style="bold" if len(found) == 1 else "")
        for title, lines in (("Why", advice.evidence(one)), ("What to measure next", advice.measure_next(one))):
            if lines:
                printing.say(console, "")
                printing.say(console, f"{title}:")
            for line in lines:
                console.print(f"- {line}")


def _plain(one: Advice) -> Any:
    """For a program: the values, and the words."""
    values = codec.to_json(dataclasses.asdict(one))
    words = {
        "sentence": advice.sentence(one),
        "evidence": advice.evidence(one),
        "measure_next": advice.measure_next(one),
    }
    return {**words, **values}
