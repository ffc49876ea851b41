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
from dataclasses import dataclass

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
class TrainingSpec:
    """One training run: what is fixed when only the target differs."""

    batch_size: int
    epochs: int = 1
    optimizer: OptimizerSpec = OptimizerSpec()
    learning_rate: LearningRate = LearningRate()
    seed: int = 0
    precision: str = "float32"

    @property
    def compute_dtype(self) -> str:
        """The name, in every framework, of the type of activations and products."""
        return COMPUTE_DTYPES[self.precision]

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before the backward pass, and each gradient divided by after it."""
        return LOSS_SCALES[self.precision]

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches in ``examples``; zero if there is not even one."""
        return examples // self.batch_size

    def learning_rates(self, steps_per_epoch: int) -> tuple[tuple[int, float], ...]:
        """The schedule as (first step, rate) pieces in step order; the first piece starts at step 0."""
        rule = self.learning_rate
        ratio = self.batch_size / rule.base_batch_size
        scale = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule.scaling]
        pieces = {0: rule.base * scale}
        for number, epoch in enumerate(sorted(rule.drop_epochs), start=1):
            pieces[epoch * steps_per_epoch] = rule.base * scale * rule.factor**number
        return tuple(sorted(pieces.items()))
