"""Claim 1: a larger batch cuts training time on this system. Where that stops, with an interval: the knee."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from harness.analysis.pace import timed
from harness.analysis.step_model import NEARLY_PEAK
from harness.analysis.study.answers import (
    FAILS,
    HOLDS,
    NOTABLE,
    UNTOLD,
    ClaimAnswer,
    ClaimTable,
    Logs,
    any_beyond,
    assumed,
    by_work_and_target,
    gain,
    seeds_of,
    spread_of,
    subjects,
    times,
)
from harness.analysis.systems import System, run_number
from harness.analysis.tables import Row
from harness.statistics import Interval


def answers(system: System) -> list[ClaimAnswer]:
    """One for each work and target of a system whose pace was measured."""
    found = by_work_and_target(timed(system.collected.fixed().cells))
    names, spread = subjects(list(found)), spread_of(system)
    return [_answer(system.name, names[place], str(place[-1]), rows, spread) for place, rows in found.items()]


def costs(rows: Sequence[Row]) -> dict[int, Logs]:
    """Batch size -> block -> log seconds per image, by rows of cells whose pace was measured; first lanes only.

    A block is what different batch sizes share: number of epochs, seed and repeat, which a sweep runs near each other.
    """
    found: dict[int, dict[Hashable, float]] = {}
    for row in rows:
        if not row["lane"]:
            block = (row["epochs"], row["seed"], row["repeat"], run_number(row["cell_id"]))
            found.setdefault(row["batch_size"], {})[block] = -math.log(row["images_per_second"])
    return {size: found[size] for size in sorted(found)}


def knee(by_size: Mapping[int, Logs], spread: float) -> tuple[int, int, int | None]:
    """The smallest batch size with NEARLY_PEAK of the highest speed: as measured, at least, and at most.

    Each size is held against all others. At least: the smallest that is not shown to be slower than that against one of
    them; at most: the smallest that is shown to be within it against each, None where none is.
    """
    means = {size: sum(logs.values()) / len(logs) for size, logs in by_size.items()}
    allowed = -math.log(NEARLY_PEAK)
    against = {
        size: any_beyond([gain(logs, other, spread) for place, other in by_size.items() if place != size], allowed)
        for size, logs in by_size.items()
    }
    measured = min(size for size, mean in means.items() if mean <= min(means.values()) + allowed)
    at_least = min((size for size, verdict in against.items() if verdict != HOLDS), default=measured)
    return measured, at_least, min((size for size, verdict in against.items() if verdict == FAILS), default=None)


def gains(by_size: Mapping[int, Logs], spread: float) -> dict[int, Interval]:
    """Of each larger batch size how much quicker it trains an image than the smallest: log ratios."""
    smallest = min(by_size)
    return {size: gain(by_size[smallest], logs, spread) for size, logs in by_size.items() if size != smallest}


def _answer(system: str, subject: str, target: str, rows: Sequence[Row], spread: float) -> ClaimAnswer:
    by_size = costs(rows)
    tell = f"harness sweep study --target {target} --batch-size 16,64,256,1024,4096 --epochs 1 --seed 0,1,2"
    if len(by_size) < 2:
        only = f"Only batch size {min(by_size)} was measured." if by_size else "No pace was measured."
        return ClaimAnswer(1, "", system, subject, UNTOLD, only, (), seeds_of(rows), tell)
    found = gains(by_size, spread)
    verdict = any_beyond(found.values(), NOTABLE)
    best = max(found, key=lambda size: (found[size].estimate, -size))
    measured, least, most = knee(by_size, spread)
    ends = f"from {least} on" if most is None else f"{least}" if least == most else f"{least} to {most}"
    finding = (
        f"At batch size {best} it trains {times(found[best])} as fast as at {min(by_size)}. 90 % of the highest speed "
        f"is reached at {measured} (95 % interval: {ends})."
    ) + assumed(by_size.values(), spread)
    table = ClaimTable(
        f"{subject}: times as fast as at batch size {min(by_size)}",
        ("batch size", "processes", "times as fast", "low", "high"),
        tuple(
            (
                size,
                len(by_size[size]),
                *(None if size not in found else round(value, 4) for value in _ratios(found, size)),
            )
            for size in by_size
        ),
    )
    return ClaimAnswer(
        1, "", system, subject, verdict, finding, (table,), seeds_of(rows), tell if verdict == UNTOLD else ""
    )


def _ratios(found: Mapping[int, Interval], size: int) -> tuple[float, ...]:
    return found[size].ratios() if size in found else (1.0, 1.0, 1.0)
