"""Measuring the gradient noise scale of a run's work with a target's worker; ``noise_scale`` estimates it.

At each point of training the parameters are those of the run's own training with its smallest batch size. There
batches are drawn, each example of each with equal chance, so that the gradients of batches are independent and their
covariance is that of single examples over the batch size; for each of them a cell is opened whose examples are that
batch alone, and a probe (``messages.Probe`` of no steps) gives its gradient. Each has its own seed, so that dropout is
part of the noise, as it is in training. Batch normalisation makes the gradient of an example depend on its batch; then
the noise is that of batches of ``BATCH_SIZE``.

The examples and the seeds are the same for every target, so what two targets measure differs, but for dropout's masks,
by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import noise_scale
from harness.core import codec
from harness.core.cell import ID_LENGTH, Cell, Dataset, Inputs, Target
from harness.core.errors import CellError
from harness.core.messages import Block, Probe, Train
from harness.core.record import now
from harness.core.training import PRECISIONS, OptimizerSpec, TrainingSpec
from harness.plan import inputs
from harness.proof.probes import ProbeCell, dropout_rates
from harness.proof.probing import ProbeFolder, load_probed, opened
from harness.runs import noise_scales
from harness.runs.noise_scales import NoiseScale
from harness.workers.cell_worker import CellWorker, Files

VERSION = 1
"""Of how it is measured; another one measures anew."""

BATCH_SIZE = 128
"""Examples of each batch: opening a cell and compiling costs more than these, and |G|^2 is as precise as all examples
of all batches together make it."""

BLOCK_SECONDS = 1.0
"""Of training on the way to a point, what one question to the worker should take."""

_STREAM = 2
"""Of the generators of batches; ``inputs`` has others."""

_LARGEST_SEED = 2**30
"""Frameworks add small numbers to seeds, and take signed 32-bit integers."""

Watch = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and of how much."""


def works(cells: Iterable[Cell], target: Target) -> list[Cell]:
    """One cell on ``target``, in float32, for each distinct work (``noise_scale.work_of``), in order of appearance.

    That of the smallest batch size, with most epochs, of the first seed; a batch size that no epoch has a whole batch
    of is taken only if there is no other. A plan only likewise, and then as its first batch size, fixed.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        group = groups.setdefault(noise_scales.work_of(cell), [])
        if not group or cell.training.seed == group[0].training.seed:
            group.append(cell)
    found = []
    for group in groups.values():
        chosen = min(group, key=_preference)
        found.append(
            Cell(
                model=chosen.model,
                training=replace(chosen.training.at_size(chosen.training.batch_size), precision=PRECISIONS[0]),
                dataset=chosen.dataset,
                inputs=chosen.inputs,
                target=target,
            )
        )
    return found


def _preference(cell: Cell) -> tuple[bool, bool, int, int]:
    training = cell.training
    return not cell.total_steps, bool(training.batch_changes), training.batch_size, -training.epochs


def usual_steps(cell: Cell) -> tuple[int, ...]:
    """Where a work is measured unless other points are asked for: the start, the ends of the first and last epoch."""
    return tuple(sorted({0, cell.steps_per_epoch, cell.total_steps}))


def expected(cell: Cell, step: int, batches: int) -> NoiseScale:
    """What a measurement will be, without what only measuring tells."""
    training = cell.training
    key = {"version": VERSION, "cell": cell.cell_id, "step": step, "batches": batches, "batch_size": BATCH_SIZE}
    return NoiseScale(
        id=codec.digest(key)[:ID_LENGTH],
        key=key,
        work=noise_scales.work_of(cell),
        model=cell.model.name,
        dataset=cell.dataset.name,
        train_examples=cell.dataset.train_examples,
        optimizer=training.method,
        learning_rate=training.learning_rate.base,
        seed=training.seed,
        target=cell.target.label,
        step=step,
        steps_per_epoch=cell.steps_per_epoch,
        trained_batch_size=training.batch_size,
        batches=batches,
        batch_size=BATCH_SIZE,
    )


class Meter:
    """Measures works with the workers that ``give`` gives, which may be another for each cell.

    ``files``: the dataset; of the work, initial parameters and order; a folder for the workers' files and one for
    compiled programs. ``timeout``: longest wait for one answer, in seconds.
    """

    def __init__(self, files: Files, give: Callable[[], CellWorker], timeout: float, watch: Watch) -> None:
        self._files = files
        self._give = give
        self._timeout = timeout
        self._watch = watch

    def measure(self, cell: Cell, steps: Sequence[int], batches: int) -> Iterator[NoiseScale]:
        """The noise scale after each number of steps, in rising order; each as soon as it is known.

        A point at which something fails has a ``problem`` and no estimate.
        """
        if 0 in steps:
            yield self._point(cell, 0, batches, self._files.parameters)
        later = [step for step in steps if step > 0]
        points: dict[int, Path] = {}
        problem = ""
        try:
            for step, path in self._train(cell, later) if later else ():
                points[step] = path
        except CellError as error:
            problem = f"training on the way there failed: {error}"
        for step in later:
            if step in points:
                yield self._point(cell, step, batches, points[step])
            else:
                yield replace(expected(cell, step, batches), problem=problem, created=now())

    def _train(self, cell: Cell, steps: Sequence[int]) -> Iterator[tuple[int, Path]]:
        """Train and write the parameters at each of the steps; gives the files. Raises CellError."""
        scratch = self._files.scratch / "training"
        scratch.mkdir(parents=True, exist_ok=True)
        request = replace(self._files, scratch=scratch).opening(cell)
        done, block = 0, 1
        with opened(self._give(), request, self._timeout, trained=True) as (worker, _):
            for step in steps:
                while done < step:
                    self._watch(f"{cell.model.name}: training to step {step:,}", done, step)
                    epoch, within = cell.epoch_of(done)
                    count = min(block, step - done, cell.epoch_steps[epoch] - within)
                    answer = worker.ask(Train(count), self._timeout)
                    assert isinstance(answer, Block)
                    done += count
                    block = max(1, min(2 * block, round(BLOCK_SECONDS * count / max(answer.seconds, 1e-9))))
                probed = scratch / f"probed-{step}.npz"
                worker.ask(Probe(0, str(probed)), self._timeout)
                found = load_probed(probed)
                path = self._files.scratch / f"parameters-{step}.npz"
                inputs.save_arrays(
                    path,
                    {name: _float32(_named(found, f"parameter/{name}")) for name in cell.model.parameter_shapes},
                )
                yield step, path

    def _point(self, cell: Cell, step: int, batches: int, parameters: Path) -> NoiseScale:
        empty = expected(cell, step, batches)
        try:
            losses, gradients = zip(*self._gradients(cell, step, batches, parameters), strict=True)
            estimate = noise_scale.estimate(gradients, BATCH_SIZE)
        except CellError as error:
            return replace(empty, problem=str(error), created=now())
        except ValueError as error:
            return replace(empty, problem=f"{error}: training has diverged", created=now())
        found = estimate.noise_scale is not None
        missing = "" if found else f"not measurable with {batches} batches: more are needed"
        loss = math.fsum(losses) / len(losses)
        return replace(empty, estimate=estimate, loss=loss, problem=missing, created=now())

    def _gradients(self, cell: Cell, step: int, batches: int, parameters: Path) -> Iterator[tuple[float, NDArray[Any]]]:
        """The loss and gradient (P,) of each batch, in the type that the target computes in. Raises CellError."""
        images, labels = (
            np.load(self._files.dataset / f"train_{part}.npy", mmap_mode="r")[: cell.dataset.train_examples]
            for part in ("images", "labels")
        )
        point = inputs.load_arrays(parameters)
        for number in range(batches):
            self._watch(f"{cell.model.name}, step {step:,}: gradients of batches", number, batches)
            rows, seed = draw(cell, number)
            probe = _one_batch(cell, images[rows], labels[rows], point, seed)
            with ProbeFolder(self._files.scratch / "batch", probe) as folder:
                output = folder.path / "probed.npz"
                request = replace(folder.request, programs=str(self._files.programs or ""))
                with opened(self._give(), request, self._timeout) as (worker, _):
                    worker.ask(Probe(0, str(output)), self._timeout)
                found = load_probed(output)
            own = [_named(found, f"gradient/{name}").ravel() for name in cell.model.parameter_shapes]
            yield float(_named(found, "loss")), np.concatenate(own)


def draw(cell: Cell, number: int) -> tuple[NDArray[np.int64], int]:
    """The examples of a batch (BATCH_SIZE,), and the seed of its dropout.

    Without dropout the seed is the work's own: compiled programs may hold it, and are then found again.
    """
    generator = np.random.default_rng([cell.training.seed, _STREAM, number])
    rows = generator.integers(0, cell.dataset.train_examples, BATCH_SIZE)
    return rows, int(generator.integers(_LARGEST_SEED)) if dropout_rates(cell.model) else cell.training.seed


def _one_batch(
    cell: Cell, images: NDArray[Any], labels: NDArray[Any], parameters: dict[str, NDArray[Any]], seed: int
) -> ProbeCell:
    dataset = Dataset("batch", "", len(images), 1, cell.dataset.image_shape, cell.dataset.classes)
    training = TrainingSpec(len(images), optimizer=OptimizerSpec("sgd"), seed=seed)
    return ProbeCell(
        cell=Cell(cell.model, training, dataset, Inputs("", ""), cell.target),
        images=images,
        labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        parameters=parameters,
        order=np.arange(len(images), dtype=np.int32)[None],
    )


def _named(found: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in found:
        raise CellError(f"the worker's probe has no {name}")
    return found[name]


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """As parameters travel; those of a training that has diverged become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)
