"""Running the parity probes: a target's worker and the reference's do the same, ``parity`` compares.

Proofs are kept in the user's cache by what they depend on (target, packages, code, model, optimizer,
machine), so a sweep probes only what has no proof yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError, ContractError, HarnessError
from harness.core.messages import Forward, Probe
from harness.core.model import ModelSpec
from harness.core.record import now
from harness.core.training import OptimizerSpec
from harness.plan import inputs
from harness.proof import device as device_proof
from harness.proof import parity, probes
from harness.proof.device_facts import require_device
from harness.proof.parity import Proof
from harness.proof.probing import Arrays, ProbeFolder, load_probed, opened, placement_of, run_probe
from harness.workers.cell_worker import CellWorker

ATTEMPTS = 2
"""How often a probe may fail to run (a crash, a time-out) before its target is given up."""

Quantities = tuple[parity.Quantity, ...]


class Verifier:
    """Proves targets against one reference worker, remembering what is proven.

    ``proofs``: folder of proofs, shared by runs. ``scratch``: folder for probe files, emptied after use.
    ``reference``: gives the reference's target and worker, started at the first need.
    ``circumstances``: what else a proof depends on (code hash, machine). ``keeping``: how proofs are kept there.
    """

    def __init__(
        self,
        proofs: Path,
        scratch: Path,
        reference: Callable[[], tuple[Target, CellWorker]],
        circumstances: Mapping[str, Any],
        timeout: float,
        keeping: Keeping | None = None,
    ) -> None:
        self._proofs = proofs
        self._scratch = scratch
        self._reference = reference
        self._circumstances = circumstances
        self._timeout = timeout
        self._keeping = keeping or Keeping()
        self._references: dict[str, Arrays] = {}
        self._quantities: dict[object, Quantities] = {}
        self._known: dict[str, Proof] = {}
        self._problems: Counter[str] = Counter()

    def proof(
        self,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        worker: Callable[[], CellWorker],
        fresh: bool = False,
    ) -> Proof:
        """The proof for one combination: a stored one, or a new one (always, if ``fresh``), stored.

        ``worker`` gives the target's live worker, and is asked before each probe: where a host cannot fork it
        ends with its cell. Raises CellError if it does not even start; a probe that fails later is a proof
        with its ``problem``, which is not stored, and not believed before it failed ``ATTEMPTS`` times. Raises
        HarnessError if the reference itself fails.
        """
        facts = worker().ready.worker
        key = parity.key_of(
            target,
            model,
            optimizer,
            precision,
            packages=facts.get("packages", {}),
            python=facts.get("python", ""),
            variables=facts.get("variables", {}),
            **self._circumstances,
        )
        identity = codec.digest(key)[:16]
        if identity in self._known:
            return self._known[identity]
        proof = None if fresh else self._stored(identity)
        if proof is None:
            empty = Proof(identity, target.label, model.name, optimizer.name, precision, key)
            proof = self._prove(empty, target, model, optimizer, precision, worker)
            if not proof.problem:
                self._keeping.keep(self._proofs / f"{identity}.json", partial(codec.write_json, value=proof))
        self._problems[identity] += bool(proof.problem)
        if not proof.problem or self._problems[identity] >= ATTEMPTS:
            self._known[identity] = proof
        return proof

    def _stored(self, identity: str) -> Proof | None:
        path = self._proofs / f"{identity}.json"
        if not path.exists():
            return None
        try:
            proof = codec.read_json(path, Proof)
        except ContractError:
            return None
        mark_used(path)
        return proof

    def _prove(
        self,
        empty: Proof,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        worker: Callable[[], CellWorker],
    ) -> Proof:
        try:
            initial = inputs.draw_parameters(model, seed=0)
            probe, expected = self._best_draw(model, optimizer, precision, target, initial)
            found = run_probe(probe, worker(), self._scratch / f"probe-{empty.id}", self._timeout, evaluate=True)
            shown = probes.placement_probe(model, optimizer, precision, target, initial)
            placement = self._placement(shown, worker)
            quantities = parity.compare_training(expected, found, initial, precision)
            if probes.has_ties(model):
                quantities += self._once(("ties", target, precision), partial(self._ties, precision, target, worker))
            for rate in probes.dropout_rates(model):
                quantities += self._once(
                    (rate, target, precision), partial(self._dropout, rate, precision, target, worker)
                )
        except CellError as error:
            return replace(empty, problem=str(error), problem_status=error.status, created=now())
        reference_target, reference_worker = self._reference()
        facts = {"backend": reference_target.backend, "packages": reference_worker.ready.worker.get("packages", {})}
        return replace(empty, quantities=quantities, created=now(), reference=facts, placement=placement)

    def _placement(self, probe: probes.Probe, give: Callable[[], CellWorker]) -> dict[str, int]:
        """How many operations of a step ran on which device. Raises WrongDevice if any fell back to the processor."""
        if probe.cell.target.accelerator == "cpu":
            return {}
        placed = placement_of(probe, give(), self._scratch / "probe-placement", self._timeout)
        require_device(device_proof.placement_problem(probe.cell.target, placed))
        return device_proof.summary(placed)

    def _once(self, key: object, probe: Callable[[], Quantities]) -> Quantities:
        """What does not depend on the model is probed once per target."""
        if key not in self._quantities:
            self._quantities[key] = probe()
        return self._quantities[key]

    def _best_draw(
        self, model: ModelSpec, optimizer: OptimizerSpec, precision: str, target: Target, initial: Arrays
    ) -> tuple[probes.Probe, Arrays]:
        """The training probe on which the reference stays farthest from a branch, and the reference's arrays."""
        best: tuple[float, probes.Probe] | None = None
        for draw in range(probes.DRAWS):
            probe = probes.training_probe(model, optimizer, precision, target, initial, draw)
            margin = float(self._reference_arrays(probe)["kink_margin"])
            if best is None or margin > best[0]:
                best = margin, probe
            if margin >= probes.SAFE_MARGIN:
                break
        assert best is not None
        return best[1], self._reference_arrays(best[1], evaluate=True)

    def _reference_arrays(self, probe: probes.Probe, evaluate: bool = False) -> Arrays:
        """What the reference makes of a probe. Raises HarnessError if it fails: nothing can be proven then."""
        training = replace(probe.cell.training, precision="float32")
        images = inputs.arrays_digest({"images": probe.images})
        parts = (probe.cell.model, training, probe.cell.dataset)
        identity = codec.digest([*(codec.digest(part) for part in parts), images, evaluate])[:16]
        attempt = 0
        while identity not in self._references:
            attempt += 1
            try:
                target, worker = self._reference()
                answer = replace(probe, cell=replace(probe.cell, target=target, training=training))
                folder = self._scratch / f"reference-{identity}"
                self._references[identity] = run_probe(answer, worker, folder, self._timeout, evaluate, value_bytes=8)
            except CellError as error:
                if attempt == ATTEMPTS:
                    raise HarnessError(f"the reference, against which targets are proven, failed: {error}") from error
        return self._references[identity]

    def _ties(self, precision: str, target: Target, worker: Callable[[], CellWorker]) -> Quantities:
        probe = probes.ties_probe(precision, target)
        found = run_probe(probe, worker(), self._scratch / "probe-ties", self._timeout)
        return parity.compare_ties(self._reference_arrays(probe), found, precision)

    def _dropout(self, rate: float, precision: str, target: Target, give: Callable[[], CellWorker]) -> Quantities:
        probe = probes.dropout_probe(rate, precision, target)
        examples = probes.DROPOUT_EXAMPLES
        with ProbeFolder(self._scratch / "probe-dropout", probe) as folder:
            training, evaluation, stepped = (
                folder.path / f"{part}.npz" for part in ("training", "evaluation", "steps")
            )
            with opened(give(), folder.request, self._timeout) as (worker, _):
                worker.ask(Forward(examples, probes.DROPOUT_REPEATS, True, str(training)), self._timeout)
                worker.ask(Forward(examples, 1, False, str(evaluation)), self._timeout)
                worker.ask(Probe(probes.DROPOUT_STEPS, str(stepped)), self._timeout)
            return parity.compare_dropout(
                rate,
                precision,
                load_probed(training)["logits"],
                load_probed(evaluation)["logits"][0],
                load_probed(stepped)["losses"],
            )
