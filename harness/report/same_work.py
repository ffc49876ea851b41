"""What was shown of cells' own work, in words: proofs at their batch sizes, and what was seen of the timed training.

Goes in: the frame of ``analysis.summary``. Comes out: sentences, and the words for one cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report.headline import ABSENT, Row
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

NOT_PROVEN = "not proven at this size"


def error_text(error: float | None) -> str:
    """A relative error as a person says it: 3e-6."""
    if error is None:
        return ABSENT
    digits, _, power = f"{error:.0e}".partition("e")
    return "0" if not error else f"{digits}e{int(power)}"


def words(row: Row) -> str:
    """Of one cell: "proven at 512: 14 steps, largest error 3e-6", or that it is not."""
    if not row["sized_steps"]:
        return NOT_PROVEN
    return (
        f"proven at {row['batch_plan'] or format(row['batch_size'], ',')}: {row['sized_steps']:,} steps, "
        f"largest error {error_text(row['sized_error'])}"
    )


def sentences(frame: pl.DataFrame) -> list[str]:
    """What is proven of the cells that ended well, what was seen of their timed training, and what was not shown."""
    from harness.analysis.tables import rows_of

    rows = [row for row in rows_of(frame) if row["status"] == "ok"]
    found = []
    proven = [row for row in rows if row["sized_steps"]]
    if proven:
        some = (
            plural(len(proven), "cell")
            if len(proven) == len(rows)
            else f"{len(proven):,} of {plural(len(rows), 'cell')}"
        )
        found.append(
            f"Proven at the batch size that was measured, through the calls that are timed: {some}, "
            f"{_span([row['sized_steps'] for row in proven])} steps each; {_error(proven, 'sized_error')}."
        )
    seen = [row for row in rows if row["witnessed_steps"]]
    if seen:
        found.append(
            f"Of the timed training of {plural(len(seen), 'cell')}, {_span([row['witnessed_steps'] for row in seen])} "
            f"steps at a random moment were done again by the reference: {_error(seen, 'witness_error')}."
        )
    told: dict[str, list[str]] = {}
    for row in proven:
        for line in (row["not_shown"] or "").split("\n"):
            if line:
                told.setdefault(line, []).append(row["target"])
    found += [f"Of {', '.join(sorted(set(targets)))}: {line}." for line, targets in sorted(told.items())]
    return found


def not_at_size(frame: pl.DataFrame) -> str:
    """That there are cells which are proven, but not at their batch size, in a sentence; empty if there are none."""
    from harness.analysis.tables import rows_of

    count = sum(row["status"] == "ok" and bool(row["proof"]) and not row["sized_steps"] for row in rows_of(frame))
    if not count:
        return ""
    are = "is" if count == 1 else "are"
    return f"{plural(count, 'cell')} {are} {NOT_PROVEN}: only with batches of four images (docs/same-work.md)."


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _error(rows: Sequence[Row], column: str) -> str:
    known = [row[column] for row in rows if row[column] is not None]
    return f"the largest error is {error_text(max(known))} of the largest value" if known else "no error is known"
