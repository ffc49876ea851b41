"""Mixed precisions: every lane that offers one is proven in it, or refuses with a reason; and what the proof can tell.

Faults are planted in a reference that rounds as the precision does. Some drown in rounding: they stand in
``UNTOLD``, and the float32 proof of the same adapter is what finds them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.core.cell import Target
from harness.core.model import ModelSpec
from harness.core.training import PRECISIONS, OptimizerSpec
from harness.plan import models
from harness.proof.parity import Proof

from .conftest import Bench
from .test_parity import UNUSUAL
from .test_planted_faults import FAULTS

MIXED = PRECISIONS[1:]
CLASSES = {"mixed_bfloat16": "Bfloat16", "mixed_float16": "Float16"}

TOLD = {
    "mixed_bfloat16": {
        "RateOutsideTheVelocity": "parameter_scale",
        "EpsilonOfTheOtherForm": "parameter_scale",
        "NesterovWithoutLookingAhead": "parameter_scale",
        "RateDropsAStepLate": "parameter_scale",
        "PaddingOnTheOtherSide": "logits",
        "AverageCountsPadding": "logits",
        "GradientToTheLastTiedMaximum": "tied maxima",
        "ChannelsFlattenFirst": "logits",
        "LossSummedOverTheBatch": "gradient_scale",
        "OrderShiftedByAStep": "losses",
        "EvaluationCountsThePadding": "test_accuracy",
        "DropoutNotScaled": "dropout scale",
        "DropoutKeepsTheRate": "dropout share",
        "DropoutOneMaskForTheBatch": "dropout repeats",
        "DropoutFrozenMask": "dropout same step",
        "DropoutInEvaluation": "dropout in evaluation",
    },
    "mixed_float16": {"RateOutsideTheVelocity": "parameter_scale", "LossSummedOverTheBatch": "gradient_scale"},
}
"""Fault -> the quantity that tells it. All in the coarser precision, two in the other."""

UNTOLD = {"UnbiasedMovingVariance", "AnotherEpsilonInBatchNorm", "ProductsInTensorFloat32"}


@pytest.mark.parametrize("precision", MIXED)
def test_a_lane_is_proven_in_every_precision_that_it_offers_and_refuses_the_others(
    bench: Bench, lane: str, precision: str
) -> None:
    proof = bench.verifier.proof(
        bench.target(lane), UNUSUAL, OptimizerSpec("nesterov"), precision, lambda: bench.worker(lane), fresh=True
    )
    able = bench.worker(lane).ready.capabilities
    if precision in able["precisions"]:
        assert proof.passed, proof.reason
    else:
        assert (proof.problem_status, proof.problem) == (
            "unsupported",
            f"precision {precision}: {able['refusals'][precision]}",
        )


def test_every_planted_fault_is_told_or_said_not_to_be() -> None:
    assert {fault for told in TOLD.values() for fault in told} | UNTOLD == FAULTS.keys()


@pytest.mark.parametrize(("precision", "fault"), [(name, fault) for name, told in TOLD.items() for fault in told])
def test_a_planted_fault_is_told_beside_the_rounding(bench: Bench, tmp_path: Path, precision: str, fault: str) -> None:
    model, optimizer, _ = FAULTS[fault]
    spec = model if isinstance(model, ModelSpec) else models.load(model)
    proof = _proof(bench, tmp_path, f"{CLASSES[precision]}{fault}", spec, optimizer, precision)
    assert TOLD[precision][fault] in {failed.name for failed in proof.quantities if not failed.passed}, proof.reason


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize(("name", "optimizer"), [("mnist-cnn", "momentum"), ("deep-bn", "adam"), ("lenet5", "sgd")])
def test_rounding_alone_passes(bench: Bench, tmp_path: Path, precision: str, name: str, optimizer: str) -> None:
    proof = _proof(bench, tmp_path, CLASSES[precision], models.load(name), optimizer, precision)
    assert proof.passed, proof.reason


@pytest.mark.parametrize("precision", MIXED)
def test_computing_more_exactly_than_claimed_fails(bench: Bench, tmp_path: Path, precision: str) -> None:
    proof = _proof(bench, tmp_path, "Unrounded", models.load("lenet5"), "sgd", precision)
    assert [failed.name for failed in proof.quantities if not failed.passed] == ["too_exact"]


def _proof(bench: Bench, folder: Path, name: str, model: ModelSpec, optimizer: str, precision: str) -> Proof:
    backend = f"rounding_backends:{name}"
    target = Target(backend, backend, "cpu", "numpy", "resident", f"python:{sys.executable}")
    with bench.planted(folder, backend) as worker:
        proof = bench.verifier.proof(target, model, OptimizerSpec(optimizer), precision, lambda: worker, fresh=True)
    assert not proof.problem, proof.problem
    return proof
