"""Running the parity probes: a target's worker and the reference's do the same, ``parity`` compares.

Proofs are kept in the user's cache by what they depend on (target, packages, code, model, optimizer,
machine), so a sweep probes only what has no proof yet.
"""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from harness import device_proof, parity, refusals
from harness.cache import room
from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import CellError, ContractError, HarnessError, StoreError
from harness.core.messages import Forward, Open, Placed, Placement, Probe
from harness.core.model import ModelSpec
from harness.core.record import now
from harness.core.training import OptimizerSpec
from harness.lane import device_facts, require_device
from harness.parity import Proof
from harness.plan import inputs
from harness.workers.cell_worker import CellWorker

ATTEMPTS = 2
"""How often a probe may fail to run (a crash, a time-out) before its target is given up."""

Arrays = dict[str, NDArray[Any]]
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
            shown = parity.placement_probe(model, optimizer, precision, target, initial)
            placement = self._placement(shown, worker)
            quantities = parity.compare_training(expected, found, initial, precision)
            if parity.has_ties(model):
                quantities += self._once(("ties", target, precision), partial(self._ties, precision, target, worker))
            for rate in parity.dropout_rates(model):
                quantities += self._once(
                    (rate, target, precision), partial(self._dropout, rate, precision, target, worker)
                )
        except CellError as error:
            return replace(empty, problem=str(error), problem_status=error.status, created=now())
        reference_target, reference_worker = self._reference()
        facts = {"backend": reference_target.backend, "packages": reference_worker.ready.worker.get("packages", {})}
        return replace(empty, quantities=quantities, created=now(), reference=facts, placement=placement)

    def _placement(self, probe: parity.Probe, give: Callable[[], CellWorker]) -> dict[str, int]:
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
    ) -> tuple[parity.Probe, Arrays]:
        """The training probe on which the reference stays farthest from a branch, and the reference's arrays."""
        best: tuple[float, parity.Probe] | None = None
        for draw in range(parity.DRAWS):
            probe = parity.training_probe(model, optimizer, precision, target, initial, draw)
            margin = float(self._reference_arrays(probe)["kink_margin"])
            if best is None or margin > best[0]:
                best = margin, probe
            if margin >= parity.SAFE_MARGIN:
                break
        assert best is not None
        return best[1], self._reference_arrays(best[1], evaluate=True)

    def _reference_arrays(self, probe: parity.Probe, evaluate: bool = False) -> Arrays:
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
        probe = parity.ties_probe(precision, target)
        found = run_probe(probe, worker(), self._scratch / "probe-ties", self._timeout)
        return parity.compare_ties(self._reference_arrays(probe), found, precision)

    def _dropout(self, rate: float, precision: str, target: Target, give: Callable[[], CellWorker]) -> Quantities:
        probe = parity.dropout_probe(rate, precision, target)
        examples = parity.DROPOUT_EXAMPLES
        with ProbeFolder(self._scratch / "probe-dropout", probe) as folder:
            training, evaluation, stepped = (
                folder.path / f"{part}.npz" for part in ("training", "evaluation", "steps")
            )
            with opened(give(), folder.request, self._timeout) as (worker, _):
                worker.ask(Forward(examples, parity.DROPOUT_REPEATS, True, str(training)), self._timeout)
                worker.ask(Forward(examples, 1, False, str(evaluation)), self._timeout)
                worker.ask(Probe(parity.DROPOUT_STEPS, str(stepped)), self._timeout)
            return parity.compare_dropout(
                rate,
                precision,
                load_probed(training)["logits"],
                load_probed(evaluation)["logits"][0],
                load_probed(stepped)["losses"],
            )


def run_probe(
    probe: parity.Probe,
    worker: CellWorker,
    folder: Path,
    timeout: float,
    evaluate: bool = False,
    value_bytes: int = 4,
) -> Arrays:
    """Let a worker do a training probe; the arrays are named as ``messages.Probe`` says. Raises CellError.

    ``value_bytes``: of each gradient and each parameter in the answer.
    """
    with ProbeFolder(folder, probe, 2 * value_bytes * probe.cell.model.parameter_count) as files:
        output = files.path / "probed.npz"
        with opened(worker, files.request, timeout):
            worker.ask(Probe(probe.cell.total_steps, str(output), evaluate), timeout)
        return load_probed(output)


def placement_of(probe: parity.Probe, worker: CellWorker, folder: Path, timeout: float, kernels_of: str = "") -> Placed:
    """Where the operations of a step of the probe's cell run; ``kernels_of``: see ``Placement``. Raises CellError."""
    with ProbeFolder(folder, probe) as files, opened(worker, files.request, timeout):
        placed = worker.ask(Placement(kernels_of), timeout)
    assert isinstance(placed, Placed)
    return placed


@contextmanager
def opened(
    worker: CellWorker, request: Open, timeout: float, trained: bool = False
) -> Iterator[tuple[CellWorker, dict[str, Any]]]:
    """A cell that is open in the block: ended well after it, at once if it fails. Gives the worker and device facts.

    After the block the facts have those of the cell's end as well. ``trained``: a loss must be known by then. Raises
    WrongDevice if the device that its target asks for is not the one that did the work.
    """
    target, answer = request.cell.target, worker.open(request, timeout)
    try:
        facts = device_facts(target, worker, answer)
        require_device(device_proof.opening_problem(target, facts))
        yield worker, facts
    except BaseException:
        worker.abandon()
        raise
    facts |= worker.finish(timeout).device
    require_device(device_proof.closing_problem(target, facts, trained=trained))


class ProbeFolder:
    """The files of one probe, removed at the end; ``answer_bytes``: what the worker writes there at least.

    Entering raises StoreError, before any work is done, if the disk has no room for them. A worker that crashed while
    the disk was full did not do so by itself: then leaving raises StoreError, which says that it was the disk.
    """

    def __init__(self, path: Path, probe: parity.Probe, answer_bytes: int = 0) -> None:
        self.path = path
        self._probe = probe
        self._files = {
            "train_images.npy": probe.images,
            "train_labels.npy": probe.labels,
            "test_images.npy": probe.test_images,
            "test_labels.npy": probe.test_labels,
            "order.npy": probe.order,
        }
        arrays = (*self._files.values(), *probe.parameters.values())
        self._needed = answer_bytes + sum(array.nbytes for array in arrays)
        self.request = Open(
            cell=probe.cell,
            dataset=str(path),
            parameters=str(path / "parameters.npz"),
            order=str(path / "order.npy"),
            scratch=str(path),
        )

    def __enter__(self) -> ProbeFolder:
        room.require(self.path, self._needed, f"a probe of {self.request.cell.target.label}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, array in self._files.items():
                inputs.save_array(self.path / name, array)
            inputs.save_arrays(self.path / "parameters.npz", self._probe.parameters)
        except OSError as error:
            self._remove()
            raise refusals.unwritable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problem = room.shortage(self.path) if isinstance(error, CellError) and error.status == "crashed" else ""
        self._remove()
        if problem:
            raise StoreError(f"{problem} ({error})") from error

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def load_probed(path: Path) -> Arrays:
    """What a worker wrote for a probe. Raises CellError."""
    try:
        return inputs.load_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CellError(f"the worker's probe file {path.name} cannot be read ({error})") from error
