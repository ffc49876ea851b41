"""Whether a cell has anything to train, and its target can train it so, as far as the plan alone tells."""

from __future__ import annotations

from harness import wording
from harness.core.cell import PLAN_AND_STEPS_PER_CALL, Cell


def why_not(cell: Cell) -> str:
    """Why it cannot be trained; empty if nothing is known against it."""
    training, at_once = cell.training, cell.target.steps_per_call
    largest, steps = max(training.batch_sizes), min(cell.epoch_steps)
    if steps == 0 or largest > cell.dataset.train_examples:
        return f"batch size {largest} is larger than the {cell.dataset.train_examples} training examples"
    if training.batch_changes and at_once > 1:
        return PLAN_AND_STEPS_PER_CALL
    if training.evaluate_every and training.evaluate_every < at_once:
        return wording.evaluated_too_often(at_once, training.evaluate_every)
    if steps < at_once:
        return wording.call_too_long(at_once, steps, largest)
    return cell.why_no_microbatch or cell.why_no_devices
