"""The reference as a session and a backend: whole models, order, rates, dropout, moving statistics, evaluation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from backends.protocol import EVALUATION_BATCH, Arrays
from backends.reference import ReferenceBackend, ReferenceSession
from backends.registry import create
from harness.core.cell import Cell
from harness.core.errors import ContractError, OutOfMemory, Unsupported, WrongDevice
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
from harness.core.training import LearningRate, OptimizerSpec, TrainingSpec
from tests.unit.builders import random_arrays, reference_target, small_cell, small_model

SMOOTH = (
    Conv2D(3, (4, 4), padding="same", activation="tanh"),
    BatchNorm(),
    AveragePool((2, 2), strides=(1, 2), padding="same"),
    Conv2D(4, (3, 2), strides=(2, 1), activation="sigmoid", bias=False),
    Flatten(),
    Dropout(0.0),
    Dense(5, bias=False),
    BatchNorm(epsilon=1e-2),
    Activation("tanh"),
    Dense(3),
)
KINKED = (
    Conv2D(4, (2, 2), padding="same", activation="relu"),
    MaxPool((2, 2)),
    Conv2D(4, (3, 3), padding="same", bias=False),
    BatchNorm(),
    Activation("relu"),
    MaxPool((3, 3), strides=(1, 1), padding="same"),
    GlobalAveragePool(),
    Dense(3),
)
LINEAR = (Flatten(), Dense(3))
SGD = OptimizerSpec(name="sgd")


def opened(
    *layers: Layer, training: TrainingSpec | None = None, **counts: int
) -> tuple[Cell, Arrays, ReferenceSession]:
    cell = small_cell(small_model(*layers), training, **counts)
    arrays = random_arrays(cell)
    return cell, arrays, ReferenceBackend().session(cell, arrays)


def batch(arrays: Arrays, step: int) -> tuple[np.ndarray, np.ndarray]:
    rows = arrays.order.reshape(-1, arrays.order.shape[2])[step]
    return arrays.train_images[rows], arrays.train_labels[rows]


@pytest.mark.parametrize("layers", [SMOOTH, KINKED], ids=["smooth", "relu and max-pool"])
def test_gradients_of_a_whole_model_agree_with_finite_differences(layers):
    change = 1e-5
    cell = small_cell(small_model(*layers))
    for seed in range(100):
        arrays = random_arrays(cell, seed)
        images, labels = batch(arrays, 0)
        session = ReferenceSession(cell, arrays)
        # A parameter moved by the change moves no relu's input by more than about ten times as much.
        if session.kink_margin(images) > 10 * change:
            break
    else:
        pytest.fail("no random batch stays clear of every kink")
    found = session.gradients(images, labels)
    exact = {name: np.array(value, np.float64) for name, value in arrays.parameters.items()}
    generator = np.random.default_rng(5)
    for name, gradient in found.gradients.items():
        assert gradient.shape == cell.model.parameter_shapes[name]
        for flat in generator.choice(gradient.size, min(gradient.size, 12), replace=False):
            place = np.unravel_index(flat, gradient.shape)
            losses = []
            for signed in (change, -change):
                moved = exact[name].copy()
                moved[place] += signed
                elsewhere = dataclasses.replace(arrays, parameters={**exact, name: moved})
                losses.append(ReferenceSession(cell, elsewhere).gradients(images, labels).loss)
            difference = (losses[0] - losses[1]) / (2 * change)
            assert gradient[place] == pytest.approx(difference, rel=1e-6, abs=1e-9), (name, place)


def test_gradients_report_the_logits_and_loss_of_the_batch_and_change_nothing():
    _, arrays, session = opened(*KINKED)
    images, labels = batch(arrays, 0)
    first = session.gradients(images, labels)
    np.testing.assert_array_equal(first.logits, session.forward(images, training=True))
    chosen = first.logits[np.arange(4), labels]
    assert first.loss == pytest.approx(np.mean(np.log(np.exp(first.logits).sum(axis=1)) - chosen), rel=1e-13)
    assert session.gradients(images, labels).loss == first.loss
    assert session.losses() == []
    for name, value in session.parameters().items():
        np.testing.assert_array_equal(value, arrays.parameters[name])
    assert all(set(np.unique(value)) <= {0.0, 1.0} for value in session.statistics().values())


def test_everything_is_computed_in_float64():
    _, arrays, session = opened(*KINKED)
    session.train(1)
    images, labels = batch(arrays, 1)
    results = [session.forward(images, training=False), *session.parameters().values(), *session.statistics().values()]
    results += session.gradients(images, labels).gradients.values()
    assert {value.dtype for value in results} == {np.dtype(np.float64)}


def test_each_step_trains_on_the_examples_that_the_order_names():
    training = TrainingSpec(batch_size=4, epochs=2, optimizer=SGD, learning_rate=LearningRate(base=0.3))
    _, arrays, session = opened(*LINEAR, training=training)
    for step in range(6):
        before = session.parameters()
        expected = session.gradients(*batch(arrays, step))
        session.train(1)
        session.synchronise()
        assert session.losses() == [expected.loss]
        for name, value in session.parameters().items():
            np.testing.assert_allclose(value, before[name] - 0.3 * expected.gradients[name], rtol=1e-14, atol=1e-16)


def test_blocks_of_any_length_lead_to_the_same_parameters():
    _, _, in_blocks = opened(*KINKED)
    _, _, at_once = opened(*KINKED)
    for steps in (1, 2, 3):
        in_blocks.train(steps)
    at_once.train(6)
    assert in_blocks.losses() == at_once.losses()
    for name, value in at_once.parameters().items():
        np.testing.assert_array_equal(in_blocks.parameters()[name], value)


def test_training_past_the_end_of_the_order_is_refused_before_any_step():
    session = opened(*LINEAR)[2]
    session.train(5)
    session.losses()
    with pytest.raises(ContractError, match="asked for 2 more steps after 5, but the order of examples ends after 6"):
        session.train(2)
    assert session.losses() == []
    session.train(1)
    assert len(session.losses()) == 1


@pytest.mark.parametrize(
    ("scaling", "scale"), [("none", 1.0), ("linear", 4 / 16), ("sqrt", 0.5)], ids=["none", "linear", "sqrt"]
)
def test_the_rate_scales_with_the_batch_size_and_drops_at_the_start_of_the_named_epochs(scaling, scale):
    rule = LearningRate(base=0.2, drop_epochs=(1, 3), factor=0.5, scaling=scaling, base_batch_size=16)
    training = TrainingSpec(batch_size=4, epochs=4, optimizer=SGD, learning_rate=rule)
    _, arrays, session = opened(*LINEAR, training=training)
    for step in range(12):
        rate = 0.2 * scale * [1.0, 0.5, 0.5, 0.25][step // 3]
        before = session.parameters()["02_dense/bias"]
        gradient = session.gradients(*batch(arrays, step)).gradients["02_dense/bias"]
        session.train(1)
        change = session.parameters()["02_dense/bias"] - before
        np.testing.assert_allclose(change, -rate * gradient, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam"])
def test_optimizer_state_carries_from_step_to_step(name):
    training = TrainingSpec(batch_size=4, epochs=1, optimizer=OptimizerSpec(name=name))
    _, arrays, session = opened(*LINEAR, training=training)
    bias = session.parameters()["02_dense/bias"]
    first = second = np.zeros(3)
    for step in range(3):
        gradient = session.gradients(*batch(arrays, step)).gradients["02_dense/bias"]
        session.train(1)
        if name == "adam":
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            corrected = 0.01 * math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            bias = bias - corrected * first / (np.sqrt(second) + 1e-7)
        else:
            first = 0.9 * first - 0.01 * gradient
            bias = bias + (first if name == "momentum" else 0.9 * first - 0.01 * gradient)
        np.testing.assert_allclose(session.parameters()["02_dense/bias"], bias, rtol=1e-12)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_dropout_keeps_its_share_scales_exactly_and_is_fresh_at_each_call(rate):
    _, _, session = opened(Flatten(), Dropout(rate))
    images = np.ones((1000, 7, 6, 2), np.float32)
    first, second = (session.forward(images, training=True) for _ in range(2))
    for output in (first, second):
        assert set(np.unique(output)) == {0.0, 1.0 / (1.0 - rate)}
        deviation = math.sqrt(rate * (1 - rate) / output.size)
        assert abs((output != 0.0).mean() - (1 - rate)) < 4 * deviation
    both = ((first != 0.0) & (second != 0.0)).mean()
    kept_twice = (1 - rate) ** 2
    assert abs(both - kept_twice) < 4 * math.sqrt(kept_twice * (1 - kept_twice) / first.size)
    np.testing.assert_array_equal(session.forward(images, training=False), np.ones((1000, 84)))


def test_dropout_is_drawn_from_the_cells_seed():
    outputs = []
    for seed in (0, 0, 1):
        _, arrays, session = opened(Flatten(), Dropout(0.5), training=TrainingSpec(batch_size=4, seed=seed))
        outputs.append(session.forward(arrays.train_images, training=True))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()


def test_training_applies_dropout():
    training = TrainingSpec(batch_size=4, epochs=1)
    _, arrays, session = opened(Dropout(0.5), *LINEAR, training=training)
    logits = session.forward(batch(arrays, 0)[0], training=False)
    without = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), batch(arrays, 0)[1]])
    session.train(1)
    assert abs(session.losses()[0] - without) > 1e-6


def test_moving_statistics_follow_the_biased_moments_of_each_batch():
    _, arrays, session = opened(BatchNorm(momentum=0.8), *LINEAR)
    mean, variance = np.zeros(2), np.ones(2)
    for step in range(3):
        session.train(1)
        images = batch(arrays, step)[0].astype(np.float64)
        mean = 0.8 * mean + 0.2 * images.mean(axis=(0, 1, 2))
        variance = 0.8 * variance + 0.2 * images.var(axis=(0, 1, 2))
        found = session.statistics()
        assert list(found) == ["01_batch_norm/moving_mean", "01_batch_norm/moving_variance"]
        np.testing.assert_allclose(found["01_batch_norm/moving_mean"], mean, rtol=1e-13)
        np.testing.assert_allclose(found["01_batch_norm/moving_variance"], variance, rtol=1e-13)


def test_evaluation_normalises_by_the_moving_statistics_and_leaves_them_alone():
    _, arrays, session = opened(BatchNorm(), Flatten())
    session.train(4)
    moved = session.statistics()
    mean, variance = moved["01_batch_norm/moving_mean"], moved["01_batch_norm/moving_variance"]
    scale, offset = session.parameters()["01_batch_norm/scale"], session.parameters()["01_batch_norm/offset"]
    expected = scale * (arrays.test_images - mean) / np.sqrt(variance + 1e-3) + offset
    np.testing.assert_allclose(session.forward(arrays.test_images, training=False), expected.reshape(5, -1), rtol=1e-12)
    session.forward(arrays.test_images, training=True)
    session.evaluate()
    for name, value in session.statistics().items():
        np.testing.assert_array_equal(value, moved[name])


@pytest.mark.parametrize("examples", [7, EVALUATION_BATCH, EVALUATION_BATCH + 3, 2 * EVALUATION_BATCH + 1])
def test_evaluation_counts_every_test_image_once(examples):
    _, arrays, session = opened(*LINEAR, test_examples=examples)
    logits = session.forward(arrays.test_images, training=False)
    labels = arrays.test_labels
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(examples), labels]
    right = logits.argmax(axis=1) == labels
    loss, accuracy = session.evaluate()
    assert loss == pytest.approx(losses.mean(), rel=1e-13)
    assert accuracy == right.sum() / examples
    first_loss, first_accuracy = session.evaluate(first_batch_only=True)
    counted = min(examples, EVALUATION_BATCH)
    assert first_loss == pytest.approx(losses[:EVALUATION_BATCH].mean(), rel=1e-13)
    assert first_accuracy == right[:EVALUATION_BATCH].sum() / counted


def test_a_small_network_learns_classes_that_differ():
    training = TrainingSpec(batch_size=8, epochs=10, learning_rate=LearningRate(base=0.05))
    cell = small_cell(small_model(*KINKED), training, train_examples=48, test_examples=48)
    arrays = random_arrays(cell)
    for images, labels in (
        (arrays.train_images, arrays.train_labels),
        (arrays.test_images, arrays.test_labels),
    ):
        images *= 0.2
        images[:, :, :, 0] += (labels - 1)[:, None, None]
    session = ReferenceBackend().session(cell, arrays)
    session.train(60)
    assert np.mean(session.losses()[-6:]) < 0.1
    assert session.evaluate()[1] == 1.0


def test_a_run_that_diverges_says_so_in_its_loss_only():
    training = TrainingSpec(batch_size=4, epochs=2, optimizer=SGD, learning_rate=LearningRate(base=1e200))
    _, _, session = opened(Conv2D(3, (2, 2), activation="relu"), MaxPool((2, 2)), *LINEAR, training=training)
    session.train(6)
    assert not math.isfinite(session.losses()[-1])
    assert not math.isfinite(session.evaluate()[0])


def test_kink_margin_is_infinite_without_kinks_and_that_of_the_closest_one_with():
    _, arrays, smooth = opened(*SMOOTH)
    assert smooth.kink_margin(arrays.train_images) == math.inf
    _, arrays, kinked = opened(Activation("relu"), Flatten())
    images = np.full((1, 7, 6, 2), 2.0, np.float32)
    images[0, 3, 3, 1] = -0.5
    assert kinked.kink_margin(images) == 0.25


def test_the_session_owns_its_parameters():
    _, arrays, session = opened(*LINEAR)
    given = {name: value.copy() for name, value in arrays.parameters.items()}
    session.parameters()["02_dense/bias"][:] = 7.0
    session.train(1)
    assert not (session.parameters()["02_dense/bias"] > 6.0).any()
    for name, value in arrays.parameters.items():
        np.testing.assert_array_equal(value, given[name])


def test_the_registry_finds_it_and_it_says_what_it_can():
    backend = create("reference")
    backend.load()
    capabilities = backend.capabilities()
    assert backend.versions() == {"numpy": np.__version__}
    assert (capabilities.accelerators, capabilities.modes) == (("cpu",), ("numpy",))
    assert len(capabilities.layers) == 9
    assert backend.initialise(reference_target())["computes_in"] == "float64"


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [("accelerator", "cuda", WrongDevice), ("mode", "xla", Unsupported), ("input", "host", Unsupported)],
)
def test_a_target_that_it_cannot_serve_is_refused(key, value, error):
    with pytest.raises(error, match=repr(value)):
        ReferenceBackend().initialise(dataclasses.replace(reference_target(), **{key: value}))


@pytest.mark.parametrize(
    "training",
    [TrainingSpec(batch_size=4, precision="mixed_float16"), TrainingSpec(4, optimizer=OptimizerSpec(name="lion"))],
    ids=["precision", "optimizer"],
)
def test_a_cell_that_it_cannot_train_is_refused(training):
    with pytest.raises(Unsupported, match=r"mixed_float16|lion"):
        opened(*LINEAR, training=training)


def test_an_exhausted_memory_is_translated_and_nothing_else_is():
    backend = ReferenceBackend()
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, np.uint8)
    translated = backend.translate(caught.value)
    assert isinstance(translated, OutOfMemory)
    assert "\n" not in str(translated)
    assert backend.translate(ValueError("shape")) is None
