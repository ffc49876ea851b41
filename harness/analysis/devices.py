"""What more devices bring at each batch size: speed-up, efficiency, and where a step's time goes.

The batch stays the same whatever the number N of devices, which share it (strong scaling); where batches grew with N,
how much of the pace is kept (weak scaling). The model of a step's time
is t(B, N) = overhead + B / N x cost + reduction where N > 1: what a step costs whatever its batch, what an image costs
on the device that has it, and what devices cost beside by adding up over them. Over several batch sizes and numbers of
devices, one among them, these can be told apart. Targets that differ in their number of devices alone belong together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.analysis import surface
from harness.analysis.intervals import Bounds, geometric
from harness.analysis.pace import timed
from harness.analysis.statement import shares_processors
from harness.analysis.step_model import LARGEST_RESIDUAL, OUTLIERS
from harness.analysis.tables import WORK, Row, bounded, frame, grouped, work_of
from harness.core.cell import label_and_devices

FEWEST_POINTS = 6
"""Pairs of batch size and number of devices for three numbers to have something to be held against."""

FEWEST_SIZES = 2
"""Different batch sizes among them."""

_STARTS = ([0.3, 0.5, 0.3], [0.9, 0.1, 0.05], [0.05, 1.0, 0.05], [0.1, 0.8, 0.9])

_SPEED_UP: dict[str, Any] = {
    "target": pl.String,
    "base": pl.String,
    "batch_size": pl.Int64,
    "devices": pl.Int64,
    "logical": pl.Boolean,
    "heats": pl.Int64,
    **bounded("speed_up"),
    **bounded("efficiency"),
    "weak_efficiency": pl.Float64,
    "predicted_speed_up": pl.Float64,
    "reduction_share": pl.Float64,
}
_MODEL: dict[str, Any] = {
    "target": pl.String,
    "devices_measured": pl.String,
    "logical": pl.Boolean,
    "points": pl.Int64,
    "fits": pl.Boolean,
    "reason": pl.String,
    **bounded("overhead_seconds"),
    **bounded("seconds_per_image"),
    **bounded("reduction_seconds"),
    "largest_residual": pl.Float64,
    "pays_from": pl.Float64,
    "pays_from_measured": pl.Int64,
}

Times = dict[tuple[int, int], dict[Hashable, float]]
"""(batch size, devices) -> heat -> log of seconds of a step."""


@dataclass(frozen=True)
class DeviceTime:
    """The three numbers in seconds, each with its interval; ``residuals``: measured over predicted, less 1."""

    overhead: Bounds
    per_image: Bounds
    reduction: Bounds
    residuals: tuple[float, ...]

    def seconds(self, batch_size: float, devices: int) -> float:
        """The model's time of a step."""
        overhead, per_image, reduction = (one[0] or 0.0 for one in (self.overhead, self.per_image, self.reduction))
        return overhead + batch_size / devices * per_image + (reduction if devices > 1 else 0.0)

    @property
    def pays_from(self) -> float | None:
        """The batch size above which a second device makes a step shorter; None where images cost nothing."""
        per_image, reduction = self.per_image[0], self.reduction[0]
        return 2 * (reduction or 0.0) / per_image if per_image else None


def fit(batch_sizes: Sequence[float], devices: Sequence[int], seconds: Sequence[float]) -> DeviceTime:
    """The model through the times of steps, none of its numbers negative (``surface.fit``).

    ValueError where ``problem_of`` has one, and for values that are not positive.
    """
    sizes, counts, times = (np.asarray(one, dtype=np.float64) for one in (batch_sizes, devices, seconds))
    problem = problem_of(batch_sizes, devices)
    if problem or not all((axis > 0).all() for axis in (sizes, counts, times)):
        raise ValueError(problem or "expected positive values")
    columns = np.stack([np.ones(len(times)), sizes / counts, counts > 1], axis=1)
    units = np.array([times.min(), float(np.median(times * counts / sizes)), times.min()])
    (overhead, per_image, reduction), residuals = surface.fit(columns, times, units, _STARTS)
    return DeviceTime(overhead, per_image, reduction, residuals)


def problem_of(batch_sizes: Sequence[float], devices: Sequence[int]) -> str:
    """Why points are too few to be fitted; empty if they are enough."""
    if len(set(batch_sizes)) < FEWEST_SIZES:
        return f"too few batch sizes were measured: {len(set(batch_sizes))}, and at least {FEWEST_SIZES} are needed"
    if 1 not in devices:
        return "one device was not measured"
    if len(batch_sizes) < FEWEST_POINTS:
        return f"only {len(batch_sizes)} times of steps were measured, and at least {FEWEST_POINTS} are needed"
    return ""


def scaling(cells: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of each WORK and target that several numbers of devices trained: speed-ups, and the model of a step.

    ``speed_up``: speed over that of one device at the same batch size, from ``heats`` that trained both; the interval
    is Student's t over their log ratios, none for fewer than two. ``efficiency``: speed-up over the number of devices.
    ``weak_efficiency``: each device's pace over that of one device alone with a batch as large as each has (weak
    scaling): processes that did different work and took no turns, so there is no interval.
    ``logical``: the devices share the same processors, so that none of it says anything of real ones. Where the model
    fits, ``reduction_share`` is the share of the predicted step that devices cost beside. In the second frame
    ``pays_from`` is the model's batch size above which a second device makes a step shorter, and
    ``pays_from_measured`` the smallest batch size of those measured from which on two devices were faster at each, by
    the whole interval where there is one; of logical devices neither is given. There ``target`` is without its devices,
    as ``base`` is in the first.
    """
    rows: list[tuple[Any, ...]] = []
    models: list[tuple[Any, ...]] = []
    members = [{**row, **_split(row)} for row in timed(cells) if not row["lane"]]
    for (*work, target), own in grouped(members, lambda row: (*work_of(row), row["target"])).items():
        counts = sorted({row["devices"] for row in own})
        if counts == [1]:
            continue
        times = _times(own)
        labels = {row["devices"]: row["label"] for row in own}
        logical = any(shares_processors(row["accelerator"], row["label"]) for row in own)
        model, reason = _model(times)
        found = _speed_ups(times, None if reason else model)
        rows += [
            (*work, labels[count], target, size, count, logical, *values) for (size, count), values in found.items()
        ]
        said = ", ".join(map(str, counts))
        paying = _pays_from({size: values[1:4] for (size, count), values in found.items() if count == 2})
        fitted = (None,) * 11 if model is None else _numbers(model, reason)
        if logical:
            fitted, paying = (*fitted[:-1], None), None
        models.append((*work, target, said, logical, len(times), not reason, reason, *fitted, paying))
    order = (*WORK, "target")
    return frame(rows, _SPEED_UP).sort(*order, "batch_size", "devices"), frame(models, _MODEL).sort(*order)


def _split(row: Row) -> dict[str, Any]:
    alone, count = label_and_devices(row["target"])
    return {"label": row["target"], "target": alone, "devices": count}


def _times(own: Sequence[Row]) -> Times:
    found: Times = {}
    for row in own:
        heat = (row["work_id"], row["repeat"], row["heat"])
        seconds = row["batch_size"] / row["images_per_second"]
        found.setdefault((row["batch_size"], row["devices"]), {})[heat] = math.log(seconds)
    return found


def _model(times: Times) -> tuple[DeviceTime | None, str]:
    """The fitted model, and why it is not to be believed; empty if it is."""
    sizes, counts = [size for size, _ in times], [count for _, count in times]
    if problem := problem_of(sizes, counts):
        return None, problem
    seconds = [math.exp(_mean(heats)) for heats in times.values()]
    model = fit(sizes, counts, seconds)
    far = [(place, left) for place, left in zip(times, model.residuals, strict=True) if abs(left) > LARGEST_RESIDUAL]
    if len(far) <= OUTLIERS * len(times):
        return model, ""
    (size, count), left = max(far, key=lambda one: abs(one[1]))
    return model, (
        f"the time of a step is no overhead, cost of a device's own images and reduction: at batch size {size} on "
        f"{count} it is {100 * abs(left):.0f} % {'above' if left > 0 else 'below'} the nearest such time"
    )


def _mean(heats: Mapping[Hashable, float]) -> float:
    return sum(heats.values()) / len(heats)


def _speed_ups(times: Times, model: DeviceTime | None) -> dict[tuple[int, int], tuple[Any, ...]]:
    """(batch size, devices) -> the columns from ``heats`` on."""
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    for (size, count), heats in times.items():
        alone, own_part = times.get((size, 1), {}), times.get((size // count, 1), {}) if size % count == 0 else {}
        shared = sorted(heats.keys() & alone.keys(), key=str)
        if count == 1 or not (shared or own_part):
            continue
        ratio = geometric([math.exp(alone[heat] - heats[heat]) for heat in shared]) if shared else (None, None, None)
        weak = math.exp(_mean(own_part) - _mean(heats)) if own_part else None
        efficiency = tuple(None if value is None else value / count for value in ratio)
        predicted = share = None
        if model is not None:
            step = model.seconds(size, count)
            predicted, share = model.seconds(size, 1) / step, (model.reduction[0] or 0.0) / step
        found[size, count] = (len(shared), *ratio, *efficiency, weak, predicted, share)
    return found


def _pays_from(by_size: Mapping[int, tuple[Any, ...]]) -> int | None:
    """Of batch size -> speed-up of two devices with its interval, the smallest from which on all are above 1."""
    paying = None
    for size in sorted(by_size, reverse=True):
        value, low, _ = by_size[size]
        if value is None:
            continue
        if (value if low is None else low) <= 1:
            break
        paying = size
    return paying


def _numbers(model: DeviceTime, reason: str) -> tuple[Any, ...]:
    largest = max(abs(left) for left in model.residuals)
    if reason:
        return (*(None,) * 9, largest, None)
    return (*model.overhead, *model.per_image, *model.reduction, largest, model.pays_from)
