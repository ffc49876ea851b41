"""``harness verify``: prove that targets do the reference's work, for every model and optimizer asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import models, targets
from harness.commands import common, running
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError, UsageError
from harness.core.training import OPTIMIZERS, OptimizerSpec
from harness.parity import Proof
from harness.targets import TargetDefinition
from harness.tomlfile import nearest

DEFAULT_TARGETS = ("tensorflow-cpu", "jax-cpu")
ORDER = ("logits", "loss", "gradients", "losses", "parameters", "statistics", "evaluation_logits")


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
    definitions = targets.definitions()
    wanted = _targets(request.targets or DEFAULT_TARGETS, definitions)
    specs = [models.load(text) for text in (request.models or models.names())]
    optimizers = [_optimizer(name) for name in (request.optimizers or OPTIMIZERS)]
    console = common.standard_error()
    reference = targets.resolve(running.REFERENCE, definitions)
    problems = common.build_environments(definitions, [*wanted, reference], console)
    proofs: list[Proof] = []
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
        place = Path(folder)
        pool, bundle = running.open_hosts(definitions, problems, place, place, request.fork)
        with pool:
            verifier = running.open_verifier(definitions, pool, bundle.sha256, place, request.timeout)
            for target in wanted:
                for model in specs:
                    for optimizer in optimizers:
                        try:
                            worker = pool.worker(target)
                            proof = verifier.proof(target, model, optimizer, "float32", worker, fresh=True)
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
        _print(proofs, common.standard_output())
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


def _print(proofs: Sequence[Proof], console: Console) -> None:
    """One row per proof, the largest error of each quantity; a second table of the tolerances and totals."""
    named = {quantity.name for proof in proofs for quantity in proof.quantities}
    table = Table(title="Largest error against the float64 reference, relative; FAILED ones in full below")
    for heading in ("target", "model", "optimizer"):
        table.add_column(heading, no_wrap=True)
    shown = [quantity for quantity in ORDER if quantity in named]
    for quantity in shown:
        table.add_column(quantity.replace("_", " "), justify="right")
    if any(name.startswith("dropout") for name in named):
        table.add_column("dropout")
    table.add_column("")
    for proof in proofs:
        cells = [proof.target, proof.model, proof.optimizer]
        by_name = {quantity.name: quantity for quantity in proof.quantities}
        for name in shown:
            quantity = by_name.get(name)
            cells.append("-" if quantity is None else f"{quantity.error:.0e}{'' if quantity.passed else ' !'}")
        if any(name.startswith("dropout") for name in named):
            dropout = [quantity for quantity in proof.quantities if quantity.name.startswith("dropout")]
            cells.append("-" if not dropout else "ok" if all(q.passed for q in dropout) else "wrong")
        table.add_row(*cells, "passed" if proof.passed else "FAILED")
    console.print(table)
    tolerances = {q.name: q.tolerance for proof in proofs for q in proof.quantities if q.name in ORDER}
    allowed = ", ".join(f"{name.replace('_', ' ')} {tolerances[name]:.0e}" for name in shown)
    if allowed:
        common.say(console, f"Allowed: {allowed}.")
    for proof in proofs:
        if not proof.passed:
            common.say(console, f"FAILED {proof.target}, {proof.model}, {proof.optimizer}: {proof.reason}")
    passed = sum(proof.passed for proof in proofs)
    common.say(console, f"{passed} of {len(proofs)} passed.")
