"""``harness verify``: prove that targets do the reference's work, for every model and optimizer asked for.

And that the clock tells the time of the work, once for each target. This is the conformance suite of backends, the
project's own and those of others. What a backend declares not to have, and refuses, is no fault: it is listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from harness.commands import printing, running
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError
from harness.core.model import ModelSpec
from harness.core.training import OPTIMIZERS, PRECISIONS
from harness.doctor import support
from harness.plan import models, own_file
from harness.proof import synchrony
from harness.proof.parity import Proof, Quantity
from harness.proof.synchrony import Synchronisation
from harness.workers import Worker

TIMED_MODEL = "mnist-cnn"
"""Whose steps show that time is told truly, where it is among the models asked for; else the first of them."""

DROPOUT = "dropout"
"""Quantities whose names begin so are several checks of one thing, shown as the worst of them."""


@dataclass(frozen=True)
class Gap:
    """A combination that a backend refuses, as it declares: ``reason`` names what it has not, and why."""

    target: str
    model: str
    optimizer: str
    reason: str


@dataclass(frozen=True)
class Request:
    """The flags of ``harness verify``; empty means all, of precisions the first."""

    targets: Sequence[str]
    models: Sequence[str]
    optimizers: Sequence[str]
    precisions: Sequence[str]
    json: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Probe afresh, print the tables, store the proofs. Exit status 1 if anything fails."""
    definitions = own_file.target_definitions()
    wanted = running.every_mode(request.targets, definitions)
    specs = [models.load(text) for text in (request.models or models.names())]
    optimizers = [printing.optimizer(name) for name in (request.optimizers or OPTIMIZERS)]
    precisions = [printing.compute_precision(name) for name in (request.precisions or PRECISIONS[:1])]
    console = printing.standard_error()
    problems = printing.build_environments(definitions, wanted, console)
    definitions = running.with_reference(definitions, console)
    timed = next((spec for spec in specs if spec.name == TIMED_MODEL), specs[0])
    proofs: list[Proof] = []
    gaps: list[Gap] = []
    synchronised: list[Synchronisation] = []
    with running.temporary_hosts(definitions, problems, "verify", request.timeout, request.fork) as (
        pool,
        bundle,
        place,
    ):
        verifier = running.open_verifier(definitions, pool, bundle.sha256, place, request.timeout)
        for target in wanted:
            give = partial(pool.worker, target)
            for model, optimizer, precision in product(specs, optimizers, precisions):
                try:
                    proof = verifier.proof(target, model, optimizer, precision, give, fresh=True)
                except CellError as error:
                    names = target.label, model.name, optimizer.name, precision
                    proof = Proof("", *names, {}, (), str(error), error.status)
                if proof.problem_status == "unsupported" and (gap := _declared(proof, target, model, give)):
                    gaps.append(gap)
                    printing.say(console, f"{gap.target}, {gap.model}, {gap.optimizer}: {gap.reason}")
                    continue
                proofs.append(proof)
                printing.say(console, f"{_lane(proof)}, {proof.model}, {proof.optimizer}: {_verdict(proof)}")
            synchronised.append(synchrony.check(target, timed, give, place / "synchrony", request.timeout))
            printing.say(console, f"{target.label}, synchronisation: {synchronised[-1].verdict}")
    if request.json:
        listed = [codec.to_json(gap) for gap in gaps]
        printing.write_json({"proofs": _plain(proofs), "not_offered": listed, "synchrony": _plain(synchronised)})
    else:
        _print(proofs)
        _print_gaps(gaps)
        _print_synchrony(synchronised)
    outcomes: list[Proof | Synchronisation] = [*proofs, *synchronised]
    proven = {proof.target for proof in proofs}
    nothing = [target.label for target in wanted if target.label not in proven]
    for label in nothing:
        printing.say(console, f"FAILED {label}: nothing of what was asked for is offered, so nothing is proven")
    return 0 if all(outcome.passed for outcome in outcomes) and not nothing else 1


def _declared(proof: Proof, target: Target, model: ModelSpec, give: Callable[[], Worker]) -> Gap | None:
    """The gap that a refusal stands for, if the backend's capabilities declare it; None if they promise the thing."""
    try:
        able = give().ready.capabilities
    except CellError:
        return None
    needed = {layer.kind: "layers" for layer in model.layers}
    needed |= {proof.optimizer: "optimizers", proof.precision: "precisions"}
    found = {
        thing: support.refusal(able, kind, thing, target.accelerator, target.mode, proof.precision)
        for thing, kind in needed.items()
    }
    missing = ", ".join(f"{thing} ({why})" for thing, why in found.items() if why)
    return Gap(proof.target, proof.model, proof.optimizer, f"not offered: {missing}") if missing else None


def _plain(outcomes: Sequence[Proof | Synchronisation]) -> list[dict[str, Any]]:
    return [{"passed": outcome.passed, "reason": outcome.reason, **codec.to_json(outcome)} for outcome in outcomes]


def _lane(proof: Proof) -> str:
    """The target, and the precision where it is not the usual one."""
    return proof.target if proof.precision == PRECISIONS[0] else f"{proof.target} {proof.precision}"


def _verdict(proof: Proof) -> str:
    return "passed" if proof.passed else f"FAILED: {proof.reason}"


def _print(proofs: Sequence[Proof]) -> None:
    """Per lane and quantity the largest error of all its proofs, against its tolerance; then what failed."""
    title = "Largest error against the float64 reference"
    headings = ("target", "quantity", "largest", "allowed", "where", "")
    table = printing.new_table(*headings, numbers=("largest", "allowed"), prose=("where",), title=title)
    for lane in dict.fromkeys(_lane(proof) for proof in proofs):
        worst: dict[str, tuple[Quantity, Proof]] = {}
        for proof in proofs:
            for quantity in proof.quantities if _lane(proof) == lane else ():
                group = quantity.name.partition(" ")[0] if quantity.name.startswith(DROPOUT) else quantity.name
                if group not in worst or _badness(quantity) > _badness(worst[group][0]):
                    worst[group] = (quantity, proof)
        if not worst:
            table.add_row(lane, "nothing measured", *[""] * (len(headings) - 3), "FAILED")
        for index, (group, (quantity, proof)) in enumerate(worst.items()):
            which = quantity.name.removeprefix(DROPOUT).strip() if group == DROPOUT else ""
            table.add_row(
                lane if index == 0 else "",
                group.replace("_", " "),
                f"{quantity.error:.1e}",
                f"{quantity.tolerance:.1e}",
                ", ".join(part for part in (proof.model, proof.optimizer, which, quantity.detail) if part),
                "ok" if quantity.passed else "FAILED",
            )
        table.add_section()
    console = printing.standard_output()
    if proofs:
        printing.print_table(table)
    for proof in proofs:
        if not proof.passed:
            printing.say(console, f"FAILED {_lane(proof)}, {proof.model}, {proof.optimizer}: {proof.reason}")
    passed = sum(proof.passed for proof in proofs)
    printing.say(console, f"{passed} of {len(proofs)} proofs passed.")


def _print_gaps(gaps: Sequence[Gap]) -> None:
    console = printing.standard_output()
    for gap in gaps:
        printing.say(console, f"{gap.target}, {gap.model}, {gap.optimizer}: {gap.reason}")


def _print_synchrony(outcomes: Sequence[Synchronisation]) -> None:
    """Per lane what was measured of its clock, then what failed."""
    console = printing.standard_output()
    printing.say(console, "")
    numbers = ("ms per step", "intercept", "block late", "control late", "control takes")
    title = "Synchronisation: share of the work that came after the end of a block, and of an unsynchronised control"
    table = printing.new_table("target", *numbers, "", numbers=numbers, title=title)
    for outcome in outcomes:
        cells = [""] * len(numbers)
        if (found := outcome.figures) is not None:
            shares = (found.intercept, found.outstanding, found.control_outstanding, found.control_time)
            cells = [f"{1000 * found.step_seconds:.2f}", *(f"{100 * share:.1f} %" for share in shares)]
        table.add_row(outcome.target, *cells, _short(outcome))
    printing.print_table(table)
    for outcome in outcomes:
        if not outcome.passed:
            printing.say(console, f"FAILED {outcome.target}, synchronisation: {outcome.reason}")


def _short(outcome: Synchronisation) -> str:
    if outcome.figures is None or not outcome.passed:
        return "FAILED"
    if outcome.figures.control_caught:
        return "control caught"
    return "nothing to catch" if outcome.figures.nothing_to_catch else "caught in part"


def _badness(quantity: Quantity) -> tuple[bool, float]:
    """What sorts failures, NaN among them, above all others."""
    return not quantity.passed, math.inf if math.isnan(quantity.share) else quantity.share
