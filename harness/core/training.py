"""How a model is trained: everything that is part of the work, nothing of how a target does it.

Canonical mathematics (the reference adapter implements exactly this; the others are proven against it).
With gradient g of the batch's mean loss, parameter p, learning rate a_t at step t = 0, 1, ...:

- ``sgd``       p <- p - a_t g
- ``momentum``  v <- m v - a_t g;  p <- p + v             (Sutskever et al., ICML 2013, equations 1 and 2)
- ``nesterov``  v <- m v - a_t g;  p <- p + m v - a_t g   (the same, equations 3 and 4, in Keras's form)
- ``adam``      m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
                p <- p - a_t sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)) m / (sqrt(v) + epsilon)
                (Kingma and Ba, ICLR 2015, end of section 2: epsilon here is their "epsilon hat")

The rate is folded into the velocity, so a change of rate does not rescale what was gathered before.
The loss is the mean softmax cross-entropy of the batch. An epoch has floor(examples / batch size)
steps: the examples left over are not trained in that epoch (the order differs in the next), so every
step of a cell has one shape and compiles once.

The batch size may change at the start of an epoch (``TrainingSpec.batch_changes``). Each epoch then has
floor(examples / its batch size) steps, made of the front of the same permutation; parameters, moving statistics and
the optimizer's state go on as they are; a rate that is scaled to the batch size follows the size of the moment.

Precisions. ``float32`` is float32 throughout. In the mixed ones (Micikevicius et al., ICLR 2018) the narrow type of
``compute_dtype`` is that of the images, cast once, of every activation, and of the inputs and results of every
convolution and dense product, to which parameters are cast; what a product or a sum accumulates in is the
kernel's affair. In float32 are: parameters, gradients as they reach them, optimizer state and update; the mean
and variance of a batch, the moving ones, and the normalisation by them; the logits, cast after the last
layer, with softmax, loss and the start of the backward pass; and the random numbers that dropout's masks are made
of (TensorFlow's dropout layers multiply by the mask in float32 as well, JAX's in the narrow type).
``mixed_float16`` multiplies the loss by ``loss_scale`` before the backward pass and divides the gradients by
it in float32: a constant, so that both sides take the same steps. No step is left out where a gradient
overflows: the loss turns NaN, and the record shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.core.codec import LATER

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")
SCALINGS = ("none", "linear", "sqrt")
COMPUTE_DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
PRECISIONS = tuple(COMPUTE_DTYPES)
LOSS_SCALES = {"float32": 1.0, "mixed_bfloat16": 1.0, "mixed_float16": 2.0**10}
"""A power of two scales exactly. It lifts gradients of 6e-8 to float16's smallest normal number, 6e-5, and leaves those
below 64 within its largest, 65504; bfloat16 has float32's range and needs none."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer by name with its constants; those that it does not use are ignored by it."""

    name: str = "momentum"
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


@dataclass(frozen=True)
class LearningRate:
    """A constant rate, or one multiplied by ``factor`` at the start of each epoch in ``drop_epochs``.

    ``scaling`` adapts it to the batch size B relative to ``base_batch_size``: ``none``; ``linear``,
    times B / base (Goyal et al., arXiv 1706.02677); ``sqrt``, times sqrt(B / base) (Krizhevsky,
    arXiv 1404.5997). ``drop_epochs`` count from 0: (1,) drops it after the first epoch.
    """

    base: float = 0.01
    drop_epochs: tuple[int, ...] = ()
    factor: float = 0.1
    scaling: str = "none"
    base_batch_size: int = 32


@dataclass(frozen=True)
class Piece:
    """Epochs in a row of one batch size: ``steps`` steps from ``first_step`` on, the first of epoch ``first_epoch``."""

    first_epoch: int
    first_step: int
    steps: int
    batch_size: int


@dataclass(frozen=True)
class TrainingSpec:
    """One training run: what is fixed when only the target differs.

    ``batch_size`` is that of the first epoch. ``batch_changes``: (first epoch, batch size) of each later piece of a
    plan of batch sizes, epochs counted from 0 and rising. What changes nothing (the size that there was, an epoch that
    is never trained) is left out of them, so that a plan that never changes is the fixed batch size.
    """

    batch_size: int
    epochs: int = 1
    optimizer: OptimizerSpec = OptimizerSpec()
    learning_rate: LearningRate = LearningRate()
    seed: int = 0
    precision: str = "float32"
    batch_changes: tuple[tuple[int, int], ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        if self.batch_changes:
            object.__setattr__(self, "batch_changes", _effective(self.batch_size, self.batch_changes, self.epochs))

    @property
    def compute_dtype(self) -> str:
        """The name, in every framework, of the type of activations and products."""
        return COMPUTE_DTYPES[self.precision]

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before the backward pass, and each gradient divided by after it."""
        return LOSS_SCALES[self.precision]

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """All batch sizes that it trains with, each once, in the order of their first use."""
        return tuple(dict.fromkeys((self.batch_size, *(size for _, size in self.batch_changes))))

    @property
    def batch_plan(self) -> str:
        """``64>128@2>256@4``: the first batch size, and each later one with its first epoch; empty without a change."""
        later = "".join(f">{size}@{epoch}" for epoch, size in self.batch_changes)
        return f"{self.batch_size}{later}" if later else ""

    def batch_size_in(self, epoch: int) -> int:
        """The batch size of an epoch, counted from 0."""
        return next((size for first, size in reversed(self.batch_changes) if first <= epoch), self.batch_size)

    def at_size(self, batch_size: int) -> TrainingSpec:
        """The same training with one fixed batch size."""
        return replace(self, batch_size=batch_size, batch_changes=())

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches in ``examples`` in the first epoch; zero if there is not even one."""
        return examples // self.batch_size

    def epoch_steps(self, examples: int) -> tuple[int, ...]:
        """The steps of each epoch."""
        return tuple(examples // self.batch_size_in(epoch) for epoch in range(self.epochs))

    def pieces(self, examples: int) -> tuple[Piece, ...]:
        """Its pieces in order, one where the batch size never changes."""
        steps, starts = self.epoch_steps(examples), (0, *(epoch for epoch, _ in self.batch_changes))
        ends = (*starts[1:], self.epochs)
        return tuple(
            Piece(start, sum(steps[:start]), sum(steps[start:end]), self.batch_size_in(start))
            for start, end in zip(starts, ends, strict=True)
        )

    def learning_rates(self, steps_per_epoch: int | Sequence[int]) -> tuple[tuple[int, float], ...]:
        """The schedule as (first step, rate) pieces in step order; the first piece starts at step 0.

        ``steps_per_epoch``: those of every epoch, or of each where they differ (``epoch_steps``).
        """
        rule = self.learning_rate
        drops = sorted(rule.drop_epochs)
        changes = () if rule.scaling == "none" else (epoch for epoch, _ in self.batch_changes)
        pieces = {}
        for epoch in sorted({0, *drops, *changes}):
            ratio = self.batch_size_in(epoch) / rule.base_batch_size
            scale = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule.scaling]
            dropped = sum(drop <= epoch for drop in drops)
            pieces[_first_step(epoch, steps_per_epoch)] = rule.base * scale * rule.factor**dropped
        return tuple(sorted(pieces.items()))


def _first_step(epoch: int, steps_per_epoch: int | Sequence[int]) -> int:
    """The step that an epoch begins with; beyond the last epoch they go on as that one."""
    if isinstance(steps_per_epoch, int):
        return epoch * steps_per_epoch
    beyond = max(epoch - len(steps_per_epoch), 0)
    return sum(steps_per_epoch[:epoch]) + beyond * steps_per_epoch[-1]


def _effective(first: int, changes: Sequence[tuple[int, int]], epochs: int) -> tuple[tuple[int, int], ...]:
    """Those changes that change something, in order."""
    found: list[tuple[int, int]] = []
    size = first
    for epoch, next_size in sorted(changes):
        if epoch < epochs and next_size != size:
            found.append((epoch, next_size))
            size = next_size
    return tuple(found)
