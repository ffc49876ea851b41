"""Precisions from the command line to the record: a target that has not the one asked for says so, and why."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper

REASON = "the reference takes no 'mixed_float16' cells: the reference computes in float64 only"


def test_a_precision_that_a_target_has_not_becomes_an_unsupported_record_with_the_reason(sweeper: Sweeper) -> None:
    done = sweeper.run("--compute-precision", "float32,mixed_float16", target="reference", batch_sizes=[8])
    assert done.returncode == 1
    records = {record.cell.training.precision: record for record in sweeper.kept.records()}
    assert records["float32"].status == "ok", records["float32"].reason
    assert records["mixed_float16"].status == "unsupported"
    assert records["mixed_float16"].reason == f"parity probe: {REASON}"
    assert records["float32"].cell.work_id != records["mixed_float16"].cell.work_id


def test_verify_lists_a_precision_that_a_backend_declares_not_to_have(sweeper: Sweeper) -> None:
    done = _harness(
        sweeper, "verify", "-t", "reference", "-m", "model.toml", "--optimizer", "sgd", "--json",
        "--compute-precision", "float32,mixed_float16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [(proof["precision"], proof["passed"]) for proof in answer["proofs"]] == [("float32", True)]
    assert [gap["reason"] for gap in answer["not_offered"]] == [
        "not offered: mixed_float16 (the reference computes in float64 only)"
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "reference", "reference", "--compute-precision", "float16"],
        ["verify", "-t", "reference", "--compute-precision", "float16"],
        ["sweep", "quick", "--compute-precision", "float16", "--plan"],
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_precision_is_a_wrong_call(
    sweeper: Sweeper, refused: Callable[..., str], command: list[str]
) -> None:
    said = refused(sweeper, *command)
    assert said.startswith("harness: --compute-precision: found 'float16'"), said
    assert "allowed: float32, mixed_bfloat16, mixed_float16" in said


def _harness(sweeper: Sweeper, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HARNESS, *arguments],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
