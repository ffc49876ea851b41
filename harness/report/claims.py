"""The study's claims and their answers, for a terminal and as a page. In: ``ClaimAnswer`` rows. Out: text, HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness.analysis.study.answers import CLAIMS, FAILS, HOLDS, UNTOLD, ClaimAnswer, ClaimTable
from harness.report import plain_page
from harness.report.headline import ABSENT, figure
from harness.report.plain_page import PlainSection
from harness.report.printed import say
from harness.report.tables import Table
from harness.wording import plural

_OF_SEVERAL = {HOLDS: "hold", FAILS: "do not hold", UNTOLD: UNTOLD}
_STYLES = {HOLDS: "green", FAILS: "red"}
ERRORS = (
    "Each verdict by itself is wrong in at most 5 % of cases (docs/study.md). Of many verdicts together some may be: "
    "they are not corrected for their number."
)


def place(one: ClaimAnswer) -> str:
    """Of what an answer is: the system, the target, the half of the claim."""
    return ", ".join(part for part in (one.system, one.subject, one.part) if part) or "all systems"


def print_answers(answers: Sequence[ClaimAnswer], console: Console) -> None:
    """Each claim, its answers, and what would tell where nothing does."""
    for number, group in groupby(answers, key=lambda one: one.number):
        console.print(Text(f"{number}. {CLAIMS[number]}", style="bold"))
        for one in group:
            head = Text.assemble(f"   {place(one)}: ", (one.verdict, _STYLES.get(one.verdict, "yellow")))
            console.print(head, soft_wrap=True)
            console.print(Padding(one.finding, (0, 0, 0, 5), expand=False))
            if one.would_tell:
                say(console, f"     this would tell: {one.would_tell}")
        say(console, "")
    console.print(ERRORS)


def plain(one: ClaimAnswer) -> dict[str, Any]:
    """For a program."""
    return {
        "claim": one.number,
        "says": CLAIMS[one.number],
        "part": one.part,
        "system": one.system,
        "subject": one.subject,
        "verdict": one.verdict,
        "finding": one.finding,
        "seeds": one.seeds,
        "would_tell": one.would_tell,
        "evidence": [
            {"caption": table.caption, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
            for table in one.evidence
        ],
    }


def page(answers: Sequence[ClaimAnswer], systems: Sequence[str]) -> str:
    """All claims as one page: the verdicts first, then each claim with its evidence."""
    counts = Counter(one.verdict for one in answers)
    of_each = [f"{count} {verdict if count == 1 else _OF_SEVERAL[verdict]}" for verdict, count in counts.items()]
    said = f"{', '.join(systems)}: of {plural(len(answers), 'answer')} {', '.join(of_each)}."
    sections = [PlainSection("All verdicts", tables=(_verdict_table(answers),), quiet=(ERRORS,))]
    for number, group in groupby(answers, key=lambda one: one.number):
        own = list(group)
        lines = tuple(f"{place(one)}: {one.verdict}. {one.finding}" for one in own)
        tell = tuple(f"{place(one)}: this would tell: {one.would_tell}" for one in own if one.would_tell)
        tables = tuple(_table(table, one.system) for one in own for table in one.evidence)
        sections.append(PlainSection(f"{number}. {CLAIMS[number]}", lines=lines, tables=tables, quiet=tell))
    return plain_page.page("The study, claim by claim", "harness study", [said], sections)


def _verdict_table(answers: Sequence[ClaimAnswer]) -> Table:
    rows = []
    for number, group in groupby(answers, key=lambda one: one.number):
        says = [CLAIMS[number]]
        for one in group:
            rows.append((str(number), says.pop() if says else "", place(one), one.verdict, str(one.seeds)))
    return Table("Each claim", ("claim", "what it says", "of", "verdict", "seeds"), (*[False] * 4, True), tuple(rows))


def _table(evidence: ClaimTable, of: str) -> Table:
    rows = tuple(tuple(_text(value) for value in row) for row in evidence.rows)
    numeric = tuple(
        all(isinstance(row[column], (int, float, type(None))) for row in evidence.rows)
        for column, _ in enumerate(evidence.columns)
    )
    caption = f"{of}: {evidence.caption}" if of else evidence.caption
    return Table(caption, tuple(name.replace("_", " ") for name in evidence.columns), numeric, rows)


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figure(value) if isinstance(value, float) else f"{value}"
