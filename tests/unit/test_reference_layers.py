"""The reference's layers against definitions written as loops, and their gradients against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from backends import reference_layers as layers
from harness.core.model import same_padding, window_output

GRADIENT_TOLERANCE = 1e-8
"""Largest error relative to the largest gradient; the differences themselves are good to about 1e-10."""

WINDOWS = [
    ((3, 3), (1, 1), "valid"),
    ((2, 3), (2, 2), "valid"),
    ((4, 4), (3, 2), "valid"),
    ((1, 1), (2, 2), "valid"),
    ((7, 6), (1, 1), "valid"),
    ((3, 3), (1, 1), "same"),
    ((2, 2), (1, 1), "same"),
    ((4, 4), (1, 1), "same"),
    ((4, 2), (2, 3), "same"),
    ((1, 2), (3, 3), "same"),
    ((9, 8), (2, 1), "same"),
]
windowed = pytest.mark.parametrize(
    ("window", "strides", "padding"),
    WINDOWS,
    ids=[f"{w[0]}x{w[1]} strides {s[0]},{s[1]} {p}" for w, s, p in WINDOWS],
)

IMAGES = (2, 7, 6, 2)


def distinct_values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values at least 1 / size apart and off zero, so that no small change crosses a kink."""
    size = math.prod(shape)
    return ((np.random.default_rng(seed).permutation(size) - size // 2 + 0.5) / size).reshape(shape)


def random_values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def check_gradients(apply: Callable[..., tuple[np.ndarray, layers.Pullback]], **arguments: np.ndarray) -> None:
    """Every gradient of a random weighting of the output, against central differences of every element.

    The first argument is the layer's input; the others carry the names of its parameters.
    """
    output, pullback = apply(**arguments)
    weights = random_values(output.shape, seed=99)
    by_values, by_parameter = pullback(weights)
    first, *others = arguments
    assert set(by_parameter) == set(others)
    for name, exact in {first: by_values, **by_parameter}.items():
        assert exact.shape == arguments[name].shape
        differences = np.empty(exact.shape)
        for place in np.ndindex(exact.shape):
            sums = []
            for change in (1e-4, -1e-4):
                changed = arguments[name].copy()
                changed[place] += change
                sums.append(float((apply(**{**arguments, name: changed})[0] * weights).sum()))
            differences[place] = (sums[0] - sums[1]) / 2e-4
        assert np.abs(exact - differences).max() <= GRADIENT_TOLERANCE * max(np.abs(differences).max(), 1.0), name


def windows_of(images: np.ndarray, window: tuple[int, int], strides: tuple[int, int], padding: str) -> np.ndarray:
    """By definition, one index at a time: (N, Hout, Wout, Kh, Kw, C), NaN where a window hangs over the edge."""
    count, height, width, channels = images.shape
    rows, columns = (window_output(n, w, s, padding) for n, w, s in zip((height, width), window, strides, strict=True))
    top = same_padding(height, window[0], strides[0])[0] if padding == "same" else 0
    left = same_padding(width, window[1], strides[1])[0] if padding == "same" else 0
    result = np.full((count, rows, columns, *window, channels), np.nan)
    for row, column, i, j in product(range(rows), range(columns), range(window[0]), range(window[1])):
        y, x = row * strides[0] + i - top, column * strides[1] + j - left
        if 0 <= y < height and 0 <= x < width:
            result[:, row, column, i, j] = images[:, y, x]
    return result


@windowed
def test_conv2d_is_the_cross_correlation_of_its_definition(window, strides, padding):
    images, kernel, bias = random_values(IMAGES), random_values((*window, 2, 3), 1), random_values((3,), 2)
    seen = np.nan_to_num(windows_of(images, window, strides, padding))
    expected = np.einsum("nhwijc,ijcf->nhwf", seen, kernel) + bias
    np.testing.assert_allclose(layers.conv2d(images, kernel, bias, strides, padding)[0], expected, rtol=0, atol=1e-12)


@windowed
def test_gradients_of_conv2d(window, strides, padding):
    def apply(images, kernel, bias):
        return layers.conv2d(images, kernel, bias, strides, padding)

    check_gradients(
        apply, images=random_values(IMAGES), kernel=random_values((*window, 2, 3), 1), bias=random_values((3,), 2)
    )


def test_gradients_of_conv2d_without_bias():
    def apply(images, kernel):
        return layers.conv2d(images, kernel, None, (1, 1), "same")

    check_gradients(apply, images=random_values(IMAGES), kernel=random_values((2, 2, 2, 3), 1))


def test_conv2d_gives_the_same_image_by_image_as_all_at_once(monkeypatch):
    images, kernel, bias = random_values((5, 7, 6, 2)), random_values((4, 4, 2, 3), 1), random_values((3,), 2)
    at_once, pullback = layers.conv2d(images, kernel, bias, (1, 1), "same")
    weights = random_values(at_once.shape, 3)
    by_images, by_parameter = pullback(weights)
    monkeypatch.setattr(layers, "COLUMN_BYTES", 1)
    one_by_one, pullback = layers.conv2d(images, kernel, bias, (1, 1), "same")
    np.testing.assert_allclose(one_by_one, at_once, rtol=0, atol=1e-13)
    by_images_again, by_parameter_again = pullback(weights)
    np.testing.assert_allclose(by_images_again, by_images, rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_parameter_again["kernel"], by_parameter["kernel"], rtol=0, atol=1e-12)


@windowed
def test_max_pool_is_the_largest_true_value_of_each_window(window, strides, padding):
    images = random_values(IMAGES) - 5.0  # all negative: a zero from the padding would win
    expected = np.nanmax(windows_of(images, window, strides, padding), axis=(3, 4))
    np.testing.assert_array_equal(layers.max_pool(images, window, strides, padding)[0], expected)


@windowed
def test_gradients_of_max_pool(window, strides, padding):
    check_gradients(lambda images: layers.max_pool(images, window, strides, padding), images=distinct_values(IMAGES))


def test_max_pool_sends_the_gradient_to_the_first_of_tied_maxima_in_row_major_order():
    image = np.array([[0.0, 7.0, 7.0], [7.0, 7.0, 7.0], [5.0, 5.0, 5.0]]).reshape(1, 3, 3, 1)
    _, pullback = layers.max_pool(image, (3, 3), (1, 1), "valid")
    by_image = pullback(np.full((1, 1, 1, 1), 2.0))[0]
    np.testing.assert_array_equal(by_image[0, :, :, 0], [[0, 2, 0], [0, 0, 0], [0, 0, 0]])


def test_overlapping_max_pool_windows_add_their_gradients_at_a_shared_maximum():
    image = np.array([[1.0, 9.0, 2.0]]).reshape(1, 1, 3, 1)
    _, pullback = layers.max_pool(image, (1, 2), (1, 1), "valid")
    by_image = pullback(np.array([10.0, 1.0]).reshape(1, 1, 2, 1))[0]
    np.testing.assert_array_equal(by_image[0, 0, :, 0], [0.0, 11.0, 0.0])


def test_a_constant_image_pools_its_gradient_into_the_first_place_of_each_window():
    _, pullback = layers.max_pool(np.zeros((1, 4, 4, 1)), (2, 2), (2, 2), "valid")
    by_image = pullback(np.ones((1, 2, 2, 1)))[0]
    np.testing.assert_array_equal(by_image[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


@windowed
def test_average_pool_is_the_mean_of_the_true_values_of_each_window(window, strides, padding):
    images = random_values(IMAGES)
    expected = np.nanmean(windows_of(images, window, strides, padding), axis=(3, 4))
    np.testing.assert_allclose(layers.average_pool(images, window, strides, padding)[0], expected, rtol=0, atol=1e-14)


@windowed
def test_gradients_of_average_pool(window, strides, padding):
    check_gradients(lambda images: layers.average_pool(images, window, strides, padding), images=random_values(IMAGES))


def test_global_average_pool_and_its_gradients():
    images = random_values(IMAGES)
    np.testing.assert_allclose(layers.global_average_pool(images)[0][1, 0], images[1, :, :, 0].sum() / 42, rtol=1e-14)
    check_gradients(lambda images: layers.global_average_pool(images), images=images)


def test_flatten_runs_in_height_width_channel_order():
    images = random_values(IMAGES)
    assert layers.flatten(images)[0][1, (3 * 6 + 4) * 2 + 1] == images[1, 3, 4, 1]
    check_gradients(lambda images: layers.flatten(images), images=images)


def test_gradients_of_dense_with_and_without_bias():
    values, kernel, bias = random_values((4, 5)), random_values((5, 3), 1), random_values((3,), 2)
    check_gradients(
        lambda values, kernel, bias: layers.dense(values, kernel, bias), values=values, kernel=kernel, bias=bias
    )
    check_gradients(lambda values, kernel: layers.dense(values, kernel, None), values=values, kernel=kernel)


@pytest.mark.parametrize(
    ("function", "definition"),
    [
        ("linear", lambda x: x),
        ("relu", lambda x: max(x, 0.0)),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1.0 / (1.0 + math.exp(-x))),
    ],
)
def test_activations_and_their_gradients(function, definition):
    values = 4.0 * distinct_values((5, 7))
    expected = np.vectorize(definition)(values)
    np.testing.assert_allclose(layers.activation(function, values)[0], expected, rtol=1e-15, atol=1e-16)
    check_gradients(lambda values: layers.activation(function, values), values=values)


def test_the_gradient_of_relu_at_zero_is_zero():
    _, pullback = layers.activation("relu", np.array([-1.0, 0.0, -0.0, 1.0]))
    np.testing.assert_array_equal(pullback(np.ones(4))[0], [0.0, 0.0, 0.0, 1.0])


def test_sigmoid_saturates_without_overflow():
    values, pullback = layers.activation("sigmoid", np.array([-1000.0, 0.0, 1000.0]))
    np.testing.assert_array_equal(values, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(pullback(np.ones(3))[0], [0.0, 0.25, 0.0])


@pytest.mark.parametrize("shape", [(6, 3), (3, 2, 4, 3)], ids=["flat", "images"])
def test_batch_norm_in_training_form_and_its_gradients(shape):
    values = 2.0 + 3.0 * random_values(shape)
    scale, offset = random_values((3,), 1), random_values((3,), 2)

    def apply(values, scale, offset):
        return layers.batch_norm(values, scale, offset, *layers.moments(values), 1e-3)

    channel = values[..., 1].ravel()
    mean = sum(channel) / len(channel)
    variance = sum((channel - mean) ** 2) / len(channel)
    expected = scale[1] * (values[..., 1] - mean) / math.sqrt(variance + 1e-3) + offset[1]
    np.testing.assert_allclose(apply(values, scale, offset)[0][..., 1], expected, rtol=0, atol=1e-13)
    check_gradients(apply, values=values, scale=scale, offset=offset)


def test_dropout_keeps_zeroes_and_scales_its_gradient_alike():
    values = 1.0 + np.abs(random_values((50, 40)))
    output, pullback = layers.dropout(values, 0.25, np.random.default_rng(0))
    kept = output != 0.0
    np.testing.assert_allclose(output[kept], values[kept] / 0.75, rtol=1e-15)
    gradient = pullback(np.full(values.shape, 3.0))[0]
    np.testing.assert_array_equal(gradient, np.where(kept, 3.0 * (1 / 0.75), 0.0))


def test_cross_entropy_and_its_gradient():
    logits, labels = random_values((4, 5)), np.array([0, 4, 2, 2])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses, by_logits = layers.cross_entropy(logits, labels)
    np.testing.assert_allclose(
        losses, [-math.log(probabilities[i, label]) for i, label in enumerate(labels)], rtol=1e-13
    )
    for place in np.ndindex(logits.shape):
        means = []
        for change in (1e-5, -1e-5):
            changed = logits.copy()
            changed[place] += change
            means.append(layers.cross_entropy(changed, labels)[0].mean())
        assert by_logits[place] == pytest.approx((means[0] - means[1]) / 2e-5, abs=1e-10)


def test_cross_entropy_of_equal_and_of_huge_logits():
    labels = np.array([0, 1])
    np.testing.assert_allclose(layers.cross_entropy(np.zeros((2, 10)), labels)[0], math.log(10), rtol=1e-15)
    losses, by_logits = layers.cross_entropy(np.array([[2000.0, 0.0], [2000.0, 0.0]]), labels)
    np.testing.assert_array_equal(losses, [0.0, 2000.0])
    np.testing.assert_array_equal(by_logits, [[0.0, 0.0], [0.5, -0.5]])


def test_margins_are_relative_and_leave_out_exact_zeros_and_ties():
    assert layers.relu_margin(np.array([0.0, -0.5, 2.0, -4.0])) == 0.125
    assert layers.relu_margin(np.zeros(3)) == math.inf
    image = np.array([[8.0, 8.0, 1.0, 2.0], [6.0, 8.0, 2.0, 2.0]]).reshape(1, 2, 4, 1)
    assert layers.max_pool_margin(image, (2, 2), (2, 2), "valid") == 0.125
    assert layers.max_pool_margin(np.zeros((1, 2, 2, 1)), (2, 2), (2, 2), "valid") == math.inf
