"""Claim 2: by how much the GPU beats the processor, at each batch size that both trained on one system."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.pace import timed
from harness.analysis.study.answers import (
    NOTABLE,
    UNTOLD,
    ClaimAnswer,
    ClaimTable,
    Logs,
    all_beyond,
    assumed,
    by_work_and_target,
    gain,
    listed,
    seeds_of,
    spread_of,
    subjects,
    times,
)
from harness.analysis.systems import System
from harness.analysis.tables import Row

CPU = "cpu"


def answers(system: System) -> list[ClaimAnswer]:
    """One for each work and pair of a GPU's and a processor's target, where both trained a batch size."""
    found = by_work_and_target(timed(system.collected.fixed().cells))
    names, spread = subjects(list(found)), spread_of(system)
    made = []
    for place, rows in found.items():
        for other, others in found.items():
            pair = rows[0]["accelerator"] != CPU and others[0]["accelerator"] == CPU
            if pair and place[:-1] == other[:-1] and _shared(rows, others):
                made.append(_answer(system.name, f"{names[place]} against {other[-1]}", rows, others, spread))
    if made:
        return made
    kinds = {row["accelerator"] for rows in found.values() for row in rows}
    why = "No GPU trained here." if kinds <= {CPU} else "No work was trained on both a GPU and the processor here."
    tell = "harness compare jax-cuda jax-cpu --batch-size 16,128,1024 --budget 20m"
    return [ClaimAnswer(2, "", system.name, "", UNTOLD, why, would_tell=tell)]


def _shared(rows: Sequence[Row], others: Sequence[Row]) -> list[int]:
    return sorted({row["batch_size"] for row in rows} & {row["batch_size"] for row in others})


def _answer(system: str, subject: str, rows: Sequence[Row], others: Sequence[Row], spread: float) -> ClaimAnswer:
    sizes = _shared(rows, others)
    found = {size: gain(_costs(others, size), _costs(rows, size), spread) for size in sizes}
    verdict = all_beyond(found.values(), NOTABLE)
    finding = (
        "It trains " + "; ".join(f"{times(one)} as fast at batch size {size}" for size, one in found.items()) + "."
    )
    finding += assumed([_costs(side, size) for side in (rows, others) for size in sizes], spread)
    table = ClaimTable(
        f"{subject}: times as fast",
        ("batch size", "processes", "times as fast", "low", "high"),
        tuple(
            (size, len(_costs(rows, size)), *(round(value, 4) for value in one.ratios())) for size, one in found.items()
        ),
    )
    tell = f"harness compare {rows[0]['target']} {others[0]['target']} --batch-size {listed(sizes).replace(' ', '')}"
    return ClaimAnswer(
        2, "", system, subject, verdict, finding, (table,), seeds_of(rows), tell if verdict == UNTOLD else ""
    )


def _costs(rows: Sequence[Row], size: int) -> Logs:
    """Block -> log seconds per image; a block is a heat, in which both took turns, if they did."""
    return {
        (row["work_id"], row["repeat"], row["heat"]): -math.log(row["images_per_second"])
        for row in rows
        if row["batch_size"] == size and not row["lane"]
    }
