"""Whether the operations of a training step have a kernel on the device, checked without the device.

DirectML's plugin registers its kernels wherever it is loaded, with or without an adapter. Its cells are opened on the
processor here, and the operations of their steps looked up among the kernels of its kind of device, ``GPU``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness.core.cell import Target
from harness.core.messages import Placed
from harness.core.training import OPTIMIZERS, LearningRate, OptimizerSpec, TrainingSpec
from harness.plan import inputs, models
from harness.proof import device as device_proof
from harness.proof import probes
from harness.proof.probing import placement_of

from .conftest import TIMEOUT, Bench, paired

DIRECTML = "tensorflow-directml"
LANES = tuple(f"{DIRECTML}:{form}" for form in ("graph", "graph@input=host", "fit"))
GPU = "GPU"
FEW = paired(models.names(), OPTIMIZERS)
EVERY_PAIR = [
    pytest.param(*pair, marks=[] if pair in FEW else pytest.mark.long) for pair in product(models.names(), OPTIMIZERS)
]
"""Kernels are asked for by operation and type: every model and every optimizer once shows them, all pairs are for long
runs."""
COUNTED, RECOMPILED = "StatelessRandomUniformV2", "RandomUniform"
"""The operations that draw dropout's masks: DirectML compiles the second anew at each call."""
IN_HOST_MEMORY = "Const (dtype=string); Sum (T=int32, Tidx=int32)"
"""A learning rate that changes is chosen by Keras's schedule in every step of ``fit``, which checks that exactly one
piece of it holds: these belong to the check, and handle none of the network's numbers."""


def on_processor(bench: Bench, label: str) -> Target:
    """A target of DirectML's with its cells opened on the processor."""
    definition = bench.definitions[DIRECTML]
    if definition.unavailable_here:
        pytest.skip(definition.unavailable_here)
    return replace(bench.target(label), accelerator="cpu")


def placed(
    bench: Bench,
    folder: Path,
    target: Target,
    model: str,
    optimizer: str | OptimizerSpec,
    precision: str = "float32",
    changes: bool = True,
    like: TrainingSpec | None = None,
) -> Placed:
    """A step of a built-in model; ``changes``: whether the learning rate does, in the course of the training."""
    spec = models.load(model)
    rule = OptimizerSpec(optimizer) if isinstance(optimizer, str) else optimizer
    probe = probes.placement_probe(spec, rule, precision, target, inputs.draw_parameters(spec, seed=0), like)
    if not changes:
        probe = with_constant_rate(probe)
    return placement_of(probe, bench.hosts.worker(target), folder / "probe", TIMEOUT, GPU)


def with_constant_rate(probe: probes.ProbeCell) -> probes.ProbeCell:
    training = replace(probe.cell.training, learning_rate=LearningRate(0.01))
    return replace(probe, cell=replace(probe.cell, training=training))


def names(found: Placed) -> Counter[str]:
    counts: Counter[str] = Counter()
    for operation in found.traced:
        counts[operation.name] += operation.count
    return counts


def plain(name: str) -> str:
    """TensorFlow's own name of what oneDNN does on processors with AVX-512, as of ``_MklNativeMatMul``."""
    return re.sub("^_Mkl(Native)?(Fused)?", "", name)


def test_every_mode_of_directml_is_checked(bench: Bench) -> None:
    modes = {lane.partition(":")[2].partition("@")[0] for lane in LANES}
    assert modes == set(bench.definitions[DIRECTML].modes)


@pytest.mark.parametrize(("model", "optimizer"), EVERY_PAIR)
@pytest.mark.parametrize("label", LANES)
def test_directml_has_a_kernel_for_every_operation_of_a_step(
    bench: Bench, tmp_path: Path, label: str, model: str, optimizer: str
) -> None:
    found = placed(bench, tmp_path, on_processor(bench, label), model, optimizer)
    assert found.tells
    assert names(found)["Conv2D"] > 0
    lacking = device_proof.without_kernel(found)
    assert device_proof.named([one for one in lacking if device_proof.is_work(one)]) == ""
    assert device_proof.named(lacking) == (IN_HOST_MEMORY if label.endswith(":fit") else "")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("label", [f"{DIRECTML}:fit"])
def test_a_fit_whose_learning_rate_never_changes_leaves_nothing_to_the_processor(
    bench: Bench, tmp_path: Path, label: str, optimizer: str
) -> None:
    found = placed(bench, tmp_path, on_processor(bench, label), "mnist-cnn", optimizer, changes=False)
    assert device_proof.named(device_proof.without_kernel(found)) == ""


@pytest.mark.parametrize(
    ("label", "decay"),
    [(LANES[0], {"weight_decay": 0.1}), (LANES[0], {"weight_decay": 0.1, "weight_decay_form": "l2"}), (LANES[2], {})],
)
def test_directml_has_them_for_what_goes_with_an_optimizer(
    bench: Bench, tmp_path: Path, label: str, decay: dict[str, Any]
) -> None:
    optimizer = OptimizerSpec("momentum", clip_norm=1.0, **decay)
    like = TrainingSpec(32, learning_rate=LearningRate(warmup_steps=3, decay="cosine"), label_smoothing=0.1)
    found = placed(bench, tmp_path, on_processor(bench, label), "lenet5", optimizer, like=like)
    assert found.tells
    assert device_proof.named(device_proof.without_kernel(found)) == (IN_HOST_MEMORY if label.endswith(":fit") else "")


@pytest.mark.parametrize("label", LANES)
def test_directml_has_them_for_half_precision_too(bench: Bench, tmp_path: Path, label: str) -> None:
    target = on_processor(bench, label)
    found = placed(bench, tmp_path, target, "mnist-cnn", "adam", "mixed_float16")
    assert any("T=half" in operation.types for operation in found.traced)
    assert device_proof.named(device_proof.without_kernel(found)) == (IN_HOST_MEMORY if label.endswith(":fit") else "")


@pytest.mark.parametrize(
    ("label", "used", "avoided"),
    [(f"{DIRECTML}:graph", COUNTED, RECOMPILED), (f"{DIRECTML}:fit", RECOMPILED, COUNTED)],
)
def test_the_dropout_is_the_one_that_the_record_names(
    bench: Bench, tmp_path: Path, label: str, used: str, avoided: str
) -> None:
    """``dropout`` among the device facts: "stateless" is counted, "stateful" drawn by Keras 2's own operation."""
    counts = names(placed(bench, tmp_path, on_processor(bench, label), "mnist-cnn", "sgd"))
    assert (counts[used], counts[avoided]) == (2, 0)


@pytest.mark.parametrize("label", ["tensorflow210-cpu:graph"])
def test_a_step_without_kernels_is_found_out(bench: Bench, tmp_path: Path, label: str) -> None:
    """The same step in the environment without the plugin: what computes has no kernel for a GPU there."""
    found = placed(bench, tmp_path, bench.target(label), "mnist-cnn", "sgd")
    lacking = {operation.name for operation in device_proof.without_kernel(found)}
    assert {"Conv2D", "MatMul", "ResourceApplyGradientDescent", COUNTED} <= lacking
    assert not {"Const", "NoOp", "ReadVariableOp", "Identity"} & lacking


@pytest.mark.parametrize("target", ["tensorflow-cpu", "tensorflow210-cpu"])
@pytest.mark.parametrize("mode", ["graph", "fit"])
def test_the_runtime_tells_where_each_operation_ran(bench: Bench, tmp_path: Path, target: str, mode: str) -> None:
    found = placed(bench, tmp_path, bench.target(f"{target}:{mode}"), "mnist-cnn", "momentum")
    assert {operation.device for operation in found.ran} == {"CPU:0"}
    ran = {plain(operation.name) for operation in found.ran}
    assert {"MatMul", "MaxPoolGrad", "SparseSoftmaxCrossEntropyWithLogits"} <= ran
    on_gpu = replace(bench.target(f"{target}:{mode}"), accelerator="cuda")
    lost = {plain(operation.name) for operation in device_proof.fallbacks(on_gpu, found)}
    assert "MatMul" in lost
    assert "IteratorGetNext" not in lost


@pytest.mark.parametrize("label", ["tensorflow-cpu:xla", "jax-cpu"])
def test_a_step_that_is_one_program_has_no_operations_to_tell_of(bench: Bench, tmp_path: Path, label: str) -> None:
    found = placed(bench, tmp_path, bench.target(label), "lenet5", "sgd")
    assert (found.traced, found.ran) == ([], [])
    assert found.tells == label.startswith("tensorflow")
