"""The parity check finds faults: the reference with one planted mistake each fails it, in the right quantity."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.core.cell import Target
from harness.core.model import AveragePool, Conv2D, Dense, Flatten, ModelSpec
from harness.core.training import OptimizerSpec
from harness.plan import models
from harness.workers import Worker

from . import faulty_backends
from .conftest import Bench

SAME = ModelSpec(
    "same", (9, 9, 1), (Conv2D(3, (4, 4), padding="same"), AveragePool((3, 3), padding="same"), Flatten(), Dense(4))
)
POOLED_SAME = ModelSpec("pooled-same", (9, 9, 1), (AveragePool((2, 2), padding="same"), Flatten(), Dense(4)))

FAULTS = {
    "RateOutsideTheVelocity": ("lenet5", "momentum", "parameters"),
    "EpsilonOfTheOtherForm": ("mnist-cnn", "adam", "parameters"),
    "NesterovWithoutLookingAhead": ("lenet5", "nesterov", "parameters"),
    "RateDropsAStepLate": ("lenet5", "sgd", "parameters"),
    "UnbiasedMovingVariance": ("deep-bn", "sgd", "statistics"),
    "AnotherEpsilonInBatchNorm": ("deep-bn", "sgd", "logits"),
    "PaddingOnTheOtherSide": (SAME, "sgd", "logits"),
    "AverageCountsPadding": (POOLED_SAME, "sgd", "logits"),
    "GradientToTheLastTiedMaximum": ("mnist-cnn", "sgd", "tied maxima"),
    "ChannelsFlattenFirst": ("mnist-cnn", "sgd", "logits"),
    "LossSummedOverTheBatch": ("lenet5", "sgd", "gradients"),
    "OrderShiftedByAStep": ("lenet5", "sgd", "losses"),
    "ProductsInTensorFloat32": ("lenet5", "sgd", "logits"),
    "EvaluationCountsThePadding": ("lenet5", "sgd", "test_accuracy"),
    "DropoutNotScaled": ("mnist-cnn", "sgd", "dropout scale"),
    "DropoutKeepsTheRate": ("mnist-cnn", "sgd", "dropout share"),
    "DropoutOneMaskForTheBatch": ("mnist-cnn", "sgd", "dropout repeats"),
    "DropoutFrozenMask": ("mnist-cnn", "sgd", "dropout same step"),
    "DropoutInEvaluation": ("mnist-cnn", "sgd", "dropout in evaluation"),
}


def test_every_planted_fault_is_tried() -> None:
    defined = {
        name
        for name, cls in vars(faulty_backends).items()
        if isinstance(cls, type) and cls.__module__.endswith("faulty_backends")
    }
    assert {name for name in defined if not name.startswith("_")} == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_check_in_its_quantity(bench: Bench, tmp_path: Path, fault: str) -> None:
    model, optimizer, quantity = FAULTS[fault]
    spec = model if isinstance(model, ModelSpec) else models.load(model)
    with bench.planted(tmp_path, f"faulty_backends:{fault}") as worker:
        proof = bench.verifier.proof(
            _target(fault), spec, OptimizerSpec(optimizer), "float32", lambda: worker, fresh=True
        )
    assert not proof.problem, proof.problem
    assert not proof.passed
    assert quantity in {failed.name for failed in proof.quantities if not failed.passed}, proof.reason


def test_the_reference_without_a_fault_passes(bench: Bench, tmp_path: Path) -> None:
    with bench.planted(tmp_path, "reference") as worker:
        proof = bench.verifier.proof(
            _target("none"), models.load("mnist-cnn"), OptimizerSpec(), "float32", lambda: worker, fresh=True
        )
    assert proof.passed, proof.reason


def test_a_host_that_ends_with_each_cell_is_proven_as_well(bench: Bench, tmp_path: Path) -> None:
    """Where a host cannot fork, every probe needs another one."""
    started: list[Worker] = []

    def give() -> Worker:
        if not started or not started[-1].alive:
            started.append(bench.planted(tmp_path, "reference", fork=False))
        return started[-1]

    try:
        proof = bench.verifier.proof(
            _target("not-forked"), models.load("mnist-cnn"), OptimizerSpec(), "float32", give, fresh=True
        )
    finally:
        for worker in started:
            worker.stop()
    assert proof.passed, proof.reason
    assert len(started) == 4  # training, ties and two dropout rates


def _target(name: str) -> Target:
    return Target(name, name, "cpu", "numpy", "resident", f"python:{sys.executable}")
