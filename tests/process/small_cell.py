"""The smallest cell there is, its files, and how the process tests start workers on the fake backend."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.messages import Open
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.workers import Launch, bundle

HERE = Path(__file__).parent
EXAMPLES, TEST_EXAMPLES, BATCH_SIZE, EPOCHS, CLASSES = 64, 20, 8, 2, 3
RATE = 0.1
KERNEL = "02_dense/kernel"
MARK = "HARNESS_TEST_MARK"
"""A variable by whose value a test finds the processes that it caused."""


@dataclass(frozen=True)
class Place:
    """A run folder with the small cell's files. ``mark`` is in the environment of every worker started here."""

    folder: Path
    mark: str
    env: dict[str, str] = field(default_factory=dict)

    def launch(self, fork: bool = True, backend: str = "fake_backend:FakeBackend", **changes: str) -> Launch:
        """Start the fake backend, with environment variables of its own."""
        return Launch(
            python=Path(sys.executable),
            backend=backend,
            bundle=bundle(self.folder / "bundles"),
            env={MARK: self.mark, **changes},
            scratch=self.folder / "scratch",
            log=self.folder / "worker.log",
            fork=fork,
            extra_path=(HERE,),
        )

    def request(self, *script: tuple[str, int, str], cpus: int = 0) -> Open:
        """Open the small cell, misbehaving as ``script`` says."""
        return Open(
            cell=small_cell(*script, cpus=cpus),
            dataset=str(self.folder),
            parameters=str(self.folder / "parameters.npz"),
            order=str(self.folder / "order.npy"),
            scratch=str(self.folder / "scratch" / "cell"),
        )


def small_cell(*script: tuple[str, int, str], cpus: int = 0) -> Cell:
    """Softmax regression on images of 4x4."""
    return Cell(
        model=ModelSpec("small", (4, 4, 1), (Flatten(), Dense(CLASSES, bias=False))),
        training=TrainingSpec(BATCH_SIZE, EPOCHS, OptimizerSpec("sgd"), LearningRate(RATE)),
        dataset=Dataset("small", "", EXAMPLES, TEST_EXAMPLES, (4, 4, 1), CLASSES),
        inputs=Inputs("", ""),
        target=Target("fake", "fake", "cpu", "numpy", "resident", json.dumps(script), cpus=cpus),
    )


def prepare(folder: Path, mark: str) -> Place:
    """Write the cell's files."""
    generator = np.random.default_rng(0)
    for part, count in (("train", EXAMPLES + 5), ("test", TEST_EXAMPLES + 5)):
        labels = generator.integers(0, CLASSES, count).astype(np.int32)
        images = generator.integers(0, 100, (count, 4, 4, 1)) + 50 * labels[:, None, None, None]
        np.save(folder / f"{part}_images.npy", images.astype(np.uint8))
        np.save(folder / f"{part}_labels.npy", labels)
    np.savez(folder / "parameters.npz", **{KERNEL: np.zeros((16, CLASSES), np.float32)})
    order = np.stack([generator.permutation(EXAMPLES) for _ in range(EPOCHS + 1)]).astype(np.int32)
    np.save(folder / "order.npy", order)
    return Place(folder, mark)
