"""Whole runs made up for tests of the page: records with times and accuracies of a plain law, and the page of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

from harness import analysis
from harness.core.cell import Target
from harness.core.model import ModelSpec
from harness.core.record import Blocks, Epoch, HeatFacts, Record
from harness.proof.parity import Proof, Quantity
from harness.report.page import Answer, PageView
from tests.unit.records import JAX, MODEL, TENSORFLOW, cell, record

XLA = dataclasses.replace(TENSORFLOW, mode="xla")
TARGETS = (JAX, TENSORFLOW, XLA)
SIZES = (16, 32, 64, 128, 256)
BLOCKS_PER_EPOCH = 6
NASTY = "<script>alert(1)</script>"
"""What a person may call a model."""


def trained(
    size: int,
    target: Target,
    *,
    epochs: int = 3,
    seed: int = 0,
    examples: int = 4096,
    model: ModelSpec = MODEL,
    place: int = 0,
    **changes: Any,
) -> Record:
    """A finished record whose step takes an overhead and a time per image, both larger for later places."""
    of = cell(size, target, epochs=epochs, examples=examples, model=model, seed=seed)
    wobble = 1 + 0.01 * ((size + 3 * seed + place) % 5 - 2)
    step = (0.002 * (1 + place) + 0.00005 * (3 - place % 3) * size) * wobble
    parts = min(BLOCKS_PER_EPOCH, of.steps_per_epoch)
    numbers = [epoch for epoch in range(epochs) for _ in range(parts)]
    steps = [of.steps_per_epoch // parts] * len(numbers)
    blocks = Blocks(
        epoch=numbers,
        kind=["train"] * len(numbers),
        steps=steps,
        seconds=[step * count * (1 + 0.002 * (number % 3)) for number, count in enumerate(steps)],
        cpu_seconds=[0.1] * len(numbers),
        mean_loss=[0.5] * len(numbers),
        started=[float(number) for number in range(len(numbers))],
    )
    reached = [1 - (0.05 + size / 2000) / (epoch + 1) - 0.002 * seed for epoch in range(epochs)]
    return record(
        of,
        blocks=blocks,
        epochs=tuple(Epoch(epoch, 0.5, 0.3, accuracy, 0.1) for epoch, accuracy in enumerate(reached)),
        worker={"python": "3.11.4", "packages": {target.backend: "1.0"}, "code": "c0de", "device": {"threads": 2}},
        machine={"id": "m1", "processor": "A processor", "logical_cores": 2, "memory_bytes": 8_000_000_000},
        heat=HeatFacts("block", block_steps=8, settle_steps=1),
        **changes,
    )


def run(
    targets: Sequence[Target] = TARGETS,
    sizes: Sequence[int] = SIZES,
    epochs: Sequence[int] = (1, 3),
    seeds: Sequence[int] = (0, 1, 2),
    **changes: Any,
) -> list[Record]:
    """The records of a whole sweep."""
    return [
        trained(size, target, epochs=count, seed=seed, place=place, **changes)
        for count in epochs
        for seed in seeds
        for size in sizes
        for place, target in enumerate(targets)
    ]


def view(records: Sequence[Record], **changes: Any) -> PageView:
    """What a page of these records is made of; its script is a stand-in."""
    found = analysis.analyse(analysis.collect(records))
    lanes = {one.cell.target.label: one for one in records}
    proofs = tuple(
        Proof("", label, "tiny", "momentum", "float32", {}, (Quantity("gradients", 2e-6, 1e-4),)) for label in lanes
    )
    made = PageView(
        found=found,
        name="a-run",
        command="harness sweep test.toml",
        created="2026-11-23T10:00:00+00:00",
        harness_version="0.1.0",
        folder="/runs/a-run",
        planned=len(records),
        answers=(Answer("", "Use jax-cpu:jit with batch size 64.", ("Shown by three seeds.",), ("More seeds.",)),),
        bundle="window.vegaEmbed = null;",
        lanes=tuple(lanes.values()),
        proofs=proofs,
    )
    return dataclasses.replace(made, **changes)


@cache
def whole() -> PageView:
    """The page of ``run()``: computed once, for all tests that only read it."""
    return view(run())
