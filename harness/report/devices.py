"""What several devices brought, in sentences: speed-ups at the smallest and largest batch size, and when a second pays.

Goes in: the frames of ``harness.analysis.devices``. Comes out: what terminal and page say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis import statement
from harness.report.headline import Row, figure, percent
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl


def sentences(cells: pl.DataFrame, scaling: pl.DataFrame, model: pl.DataFrame) -> list[str]:
    """A sentence for each target on several devices, and one for what a second device needs.

    Of logical devices none but that their speed means nothing.
    """
    found = []
    for _, own in scaling.filter(~scaling["logical"]).group_by("machine", "target", maintain_order=True):
        rows = own.sort("batch_size").to_dicts()
        strong = _ends([row for row in rows if row["speed_up"] is not None])
        if strong:
            said = ", ".join(f"{figure(row['speed_up'])} times as fast {_at(row)}" for row in strong)
            heats = plural(sum(row["heats"] for row in rows), "heat")
            found.append(f"{rows[0]['target']} against {rows[0]['base']}: {said} ({heats}).")
        weak = _ends([row for row in rows if row["weak_efficiency"] is not None])
        if weak:
            said = ", ".join(f"{percent(row['weak_efficiency'])} % {_at(row)}" for row in weak)
            base, target = rows[0]["base"], rows[0]["target"]
            found.append(f"Of the pace of {base} at the batch size per device, {target} keeps on each device {said}.")
    for row in model.filter(~model["logical"]).to_dicts():
        measured = row["pays_from_measured"]
        told = f"from batch size {measured:,} on" if measured else "at no batch size that was measured"
        predicted = f", as predicted above {figure(row['pays_from'])}" if row["pays_from"] is not None else ""
        found.append(f"A second device of {row['target']} makes a step shorter {told}{predicted}.")
    logical = [
        target
        for target, accelerator in cells.drop_nulls("images_per_second").select("target", "accelerator").unique().rows()
        if statement.shares_processors(accelerator, target)
    ]
    return [*found, *([statement.of_logical(logical)] if logical else [])]


def _ends(rows: Sequence[Row]) -> Sequence[Row]:
    """The first and the last."""
    return [*rows[:1], *rows[1:][-1:]]


def _at(row: Row) -> str:
    return f"at batch size {row['batch_size']:,}"
