"""Plans and records made up for tests of run folders, the analysis and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.record import Blocks, Epoch, Phases, Record
from harness.core.training import TrainingSpec
from harness.runs.folder import Plan

MODEL = ModelSpec("tiny", (4, 4, 1), (Flatten(), Dense(3)))
JAX = Target("jax-cpu", "jax_flax", "cpu", "jit", "resident", "1" * 64)
TENSORFLOW = Target("tensorflow-cpu", "tensorflow_keras", "cpu", "graph", "resident", "2" * 64)


def cell(
    batch_size: int = 32,
    target: Target = JAX,
    *,
    epochs: int = 2,
    examples: int = 320,
    repeat: int = 0,
    model: ModelSpec = MODEL,
    **training: Any,
) -> Cell:
    return Cell(
        model=model,
        training=TrainingSpec(batch_size, epochs, **training),
        dataset=Dataset("digits", "3" * 64, examples, 100, (4, 4, 1), 3),
        inputs=Inputs("4" * 64, "5" * 64),
        target=target,
        repeat=repeat,
    )


def record(of: Cell, status: str = "ok", **changes: Any) -> Record:
    """A finished record: one compiling step, one warm-up step, and equal blocks of the rest, at 0.01 s a step."""
    per_epoch = of.steps_per_epoch
    epochs = range(of.training.epochs)
    kinds = ["compile", "warmup", "train"] + ["train"] * (len(epochs) - 1)
    steps = [1, 1, per_epoch - 2] + [per_epoch] * (len(epochs) - 1)
    made = Record(
        cell=of,
        cell_id=of.cell_id,
        work_id=of.work_id,
        status=status,
        started="2026-11-23T10:00:00+00:00",
        finished="2026-11-23T10:00:09+00:00",
        phases=Phases(2.0, 0.1, 0.2, 0.3, 1.5, 0.01, 0.18, 0.4),
        blocks=Blocks(
            epoch=[0, 0, *epochs],
            kind=kinds,
            steps=steps,
            started=[float(number) for number in range(len(steps))],
            seconds=[1.25 if kind == "compile" else 0.01 * count for kind, count in zip(kinds, steps, strict=True)],
            cpu_seconds=[0.5] * len(steps),
            mean_loss=[1.0] * len(steps),
        ),
        epochs=tuple(Epoch(epoch, 0.5, 0.25, 0.9, 0.2) for epoch in epochs),
        peak_memory_bytes=500_000_000,
        proof="0123456789abcdef",
    )
    return dataclasses.replace(made, **changes)


def failed(of: Cell, status: str, reason: str, **changes: Any) -> Record:
    """A record of a cell that never trained."""
    return Record(of, of.cell_id, of.work_id, status, reason, **changes)


def plan(cells: Sequence[Cell], **changes: Any) -> Plan:
    made = Plan("test", "harness sweep test.toml", "2026-11-23T10:00:00+00:00", "0.1.0", tuple(cells))
    return dataclasses.replace(made, **changes)
