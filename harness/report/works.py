"""The analysis cut into works: one for every model, dataset, optimizer and precision that a run compares targets on.

Comes out: ``Work``, the frames of one of them in the units of ``fields.display``, limited to what a figure can show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis import WORK
from harness.report import fields
from harness.report.headline import works_apart
from harness.report.learning_rates import searches_of

if TYPE_CHECKING:
    import polars as pl

    from harness.analysis import Analysis
    from harness.analysis.reading import NoiseScale, RateSearch

MOST_TARGETS = 16
"""In figures: their marks and names could not be told apart in a crowd."""

MOST_POINTS = 160
"""Of all targets in one figure, for each accuracy or number of epochs."""

FEWEST_SIZES = 8
MOST_CURVES = 4
"""Learning curves of one target: seeds beyond these add ink, not knowledge."""


@dataclass(frozen=True)
class Work:
    """One work's frames, with the columns that ``harness.analysis`` gives them.

    ``heading`` and ``slug`` are empty where a run has one work only. ``targets``: all of the run, which decide
    on looks; ``shown``: those in this work's figures. ``left_out``: what the figures do not show, a sentence each.
    ``accuracy`` and ``accuracies`` in percent. ``at_once``: those that every batch size reached within its first epoch,
    where there is nothing to see; they are neither among ``accuracies`` nor in ``time_to_accuracy``. ``rates``: the
    searches for its learning rates, by batch size. ``learning_rate`` and ``scaling``: those of WORK.
    """

    heading: str
    slug: str
    targets: tuple[str, ...]
    shown: tuple[str, ...]
    left_out: tuple[str, ...]
    accuracy: float
    accuracies: tuple[float, ...]
    at_once: tuple[float, ...]
    pace: pl.DataFrame
    step_model: pl.DataFrame
    predicted: pl.DataFrame
    dispatch: pl.DataFrame
    waits: pl.DataFrame
    device_scaling: pl.DataFrame
    device_time: pl.DataFrame
    ratios: pl.DataFrame
    accuracy_by_size: pl.DataFrame
    beside_one_rate: pl.DataFrame
    recovery: pl.DataFrame
    time_to_accuracy: pl.DataFrame
    startup: pl.DataFrame
    catch_up: pl.DataFrame
    plans: pl.DataFrame
    plans_to_accuracy: pl.DataFrame
    curves: pl.DataFrame
    noise: pl.DataFrame
    rates: tuple[RateSearch, ...]
    learning_rate: float
    scaling: str


def works(found: Analysis, noise: Sequence[NoiseScale] = (), rates: Sequence[RateSearch] = ()) -> Iterator[Work]:
    """Every work of a run on each machine, in the order of its cells; each is made when it is taken."""
    keys, names = _keys(found.cells)
    targets = tuple(sorted(found.cells["target"].unique()))
    parts = {name: _parts(getattr(found, name)) for name in _FRAMES}
    curves = _curves(found)
    curves_of = _parts(curves)
    headings = works_apart([{**row, "node": names.get(row["machine"], "")} for row in keys.to_dicts()])
    slugs = _slugs(headings)
    for key, heading, slug in zip(keys.rows(), headings, slugs, strict=True):
        own = {name: part.get(key, getattr(found, name).clear()) for name, part in parts.items()}
        own["curves"] = curves_of.get(key, curves.clear())
        yield _work(found, key, heading, slug, targets, own, _noise(noise, key), searches_of(rates, key))


def count(found: Analysis) -> int:
    """How many ``works`` there are."""
    return _keys(found.cells)[0].height


def _keys(cells: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """What tells works apart, and machine -> its node; without works that never ran on any of several machines."""
    import polars as pl

    names = {machine: node for machine, node, steps in cells.select("machine", "node", "steps").rows() if steps}
    kept = cells.filter((pl.col("machine") != "") | (len(names) < 2) | (pl.col("steps") > 0))
    return kept.select(WORK).unique(maintain_order=True), names


_FRAMES = (
    "pace",
    "step_model",
    "predicted",
    "dispatch",
    "waits",
    "device_scaling",
    "device_time",
    "ratios",
    "accuracy_by_size",
    "beside_one_rate",
    "recovery",
    "time_to_accuracy",
    "startup",
    "catch_up",
    "plans",
    "plans_to_accuracy",
)


_OF_TARGETS = ("pace", "accuracy_by_size", "startup", "plans")
"""Frames whose targets are those of figures."""

_OF_CELLS = ("curves", "plans", "plans_to_accuracy")
"""Frames that are not by batch size, whatever columns they have."""

_OF_CALLS = ("dispatch", "waits", "device_time")
"""Frames of targets that differ in their steps per call, or devices, alone, which stand under one name there."""


def _parts(frame: pl.DataFrame) -> dict[tuple[Any, ...], pl.DataFrame]:
    return frame.partition_by(WORK, as_dict=True, maintain_order=True) if frame.height else {}


def _work(
    found: Analysis,
    key: tuple[Any, ...],
    heading: str,
    slug: str,
    targets: tuple[str, ...],
    own: dict[str, pl.DataFrame],
    noise: pl.DataFrame,
    rates: tuple[RateSearch, ...],
) -> Work:
    import polars as pl

    pace = own["pace"]
    present = sorted({target for name in _OF_TARGETS for target in own[name]["target"]})
    shown, left_out = present, []
    if len(present) > MOST_TARGETS:
        rate = pl.col("images_per_second")
        fastest = pace.group_by("target").agg(rate.max()).sort("images_per_second", "target", descending=[True, False])
        shown = sorted(fastest["target"].head(MOST_TARGETS))
        left_out.append(f"the figures show the {MOST_TARGETS} fastest of {len(present):,} targets")
    sizes = sorted({*pace["batch_size"], *own["accuracy_by_size"]["batch_size"]})
    most = max(FEWEST_SIZES, MOST_POINTS // max(1, len(shown)))
    kept = sizes
    if len(sizes) > most:
        kept = sorted({sizes[round(place * (len(sizes) - 1) / (most - 1))] for place in range(most)})
        left_out.append(f"the figures show {len(kept)} of {len(sizes):,} batch sizes, spread over all")
    dropped = set(sizes) - set(kept)
    cut = {
        name: frame if name in _OF_CALLS else _cut(frame, shown, () if name in _OF_CELLS else dropped)
        for name, frame in own.items()
    }
    reached = pl.col("at_most").all().over("accuracy") & (pl.col("accuracy") != found.accuracy)
    reaching = fields.display(cut.pop("time_to_accuracy").with_columns(reached.alias("reached_at_once")))
    ladder = {
        kind: part["accuracy"].unique()
        for (kind,), part in reaching.partition_by("reached_at_once", as_dict=True).items()
    }
    return Work(
        heading=heading,
        slug=slug,
        targets=targets,
        shown=tuple(shown),
        left_out=tuple(left_out),
        accuracy=fields.shown("accuracy", found.accuracy),
        accuracies=tuple(sorted(ladder.get(False, ()), reverse=True)),
        at_once=tuple(sorted(ladder.get(True, ()), reverse=True)),
        noise=fields.display(noise),
        rates=rates,
        learning_rate=key[WORK.index("learning_rate")],
        scaling=key[WORK.index("scaling")],
        time_to_accuracy=reaching.filter(~pl.col("reached_at_once")).drop("reached_at_once"),
        **{name: fields.display(frame) for name, frame in cut.items()},
    )


def _cut(frame: pl.DataFrame, targets: Sequence[str], dropped: Collection[int]) -> pl.DataFrame:
    import polars as pl

    kept = frame.filter(pl.col("target").is_in(list(targets)))
    return kept.filter(~pl.col("batch_size").is_in(list(dropped))) if "batch_size" in frame.columns else kept


def _curves(found: Analysis) -> pl.DataFrame:
    """Epoch by epoch at each target's best batch size and most epochs, and of each of its plans of batch sizes.

    Columns: WORK, target, batch_size, batch_plan, seed, cell_id, ...

    The best is the one that comes to the accuracy looked at soonest, else the one with the highest final
    accuracy of those that did not diverge.
    """
    import polars as pl

    on = [*WORK, "target"]
    soonest = found.time_to_accuracy.filter(pl.col("best"), pl.col("accuracy") == found.accuracy)
    soonest = soonest.select(*on, "batch_size").unique(on, keep="first", maintain_order=True)
    plan = pl.col("batch_plan")
    ended = found.cells.filter(pl.col("status") == "ok")
    finished = ended.filter(plan == "", pl.col("final_accuracy").is_not_null(), ~pl.col("diverged"))
    highest = finished.sort("final_accuracy", descending=True, maintain_order=True)
    highest = highest.select(*on, "batch_size").unique(on, keep="first", maintain_order=True)
    best = pl.concat([soonest, highest.join(soonest, on=on, how="anti", nulls_equal=True)])
    cells = ended.filter(plan == "").join(best, on=[*on, "batch_size"], nulls_equal=True)
    both = pl.concat([cells, ended.filter(plan != "")])
    line = [*on, "batch_plan"]
    longest = both.filter(pl.col("epochs") == pl.col("epochs").max().over(line)).sort("seed", "repeat")
    kept = longest.group_by(line, maintain_order=True).head(MOST_CURVES)
    columns = [*on, "batch_size", "batch_plan", "seed", "cell_id", "diverged"]
    return kept.select(columns).join(found.epochs, on="cell_id").sort(*line, "seed", "cell_id", "epoch")


def _noise(points: Sequence[NoiseScale], key: tuple[Any, ...]) -> pl.DataFrame:
    """Those of one work that could be measured: its scaling, precision and machine are not a noise scale's affair."""
    import polars as pl

    columns = {
        "target": pl.String,
        "batch_size": pl.Int64,
        "epoch": pl.Float64,
        "noise_scale": pl.Float64,
        "noise_scale_low": pl.Float64,
        "noise_scale_high": pl.Float64,
    }
    rows = [
        (one.target, one.trained_batch_size, one.epoch, found.noise_scale, found.low, found.high)
        for one in points
        if (found := one.estimate) is not None and found.noise_scale is not None
        if (one.model, one.dataset, one.train_examples, one.optimizer, one.learning_rate) == key[:5]
    ]
    return pl.DataFrame(rows, schema=columns, orient="row").sort("target", "batch_size", "epoch")


def _slugs(headings: Sequence[str]) -> list[str]:
    """Headings as parts of file names, no two alike."""
    plain = [re.sub(r"[^a-z0-9.]+", "-", heading.lower()).strip("-.")[:60] for heading in headings]
    return [
        slug if plain.count(slug) == 1 else f"{slug}-{number}".strip("-") for number, slug in enumerate(plain, start=1)
    ]
