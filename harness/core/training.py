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
The loss is the mean softmax cross-entropy of the batch. With ``label_smoothing`` e, over K classes, training takes it
against (1 - e) for the label and e / K for every class (Szegedy et al., arXiv 1512.00567, section 7); a test does not.

What becomes of the gradient before the optimizer sees it, in this order:

- a loss scale is divided out;
- ``clip_norm`` c: n = sqrt(sum of g^2 over all parameters together); where n > c, g <- c / n g (Pascanu et al., arXiv
  1211.5063, algorithm 1). It is the gradient of the loss alone that is clipped, so that weight decay means the same
  with clipping as without;
- ``weight_decay`` w, form ``l2``: g <- g + w p, the gradient of w / 2 p^2.

With form ``decoupled`` the optimizer's step has -a_t w p beside it, p as it was before the step: Loshchilov and Hutter,
arXiv 1711.05101, algorithms 1 and 2, but for the rate: they multiply w by the schedule's multiplier alone, whereas
here, as in optax and Keras, it is by the whole rate a_t. Either decays kernels only, neither biases nor what batch
normalisation scales and shifts by (He et al., arXiv 1812.01187, section 3.1, "no bias decay").

An epoch has floor(examples / batch size) steps: the examples left over are not trained in that epoch (the order differs
in the next), so every step of a cell has one shape and compiles once.

The batch size may change at the start of an epoch, or of any step (``TrainingSpec.batch_changes``). Each epoch is made
of the front of the same permutation, taken in whole batches of the size of the moment: it ends where no such batch is
left. Parameters, moving statistics and the optimizer's state go on as they are; a rate that is scaled to the batch size
follows the size of the moment.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.core.codec import LATER

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")
SCALINGS = ("none", "linear", "sqrt")
DECAYS = ("none", "cosine", "polynomial")
EPOCH, STEP = "epoch", "step"
DECOUPLED, L2 = "decoupled", "l2"
WEIGHT_DECAY_FORMS = (DECOUPLED, L2)
OPTIONS = ("warmup", "rate_decay", "decoupled_weight_decay", "l2_weight_decay", "clip_norm", "label_smoothing")
"""What a training may ask for beyond its optimizer and a rate that drops; a backend declares those that it can do."""

PLANS = "plan of batch sizes"
"""What a batch size that changes is called in a backend's refusals."""

COMPUTE_DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
PRECISIONS = tuple(COMPUTE_DTYPES)
LOSS_SCALES = {"float32": 1.0, "mixed_bfloat16": 1.0, "mixed_float16": 2.0**10}
"""A power of two scales exactly. It lifts gradients of 6e-8 to float16's smallest normal number, 6e-5, and leaves those
below 64 within its largest, 65504; bfloat16 has float32's range and needs none."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer by name with its constants; those that it does not use are ignored by it.

    ``weight_decay``, of a form in WEIGHT_DECAY_FORMS, and ``clip_norm`` are none where they are 0.
    """

    name: str = "momentum"
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = field(default=0.0, metadata=LATER)
    weight_decay_form: str = field(default=DECOUPLED, metadata=LATER)
    clip_norm: float = field(default=0.0, metadata=LATER)

    def decays(self, name: str, form: str) -> bool:
        """Whether the parameter of that full name is decayed in that form."""
        return self.weight_decay > 0 and self.weight_decay_form == form and name.endswith("/kernel")


@dataclass(frozen=True)
class LearningRate:
    """A constant rate, or one multiplied by ``factor`` at the start of each epoch in ``drop_epochs``.

    ``scaling`` adapts it to the batch size B relative to ``base_batch_size``: ``none``; ``linear``,
    times B / base (Goyal et al., arXiv 1706.02677); ``sqrt``, times sqrt(B / base) (Krizhevsky,
    arXiv 1404.5997). ``drop_epochs`` count from 0: (1,) drops it after the first epoch.

    Warm-up over W steps, ``warmup_steps`` or those of ``warmup_epochs``: the rate of step t < W is (t + 1) / W times
    what it would be, so that it grows by a constant amount at each step (Goyal et al., arXiv 1706.02677, section 2.2).
    ``decay`` is over what is left of the training after warm-up. With s the share of that which is done before the
    step, and f = ``decay_to``, the rate is multiplied by

    - ``cosine``      f + (1 - f) (1 + cos(pi s)) / 2         (Loshchilov and Hutter, arXiv 1608.03983, equation 5)
    - ``polynomial``  f + (1 - f) (1 - s)^``decay_power``
    """

    base: float = 0.01
    drop_epochs: tuple[int, ...] = ()
    factor: float = 0.1
    scaling: str = "none"
    base_batch_size: int = 32
    warmup_steps: int = field(default=0, metadata=LATER)
    warmup_epochs: int = field(default=0, metadata=LATER)
    decay: str = field(default="none", metadata=LATER)
    decay_power: float = field(default=1.0, metadata=LATER)
    decay_to: float = field(default=0.0, metadata=LATER)

    @property
    def warms_up(self) -> bool:
        """Whether the rate is not the whole one from the first step."""
        return bool(self.warmup_steps or self.warmup_epochs)

    def decayed(self, share: float) -> float:
        """What the rate is multiplied by after that share of the decay, from 0 to 1."""
        left = 1.0
        if self.decay == "cosine":
            left = (1 + math.cos(math.pi * share)) / 2
        elif self.decay == "polynomial":
            left = math.pow(1 - share, self.decay_power)
        return self.decay_to + (1 - self.decay_to) * left


@dataclass(frozen=True)
class Piece:
    """Steps in a row of one batch size: ``steps`` of them from ``first_step`` on, which is in epoch ``first_epoch``."""

    first_epoch: int
    first_step: int
    steps: int
    batch_size: int


@dataclass(frozen=True)
class TrainingSpec:
    """One training run: what is fixed when only the target differs.

    ``batch_size`` is that of the first step. ``batch_changes``: (first epoch, batch size) of each later piece of a
    plan of batch sizes, epochs counted from 0 and rising; where ``batch_changes_by`` is STEP, (first step, batch size),
    steps counted from 0 over all epochs. What changes nothing (the size that there was, an epoch that is never trained)
    is left out of them, so that a plan that never changes is the fixed batch size; a step that is never trained by
    ``reached``, as only the number of examples tells.

    The test set is evaluated after each epoch, and after every ``evaluate_every`` training steps where that is not 0.
    Where ``until_accuracy`` is not 0, training ends with the first evaluation whose accuracy is at least that; after
    ``epochs`` at the latest.
    """

    batch_size: int
    epochs: int = 1
    optimizer: OptimizerSpec = OptimizerSpec()
    learning_rate: LearningRate = LearningRate()
    seed: int = 0
    precision: str = "float32"
    label_smoothing: float = field(default=0.0, metadata=LATER)
    batch_changes: tuple[tuple[int, int], ...] = field(default=(), metadata=LATER)
    until_accuracy: float = field(default=0.0, metadata=LATER)
    evaluate_every: int = field(default=0, metadata=LATER)
    batch_changes_by: str = field(default=EPOCH, metadata=LATER)

    def __post_init__(self) -> None:
        if self.batch_changes:
            ends = self.epochs if self.batch_changes_by == EPOCH else math.inf
            object.__setattr__(self, "batch_changes", _effective(self.batch_size, self.batch_changes, ends))
        if not self.batch_changes:
            object.__setattr__(self, "batch_changes_by", EPOCH)

    @property
    def options(self) -> tuple[str, ...]:
        """Those of OPTIONS that it asks for."""
        decays = self.optimizer.weight_decay > 0
        asked = (
            self.learning_rate.warms_up,
            self.learning_rate.decay != "none",
            *(decays and self.optimizer.weight_decay_form == form for form in WEIGHT_DECAY_FORMS),
            self.optimizer.clip_norm > 0,
            self.label_smoothing > 0,
        )
        return tuple(name for name, is_asked in zip(OPTIONS, asked, strict=True) if is_asked)

    @property
    def method(self) -> str:
        """The optimizer and what goes with it, in words: ``momentum with weight decay 0.0005 and cosine decay``."""
        return f"{self.optimizer.name} with {self.extras}" if self.extras else self.optimizer.name

    @property
    def extras(self) -> str:
        """What goes with the optimizer, in words; empty if nothing does."""
        told = [*self._told()]
        return " and ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))

    def _told(self) -> Iterator[str]:
        spec, rule = self.optimizer, self.learning_rate
        if spec.weight_decay:
            form = " (L2)" if spec.weight_decay_form == L2 else ""
            yield f"weight decay {spec.weight_decay:g}{form}"
        if spec.clip_norm:
            yield f"gradients clipped at {spec.clip_norm:g}"
        if self.until_accuracy:
            yield f"an end at {100 * self.until_accuracy:g} % test accuracy"
        if self.evaluate_every:
            yield f"an evaluation every {self.evaluate_every:,} step{'' if self.evaluate_every == 1 else 's'}"
        if self.label_smoothing:
            yield f"label smoothing {self.label_smoothing:g}"
        if rule.warms_up:
            count, unit = (rule.warmup_steps, "step") if rule.warmup_steps else (rule.warmup_epochs, "epoch")
            yield f"warm-up of {count:,} {unit}{'' if count == 1 else 's'}"
        if rule.decay != "none":
            power = f" (power {rule.decay_power:g})" if rule.decay == "polynomial" else ""
            yield f"{rule.decay} decay{power}{f' to {rule.decay_to:g} of it' if rule.decay_to else ''}"

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
        """``64>128@2>256@4``: the first batch size, and each later one with its first epoch; empty without a change.

        ``64>128@step300`` where it changes by steps.
        """
        unit = STEP if self.batch_changes_by == STEP else ""
        later = "".join(f">{size}@{unit}{start}" for start, size in self.batch_changes)
        return f"{self.batch_size}{later}" if later else ""

    def reached(self, examples: int) -> TrainingSpec:
        """The same training without changes at steps that it never comes to.

        Unchanged where a batch size is more than the examples, which nothing trains.
        """
        if self.batch_changes_by == EPOCH or max(self.batch_sizes) > examples:
            return self
        steps = sum(self.epoch_steps(examples))
        return replace(self, batch_changes=tuple(change for change in self.batch_changes if change[0] < steps))

    def at_size(self, batch_size: int) -> TrainingSpec:
        """The same training with one fixed batch size."""
        return replace(self, batch_size=batch_size, batch_changes=())

    def steps_per_epoch(self, examples: int) -> int:
        """The steps of the first epoch; zero if there is not even one whole batch."""
        return self.epoch_steps(examples)[0] if self.batch_changes else examples // self.batch_size

    def epoch_steps(self, examples: int) -> tuple[int, ...]:
        """The steps of each epoch."""
        if not self.batch_changes:
            return (examples // self.batch_size,) * self.epochs
        return tuple(sum(steps for steps, _ in own) for own in self.epoch_sizes(examples))

    def epoch_sizes(self, examples: int) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Of each epoch (steps, batch size) of its steps in a row of one size; one such, where no change is within."""
        changes, size, step = [*self.batch_changes], self.batch_size, 0
        found = []
        for epoch in range(self.epochs):
            own, left = list[tuple[int, int]](), examples
            while True:
                if changes and changes[0][0] <= (epoch if self.batch_changes_by == EPOCH else step):
                    size = changes.pop(0)[1]
                    continue
                fitting = left // size
                if changes and self.batch_changes_by == STEP:
                    fitting = min(fitting, changes[0][0] - step)
                if not fitting:
                    break
                own.append((fitting, size))
                step, left = step + fitting, left - fitting * size
            found.append(tuple(own) or ((0, size),))
        return tuple(found)

    def pieces(self, examples: int) -> tuple[Piece, ...]:
        """Its pieces in order, one where the batch size never changes."""
        found: list[Piece] = []
        step = 0
        for epoch, own in enumerate(self.epoch_sizes(examples)):
            for steps, size in own:
                if found and found[-1].batch_size == size:
                    found[-1] = replace(found[-1], steps=found[-1].steps + steps)
                else:
                    found.append(Piece(epoch, step, steps, size))
                step += steps
        return tuple(found)

    def learning_rates(self, steps_per_epoch: int | Sequence[int]) -> tuple[tuple[int, float], ...]:
        """The schedule as (first step, rate) pieces in step order; the first piece starts at step 0.

        ``steps_per_epoch``: those of every epoch, or of each where they differ (``epoch_steps``). Warm-up and decay
        make a piece of each step, up to the end of the training.
        """
        rule, by_epoch = self.learning_rate, self.batch_changes_by == EPOCH
        drops = [_first_step(epoch, steps_per_epoch) for epoch in rule.drop_epochs]
        sizes = {_first_step(at, steps_per_epoch) if by_epoch else at: size for at, size in self.batch_changes}
        pieces, size = {}, self.batch_size
        for step in sorted({0, *drops, *(() if rule.scaling == "none" else sizes)}):
            size = sizes.get(step, size)
            ratio = size / rule.base_batch_size
            scale = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule.scaling]
            pieces[step] = rule.base * scale * rule.factor ** sum(drop <= step for drop in drops)
        found = tuple(pieces.items())
        if not rule.warms_up and rule.decay == "none":
            return found
        warmup = rule.warmup_steps or _first_step(rule.warmup_epochs, steps_per_epoch)
        return _by_step(rule, found, self.total_steps(steps_per_epoch), warmup)

    def total_steps(self, steps_per_epoch: int | Sequence[int]) -> int:
        """The steps of all epochs, given those of every epoch or of each."""
        return _first_step(self.epochs, steps_per_epoch)


def _by_step(
    rule: LearningRate, pieces: tuple[tuple[int, float], ...], steps: int, warmup: int
) -> tuple[tuple[int, float], ...]:
    """Pieces with warm-up and decay over ``steps``, equal neighbours as one."""
    found: list[tuple[int, float]] = []
    for (first, rate), end in zip(pieces, (*(start for start, _ in pieces[1:]), max(steps, 1)), strict=True):
        for step in range(first, min(end, max(steps, 1))):
            share = max(step - warmup, 0) / max(steps - warmup, 1)
            now = rate * min(1.0, (step + 1) / warmup if warmup else 1.0) * rule.decayed(share)
            if not found or found[-1][1] != now:
                found.append((step, now))
    return tuple(found)


def _first_step(epoch: int, steps_per_epoch: int | Sequence[int]) -> int:
    """The step that an epoch begins with; beyond the last epoch they go on as that one."""
    if isinstance(steps_per_epoch, int):
        return epoch * steps_per_epoch
    beyond = max(epoch - len(steps_per_epoch), 0)
    return sum(steps_per_epoch[:epoch]) + beyond * steps_per_epoch[-1]


def _effective(first: int, changes: Sequence[tuple[int, int]], ends: float) -> tuple[tuple[int, int], ...]:
    """Those changes before ``ends`` that change something, in order."""
    found: list[tuple[int, int]] = []
    size = first
    for start, next_size in sorted(changes):
        if start < ends and next_size != size:
            found.append((start, next_size))
            size = next_size
    return tuple(found)
