"""How quick the float64 reference is: ``uv run python benchmarks/reference_pace.py``.

For each built-in model and batch size: images per second of training, and of a replay that follows rounding as well.
With ``--against FOLDER`` (a checkout of another version) the two versions train in turns, each in a process of its own,
and the ratios are those of the median seconds of their steps, and of processor time, which other load disturbs less.
The most memory of a process that did either stands last.

Images are noise, which takes as long as any. Bar: no process takes more than ``MEMORY_BAR`` where the model has no
batch normalisation, whatever its batch size. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness.core.model import BatchNorm
from harness.machine import facts as machine_facts
from harness.plan import models

ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZES = (32, 512, 4096)
MEMORY_BAR = 2_000_000_000
"""Bytes."""

STEP = """
import json, sys, time
import numpy as np
from backends.protocol import Arrays
from backends.reference import ReferenceSession
from harness.core import system
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.training import TrainingSpec
from harness.plan import inputs, models

name, batch, follows = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "follow"
model, generator = models.load(name), np.random.default_rng(0)
training = TrainingSpec(batch_size=batch, epochs=1000)
target = Target("reference", "reference", "cpu", "numpy", "resident", "")
cell = Cell(model, training, Dataset("noise", "", batch, 1, model.input_shape, model.classes), Inputs("", ""), target)
images = generator.random((batch, *model.input_shape), dtype=np.float32)
labels = generator.integers(0, model.classes, batch).astype(np.int32)
order = np.tile(np.arange(batch, dtype=np.int32), (1000, 1, 1))
parameters = inputs.draw_parameters(model, 0)
session = ReferenceSession(cell, Arrays(images, labels, images[:1], labels[:1], parameters, order))
state = {f"parameter/{key}": value for key, value in session.parameters().items()}
state.update({f"statistic/{key}": value for key, value in session.statistics().items()})
for line in sys.stdin:
    start, used = time.perf_counter(), system.processor_seconds()
    if follows:
        session.replay(state, 0, 1, 2.0**-24, {}, False)
    else:
        session.train(1)
    seconds, used = time.perf_counter() - start, system.processor_seconds() - used
    print(json.dumps([seconds, used, system.peak_memory_bytes()]), flush=True)
"""
"""A process that takes a step for each line that it reads, and says how long it took and what memory it had at most."""


@dataclass(frozen=True)
class Pace:
    """A model at a batch size: images per second, of wall time and of processor time; bytes at most.

    ``ratio``, ``processor_ratio``: of new to old, None without an old one.
    """

    model: str
    batch_size: int
    trains: float
    replays: float
    trains_per_processor_second: float
    replays_per_processor_second: float
    ratio: float | None
    processor_ratio: float | None
    memory_bytes: int
    met: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="FOLDER", type=Path, help="a checkout of another version")
    parser.add_argument("--model", default=",".join(models.names()), help="models, as NAME,...")
    parser.add_argument("--batch-size", default=",".join(map(str, BATCH_SIZES)), help="batch sizes, as N,...")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind (default 3)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    arguments = parser.parse_args()
    found = []
    for name in arguments.model.split(","):
        for batch_size in map(int, arguments.batch_size.split(",")):
            found.append(measure(name, batch_size, arguments.rounds, arguments.against))
            say(f"{name}, batch size {batch_size}: done")
    if arguments.json:
        print(json.dumps({"machine": machine_facts.facts(), "paces": [asdict(pace) for pace in found]}, indent=2))
    else:
        Console().print(table(found))
    return 0 if all(pace.met for pace in found) else 1


def measure(name: str, batch_size: int, rounds: int, against: Path | None) -> Pace:
    """Steps in turns: new, old where there is one, and followed."""
    steppers = {"new": Stepper(ROOT, name, batch_size, "train"), "follows": Stepper(ROOT, name, batch_size, "follow")}
    if against is not None:
        steppers["old"] = Stepper(against.resolve(), name, batch_size, "train")
    wall: dict[str, list[float]] = {kind: [] for kind in steppers}
    used: dict[str, list[float]] = {kind: [] for kind in steppers}
    for number in range(rounds + 1):
        for kind, stepper in steppers.items():
            seconds, processor_seconds = stepper.step()
            if number:  # the first one touches memory for the first time
                wall[kind].append(seconds)
                used[kind].append(processor_seconds)
    memory = max(stepper.end() for kind, stepper in steppers.items() if kind != "old")
    if against is not None:
        steppers["old"].end()
    median, work = ({kind: statistics.median(taken) for kind, taken in times.items()} for times in (wall, used))
    normalises = any(isinstance(layer, BatchNorm) for layer in models.load(name).layers)
    return Pace(
        model=name,
        batch_size=batch_size,
        trains=batch_size / median["new"],
        replays=batch_size / median["follows"],
        trains_per_processor_second=batch_size / work["new"],
        replays_per_processor_second=batch_size / work["follows"],
        ratio=median["old"] / median["new"] if "old" in median else None,
        processor_ratio=work["old"] / work["new"] if "old" in work else None,
        memory_bytes=memory,
        met=normalises or memory <= MEMORY_BAR,
    )


class Stepper:
    """A process of one version that takes steps when it is told to."""

    def __init__(self, root: Path, name: str, batch_size: int, kind: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", STEP, name, str(batch_size), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=root,
        )
        self._memory = 0

    def step(self) -> tuple[float, float]:
        """Seconds of one step, and of processor time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        seconds, used, self._memory = json.loads(self._process.stdout.readline())
        return float(seconds), float(used)

    def end(self) -> int:
        """End it; the bytes that it had at most."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        return self._memory


def table(found: list[Pace]) -> Table:
    """One row a model and batch size."""
    facts = machine_facts.facts()
    shown = Table(
        title="Images per second of the float64 reference", title_justify="left", box=box.SIMPLE, pad_edge=False
    )
    headings = ("model", "batch", "train", "replay", "CPU", "CPU", "new/old", "CPU", "MB", "bar")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in ("model", "bar") else "right", no_wrap=True)
    for pace in found:
        speeds = pace.trains, pace.replays, pace.trains_per_processor_second, pace.replays_per_processor_second
        shown.add_row(
            pace.model,
            f"{pace.batch_size:,}",
            *(f"{speed:,.0f}" for speed in speeds),
            *("" if ratio is None else f"{ratio:.2f}" for ratio in (pace.ratio, pace.processor_ratio)),
            f"{pace.memory_bytes / 1e6:,.0f}",
            "met" if pace.met else "MISSED",
        )
    machine = f"On {facts['processor']}, {facts['logical_cores']} logical cores."
    shown.caption = f"{machine} CPU: the same by the processor time of all threads."
    shown.caption_justify = "left"
    return shown


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
