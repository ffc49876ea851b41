"""Is the built-in dataset fit for its purpose? Quick to make, too hard for a linear model, easy enough for the CNN.

Makes the dataset afresh and times it, trains softmax regression in NumPy, and mnist-cnn through
``harness sweep``: three epochs at batch size 32, and one epoch at each of several batch sizes, where
accuracy should visibly fall. Exit status 1 if a bar is missed.

    python benchmarks/digits.py [--target tensorflow-cpu] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness.machine import facts as machine_facts
from harness.plan.datasets import digits
from harness.plan.datasets.arrays import DatasetArrays

MOST_SECONDS = 20.0
MOST_SOFTMAX = 0.95
LEAST_CNN = 0.98
LEAST_FALL = 0.05
"""Bars: seconds to make; accuracies on the test set; fall of accuracy from the smallest to the largest batch."""

EPOCHS, BATCH_SIZE = 3, 32
ONE_EPOCH_BATCH_SIZES = (32, 128, 512, 2048)
LEARNING_RATE, OPTIMIZER = 0.01, "momentum"

SOFTMAX_EPOCHS, SOFTMAX_BATCH_SIZE, SOFTMAX_RATE, SOFTMAX_MOMENTUM = 30, 100, 0.05, 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="tensorflow-cpu", help="what trains the CNN (default: tensorflow-cpu)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()

    started = time.perf_counter()
    arrays = digits.make(lambda done, total: None)
    seconds = time.perf_counter() - started
    softmax = softmax_regression(arrays)
    with tempfile.TemporaryDirectory() as folder:
        three = cnn_accuracies(arguments.target, (BATCH_SIZE,), EPOCHS, Path(folder) / "three-epochs")[BATCH_SIZE]
        one = cnn_accuracies(arguments.target, ONE_EPOCH_BATCH_SIZES, 1, Path(folder) / "one-epoch")
    fall = one[min(one)] - one[max(one)]
    figures: list[dict[str, Any]] = [
        figure("seconds to make", seconds, f"< {MOST_SECONDS:g}", seconds < MOST_SECONDS),
        figure("softmax regression, best test accuracy", softmax, f"< {MOST_SOFTMAX}", softmax < MOST_SOFTMAX),
        figure(f"mnist-cnn, {EPOCHS} epochs, batch {BATCH_SIZE}", three, f"> {LEAST_CNN}", three > LEAST_CNN),
        *(figure(f"mnist-cnn, 1 epoch, batch {size}", accuracy) for size, accuracy in one.items()),
        figure(f"fall from batch {min(one)} to {max(one)}", fall, f">= {LEAST_FALL}", fall >= LEAST_FALL),
        figure(f"bytes are those of version {digits.VERSION}", arrays.sha256(), digits.SHA256[:12] + "...",
               arrays.sha256() == digits.SHA256),
    ]  # fmt: skip
    facts = machine_facts.facts()
    if arguments.json:
        print(json.dumps({"machine": facts, "numpy": np.__version__, "target": arguments.target, "figures": figures}))
    else:
        print(f"{facts['processor']}, {facts['logical_cores']} cores; NumPy {np.__version__}; {arguments.target}")
        for row in figures:
            value = row["value"][:12] + "..." if isinstance(row["value"], str) else f"{row['value']:.4f}"
            print(f"{row['name']:40} {value:>16}  {row['bar']:>16}  {'' if row['met'] else 'MISSED'}".rstrip())
    return 0 if all(row["met"] for row in figures) else 1


def figure(name: str, value: float | str, bar: str = "", met: bool = True) -> dict[str, Any]:
    """One line of the result; without a bar it is there to be seen."""
    return {"name": name, "value": value, "bar": bar, "met": met}


def softmax_regression(arrays: DatasetArrays) -> float:
    """Best test accuracy of any epoch: SGD with momentum, the rate falling evenly to zero."""
    train, test = (
        images.reshape(len(images), -1).astype(np.float32) / 255 for images in (arrays.train_images, arrays.test_images)
    )
    weights = np.zeros((train.shape[1] + 1, digits.CLASSES), np.float32)
    velocity = np.zeros_like(weights)
    train, test = (np.concatenate([part, np.ones((len(part), 1), np.float32)], axis=1) for part in (train, test))
    one_hot = np.eye(digits.CLASSES, dtype=np.float32)[arrays.train_labels]
    generator = np.random.default_rng(0)
    best = 0.0
    for epoch in range(SOFTMAX_EPOCHS):
        rate = SOFTMAX_RATE * (1 - epoch / SOFTMAX_EPOCHS)
        for batch in generator.permutation(len(train)).reshape(-1, SOFTMAX_BATCH_SIZE):
            logits = train[batch] @ weights
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
            gradient = train[batch].T @ (probabilities - one_hot[batch]) / SOFTMAX_BATCH_SIZE
            velocity = SOFTMAX_MOMENTUM * velocity - rate * gradient
            weights += velocity
        accuracy = float(((test @ weights).argmax(axis=1) == arrays.test_labels).mean())
        best = max(best, accuracy)
    return best


def cnn_accuracies(target: str, batch_sizes: tuple[int, ...], epochs: int, run: Path) -> dict[int, float]:
    """Batch size -> final test accuracy of mnist-cnn on all of the dataset, trained by ``harness sweep``."""
    flags = {
        "--target": target,
        "--model": "mnist-cnn",
        "--dataset": "digits",
        "--batch-size": ",".join(str(size) for size in batch_sizes),
        "--epochs": epochs,
        "--optimizer": OPTIMIZER,
        "--learning-rate": LEARNING_RATE,
        "--seed": 0,
        "--train-examples": digits.TRAIN_EXAMPLES,
        "--test-examples": digits.TEST_EXAMPLES,
        "--out": run,
    }
    command = [sys.executable, "-c", "from harness.cli import main; main()", "sweep", "--json"]
    command += [str(part) for pair in flags.items() for part in pair]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"harness sweep ended with status {done.returncode}: {done.stdout[-500:]}")
    return {row["batch_size"]: row["final_accuracy"] for row in json.loads(done.stdout)}


if __name__ == "__main__":
    sys.exit(main())
