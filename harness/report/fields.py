"""What a column of the analysis is called and in which unit a person reads it: once, for figures and tables alike.

``display`` turns a frame's values into those units; ``text`` writes one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report.headline import ABSENT, figure

if TYPE_CHECKING:
    import polars as pl

DIGITS = 6
"""Significant digits of a figure's data: more than can be seen, and a page of thousands of them stays small."""


def _plain(value: Any) -> str:
    return str(value)


def _count(value: Any) -> str:
    return f"{value:,}"


def _hundredths(value: Any) -> str:
    return f"{value:.2f}"


def _short(value: Any) -> str:
    return f"{value:g}"


def _yes(value: Any) -> str:
    return "yes" if value else "no"


@dataclass(frozen=True)
class Field:
    """``header``: name with unit. ``scale``: from the frame's unit to that one. ``written``: a value as text."""

    header: str
    scale: float = 1.0
    written: Callable[[Any], str] = figure
    numeric: bool = True


def _words(header: str) -> Field:
    return Field(header, written=_plain, numeric=False)


FIELDS = {
    "target": _words("target"),
    "base": _words("compared with"),
    "other": _words("other target"),
    "interval": _words("interval"),
    "regime": _words("regime"),
    "reason": _words("reason"),
    "phase": _words("phase"),
    "batch_size": Field("batch size", written=_plain),
    "batch_plan": _words("batch sizes"),
    "until_accuracy": Field("ends at accuracy, %", 100, _hundredths),
    "base_batch_size": Field("compared with batch size", written=_plain),
    "epochs": Field("epochs", written=_short),
    "epoch": Field("epoch", written=_short),
    "base_epochs": Field("after epochs", written=_plain),
    "most_epochs": Field("most epochs trained", written=_plain),
    "epochs_to_recover": Field("epochs to win it back"),
    "processes": Field("processes", written=_count),
    "heats": Field("heats", written=_count),
    "seeds": Field("seeds", written=_count),
    "reached": Field("seeds that reached it", written=_count),
    "not_finite": Field("diverged", written=_count),
    "diverged": Field("diverged", written=_count),
    "images": Field("images"),
    "images_per_second": Field("images per second"),
    "predicted_images_per_second": Field("predicted images per second"),
    "peak_images_per_second": Field("most images per second"),
    "seconds": Field("seconds of training"),
    "seconds_with_compile": Field("seconds with compiling"),
    "seconds_per_epoch": Field("seconds per epoch"),
    "seconds_per_step": Field("ms per step", 1e3),
    "other_seconds_per_step": Field("ms per step of the other", 1e3),
    "predicted_seconds_per_step": Field("predicted ms per step", 1e3),
    "steps_per_call": Field("steps per call", written=_plain),
    "calls": _words("steps per call measured"),
    "points": Field("times fitted", written=_count),
    "dispatch_seconds": Field("dispatch, ms", 1e3),
    "work_seconds": Field("work on images, ms per step", 1e3),
    "dispatch_share": Field("dispatch, % of a step", 100, _hundredths),
    "devices": Field("devices", written=_plain),
    "devices_measured": _words("devices measured"),
    "logical": Field("share processors", written=_yes, numeric=False),
    "speed_up": Field("times as fast as one device"),
    "efficiency": Field("efficiency, %", 100),
    "weak_efficiency": Field("efficiency at the batch size per device, %", 100),
    "predicted_speed_up": Field("predicted times as fast"),
    "reduction_share": Field("adding up over devices, % of a step", 100, _hundredths),
    "reduction_seconds": Field("adding up over devices, ms per step", 1e3),
    "pays_from": Field("batch size above which a second device pays, predicted"),
    "pays_from_measured": Field("and measured", written=_plain),
    "part": _words("part"),
    "share": Field("% of a step", 100, _hundredths),
    "overhead_seconds": Field("overhead, ms per step", 1e3),
    "seconds_per_image": Field("µs per image", 1e6),
    "half_overhead_batch": Field("batch size at which half is overhead"),
    "ninety_percent_batch": Field("batch size for 90 % of the most"),
    "largest_residual": Field("largest deviation, %", 100, _hundredths),
    "residual": Field("deviation from the model, %", 100, _hundredths),
    "measured": Field("measured", written=_yes, numeric=False),
    "fits": Field("fits", written=_yes, numeric=False),
    "at_most": Field("reached within the first epoch", written=_yes, numeric=False),
    "best": Field("best of its target", written=_yes, numeric=False),
    "accuracy": Field("accuracy, %", 100, _hundredths),
    "base_accuracy": Field("accuracy of that batch size, %", 100, _hundredths),
    "highest_accuracy": Field("highest accuracy, %", 100, _hundredths),
    "test_accuracy": Field("test accuracy, %", 100, _hundredths),
    "lost_points": Field("percentage points lost", written=_hundredths),
    "steps": Field("steps"),
    "steps_slope": Field("slope of steps (log-log)", written=_hundredths),
    "steps_ratio": Field("times the steps", written=lambda value: f"{value:.3f}"),
    "images_ratio": Field("times the images", written=lambda value: f"{value:.3f}"),
    "seconds_ratio": Field("times the seconds", written=lambda value: f"{value:.3f}"),
    "against_fixed": _words("in seconds, against fixed sizes"),
    "speed_ratio": Field("times as fast", written=lambda value: f"{value:.3f}"),
    "limit_share": Field("share of the device's limit, %", 100, _hundredths),
    "joules_per_image": Field("mJ per image, GPU", 1e3),
    "host_joules_per_image": Field("mJ per image, processors", 1e3),
    "peak_memory_bytes": Field("memory, MB", 1e-6),
    "import_seconds": Field("importing, s"),
    "initialise_seconds": Field("initialising, s"),
    "load_seconds": Field("loading data, s"),
    "build_seconds": Field("building, s"),
    "compile_seconds": Field("compiling, s"),
    "startup_seconds": Field("start-up, s"),
    "startup_difference_seconds": Field("starts later by, s"),
    "node": _words("node"),
    "seed": Field("seed", written=_plain),
    "repeat": Field("repeat", written=_plain),
    "exclusive": Field("node to itself", written=_yes, numeric=False),
    "other_jobs": Field("other jobs", written=_count),
    "load_1min": Field("load average", written=_hundredths),
    "other_processors": Field("processors busy with other programs", written=_hundredths),
    "stolen_processors": Field("processors taken by the host", written=_hundredths),
    "throttled_processors": Field("processors held back by a quota", written=_hundredths),
    "processor_quota": Field("processors allowed by the quota", written=_hundredths),
    "load_untold": _words("why other load is not known"),
    "taken_processors": Field("processors taken by other load", written=_hundredths),
    "preempted_share": Field("blocks that lost a processor, %", 100, _hundredths),
    "stolen_share": Field("time taken by the host, %", 100, _hundredths),
    "noise": Field("spread of the blocks' times, %", 100, _hundredths),
    "disturbed_cost": Field("cost of disturbances, %", 100, _hundredths),
    "relative_throughput": Field("throughput, % of the median", 100, _hundredths),
    "noise_scale": Field("noise scale, images"),
    "rate": Field("learning rate"),
    "rates": _words("learning rates"),
    "one_rate": Field("one learning rate for all", written=_short),
    "accuracy_at_one_rate": Field("accuracy at that one rate, %", 100, _hundredths),
    "brought_back_points": Field("percentage points brought back", written=_hundredths),
    "held_out_loss": Field("held-out loss"),
    "chosen": Field("chosen", written=_yes, numeric=False),
}


def header(name: str) -> str:
    """A column's name with its unit."""
    return FIELDS[name].header


def text(name: str, value: Any) -> str:
    """One value, in the unit of ``display``."""
    return ABSENT if value is None else FIELDS[name].written(value)


def display(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in the units of FIELDS, its ``_low`` and ``_high`` columns too; values that are not finite are null."""
    import polars as pl

    changed = []
    for name, kind in frame.schema.items():
        if kind.is_float():
            value = pl.col(name) * _scale(name)
            changed.append(pl.when(value.is_finite()).then(value.round_sig_figs(DIGITS)).alias(name))
    return frame.with_columns(changed)


def shown(name: str, value: float) -> float:
    """One value as ``display`` gives it."""
    scaled = value * _scale(name)
    if not scaled:
        return 0.0
    return round(scaled, DIGITS - 1 - math.floor(math.log10(abs(scaled))))


def _scale(name: str) -> float:
    plain = name.removesuffix("_low").removesuffix("_high")
    return FIELDS[plain].scale if plain in FIELDS else 1.0
