"""What the harness's adapters cost against code written by hand: ``python benchmarks/adapter_overhead.py``.

For TensorFlow and for JAX, and each batch size, the adapter under the harness's own loop trains ``mnist-cnn``
in turns with the shortest loop that an expert writes in that framework, and with Keras 3's ``Model.fit``
(``adapter_overhead_lanes.py`` has all three). This is done in several fresh processes, which differ by more than their
blocks do; the adapter is built first in every other one. A ratio is the adapter's throughput over the opponent's:
the mean over processes of the median log-ratio of neighbouring blocks. Its 95 % interval is the percentile bootstrap
that draws processes, then pairs within them (Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
section 3.8).

Bars: against ``loop`` the ratio itself is at least 0.98; against ``fit`` the adapter is not shown to be slower: the
interval does not lie below 1. Exit status 1 when one is missed. Other work on the machine widens the intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.codec import to_json
from harness.core.errors import HarnessError, UsageError, WorkerCrashed
from harness.machine import facts as machine_facts
from harness.paths import cache_folder
from harness.plan import models, targets
from harness.workers import environments
from harness.workers.code_bundle import bundle
from harness.workers.interpreters import clean_variables, problem_of

LANES = Path(__file__).with_name("adapter_overhead_lanes.py")
TARGETS = {"tensorflow": "tensorflow-cpu:graph", "jax": "jax-with-keras:jit"}
OWN_TARGETS = {"jax-with-keras": {"like": "jax-cpu", "lock": "adapter_overhead_jax.txt"}}
LOOP_BAR, FIT_BAR = 0.98, 1.0
FEWEST_ROUNDS = 20
RESAMPLES = 2000

Pair = tuple[float, float]
"""Seconds per step of the adapter and of its opponent."""


@dataclass(frozen=True)
class Comparison:
    """Adapter against one opponent. Throughputs are images/s, medians over the blocks."""

    framework: str
    opponent: str
    batch_size: int
    processes: int
    rounds: int
    steps_per_block: int
    adapter: float
    theirs: float
    ratio: float
    low: float
    high: float
    bar: float
    met: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=positive, nargs="+", default=[32, 128, 512], metavar="N")
    parser.add_argument("--only", choices=sorted(TARGETS), help="one framework")
    parser.add_argument("--processes", type=positive, default=4, help="fresh processes per framework (default 4)")
    parser.add_argument("--seconds", type=float, default=40.0, help="per comparison, over all processes (default 40)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--tensorflow-python", metavar="PATH", help="an interpreter with TensorFlow and Keras 3")
    parser.add_argument("--jax-python", metavar="PATH", help="an interpreter with JAX, Flax, optax and Keras 3")
    arguments = parser.parse_args()
    given = {"tensorflow": arguments.tensorflow_python, "jax": arguments.jax_python}
    frameworks = [arguments.only] if arguments.only else list(TARGETS)
    found = []
    try:
        for framework in frameworks:
            found += measure(framework, given[framework], arguments)
    except HarnessError as error:
        say(str(error))
        return error.exit_status
    if arguments.json:
        facts = {"machine": machine_facts.facts(), "comparisons": [asdict(comparison) for comparison in found]}
        print(json.dumps(facts, indent=2))
    else:
        print(table(found))
    return 0 if all(comparison.met for comparison in found) else 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def measure(framework: str, python: str | None, arguments: argparse.Namespace) -> list[Comparison]:
    """Run one framework's processes and judge what they say."""
    known = targets.definitions(OWN_TARGETS, __file__)
    target = targets.resolve(TARGETS[framework], known)
    definition = known[target.name]
    interpreter = Path(python) if python else environments.ensure(definition, say)
    problem = problem_of(interpreter)
    if problem:
        raise UsageError(problem)
    variables = {
        **clean_variables(),
        **definition.variables(),
        "PYTHONPATH": str(bundle(cache_folder("bundles")).path),
        "KERAS_BACKEND": framework,
    }
    answers: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for number in range(arguments.processes):
        request = {
            "model": to_json(models.load("mnist-cnn")),
            "target": to_json(target),
            "batch_sizes": arguments.batch_size,
            "seconds": arguments.seconds / arguments.processes,
            "rounds": math.ceil(FEWEST_ROUNDS / arguments.processes),
            "adapter_first": number % 2 == 0,
        }
        say(f"{framework}: process {number + 1} of {arguments.processes}")
        for answer in ask(interpreter, variables, request):
            ratio = math.exp(median_of(answer["pairs"]))
            say(f"  batch {answer['batch_size']}, {answer['opponent']}: {ratio:.3f}")
            answers.setdefault((answer["batch_size"], answer["opponent"]), []).append(answer)
    return [judge(framework, *key, found) for key, found in answers.items()]


def ask(interpreter: Path, variables: dict[str, str], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Start a measuring process and yield its answers. Raises WorkerCrashed with its last line."""
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            [str(interpreter), str(LANES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
        if process.wait() != 0:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no message"])[-1]
            raise WorkerCrashed(f"{interpreter}: the measuring process ended with {process.returncode}: {last}")


def judge(framework: str, batch_size: int, opponent: str, answers: list[dict[str, Any]]) -> Comparison:
    """The ratio of throughputs, its interval, and whether the bar is met; an answer per process."""
    ratio, low, high = ratio_of([answer["pairs"] for answer in answers])
    pairs = [pair for answer in answers for pair in answer["pairs"]]
    bar = LOOP_BAR if opponent == "loop" else FIT_BAR
    return Comparison(
        framework=framework,
        opponent=opponent,
        batch_size=batch_size,
        processes=len(answers),
        rounds=len(pairs),
        steps_per_block=answers[0]["steps_per_block"],
        adapter=batch_size / statistics.median(ours for ours, _ in pairs),
        theirs=batch_size / statistics.median(theirs for _, theirs in pairs),
        ratio=ratio,
        low=low,
        high=high,
        bar=bar,
        met=ratio >= bar if opponent == "loop" else high >= bar,
    )


def median_of(pairs: list[Pair]) -> float:
    """Median log-ratio of throughputs, adapter over opponent."""
    return statistics.median(math.log(theirs / ours) for ours, theirs in pairs)


def ratio_of(processes: list[list[Pair]]) -> tuple[float, float, float]:
    """The mean over processes of ``median_of`` as a ratio, with its interval."""
    generator = random.Random(0)
    means = sorted(
        statistics.fmean(
            median_of(generator.choices(pairs, k=len(pairs)))
            for pairs in generator.choices(processes, k=len(processes))
        )
        for _ in range(RESAMPLES)
    )
    low, high = means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]
    return math.exp(statistics.fmean(map(median_of, processes))), math.exp(low), math.exp(high)


def table(found: list[Comparison]) -> str:
    """One row a comparison, 80 columns wide."""
    lines = ["framework  batch  against  adapter    other  ratio  95 % interval   bar"]
    for one in found:
        figures = f"{one.adapter:>7,.0f}  {one.theirs:>7,.0f}  {one.ratio:.3f}  {one.low:>6.3f}-{one.high:.3f}"
        verdict = "met" if one.met else "MISSED"
        lines.append(f"{one.framework:<10} {one.batch_size:>5}  {one.opponent:<7}  {figures}  {one.bar:.2f}  {verdict}")
    lines += [
        "adapter, other: images/s. loop: the shortest loop by hand, bar on the ratio;",
        "fit: Keras 3 Model.fit, bar on the upper end of the interval (not shown to be slower).",
    ]
    return "\n".join(lines)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
