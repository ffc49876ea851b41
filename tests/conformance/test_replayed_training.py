"""Real targets train blocks on images with a background; the reference replays them within what rounding may do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.cell import Cell, Dataset, Inputs
from harness.core.messages import Block, Masked, Masks, Open, Replay, Snapshot, Train
from harness.core.model import ModelSpec
from harness.core.training import OPTIMIZERS, LearningRate, OptimizerSpec, TrainingSpec
from harness.plan import inputs, models
from harness.proof.parity import Quantity
from harness.proof.probes import dropout_rates
from harness.proof.rounding import compare
from harness.proof.tolerances import UNIT_ROUNDOFF

from .conftest import TIMEOUT, Bench, paired, spread
from .test_parity import POOLED, UNUSUAL

FLOAT32 = 2.0**-24
BATCHES = 3


def images_of(model: ModelSpec, count: int) -> tuple[Any, Any]:
    """Strokes on an empty background, and labels that they tell something of."""
    generator = np.random.default_rng(11)
    height, width, channels = model.input_shape
    images = np.zeros((count, height, width, channels), np.uint8)
    labels = generator.integers(0, model.classes, count).astype(np.int32)
    for image, label in zip(images, labels, strict=True):
        row, column = generator.integers(0, max(height // 2, 1)), int(label) * width // (2 * model.classes)
        image[row : row + height // 3, column : column + width // 4] = generator.integers(1, 256, channels)
    return images, labels


class Trained:
    """A cell trained by a target in blocks of the given lengths, from its first step, its state read between them."""

    def __init__(
        self, bench: Bench, lane: str, model: ModelSpec, training: TrainingSpec, blocks: tuple[int, ...], folder: Path
    ) -> None:
        examples = BATCHES * training.batch_size
        images, labels = images_of(model, examples)
        for part in ("train", "test"):
            inputs.save_array(folder / f"{part}_images.npy", images)
            inputs.save_array(folder / f"{part}_labels.npy", labels)
        inputs.save_arrays(folder / "parameters.npz", inputs.draw_parameters(model, 0))
        inputs.save_array(folder / "order.npy", inputs.draw_order(examples, training.epochs, 0))
        dataset = Dataset("strokes", "", examples, examples, model.input_shape, model.classes)
        self.cell = Cell(model, training, dataset, Inputs("", ""), bench.target(lane))
        self._folder, self._bench, self.blocks = folder, bench, blocks
        self.losses: list[list[float]] = []
        worker = bench.worker(lane)
        worker.open(self._opening(self.cell), TIMEOUT)
        for number, steps in enumerate((*blocks, 0)):
            worker.ask(Snapshot(str(folder / f"{number}.npz")), TIMEOUT)
            if steps:
                block = worker.ask(Train(steps), TIMEOUT)
                assert isinstance(block, Block)
                self.losses.append(block.losses)
        told = worker.ask(Masks(0, sum(blocks), str(folder / "masks.npz")), TIMEOUT)
        assert isinstance(told, Masked)
        self._masks = str(folder / "masks.npz") if told.tells else ""
        worker.finish(TIMEOUT)
        if not told.tells and dropout_rates(model):
            assert lane in WITHOUT_MASKS
            pytest.skip("this lane cannot show what its dropout kept")

    def compared(self) -> list[tuple[Quantity, ...]]:
        """Each block against the reference, from the target's own state before it."""
        target, reference = self._bench.reference()
        training = replace(self.cell.training, precision="float32")
        reference.open(self._opening(replace(self.cell, target=target, training=training)), TIMEOUT)
        found, first = [], 0
        for number, (steps, losses) in enumerate(zip(self.blocks, self.losses, strict=True)):
            before, output = (str(self._folder / name) for name in (f"{number}.npz", "replayed.npz"))
            roundoff = UNIT_ROUNDOFF.get(self.cell.training.precision, FLOAT32)
            reference.ask(Replay(before, first, steps, output, roundoff, self._masks), TIMEOUT)
            after = inputs.load_arrays(self._folder / f"{number + 1}.npz") | {"losses": np.asarray(losses)}
            found.append(compare(inputs.load_arrays(Path(output)), after))
            first += steps
        reference.finish(TIMEOUT)
        return found

    def _opening(self, cell: Cell) -> Open:
        named = {name: str(self._folder / name) for name in ("parameters.npz", "order.npy")}
        return Open(cell, str(self._folder), named["parameters.npz"], named["order.npy"], str(self._folder / "scratch"))


def training(optimizer: str, batch_size: int, precision: str = "float32") -> TrainingSpec:
    """Two epochs, the rate dropping between them."""
    rate = LearningRate(0.01, drop_epochs=(1,), factor=0.3)
    return TrainingSpec(batch_size, 2, OptimizerSpec(optimizer), rate, precision=precision)


WITHOUT_MASKS = ("tensorflow210-cpu:fit",)
"""Lanes whose framework draws masks that nobody can draw again."""

CASES = [(*pair, (33, 1)[number % 2]) for number, pair in enumerate(paired(models.names(), OPTIMIZERS))]
"""Every model, every optimizer and both batch sizes, in as few cases as that takes."""


@pytest.mark.parametrize(("target", "name", "optimizer", "batch_size"), spread(CASES))
def test_training_stays_within_what_rounding_may_do(
    bench: Bench, target: str, name: str, optimizer: str, batch_size: int, tmp_path: Path
) -> None:
    _assert_within(Trained(bench, target, models.load(name), training(optimizer, batch_size), (1, 1, 1, 3), tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("target", ["tensorflow-cpu:graph", "jax-cpu:jit"])
def test_a_large_batch_stays_within_it(bench: Bench, target: str, tmp_path: Path) -> None:
    _assert_within(Trained(bench, target, models.load("lenet5"), training("adam", 512), (1, 1), tmp_path))


@pytest.mark.parametrize(
    ("target", "model"), spread([(UNUSUAL,), (POOLED,)]), ids=lambda one: getattr(one, "name", one)
)
def test_layers_in_unusual_forms_stay_within_it(bench: Bench, target: str, model: ModelSpec, tmp_path: Path) -> None:
    _assert_within(Trained(bench, target, model, training("nesterov", 16), (1, 1, 4), tmp_path))


def _assert_within(trained: Trained) -> None:
    wrong = [
        f"block {number}: {one.fault}"
        for number, quantities in enumerate(trained.compared())
        for one in quantities
        if not one.passed
    ]
    assert not wrong, wrong
