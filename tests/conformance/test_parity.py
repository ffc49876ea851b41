"""Every lane of every target does the float64 reference's work: models, optimizers, and layers in unusual forms."""

from __future__ import annotations

from functools import partial

import pytest

from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ModelSpec,
)
from harness.core.training import OPTIMIZERS, OptimizerSpec
from harness.plan import models

from .conftest import Bench, paired

SMALLEST_MODEL = "lenet5"

UNUSUAL = ModelSpec(
    "unusual",
    (11, 9, 2),
    (
        Conv2D(5, (4, 4), strides=(2, 1), padding="same", activation="relu"),
        MaxPool((3, 2), strides=(2, 2), padding="same"),
        Conv2D(6, (2, 3), padding="valid", activation="tanh", bias=False),
        AveragePool((2, 2), strides=(1, 1), padding="same"),
        BatchNorm(momentum=0.7, epsilon=1e-2),
        Activation("sigmoid"),
        Flatten(),
        Dense(12, activation="sigmoid"),
        BatchNorm(),
        Dropout(0.4),
        Dense(5, bias=False),
    ),
)
POOLED = ModelSpec(
    "pooled",
    (8, 8, 3),
    (
        Conv2D(4, (3, 3), strides=(1, 2), padding="same", activation="linear"),
        BatchNorm(),
        Activation("relu"),
        AveragePool((3, 3), strides=(2, 2), padding="same"),
        MaxPool((2, 2)),
        GlobalAveragePool(),
        Dense(3),
    ),
)


PAIRS = paired((SMALLEST_MODEL, *sorted(set(models.names()) - {SMALLEST_MODEL})), OPTIMIZERS)


@pytest.mark.parametrize(("name", "optimizer"), PAIRS)
def test_every_built_in_model_and_every_optimizer_matches_the_reference(
    bench: Bench, lane: str, name: str, optimizer: str
) -> None:
    """Each once: an optimizer sees parameters and their gradients only, whatever layers they are of."""
    _assert_proven(bench, lane, models.load(name), OptimizerSpec(optimizer))


@pytest.mark.parametrize("model", [UNUSUAL, POOLED], ids=lambda model: model.name)
def test_layers_in_unusual_forms_match_the_reference(bench: Bench, lane: str, model: ModelSpec) -> None:
    _assert_proven(bench, lane, model, OptimizerSpec("nesterov", momentum=0.8))


def test_images_fed_from_the_host_train_the_same_as_resident_ones(bench: Bench, lane: str) -> None:
    if lane.endswith(":fit"):
        pytest.skip("fit always feeds from the host; the other tests cover it")
    target = bench.target(f"{lane}@input=host")
    worker = partial(bench.hosts.worker, target)
    proof = bench.verifier.proof(target, models.load(SMALLEST_MODEL), OptimizerSpec(), "float32", worker, fresh=True)
    assert proof.passed, proof.reason


def _assert_proven(bench: Bench, lane: str, model: ModelSpec, optimizer: OptimizerSpec) -> None:
    proof = bench.verifier.proof(
        bench.target(lane), model, optimizer, "float32", lambda: bench.worker(lane), fresh=True
    )
    assert proof.passed, proof.reason
