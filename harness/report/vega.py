"""Vega-Lite specifications as plain dicts: what every figure of the report is put together from.

Field names and filters are fixed texts; data stand only in ``values`` and in the domains of scales, so that nothing
from a record is ever an expression. Two parameters are for the page: ``hidden``, targets not to show, and ``accuracy``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.report import palette
from harness.report.fields import header

if TYPE_CHECKING:
    import polars as pl

Spec = dict[str, Any]

MOST_TICKS = 14
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"

_SHOWN = {"filter": "indexof(hidden, datum.target) < 0"}
_CHOSEN = {"filter": "datum.accuracy == accuracy"}
_SIDE_BY_SIDE = {
    "calculate": "datum.batch_size * pow(2, apart * (indexof(order, datum.target) - (length(order) - 1) / 2))",
    "as": "beside",
}
"""Targets that reach the same would hide each other, so each stands a little aside of its batch size."""

_APART, _MOST_APART = 0.06, 0.3
"""How far a target stands from the next one, and all together, in doublings of the batch size."""

_NUMBER = ",.4~r"


def chart(values: pl.DataFrame, layers: Sequence[Spec], *, accuracy: float | None = None, height: int = 300) -> Spec:
    """Layers over one frame's rows. With ``accuracy``, in the unit of the rows, only those of that one are shown."""
    chosen = [] if accuracy is None else [{"name": "accuracy", "value": accuracy}]
    order = sorted(values["target"].unique())
    apart = [{"name": "order", "value": order}, {"name": "apart", "value": min(_APART, _MOST_APART / len(order))}]
    return {
        "data": {"values": rows(values)},
        "params": [{"name": "hidden", "value": []}, *apart, *chosen],
        "transform": [_SHOWN, *([_CHOSEN] if chosen else []), _SIDE_BY_SIDE],
        "width": "container",
        "height": height,
        "layer": list(layers),
    }


def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows without their empty values."""
    return [{name: value for name, value in row.items() if value is not None} for row in frame.to_dicts()]


def chosen_layer(frame: pl.DataFrame, layer: Spec) -> Spec:
    """A layer with rows of its own, of the chosen accuracy only."""
    return {"data": {"values": rows(frame)}, "transform": [_CHOSEN], **layer}


def sizes(values: Sequence[int]) -> Spec:
    """The axis of batch sizes, which double: logarithmic, ticks where there are values."""
    ticks = {"values": list(values)} if len(values) <= MOST_TICKS else {}
    return {
        "field": "beside",
        "type": "quantitative",
        "title": "batch size",
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 14},
        "axis": {
            "format": "d",
            "labelFlush": False,
            "labelOverlap": "greedy",
            "labelSeparation": 8,
            "grid": False,
            **ticks,
        },
    }


def quantity(field: str, title: str, *, zero: bool = False, place: str = "y") -> Spec:
    """A measured axis. Upright, its title stands above it, level, where it is read first."""
    room = {} if zero or place == "x" else {"padding": 8}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": zero, "nice": True, **room},
        "axis": {"format": _NUMBER, "tickCount": 6, "labelFlush": False},
    }


def epochs() -> Spec:
    """A level axis of epochs, from nought, with ticks at whole ones."""
    axis = quantity("epoch", "epoch", zero=True, place="x")
    return {**axis, "axis": {**axis["axis"], "tickMinStep": 1}}


def magnitude(values: pl.DataFrame, field: str, title: str, by: str = "") -> Spec:
    """A logarithmic axis of a positive field, with few round ticks; with ``by``, shown for one value of that column."""
    import polars as pl

    spread = pl.col(field).max() / pl.col(field).min()
    spans = values.group_by(by).agg(spread)[field] if by else values.select(spread)[field]
    least = min(spans.drop_nulls(), default=1.0)
    steps = next((steps for span, steps in _LOG_STEPS if least >= span), None)
    ticks = [] if steps is None else [float(f"{step}e{power}") for power in range(-6, 10) for step in steps]
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "nice": False, "padding": 8},
        "axis": {"format": _NUMBER, **({"values": ticks} if ticks else {"tickCount": 6})},
    }


_LOG_STEPS = ((2000, (1,)), (30, (1, 2, 5)), (3, (1, 1.5, 2, 3, 4, 5, 7)))
"""Ticks in each power of ten, by how many times the largest value is the smallest."""


def look(targets: Sequence[str], present: Sequence[str], *, mark: bool = True) -> Spec:
    """Colour and mark of a target: the domain is all targets of the run, the legend those of this figure."""
    encoding = {
        "field": "target",
        "type": "nominal",
        "scale": {"domain": list(targets)},
        "legend": {"title": None, "values": list(present)},
    }
    return {"color": encoding, "shape": encoding} if mark else {"color": encoding}


def tooltip(*names: str) -> list[Spec]:
    """What a mark tells when pointed at; the table below the figure tells the same."""
    words = ("target", "regime", "reason", "phase", "part", "interval", "rates")
    return [
        {"field": name, "type": "nominal", "title": header(name)}
        if name in words
        else {"field": name, "type": "quantitative", "title": header(name), "format": _NUMBER}
        for name in names
    ]


def line(x: Spec, y: Spec, colours: Spec, **mark: Any) -> Spec:
    """A line per target through its points, in the order of x."""
    return {
        "transform": [{"filter": _valid(y["field"])}],
        "mark": {"type": "line", "strokeWidth": 2, **mark},
        "encoding": {"x": x, "y": y, "color": colours["color"]},
    }


def intervals(values: pl.DataFrame, x: Spec, y: Spec, colours: Spec) -> list[Spec]:
    """A bar from ``_low`` to ``_high`` of y's field, where both are known; no layer where they never are."""
    low, high = f"{y['field']}_low", f"{y['field']}_high"
    if not intervals_note(values, y["field"]):
        return []
    return [
        {
            "transform": [{"filter": f"{_valid(low)} && {_valid(high)}"}],
            "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.75},
            "encoding": {"x": x, "y": {**y, "field": low}, "y2": {"field": high}, "color": colours["color"]},
        }
    ]


def intervals_note(values: pl.DataFrame, field: str) -> str:
    """A sentence on the bars of ``intervals``, empty where there are none."""
    known = f"{field}_low" in values.columns and values[f"{field}_low"].count()
    return "Upright bars are 95 % intervals." if known else ""


def points(x: Spec, y: Spec, looks: Spec, told: Sequence[Spec], *, hollow: bool = False) -> Spec:
    """A mark per row, in its target's shape."""
    return {
        "transform": [{"filter": _valid(y["field"])}],
        "mark": {"type": "point", "filled": not hollow, "size": 75, "opacity": 1, "strokeWidth": 1.6},
        "encoding": {"x": x, "y": y, **looks, "tooltip": list(told)},
    }


def only_unknown(values: pl.DataFrame, field: str, layer: Spec) -> list[Spec]:
    """A layer for rows that have no value in ``field``; none where all have."""
    if not values[field].null_count():
        return []
    return [{**layer, "transform": [*layer["transform"], {"filter": f"!({_valid(field)})"}]}]


def on_top_edge(values: pl.DataFrame, x: Spec, missing: str, looks: Spec, told: Sequence[Spec]) -> list[Spec]:
    """Hollow marks on the upper edge for rows without a value in the field ``missing``; no layer where all have."""
    layer: Spec = {
        "transform": [],
        "mark": {"type": "point", "filled": False, "size": 75, "opacity": 1, "strokeWidth": 1.6},
        "encoding": {"x": x, "y": {"value": 2}, **looks, "tooltip": list(told)},
    }
    return only_unknown(values, missing, layer)


def guide_line(y: Spec, at: float = 0) -> Spec:
    """A quiet line at nought, or at another value."""
    return {
        "data": {"values": [{y["field"]: at}]},
        "mark": {"type": "rule", "style": "guide"},
        "encoding": {"y": y},
    }


def config(colours: dict[str, str], targets: Sequence[str], phases: Sequence[str]) -> Spec:
    """The look of all figures, from named colours (those of ``palette.SCHEMES``, or variables of a style sheet)."""
    ink, muted, faint = colours["ink"], colours["muted"], colours["line"]
    return {
        "background": None,
        "aria": False,
        "mark": {"color": muted},
        "bar": {"stroke": muted, "strokeWidth": 1},
        "text": {"color": ink, "fontSize": 12},
        "font": FONT,
        "view": {"stroke": None},
        "range": {"category": list(targets), "ordinal": list(phases), "symbol": list(palette.MARKS)},
        "style": {"guide": {"strokeDash": [2, 4]}},
        "title": {"color": ink, "anchor": "start", "fontSize": 15, "fontWeight": 600, "offset": 16, "frame": "bounds"},
        "axis": {
            "labelColor": muted,
            "titleColor": muted,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "labelFontSize": 12,
            "gridColor": faint,
            "domainColor": faint,
            "tickColor": faint,
            "tickSize": 4,
            "labelPadding": 5,
        },
        "axisY": {
            "titleAngle": 0,
            "titleAlign": "left",
            "titleAnchor": "end",
            "titleBaseline": "bottom",
            "titleX": -34,
            "titleY": -10,
            "domain": False,
            "ticks": False,
        },
        "legend": {
            "orient": "bottom",
            "direction": "horizontal",
            "columns": 3,
            "layout": {"bottom": {"direction": "vertical", "margin": 8, "anchor": "start"}},
            "labelColor": ink,
            "titleColor": muted,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "symbolSize": 90,
            "symbolStrokeWidth": 1.6,
            "symbolOpacity": 1,
            "labelLimit": 260,
            "columnPadding": 18,
            "rowPadding": 4,
            "offset": 12,
        },
    }


def page_config() -> Spec:
    """``config`` with variables of the style sheet, which chooses light, dark or print."""
    named = {name: f"var(--{name})" for name in palette.SCHEMES["light"]}
    return config(named, palette.VARIABLES, palette.PHASE_VARIABLES)


def picture_config() -> Spec:
    """``config`` on white paper."""
    made = config(palette.SCHEMES["light"], palette.LIGHT, palette.PHASES_LIGHT)
    return {**made, "background": "#ffffff", "padding": 16, "font": "Liberation Sans, Arial, sans-serif"}


def _valid(field: str) -> str:
    """An expression on one of this package's own field names."""
    return f"isValid(datum.{field})"
