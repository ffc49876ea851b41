"""All that is computed of a run's records: every table and the advice, or what a terminal shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from harness.analysis import accuracy as reached
from harness.analysis import advice as advising
from harness.analysis import devices, dispatch, plans_to_accuracy, step_model
from harness.analysis import other_load as others
from harness.analysis import pace as paces
from harness.analysis import startup as starting
from harness.analysis.accuracy import Curve
from harness.analysis.advice import Advice, Obstacles
from harness.analysis.beside_one_rate import beside_one_rate
from harness.analysis.cells import agreement
from harness.analysis.collected import Collected
from harness.analysis.machines import Facts, several, side_by_side
from harness.analysis.other_load import Blame
from harness.analysis.plans import plans
from harness.analysis.tables import WORK


@dataclass(frozen=True)
class Analysis:
    """All that is computed of a run.

    ``accuracy``: the test accuracy looked at, ``asked`` whether a person named it; ``accuracies``: those that
    ``time_to_accuracy`` has rows for, descending. Frames: ``cells`` and ``epochs`` (``Collected``), ``agreement``,
    ``pace``, ``ratios``, ``step_model``, ``predicted``, ``dispatch``, ``waits``, ``device_scaling``, ``device_time``,
    ``accuracy_by_size``,
    ``beside_one_rate``, ``recovery``, ``time_to_accuracy``, ``startup``, ``catch_up``, ``other_load`` and, of what
    several machines trained, ``side_by_side``; of cells whose batch size changes only ``cells``, ``epochs``,
    ``agreement``, ``plans`` and ``plans_to_accuracy`` tell.
    ``machines``: id -> facts. ``blame``: of each machine whether other load was to blame, none where
    no record tells of it.
    """

    cells: pl.DataFrame
    epochs: pl.DataFrame
    agreement: pl.DataFrame
    accuracy: float
    asked: bool
    accuracies: tuple[float, ...]
    pace: pl.DataFrame
    ratios: pl.DataFrame
    step_model: pl.DataFrame
    predicted: pl.DataFrame
    dispatch: pl.DataFrame
    waits: pl.DataFrame
    device_scaling: pl.DataFrame
    device_time: pl.DataFrame
    accuracy_by_size: pl.DataFrame
    beside_one_rate: pl.DataFrame
    recovery: pl.DataFrame
    time_to_accuracy: pl.DataFrame
    startup: pl.DataFrame
    catch_up: pl.DataFrame
    side_by_side: pl.DataFrame
    other_load: pl.DataFrame
    plans: pl.DataFrame
    plans_to_accuracy: pl.DataFrame
    machines: dict[str, Facts]
    blame: tuple[Blame, ...]
    advice: tuple[Advice, ...]


@dataclass(frozen=True)
class Outline:
    """Of an ``Analysis`` what a terminal shows, under the same names: no fits, so it takes a fraction of the time.

    But for what several devices bring, where there are such.
    """

    cells: pl.DataFrame
    accuracy: float
    agreement: pl.DataFrame
    beside_one_rate: pl.DataFrame
    side_by_side: pl.DataFrame
    machines: dict[str, Facts]
    blame: tuple[Blame, ...]
    plans: pl.DataFrame
    plans_to_accuracy: pl.DataFrame
    device_scaling: pl.DataFrame
    device_time: pl.DataFrame


def analyse(collected: Collected, accuracy: float | None = None, obstacles: Obstacles | None = None) -> Analysis:
    """Compute everything.

    ``accuracy``: the test accuracy that matters, a share of one; without one ``accuracy.accuracies`` chooses.
    ``obstacles``: WORK -> why its targets must not be compared with each other (``harness.analysis.manifest.obstacles``
    of the records that ``comparable`` names); the advice keeps them apart then.
    """
    fixed = collected.fixed()
    curves, curves_of_plans = reached.curves(fixed), reached.curves(collected.changing(), by="batch_plan")
    chosen, ladder = reached.accuracies(curves or curves_of_plans, accuracy)
    pace = paces.pace(fixed.cells)
    models, predicted = step_model.models(pace)
    dispatched, waits = dispatch.waits(pace)
    device_scaling, device_time = devices.scaling(fixed.cells)
    ratios = paces.ratios(fixed.cells)
    reaching = reached.reaching(curves, ladder)
    other_load = others.by_record(fixed.cells, fixed.disturbances)
    return Analysis(
        cells=collected.cells,
        epochs=collected.epochs,
        agreement=agreement(collected.cells),
        accuracy=chosen,
        asked=accuracy is not None,
        accuracies=ladder,
        pace=pace,
        ratios=ratios,
        step_model=models,
        predicted=predicted,
        dispatch=dispatched,
        waits=waits,
        device_scaling=device_scaling,
        device_time=device_time,
        accuracy_by_size=reached.by_size(fixed.cells),
        beside_one_rate=beside_one_rate(fixed.cells),
        recovery=reached.recovery(fixed, curves),
        time_to_accuracy=reaching,
        startup=starting.startup(fixed.cells),
        catch_up=starting.catch_up(pace),
        side_by_side=side_by_side(pace),
        other_load=other_load,
        plans=plans(collected),
        plans_to_accuracy=plans_to_accuracy.to_accuracy(curves, curves_of_plans, ladder),
        machines=collected.machines,
        blame=others.blame(fixed.cells, other_load, collected.machines),
        advice=tuple(
            advising.advise(
                fixed,
                curves,
                chosen,
                accuracy is not None,
                reaching,
                pace,
                ratios,
                predicted,
                obstacles or {},
                _proven(collected, curves_of_plans),
            )
        ),
    )


def _proven(
    collected: Collected, curves_of_plans: Mapping[tuple[Any, ...], Sequence[Curve]]
) -> dict[tuple[Any, ...], Sequence[Curve]]:
    """Those of which no cell should have been proven at its batch sizes and was not."""
    unsized = collected.cells.filter(pl.col("sized_steps") == 0).select(*WORK, "target", "batch_plan")
    places = set(unsized.rows())
    return {place: own for place, own in curves_of_plans.items() if place not in places}


def outline(collected: Collected, accuracy: float | None = None) -> Outline:
    """Compute what a terminal shows. ``plans_to_accuracy`` is there of one accuracy only: as ``analyse`` chooses it."""
    fixed = collected.fixed()
    curves_of_plans = reached.curves(collected.changing(), by="batch_plan")
    curves = reached.curves(fixed) if curves_of_plans else {}
    chosen, _ = reached.accuracies(curves or curves_of_plans, accuracy)
    cells = fixed.cells
    other_load = others.by_record(cells, fixed.disturbances)
    device_scaling, device_time = devices.scaling(cells)
    return Outline(
        cells=collected.cells,
        accuracy=chosen,
        agreement=agreement(collected.cells),
        beside_one_rate=beside_one_rate(cells),
        side_by_side=side_by_side(paces.pace(cells if several(cells) else cells.clear())),
        machines=collected.machines,
        blame=others.blame(cells, other_load, collected.machines),
        plans=plans(collected),
        plans_to_accuracy=plans_to_accuracy.to_accuracy(curves, curves_of_plans, [chosen]),
        device_scaling=device_scaling,
        device_time=device_time,
    )
