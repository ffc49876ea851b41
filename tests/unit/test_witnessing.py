"""What a session shows of its training: the reference's own answers, and what a backend without them gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import witnessing
from backends.protocol import Arrays
from backends.reference import ReferenceSession
from harness.core.messages import Masks, Snapshot
from harness.core.model import Conv2D, Dense, Dropout, Flatten
from harness.core.training import OptimizerSpec, TrainingSpec

from .builders import random_arrays, small_cell, small_model

MODEL = small_model(Conv2D(3, (2, 2), activation="tanh"), Flatten(), Dropout(0.5), Dense(5), Dropout(0.25), Dense(3))


def made(optimizer: str = "adam", seed: int = 3) -> tuple[ReferenceSession, Arrays]:
    cell = small_cell(MODEL, TrainingSpec(4, 2, OptimizerSpec(optimizer), seed=seed))
    arrays = random_arrays(cell)
    return ReferenceSession(cell, arrays), arrays


def test_masks_are_drawn_again_as_training_drew_them() -> None:
    session, _ = made("sgd")
    session.train(3)
    kept = [session.masks(step) for step in range(3)]
    other, arrays = made("sgd")
    given = {f"{step}/{layer}": mask for step, masks in enumerate(kept) for layer, mask in masks.items()}
    state = {f"parameter/{name}": array for name, array in arrays.parameters.items()}
    again = other.replay(state, 0, 3, 2.0**-24, given, gradients=False)
    assert list(again["losses"]) == session.losses()
    assert {name: mask.shape for name, mask in kept[0].items()} == {"03_dropout": (4, 90), "05_dropout": (4, 5)}
    assert not np.array_equal(kept[0]["03_dropout"], kept[1]["03_dropout"])


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [("sgd", set()), ("momentum", {"velocity"}), ("nesterov", {"velocity"}), ("adam", {"first", "second"})],
)
def test_a_snapshot_holds_all_that_training_goes_on_from(tmp_path: Path, optimizer: str, slots: set[str]) -> None:
    session, _ = made(optimizer)
    session.train(2)
    witnessing.snapshot(session, Snapshot(str(tmp_path / "state.npz")))
    with np.load(tmp_path / "state.npz") as stored:
        names = set(stored.files)
        assert stored["steps"] == 2
    wanted = {f"optimizer/{slot}/{name}" for slot in slots for name in MODEL.parameter_shapes}
    assert {name for name in names if name.startswith("optimizer/")} == wanted


def test_an_inventory_tells_data_apart() -> None:
    session, arrays = made()
    told = witnessing.inventory(session)
    assert (told.steps, set(told.digests)) == (0, {"images", "labels", "order"})
    wide = arrays.order.reshape(-1, arrays.order.shape[-1]).astype(np.int64)
    assert told.digests["order"] == witnessing.digest(wide, witnessing.TYPES["order"])
    arrays.train_images[0, 0, 0, 0] += 1
    assert witnessing.inventory(session).digests["images"] != told.digests["images"]


def test_what_a_backend_cannot_show_is_left_out(tmp_path: Path) -> None:
    class Silent:
        def parameters(self) -> dict[str, Any]:
            return {"kernel": np.ones(2)}

        def statistics(self) -> dict[str, Any]:
            return {}

    silent: Any = Silent()
    witnessing.snapshot(silent, Snapshot(str(tmp_path / "state.npz")))
    with np.load(tmp_path / "state.npz") as stored:
        assert stored.files == ["parameter/kernel"]
    assert not witnessing.masks(silent, Masks(0, 2, str(tmp_path / "masks.npz"))).tells
    told = witnessing.inventory(silent)
    assert (told.steps, told.digests) == (None, {})
