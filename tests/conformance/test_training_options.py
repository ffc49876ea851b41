"""Weight decay, clipping, smoothed labels, warm-up and decay: every lane does the reference's, and faults are found."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness.core.cell import Cell, Inputs, Target
from harness.core.model import BatchNorm, Conv2D, Dense, Flatten, ModelSpec
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from harness.measure.schedule import rehearsal
from harness.plan import datasets

from . import faulty_options
from .conftest import Bench

SMALL = ModelSpec(
    "small",
    (28, 28, 1),
    (Conv2D(3, (5, 5), strides=(3, 3), activation="tanh"), BatchNorm(), Flatten(), Dense(10)),
)

TRAININGS = {
    "decoupled": TrainingSpec(
        32,
        optimizer=OptimizerSpec("adam", weight_decay=0.02),
        learning_rate=LearningRate(warmup_epochs=1, decay="cosine"),
    ),
    "l2": TrainingSpec(
        32,
        optimizer=OptimizerSpec("momentum", weight_decay=0.02, weight_decay_form="l2", clip_norm=0.5),
        label_smoothing=0.1,
    ),
    "everything": TrainingSpec(
        32,
        optimizer=OptimizerSpec("nesterov", weight_decay=0.02, clip_norm=1e3),
        learning_rate=LearningRate(warmup_steps=5, decay="polynomial", decay_power=2.0, decay_to=0.1),
        label_smoothing=0.2,
    ),
    "plain": TrainingSpec(
        32,
        optimizer=OptimizerSpec("sgd", clip_norm=0.05),
        learning_rate=LearningRate(drop_epochs=(1,), warmup_epochs=1),
        label_smoothing=0.1,
    ),
}

FAULTS = {
    "DecaysBiases": "decoupled",
    "AddsL2WhereDecoupled": "decoupled",
    "DecaysByTheMultiplierAlone": "decoupled",
    "ClipsEachParameter": "plain",
    "LabelsNotSmoothed": "plain",
    "WarmsUpAStepLate": "plain",
    "DecayEndsAStepEarly": "decoupled",
}


def test_every_planted_fault_is_tried() -> None:
    planted = {name for name, one in vars(faulty_options).items() if getattr(one, "__module__", "").endswith("options")}
    assert {name for name in planted if not name.startswith("_")} == FAULTS.keys()


@pytest.mark.parametrize("name", TRAININGS)
def test_a_backend_that_declares_none_trains_with_none(bench: Bench, tmp_path: Path, name: str) -> None:
    target = Target("older", "older", "cpu", "numpy", "resident", f"python:{sys.executable}")
    training = TRAININGS[name]
    with bench.planted(tmp_path, "faulty_options:_DeclaresNothing") as worker:
        proof = bench.verifier.proof(
            target, SMALL, training.optimizer, "float32", lambda: worker, fresh=True, like=training
        )
    assert proof.problem_status == "unsupported"
    assert proof.problem.endswith("its adapter does not declare it")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_an_option_fails_both_proofs(bench: Bench, tmp_path: Path, fault: str) -> None:
    training = TRAININGS[FAULTS[fault]]
    target = Target(fault, fault, "cpu", "numpy", "resident", f"python:{sys.executable}")
    with bench.planted(tmp_path, f"faulty_options:{fault}") as worker:
        proof = bench.verifier.proof(
            target, SMALL, training.optimizer, "float32", lambda: worker, fresh=True, like=training
        )
        assert not proof.problem, proof.problem
        assert {"parameters", "losses"} & {failed.name for failed in proof.quantities if not failed.passed}
        prepared = datasets.prepare("digits")
        cell = Cell(SMALL, training, prepared.dataset, Inputs("", ""), target)
        sized = bench.verifier.at_size.proof(cell, prepared.folder, rehearsal, lambda: worker, fresh=True)
        assert not sized.problem, sized.problem
        assert not sized.passed


@pytest.mark.parametrize("name", TRAININGS)
def test_every_lane_trains_with_the_options_that_it_does_not_refuse(bench: Bench, lane: str, name: str) -> None:
    training, target, give = TRAININGS[name], bench.target(lane), partial(bench.worker, lane)
    proof = bench.verifier.proof(target, SMALL, training.optimizer, "float32", give, fresh=True, like=training)
    refused = [
        f"{option} in {target.mode}"
        for option in training.options
        if f"{option} in {target.mode}" in give().ready.capabilities["refusals"]
    ]
    if refused:
        assert proof.problem_status == "unsupported"
        assert give().ready.capabilities["refusals"][refused[0]] in proof.problem
        return
    assert proof.passed, proof.reason
    prepared = datasets.prepare("digits")
    cell = Cell(SMALL, training, prepared.dataset, Inputs("", ""), target)
    sized = bench.verifier.at_size.proof(cell, prepared.folder, rehearsal, give, fresh=True)
    assert sized.passed, sized.reason


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_gradients_are_clipped_after_the_loss_scale_is_divided_out(bench: Bench, lane: str, precision: str) -> None:
    if lane.endswith(":xla") or precision not in bench.worker(lane).ready.capabilities["precisions"]:
        pytest.skip("XLA takes long, and the other modes show it; or it has no such precision")
    training = replace(TRAININGS["plain"], precision=precision)
    proof = bench.verifier.proof(
        bench.target(lane), SMALL, training.optimizer, precision, partial(bench.worker, lane), fresh=True, like=training
    )
    assert proof.passed, proof.reason
