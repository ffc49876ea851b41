"""What one more cell costs beyond its own work: ``python benchmarks/cell_cost.py``.

The same short cell (``mnist-cnn``, batch 32, a few steps and an evaluation) runs on TensorFlow and on JAX in turns
in a child forked from a host that has imported the framework, and in a fresh process. The cost is the wall time from
asking for the cell (forked) or starting the process (fresh) to the process's end, less the seconds that the worker
reports for initialising the device, loading data, building, compiling, training and evaluating. What is left is
starting, importing, forking, talking, reading losses back and ending.

Bars: forked, the median cost is at most 0.5 s on both; on TensorFlow a fresh process costs at least 15 times
as much (median of the ratios of neighbours). Exit status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from harness.core.cell import Cell, Dataset
from harness.core.errors import CellError, HarnessError
from harness.core.training import TrainingSpec
from harness.machine import facts as machine_facts
from harness.measure.lane import Lane
from harness.paths import cache_folder
from harness.plan import inputs, models, targets
from harness.workers import Launch, Worker, bundle, environments
from harness.workers.cell_worker import Files

TARGETS = {"tensorflow": "tensorflow-cpu", "jax": "jax-cpu"}
FORKED_BAR = 0.5
"""Seconds."""
RATIO_BARS = {"tensorflow": 15.0}
TRAIN_EXAMPLES, TEST_EXAMPLES, BATCH_SIZE = 256, 500, 32
TIMEOUT = 300.0


@dataclass(frozen=True)
class Cost:
    """One framework. Lists have one entry per round, in seconds; ``ratio`` is the median of fresh / forked."""

    framework: str
    packages: dict[str, str]
    forked: list[float]
    fresh: list[float]
    forked_work: list[float]
    fresh_work: list[float]
    ratio: float
    met: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(TARGETS), help="one framework")
    parser.add_argument("--rounds", type=int, default=5, help="cells of each kind (default 5)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--tensorflow-python", metavar="PATH", help="an interpreter with TensorFlow")
    parser.add_argument("--jax-python", metavar="PATH", help="an interpreter with JAX, Flax and optax")
    arguments = parser.parse_args()
    given = {"tensorflow": arguments.tensorflow_python, "jax": arguments.jax_python}
    found = []
    try:
        for framework in [arguments.only] if arguments.only else TARGETS:
            found.append(measure(framework, given[framework], arguments.rounds))
    except HarnessError as error:
        say(str(error))
        return error.exit_status
    if arguments.json:
        print(json.dumps({"machine": machine_facts.facts(), "costs": [asdict(cost) for cost in found]}, indent=2))
    else:
        Console().print(table(found))
    return 0 if all(cost.met for cost in found) else 1


def measure(framework: str, python: str | None, rounds: int) -> Cost:
    """Run ``rounds`` cells of each kind in turns, the order turning round each time."""
    known = targets.built_in()
    definition = known[TARGETS[framework]]
    interpreter = Path(python).absolute() if python else environments.ensure(definition, say)
    with tempfile.TemporaryDirectory(prefix="cell-cost-") as temporary:
        folder = Path(temporary)
        cell, files = prepare(folder, targets.resolve(definition.name, known))

        def worker(fork: bool) -> Worker:
            return Worker(
                Launch(
                    python=interpreter,
                    backend=definition.backend,
                    bundle=bundle(cache_folder("bundles")),
                    env=definition.variables(),
                    scratch=folder / "scratch",
                    log=folder / "worker.log",
                    fork=fork,
                )
            )

        costs: dict[bool, list[float]] = {True: [], False: []}
        works: dict[bool, list[float]] = {True: [], False: []}
        with worker(fork=True) as host:
            packages = host.ready.worker["packages"]
            for number in range(rounds):
                for fork in (True, False) if number % 2 else (False, True):
                    start = time.perf_counter()
                    if fork:
                        work = run(cell, files, host)
                        end = time.perf_counter()
                    else:
                        with worker(fork=False) as fresh:
                            work = run(cell, files, fresh)
                            end = time.perf_counter()
                    costs[fork].append(end - start - work)
                    works[fork].append(work)
                say(f"{framework}, round {number + 1}: forked {costs[True][-1]:.3f} s, fresh {costs[False][-1]:.2f} s")
    ratio = statistics.median(fresh / forked for forked, fresh in zip(costs[True], costs[False], strict=True))
    met = statistics.median(costs[True]) <= FORKED_BAR and ratio >= RATIO_BARS.get(framework, 0.0)
    return Cost(framework, packages, costs[True], costs[False], works[True], works[False], ratio, met)


def prepare(folder: Path, target: Any) -> tuple[Cell, Files]:
    """The cell and its files; the images are noise, which takes as long as any."""
    model = models.load("mnist-cnn")
    generator = np.random.default_rng(0)
    for part, count in (("train", TRAIN_EXAMPLES), ("test", TEST_EXAMPLES)):
        images = generator.integers(0, 256, (count, *model.input_shape)).astype(np.uint8)
        inputs.save_array(folder / f"{part}_images.npy", images)
        inputs.save_array(folder / f"{part}_labels.npy", generator.integers(0, model.classes, count).astype(np.int32))
    cell = Cell(
        model=model,
        training=TrainingSpec(batch_size=BATCH_SIZE),
        dataset=Dataset("noise", "", TRAIN_EXAMPLES, TEST_EXAMPLES, model.input_shape, model.classes),
        inputs=inputs.identify(model, TRAIN_EXAMPLES, 1, 0),
        target=target,
    )
    parameters, order = inputs.write(folder, cell)
    return cell, Files(folder, parameters, order, folder / "scratch" / "cell")


def run(cell: Cell, files: Files, worker: Worker) -> float:
    """Run the cell to the end of its process; the seconds of its own work. Raises CellError if it fails."""
    lane = Lane(cell, worker, files, TIMEOUT)
    if lane.open():
        while lane.advance():
            pass
        lane.close()
    record = lane.record({}, "", 1, "")
    if record.status != "ok":
        raise CellError(f"{cell.target.label}: {record.status}: {record.reason}")
    own = (record.phases.initialise_device, record.phases.load_data, record.phases.build, record.phases.compile)
    trained = (record.phases.warmup, record.phases.train, record.phases.evaluate)
    return sum(seconds or 0.0 for seconds in (*own, *trained))


def table(found: list[Cost]) -> Table:
    """One row a framework; narrow enough for 80 columns."""
    title = "Seconds that one more cell costs beyond its own work: median (range)"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for heading in ("framework", "forked", "fresh process", "ratio", "bars"):
        shown.add_column(heading, justify="left" if heading in ("framework", "bars") else "right", no_wrap=True)
    for cost in found:
        shown.add_row(
            cost.framework,
            spread(cost.forked),
            spread(cost.fresh),
            f"{cost.ratio:.0f}",
            "met" if cost.met else "MISSED",
        )
    facts = machine_facts.facts()
    works = "; ".join(
        f"{cost.framework} {statistics.median(cost.forked_work):.2f} and {statistics.median(cost.fresh_work):.2f}"
        for cost in found
    )
    ratios = ", ".join(f"{framework} ratio at least {bar:.0f}" for framework, bar in RATIO_BARS.items())
    shown.caption = (
        f"Bars: forked at most {FORKED_BAR} s; {ratios}. "
        f"{len(found[0].forked)} cells of each on {facts['processor']}, {facts['logical_cores']} logical cores. "
        f"Seconds of the cells' own work, forked and fresh: {works}."
    )
    shown.caption_justify = "left"
    return shown


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
