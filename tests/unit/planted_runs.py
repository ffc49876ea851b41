"""Cells of a known pace and known accuracies, for tests of what the analysis finds in them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from harness.core.cell import Target
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.record import Blocks, Epoch, Phases, Record
from tests.unit.records import JAX, MODEL, TENSORFLOW, cell, record

EXAMPLES = 4096
XLA = dataclasses.replace(TENSORFLOW, mode="xla")
LARGER = ModelSpec("larger", (4, 4, 1), (Flatten(), Dense(5), Dense(3)))
MACHINE = {"id": "m1", "processor": "A processor", "logical_cores": 2}

_STEPS = 10
"""Of a block."""


def planted(
    size: int,
    target: Target = JAX,
    *,
    pace: float = 0.01,
    accuracies: Sequence[float] = (0.5,),
    status: str = "ok",
    epochs: int | None = None,
    seed: int = 0,
    repeat: int = 0,
    lane: int = 0,
    model: ModelSpec = MODEL,
    examples: int = EXAMPLES,
    blocks: int = 20,
    noise: Callable[[int], Sequence[float]] | None = None,
    compile_seconds: float | None = 1.5,
    training: dict[str, Any] | None = None,
    evaluations: Sequence[Epoch] | None = None,
    **changes: Any,
) -> Record:
    """A record whose steps take ``pace`` seconds, with ``accuracies`` after its first epochs, of ``epochs`` planned.

    ``evaluations`` take the place of accuracies where losses matter. ``noise``: number of blocks -> what each block's
    time is multiplied by.
    """
    of = cell(
        size,
        target,
        epochs=epochs or max(len(accuracies), 1),
        examples=examples,
        repeat=repeat,
        model=model,
        seed=seed,
        **(training or {}),
    )
    of = dataclasses.replace(of, lane=lane)
    evaluated = [Epoch(epoch, 0.5, 0.25, value, 0.2) for epoch, value in enumerate(accuracies)]
    factors = [1.0] * blocks if noise is None else list(noise(blocks))
    made = Blocks(
        epoch=[0] * (blocks + 1),
        kind=["compile"] + ["train"] * blocks,
        steps=[1] + [_STEPS] * blocks,
        seconds=[1.0, *(pace * _STEPS * factor for factor in factors)],
        cpu_seconds=[0.1] * (blocks + 1),
        mean_loss=[0.5] * (blocks + 1),
        started=[float(number) for number in range(blocks + 1)],
    )
    return record(
        of,
        status,
        **{
            "blocks": made,
            "epochs": tuple(evaluated if evaluations is None else evaluations),
            "phases": Phases(2.0, 0.1, 0.2, 0.3, compile_seconds, 0.01, 0.18, 0.4),
            "machine": MACHINE,
            **changes,
        },
    )


def lognormal(random: np.random.Generator, spread: float) -> Callable[[int], Sequence[float]]:
    """Independent factors about one, with ``spread`` as the sd of their logarithms."""
    return lambda count: [float(value) for value in np.exp(spread * random.normal(size=count))]


def sweep(
    pace: Callable[[Target, int], float],
    accuracies: Callable[[Target, int], Sequence[float]],
    *,
    targets: Sequence[Target] = (JAX, TENSORFLOW),
    sizes: Sequence[int] = (16, 32, 64, 128),
    seeds: Sequence[int] = (0, 1, 2),
    spread: float = 0.0,
    steps_spread: float = 0.0,
    seed_spread: float = 0.0,
    generator_seed: int = 0,
    **changes: Any,
) -> Iterator[Record]:
    """A cell of each target, batch size and seed.

    All spreads are sds of logarithms: ``spread`` of paces between processes; ``steps_spread`` of the steps to an
    accuracy between works, so alike on all targets; ``seed_spread`` of what of them batch sizes share.
    """
    random = np.random.default_rng(generator_seed)
    for seed in seeds:
        of_seed = seed_spread * random.normal()
        for size in sizes:
            learns = math.exp(steps_spread * random.normal() + of_seed)
            for target in targets:
                slower = math.exp(spread * random.normal())
                reached = slowed(accuracies(target, size), learns)
                yield planted(size, target, seed=seed, pace=pace(target, size) * slower, accuracies=reached, **changes)


def slowed(accuracies: Sequence[float], factor: float) -> list[float]:
    """Accuracies of a run that needs ``factor`` times the epochs, linear between those given."""
    given = [0.0, *accuracies]
    wanted = np.arange(1, len(given)) / factor
    return [float(value) for value in np.interp(wanted, range(len(given)), given)]


def climbing(epochs_to: float, accuracy: float, epochs: int = 8) -> list[float]:
    """A straight line through 0.5 at the start that is at ``accuracy`` after ``epochs_to`` epochs, and goes on."""
    return [min(1.0, 0.5 + (accuracy - 0.5) * epoch / epochs_to) for epoch in range(1, epochs + 1)]
