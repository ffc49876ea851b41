"""``harness noise-scale`` on softmax regression, whose gradients of single examples NumPy gives: the truth is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.runs import noise_scales
from tests.process.small_sweep import PATIENCE, Sweeper

KERNEL, BIAS = "02_dense/kernel", "02_dense/bias"
RATE = 0.01
OWN = ("--dataset", "small.npz")

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, sweep_cache: Path) -> Sweeper:
    """With a finished run of the targets "plain", which is the reference, and "scripted"."""
    made = Sweeper(tmp_path_factory.mktemp("noise-scale"), sweep_cache, uuid.uuid4().hex)
    made.add("plain", "reference", OPENBLAS_NUM_THREADS="1")
    done = made.run(target="plain,scripted", batch_sizes=[4, 8])
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def swept(finished: Sweeper) -> Iterator[Sweeper]:
    """The same for each test: afterwards its dataset is there, and nothing that a test measured."""
    dataset = (finished.folder / "small.npz").read_bytes()
    yield finished
    (finished.folder / "small.npz").write_bytes(dataset)
    finished.script()
    shutil.rmtree(finished.folder / "run" / "noise-scale", ignore_errors=True)


def measure(sweeper: Sweeper, *flags: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("noise-scale", "run", *flags, patience=2 * PATIENCE)


def examples(folder: Path) -> tuple[Floats, NDArray[np.int64]]:
    """Rows of pixels with a one for the bias, and labels."""
    with np.load(folder / "small.npz") as arrays:
        pixels = arrays["x_train"].reshape(64, 16) / 255
        return np.hstack([pixels, np.ones((64, 1))]), arrays["y_train"].astype(np.int64)


def gradients(weights: Floats, rows: Floats, labels: NDArray[np.int64]) -> Floats:
    """Of each example (N, 17, 3): the outer product of what goes in and the probabilities less the truth."""
    exponentials = np.exp(rows @ weights)
    errors = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    return rows[:, :, None] * errors[:, None, :]


def trained(sweeper: Sweeper, steps: int) -> Floats:
    """Weights (17, 3) after so many steps of plain SGD with batch size 4, on the run's own inputs."""
    inputs = sweeper.folder / "run" / "inputs"
    (parameters,), orders = inputs.glob("parameters-*.npz"), list(inputs.glob("order-*.npy"))
    with np.load(parameters) as initial:
        weights = np.vstack([initial[KERNEL], initial[BIAS][None]]).astype(np.float64)
    rows, labels = examples(sweeper.folder)
    for batch in np.load(orders[0]).reshape(-1, 4)[:steps]:
        weights = weights - RATE * gradients(weights, rows[batch], labels[batch]).mean(axis=0)
    return weights


def truth(sweeper: Sweeper, step: int) -> tuple[float, float]:
    """tr(Sigma) and |G|^2 over all training examples, from the covariance of their gradients."""
    each = gradients(trained(sweeper, step), *examples(sweeper.folder)).reshape(64, -1)
    return float(np.trace(np.cov(each.T, ddof=0))), float(np.sum(each.mean(axis=0) ** 2))


def test_the_noise_scale_of_softmax_regression_is_that_of_its_examples_and_is_measured_once(swept: Sweeper) -> None:
    flags = (*OWN, "--target", "plain", "--batches", "40")
    done = measure(swept, *flags, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["step"] for one in found] == [0, 16, 32], "the ends of both epochs"
    for one in found:
        variance, square = truth(swept, one["step"])
        told = one["estimate"]
        assert told["variance"] == pytest.approx(variance, rel=0.1)
        assert told["low"] <= variance / square <= told["high"]
        assert told["high"] < 2 * told["low"]
        assert told["noise_scale"] == pytest.approx(told["variance"] / told["gradient_square"])
    kept = noise_scales.stored(swept.folder / "run")
    assert [one.id for one in kept] == [one["id"] for one in found]
    assert {noise_scales.work_of(record.cell) for record in swept.kept.records()} == {one.work for one in kept}

    (swept.folder / "small.npz").rename(swept.folder / "gone.npz")
    again = measure(swept, "--target", "plain", "--batches", "40", "--json")
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
    table = measure(swept, "--target", "plain", "--batches", "40", "--steps", "0").stdout
    assert "small, small, sgd at learning rate 0.01" in table
    assert f"{found[0]['estimate']['noise_scale']:.2g}" in table
    assert "40 batches of 128 examples at each point, on plain:numpy" in table


@pytest.mark.parametrize("fork", ["--fork", "--no-fork"])
def test_what_fails_is_said_and_not_kept_and_the_rest_is(swept: Sweeper, fork: str) -> None:
    swept.script((4, "train", 2, "segfault"))
    done = measure(swept, *OWN, "--target", "scripted", "--batches", "8", "--steps", "0,1,20", fork)
    assert done.returncode == 1
    kept = noise_scales.stored(swept.folder / "run")
    assert [(one.target, one.step) for one in kept] == [("scripted:numpy", 0), ("scripted:numpy", 1)]
    problem = "training on the way there failed: worker killed by SIGSEGV during train"
    assert f"FAILED small, small, sgd at learning rate 0.01, step 20: {problem}" in done.stdout
    swept.script()
    done = measure(swept, *OWN, "--target", "scripted", "--batches", "8", "--steps", "0,1,20", fork)
    assert done.returncode == 0, done.stderr
    again = noise_scales.stored(swept.folder / "run")
    assert [one.step for one in again] == [0, 1, 20]
    assert again[:2] == kept

    swept.script((128, "session", 1, "unsupported"))
    done = measure(swept, *OWN, "--target", "scripted", "--batches", "9", "--steps", "0", fork)
    assert done.returncode == 1
    assert "FAILED small, small, sgd at learning rate 0.01, step 0: the fake cannot do this" in done.stdout


def test_a_training_that_diverges_has_no_noise_scale(sweeper: Sweeper) -> None:
    sweeper.add("plain", "reference")
    sweeper.run("--learning-rate", "1e40", batch_sizes=[4], target="plain")
    done = measure(sweeper, *OWN, "--batches", "8", "--steps", "0,32", "--json")
    assert done.returncode == 1
    first, last = json.loads(done.stdout)
    assert first["estimate"]["noise_scale"] > 0
    assert last["estimate"] is None
    assert last["problem"] == "the gradients are not finite: training has diverged"
    assert "Warning" not in done.stderr


WRONG = [
    (("--batches", "7"), "--batches: found '7', allowed: a whole number from 8 to 4096"),
    (("--batches", "many"), "--batches: found 'many', allowed: a whole number"),
    (("--steps", "0,33"), "--steps: found '33', allowed: whole numbers from 0 to 32, where the training of small"),
    (("--steps", "-1"), "--steps: found '-1', allowed: whole numbers"),
    (("--target", "nope"), "no target is called 'nope'"),
    ((), "was planned with 'small', a file of your own; name it: --dataset FILE.npz"),
    (("--dataset", "other.npz"), "--dataset: 'other.npz' is not what"),
    (("--dataset", "nofile.npz"), "nofile.npz: no such file"),
]


def test_a_wrong_call_gets_one_line_and_measures_nothing(swept: Sweeper, refused: Callable[..., str]) -> None:
    with np.load(swept.folder / "small.npz") as arrays:
        others: dict[str, Any] = {**arrays, "x_train": arrays["x_train"][::-1]}
    np.savez(swept.folder / "other.npz", **others)
    for flags, problem in WRONG:
        assert problem in refused(swept, "noise-scale", "run", *flags)
    assert not (swept.folder / "run" / "noise-scale").exists()
    assert "is not a run folder (it has no plan.json)" in refused(swept, "noise-scale", ".")
