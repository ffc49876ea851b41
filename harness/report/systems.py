"""Several systems side by side: what each is and trained, what they did in common, and each by itself.

In: ``harness.analysis.systems.System``. Out: tables, figures and sentences for terminal and page. Nothing is pooled,
and nothing is a verdict: systems do not take turns, so ratios between them have no interval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import analysis
from harness.analysis import Analysis
from harness.analysis import systems as of_systems
from harness.analysis.systems import System
from harness.core.record import Record
from harness.report import fairness, figures_of_learning, figures_of_speed, other_load, plain_page
from harness.report.figure import Figure
from harness.report.headline import ABSENT, TRAITS, figure
from harness.report.plain_page import PlainSection
from harness.report.tables import Table, table
from harness.report.works import works
from harness.wording import machine_words, plural

if TYPE_CHECKING:
    import polars as pl

NOT_POOLED = (
    "Each system stands by itself. Their measurements are never averaged together, and as they did not take turns, "
    "no verdict is given between them. A common figure or table has only what several of them did in common: the same "
    "model, data, training, initial parameters and order of images."
)
MAKERS = (
    figures_of_speed.training_time,
    figures_of_learning.accuracy,
    figures_of_learning.time_to_accuracy,
    figures_of_speed.throughput,
    figures_of_speed.energy,
)
"""Of each work, the study's own first."""

MOST_SHOWN = 8
"""Values that a list in a table shows."""

_PACE = ("target", "batch_size", "images_per_second", "seconds_per_epoch", "processes", "interval", "joules_per_image")
_LEARNING = ("target", "epochs", "batch_size", "accuracy", "seeds", "diverged")


@dataclass(frozen=True)
class Systems:
    """Systems as they are shown. ``common``: the analysis of what they did in common, None where there is nothing.

    ``own``: that of each system; ``lanes``: a record of each target on each system, by the name of that series.
    ``apart``: how many more runs there are that took steps apart.
    """

    systems: tuple[System, ...]
    common: Analysis | None
    own: tuple[Analysis, ...]
    lanes: Mapping[str, Record]
    apart: int = 0


def analysed(
    found: Sequence[System], lanes: Mapping[str, Record], accuracy: float | None = None, apart: int = 0
) -> Systems:
    """Analyse what systems did in common, and each of them."""
    shared = of_systems.in_common(found)
    return Systems(
        tuple(found),
        analysis.analyse(shared, accuracy) if shared.cells.height else None,
        tuple(analysis.analyse(one.collected, accuracy) for one in found),
        lanes,
        apart,
    )


def described(found: Systems) -> Table:
    """What each system is, when it was measured, its noise floor, and other programs' load meanwhile."""
    rows = []
    for one, own in zip(found.systems, found.own, strict=True):
        days = sorted({str(day)[:10] for day in own.cells["started"] if day})
        blame = own.blame[0] if own.blame else None
        floor = (blame.floor, blame.floor_from) if blame and blame.floor is not None else one.noise_floor
        known = blame is not None and blame.other_median is not None
        rows.append(
            (
                one.name,
                machine_words(one.facts, whole=True) if one.facts else ABSENT,
                ", ".join(one.targets),
                f"{own.cells.height:,}",
                " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ABSENT,
                ABSENT if floor is None else f"{100 * floor[0]:.1f} %, {floor[1]}",
                f"{figure(blame.other_median)} (at most {figure(blame.other_max)})" if known and blame else ABSENT,
            )
        )
    headers = ("system", "what it is", "targets", "cells", "measured", "noise floor", "processors busy with others")
    return Table("What each system is", headers, (False, False, False, True, False, False, True), tuple(rows))


def trained(found: Systems) -> Table:
    """What work each system did, and how much of it another one did too."""
    rows = []
    for name, work in of_systems.differing_works(found.systems):
        kept = ("model", "dataset", "optimizer", "precision")
        rows.append(
            (
                name,
                ", ".join(TRAITS[trait](work) for trait in kept if TRAITS[trait](work) != "float32"),
                _listed(work["batch_sizes"]),
                _listed(work["epochs"]),
                _listed(work["seeds"]),
                f"{work['shared']:,} of {work['works']:,}",
            )
        )
    headers = ("system", "work", "batch sizes", "epochs", "seeds", "done elsewhere too")
    return Table("What each system trained", headers, (False,) * 5 + (True,), tuple(rows))


def shared_paces(found: Systems) -> Table | None:
    """How fast each series trained what several systems trained; None without any."""
    if found.common is None:
        return None
    return table(_by_size(found.common.pace), _PACE, "The same work on several systems: how fast")


def shared_accuracies(found: Systems) -> Table | None:
    """What accuracy each series reached at what several systems trained; None without any."""
    if found.common is None or found.common.accuracy_by_size.is_empty():
        return None
    return table(_by_size(found.common.accuracy_by_size), _LEARNING, "The same work on several systems: test accuracy")


def summary(found: Systems) -> str:
    """What there is in common, in a sentence."""
    names = ", ".join(one.name for one in found.systems)
    if found.common is None:
        return (
            f"{plural(len(found.systems), 'system')} ({names}), and no work that two of them did: model, data, batch "
            "size, epochs, training and seed must all be equal. Each is shown by itself."
        )
    count = found.common.cells["work_id"].n_unique()
    return f"{plural(len(found.systems), 'system')} ({names}); {plural(count, 'work')} that more than one of them did."


def loads(found: Systems) -> list[str]:
    """Of each system whether other load was to blame, where its records tell; and what is not shown."""
    said = [
        f"{one.name}: {line}"
        for one, own in zip(found.systems, found.own, strict=True)
        for line in other_load.lines(own.blame)
    ]
    if found.apart:
        said.append(
            f"{plural(found.apart, 'run')} of harness explain: steps taken apart are not training, so not here."
        )
    return said


def figures(found: Systems) -> list[Figure]:
    """Those of what is in common, then those of each system, each with a name of its own."""
    common = _figures(found.common, "common") if found.common else []
    return [*common, *(made for one, own in _each(found) for made in _figures(own, _slug(one.name), one.name))]


def page(found: Systems) -> str:
    """All of it as one page."""
    shared = [one for one in (shared_paces(found), shared_accuracies(found)) if one is not None]
    names = list(found.lanes)
    lanes = list(found.lanes.values())
    sections = [
        PlainSection("The systems", tables=(described(found), trained(found)), quiet=tuple(loads(found))),
        PlainSection(
            "What they did in common",
            lines=() if found.common else (summary(found),),
            figures=tuple(_figures(found.common, "common")) if found.common else (),
            tables=tuple(shared),
        ),
        *(
            PlainSection(f"{one.name} by itself", figures=tuple(_figures(own, _slug(one.name), one.name)))
            for one, own in _each(found)
        ),
        PlainSection(
            "Is it fair?",
            tables=(fairness.differences(lanes, names), fairness.manifests(lanes, names)),
        ),
    ]
    title = " and ".join(one.name for one in found.systems)
    return plain_page.page(f"Side by side: {title}", "harness report", [summary(found), NOT_POOLED], sections)


def _each(found: Systems) -> zip[tuple[System, Analysis]]:
    return zip(found.systems, found.own, strict=True)


def _figures(found: Analysis, slug: str, system: str = "") -> list[Figure]:
    """Those of MAKERS that there is data for, titled by the system that they are of."""
    made = []
    for work in works(found):
        for one in (maker(work) for maker in MAKERS):
            if isinstance(one, Figure):
                own = one.of(work)
                apart = ", ".join(part for part in (system, work.heading) if part)
                words = replace(own.words, title=f"{apart}: {own.words.title}" if apart else own.words.title)
                made.append(replace(own, name=f"{slug}-{own.name}", words=words))
    return made


def _by_size(frame: pl.DataFrame) -> pl.DataFrame:
    """In the units that are shown, series of one batch size beside each other."""
    from harness.report import fields

    order = [name for name in ("epochs", "batch_size", "target") if name in frame.columns]
    return fields.display(frame).sort(order)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:MOST_SHOWN])
    return shown + (f" and {len(values) - MOST_SHOWN} more" if len(values) > MOST_SHOWN else "")
