"""Rules that write a plan of batch sizes in place of a learning rate that falls.

Two kinds. Open loops need nothing but the sweep: the fixed batch size and the drops of the rate that it would have go
in, a plan and the drops that are left come out. Both of these keep what the drops do to the noise of the updates, which
goes with rate x N / (B (1 - momentum)) for N examples and batch size B (Smith et al., Don't Decay the Learning Rate,
Increase the Batch Size, arXiv 1711.00489): a drop by the factor f and a batch r times as large divide it by r / f. So
with batches that grow by r the rate is multiplied by f r where it would have been by f.

- ``increase`` (the same paper): r = 1 / f. The rate stays as it is, and the batch grows in place of every drop.
- ``adabatch`` (Devarakonda et al., AdaBatch, arXiv 1712.02029): r = 2, doubled at each drop. Their example is a rate
  that falls to 0.75 where that of the fixed batch size falls to 0.375.

Chosen here, and not taken from the papers: sizes are rounded to whole numbers; what the epochs of the drops are is the
sweep's affair; a size beyond the training examples is no cap but a cell that is skipped, with that reason. Smith et al.
go on to drop the rate once a largest batch size is reached, which one factor for all drops cannot say.

Closed loops go by what is measured at the end of an epoch, or after so many steps (``harness.measure.batch_loop``), and
give the size that training should go on with, as a number of examples that need not be whole:

- ``cabs`` (Balles, Romero and Hennig, Coupling Adaptive Batch Sizes with Learning Rates, arXiv 1612.05086): rate x
  tr(Sigma) / loss, with Sigma the covariance of single examples' gradients. As the authors' own implementation has it:
  the rate is that of plain SGD, whatever the momentum, and the lowest loss that there may be is taken for zero.
- ``noise-scale`` (McCandlish et al., An Empirical Model of Large-Batch Training, arXiv 1812.06162, equation 2.9):
  tr(Sigma) / |G|^2 itself, the size at which a step is neither wasteful nor slow.

Chosen here: one decision an epoch or so many steps, where theirs is one a step, so nothing is smoothed; and a size is
the first one times a power of two, the nearest by ratio within bounds, since each new size is a program to be compiled.
"""

from __future__ import annotations

import math
from dataclasses import replace

from harness.core.training import LearningRate

RULES = ("none", "adabatch", "increase")
ADABATCH_GROWTH = 2.0

Pieces = tuple[tuple[int, int], ...]
"""(first epoch, batch size), the first of epoch 0."""


CLOSED_RULES = ("cabs", "noise-scale")


def wanted(rule: str, rate: float, variance: float, gradient_square: float, loss: float) -> float | None:
    """The batch size that a closed loop asks for; None where what was measured does not tell.

    ``variance``: tr(Sigma); ``gradient_square``: |G|^2, which by chance may be estimated as negative; ``loss``: the
    mean over training examples.
    """
    if rule == "cabs":
        return rate * variance / loss if loss > 0 else None
    return variance / gradient_square if gradient_square > 0 else None


def nearest(size: float, first: int, smallest: int, largest: int) -> int:
    """``first`` times the power of two that is nearest to ``size`` by ratio, between ``smallest`` and ``largest``."""
    allowed = [first * 2**up for up in range(64) if first * 2**up <= largest]
    allowed += [first // 2**down for down in range(1, 64) if first % 2**down == 0 and first // 2**down >= smallest]
    chosen: int = min(allowed, key=lambda one: abs(math.log2(one / size))) if size > 0 else min(allowed)
    return chosen


def planned(rule: str, batch_size: int, rate: LearningRate) -> tuple[Pieces, LearningRate]:
    """The plan of a rule for a fixed batch size and its rate, and the rate that goes with it.

    ``rate`` has ``drop_epochs``, a ``factor`` below 1 and no scaling. ValueError for a rule that is not known.
    """
    if rule not in RULES:
        raise ValueError(f"no rule of batch sizes is called {rule!r}")
    if rule == "none":
        return ((0, batch_size),), rate
    growth = ADABATCH_GROWTH if rule == "adabatch" else 1 / rate.factor
    drops = sorted(rate.drop_epochs)
    grown = [(epoch, round(batch_size * growth**number)) for number, epoch in enumerate(drops, start=1)]
    left = replace(rate, drop_epochs=(), factor=LearningRate().factor)
    if rule == "adabatch":
        left = replace(rate, factor=rate.factor * growth)
    return ((0, batch_size), *grown), left
