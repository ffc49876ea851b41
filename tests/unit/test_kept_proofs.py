"""Proofs in the user's cache: found again by what they depend on, and by nothing less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cache.keeping import Keeping
from harness.core import codec
from harness.core.training import OptimizerSpec
from harness.proof.kept import KeptProofs
from harness.proof.parity import Proof
from tests.unit.records import JAX, MODEL, TENSORFLOW

WORKER = {"packages": {"jax": "0.7.0"}, "python": "3.12.1"}


def blank(folder: Path, *, machine: str = "m1", worker: dict[str, Any] = WORKER, **changes: Any) -> Proof:
    kept = KeptProofs(folder, {"code": "c1", "machine": machine}, Keeping())
    asked: dict[str, Any] = {"target": JAX, "model": MODEL, "optimizer": OptimizerSpec(), "precision": "float32"}
    return kept.blank(**(asked | changes), worker=worker)


def test_a_kept_proof_is_found_by_another_run(tmp_path: Path) -> None:
    KeptProofs(tmp_path, {}, Keeping()).keep(blank(tmp_path))
    assert KeptProofs(tmp_path, {}, Keeping()).find(blank(tmp_path).id) == blank(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": TENSORFLOW},
        {"precision": "mixed_float16"},
        {"optimizer": OptimizerSpec("adam")},
        {"machine": "m2"},
        {"worker": WORKER | {"packages": {"jax": "0.7.1"}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_proof_depends_on_is_in_its_identity(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert blank(tmp_path, **changes).id != blank(tmp_path).id


def test_one_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{")
    codec.write_json(tmp_path / "2.json", {"id": 2})
    kept = KeptProofs(tmp_path, {}, Keeping())
    assert [kept.find(identity) for identity in ("1", "2", "3")] == [None, None, None]
