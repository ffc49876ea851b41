"""What the tuned targets gain, and what a loop of steps costs: ``python benchmarks/at_its_best.py``.

Each part is a ``harness compare``: targets take turns in one heat, in several fresh processes, beside a second copy of
the first one. ``mnist-cnn`` on the built-in digits.

    jax          jax-cpu-tuned over jax-cpu
    tensorflow   tensorflow-cpu-tuned over tensorflow-cpu
    calls        jax-cpu-tuned with 8 steps per call over the same with one
    installed    jax-cpu with 8 steps per call over the same with one: what ``lax.scan`` around a step costs unasked

Two ratios: of speed by the clock, which the bars are on, and of processor time a step, the mean over heats of the
median over rounds, which other work on the machine disturbs less. Bars: tuned at least 1.25 times as fast at batch size
128 (of TensorFlow only where the processor has no AVX-512, where its default is to do without oneDNN); with 8 steps per
call at least 0.9 of the speed. Exit status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
from harness.core.errors import HarnessError
from harness.core.record import Record
from harness.machine import facts as machine_facts
from harness.runs.folder import Run

PARTS = {
    "jax": ("jax-cpu", "jax-cpu-tuned"),
    "tensorflow": ("tensorflow-cpu", "tensorflow-cpu-tuned"),
    "calls": ("jax-cpu-tuned", "jax-cpu-tuned@steps_per_call=8"),
    "installed": ("jax-cpu", "jax-cpu@steps_per_call=8"),
}
SIZES = {"jax": (32, 128, 512), "tensorflow": (32, 128, 512), "calls": (32, 128), "installed": (32,)}
TUNED_BAR, TUNED_SIZE, CALLS_BAR = 1.25, 128, 0.9
AVX_512 = "avx512f"


@dataclass(frozen=True)
class Row:
    """The second target over the first: ``speed`` by the clock with its interval, ``work`` by processor time."""

    part: str
    batch_size: int
    images_per_second: float | None
    speed: float | None
    low: float | None
    high: float | None
    work: float | None
    heats: int
    bar: float | None
    met: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(PARTS), nargs="+", help="some parts")
    parser.add_argument("--batch-size", type=int, nargs="+", metavar="N", help="instead of a part's own")
    parser.add_argument("--budget", default="6m", help="most time of each part (default 6m)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the run folders there")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for part in arguments.only or PARTS:
                place = (arguments.out or Path(scratch)) / part
                rows += measured(part, arguments.batch_size or SIZES[part], arguments.budget, place)
                print(table(rows), file=sys.stderr)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    facts = machine_facts.facts()
    if arguments.json:
        print(json.dumps({"machine": facts, "avx512": has_avx_512(), "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        print(table(rows))
    return 0 if all(row.met for row in rows) else 1


def measured(part: str, sizes: Sequence[int], budget: str, folder: Path) -> list[Row]:
    """One part, measured or, where its folder is there, read again."""
    base, target = PARTS[part]
    result = harness.compare(base, target, batch_size=list(sizes), budget=budget, out=folder)
    records = list(Run.open(folder).records())
    rows = []
    for one in result.comparisons:
        speed, low, high = one.speed or (None, None, None)
        if one.speed is None and one.effects:  # one heat has no interval
            speed = math.exp(-statistics.fmean(one.effects))
        bar = bar_of(part, one.batch_size)
        work = work_ratio(records, one.batch_size, (one.base.label, one.lane.label))
        met = bar is None or (speed is not None and speed >= bar)
        rate = one.lane.images_per_second
        rows.append(Row(part, one.batch_size, rate, speed, low, high, work, one.processes, bar, met))
    return rows


def bar_of(part: str, batch_size: int) -> float | None:
    """What the ratio must be at least, where that is said."""
    if part == "calls":
        return CALLS_BAR
    tuned = part == "jax" or (part == "tensorflow" and not has_avx_512())
    return TUNED_BAR if tuned and batch_size == TUNED_SIZE else None


def has_avx_512() -> bool:
    """Whether the processor has it; where the system does not tell, no."""
    try:
        return AVX_512 in Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return False


def work_ratio(records: Sequence[Record], batch_size: int, labels: tuple[str, str]) -> float | None:
    """Processor time a step of the first target over the second's: in each round, the median of a heat, their mean."""
    heats: dict[int, dict[str, dict[int, float]]] = {}
    for record in records:
        cell = record.cell
        if cell.training.batch_size == batch_size and cell.lane == 0 and record.status == "ok":
            heats.setdefault(cell.repeat, {})[cell.target.label] = per_round(record)
    found = []
    for lanes in heats.values():
        base, other = (lanes.get(label, {}) for label in labels)
        shared = base.keys() & other.keys()
        if shared:
            found.append(statistics.median(math.log(base[number] / other[number]) for number in shared))
    return math.exp(statistics.fmean(found)) if found else None


def per_round(lane: Record) -> dict[int, float]:
    """Round -> processor seconds of a timed step."""
    blocks = lane.blocks
    columns = zip(blocks.round, blocks.kind, blocks.cpu_seconds, blocks.steps, strict=True)
    return {number: cpu / steps for number, kind, cpu, steps in columns if number >= 0 and kind == "train" and cpu > 0}


def table(rows: Sequence[Row]) -> str:
    """A line for each comparison."""
    lines = ["part        batch  images/s  times as fast  95 % interval  by processor time  heats   bar"]
    for row in rows:
        speed = "-" if row.speed is None else f"{row.speed:.3f}"
        interval = "-" if row.low is None or row.high is None else f"{row.low:.3f}-{row.high:.3f}"
        work = "-" if row.work is None else f"{row.work:.3f}"
        rate = "-" if row.images_per_second is None else f"{row.images_per_second:,.0f}"
        bar = "" if row.bar is None else f"{row.bar:.2f} {'met' if row.met else 'MISSED'}"
        figures = f"{rate:>8}  {speed:>13}  {interval:>13}  {work:>17}  {row.heats:>5}  {bar}"
        lines.append(f"{row.part:<11} {row.batch_size:>5}  {figures}")
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
