"""Does the harness stay quick with ten thousand cells? Prints a table; exit status 1 when a bar is missed.

    python benchmarks/scale.py [--only plan resume report page help] [--cells 10000] [--in FOLDER] [--json]

- plan: ``harness sweep FILE --plan --json`` of the cells (2 targets, 50 batch sizes, 10 learning rates, 10 seeds).
- resume: ``harness sweep FILE --out RUN`` where every cell has a record: it plans, compares, finds nothing to run. The
  table of so many cells is not printed unasked, so its time is not in this figure.
- report: ``harness report RUN --format csv`` of these records, with 1,000 blocks each: the first time, of the run as
  it was made (``harness.analysis.journal``); again (``harness.analysis.index``); and, without a bar, of records that
  another version made, which must be read. Also its peak memory.
- page: ``harness report RUN --html FILE`` likewise, but not again; also the size of the page.
- help: ``harness --help``.

Bars are ratios, as no two hours of a shared machine are alike. Report and page are held against a process that reads
and parses the same files and does nothing else, with the fastest of the JSON parsers in PARSERS; the others against
``python -c pass`` of the same interpreter. What is compared takes turns; times are wall-clock seconds of whole
processes, medians of several. The ratio of processor seconds stands beside that of times. Needs the dataset ``digits``
(made first, not timed), no framework and no environment. The records are made up and written through the store, which
takes minutes, and 800 MB of the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CELLS, CELLS_OF_A_SEED = 10_000, 1_000
BLOCKS = 1_000
ROUNDS = 3
PARSERS = {
    "orjson": "import orjson; parse = orjson.loads",
    "pysimdjson": "import simdjson; parse = simdjson.loads",
    "pydantic_core": "import pydantic_core; parse = pydantic_core.from_json",
}
READING = """
import os, sys
for entry in os.scandir(sys.argv[1]):
    with open(entry.path, "rb", buffering=0) as stream:
        parse(stream.read())
"""
PARTS = ("plan", "resume", "report", "page", "help")
SWEEP = f"""
name = "scale"
model = "mnist-cnn"
target = ["tensorflow-cpu", "jax-cpu"]
dataset = "digits"
batch_size = {[8 * n for n in range(1, 51)]}
epochs = 2
seed = SEEDS
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
    """One figure: ``value`` must be at most ``bar``, if that is one.

    ``cpu_ratio``: of processor seconds, where ``value`` is of times.
    """

    part: str
    quantity: str
    value: float
    bar: float | None
    cpu_ratio: float | None = None
    seconds: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bar holds."""
        return self.bar is None or self.value <= self.bar


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


def in_turn(count: int, *runs: Callable[[], Usage]) -> list[Usage]:
    """Of each run the time in the middle of ``count``. They take turns."""
    rounds = [[run() for run in runs] for _ in range(count)]
    return [sorted(each, key=lambda usage: usage.seconds)[count // 2] for each in zip(*rounds, strict=True)]


def against(part: str, quantity: str, usage: Usage, base: Usage, bar: float | None) -> Result:
    """The ratio of two runs."""
    cpu_ratio = usage.cpu_seconds / base.cpu_seconds
    return Result(part, quantity, usage.seconds / base.seconds, bar, cpu_ratio, usage.seconds)


def write_records(sweep_file: Path, folder: Path) -> None:
    """Make the run of the sweep with a finished record for every cell."""
    from harness.analysis import journal
    from harness.core.record import Blocks, Epoch, Phases, Record
    from harness.plan.prepare import prepare
    from harness.runs import folder as run_folder

    prepared = prepare(str(sweep_file), {})
    cells = tuple(planned.cell for planned in prepared.planned)
    run = run_folder.Run.create(
        folder, run_folder.Plan("scale", "benchmarks/scale.py", "", "", cells, interleave=prepared.interleave)
    )
    journal.keep(run)
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


def write_lines(folder: Path) -> None:
    """Of records that were made earlier, what this version writes beside each as it saves it."""
    from harness.analysis import journal
    from harness.runs.folder import Run

    run = Run.open(folder)
    shutil.rmtree(folder / journal.FOLDER, ignore_errors=True)
    journal.keep(run)
    for path in run.record_paths():
        run.on_saved(path, path.read_bytes())


def measure_parts(parts: Sequence[str], cells: int, folder: Path | None) -> list[Result]:
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory(prefix="harness-scale-") as temporary:
        sweep_file, run = Path(temporary) / "scale.toml", Path(temporary) / "run"
        sweep_file.write_text(SWEEP.replace("SEEDS", str(list(range(cells // CELLS_OF_A_SEED)))))
        if set(parts) != {"help"}:
            measure([HARNESS, "data", "prepare", "digits"])
        if {"resume", "report", "page"} & set(parts):
            if (run / "records").exists():
                write_lines(run)
            else:
                write_records(sweep_file, run)
        return [
            *against_nothing([part for part in parts if part in ("plan", "resume", "help")], sweep_file, run),
            *against_reading([part for part in parts if part in ("report", "page")], run, Path(temporary)),
        ]


def against_nothing(parts: Sequence[str], sweep_file: Path, run: Path) -> list[Result]:
    """Those that are held against a Python that does nothing."""
    commands: dict[str, tuple[list[str | Path], float]] = {
        "plan": ([HARNESS, "sweep", sweep_file, "--plan", "--json"], 120.0),
        "resume": ([HARNESS, "sweep", sweep_file, "--out", run], 300.0),
        "help": ([HARNESS, "--help"], 5.0),
    }
    results = []
    for part in parts:
        command, bar = commands[part]
        count = 9 if part == "help" else ROUNDS
        measure(command)
        usage, nothing = in_turn(count, partial(measure, command), partial(measure, [sys.executable, "-c", "pass"]))
        results.append(against(part, "python -c pass", usage, nothing, bar))
    return results


def against_reading(parts: Sequence[str], run: Path, folder: Path) -> list[Result]:
    """Those that are held against reading and parsing the same files."""
    if not parts:
        return []
    reads = {name: partial(measure, reading(code, run)) for name, code in PARSERS.items()}
    next(iter(reads.values()))()  # the first reading is the disk's
    fastest = min(reads, key=lambda name: reads[name]().cpu_seconds)
    page = folder / "page.html"
    lines = kept_lines(run, folder)
    report: list[str | Path] = [HARNESS, "report", run, "--format", "csv"]
    to_page: list[str | Path] = [HARNESS, "report", run, "--html", page]
    runs = {
        "reading": reads[fastest],
        "report": lambda: the_first_time(run, report, lines),
        "report again": lambda: measure(report),
        "report, of another version": lambda: the_first_time(run, report),
        "page": lambda: the_first_time(run, to_page, lines),
        "page, of another version": lambda: the_first_time(run, to_page),
    }
    bars = {"report": 1.5, "report again": 0.2, "page": 2.0}
    wanted = [name for name in runs if name == "reading" or name.split()[0].rstrip(",") in parts]
    found = dict(zip(wanted, in_turn(ROUNDS, *(runs[name] for name in wanted)), strict=True))
    results = []
    for name in wanted[1:]:
        results.append(against(name, f"reading, {fastest}", found[name], found["reading"], bars.get(name)))
        if name != "report again":
            results.append(Result(name, "peak memory MB", found[name].peak_bytes / 1e6, 300.0))
    if "page" in parts:
        results.append(Result("page", "MB", page.stat().st_size / 1e6, 3.0))
    return results


def reading(parser: str, run: Path) -> list[str | Path]:
    """A process that reads and parses the records, and nothing else."""
    return [sys.executable, "-c", parser + READING, run / "records"]


def kept_lines(run: Path, folder: Path) -> Path:
    """A copy of what was written beside the records as they were saved: a report takes it over, and removes it."""
    from harness.analysis import journal

    copy = folder / "lines"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run / journal.FOLDER, copy)
    return copy


def the_first_time(run: Path, command: Sequence[str | Path], lines: Path | None = None) -> Usage:
    """With nothing kept of these records but ``lines``."""
    from harness.analysis import index, journal

    (run / index.INDEX_FILE).unlink(missing_ok=True)
    shutil.rmtree(run / journal.FOLDER, ignore_errors=True)
    if lines:
        shutil.copytree(lines, run / journal.FOLDER)
    return measure(command)


def show(results: Sequence[Result], machine: dict[str, Any], cells: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.actions import sweep

    where = f"{machine['processor']}, {machine['logical_cores']} cores, load {machine['load_1min']}"
    table = Table(title=f"{cells:,} cells of {BLOCKS:,} blocks; {where}")
    for heading in ("part", "ratio to, or size", "found", "at most", "CPU", "s", ""):
        table.add_column(heading, justify="left" if heading in ("part", "ratio to, or size", "") else "right")
    for result in results:
        cpu, seconds = ("" if value is None else f"{value:.2f}" for value in (result.cpu_ratio, result.seconds))
        verdict, bar = ("", "") if result.bar is None else ("met" if result.met else "MISSED", f"{result.bar:g}")
        table.add_row(result.part, result.quantity, f"{result.value:.2f}", bar, cpu, seconds, verdict)
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
    parser.add_argument("--cells", type=int, default=CELLS, help=f"a multiple of {CELLS_OF_A_SEED:,}")
    parser.add_argument("--in", type=Path, dest="folder", help="make the run there and keep it, or use the one there")
    arguments = parser.parse_args()
    if arguments.cells < CELLS_OF_A_SEED or arguments.cells % CELLS_OF_A_SEED:
        parser.error(f"--cells: found {arguments.cells}, allowed: a multiple of {CELLS_OF_A_SEED}")
    if arguments.folder and not arguments.folder.is_dir():
        parser.error(f"--in: found {str(arguments.folder)!r}, allowed: a folder that is there (make it first)")
    results = measure_parts(arguments.only, arguments.cells, arguments.folder)
    from harness.machine import facts as machine_facts

    facts = {**machine_facts.facts(), **machine_facts.load()}
    if arguments.json:
        figures = [{**vars(result), "met": result.met} for result in results]
        print(json.dumps({"cells": arguments.cells, "blocks": BLOCKS, "machine": facts, "results": figures}, indent=1))
    else:
        show(results, facts, arguments.cells)
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
