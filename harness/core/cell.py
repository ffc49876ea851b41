"""A cell: one training run on one target. Its hashes say what may be compared and what is done already.

``work_id`` hashes everything that must be equal on both sides of a comparison: model, training,
dataset bytes, initial parameters and batch order. The target is not in it: how (mode, input, device,
processors) is the target's affair, what is not. ``cell_id`` hashes the target and the repeat as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from harness.core.codec import LATER, digest
from harness.core.model import BatchNorm, ModelSpec
from harness.core.training import Piece, TrainingSpec

ID_LENGTH = 16
"""Hex digits of an id: 64 bits, so two of a million cells collide with a chance of 3e-8."""

MODES = ("graph", "xla", "fit", "jit", "numpy")
INPUTS = ("resident", "host")

MICROBATCH_AND_BATCH_NORM = (
    "microbatches cannot train batch normalisation: it normalises by the mean and variance of the whole batch, "
    "which those of its parts are not"
)
MICROBATCH_AND_STEPS_PER_CALL = "microbatches make several calls of a step: with them a call has one step"
DEVICES_AND_MICROBATCH = "several devices split a batch, and microbatches do too: a target has one of the two"
PLAN_AND_STEPS_PER_CALL = "a plan of batch sizes trains step by step: with it a call has one step"


@dataclass(frozen=True)
class Dataset:
    """A dataset by content. ``sha256`` covers all its arrays; the counts are those used of it, from the front."""

    name: str
    sha256: str
    train_examples: int
    test_examples: int
    image_shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Inputs:
    """Digests of the arrays that the harness draws: initial parameters and order of examples."""

    parameters_sha256: str
    order_sha256: str


@dataclass(frozen=True)
class Target:
    """Where and how: a backend on an accelerator in an environment, resolved to the last detail.

    ``environment`` identifies the interpreter and packages: the hash of a lock file, or
    ``python:PATH`` for an interpreter of the person's own. ``cpus`` is the number of processors the worker
    may use, 0 for all. ``matmul_precision``: ``highest`` forbids TF32 and the like. ``settings`` is a digest
    of what else the definition gives the worker (environment variables, code of its own), empty if nothing.
    ``steps_per_call``: training steps that one call of the framework does; what an epoch has left is trained singly.
    ``defined_options`` are what the definition asks of the backend in place of its defaults (``harness.core.knobs``),
    ``options`` what was asked beside the target's name, which counts more; pairs of name and value, by name.
    ``microbatch``: the most examples whose gradients are computed at once; larger batches are accumulated, 0 for none.
    ``tuned``: the definition's settings are chosen for speed, so it stands for the framework at its best.
    ``devices``: on how many, from ``device`` on, a step is done together, each with an equal part of the batch.
    """

    name: str
    backend: str
    accelerator: str
    mode: str
    input: str
    environment: str
    device: int = 0
    cpus: int = 0
    matmul_precision: str = "highest"
    settings: str = ""
    steps_per_call: int = field(default=1, metadata=LATER)
    defined_options: tuple[tuple[str, str], ...] = field(default=(), metadata=LATER)
    options: tuple[tuple[str, str], ...] = field(default=(), metadata=LATER)
    tuned: bool = field(default=False, metadata=LATER)
    microbatch: int = field(default=0, metadata=LATER)
    devices: int = field(default=1, metadata=LATER)

    @property
    def all_options(self) -> dict[str, str]:
        """What the backend is asked for in place of its defaults."""
        return {**dict(self.defined_options), **dict(self.options)}

    def parts(self, batch_size: int) -> tuple[int, ...]:
        """How many examples each pass of a training step takes: the whole batch, or microbatches and what is left."""
        if not 0 < self.microbatch < batch_size:
            return (batch_size,)
        whole, rest = divmod(batch_size, self.microbatch)
        return (self.microbatch,) * whole + ((rest,) if rest else ())

    @property
    def shares_processors(self) -> bool:
        """Whether its devices are logical ones, which share the same processors: their speed means nothing."""
        return self.devices > 1 and self.accelerator == "cpu"

    @property
    def label(self) -> str:
        """``name:mode``, and what else differs from the usual: how a person writes it."""
        extras = [f"@input={self.input}"] if self.input != "resident" and self.mode != "fit" else []
        extras += [f"@device={self.device}"] if self.device else []
        extras += [f"@cpus={self.cpus}"] if self.cpus else []
        extras += [f"@matmul_precision={self.matmul_precision}"] if self.matmul_precision != "highest" else []
        extras += [f"@steps_per_call={self.steps_per_call}"] if self.steps_per_call != 1 else []
        extras += [f"@microbatch={self.microbatch}"] if self.microbatch else []
        extras += [f"@devices={self.devices}"] if self.devices != 1 else []
        extras += [f"@{name}={value}" for name, value in self.options]
        return f"{self.name}:{self.mode}{''.join(extras)}"


def label_and_steps_per_call(label: str) -> tuple[str, int]:
    """A target's label as it would be with one step per call, and how many it has."""
    return _label_and(label, "steps_per_call")


def label_and_devices(label: str) -> tuple[str, int]:
    """A target's label as it would be on one device, and on how many it is."""
    return _label_and(label, "devices")


def _label_and(label: str, wanted: str) -> tuple[str, int]:
    kept, count = [], 1
    for part in label.split("@"):
        key, _, value = part.partition("=")
        if key == wanted:
            count = int(value)
        else:
            kept.append(part)
    return "@".join(kept), count


@dataclass(frozen=True)
class Cell:
    """One training run on one target; ``repeat`` numbers fresh-process repetitions.

    ``lane`` numbers cells of one heat that have the same target: 0 for the first, so for nearly all.
    """

    model: ModelSpec
    training: TrainingSpec
    dataset: Dataset
    inputs: Inputs
    target: Target
    repeat: int = 0
    lane: int = field(default=0, metadata=LATER)

    @cached_property
    def work_id(self) -> str:
        """Equal for two cells exactly if they must do the same work."""
        parts = (self.model, self.training, self.dataset, self.inputs)
        return digest([_digest_of(part) for part in parts])[:ID_LENGTH]

    @cached_property
    def cell_id(self) -> str:
        """Equal exactly for the same work on the same target in the same repeat and lane."""
        further = [self.lane] if self.lane else []
        return digest([self.work_id, _digest_of(self.target), self.repeat, *further])[:ID_LENGTH]

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training examples; where the batch size changes, those of the first epoch."""
        return self.training.steps_per_epoch(self.dataset.train_examples)

    @property
    def epoch_steps(self) -> tuple[int, ...]:
        """Steps of each epoch."""
        return self.training.epoch_steps(self.dataset.train_examples)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Its steps by batch size: one piece where that never changes."""
        return self.training.pieces(self.dataset.train_examples)

    @property
    def total_steps(self) -> int:
        """Training steps of the whole cell."""
        training = self.training
        return sum(self.epoch_steps) if training.batch_changes else self.steps_per_epoch * training.epochs

    @property
    def epoch_images(self) -> tuple[int, ...]:
        """Images that the training steps of each epoch take together."""
        of_epochs = self.training.epoch_sizes(self.dataset.train_examples)
        return tuple(sum(steps * size for steps, size in own) for own in of_epochs)

    @property
    def total_images(self) -> int:
        """Images that all its training steps take together."""
        return sum(piece.steps * piece.batch_size for piece in self.pieces)

    @property
    def why_no_microbatch(self) -> str:
        """Why it cannot be trained in the microbatches that its target asks for; empty if it can, or need not."""
        if not self.target.microbatch:
            return ""
        if any(isinstance(trace.layer, BatchNorm) for trace in self.model.traced):
            return MICROBATCH_AND_BATCH_NORM
        return MICROBATCH_AND_STEPS_PER_CALL if self.target.steps_per_call > 1 else ""

    @property
    def why_no_devices(self) -> str:
        """Why it cannot be trained on as many devices as its target asks for; empty if it can, or need not."""
        count = self.target.devices
        if count == 1:
            return ""
        if self.target.microbatch:
            return DEVICES_AND_MICROBATCH
        uneven = [size for size in self.training.batch_sizes if size % count]
        return f"batch size {uneven[0]} cannot be split into {count} equal parts, one for each device" if uneven else ""

    def epoch_of(self, step: int) -> tuple[int, int]:
        """The epoch of a step, both counted from 0, and the steps of that epoch before it; the end is an epoch too."""
        for epoch, steps in enumerate(self.epoch_steps):
            if step < steps:
                return epoch, step
            step -= steps
        return self.training.epochs, step

    def batch_size_at(self, step: int) -> int:
        """The batch size of a training step, counted from 0."""
        return self.batch_sizes_at([step])[0]

    def batch_sizes_at(self, steps: Iterable[int]) -> list[int]:
        """The batch size of each of these training steps, counted from 0."""
        pieces = self.pieces
        starts = [piece.first_step for piece in pieces]
        return [pieces[bisect_right(starts, step) - 1].batch_size for step in steps]


_DIGESTS: dict[object, str] = {}


def _digest_of(part: object) -> str:
    """``digest`` of a frozen part, remembered, with itself as well: thousands of cells share few models and targets."""
    own: str | None = vars(part).get("_digest")
    if own is None:
        own = _DIGESTS.get(part)
        if own is None:
            if len(_DIGESTS) > 100_000:
                _DIGESTS.clear()
            own = _DIGESTS[part] = digest(part)
        vars(part)["_digest"] = own
    return own
