"""Knobs change how fast a backend is, and nothing that it computes: bit by bit where the arithmetic is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.core.cell import Cell, Dataset, Inputs
from harness.core.errors import Unsupported
from harness.core.messages import Block, Probe, Train
from harness.core.model import Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.plan import inputs, models
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder, load_probed, opened

from .conftest import TIMEOUT, Bench

BATCH_SIZE, STEPS = 16, 8

ODD = ModelSpec(
    "odd",
    (13, 11, 2),
    (
        Conv2D(5, (4, 3), strides=(2, 1), padding="same"),
        MaxPool((2, 3)),  # the last column is in no window
        Conv2D(6, (2, 2), strides=(1, 2), activation="relu"),
        MaxPool((2, 2), strides=(1, 1), padding="same"),  # windows overlap: JAX's own gradient
        Flatten(),
        Dropout(0.3),
        Dense(4),
    ),
)
FORMS = ["@pool_gradient=first_maximum", "@convolution_gradient=canonical"]


@pytest.mark.parametrize("binary", [False, True], ids=["images", "ties"])
@pytest.mark.parametrize("label", ["jax-cpu:jit"], scope="session")
def test_the_tuned_target_learns_what_the_installed_one_does_bit_by_bit(
    bench: Bench, tmp_path: Path, label: str, binary: bool
) -> None:
    """Binary images through equal kernels have ties in nearly every window."""
    model = models.load("mnist-cnn")
    losses, installed = trained(bench, tmp_path, label, model, binary)
    tuned_losses, tuned = trained(bench, tmp_path, label.replace("jax-cpu", "jax-cpu-tuned"), model, binary)
    assert tuned_losses == losses
    for name, array in installed.items():
        np.testing.assert_array_equal(tuned[name], array, err_msg=name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", ["jax-cpu:jit"], scope="session")
def test_every_form_is_right_for_odd_shapes(bench: Bench, tmp_path: Path, label: str, form: str) -> None:
    losses, installed = trained(bench, tmp_path, label, ODD, False)
    other_losses, other = trained(bench, tmp_path, label + form, ODD, False)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-6)
    for name, array in installed.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-5, atol=1e-6 * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("label", ["jax-cpu-tuned:jit"], scope="session")
def test_the_tuned_forms_are_proven_in_mixed_precision(bench: Bench, label: str, precision: str) -> None:
    optimizer, model = OptimizerSpec("momentum"), models.load("mnist-cnn")
    proof = bench.verifier.proof(bench.target(label), model, optimizer, precision, lambda: bench.worker(label))
    assert proof.passed, proof.reason


@pytest.mark.parametrize("label", ["jax-cpu:jit"], scope="session")
def test_an_option_that_the_backend_does_not_have_is_refused_in_a_line(
    bench: Bench, tmp_path: Path, label: str
) -> None:
    probe = cell_of(bench, label, ODD, False)
    target = replace(probe.cell.target, options=(("speed", "high"),))
    asked = replace(probe, cell=replace(probe.cell, target=target))
    with ProbeFolder(tmp_path / "probe", asked) as files, pytest.raises(Unsupported, match="unknown key 'speed'"):
        bench.worker(label).open(files.request, TIMEOUT)


def trained(
    bench: Bench, folder: Path, label: str, model: ModelSpec, binary: bool
) -> tuple[list[float], dict[str, NDArray[Any]]]:
    """Losses of the steps, and the parameters after them."""
    probe = cell_of(bench, label, model, binary)
    with ProbeFolder(folder / "probe", probe) as files:
        output = files.path / "probed.npz"
        with opened(bench.worker(label), files.request, TIMEOUT) as (worker, _):
            block = worker.ask(Train(STEPS), TIMEOUT)
            assert isinstance(block, Block)
            worker.ask(Probe(0, str(output)), TIMEOUT)
        found = load_probed(output)
    return block.losses, {name: array for name, array in found.items() if name.startswith("parameter/")}


def cell_of(bench: Bench, label: str, model: ModelSpec, binary: bool) -> ProbeCell:
    generator, examples = np.random.default_rng(23), BATCH_SIZE * STEPS
    images = generator.random((examples, *model.input_shape), dtype=np.float32)
    parameters = inputs.draw_parameters(model, seed=0)
    if binary:
        images = np.round(images)
        parameters = {
            name: np.round(8 * array) / 8 if name.startswith("01_conv2d") else array
            for name, array in parameters.items()
        }
    labels = generator.integers(0, model.classes, examples).astype(np.int32)
    dataset = Dataset("probe", "", examples, examples, model.input_shape, model.classes)
    training = TrainingSpec(batch_size=BATCH_SIZE, optimizer=OptimizerSpec("momentum"), seed=3)
    return ProbeCell(
        cell=Cell(model, training, dataset, Inputs("", ""), bench.target(label)),
        images=images,
        labels=labels,
        test_images=images,
        test_labels=labels,
        parameters=parameters,
        order=generator.permutation(examples).astype(np.int32)[None],
    )
