"""How a device ran while a cell trained, and what energy that took: samples and blocks go in, a summary comes out.

Energy is a count that only grows (the driver's own, or else the sampled power added up), known at the samples and taken
to grow evenly between them. A block's energy is what it grew by in the block, so it is exact for a block much longer
than the time between samples, and, over many blocks that follow each other, for all of them together. Where
lanes take turns in shorter blocks, the count between two samples is a mix of all lanes: no lane gets energy then.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.record import Blocks, Record
from harness.machine.nvidia import throttle_names
from harness.machine.sampler import INTERVAL_SECONDS, Sample

SUMMARISED = (
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_celsius",
    "utilisation_percent",
    "power_watts",
    "memory_used_bytes",
)
"""Keys of a GPU's reading of which least, median and most are told."""

LONG_BLOCK_SECONDS = 4 * INTERVAL_SECONDS
"""A block of lanes in turns is long enough to have samples of its own."""

MIXED = "lanes took turns within the time between two samples, so power is that of all lanes and no lane's energy"

Window = tuple[float, float]


def windows(blocks: Blocks) -> list[Window]:
    """Begin and end of each ``train`` block, as far as it was timed, by the workers' clock."""
    spans = zip(blocks.kind, blocks.started, blocks.seconds, strict=False)
    return [(started, started + seconds) for kind, started, seconds in spans if kind == "train"]


def is_mixed(record: Record) -> bool:
    """Whether samples cannot be told apart from those of other lanes of the heat."""
    if record.heat.interleave != "block" or len(record.heat.cells) < 2:
        return False
    spans = windows(record.blocks)
    return not spans or statistics.median(end - start for start, end in spans) < LONG_BLOCK_SECONDS


def gpu_summary(samples: Sequence[Sample], spans: Sequence[Window], count: int, mixed: bool) -> dict[str, Any]:
    """Of one GPU over the time from the first to the last span; ``count``: images trained on in the spans.

    ``samples``: how many lie in that time. Per key of SUMMARISED its ``min``, ``median`` and ``max``;
    ``throttle_reasons``: all that were seen; ``energy_joules`` in the spans and ``energy_joules_per_image``, None where
    it cannot be told. Empty if no sample lies in that time.
    """
    inside = _inside(samples, spans)
    if not inside:
        return {}
    summary: dict[str, Any] = {"samples": len(inside)}
    for key in SUMMARISED:
        values = [sample.values[key] for sample in inside if key in sample.values]
        if values:
            summary[key] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    bits = 0
    for sample in inside:
        bits |= int(sample.values.get("throttle", 0))
    summary["throttle_reasons"] = throttle_names(bits)
    return {**summary, **energy(samples, spans, count, mixed)}


def energy(samples: Sequence[Sample], spans: Sequence[Window], count: int, mixed: bool) -> dict[str, float | None]:
    """Joules in the spans, and per image. None if ``mixed``, or where the samples do not enclose the spans."""
    joules = None if mixed else _joules(samples, spans)
    return {
        "energy_joules": joules,
        "energy_joules_per_image": joules / count if joules is not None and count else None,
    }


def process_memory(samples: Sequence[Sample], process: int | None) -> int | None:
    """The most bytes of device memory that the driver counted for a process; None where it did not tell."""
    told = (sample.values.get("processes", {}).get(process) for sample in samples)
    return max((used for used in told if used is not None), default=None)


def _inside(samples: Sequence[Sample], spans: Sequence[Window]) -> list[Sample]:
    if not spans:
        return []
    start, end = spans[0][0], spans[-1][1]
    return [sample for sample in samples if start <= sample.time <= end]


def _joules(samples: Sequence[Sample], spans: Sequence[Window]) -> float | None:
    counts = _growing(samples)
    if counts is None or not spans:
        return None
    times, joules = counts
    if times[0] > spans[0][0] or times[-1] < spans[-1][1]:
        return None
    begins, ends = np.array(spans).T
    return float((np.interp(ends, times, joules) - np.interp(begins, times, joules)).sum())


def _growing(samples: Sequence[Sample]) -> tuple[Any, Any] | None:
    """Times, and the energy that was used until then: the counter's, or power added up by trapezoids."""
    for key in ("energy_joules", "power_watts"):
        known = [sample for sample in samples if key in sample.values]
        if len(known) >= 2:
            times = np.array([sample.time for sample in known])
            values = np.array([sample.values[key] for sample in known], dtype=np.float64)
            if key == "power_watts":
                steps = np.diff(times) * (values[1:] + values[:-1]) / 2
                values = np.concatenate([[0.0], np.cumsum(steps)])
            return times, values
    return None
