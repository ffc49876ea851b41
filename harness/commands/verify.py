"""``harness verify``: prove that targets do the reference's work, for every model and optimizer asked for."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import models, targets
from harness.commands import common, running
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError, UsageError
from harness.core.training import OPTIMIZERS, OptimizerSpec
from harness.parity import Proof, Quantity
from harness.targets import TargetDefinition
from harness.tomlfile import nearest

DEFAULT_TARGETS = ("tensorflow-cpu", "jax-cpu")
DROPOUT = "dropout"
"""Quantities whose names begin so are several checks of one thing, shown as the worst of them."""


@dataclass(frozen=True)
class Request:
    """The flags of ``harness verify``; empty means all."""

    targets: Sequence[str]
    models: Sequence[str]
    optimizers: Sequence[str]
    json: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Probe afresh, print the table, store the proofs. Exit status 1 if one fails."""
    definitions = common.target_definitions()
    wanted = _targets(request.targets or DEFAULT_TARGETS, definitions)
    specs = [models.load(text) for text in (request.models or models.names())]
    optimizers = [_optimizer(name) for name in (request.optimizers or OPTIMIZERS)]
    console = common.standard_error()
    reference = targets.resolve(running.REFERENCE, definitions)
    problems = common.build_environments(definitions, [*wanted, reference], console)
    proofs: list[Proof] = []
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
        place = Path(folder)
        pool, bundle = running.open_hosts(definitions, problems, place, place, request.timeout, request.fork)
        with pool:
            verifier = running.open_verifier(definitions, pool, bundle.sha256, place, request.timeout)
            for target in wanted:
                for model in specs:
                    for optimizer in optimizers:
                        try:
                            give = partial(pool.worker, target)
                            proof = verifier.proof(target, model, optimizer, "float32", give, fresh=True)
                        except CellError as error:
                            proof = Proof(
                                "",
                                target.label,
                                model.name,
                                optimizer.name,
                                "float32",
                                {},
                                (),
                                str(error),
                                error.status,
                            )
                        proofs.append(proof)
                        common.say(console, f"{proof.target}, {proof.model}, {proof.optimizer}: {_verdict(proof)}")
    if request.json:
        common.write_json([{"passed": proof.passed, **codec.to_json(proof)} for proof in proofs])
    else:
        _print(proofs)
    return 0 if all(proof.passed for proof in proofs) else 1


def _targets(texts: Sequence[str], definitions: Mapping[str, TargetDefinition]) -> list[Target]:
    """Each named target; a name without a mode stands for all of its modes."""
    found: list[Target] = []
    for text in texts:
        first = targets.resolve(text, definitions)
        if ":" in text:
            found.append(first)
        else:
            name, at, rest = text.partition("@")
            modes = definitions[first.name].modes
            found += [targets.resolve(f"{name}:{mode}{at}{rest}", definitions) for mode in modes]
    return list(dict.fromkeys(found))


def _optimizer(name: str) -> OptimizerSpec:
    if name not in OPTIMIZERS:
        raise UsageError(f"--optimizer: found {name!r}{nearest(name, OPTIMIZERS)}, allowed: {', '.join(OPTIMIZERS)}")
    return OptimizerSpec(name)


def _verdict(proof: Proof) -> str:
    return "passed" if proof.passed else f"FAILED: {proof.reason}"


def _print(proofs: Sequence[Proof]) -> None:
    """Per lane and quantity the largest error of all its proofs, against its tolerance; then what failed."""
    title = "Largest error against the float64 reference"
    headings = ("target", "quantity", "largest", "allowed", "where", "")
    table = common.new_table(*headings, numbers=("largest", "allowed"), prose=("where",), title=title)
    for lane in dict.fromkeys(proof.target for proof in proofs):
        worst: dict[str, tuple[Quantity, Proof]] = {}
        for proof in proofs:
            for quantity in proof.quantities if proof.target == lane else ():
                group = quantity.name.partition(" ")[0] if quantity.name.startswith(DROPOUT) else quantity.name
                if group not in worst or _badness(quantity) > _badness(worst[group][0]):
                    worst[group] = (quantity, proof)
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
    common.print_table(table)
    console = common.standard_output()
    for proof in proofs:
        if not proof.passed:
            common.say(console, f"FAILED {proof.target}, {proof.model}, {proof.optimizer}: {proof.reason}")
    passed = sum(proof.passed for proof in proofs)
    common.say(console, f"{passed} of {len(proofs)} proofs passed.")


def _badness(quantity: Quantity) -> tuple[bool, float]:
    """What sorts failures, NaN among them, above all others."""
    return not quantity.passed, math.inf if math.isnan(quantity.share) else quantity.share
