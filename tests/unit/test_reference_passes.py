"""A batch in slices, on any number of threads, is the batch as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends import reference_passes as passes
from backends.reference import ReferenceSession
from harness.core import system
from harness.core.errors import ContractError
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
)
from harness.core.training import TrainingSpec

from .builders import random_arrays, small_cell, small_model

FLOAT32 = 2.0**-24
PLAIN = (Conv2D(3, (3, 2), activation="relu"), MaxPool((2, 2)), Flatten(), Dropout(0.5), Dense(4, "tanh"), Dense(3))
NORMALISED = (
    BatchNorm(),
    Conv2D(3, (2, 2), padding="same", bias=False),
    BatchNorm(),
    Activation("relu"),
    AveragePool((2, 2)),
    Dropout(0.25),
    GlobalAveragePool(),
    BatchNorm(),
    Dense(3),
    BatchNorm(),
)
BATCH = 70


def made(layers: tuple[Layer, ...], batch_size: int = BATCH) -> ReferenceSession:
    cell = small_cell(small_model(*layers), TrainingSpec(batch_size, 2), train_examples=2 * batch_size)
    return ReferenceSession(cell, random_arrays(cell))


def after(session: ReferenceSession) -> dict[str, Any]:
    session.train(3)
    return {"losses": np.array(session.losses()), **session.parameters(), **session.statistics()}


@pytest.mark.parametrize("layers", [PLAIN, NORMALISED], ids=["plain", "normalised"])
def test_slices_give_what_the_whole_batch_gives(layers: tuple[Layer, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sliced = after(made(layers))
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)
    twice = after(made(layers))
    assert len(passes.slices(small_model(*layers), BATCH)) > 1
    monkeypatch.setattr(passes, "SMALLEST_SLICE", BATCH)
    monkeypatch.setattr(passes, "LARGEST_SLICE", BATCH)
    whole = after(made(layers))
    for name, array in whole.items():
        np.testing.assert_array_equal(twice[name], sliced[name], err_msg=name)
        np.testing.assert_allclose(sliced[name], array, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("layers", [PLAIN, NORMALISED], ids=["plain", "normalised"])
def test_the_number_of_threads_changes_no_bit(layers: tuple[Layer, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(system, "usable_processors", lambda threads=threads: tuple(range(threads)))
        session = made(layers)
        state = {f"parameter/{name}": array for name, array in session.parameters().items()}
        state |= {f"statistic/{name}": array for name, array in session.statistics().items()}
        results.append(session.replay(state, 0, 3, FLOAT32, {}, gradients=True))
    assert results[0].keys() == results[1].keys()
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array, err_msg=name)


def test_slices_cover_a_batch_in_order_and_are_no_larger_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(*PLAIN)
    for examples in (1, 15, 16, 17, 64, 513, 4096):
        parts = passes.slices(model, examples)
        covered = [row for part in parts for row in range(examples)[part]]
        assert covered == list(range(examples))
        assert max(part.stop - part.start for part in parts) <= passes.LARGEST_SLICE
    monkeypatch.setattr(passes, "SLICE_BYTES", 4 * model.activation_bytes)
    assert {part.stop - part.start for part in passes.slices(model, 512)} == {2}


def test_a_replay_is_the_training_that_it_replays() -> None:
    session = made(PLAIN)
    state = {f"parameter/{name}": array for name, array in session.parameters().items()}
    trained = after(made(PLAIN))
    again = session.replay(state, 0, 3, FLOAT32, {}, gradients=False)
    np.testing.assert_array_equal(again["losses"], trained["losses"])
    for name in session.parameters():
        np.testing.assert_array_equal(again[f"parameter/{name}"], trained[name])
    arrays = {name for name in again if not name.startswith("deviation/")}
    assert {f"deviation/{name}" for name in arrays} == again.keys() - arrays
    assert all(again[f"deviation/{name}"].shape == again[name].shape for name in arrays)


def test_a_replay_of_no_steps_only_takes_the_state() -> None:
    session = made(PLAIN)
    state = {f"parameter/{name}": array * 0.5 for name, array in session.parameters().items()}
    again = session.replay(state, 2, 0, FLOAT32, {}, gradients=False)
    assert again["losses"].shape == (0,)
    for name, array in session.parameters().items():
        np.testing.assert_array_equal(array, state[f"parameter/{name}"])
        assert not again[f"deviation/parameter/{name}"].any()


def test_a_state_that_does_not_fit_is_refused_by_name() -> None:
    session = made(PLAIN)
    state = {f"parameter/{name}": array for name, array in session.parameters().items()}
    state["parameter/05_dense/bias"] = np.zeros(7)
    with pytest.raises(ContractError, match=r"no parameter/05_dense/bias of shape \[4\]"):
        session.replay(state, 0, 1, FLOAT32, {}, gradients=False)


def test_masks_that_do_not_fit_are_refused_by_name() -> None:
    session = made(PLAIN)
    state = {f"parameter/{name}": array for name, array in session.parameters().items()}
    for masks in ({"1/04_dropout": np.ones((BATCH, 12), bool)}, {"0/04_dropout": np.ones((BATCH, 1), bool)}):
        with pytest.raises(ContractError, match=r"no mask 0/04_dropout of shape \[70, 12\]"):
            session.replay(state, 0, 1, FLOAT32, masks, gradients=False)


def test_deviations_grow_with_the_unit_roundoff() -> None:
    session = made(PLAIN)
    state = {f"parameter/{name}": array for name, array in session.parameters().items()}
    masks = {"0/04_dropout": np.ones((BATCH, 12), bool)}
    narrow, wide = (session.replay(state, 0, 1, unit, masks, gradients=True) for unit in (2.0**-8, FLOAT32))
    for name in ("logits", "gradient/06_dense/kernel"):
        ratio = narrow[f"deviation/{name}"] / wide[f"deviation/{name}"]
        assert 2.0**13 < np.median(ratio) < 2.0**18
