"""Whether a verdict of ``harness compare`` can be believed: ``python benchmarks/trust.py``.

Both frameworks, ``mnist-cnn`` at batch size 8, on this machine as it is:

    same        comparisons of a target with itself: how often a difference is declared, how often the interval holds 1
    planted     a shim burns 3 % (or 1 %) of each step's time: how often that is found, whether ever the wrong way
    others      the same time spent as whole runs one after the other, and as fresh processes in sequence
    disturbed   ``same`` and ``planted`` again beside a process that takes one core at random for random times
    alone       throughput of a lane in turns with another against its own without turns

Before each part, how much the machine alone wavers: an empty loop on one core, neighbouring blocks compared.
``--only`` runs one part, ``--json`` prints the figures, ``--scale`` shortens all (0.1: a tenth of the comparisons).
Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import statistics
from harness.actions.progress import NEWS
from harness.analysis import comparison
from harness.analysis.comparison import Comparison, LaneKey
from harness.core.cell import Cell, Target
from harness.core.errors import HarnessError
from harness.core.record import now
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.machine import facts as machine_facts
from harness.measure import heat, series, session
from harness.measure import runner as measure_runner
from harness.measure.lane import Lane, Progress
from harness.plan import datasets, inputs, models, targets
from harness.plan.prepare import prepare_dataset
from harness.proof.verifier import Verifier
from harness.runs import folder as run_folder
from harness.workers.cell_worker import Files
from harness.workers.hosts import Hosts

PARTS = ("same", "planted", "others", "disturbed", "alone")
FRAMEWORKS = {"tensorflow": "tensorflow-cpu", "jax": "jax-cpu"}
SHARES = (0.0, 0.01, 0.03)
BATCH_SIZE, EPOCHS = 8, 40
REPEATS = 16
TIMEOUT = 300.0

SAME, SAME_SECONDS = 40, 32.0
PLANTED, PLANTED_SECONDS = 20, {0.03: 65.0, 0.01: 25.0}
PLANTED_PRECISION = {0.03: 0.014, 0.01: 0.01}
OTHERS, OTHERS_SECONDS = 10, 32.0
ALONE_ROUNDS = 2400
LOOP_SECONDS, LOOP_TURNS = 5.0, 200_000

LONGEST_SECONDS = 90.0
MOST_FALSE, FEWEST_COVERED, FEWEST_FOUND, NARROWER, ALONE = 2 / 40, 36 / 40, 18 / 20, 3.0, 0.01
"""Bars: shares of comparisons, a ratio of widths, and a log ratio."""

DISTURBANCE = """
import random, time
while True:
    time.sleep(random.expovariate(1 / 0.5))
    end = time.monotonic() + random.expovariate(1 / 0.5)
    while time.monotonic() < end:
        pass
"""
"""Half a second of rest and half a second of one core, on average, at random."""


@dataclass(frozen=True)
class Row:
    """One line of a table: what was done, figures by name, whether its bar is met (None: it has none)."""

    part: str
    what: str
    figures: dict[str, float | int | str]
    met: bool | None = None


@dataclass
class Bench:
    """Everything the parts share. ``scale`` multiplies the number of comparisons."""

    folder: Path
    dataset: datasets.Prepared
    definitions: dict[str, targets.TargetDefinition]
    scale: float
    rows: list[Row] = field(default_factory=list)
    number: int = 0

    def count(self, full: int) -> int:
        return max(2, round(full * self.scale))

    def target(self, framework: str, share: float | None = None) -> Target:
        name = FRAMEWORKS[framework] if share is None else f"{framework}-{round(100 * share)}"
        return targets.resolve(name, self.definitions)

    def cell(self, key: LaneKey, repeat: int) -> Cell:
        model, known = models.load("mnist-cnn"), self.dataset.dataset
        training = TrainingSpec(BATCH_SIZE, EPOCHS, OptimizerSpec("momentum"))
        drawn = inputs.identify(model, known.train_examples, EPOCHS, training.seed)
        return Cell(model, training, known, drawn, key.target, repeat, key.lane)

    def hosts(self, place: Path) -> tuple[Hosts, Verifier]:
        pool, bundle = session.open_hosts(self.definitions, {}, place / "scratch", place / "logs", TIMEOUT)
        return pool, session.open_verifier(self.definitions, pool, bundle.sha256, place / "scratch", TIMEOUT)

    def compare(self, lanes: Sequence[LaneKey], seconds: float, precision: float) -> Comparison:
        """As ``harness compare`` does it, with fresh hosts."""
        self.number += 1
        place = self.folder / f"run-{self.number}"
        cells = tuple(self.cell(key, repeat) for repeat in range(REPEATS) for key in lanes)
        run = run_folder.Run.create(place, run_folder.Plan("trust", "", now(), "", cells, interleave="block"))
        with run.locked():
            pool, verifier = self.hosts(place)
            with pool:
                measure = heat.Measure(series.HEAT_SECONDS, self.folder / "programs")
                runner = measure_runner.Runner(run, pool, verifier, self.dataset.folder, TIMEOUT, Silent(), measure)
                series.Series(run, runner, lanes, series.Goal(precision, seconds)).run(cells)
        found = comparison.compare((one for one in run.records() if one.status != "skipped"), lanes)
        (one,) = found
        if one.interval is None:
            raise HarnessError(f"a comparison came to nothing: {one.reasons or one.base.problem or one.lane.problem}")
        return one


class Silent:
    """Watches nothing."""

    def started(self, cell: Cell, doing: str) -> None: ...

    def progressed(self, progress: Progress) -> None: ...

    def finished(self, record: Any) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the comparisons to make (default 1)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    arguments = parser.parse_args()
    own: dict[str, Any] = {}
    for framework, name in FRAMEWORKS.items():
        backend = "slowed_backend:" + {"tensorflow": "SlowedTensorFlow", "jax": "SlowedJax"}[framework]
        path = str(Path(__file__).parent / "shim")
        for share in SHARES:
            own[f"{framework}-{round(100 * share)}"] = {
                "like": name,
                "backend": backend,
                "path": path,
                "env": {"SLOWDOWN": str(share)},
            }
    try:
        definitions = targets.definitions(own, "")
        reference = targets.resolve(session.REFERENCE, definitions)
        wanted = [*(targets.resolve(name, definitions) for name in FRAMEWORKS.values()), reference]
        session.build_environments(definitions, wanted, NEWS)
        with tempfile.TemporaryDirectory(prefix="harness-trust-") as folder:
            prepared = prepare_dataset("digits", None, NEWS)
            bench = Bench(Path(folder), prepared, definitions, arguments.scale)
            for part in arguments.only or PARTS:
                bench.rows.append(wavering(part))
                DOERS[part](bench)
    except HarnessError as error:
        say(str(error))
        return error.exit_status
    if arguments.json:
        print(json.dumps({"machine": machine_facts.facts(), "rows": [asdict(row) for row in bench.rows]}, indent=1))
    else:
        show(bench.rows)
    return 1 if any(row.met is False for row in bench.rows) else 0


def wavering(part: str) -> Row:
    """How much two neighbouring blocks of an empty loop on one core differ: what no comparison here can be free of."""
    times = []
    until = time.monotonic() + LOOP_SECONDS
    while time.monotonic() < until:
        start = time.perf_counter()
        for _ in range(LOOP_TURNS):
            pass
        times.append(time.perf_counter() - start)
    figures: dict[str, float | int | str] = {}
    for blocks in (1, 4, 16):
        sums = np.log(np.array(times[: len(times) // (2 * blocks) * 2 * blocks]).reshape(-1, blocks).sum(axis=1))
        differences = sums[1::2] - sums[::2]
        length = 1000 * float(np.median(times)) * blocks
        figures[f"% apart at {length:.0f} ms"] = round(100 * float(np.median(np.abs(differences))) * 1.4826, 1)
    return Row(f"before {part}", "an empty loop", figures)


def same(bench: Bench, part: str = "same") -> None:
    """A target with itself, both frameworks in turns."""
    found: dict[str, list[Comparison]] = {framework: [] for framework in FRAMEWORKS}
    for number in range(bench.count(SAME)):
        framework = list(FRAMEWORKS)[number % 2]
        target = bench.target(framework)
        found[framework].append(bench.compare(comparison.lane_keys([target, target]), SAME_SECONDS, 0.005))
        say(f"{part} {number + 1}: {told(found[framework][-1])}")
    both = [one for group in found.values() for one in group]
    for framework, group in {**found, "both": both}.items():
        if not group:
            continue
        wrong = sum(one.verdict != "no difference found" for one in group)
        covered = sum(one.interval.low <= 0 <= one.interval.high for one in group if one.interval)
        met = None
        if framework == "both":
            met = wrong <= MOST_FALSE * len(group) and covered >= FEWEST_COVERED * len(group)
        bench.rows.append(
            Row(
                part,
                f"{framework} with itself",
                {
                    "comparisons": len(group),
                    "declared different": wrong,
                    "interval holds 1": covered,
                    "half width %": width(group),
                    "noise floor %": round(100 * float(np.median([one.floor or 0 for one in group])), 2),
                    "heats": float(np.median([one.processes for one in group])),
                },
                met,
            )
        )


def planted(bench: Bench, part: str = "planted") -> None:
    """A lane with a known slowdown against one without."""
    for share in (0.03, 0.01):
        found = []
        for number in range(bench.count(PLANTED)):
            framework = list(FRAMEWORKS)[number % 2]
            lanes = comparison.lane_keys([bench.target(framework, 0.0), bench.target(framework, share)])
            start = time.monotonic()
            one = bench.compare(lanes, PLANTED_SECONDS[share], PLANTED_PRECISION[share])
            found.append((one, time.monotonic() - start))
            say(f"{part} {share:.0%} {number + 1}: {told(one)}, {found[-1][1]:.0f} s")
        slower = sum(one.verdict == "slower" for one, _ in found)
        faster = sum(one.verdict == "faster" for one, _ in found)
        covered = sum(
            one.interval.low <= math.log1p(share) <= one.interval.high for one, _ in found if one.interval is not None
        )
        longest = max(seconds for _, seconds in found)
        met = faster == 0 and (share < 0.03 or (slower >= FEWEST_FOUND * len(found) and longest <= LONGEST_SECONDS))
        bench.rows.append(
            Row(
                part,
                f"{share:.0%} slower",
                {
                    "comparisons": len(found),
                    "found": slower,
                    "wrong way": faster,
                    "interval holds it": covered,
                    "half width %": width([one for one, _ in found]),
                    "longest s": round(longest),
                },
                met,
            )
        )


def others(bench: Bench) -> None:
    """The same target twice, the same time: in turns, as whole runs, as processes in sequence."""
    names = ("in turns", "whole runs", "processes in sequence")
    estimates: dict[str, list[float]] = {name: [] for name in names}
    widths: dict[str, list[float]] = {name: [] for name in names}
    alarms: dict[str, int] = dict.fromkeys(names, 0)
    for number in range(bench.count(OTHERS)):
        for framework in FRAMEWORKS:
            target = bench.target(framework)
            keys = comparison.lane_keys([target, target])
            start = time.monotonic()
            turns = bench.compare(keys, OTHERS_SECONDS, 0.0005)
            seconds = OTHERS_SECONDS
            assert turns.interval is not None
            made = {"in turns": (turns.interval, turns.verdict != "no difference found")}
            pool, _ = bench.hosts(bench.folder / f"sequence-{number}-{framework}")
            with pool:
                for name in names[1:]:
                    processes = 1 if name == "whole runs" else 4
                    sides = [
                        [run_alone(bench, pool, keys[0], seconds / 2 / processes) for _ in range(processes)]
                        for _ in range(2)
                    ]
                    # Whole runs: every block counts as one observation. Processes: pyperf's, one mean value each.
                    values = [np.log(np.concatenate(side)) for side in sides]
                    if name != "whole runs":
                        values = [np.array([math.log(float(np.mean(one))) for one in side]) for side in sides]
                    interval = statistics.unpaired_interval(*values)
                    made[name] = (interval, not interval.low <= 0 <= interval.high)
            for name, (interval, alarm) in made.items():
                estimates[name].append(interval.estimate)
                widths[name].append(interval.half_width)
                alarms[name] += alarm
            told_widths = ", ".join(f"{name} {interval.estimate:+.2%}" for name, (interval, _) in made.items())
            say(f"others {number + 1}, {framework}: {told_widths}, {time.monotonic() - start:.0f} s")
    needed = {name: 1.96 * math.sqrt(float(np.mean(np.square(estimates[name])))) for name in names}
    for name in names:
        ratio = needed[name] / needed["in turns"]
        narrower = min(needed[other] for other in names[1:]) / needed["in turns"]
        bench.rows.append(
            Row(
                "others",
                name,
                {
                    "comparisons": len(estimates[name]),
                    "false alarms": alarms[name],
                    "claimed half width %": round(100 * float(np.median(widths[name])), 2),
                    "true half width %": round(100 * needed[name], 2),
                    "times as wide": round(ratio, 2),
                },
                narrower >= NARROWER if name == "in turns" else None,
            )
        )


def run_alone(bench: Bench, pool: Hosts, key: LaneKey, seconds: float) -> np.ndarray:
    """Seconds per step of blocks of about 75 ms, of one fresh process that trains alone for ``seconds``."""
    lane = open_lane(bench, pool, key, 0)
    start = time.monotonic()
    while lane.advance() and time.monotonic() - start < seconds:
        pass
    lane.close()
    blocks = lane.record({}, "", 1, "").blocks
    rates = zip(blocks.kind, blocks.seconds, blocks.steps, strict=True)
    return np.array([duration / steps for kind, duration, steps in rates if kind == "train"])


def open_lane(bench: Bench, pool: Hosts, key: LaneKey, place: int) -> Lane:
    """A lane, opened and warmed up. Raises HarnessError."""
    cell = bench.cell(key, 0)
    parameters, order = inputs.write(bench.folder, cell)
    scratch = bench.folder / f"lane-{place}"
    files = Files(bench.dataset.folder, parameters, order, scratch, bench.folder / "programs")
    lane = Lane(cell, pool.worker(key.target, place), files, TIMEOUT, evaluates=False)
    lane.open()
    while lane.warming and lane.advance():
        pass
    if lane.status != "ok":
        raise HarnessError(f"{key.label}: {lane.status}")
    return lane


def disturbed(bench: Bench) -> None:
    """``same`` and ``planted`` beside a process that takes a core now and then."""
    process = subprocess.Popen([sys.executable, "-c", DISTURBANCE])
    try:
        same(bench, "same, disturbed")
        planted(bench, "planted, disturbed")
    finally:
        process.kill()
        process.wait()


def alone(bench: Bench) -> None:
    """A block after another lane's turn, as in a heat, against one after blocks of its own, round by round.

    That shows what a turn does to caches. The other lane waits in both; that it uses no processor meanwhile is on every
    record (``idle_share``), and refused by a comparison where it does.
    """
    for framework, other in (("tensorflow", "jax"), ("jax", "tensorflow")):
        effects = []
        for number in range(bench.count(8)):
            pool, _ = bench.hosts(bench.folder / f"alone-{framework}-{number}")
            with pool:
                lane = open_lane(bench, pool, LaneKey(bench.target(framework), 0), 0)
                beside = open_lane(bench, pool, LaneKey(bench.target(other), 0), 1)
                logs = []
                for count in range(ALONE_ROUNDS // 8):
                    beside.turn(count, 1, 1)
                    in_turn = lane.turn(count, 1, 1)
                    lane.turn(count, 3, 0)
                    by_itself = lane.turn(count, 1, 1)
                    if in_turn is None or by_itself is None:
                        raise HarnessError(f"{lane.cell.target.label}: {lane.status}")
                    # The last block of an epoch may be one step that did not settle.
                    if in_turn.settle and by_itself.settle:
                        logs.append(math.log(in_turn.seconds / by_itself.seconds))
                lane.close()
                beside.close()
            effects.append(float(np.median(logs)))
            say(f"alone {framework} {number + 1}: {effects[-1]:+.2%}")
        interval = statistics.process_interval(effects)
        throughput = [100 * (math.exp(-value) - 1) for value in (interval.estimate, interval.high, interval.low)]
        bench.rows.append(
            Row(
                "alone",
                f"{framework} in turns with {other}, against alone",
                {
                    "throughput %": round(throughput[0], 2),
                    "low %": round(throughput[1], 2),
                    "high %": round(throughput[2], 2),
                    "rounds": ALONE_ROUNDS // 8 * len(effects),
                },
                abs(interval.estimate) <= ALONE,
            )
        )


DOERS: dict[str, Callable[[Bench], None]] = {
    "same": same,
    "planted": planted,
    "others": others,
    "disturbed": disturbed,
    "alone": alone,
}


def width(group: Sequence[Comparison]) -> float:
    """Median half width in per cent."""
    return round(100 * float(np.median([one.interval.half_width for one in group if one.interval])), 2)


def told(one: Comparison) -> str:
    assert one.interval is not None
    return (
        f"{one.lane.label} {one.interval.estimate:+.2%} ({one.interval.low:+.2%} to {one.interval.high:+.2%}), "
        f"{one.processes} heats, {one.rounds} rounds, floor {one.floor or 0:.2%}, {one.verdict}"
    )


def show(rows: Sequence[Row]) -> None:
    """One table a part, as plain lines."""
    facts = machine_facts.facts()
    print(f"{facts['processor']}, {facts['logical_cores']} cores, load {machine_facts.load()['load_1min']}")
    for part in dict.fromkeys(row.part for row in rows):
        group = [row for row in rows if row.part == part]
        headings = [part, *group[0].figures, ""]
        bar = {None: "", True: "met", False: "MISSED"}
        lines = [headings, *([row.what, *map(str, row.figures.values()), bar[row.met]] for row in group)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(headings))]
        print()
        for cells in lines:
            first, *rest = (
                text.ljust(size) if place == 0 else text.rjust(size)
                for place, (text, size) in enumerate(zip(cells, widths, strict=True))
            )
            print("  ".join([first, *rest]).rstrip())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
