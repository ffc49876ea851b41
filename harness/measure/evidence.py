"""What is shown of one cell's own work, from the proof at its batch size to what its device had counted at the end."""

from __future__ import annotations

from dataclasses import replace

from harness.core.record import SameWork
from harness.measure.lane import Lane
from harness.proof import conservation
from harness.proof.parity import HELD, Proof
from harness.proof.witness import Witnesses
from harness.workers.cell_worker import Files


class Evidence:
    """Gathers it; ``facts`` is what the record says. ``proof``: that at the batch size, None without one."""

    def __init__(self, proof: Proof | None) -> None:
        self.facts = (
            SameWork()
            if proof is None
            else SameWork(proof=proof.id, steps=proof.steps, error=proof.largest_error, notes=proof.notes)
        )

    def judge(self, lane: Lane, files: Files, witnesses: Witnesses) -> None:
        """What a closed lane was seen to do, and what its device told; what is wrong with it ends the lane's status.

        Raises HarnessError if the reference fails.
        """
        faults: list[str] = []
        not_shown: list[str] = []
        if lane.seen is None:
            not_shown.append("no block of the timed training was looked at")
        else:
            told = witnesses.judge(lane.cell, files, lane.seen)
            lane.seen.remove()
            faults += [told.fault] if told.fault else []
            not_shown += told.not_shown
            if told.quantities:
                self.facts = replace(
                    self.facts,
                    witnessed_steps=told.span.steps,
                    first_witnessed=told.span.first_step,
                    witness_error=told.error,
                    replaying_seconds=told.seconds,
                )
        if lane.inventory is not None:
            expected = conservation.expected(files.dataset, files.order, lane.cell)
            kept = conservation.judge(lane.cell, lane.steps_done, lane.inventory, expected)
            faults += [one.fault for one in kept.quantities if not one.passed]
            not_shown += kept.not_shown
            held = tuple(one.detail for one in kept.quantities if one.name == HELD and one.passed)
            self.facts = replace(self.facts, counted_steps=lane.inventory.steps, held=held)
        self.facts = replace(self.facts, not_shown=tuple(not_shown), looking_seconds=lane.looking_seconds)
        if faults:
            lane.disprove("; ".join(faults))
