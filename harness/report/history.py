"""Runs over time, for a terminal and as a page. In: ``harness.analysis.history.Course`` rows. Out: tables, figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.history import FEWEST_BESIDE, Change, Course
from harness.report import plain_page, vega
from harness.report.figure import Figure, Words
from harness.report.headline import ABSENT, TRAITS, figure
from harness.report.plain_page import PlainSection
from harness.report.tables import Table
from harness.wording import plural

if TYPE_CHECKING:
    import polars as pl

MOST_COURSES = 16
"""Of a figure: more could not be told apart."""

LEGEND = (
    "Runs never took turns, so they differ by more than the blocks within one. A change is shown where the runs before "
    f"and after it, {FEWEST_BESIDE} or more each, differ beyond the noise between runs, allowing for all places and "
    "all rows (95 %)."
)


_TRAITS = ("model", "dataset", "epochs", "seed", "optimizer", "precision")


def summary(found: Sequence[Course]) -> str:
    """How many changes there are, in a sentence."""
    changed = sum(bool(one.changes) for one in found)
    if not found:
        return "No work was done in two runs on one machine, so there is no history yet."
    return (
        f"{plural(len(found), 'work')} done in several runs: {changed} changed speed, {len(found) - changed} did not."
    )


def courses(found: Sequence[Course]) -> Table:
    """A row for each course: its runs, first and latest speed, the noise between runs, and its changes.

    Of its work the model, and what the courses differ in.
    """
    apart = tuple(name for name in _TRAITS if len({TRAITS[name](one.work) for one in found}) > 1)
    rows = []
    for one in found:
        first, last = one.visits[0], one.visits[-1]
        rows.append(
            (
                one.system,
                one.target,
                ", ".join(TRAITS[name](one.work) for name in ("model", *(name for name in apart if name != "model"))),
                str(one.work["batch_size"]),
                f"{len(one.visits):,}",
                " to ".join(dict.fromkeys((first.started[:10], last.started[:10]))),
                figure(first.images_per_second),
                figure(last.images_per_second),
                ABSENT if one.noise is None else f"{100 * one.noise:.1f}",
                "; ".join(_change(one, change) for change in one.changes) or "none shown",
            )
        )
    headers = (
        "system",
        "target",
        "work",
        "batch size",
        "runs",
        "measured",
        "first, images/s",
        "latest",
        "noise between runs, %",
        "changes",
    )
    numeric = (False, False, False, True, True, False, True, True, True, False)
    return Table("Runs over time", headers, numeric, tuple(rows))


def _change(one: Course, change: Change) -> str:
    ratio, low, high = change.speed.ratios()
    return f"{one.visits[change.visit].started[:16]}: {ratio:.3f} times as fast ({low:.3f} to {high:.3f})"


def frame(found: Sequence[Course]) -> pl.DataFrame:
    """A row for each run of each course; ``changed``: whether a change is shown there."""
    import polars as pl

    rows = [
        {
            "system": one.system,
            "target": one.target,
            "model": one.work["model"],
            "dataset": one.work["dataset"],
            "batch_size": one.work["batch_size"],
            "epochs": one.work["epochs"],
            "seed": one.work["seed"],
            "work_id": one.work["work_id"],
            "run": visit.run,
            "started": visit.started,
            "images_per_second": visit.images_per_second,
            "processes": visit.processes,
            "changed": number in {change.visit for change in one.changes},
        }
        for one in found
        for number, visit in enumerate(one.visits)
    ]
    return pl.DataFrame(rows)


def figures(found: Sequence[Course]) -> list[Figure]:
    """Of each system its courses over time, those that changed first, as many as can be told apart."""
    made = []
    for number, system in enumerate(dict.fromkeys(one.system for one in found), start=1):
        own = [one for one in found if one.system == system]
        shown = sorted(own, key=lambda one: not one.changes)[:MOST_COURSES]
        made.append(_figure(f"history-{number}", system, shown, len(own) - len(shown)))
    return made


def _figure(name: str, system: str, shown: Sequence[Course], left_out: int) -> Figure:
    import polars as pl

    rows: list[dict[str, Any]] = [
        {
            "target": f"{one.target}, batch size {one.work['batch_size']}, {one.work['model']}, {_seed(one)}",
            "batch_size": one.work["batch_size"],
            "started": visit.started,
            "images_per_second": visit.images_per_second,
        }
        for one in shown
        for visit in one.visits
    ]
    held = pl.DataFrame(rows)
    targets = sorted(held["target"].unique())
    x = {"field": "started", "type": "temporal", "title": "run", "axis": {"grid": False}}
    y = vega.magnitude(held, "images_per_second", "images per second")
    looks = vega.look(targets, targets)
    layers = [vega.line(x, y, looks), vega.points(x, y, looks, vega.tooltip("target", "images_per_second"))]
    said = [
        f"{one.target} at batch size {one.work['batch_size']} from {figure(one.visits[0].images_per_second)} to "
        f"{figure(one.visits[-1].images_per_second)} images per second in {len(one.visits)} runs"
        for one in shown
    ]
    note = f"{plural(left_out, 'more work')} in the table." if left_out > 0 else ""
    words = Words(f"{system}: images per second, run by run", "; ".join(said) + ".")
    return Figure(name, words, note, vega.chart(held, layers), held, ("target", "images_per_second"))


def _seed(one: Course) -> str:
    return TRAITS["seed"](one.work)


def page(found: Sequence[Course], folder: str) -> str:
    """All of it as one page."""
    sections = [
        PlainSection("Every work", tables=(courses(found),) if found else (), quiet=(LEGEND,)),
        PlainSection("Run by run", figures=tuple(figures(found))),
    ]
    return plain_page.page(f"Runs in {folder}", "harness history", [summary(found)], sections)
