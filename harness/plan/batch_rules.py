"""Rules that write a plan of batch sizes in place of a learning rate that falls.

Goes in: the fixed batch size and the drops of the rate that it would have. Comes out: a plan, and the drops that are
left. Both keep what the drops do to the noise of the updates, which goes with rate x N / (B (1 - momentum)) for N
examples, rate and batch size B (Smith et al., Don't Decay the Learning Rate, Increase the Batch Size, arXiv
1711.00489): a drop by the factor f and a batch r times as large divide it by r / f, so with batches that grow by r the
rate is multiplied by f r where it would have been by f.

- ``increase`` (the same paper): r = 1 / f. The rate stays as it is, and the batch grows in place of every drop.
- ``adabatch`` (Devarakonda et al., AdaBatch, arXiv 1712.02029): r = 2, doubled at each drop. Their example is a rate
  that falls to 0.75 where that of the fixed batch size falls to 0.375.

Chosen here, and not taken from the papers: sizes are rounded to whole numbers; what the epochs of the drops are is the
sweep's affair; a size beyond the training examples is no cap but a cell that is skipped, with that reason. Smith et al.
go on to drop the rate once a largest batch size is reached, which one factor for all drops cannot say.
"""

from __future__ import annotations

from dataclasses import replace

from harness.core.training import LearningRate

RULES = ("none", "adabatch", "increase")
ADABATCH_GROWTH = 2.0

Pieces = tuple[tuple[int, int], ...]
"""(first epoch, batch size), the first of epoch 0."""


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
