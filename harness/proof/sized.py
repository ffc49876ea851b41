"""The proof at the size that is measured: real images, the real batch size, trained by the very calls that are timed.

A cell like the one to be measured, with dropout off, some batches of the dataset for an epoch, at least two epochs
and a drop of the rate half-way, is opened on the target and trained block by block, as a lane in turns trains: first
the step that compiles, then those that warm up, then blocks with a step that settles. After each block the state is
read: parameters, moving statistics, optimizer, steps counted. The reference then does each block's steps again from
the target's own state before them (``replaying``). The first block and the last are one step each; the gradients that
they trained with are told by what they did to the state. At the end the test set is evaluated from the target's last
state.

A batch may be too large for the reference to do ``FEWEST_STEPS`` of it in the time allowed, ``MOST_OPERATIONS``. Then
as many steps are compared as fit, the last in any case, each with the whole batch; and the proof at the largest batch
size that does fit (halved as often as need be) is part of this one. The proof says so.

Of a plan of batch sizes each size is proven so, and then the plan itself: its sizes in their order, an epoch each (or
changing within epochs, where it goes by steps), with the rate scaled as the cell has it. What is compared then holds
the steps on both sides of every change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from harness import refusals
from harness.cache import room
from harness.core import codec
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, HarnessError
from harness.core.messages import (
    Block,
    Compile,
    Compiled,
    Evaluate,
    Evaluated,
    Inventoried,
    Inventory,
    Snapshot,
    Train,
)
from harness.core.model import without_dropout
from harness.core.record import now
from harness.core.training import STEP, LearningRate, TrainingSpec
from harness.plan import inputs
from harness.proof import conservation, probes, replaying, tolerances
from harness.proof.kept import KeptProofs
from harness.proof.parity import Proof, Quantity
from harness.proof.probing import ATTEMPTS, load_probed, opened
from harness.proof.replaying import Span
from harness.workers.cell_worker import CellWorker, Files

SIZED_VERSION = 1
"""Counts changes of what is done here: a proof of another version does not count."""

FEWEST_STEPS, MOST_STEPS = 12, 40
RATE, FACTOR = 0.01, 0.3
"""The learning rate, and what it is multiplied by half-way."""

OPERATIONS, MOST_OPERATIONS = 1e10, 4e10
"""Floating-point operations of training that the reference does again: as many steps as the first allows, and
never fewer than FEWEST_STEPS while these are within the second. Two slow cores do some 1e10 in a second."""

Blocks = Callable[[Cell], Sequence[Train | Compile]]
"""What a lane asks for, from the first step of a cell to the last."""


class SizedProofs:
    """Makes and keeps such proofs. ``scratch``: folder for files, emptied after use. ``blocks``: see ``Blocks``."""

    def __init__(
        self,
        kept: KeptProofs,
        reference: Callable[[], tuple[Target, CellWorker]],
        scratch: Path,
        timeout: float,
    ) -> None:
        self._kept = kept
        self._reference = reference
        self._scratch = scratch
        self._timeout = timeout
        self._known: dict[str, Proof] = {}
        self._problems: dict[str, int] = {}

    def proof(
        self, cell: Cell, dataset: Path, blocks: Blocks, worker: Callable[[], CellWorker], fresh: bool = False
    ) -> Proof:
        """The proof of a cell's target, model, optimizer, precision, batch size and dataset: a kept one, or a new one.

        ``dataset``: the folder of its arrays. ``worker`` gives the target's live worker. As ``Verifier.proof``, but
        for that. The batch size must not be larger than the dataset.
        """
        blank = self._blank(cell, worker().ready.worker)
        if blank.id in self._known:
            return self._known[blank.id]
        proof = None if fresh else self._kept.find(blank.id)
        if proof is None:
            proof = self._prove(blank, cell, dataset, blocks, worker)
            if not proof.problem:
                self._kept.keep(proof)
        self._problems[blank.id] = self._problems.get(blank.id, 0) + bool(proof.problem)
        if not proof.problem or self._problems[blank.id] >= ATTEMPTS:
            self._known[blank.id] = proof
        return proof

    def _blank(self, cell: Cell, worker: dict[str, object]) -> Proof:
        training = cell.training
        plan: dict[str, object] = {"batch_sizes": _sizes(training), "scaling": training.learning_rate.scaling}
        if training.batch_changes_by == STEP:
            plan["by"] = STEP
        blank = self._kept.blank(
            cell.target,
            cell.model,
            training.optimizer,
            training.precision,
            worker,
            sized_version=SIZED_VERSION,
            batch_size=training.batch_size,
            dataset=codec.digest(cell.dataset),
            **probes.beyond(training),
            **(plan if training.batch_changes else {}),
        )
        plan_text = ">".join(map(str, _sizes(training))) if training.batch_changes else ""
        return replace(blank, batch_size=training.batch_size, batch_plan=plan_text, dataset=cell.dataset.name)

    def _prove(
        self, blank: Proof, cell: Cell, dataset: Path, blocks: Blocks, worker: Callable[[], CellWorker]
    ) -> Proof:
        whole = plan_cell(cell) if cell.training.batch_changes else proof_cell(cell)
        sizes = _further(whole)
        try:
            with _Trial(whole, self._scratch / f"sized-{blank.id}", dataset, self._timeout) as trial:
                trial.train(blocks(whole), worker())
                spans = _compared(trial.spans, whole)
                quantities, notes, steps = self._judged(trial, spans, whole, must=not sizes)
        except CellError as error:
            return replace(blank, problem=str(error), problem_status=error.status, created=now())
        alone = []
        for size in sizes:
            fitting = self.proof(replace(cell, training=cell.training.at_size(size)), dataset, blocks, worker)
            if fitting.problem:
                return replace(blank, problem=fitting.problem, problem_status=fitting.problem_status, created=now())
            quantities += fitting.quantities
            alone.append(f"{fitting.steps} steps at batch size {size}")
        compared = sum(span.steps for span in spans)
        if compared < steps:
            slow = f"of {steps} steps {compared} were compared, as the reference is too slow for all"
            notes.append(", and ".join((slow, ", ".join(alone))))
        elif steps and alone:
            notes.append(f"{', '.join(alone)} were compared as well")
        return replace(
            blank,
            quantities=replaying.worst(quantities),
            steps=steps,
            notes=tuple(dict.fromkeys(notes)),
            created=now(),
            reference=self._told(),
        )

    def _judged(
        self, trial: _Trial, spans: Sequence[Span], whole: Cell, must: bool
    ) -> tuple[list[Quantity], list[str], int]:
        """Quantities, notes and steps of a trial; where the reference fails and need not do it, there are none."""
        try:
            return [*trial.compare(spans, self._reference)], trial.notes, whole.total_steps
        except HarnessError as error:
            if must or isinstance(error, CellError):
                raise
            return [], [f"not at this batch size: {error}"], 0

    def _told(self) -> dict[str, object]:
        target, worker = self._reference()
        return {"backend": target.backend, "packages": worker.ready.worker.get("packages", {})}


def proof_cell(cell: Cell) -> Cell:
    """The cell that is trained for the proof of another: its steps, epochs and rate are the proof's own."""
    size = cell.training.batch_size
    batches = max(cell.dataset.train_examples // size, 1)
    step = size * cell.model.training_flops
    wanted = min(max(int(OPERATIONS // step), FEWEST_STEPS), MOST_STEPS)
    per_epoch = min(batches, -(-wanted // 2))
    epochs = max(2, -(-wanted // per_epoch))
    return replace(
        cell,
        model=without_dropout(cell.model),
        training=replace(
            cell.training,
            epochs=epochs,
            learning_rate=probes.schedule(
                cell.training, LearningRate(RATE, drop_epochs=(epochs // 2,), factor=FACTOR), epochs * per_epoch // 3
            ),
            seed=0,
        ),
        # Called as the cells of probes are: what is written for those holds for this one.
        dataset=replace(
            cell.dataset,
            name="probe",
            train_examples=per_epoch * size,
            test_examples=min(cell.dataset.test_examples, tolerances.TEST_EXAMPLES),
        ),
        repeat=0,
        lane=0,
    )


def plan_cell(cell: Cell) -> Cell:
    """The same for a plan: an epoch for each of its pieces, and one more of the last with a drop of the rate.

    An epoch has two batches of the largest size where that many images are there and a step of the smallest is no
    less than an eighth of one; else one. A plan by steps changes within epochs, of two such batches where there are as
    many images: each piece has as many steps as take one, and the last is trained for a whole epoch more.
    """
    training, sizes = cell.training, _sizes(cell.training)
    by_steps, largest, of_cell = training.batch_changes_by == STEP, max(sizes), training.learning_rate
    twice = cell.dataset.train_examples >= 2 * largest and (by_steps or largest <= 8 * min(sizes))
    examples = (2 if twice else 1) * largest
    starts = [0, *accumulate(largest // size for size in sizes)] if by_steps else range(len(sizes))
    alone = proof_cell(replace(cell, training=training.at_size(largest)))
    planned = replace(
        alone.training,
        batch_size=sizes[0],
        batch_changes=tuple(zip(starts, sizes, strict=False))[1:],
        batch_changes_by=training.batch_changes_by,
        epochs=len(sizes) + 1,
    )
    while by_steps and planned.pieces(examples)[-1].first_epoch == planned.epochs - 1:
        planned = replace(planned, epochs=planned.epochs + 1)
    rate = LearningRate(RATE, (planned.epochs - 1,), FACTOR, of_cell.scaling, sizes[0])
    return replace(
        alone, training=replace(planned, learning_rate=rate), dataset=replace(alone.dataset, train_examples=examples)
    )


def _sizes(training: TrainingSpec) -> tuple[int, ...]:
    """The batch size of each piece."""
    return (training.batch_size, *(size for _, size in training.batch_changes))


def _further(whole: Cell) -> tuple[int, ...]:
    """Batch sizes whose own proofs are part of this one: those of a plan, or the largest that is not too slow."""
    if whole.training.batch_changes:
        return whole.training.batch_sizes
    smaller = _fitting(whole)
    return () if smaller == whole.training.batch_size else (smaller,)


def _fitting(whole: Cell) -> int:
    """The largest batch size, halving, of which the reference can do enough steps."""
    size = whole.training.batch_size
    while FEWEST_STEPS * size * whole.model.training_flops > MOST_OPERATIONS and size > 1:
        size //= 2
    return size


def _compared(spans: Sequence[Span], cell: Cell) -> list[Span]:
    """Those that the reference does again.

    All, or the last, the first, those that a change of the batch size follows or begins, and of the others what the
    time allows.
    """
    costs = [_cost(span, cell) for span in spans]
    changes = {piece.first_step for piece in cell.pieces[1:]}
    if sum(costs) <= MOST_OPERATIONS if changes else _fitting(cell) == cell.training.batch_size:
        return [*spans]
    last = len(spans) - 1
    at_changes = (n for n, span in enumerate(spans) if {span.first_step, span.first_step + span.steps} & changes)
    chosen, left = {last}, MOST_OPERATIONS - costs[last]
    for place in (0, *at_changes, *np.random.default_rng().permutation(last).tolist()):
        if place not in chosen and costs[place] <= left:
            chosen.add(place)
            left -= costs[place]
    return [spans[place] for place in sorted(chosen)]


def _cost(span: Span, cell: Cell) -> int:
    """Floating-point operations of training a span's steps."""
    steps = range(span.first_step, span.first_step + span.steps)
    return cell.model.training_flops * sum(map(cell.batch_size_at, steps))


class _Trial:
    """One cell trained for a proof, in a folder of its own, which ends with the block."""

    def __init__(self, cell: Cell, folder: Path, dataset: Path, timeout: float) -> None:
        self._cell = cell
        self._folder = folder
        self._timeout = timeout
        self._files = Files(
            dataset,
            folder / "parameters.npz",
            folder / "order.npy",
            folder / "worker",
            folder.parent / "sized-programs" if cell.target.accelerator == "cpu" else None,
        )
        self.spans: list[Span] = []
        self.notes: list[str] = []
        self._inventory = Inventoried(None, {})
        self._evaluated = Evaluated(0.0, 0.0, 0.0, 0.0)

    def __enter__(self) -> _Trial:
        slots = 1 + len(replaying.SLOTS[self._cell.training.optimizer.name])
        states = 4 * slots * self._cell.model.parameter_count * (self._cell.total_steps + 1)
        room.require(self._folder, states, f"a proof of {self._cell.target.label}")
        try:
            self._files.scratch.mkdir(parents=True, exist_ok=True)
            parameters = inputs.draw_parameters(self._cell.model, seed=0)
            inputs.save_arrays(self._files.parameters, parameters)
            dataset, training = self._cell.dataset, self._cell.training
            inputs.save_array(self._files.order, inputs.draw_order(dataset.train_examples, training.epochs, seed=0))
            inputs.save_arrays(
                self._folder / "state-0.npz", replaying.initial_state(self._cell.model, training, parameters)
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise refusals.unwritable(self._folder, error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def train(self, blocks: Sequence[Train | Compile], worker: CellWorker) -> None:
        """Train block by block, reading the state after each. Raises CellError."""
        with opened(worker, self._files.opening(self._cell), self._timeout, trained=True) as (asked, _):
            done, before = 0, self._folder / "state-0.npz"
            for train in blocks:
                block = asked.ask(train, self._timeout)
                if isinstance(block, Compiled):
                    continue
                assert isinstance(block, Block)
                after = self._folder / f"state-{done + len(block.losses)}.npz"
                asked.ask(Snapshot(str(after)), self._timeout)
                self.spans.append(Span(done, tuple(block.losses), before, after))
                done, before = done + len(block.losses), after
            evaluated, inventory = asked.ask(Evaluate(), self._timeout), asked.ask(Inventory(), self._timeout)
        assert isinstance(evaluated, Evaluated)
        assert isinstance(inventory, Inventoried)
        self._evaluated, self._inventory = evaluated, inventory
        lacking = replaying.missing(load_probed(before), self._cell.model, self._cell.training)
        if lacking:
            # From the shipped parameters all steps can still be done again, in one go.
            self.notes.append(f"{lacking}, so the reference trained all steps in a row")
            losses = tuple(loss for span in self.spans for loss in span.losses)
            self.spans = [Span(0, losses, self.spans[0].before, self.spans[-1].after)]

    def compare(
        self, spans: Sequence[Span], reference: Callable[[], tuple[Target, CellWorker]]
    ) -> tuple[Quantity, ...]:
        """The quantities of these spans, of the gradients at both ends, of the evaluation and of what was counted."""
        found: list[Quantity] = []
        with replaying.opened(self._cell, reference, self._files, self._timeout) as replays:
            for span in spans:
                found += replays.compared(span)
            found += replays.evaluated(self.spans[-1].after, self._cell.total_steps, self._evaluated)
        held = conservation.expected(self._files.dataset, self._files.order, self._cell)
        kept = conservation.judge(self._cell, self._cell.total_steps, self._inventory, held)
        self.notes += kept.not_shown
        return (*found, *kept.quantities)
