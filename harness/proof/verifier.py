"""Running the parity probes: a target's worker and the reference's do the same, ``parity`` compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.cache.keeping import Keeping
from harness.core.cell import Target
from harness.core.errors import CellError
from harness.core.messages import Forward, Probe
from harness.core.model import ModelSpec
from harness.core.record import now
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.plan import inputs
from harness.proof import device as device_proof
from harness.proof import parity, probes
from harness.proof.device_facts import require_device
from harness.proof.kept import KeptProofs
from harness.proof.parity import Proof
from harness.proof.probing import ATTEMPTS, ProbeFolder, load_probed, opened, placement_of, run_probe
from harness.proof.reference import Reference
from harness.proof.sized import SizedProofs
from harness.proof.witness import Witnesses
from harness.workers.cell_worker import CellWorker

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
        self._kept = KeptProofs(proofs, circumstances, keeping or Keeping())
        self._reference = Reference(reference, scratch, timeout)
        self._scratch = scratch
        self._timeout = timeout
        self._quantities: dict[object, Quantities] = {}
        self._known: dict[str, Proof] = {}
        self._problems: Counter[str] = Counter()
        self.at_size = SizedProofs(self._kept, reference, scratch, timeout)
        self.witnesses = Witnesses(reference, timeout)

    def proof(
        self,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        worker: Callable[[], CellWorker],
        fresh: bool = False,
        like: TrainingSpec | None = None,
    ) -> Proof:
        """The proof for one combination: a stored one, or a new one (always, if ``fresh``), stored.

        ``like``: a training whose label smoothing and kind of schedule are proven as well.
        ``worker`` gives the target's live worker, and is asked before each probe: where a host cannot fork it
        ends with its cell. Raises CellError if it does not even start; a probe that fails later is a proof
        with its ``problem``, which is not stored, and not believed before it failed ``ATTEMPTS`` times. Raises
        HarnessError if the reference itself fails.
        """
        further = probes.beyond(like) if like else {}
        blank = self._kept.blank(target, model, optimizer, precision, worker().ready.worker, **further)
        identity = blank.id
        if identity in self._known:
            return self._known[identity]
        proof = None if fresh else self._kept.find(identity)
        if proof is None:
            proof = self._prove(blank, target, model, optimizer, precision, worker, like)
            if not proof.problem:
                self._kept.keep(proof)
        self._problems[identity] += bool(proof.problem)
        if not proof.problem or self._problems[identity] >= ATTEMPTS:
            self._known[identity] = proof
        return proof

    def _prove(
        self,
        blank: Proof,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        worker: Callable[[], CellWorker],
        like: TrainingSpec | None,
    ) -> Proof:
        try:
            initial = inputs.draw_parameters(model, seed=0)
            probe, expected = self._reference.best_draw(model, optimizer, precision, target, initial, like)
            found = run_probe(probe, worker(), self._scratch / f"probe-{blank.id}", self._timeout, evaluate=True)
            shown = probes.placement_probe(model, optimizer, precision, target, initial, like)
            placement = self._placement(shown, worker)
            quantities = parity.compare_training(expected, found, initial, precision)
            if probes.has_ties(model):
                quantities += self._once(("ties", target, precision), partial(self._ties, precision, target, worker))
            if target.steps_per_call > 1:
                calls = probes.calls_probe(model, optimizer, precision, target, initial, like)
                quantities += self._calls(calls, worker)
            for rate in probes.dropout_rates(model):
                quantities += self._once(
                    (rate, target, precision), partial(self._dropout, rate, precision, target, worker)
                )
        except CellError as error:
            return replace(blank, problem=str(error), problem_status=error.status, created=now())
        return replace(
            blank, quantities=quantities, created=now(), reference=self._reference.facts(), placement=placement
        )

    def _placement(self, probe: probes.ProbeCell, give: Callable[[], CellWorker]) -> dict[str, int]:
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

    def _ties(self, precision: str, target: Target, worker: Callable[[], CellWorker]) -> Quantities:
        probe = probes.ties_probe(precision, target)
        found = run_probe(probe, worker(), self._scratch / "probe-ties", self._timeout)
        return parity.compare_ties(self._reference.answer(probe), found, precision)

    def _calls(self, probe: probes.ProbeCell, worker: Callable[[], CellWorker]) -> Quantities:
        """Several steps per call against the same target's single steps."""
        found, single = (
            run_probe(one, worker(), self._scratch / "probe-calls", self._timeout)
            for one in (probe, probes.step_by_step(probe))
        )
        cell = probe.cell
        at_once, precision = cell.target.steps_per_call, cell.training.precision
        return parity.compare_calls(single, found, probe.parameters, at_once, precision)

    def _dropout(self, rate: float, precision: str, target: Target, give: Callable[[], CellWorker]) -> Quantities:
        probe = probes.dropout_probe(rate, precision, target)
        examples = probe.cell.training.batch_size
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
