"""``harness.recommend``: what to use on the machine of a run, why, and what to measure next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.actions import values
from harness.actions.progress import tell
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.analysis import Advice
from harness.analysis import reading as analysis_reading
from harness.core import codec
from harness.report import advice, terminal
from harness.report.machines import machines
from harness.report.printed import say
from harness.runs import folder as run_folder

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, repr=False)
class Recommendation(Shown):
    """Advice for each work and machine of a run, with its evidence; printed it is what ``harness recommend`` prints."""

    reading: analysis_reading.Reading

    @property
    def advice(self) -> tuple[Advice, ...]:
        """The values: which target and batch size, what it reaches in what time, and the runners-up."""
        return self.reading.found.advice

    @property
    def sentence(self) -> str:
        """The answer in words; a line for each work and machine."""
        return "\n".join(advice.sentence(one) for one in self.advice) or "There is no answer: no cell has been run."

    @property
    def time_to_accuracy(self) -> pl.DataFrame:
        """What the answer rests on: for each accuracy, target and batch size the steps and seconds to get there."""
        return self.reading.found.time_to_accuracy

    @property
    def is_answered(self) -> bool:
        """Whether there is something to use for every work and machine."""
        return bool(self.advice) and not any(one.goal == "none" for one in self.advice)

    def print_to(self, console: Console) -> None:
        """The sentence of each, why, and what to measure next."""
        found = self.reading.found
        several = machines(found.cells, found.side_by_side, found.machines)
        if several is not None:
            terminal.print_machines(several, console)
            say(console, "")
        if not self.advice:
            say(console, self.sentence)
        for number, one in enumerate(self.advice):
            if number:
                say(console, "")
            if len(self.advice) > 1:
                console.print(advice.heading(one), style="bold")
            console.print(advice.sentence(one), style="bold" if len(self.advice) == 1 else "")
            for title, lines in (("Why", advice.evidence(one)), ("What to measure next", advice.measure_next(one))):
                if lines:
                    say(console, "")
                    say(console, f"{title}:")
                for line in lines:
                    console.print(f"- {line}")

    def plain(self) -> dict[str, Any]:
        """The values, and the words."""
        return {"run": str(self.reading.run.folder), "advice": [_plain(one) for one in self.advice]}


def recommend(run: Place, *, accuracy: float | str | None = None) -> Recommendation:
    """Say what to use on the machine of a run.

    Args:
        run: a run folder.
        accuracy: the test accuracy that matters, a share of one; 0.98 if not given, or the highest of a few that is
            reached.

    Raises ``harness.core.errors.UsageError`` for an accuracy that is none and where there is no run, StoreError where
    it is damaged. Records that cannot be read are told and do not count.
    """
    wanted = values.accuracy(accuracy)
    reading = analysis_reading.read(run_folder.open_run(values.path(run)), wanted, helped=True)
    for problem in reading.unreadable:
        tell(f"warning: {problem}; it does not count")
    return Recommendation(reading)


def _plain(one: Advice) -> Any:
    """For a program: the values, and the words."""
    values = codec.to_json(dataclasses.asdict(one))
    words = {
        "sentence": advice.sentence(one),
        "evidence": advice.evidence(one),
        "measure_next": advice.measure_next(one),
    }
    return {**words, **values}
