"""The words, the figure and the table for ``harness.analysis.Blame``: whether other load was to blame, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report import fields, vega
from harness.report.figure import Figure, Words
from harness.report.headline import ABSENT, figure
from harness.report.tables import Table, table
from harness.wording import plural, processors

if TYPE_CHECKING:
    import polars as pl

    from harness.analysis import Blame

MOST_POINTS = 1500
"""Of the figure: of more records it shows as many, spread over all."""

WITHOUT_LOAD = ("quiet", "throttled", "untold")
"""Answers for which there is no other load to draw."""

_COLUMNS = (
    "target",
    "batch_size",
    "epochs",
    "seed",
    "repeat",
    "node",
    "exclusive",
    "other_jobs",
    "load_1min",
    "other_processors",
    "stolen_processors",
    "throttled_processors",
    "processor_quota",
    "preempted_share",
    "stolen_share",
    "noise",
    "disturbed_cost",
    "images_per_second",
    "relative_throughput",
)
_TOLD = ("target", "batch_size", "seed", "taken_processors", "relative_throughput")


def answer(blame: Blame) -> str:
    """The answer in a sentence."""
    text = _ANSWERS[blame.why](blame)
    return f"{blame.label}: {text[0].lower()}{text[1:]}" if blame.label else text


def evidence(blame: Blame) -> list[str]:
    """What it rests on, a sentence each."""
    if blame.other_median is None:
        return _held_back(blame)
    where = f"{plural(blame.records, 'record')} of {plural(blame.heats, 'heat')} (cells that run together)"
    kept = f"{figure(blame.other_median)}{_of(blame)} busy (median; at most {figure(blame.other_max)})"
    found = [f"Other programs kept {kept}, in {where}."]
    if blame.stolen_median is not None:
        found.append(
            f"The host of this virtual machine took {figure(blame.stolen_median)} processors (median; at most "
            f"{figure(blame.stolen_max)})."
        )
    found += _held_back(blame)
    if blame.shared:
        jobs = "" if blame.other_jobs is None else f"; at most {plural(blame.other_jobs, 'other job')} ran there"
        found.append(
            f"The job shared its node with others in {blame.shared:,} of {plural(blame.records, 'record')}{jobs}."
        )
    if blame.disturbed_cost is not None:
        found.append(
            "Moments in which training lost a processor change its mean step time by "
            f"{100 * blame.disturbed_cost:+.2g} % (median over records)."
        )
    if blame.floor is not None:
        found.append(
            f"The same program differs by {_percent(blame.floor)} % from run to run (the noise floor, from "
            f"{_FLOORS[blame.floor_from]})."
        )
    return found


def _held_back(blame: Blame) -> list[str]:
    """A sentence about the quota; none where there is none, and none is seen to work."""
    if blame.quota is None and not blame.throttled_max:
        return []
    quota = f"of {processors(blame.quota)}" if blame.quota is not None else "that cannot be seen from inside"
    if blame.throttled_median is None:
        return [f"The container has a quota {quota}; the system does not say how much work it held back."]
    return [
        (
            f"The container's quota {quota} held back the work of {figure(blame.throttled_median)} processors (median; "
            f"at most {figure(blame.throttled_max)})."
        )
    ]


def lines(blames: Sequence[Blame]) -> list[str]:
    """For a terminal: a line for each machine, with what it rests on unless hardly anything else ran there."""
    return [" ".join([answer(one), *(evidence(one) if one.why != "quiet" else ())]) for one in blames]


def figures(blames: Sequence[Blame], load: pl.DataFrame, targets: Sequence[str]) -> list[Figure]:
    """A figure for each machine whose load varied: throughput against other load."""
    found = []
    for number, blame in enumerate(blames, start=1):
        rows = _records(blame, load)
        if rows.height > 1 and blame.why not in WITHOUT_LOAD:
            name = "other-load" if len(blames) == 1 else f"other-load-{number}"
            found.append(_figure(name, blame, rows, targets))
    return found


def disturbances(blame: Blame, load: pl.DataFrame) -> Table:
    """What disturbed each record of a machine."""
    of = f" on {blame.label}" if blame.label else ""
    return table(_records(blame, load), _COLUMNS, f"What disturbed each record{of}")


def _of(blame: Blame) -> str:
    return f" of {plural(blame.processors, 'processor')}" if blame.processors else " processors"


def _records(blame: Blame, load: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    telling = pl.lit(True) if blame.why == "untold" else pl.col("other_processors").is_not_null()
    own = load.filter(pl.col("machine") == blame.machine, telling)
    taken = pl.col("other_processors") + pl.col("stolen_processors").fill_null(0.0)
    return fields.display(own.with_columns(taken.alias("taken_processors")))


def _figure(name: str, blame: Blame, rows: pl.DataFrame, targets: Sequence[str]) -> Figure:
    if rows.height > MOST_POINTS:
        rows = rows.gather([place * rows.height // MOST_POINTS for place in range(MOST_POINTS)])
    rows = rows.select([column for column in _TOLD if column in rows.columns])
    title = "Throughput against other load" + (f": {blame.label}" if blame.label else "")
    x = vega.quantity("taken_processors", fields.header("taken_processors"), zero=True, place="x")
    y = vega.quantity("relative_throughput", fields.header("relative_throughput"))
    looks = vega.look(targets, sorted(rows["target"].unique()))
    layers = [vega.guide_line(y, 100), vega.points(x, y, looks, vega.tooltip(*_TOLD))]
    said = [
        f"{target} had {fields.text('relative_throughput', row[0])} % of its median throughput with "
        f"{fields.text('taken_processors', row[1])} processors taken"
        for target in sorted(rows["target"].unique())
        for row in rows.filter(rows["target"] == target)
        .sort("taken_processors", descending=True)
        .select("relative_throughput", "taken_processors")
        .rows()[:1]
    ]
    return Figure(
        name,
        Words(title, f"{answer(blame)} Under the most other load {'; '.join(said)}."),
        "Each mark is one record. Upwards: its throughput, in percent of the median of all records of the same work, "
        "target and batch size. To the right: processors that other programs kept busy, or that the host of this "
        "virtual machine took.",
        vega.chart(rows, layers, height=240),
        rows,
        _TOLD,
    )


def _slower(blame: Blame) -> str:
    return (
        "Other load slowed training: each processor that other programs kept busy, or that the host of this virtual "
        f"machine took, cost {_percent(blame.cost)} % of the throughput (95 % interval: {_percent(blame.cost_low)} to "
        f"{_percent(blame.cost_high)} %)."
    )


def _quiet(blame: Blame) -> str:
    most = (blame.other_max or 0.0) + (blame.stolen_max or 0.0)
    return (
        f"Other load did not slow training: other programs kept at most {figure(most)}{_of(blame)} busy, in "
        f"{plural(blame.records, 'record')}."
    )


def _throttled(blame: Blame) -> str:
    quota = "" if blame.quota is None else f", {processors(blame.quota)},"
    return (
        f"The container's own quota{quota} slowed training, and other load did not: hardly anything else ran, but the "
        f"quota held back the work of up to {figure(blame.throttled_max)} processors."
    )


def _untold(blame: Blame) -> str:
    return f"Whether other load slowed training is not known: the system does not say how busy it was ({blame.untold})."


def _without_effect(blame: Blame) -> str:
    return (
        "Other load did not slow training noticeably: with more of it, training was not measurably slower, and it "
        f"can have cost {_percent(blame.missed)} % of the throughput at most."
    )


def _unclear(blame: Blame) -> str:
    return (
        "Whether other load slowed training cannot be told: with more of it, training was not measurably slower, "
        f"but it may have cost up to {_percent(blame.missed)} % of the throughput. Running the same cells with more "
        "seeds (--seed) would tell."
    )


def _alone(blame: Blame) -> str:
    return (
        "Whether other load slowed training cannot be told: other programs ran, but there are too few records of the "
        "same target and batch size with more and with less of it. Running the same cells with more seeds (--seed), at "
        "a quiet and at a busy hour, would tell."
    )


_ANSWERS = {
    "slower": _slower,
    "quiet": _quiet,
    "without effect": _without_effect,
    "unclear": _unclear,
    "alone": _alone,
    "throttled": _throttled,
    "untold": _untold,
}
_FLOORS = {
    "control lane": "a second copy of a target beside it",
    "between processes": "the spread between processes that did the same work",
}


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.2g}" if abs(share) < 0.995 else f"{100 * share:,.0f}"
