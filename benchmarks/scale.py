"""Does the harness stay quick with ten thousand cells? Prints a table; exit status 1 when a bar is missed.

    python benchmarks/scale.py [--only plan resume report page help] [--json]

- plan: ``harness sweep FILE --plan --json`` of 10,000 cells (2 targets, 50 batch sizes, 10 learning rates, 10 seeds).
- resume: ``harness sweep FILE --out RUN`` where every cell has a record: it plans, compares, finds nothing to run. The
  table of so many cells is not printed unasked, so its time is not in this figure.
- report: ``harness report RUN --format csv`` of these records, with 1,000 blocks each; also its peak memory.
- page: ``harness report RUN --html FILE`` of the same records; also the size of the page and its peak memory.
- help: ``harness --help`` against ``python -c pass`` of the same interpreter, in turn.

Times are wall-clock seconds of whole processes, median of several; processor seconds stand beside them,
because on a busy machine only those are the harness's own. Needs the dataset ``digits`` (made first, not timed), no
framework and no environment. The records are made up and written through the store, which takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CELLS = 10_000
BLOCKS = 1_000
PARTS = ("plan", "resume", "report", "page", "help")
SWEEP = f"""
name = "scale"
model = "mnist-cnn"
target = ["tensorflow-cpu", "jax-cpu"]
dataset = "digits"
batch_size = {[8 * n for n in range(1, 51)]}
epochs = 2
seed = {list(range(10))}
[training]
learning_rate = {[n / 1000 for n in range(1, 11)]}
"""
HARNESS = Path(sysconfig.get_path("scripts")) / ("harness.exe" if os.name == "nt" else "harness")


@dataclass(frozen=True)
class Usage:
    """What one child process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """One bar: ``value`` must be at most ``bar``. ``cpu_seconds`` is for the reader of a busy machine's figures."""

    part: str
    quantity: str
    value: float
    bar: float
    cpu_seconds: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bar holds."""
        return self.value <= self.bar


def measure(command: Sequence[str | Path]) -> Usage:
    """Run a command to its end, output discarded. Raises RuntimeError if it fails.

    Python may keep the bytecode of what it imports, as it does wherever nobody has forbidden it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise RuntimeError(
                f"{' '.join(map(str, command))}: exit status {child.returncode}: {errors.read().decode()}"
            )
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def median_of(count: int, *commands: Sequence[str | Path]) -> list[Usage]:
    """Of each command the run of median wall-clock time. The commands take turns; a first round does not count."""
    for command in commands:
        measure(command)
    rounds = [[measure(command) for command in commands] for _ in range(count)]
    return [sorted(runs, key=lambda run: run.seconds)[count // 2] for runs in zip(*rounds, strict=True)]


def write_records(sweep_file: Path, folder: Path) -> None:
    """Make the run of the sweep with a finished record for every cell."""
    from harness.core.record import Blocks, Epoch, Phases, Record
    from harness.plan.prepare import prepare
    from harness.runs import folder as run_folder

    prepared = prepare(str(sweep_file), {})
    cells = tuple(planned.cell for planned in prepared.planned)
    run = run_folder.Run.create(
        folder, run_folder.Plan("scale", "benchmarks/scale.py", "", "", cells, interleave=prepared.interleave)
    )
    generator = random.Random(0)
    kinds = ["compile", *["warmup"] * 3, *["train"] * (BLOCKS - 4)]
    epochs = [index * 2 // BLOCKS for index in range(BLOCKS)]
    with run.locked():
        for cell in cells:
            noise = [generator.random() for _ in range(3 * BLOCKS)]
            blocks = Blocks(
                epochs, kinds, [8] * BLOCKS, noise[:BLOCKS], noise[BLOCKS : 2 * BLOCKS], noise[2 * BLOCKS :]
            )
            run.save(
                Record(
                    cell=cell,
                    cell_id=cell.cell_id,
                    work_id=cell.work_id,
                    status="ok",
                    started="2026-01-01T00:00:00+00:00",
                    finished="2026-01-01T00:01:00+00:00",
                    phases=Phases(11.0, 0.1, 0.1, 0.2, 1.5, 0.3, 60.0, 2.0),
                    blocks=blocks,
                    epochs=tuple(Epoch(epoch, noise[0], noise[1], noise[2], 1.0) for epoch in range(2)),
                    peak_memory_bytes=500_000_000,
                    proof="0123456789abcdef",
                )
            )


def measure_parts(parts: Sequence[str]) -> list[Result]:
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="harness-scale-") as temporary:
        sweep_file, run = Path(temporary) / "scale.toml", Path(temporary) / "run"
        sweep_file.write_text(SWEEP)
        if "help" not in parts or len(parts) > 1:
            measure([HARNESS, "data", "prepare", "digits"])
        if "plan" in parts:
            (usage,) = median_of(3, [HARNESS, "sweep", sweep_file, "--plan", "--json"])
            results.append(Result("plan", "seconds", usage.seconds, 2.0, usage.cpu_seconds))
        if {"resume", "report", "page"} & set(parts):
            write_records(sweep_file, run)
        if "resume" in parts:
            (usage,) = median_of(3, [HARNESS, "sweep", sweep_file, "--out", run])
            results.append(Result("resume", "seconds", usage.seconds, 5.0, usage.cpu_seconds))
        if "report" in parts:
            usage = measure([HARNESS, "report", run, "--format", "csv"])
            results.append(Result("report", "seconds", usage.seconds, 20.0, usage.cpu_seconds))
            results.append(Result("report", "peak memory MB", usage.peak_bytes / 1e6, 500.0))
        if "page" in parts:
            page = Path(temporary) / "page.html"
            usage = measure([HARNESS, "report", run, "--html", page])
            results.append(Result("page", "seconds", usage.seconds, 20.0, usage.cpu_seconds))
            results.append(Result("page", "MB", page.stat().st_size / 1e6, 3.0))
            results.append(Result("page", "peak memory MB", usage.peak_bytes / 1e6, 500.0))
        if "help" in parts:
            help_usage, nothing = median_of(9, [HARNESS, "--help"], [sys.executable, "-c", "pass"])
            ratio = help_usage.seconds / nothing.seconds
            results.append(Result("help", "times python -c pass", ratio, 5.0, help_usage.cpu_seconds))
    return results


def show(results: Sequence[Result], machine: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.actions import sweep

    where = f"{machine['processor']}, {machine['logical_cores']} cores, load {machine['load_1min']}"
    table = Table(title=f"{CELLS:,} cells of {BLOCKS:,} blocks; {where}")
    for heading in ("part", "quantity", "measured", "at most", "CPU s", ""):
        table.add_column(heading, justify="left" if heading in ("part", "quantity", "") else "right")
    for result in results:
        cpu = "" if result.cpu_seconds is None else f"{result.cpu_seconds:.2f}"
        verdict = "met" if result.met else "MISSED"
        table.add_row(result.part, result.quantity, f"{result.value:.2f}", f"{result.bar:g}", cpu, verdict)
    console = Console()
    console.print(table)
    if any(result.part == "resume" for result in results):
        console.print(
            f"resume: without the table, which is not printed unasked beyond {sweep.LONGEST_TABLE_UNASKED:,} cells",
            soft_wrap=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    results = measure_parts(arguments.only)
    from harness.machine import facts as machine_facts

    facts = {**machine_facts.facts(), **machine_facts.load()}
    if arguments.json:
        figures = [{**vars(result), "met": result.met} for result in results]
        print(json.dumps({"cells": CELLS, "blocks": BLOCKS, "machine": facts, "results": figures}, indent=1))
    else:
        show(results, facts)
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
