"""The parts of a step: which there are, what they cost, what they are given, and how their values are judged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from backends.reference import ReferenceBackend, ReferenceSession
from harness.core import parts
from harness.core.cell import Cell
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ModelSpec,
)
from harness.core.training import OptimizerSpec, TrainingSpec
from harness.plan import models
from harness.proof import parts as part_values
from tests.unit.builders import random_arrays, small_cell, small_model

MODEL = small_model(
    Activation("linear"),
    MaxPool((2, 2), strides=(1, 1)),
    Conv2D(3, (2, 2), activation="relu"),
    BatchNorm(),
    AveragePool((2, 2)),
    Activation("tanh"),
    Flatten(),
    Dropout(0.0),
    Dropout(0.25),
    Dense(4),
)
CELL = small_cell(MODEL)


def test_layers_that_do_nothing_are_no_parts() -> None:
    names = [trace.name for trace in parts.layers(MODEL)]
    assert names == [
        "02_max_pool", "03_conv2d", "04_batch_norm", "05_average_pool", "06_activation", "09_dropout", "10_dense",
    ]  # fmt: skip


def test_no_layer_goes_backward_before_the_first_that_learns() -> None:
    asked = parts.askable(MODEL)
    assert ("02_max_pool", parts.BOTH) not in asked
    assert ("03_conv2d", parts.BOTH) in asked
    assert not parts.trained_before(MODEL, "03_conv2d")
    assert parts.trained_before(MODEL, "04_batch_norm")


def test_rows_are_in_the_order_of_a_step() -> None:
    rows = parts.rows(models.load("mnist-cnn"))
    assert rows[:3] == (("dispatch", ""), ("input", ""), ("01_conv2d", "forward"))
    assert rows[-3:] == (("02_max_pool", "backward"), ("01_conv2d", "backward"), ("optimizer", ""))
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", ["mnist-cnn", "lenet5", "deep-bn"])
def test_operations_of_layers_add_up_to_those_of_training(name: str) -> None:
    model, training = models.load(name), TrainingSpec(32)
    layers = [row for row in parts.rows(model) if row[1]]
    total = sum(parts.cost(model, training, *row).flops for row in layers)
    left_out = sum(trace.training_flops for trace in model.traced if trace not in parts.layers(model))
    assert total + 32 * left_out == 32 * model.training_flops


def test_bytes_of_a_convolution_are_its_arrays() -> None:
    cost = parts.cost(MODEL, TrainingSpec(4), "03_conv2d", parts.FORWARD)
    trace = next(trace for trace in MODEL.traced if trace.name == "03_conv2d")
    values = 4 * (math.prod(trace.input_shape) + math.prod(trace.output_shape)) + trace.parameter_count
    assert cost.bytes == 4 * values
    narrow = parts.cost(MODEL, TrainingSpec(4, precision="mixed_bfloat16"), "03_conv2d", parts.FORWARD)
    assert narrow.bytes == 2 * values + 2 * trace.parameter_count


def test_only_rows_have_a_cost() -> None:
    with pytest.raises(ValueError, match="02_max_pool backward: no part of a step of small"):
        parts.cost(MODEL, TrainingSpec(4), "02_max_pool", parts.BACKWARD)


def session_of(cell: Cell) -> ReferenceSession:
    return ReferenceBackend().session(cell, random_arrays(cell))


def test_the_reference_s_parts_in_a_row_are_its_step() -> None:
    """Fed with each other's results they give the logits and the gradients of the whole model."""
    model = replace(MODEL, layers=tuple(Dropout(0.0) if isinstance(one, Dropout) else one for one in MODEL.layers))
    cell = small_cell(model)
    arrays, session = random_arrays(cell), session_of(cell)
    images, labels = arrays.train_images[:4], arrays.train_labels[:4]
    whole = session.gradients(images, labels)
    values, given = np.asarray(images, np.float64), {}
    for trace in model.traced:
        if trace not in parts.layers(model):
            values = values.reshape(4, *trace.output_shape)
            continue
        own = {f"parameter/{key}": arrays.parameters[f"{trace.name}/{key}"] for key in trace.parameters}
        given[trace.name] = {"input": values, **own}
        values = session.part(trace.name, parts.FORWARD, given[trace.name]).values()["output"]
    assert values == pytest.approx(whole.logits)
    loss = session.part(parts.LOSS, parts.BOTH, {"input": values, "labels": labels}).values()
    assert float(loss["output"]) == pytest.approx(whole.loss)
    gradient = loss["gradient/input"]
    for trace in reversed(parts.layers(model)):
        if not parts.has_backward(model, trace):
            break
        shaped = gradient.reshape(4, *trace.output_shape)
        found = session.part(trace.name, parts.BOTH, {**given[trace.name], "output_gradient": shaped}).values()
        for key in trace.parameters:
            assert found[f"gradient/{key}"] == pytest.approx(whole.gradients[f"{trace.name}/{key}"]), trace.name
        gradient = found.get("gradient/input", gradient)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_the_reference_s_update_alone_is_that_of_its_first_step(optimizer: str) -> None:
    cell = small_cell(small_model(Flatten(), Dense(4)), TrainingSpec(4, 2, OptimizerSpec(optimizer)))
    arrays, session = random_arrays(cell), session_of(cell)
    batch = arrays.order[0, 0]
    gradients = session.gradients(arrays.train_images[batch], arrays.train_labels[batch]).gradients
    given = {
        **{f"parameter/{name}": array for name, array in arrays.parameters.items()},
        **{f"gradient/{name}": array for name, array in gradients.items()},
    }
    alone = session.part(parts.OPTIMIZER, parts.FORWARD, given)
    alone.run(3)  # from the start each time
    session.train(1)
    for name, array in session.parameters().items():
        assert alone.values()[f"parameter/{name}"] == pytest.approx(array)


class TestValues:
    def given(self, name: str) -> dict[str, np.ndarray]:
        return part_values.given(CELL, name)

    def found(self, name: str, direction: str) -> dict[str, np.ndarray]:
        return dict(session_of(CELL).part(name, direction, self.given(name)).values())

    @pytest.mark.parametrize(("name", "direction"), parts.askable(MODEL))
    def test_the_reference_agrees_with_itself(self, name: str, direction: str) -> None:
        found = self.found(name, direction)
        judged = part_values.compare(CELL, name, direction, self.given(name), found, found)
        assert [one.fault for one in judged if not one.passed] == []
        assert judged or name == parts.DISPATCH

    @pytest.mark.parametrize(("name", "direction"), [one for one in parts.askable(MODEL) if one[0] != parts.DISPATCH])
    def test_every_value_that_is_wrong_is_found(self, name: str, direction: str) -> None:
        found = self.found(name, direction)
        for key in found:
            # A tenth more than the largest, so that it shows in every array, and is no other mask.
            wrong = {**found, key: found[key] + 0.1 * np.max(np.abs(found[key])) + (name == parts.INPUT)}
            judged = part_values.compare(CELL, name, direction, self.given(name), found, wrong)
            assert [one for one in judged if not one.passed], key
            missing = {other: array for other, array in found.items() if other != key}
            judged = part_values.compare(CELL, name, direction, self.given(name), found, missing)
            assert [one for one in judged if not one.passed], key

    def test_a_value_that_is_no_number_is_found(self) -> None:
        found = self.found("03_conv2d", parts.BOTH)
        wrong = {**found, "gradient/kernel": np.full_like(found["gradient/kernel"], np.nan)}
        judged = part_values.compare(CELL, "03_conv2d", parts.BOTH, self.given("03_conv2d"), found, wrong)
        assert [one.passed for one in judged] == [True, False]

    def test_a_mask_that_keeps_too_much_or_is_another_s_backward_is_found(self) -> None:
        cell = small_cell(small_model(Flatten(), Dense(400), Dropout(0.5), Dense(4)))
        given = part_values.given(cell, "03_dropout")
        right = dict(session_of(cell).part("03_dropout", parts.BOTH, given).values())
        assert all(one.passed for one in part_values.compare(cell, "03_dropout", parts.BOTH, given, right, right))
        keeps = {"output": 2 * given["input"], "gradient/input": 2 * given["output_gradient"]}
        faults = part_values.compare(cell, "03_dropout", parts.BOTH, given, right, keeps)
        assert [one.name for one in faults if not one.passed] == ["03_dropout both, share kept"]
        other = {**right, "gradient/input": right["gradient/input"][::-1]}
        faults = part_values.compare(cell, "03_dropout", parts.BOTH, given, right, other)
        assert [one.name for one in faults if not one.passed] == ["03_dropout both"]

    def test_what_is_given_is_exact_in_half_precision_and_clear_of_branches(self) -> None:
        for name in dict(parts.askable(MODEL)):
            for key, array in self.given(name).items():
                if name != parts.OPTIMIZER and array.dtype == np.float32:
                    as_half = array.astype(np.float16).astype(np.float32)
                    bits = array.view(np.uint32) & 0xFFFF  # what bfloat16 cuts off
                    assert (as_half == array).all(), f"{name} {key}"
                    assert not bits.any(), f"{name} {key}"
        kernel, bias = (self.given("03_conv2d")[f"parameter/{key}"] for key in ("kernel", "bias"))
        assert (kernel * 16 == np.round(kernel * 16)).all()
        assert (np.abs(bias * 64 - np.round(bias * 64)) == 0.5).all()

    def test_equal_parts_are_given_equal_arrays(self) -> None:
        once, again = self.given("03_conv2d"), self.given("03_conv2d")
        assert all((once[key] == again[key]).all() for key in once)


def test_a_model_of_one_layer_has_parts() -> None:
    model = ModelSpec("tiny", (2, 2, 1), (Flatten(), Dense(2)))
    assert [one for one in parts.rows(model) if one[1]] == [("02_dense", "forward"), ("02_dense", "backward")]
