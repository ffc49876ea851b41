"""Why one lane's step takes longer than another's, for a person: the answer in a sentence, a table, what bounds what.

Goes in: ``harness.analysis.explaining.Explanation``. Comes out: text, and figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.explaining import NEITHER, WALL, Explanation, PartOfLane, PartOfStep
from harness.core.parts import STEP
from harness.report import tables, vega
from harness.report.figure import Figure, Words
from harness.report.headline import ABSENT, beyond_limit, figure, is_no_limit
from harness.report.printed import new_table, print_table, say
from harness.statistics import NO_DIFFERENCE
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

_STYLES = {"faster": "green", "slower": "red"}
MOST_NAMED = 3
"""Parts that the first sentence names."""

NAMED_SHARE = 0.1
"""Of the difference, what a part has at least that the sentence names."""

LEGEND = (
    "A part is one layer forward or backward, or what else a step does, run on its own with the step's own numbers. "
    "What the parts do not add up to is unexplained: what only a whole step has (operations made one, warm caches, "
    "work side by side). Shares are of the difference of whole steps; one below zero takes some of it away."
)
BOUNDS = (
    "Bound by: arithmetic or memory, where the time is at most twice what the device needs for that alone at its best; "
    "dispatch, where the part takes less than calling it does; neither, with how many times as long it takes as the "
    "device needs: slower than it has to be."
)

ROW_HEIGHT = 30


def sentence(one: Explanation) -> str:
    """The answer for one batch size."""
    where = f"at batch size {one.batch_size}"
    interval = "" if one.ratio_low is None else f" (95 % interval: {one.ratio_low:.2f} to {one.ratio_high:.2f})"
    long = "as long" if one.clock == WALL else "as much processor time"
    if one.verdict == NO_DIFFERENCE:
        return (
            f"No difference found between {one.lane} and {one.base} {where}: a step takes {one.ratio:.2f} times "
            f"{long}{interval}."
        )
    return f"{one.lane} takes {one.ratio:.2f} times {long} as {one.base} {where}{interval}: {_because(one)}."


def _because(one: Explanation) -> str:
    """The parts that make most of the difference, and what is left of it if that is much."""
    named = [row for row in one.costliest[:MOST_NAMED] if (row.share or 0.0) >= NAMED_SHARE]
    shares = [f"{row.label} is {_percent(row.share)} %" for row in named]
    if not shares:
        none = "no part alone makes a tenth of the difference"
        return none if one.costliest else "which part it is cannot be told from these measurements"
    rest = one.unexplained
    if rest.verdict == one.verdict and (rest.share or 0.0) >= NAMED_SHARE:
        shares.append(f"{_percent(rest.share)} % is more than the parts explain")
    shares[0] += " of the difference"
    return ", ".join(shares)


def print_explanations(found: Sequence[Explanation], console: Console) -> None:
    """For each batch size the sentence and the table, then how to read them."""
    if not found:
        say(console, "Nothing was measured.")
        return
    for one in found:
        console.print(Text(sentence(one), style="bold"))
    for one in found:
        console.print()
        print_table(_table(one), console)
        console.print(Text(rests_on(one)))
    console.print()
    console.print(Text(LEGEND))
    for text in no_limits(found):
        console.print(Text(text))
    if any(one.clock == WALL for one in found):
        console.print(Text(BOUNDS))


def no_limits(found: Sequence[Explanation]) -> list[str]:
    """A line for each target of which a part went beyond its device's limit of arithmetic."""
    sides = [(target, side) for one in found for row in one.rows for target, side in _sides(one, row)]
    targets = {target for target, side in sides if is_no_limit([side.of_arithmetic or 0.0])}
    return [f"Of some parts of {one} it is not said what bounds them. {beyond_limit(one)}" for one in sorted(targets)]


def _sides(one: Explanation, row: PartOfStep) -> tuple[tuple[str, PartOfLane], ...]:
    return (one.base, row.base), (one.lane, row.lane)


def rests_on(one: Explanation) -> str:
    """What the numbers of one batch size rest on."""
    sets = f"{plural(one.sets, 'set')} of fresh processes, {plural(one.rounds, 'round')}"
    if one.checked is None:
        return f"{sets}."
    nearest = f"{_percent(one.checked)} % of what is allowed"
    return f"{sets}; what every part gives was checked against the reference: at most {nearest} away."


def plain_table(one: Explanation) -> tables.Table:
    """The terminal's table, as texts."""
    headers = tuple(heading.replace("\n", " ").strip() for heading in _headings(one))
    rows = tuple(
        tuple(cell.plain for cell in _cells(row)[: len(headers)]) for row in (*one.rows, one.unexplained, one.step)
    )
    return tables.Table(_caption(one), headers, tuple(heading in _numbers(one) for heading in _headings(one)), rows)


def _caption(one: Explanation) -> str:
    return f"{one.model} on {one.dataset}, batch size {one.batch_size}: {_unit(one)}"


def _numbers(one: Explanation) -> tuple[str, ...]:
    return f"{one.base}\nms", f"{one.lane}\nms", "difference\nms", "share\n%", "95 %\ninterval"


def _headings(one: Explanation) -> tuple[str, ...]:
    bounds = (f"{one.base}\nbound by", f"{one.lane}\nbound by") if one.clock == WALL else ()
    return "\npart", *_numbers(one), *bounds


def _table(one: Explanation) -> Table:
    table = new_table(*_headings(one), numbers=_numbers(one), title=_caption(one))
    for row in one.rows:
        table.add_row(*_cells(row)[: len(table.columns)])
    for row in (one.unexplained, one.step):
        table.add_section()
        table.add_row(*_cells(row)[: len(table.columns)])
    return table


def _unit(one: Explanation) -> str:
    """What the numbers of one explanation are."""
    return "milliseconds of a training step" if one.clock == WALL else "milliseconds of processor time of a step"


def _cells(row: PartOfStep) -> list[Text]:
    style = _STYLES.get(row.verdict, "")
    has_ends = row.share_low is not None and row.name != STEP
    ends = f"{_percent(row.share_low)} to {_percent(row.share_high)}" if has_ends else ABSENT
    return [
        Text(row.label),
        Text(_ms(row.base.seconds)),
        Text(_ms(row.lane.seconds)),
        Text(_ms(row.difference.seconds), style=style),
        Text(_percent(row.share), style=style),
        Text(ends),
        Text(bound(row.base)),
        Text(bound(row.lane)),
    ]


def bound(part: PartOfLane) -> str:
    """What a part is bound by, in a word or three."""
    if part.bound == NEITHER and part.times_needed is not None:
        return f"neither ({figure(part.times_needed)}x)"
    return part.bound or ABSENT


def _ms(seconds: float) -> str:
    """Two decimals, whatever the size, so that a column's points stand under each other."""
    return f"{round(1e3 * seconds, 2) + 0.0:,.2f}"


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{round(100 * share) + 0.0:.0f}"


# Figures


def figures(found: Sequence[Explanation]) -> list[Figure]:
    """One for each kind of work: every part on both sides, with intervals."""
    several = len({one.model for one in found}) > 1
    return [_figure(one, f"-{one.model}" if several else "") for one in found]


def _figure(one: Explanation, suffix: str) -> Figure:
    frame = _frame(one)
    order = [row.label for row in (*one.rows, one.unexplained)]
    targets = [one.base, one.lane]
    colour = {
        "field": "target",
        "type": "nominal",
        "scale": {"domain": targets},
        "legend": {"title": None, "symbolType": "square"},
    }
    y = {
        "field": "part",
        "type": "nominal",
        "title": None,
        "sort": order,
        "axis": {"labelLimit": 260, "grid": False, "ticks": False},
        "scale": {"paddingInner": 0.28, "paddingOuter": 0.14},
    }
    beside = {"field": "target", "type": "nominal", "sort": targets}
    x = vega.quantity("milliseconds", _unit(one), zero=True, place="x")
    bars = {
        "mark": {"type": "bar"},
        "encoding": {"y": y, "yOffset": beside, "x": x, "color": colour, "tooltip": _told(frame)},
    }
    intervals = {
        "transform": [{"filter": "isValid(datum.milliseconds_low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.4, "color": "#1b1f24"},
        "encoding": {
            "y": y,
            "yOffset": {**beside, "bandPosition": 0.5},
            "x": {**x, "field": "milliseconds_low"},
            "x2": {"field": "milliseconds_high"},
        },
    }
    spec = {
        "data": {"values": vega.rows(frame)},
        "params": [{"name": "hidden", "value": []}],
        "width": "container",
        "height": ROW_HEIGHT * len(order),
        "layer": [bars, intervals],
    }
    title = f"Where a training step's time goes: {one.model}, batch size {one.batch_size}"
    note = "Lines across the ends of bars are 95 % intervals." if one.sets > 1 else ""
    words = Words(title, " ".join([sentence(one), *_in_words(one)]))
    return Figure(f"explained-{one.batch_size}{suffix}", words, note, spec, frame, tuple(frame.columns))


def _in_words(one: Explanation) -> list[str]:
    rows = sorted(one.rows, key=lambda row: -max(row.base.seconds, row.lane.seconds))[:MOST_NAMED]
    return [
        f"{row.label}: {_ms(row.base.seconds)} ms in {one.base}, {_ms(row.lane.seconds)} ms in {one.lane}."
        for row in rows
    ]


def _frame(one: Explanation) -> pl.DataFrame:
    import polars as pl

    rows: list[dict[str, Any]] = []
    for row in (*one.rows, one.unexplained):
        for target, side in _sides(one, row):
            rows.append(
                {
                    "part": row.label,
                    "target": target,
                    "milliseconds": 1e3 * side.seconds,
                    "milliseconds_low": None if side.low is None else 1e3 * side.low,
                    "milliseconds_high": None if side.high is None else 1e3 * side.high,
                    "bound": bound(side),
                }
            )
    ends = ("milliseconds", "milliseconds_low", "milliseconds_high")
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(ends, pl.Float64))


def _told(frame: pl.DataFrame) -> list[dict[str, Any]]:
    words = {"part": "part", "target": "target", "bound": "bound by"}
    return [
        {"field": name, "type": "nominal", "title": words[name]}
        if name in words
        else {"field": name, "type": "quantitative", "title": name.replace("_", " "), "format": ",.3~r"}
        for name in frame.columns
    ]
