"""Steps that a target trained, done again by the reference from the target's own state before them.

So what went on before does not matter: an error of an earlier step is not one of these. A ``Span`` goes in, with the
files of both states; ``parity.Quantity`` comes out, each with the bound that rounding sets it
(``harness.proof.rounding``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cell import Cell, Target
from harness.core.errors import CellError, HarnessError
from harness.core.messages import Evaluate, Evaluated, Replay
from harness.core.model import Dropout, ModelSpec
from harness.core.training import TrainingSpec
from harness.proof import rounding
from harness.proof.conservation import replicas_apart, step_count
from harness.proof.parity import Quantity, binomial_bound
from harness.proof.probing import Arrays, load_probed
from harness.proof.tolerances import TEST_EXAMPLES, UNIT_ROUNDOFF, tolerances
from harness.workers.cell_worker import CellWorker, Files

FLOAT32_ROUNDOFF = 2.0**-24
SLOTS = {"sgd": (), "momentum": ("velocity",), "nesterov": ("velocity",), "adam": ("first", "second")}
"""Arrays of each parameter that an optimizer keeps (``backends.protocol.Witnessed``)."""


@dataclass(frozen=True)
class Span:
    """Steps of a cell from ``first_step`` on, between two snapshots, with the ``losses`` that were claimed.

    ``masks``: what dropout kept in them; None where the model has none or the backend cannot show it.
    """

    first_step: int
    losses: tuple[float, ...]
    before: Path
    after: Path
    masks: Path | None = None

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.losses)

    def remove(self) -> None:
        """Its files, which nothing needs any more."""
        for path in (self.before, self.after, *([] if self.masks is None else [self.masks])):
            path.unlink(missing_ok=True)


class Replays:
    """The reference with a cell open. ``scratch``: a folder for its answers, which are removed."""

    def __init__(self, cell: Cell, worker: CellWorker, scratch: Path, timeout: float) -> None:
        self._cell = cell
        self._worker = worker
        self._scratch = scratch
        self._timeout = timeout

    def replay(self, span: Span, gradients: bool = False) -> Arrays:
        """What the reference makes of a span's steps. Raises CellError."""
        output = self._scratch / "replayed.npz"
        roundoff = UNIT_ROUNDOFF.get(self._cell.training.precision, FLOAT32_ROUNDOFF)
        masks = "" if span.masks is None else str(span.masks)
        request = Replay(str(span.before), span.first_step, span.steps, str(output), roundoff, masks, gradients)
        self._worker.ask(request, self._timeout)
        found = load_probed(output)
        output.unlink()
        return found

    def compared(self, span: Span) -> tuple[Quantity, ...]:
        """A span's quantities; of one step the gradient that it trained with, too. Raises CellError."""
        before = load_probed(span.before)
        found, expected = load_probed(span.after) | {"losses": np.asarray(span.losses)}, self.replay(span)
        if span.steps == 1 and not missing(before, self._cell.model, self._cell.training):
            pieces = self._cell.training.learning_rates(self._cell.epoch_steps)
            rate = next(rate for first, rate in reversed(pieces) if first <= span.first_step)
            expected |= gradient_of_step(self._cell.training, rate, before, expected)
            found |= gradient_of_step(self._cell.training, rate, before, found)
        return rounding.compare(expected, found) + counted(span, before, found)

    def evaluated(self, state: Path, step: int, told: Evaluated) -> tuple[Quantity, ...]:
        """How far a target's evaluation is from that of its own state after ``step`` steps. Raises CellError."""
        self.replay(Span(step, (), state, state))
        ours = self._worker.ask(Evaluate(), self._timeout)
        assert isinstance(ours, Evaluated)
        allowed = tolerances(self._cell.training.precision)
        one_image = TEST_EXAMPLES * allowed["test_accuracy"] / self._cell.dataset.test_examples
        return (
            Quantity("test_loss", abs(told.loss - ours.loss) / abs(ours.loss), allowed["test_loss"]),
            Quantity("test_accuracy", abs(told.accuracy - ours.accuracy), one_image),
        )


@contextmanager
def opened(
    cell: Cell, start: Callable[[], tuple[Target, CellWorker]], files: Files, timeout: float
) -> Iterator[Replays]:
    """The reference with the work of ``cell`` open in the block. Raises HarnessError if it fails."""
    try:
        target, worker = start()
        own = replace(cell, target=target, training=replace(cell.training, precision="float32"))
        worker.open(files.opening(own), timeout)
        try:
            yield Replays(cell, worker, files.scratch, timeout)
        except BaseException:
            worker.abandon()
            raise
        worker.finish(timeout)
    except CellError as error:
        raise HarnessError(f"the reference, against which training is checked, failed: {error}") from error


def missing(state: Mapping[str, NDArray[Any]], model: ModelSpec, training: TrainingSpec) -> str:
    """What a state lacks to be gone on from, in words; empty if nothing."""
    slots = SLOTS[training.optimizer.name]
    wanted = [f"optimizer/{slot}/{name}" for slot in slots for name in model.parameter_shapes]
    return "the backend does not show its optimizer's state" if any(key not in state for key in wanted) else ""


def initial_state(model: ModelSpec, training: TrainingSpec, parameters: Mapping[str, NDArray[Any]]) -> Arrays:
    """The state before the first step, from the parameters that were shipped."""
    return {
        **{f"parameter/{name}": array for name, array in parameters.items()},
        **{
            f"statistic/{name}": np.full(shape, 0.0 if name.endswith("/moving_mean") else 1.0, np.float32)
            for name, shape in model.statistic_shapes.items()
        },
        **{
            f"optimizer/{slot}/{name}": np.zeros(shape, np.float32)
            for slot in SLOTS[training.optimizer.name]
            for name, shape in model.parameter_shapes.items()
        },
        "steps": np.zeros((), np.int64),
    }


def counted(span: Span, before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> tuple[Quantity, ...]:
    """How far the device's own count of a span's steps is from their number; nothing where it does not tell.

    And of several devices, how many arrays they have unequal after them.
    """
    apart = (replicas_apart(int(after["apart"])),) if "apart" in after else ()
    if "steps" not in before or "steps" not in after:
        return apart
    count = int(after["steps"]) - int(before["steps"])
    return (step_count(count, span.steps), *apart)


def gradient_of_step(
    training: TrainingSpec,
    rate: float,
    before: Mapping[str, NDArray[Any]],
    after: Mapping[str, NDArray[Any]],
) -> Arrays:
    """The gradient that one step trained with, from what it did to the state (``harness.core.training``).

    With what clipping and weight decay made of it, as far as the state has it.
    Full name -> float64 array, keyed ``gradient/NAME``. With ``deviation/`` keys in ``after`` their deviations too.
    """
    spec = training.optimizer
    slot, kept, factor = {
        "sgd": ("parameter", 1.0, -rate),
        "adam": ("optimizer/first", spec.beta_1, 1.0 - spec.beta_1),
    }.get(spec.name, ("optimizer/velocity", spec.momentum, -rate))
    found: Arrays = {}
    for key, array in after.items():
        if not key.startswith(f"{slot}/"):
            continue
        name = f"gradient{key.removeprefix(slot)}"
        found[name] = (array.astype(np.float64) - kept * before[key].astype(np.float64)) / factor
        if f"deviation/{key}" in after:
            found[f"deviation/{name}"] = after[f"deviation/{key}"] / abs(factor)
    return found


def mask_quantities(model: ModelSpec, masks: Mapping[str, NDArray[Any]]) -> tuple[Quantity, ...]:
    """How far the kept share of masks that a target handed over is from what was asked for."""
    found = []
    for trace in model.traced:
        if not isinstance(trace.layer, Dropout) or trace.layer.rate == 0.0:
            continue
        keep = 1.0 - trace.layer.rate
        kept = [mask for key, mask in masks.items() if key.partition("/")[2] == trace.name]
        size = sum(mask.size for mask in kept)
        share = sum(int(mask.sum()) for mask in kept) / size if size else math.nan
        found.append(Quantity("dropout share", abs(share - keep), binomial_bound(keep, max(size, 1), 1), trace.name))
    return tuple(found)


def worst(quantities: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """Of each name the one farthest beyond its bound, or nearest to it."""
    found: dict[str, Quantity] = {}
    for one in quantities:
        kept = found.get(one.name)
        if kept is None or not one.share <= kept.share:
            found[one.name] = one
    return tuple(found.values())
