"""A plan of batch sizes decided in a closed loop: at the end of each epoch from what the gradients are then.

Or after every so many steps. Goes in: a cell of a fixed batch size on the one target that decides, and a rule of
``plan.batch_rules``. Comes out, one after the other, a ``Decision``; together they are a plan. It is frozen then: every
target replays it, whatever it would have decided itself, so that equal work stays equal.

For each decision the training under the plan so far is done again from its start to that point, so that
the state is the one that every target will come to, momentum included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.core.cell import Cell
from harness.core.training import EPOCH, STEP
from harness.measure.noise_probe import Meter
from harness.plan import batch_rules
from harness.runs.noise_scales import NoiseScale


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest batch size that may be decided on."""

    smallest: int
    largest: int


@dataclass(frozen=True)
class Decision:
    """The batch size from ``epoch`` on. ``wanted``: what the rule asks for, None where it keeps what there was.

    ``measured``: at the end of the epoch before; where decisions are made by steps, before ``measured.step``, from
    which on the size is this one, and which is in ``epoch``.
    """

    epoch: int
    batch_size: int
    rate: float
    wanted: float | None
    measured: NoiseScale


def decide(cell: Cell, rule: str, bounds: Bounds, batches: int, meter: Meter, every: int = 0) -> Iterator[Decision]:
    """Every decision but the first epoch's, as soon as it is made; ``batches``: gradients that each goes by.

    One for each epoch, or for every so many steps where ``every`` is not 0. A point that could not be measured ends the
    loop with its ``problem``, as the decision to keep the size.
    """
    training, by = cell.training, STEP if every else EPOCH
    changes: list[tuple[int, int]] = []
    now, number = cell, 1
    while number * every < now.total_steps if every else number < training.epochs:
        step = number * every or sum(now.epoch_steps[:number])
        (measured,) = meter.measure(now, [step], batches)
        pieces = now.training.learning_rates(now.epoch_steps)
        rate = next(rate for first, rate in reversed(pieces) if first <= step)
        size, wanted = now.batch_size_at(max(step - 1, 0)), None
        if measured.estimate is not None and measured.loss is not None:
            found = measured.estimate
            wanted = batch_rules.wanted(rule, rate, found.variance, found.gradient_square, measured.loss)
        if wanted is not None:
            size = batch_rules.nearest(wanted, training.batch_size, bounds.smallest, bounds.largest)
        changes.append((number * every or number, size))
        yield Decision(now.epoch_of(step)[0], size, rate, wanted, measured)
        if measured.estimate is None:
            return
        now = replace(cell, training=replace(training, batch_changes=tuple(changes), batch_changes_by=by))
        number += 1
