"""What training through the code of several devices costs on one: ``python benchmarks/parallel.py``.

Each part is a ``harness compare`` of the plain target and the same framework on one device through a mesh (JAX) or a
strategy (TensorFlow): the two take turns in one heat, in several fresh processes, beside a second copy of the plain
one. ``mnist-cnn`` on the built-in digits. Two logical devices are no part: they share the processors.

    jax          jax-cpu through a mesh of one device over jax-cpu
    tensorflow   tensorflow-cpu:graph through a strategy of one replica over tensorflow-cpu:graph

Two ratios, as in ``benchmarks/at_its_best.py``: of speed by the clock, and of processor time a step, which other work
on the machine disturbs less. Bars, on the latter: at most 2 % more in JAX, 5 % in TensorFlow. Exit status 1 when one
is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from at_its_best import work_ratio

import harness
from harness.core.errors import HarnessError
from harness.machine import facts as machine_facts
from harness.runs.folder import Run

HERE = Path(__file__).resolve().parent
PARTS = {
    "jax": ("jax-cpu:jit", "parallel-jax:jit"),
    "tensorflow": ("tensorflow-cpu:graph", "parallel-tensorflow:graph"),
}
BARS = {"jax": 0.02, "tensorflow": 0.05}
TARGETS = f"""
[targets.parallel-jax]
like = "jax-cpu"
backend = "parallel_lanes:OnJax"
path = {json.dumps(str(HERE))}

[targets.parallel-tensorflow]
like = "tensorflow-cpu"
backend = "parallel_lanes:OnTensorFlow"
path = {json.dumps(str(HERE))}
"""


@dataclass(frozen=True)
class Row:
    """The second target over the first: ``speed`` by the clock with an interval, ``cost`` by processor time, less 1."""

    part: str
    batch_size: int
    speed: float | None
    low: float | None
    high: float | None
    cost: float | None
    heats: int
    bar: float

    @property
    def met(self) -> bool:
        """Whether the bar is."""
        return self.cost is not None and self.cost <= self.bar


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(PARTS), nargs="+", help="some parts")
    parser.add_argument("--batch-size", type=int, nargs="+", metavar="N", default=[32, 128], help="default 32 128")
    parser.add_argument("--budget", default="4m", help="most time of each part (default 4m)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            Path("harness.toml").write_text(TARGETS, "utf-8")
            for part in arguments.only or PARTS:
                rows += measured(part, arguments.batch_size, arguments.budget)
                print(table(rows), file=sys.stderr)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    if arguments.json:
        told = {"machine": machine_facts.facts(), "rows": [{**asdict(row), "met": row.met} for row in rows]}
        print(json.dumps(told, indent=1))
    else:
        print(table(rows))
    return 0 if all(row.met for row in rows) else 1


def measured(part: str, sizes: list[int], budget: str) -> list[Row]:
    """One part."""
    base, target = PARTS[part]
    result = harness.compare(base, target, batch_size=sizes, budget=budget, out=part)
    records = list(Run.open(Path(part)).records())
    rows = []
    for one in result.comparisons:
        work = work_ratio(records, one.batch_size, (one.base.label, one.lane.label))
        cost = None if work is None else 1 / work - 1
        rows.append(Row(part, one.batch_size, *(one.speed or (None, None, None)), cost, one.processes, BARS[part]))
    return rows


def table(rows: list[Row]) -> str:
    """A line for each comparison."""
    lines = ["part        batch  times as fast  95 % interval  processor time, %  heats  bar, %"]
    for row in rows:
        speed = "-" if row.speed is None else f"{row.speed:.3f}"
        interval = "-" if row.low is None or row.high is None else f"{row.low:.3f}-{row.high:.3f}"
        cost = "-" if row.cost is None else f"{100 * row.cost:+.1f}"
        bar = f"{100 * row.bar:.0f} {'met' if row.met else 'MISSED'}"
        lines.append(
            f"{row.part:<11} {row.batch_size:>5}  {speed:>13}  {interval:>13}  {cost:>17}  {row.heats:>5}  {bar}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
