"""Figures of how fast: training time, throughput, steps and their model, start-up, limits, energy.

Each function takes a ``Work`` and gives its figure, or says why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis import statement
from harness.report import fields, vega
from harness.report.fields import header
from harness.report.figure import Absent, Figure, Words, diverged_note, only, present, several_sizes, told, why_no_curve
from harness.report.headline import beyond_limit, is_no_limit
from harness.report.works import Work

if TYPE_CHECKING:
    import polars as pl

PHASES = ("import_seconds", "initialise_seconds", "load_seconds", "build_seconds", "compile_seconds")

PARTS = {"dispatch_seconds": "dispatch", "overhead_seconds": "overhead", "work_seconds": "work on images"}
"""Columns of what a step waits for, and their names."""

_NO_TIMES = "no training was timed"
_NO_MODEL = "no target's steps take a fixed overhead plus a time per image"
_MODEL = (
    "Broken lines are a model fitted to the times: a fixed overhead per step plus a time per image. Hollow marks are "
    "predicted by it, not measured."
)


def training_time(work: Work) -> Figure | Absent:
    """Seconds per epoch against batch size: the study's first figure."""
    field = "seconds_per_epoch"
    title = "Training time: seconds per epoch against batch size"
    if not several_sizes(work.pace, field):
        return Absent(title, why_no_curve(work.pace, field, _NO_TIMES))
    columns = ("target", "batch_size", field, "processes", "interval")
    return _curves("training-time", title, "", work, work.pace, field, columns, log=True, unit=" s")


def throughput(work: Work) -> Figure | Absent:
    """Images per second against batch size, and what the fitted step model says of them."""
    field, predicted = "images_per_second", "predicted_images_per_second"
    title = "Throughput: images per second against batch size"
    if not several_sizes(work.pace, field):
        return Absent(title, why_no_curve(work.pace, field, _NO_TIMES))
    frame, note = _with_model(work), _MODEL if work.predicted.height else ""
    columns = ("target", "batch_size", field, predicted)
    return _curves("throughput", title, note, work, frame, field, columns, log=True, model=predicted)


def step_time(work: Work) -> Figure | Absent:
    """Milliseconds per step against batch size, with the model's line."""
    field, predicted = "seconds_per_step", "predicted_seconds_per_step"
    title = "Step time: milliseconds per training step against batch size"
    if not several_sizes(work.pace, field):
        return Absent(title, why_no_curve(work.pace, field, _NO_TIMES))
    frame, note = _with_model(work), _MODEL if work.predicted.height else ""
    columns = ("target", "batch_size", field, predicted)
    return _curves("step-time", title, note, work, frame, field, columns, log=True, unit=" ms", model=predicted)


def step_residuals(work: Work) -> Figure | Absent:
    """How far each measured step is from the fitted model, in percent."""
    title = "Where the step model fails: measured against predicted time of a step"
    frame = work.predicted.filter(work.predicted["residual"].is_not_null())
    if frame.is_empty():
        return Absent(title, _NO_MODEL)
    sizes = sorted(frame["batch_size"].unique())
    x, y = vega.sizes(sizes), vega.quantity("residual", "percent slower than the model", zero=True)
    looks = vega.look(work.targets, present(work, frame))
    columns = ("target", "batch_size", "seconds_per_step", "predicted_seconds_per_step", "residual")
    layers = [vega.guide_line(y), vega.line(x, y, looks), vega.points(x, y, looks, vega.tooltip(*columns))]
    words = Words(title, told(frame, "batch_size", "residual", "at batch size {}", " %"))
    note = "A curve that bends away from 0 shows that a step is more than a fixed overhead plus a time per image."
    return Figure("step-residuals", words, note, vega.chart(frame, layers, height=200), frame, columns)


def what_a_step_waits_for(work: Work) -> Figure | Absent:
    """Of each batch size the parts of a step's time with the fewest steps per call: dispatch, overhead, images."""
    import polars as pl

    title = "What a step waits for: shares of its time"
    frame = work.waits
    if frame.is_empty():
        known = [f"{row['target']}: {row['reason']}" for row in work.dispatch.to_dicts()]
        return Absent(title, "; ".join(known) or "only one number of steps per call was measured (--steps-per-call)")
    frame = frame.filter(pl.col("steps_per_call") == pl.col("steps_per_call").min().over("target"))
    whole = pl.sum_horizontal(list(PARTS))
    shares = frame.select(
        "target",
        "batch_size",
        pl.format("{}, batch size {}", "target", "batch_size").alias("row"),
        *((100 * pl.col(part) / whole).alias(name) for part, name in PARTS.items()),
    )
    long = shares.unpivot(list(PARTS.values()), index=["target", "batch_size", "row"], variable_name="part")
    long = long.rename({"value": "share"}).with_columns(
        pl.col("part").replace_strict({name: place for place, name in enumerate(PARTS.values())}).alias("place")
    )
    order = list(PARTS.values())
    colour = {
        "field": "part",
        "type": "ordinal",
        "scale": {"domain": order},
        "sort": order,
        "legend": {"title": None, "symbolType": "square"},
    }
    rows = {"field": "row", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 300}}
    bars = {
        "mark": {"type": "bar", "height": {"band": 0.62}},
        "encoding": {
            "y": rows,
            "x": vega.quantity("share", "% of a step", zero=True, place="x"),
            "color": colour,
            "order": {"field": "place", "type": "quantitative"},
            "tooltip": vega.tooltip("target", "batch_size", "part", "share"),
        },
    }
    said = [
        f"{row['target']} at batch size {row['batch_size']}: "
        + ", ".join(f"{name} {fields.text('share', row[name])} %" for name in order)
        for row in shares.group_by("target", maintain_order=True).first().to_dicts()
    ]
    fewest = " or ".join(map(str, sorted(frame["steps_per_call"].unique())))
    note = (
        f"With {fewest} step{'' if fewest == '1' else 's'} per call. Dispatch is what a call costs however many steps "
        "it has; overhead, what a step costs whatever its batch. Fitted over both together."
    )
    columns = ("target", "batch_size", "seconds_per_step", *PARTS, "dispatch_share")
    height = 26 * shares.height + 24
    words = Words(title, "; ".join(said) + ".")
    return Figure("waits", words, note, vega.chart(long, [bars], height=height), frame, columns)


def speed_up(work: Work) -> Figure | Absent:
    """Speed on several devices over that on one, at the same batch size."""
    field, title = "speed_up", "Several devices: times as fast as one, against batch size"
    frame = work.device_scaling.filter(work.device_scaling["speed_up"].is_not_null())
    if frame.is_empty():
        return Absent(title, "no target was trained on one device and on several")
    note = f"{statement.LOGICAL}." if frame["logical"].any() else ""
    columns = ("target", "batch_size", "devices", field, "efficiency", "reduction_share", "heats")
    return _curves("speed-up", title, note, work, frame, field, columns)


def limit_share(work: Work) -> Figure | Absent:
    """The share of the device's largest rate of operations that training reached."""
    field, title = "limit_share", "Share of the device's limit against batch size"
    if not several_sizes(work.pace, field):
        return Absent(title, why_no_curve(work.pace, field, "the device's limit was not measured"))
    parts = work.pace.drop_nulls(field).partition_by("target")
    beyond = [part["target"][0] for part in parts if is_no_limit(share / 100 for share in part[field])]
    lacking = " ".join(f"Of {target} nothing is shown. {beyond_limit(target)}" for target in beyond)
    frame = work.pace.filter(~work.pace["target"].is_in(beyond))
    if beyond and not several_sizes(frame, field):
        return Absent(title, lacking[0].lower() + lacking[1:].removesuffix("."))
    note = "The model's operations per second, in percent of what matrix products reach at their best on this device."
    columns = ("target", "batch_size", field, "images_per_second")
    return _curves("limit-share", title, f"{note} {lacking}".strip(), work, frame, field, columns, unit=" %")


def energy(work: Work) -> Figure | Absent:
    """Energy per image: of the GPU where one is known to have used some, else of the processors."""
    title = "Energy per image against batch size"
    for field, whose in (("joules_per_image", "GPU"), ("host_joules_per_image", "processors")):
        if several_sizes(work.pace, field):
            named = f"Energy: millijoules of the {whose} per image, against batch size"
            columns = ("target", "batch_size", field, "images_per_second")
            return _curves("energy", named, "", work, work.pace, field, columns, unit=" mJ")
    nothing = "no counter of energy could be read"
    one = [name for name in ("joules_per_image", "host_joules_per_image") if work.pace[name].count()]
    return Absent(title, why_no_curve(work.pace, one[0], nothing) if one else nothing)


def startup(work: Work) -> Figure | Absent:
    """Seconds before the first ordinary step, phase by phase."""
    import polars as pl

    title = "Start-up: seconds before training is under way"
    frame = work.startup.filter(work.startup["startup_seconds"].is_not_null())
    if frame.is_empty():
        return Absent(title, "no start was measured from beginning to end")
    names = {phase: header(phase).removesuffix(", s") for phase in PHASES if phase in frame.columns}
    long = frame.unpivot(list(names), index="target", variable_name="phase", value_name="seconds").drop_nulls()
    places = {phase: place for place, phase in enumerate(names)}
    long = long.with_columns(
        long["phase"].replace(names), long["phase"].replace_strict(places, return_dtype=pl.Int64).alias("place")
    )
    order = list(names.values())
    colour = {
        "field": "phase",
        "type": "ordinal",
        "scale": {"domain": order},
        "sort": order,
        "legend": {"title": None, "symbolType": "square"},
    }
    bars = {
        "mark": {"type": "bar", "height": {"band": 0.62}},
        "encoding": {
            "y": {"field": "target", "type": "nominal", "title": None, "axis": {"labelLimit": 200}},
            "x": vega.quantity("seconds", "seconds", zero=True, place="x"),
            "color": colour,
            "order": {"field": "place", "type": "quantitative"},
            "tooltip": vega.tooltip("target", "phase", "seconds"),
        },
    }
    said = [
        f"{row['target']} takes {fields.text('startup_seconds', row['startup_seconds'])} s, of which "
        + ", ".join(f"{name} {fields.text(phase, row[phase])} s" for phase, name in names.items())
        for row in frame.sort("target").to_dicts()
    ]
    return Figure(
        "startup",
        Words(title, "; ".join(said) + "."),
        "A process imports once, however much it trains, and compiles once for each shape of a batch.",
        vega.chart(long, [bars], height=44 * frame.height + 24),
        frame,
        ("target", *names, "startup_seconds"),
    )


def _curves(
    name: str,
    title: str,
    note: str,
    work: Work,
    frame: pl.DataFrame,
    field: str,
    columns: Sequence[str],
    *,
    log: bool = False,
    unit: str = "",
    model: str = "",
) -> Figure:
    """A curve per target against batch size; with ``model``, a field, its curve and where nothing else is known."""
    sizes, diverged = sorted(frame["batch_size"].unique()), diverged_note(frame)
    columns = (*columns, "diverged") if diverged else tuple(columns)
    y = vega.magnitude(frame, field, header(field)) if log else vega.quantity(field, header(field), zero=True)
    x = vega.sizes(sizes)
    looks, tooltip = vega.look(work.targets, present(work, frame)), vega.tooltip(*columns)
    modelled = {target for target, value in frame.select("target", model).rows() if value} if model else set()
    layers = []
    if modelled:
        fitted = {**y, "field": model}
        layers = [
            vega.line(x, fitted, looks, strokeDash=[5, 4], strokeWidth=1.5),
            *vega.only_unknown(frame, field, vega.points(x, fitted, looks, tooltip, hollow=True)),
        ]
    layers += [
        vega.line(x, y, looks, **({"strokeWidth": 1, "opacity": 0.45} if modelled else {})),
        *vega.intervals(frame, x, y, looks),
        vega.points(x, y, looks, tooltip),
    ]
    values = only(frame, columns)
    words = Words(title, told(frame, "batch_size", field, "at batch size {}", unit))
    note = " ".join(part for part in (vega.intervals_note(frame, field), note, diverged) if part)
    return Figure(name, words, note, vega.chart(values, layers), values, columns)


def _with_model(work: Work) -> pl.DataFrame:
    """Paces beside what the step model predicts, also for batch sizes that were not measured."""
    names = ("target", "batch_size", "predicted_seconds_per_step", "predicted_images_per_second")
    joined = work.pace.join(work.predicted.select(names), on=names[:2], how="full", coalesce=True)
    return joined.sort("target", "batch_size")
