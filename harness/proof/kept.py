"""Proofs kept in the user's cache by what they depend on, so that a sweep probes only what has no proof yet.

A proof holds for a target, a model, an optimizer and a precision, in one environment, with one code, on one machine:
its key names them all, and its file is named by the key's hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.core.cell import Target
from harness.core.errors import ContractError
from harness.core.model import ModelSpec
from harness.core.training import OptimizerSpec
from harness.proof import parity
from harness.proof.parity import Proof


class KeptProofs:
    """A folder of proofs, shared by runs. ``circumstances``: what else a proof depends on (code hash, machine)."""

    def __init__(self, folder: Path, circumstances: Mapping[str, Any], keeping: Keeping) -> None:
        self._folder = folder
        self._circumstances = circumstances
        self._keeping = keeping

    def blank(
        self,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        precision: str,
        worker: Mapping[str, Any],
        **further: Any,
    ) -> Proof:
        """A proof that proves nothing yet: its ``id`` and ``key`` say what it is to hold for.

        ``worker``: what the target's worker said of itself. ``further``: what else it is about.
        """
        key = parity.key_of(
            target,
            model,
            optimizer,
            precision,
            packages=worker.get("packages", {}),
            python=worker.get("python", ""),
            variables=worker.get("variables", {}),
            **further,
            **self._circumstances,
        )
        return Proof(codec.digest(key)[:16], target.label, model.name, optimizer.name, precision, key)

    def find(self, identity: str) -> Proof | None:
        """The proof with this ``id``; None where there is none that can be read."""
        path = self._path(identity)
        if not path.exists():
            return None
        try:
            proof = codec.read_json(path, Proof)
        except ContractError:
            return None
        mark_used(path)
        return proof

    def keep(self, proof: Proof) -> None:
        """Write a proof where that can be, over an older one."""
        self._keeping.keep(self._path(proof.id), partial(codec.write_json, value=proof))

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"
