"""What proving training at its size costs: ``python benchmarks/proof_cost.py``.

Part ``study``: of every target and batch size of the preset ``study`` the proof at that size is made, with no proof
kept from before, and a lane is trained for some seconds, looked at, and its steps done again by the reference. The cost
of the whole sweep is that of its proofs, and of the witness of each of its cells; it is held against the time that its
cells train, which follows from the paces measured here. Bar: a tenth.

Part ``quick``: ``harness sweep quick`` as a command, with no proof kept from before. Bar: 180 seconds, which is a
promise for two slow cores with nothing else to do. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness import paths
from harness.core.cell import Cell
from harness.core.training import TrainingSpec
from harness.machine import facts as machine_facts
from harness.measure import session
from harness.measure.evidence import Evidence
from harness.measure.lane import Lane
from harness.measure.schedule import rehearsal
from harness.measure.witness import Moment
from harness.plan import datasets, inputs, models, targets
from harness.plan.news import News
from harness.plan.prepare import prepare_dataset
from harness.proof.verifier import Verifier
from harness.workers.cell_worker import Files

MODEL = "mnist-cnn"
TARGETS = ("tensorflow-cpu", "jax-cpu")
BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
EPOCHS = (1, 5, 10)
EXAMPLES = 60_000
"""The preset ``study``."""

STUDY_BAR, QUICK_BAR = 0.1, 180.0
TRAIN_SECONDS = 5.0
"""How long a lane trains to find its pace, and at least four blocks."""

TIMEOUT = 1800.0
HARNESS = shutil.which("harness", path=Path(sys.executable).parent) or "harness"


@dataclass(frozen=True)
class Cost:
    """One target at one batch size: seconds of the proof, of a witness, and of an epoch's training."""

    target: str
    batch_size: int
    proof: float
    steps: int
    witness: float
    epoch: float


def measured(label: str, sizes: Sequence[int], place: Path) -> list[Cost]:
    """Every batch size of one target, from small to large, as a sweep goes."""
    definitions = session.with_reference(targets.definitions(), News())
    target, reference = (targets.resolve(name, definitions) for name in (label, session.REFERENCE))
    prepared = prepare_dataset("digits", None, News())
    pool, _ = session.open_hosts(definitions, {}, place / "scratch", place / "logs", TIMEOUT)
    found = []
    with pool:
        give = partial(pool.worker, target)
        verifier = Verifier(
            place / "proofs", place / "probes", lambda: (reference, pool.worker(reference)), {}, TIMEOUT
        )
        _ = give().ready, pool.worker(reference).ready  # importing is no part of it
        for size in sizes:
            dataset = datasets.limited(prepared.dataset, None, None)
            model, epochs = models.load(MODEL), 4
            drawn = inputs.identify(model, dataset.train_examples, epochs, 0)
            cell = Cell(model, TrainingSpec(size, epochs), dataset, drawn, target)
            began = time.monotonic()
            proof = verifier.at_size.proof(cell, prepared.folder, rehearsal, give)
            proving = time.monotonic() - began
            if not proof.passed:
                raise SystemExit(f"{label} at {size}: {proof.reason}")
            witness, pace = _trained(cell, prepared.folder, place, verifier, give)
            found.append(Cost(target.label, size, proving, proof.steps, witness, EXAMPLES / pace))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _trained(cell: Cell, dataset: Path, place: Path, verifier: Verifier, give: partial) -> tuple[float, float]:  # type: ignore[type-arg]
    """Seconds of a witness, and images per second of training."""
    folder = place / f"cell-{cell.cell_id}"
    folder.mkdir(parents=True)
    parameters, order = inputs.write(folder, cell)
    files = Files(dataset, parameters, order, folder)
    lane = Lane(cell, give(), files, TIMEOUT, evaluates=False)
    moment = Moment([lane])
    assert lane.open()
    began, blocks = time.monotonic(), 0
    while lane.running and (blocks < 4 or time.monotonic() - began < TRAIN_SECONDS):
        if not lane.warming:
            moment.before(blocks / 4, blocks >= 3, 1)
        lane.advance()
        moment.after()
        blocks += 1
    moment.finish()
    assert lane.step_seconds is not None
    pace = cell.training.batch_size / lane.step_seconds
    lane.close()
    shown = Evidence(None)
    shown.judge(lane, files, verifier.witnesses)
    assert lane.status == "ok", lane.record({}, "", 1, "").reason
    shutil.rmtree(folder)
    return moment.seconds + shown.facts.replaying_seconds, pace


def study(place: Path, names: Sequence[str], sizes: Sequence[int], console: Console) -> bool:
    """The costs of a study's sweep, in a table."""
    costs = [cost for name in names for cost in measured(name, sizes, place / name)]
    table = Table(box=box.SIMPLE_HEAD, title="Seconds of proving, beside those of training", title_justify="left")
    for header in ("target", "batch size", "proof", "steps", "witness of a cell", "training of an epoch"):
        table.add_column(header, justify="left" if header == "target" else "right")
    for cost in costs:
        figures = (f"{cost.proof:.1f}", str(cost.steps), f"{cost.witness:.1f}", f"{cost.epoch:.0f}")
        table.add_row(cost.target, f"{cost.batch_size:,}", *figures)
    console.print(table)
    proofs, witnesses = sum(cost.proof for cost in costs), len(EPOCHS) * sum(cost.witness for cost in costs)
    training = sum(EPOCHS) * sum(cost.epoch for cost in costs)
    share = (proofs + witnesses) / training
    console.print(
        f"Of these cells: proofs {proofs:,.0f} s, witnesses {witnesses:,.0f} s, training {training:,.0f} s: "
        f"{100 * share:.1f} %, bar {100 * STUDY_BAR:.0f} %: {_met(share <= STUDY_BAR)}"
    )
    return share <= STUDY_BAR


def quick(place: Path, console: Console) -> bool:
    """The preset, with the environments and datasets of the person's cache and nothing else of it."""
    cache = place / "cache"
    cache.mkdir()
    for kind in (paths.ENVIRONMENTS, paths.DATASETS):
        (cache / kind).symlink_to(paths.cache_folder(kind), target_is_directory=True)
    began = time.monotonic()
    done = subprocess.run(
        [HARNESS, "sweep", "quick", "--out", str(place / "run")],
        env={**os.environ, paths.CACHE_VARIABLE: str(cache)},
        stdout=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - began
    met = done.returncode == 0 and seconds <= QUICK_BAR
    console.print(f"harness sweep quick: {seconds:.0f} s, bar {QUICK_BAR:.0f} s: {_met(met)}")
    return met


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def main() -> int:
    """Both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("study", "quick"))
    parser.add_argument("--target", nargs="*", default=TARGETS)
    parser.add_argument("--batch-size", nargs="*", type=int, default=BATCH_SIZES)
    asked = parser.parse_args()
    console = Console(width=100)
    console.print(f"{machine_facts.facts()['processor']}, load {machine_facts.load()['load_1min']:.2f}")
    met = []
    with tempfile.TemporaryDirectory() as folder:
        if asked.only != "study":
            met.append(quick(Path(folder), console))
        if asked.only != "quick":
            met.append(study(Path(folder), asked.target, asked.batch_size, console))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
