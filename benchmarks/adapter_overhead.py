"""What the harness's adapters cost against code written by hand: ``python benchmarks/adapter_overhead.py``.

For TensorFlow and for JAX, and each batch size, the adapter under the harness's own loop trains ``mnist-cnn``
in turns with the shortest loop that an expert writes in that framework, and with Keras 3's ``Model.fit``
(``adapter_overhead_lanes.py`` has both). A ratio is the adapter's throughput over the opponent's: the median of the
paired log-ratios of neighbouring blocks, with a 95 % percentile-bootstrap interval over the pairs (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

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

from rich.console import Console
from rich.table import Table

from harness import environments, machine, models, targets
from harness.core.codec import to_json
from harness.core.errors import HarnessError, WorkerCrashed
from harness.interpreters import clean_variables
from harness.paths import cache_folder
from harness.workers.code_bundle import bundle

LANES = Path(__file__).with_name("adapter_overhead_lanes.py")
TARGETS = {"tensorflow": "tensorflow-cpu:graph", "jax": "jax-with-keras:jit"}
OWN_TARGETS = {"jax-with-keras": {"like": "jax-cpu", "lock": "adapter_overhead_jax.txt"}}
LOOP_BAR, FIT_BAR = 0.98, 1.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """Adapter against one opponent. Throughputs are images/s, medians over the blocks."""

    framework: str
    opponent: str
    batch_size: int
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
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128, 512], metavar="N")
    parser.add_argument("--only", choices=sorted(TARGETS), help="one framework")
    parser.add_argument("--seconds", type=float, default=40.0, help="per comparison, at least 20 rounds (default 40)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--tensorflow-python", metavar="PATH", help="an interpreter with TensorFlow and Keras 3")
    parser.add_argument("--jax-python", metavar="PATH", help="an interpreter with JAX, Flax, optax and Keras 3")
    arguments = parser.parse_args()
    given = {"tensorflow": arguments.tensorflow_python, "jax": arguments.jax_python}
    frameworks = [arguments.only] if arguments.only else list(TARGETS)
    found = []
    try:
        for framework in frameworks:
            for comparison in measure(framework, given[framework], arguments.batch_size, arguments.seconds):
                found.append(comparison)
                say(f"{framework}, batch {comparison.batch_size}, {comparison.opponent}: {comparison.ratio:.3f}")
    except HarnessError as error:
        say(str(error))
        return error.exit_status
    if arguments.json:
        facts = {"machine": machine.facts(), "comparisons": [asdict(comparison) for comparison in found]}
        print(json.dumps(facts, indent=2))
    else:
        Console().print(table(found))
    return 0 if all(comparison.met for comparison in found) else 1


def measure(framework: str, python: str | None, batch_sizes: list[int], seconds: float) -> Iterator[Comparison]:
    """Run one framework's lanes in a process of its own; yield each comparison when it is there."""
    known = targets.definitions(OWN_TARGETS, __file__)
    target = targets.resolve(TARGETS[framework], known)
    definition = known[target.name]
    interpreter = Path(python) if python else environments.ensure(definition, say)
    request = {
        "model": to_json(models.load("mnist-cnn")),
        "target": to_json(target),
        "batch_sizes": batch_sizes,
        "seconds": seconds,
    }
    variables = {
        **clean_variables(),
        **definition.variables(),
        "PYTHONPATH": str(bundle(cache_folder("bundles")).path),
        "KERAS_BACKEND": framework,
    }
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
            yield judge(framework, json.loads(line))
        if process.wait() != 0:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no message"])[-1]
            raise WorkerCrashed(f"{framework}: the measuring process ended with status {process.returncode}: {last}")


def judge(framework: str, answer: dict[str, Any]) -> Comparison:
    """The ratio of throughputs, its interval, and whether the bar is met."""
    pairs, batch_size = answer["pairs"], answer["batch_size"]
    ratio, low, high = ratio_of([math.log(theirs / ours) for ours, theirs in pairs])
    against_loop = answer["opponent"] == "loop"
    return Comparison(
        framework=framework,
        opponent=answer["opponent"],
        batch_size=batch_size,
        rounds=len(pairs),
        steps_per_block=answer["steps_per_block"],
        adapter=batch_size / statistics.median(ours for ours, _ in pairs),
        theirs=batch_size / statistics.median(theirs for _, theirs in pairs),
        ratio=ratio,
        low=low,
        high=high,
        bar=LOOP_BAR if against_loop else FIT_BAR,
        met=ratio >= LOOP_BAR if against_loop else high >= FIT_BAR,
    )


def ratio_of(logarithms: list[float]) -> tuple[float, float, float]:
    """Median of paired log-ratios as a ratio, with its 95 % percentile-bootstrap interval."""
    generator = random.Random(0)
    size = len(logarithms)
    medians = sorted(statistics.median(generator.choices(logarithms, k=size)) for _ in range(RESAMPLES))
    low, high = medians[round(0.025 * RESAMPLES)], medians[round(0.975 * RESAMPLES) - 1]
    return math.exp(statistics.median(logarithms)), math.exp(low), math.exp(high)


def table(found: list[Comparison]) -> Table:
    """One row a comparison; narrow enough for 80 columns."""
    shown = Table(title="Throughput of the adapter relative to others, images/s", title_justify="left")
    for heading in ("framework", "batch", "against", "adapter", "other", "ratio", "95 % interval", "bar", ""):
        shown.add_column(heading, justify="left" if heading in ("framework", "against", "") else "right", no_wrap=True)
    for one in found:
        shown.add_row(
            one.framework,
            str(one.batch_size),
            one.opponent,
            f"{one.adapter:,.0f}",
            f"{one.theirs:,.0f}",
            f"{one.ratio:.3f}",
            f"{one.low:.3f}-{one.high:.3f}",
            f"{one.bar:.2f}",
            "met" if one.met else "MISSED",
        )
    shown.caption = (
        f"loop: the shortest loop by hand, bar: ratio >= {LOOP_BAR}; "
        "fit: Keras 3 Model.fit, bar: interval not below 1. Median of paired blocks."
    )
    shown.caption_justify = "left"
    return shown


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
