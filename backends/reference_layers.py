"""The layers of ``harness.core.model`` in NumPy float64: pure functions, each with its gradient.

A layer function takes a batch (N, ...) and its parameters and returns the output and a *pullback*: a
function from the loss's gradient by the output to the gradient by the input and, under their short
names, by the parameters (reverse-mode differentiation; Baydin et al., JMLR 18, 2018, section 3.2).
Layouts are canonical: NHWC, kernels HWIO, dense kernels (in, out).

Everything that slides a window over an image is written in terms of its *places*: for each place in
the window, row by row, the strided slice of the padded images that falls on it. A convolution
multiplies the places, side by side, with the kernel as a matrix (Chellapilla et al., "High Performance
Convolutional Neural Networks for Document Processing", 2006); a pool reduces over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.core.model import same_padding, window_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Gradients = tuple[Array, dict[str, Array]]
    Pullback = Callable[[Array], Gradients]

COLUMN_BYTES = 4 * 1024 * 1024
"""A convolution unrolls as many images at a time as fit into this, so that memory stays bounded."""


@dataclass(frozen=True)
class _Windows:
    """Where a window of (height, width) falls on images: zeros around them, output size, and strides."""

    window: tuple[int, int]
    strides: tuple[int, int]
    rows_around: tuple[int, int]
    columns_around: tuple[int, int]
    output: tuple[int, int]

    @classmethod
    def over(cls, images: Array, window: tuple[int, int], strides: tuple[int, int], padding: str) -> _Windows:
        sizes = images.shape[1:3]
        around = [
            same_padding(size, reach, stride) if padding == "same" else (0, 0)
            for size, reach, stride in zip(sizes, window, strides, strict=True)
        ]
        output = [
            window_output(size, reach, stride, padding)
            for size, reach, stride in zip(sizes, window, strides, strict=True)
        ]
        return cls(window, strides, around[0], around[1], (output[0], output[1]))

    def pad(self, images: Array, fill: float = 0.0) -> Array:
        """Images (N, H, W, C) with ``fill`` around them; the same array where there is nothing to add."""
        if not any(self.rows_around + self.columns_around):
            return images
        return np.pad(images, ((0, 0), self.rows_around, self.columns_around, (0, 0)), constant_values=fill)

    def crop(self, padded: Array) -> Array:
        """Undo ``pad``."""
        (top, bottom), (left, right) = self.rows_around, self.columns_around
        return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]

    def places(self, padded: Array) -> Iterator[Array]:
        """For each place in the window, row by row: a view (N, Hout, Wout, C) of what falls on it."""
        height, width = ((size - 1) * stride + 1 for size, stride in zip(self.output, self.strides, strict=True))
        for row in range(self.window[0]):
            for column in range(self.window[1]):
                yield padded[:, row : row + height : self.strides[0], column : column + width : self.strides[1]]

    def unrolled(self, padded: Array) -> Array:
        """The places side by side: (N * Hout * Wout, Kh * Kw * C), to be multiplied with an HWIO kernel."""
        side_by_side = np.stack(list(self.places(padded)), axis=3)
        return side_by_side.reshape(-1, self.window[0] * self.window[1] * padded.shape[3])


def conv2d(
    images: Array, kernel: Array, bias: Array | None, strides: tuple[int, int], padding: str
) -> tuple[Array, Pullback]:
    """Cross-correlation: images (N, H, W, Cin), kernel (Kh, Kw, Cin, Cout) -> (N, Hout, Wout, Cout)."""
    windows = _Windows.over(images, (kernel.shape[0], kernel.shape[1]), strides, padding)
    padded = windows.pad(images)
    matrix = kernel.reshape(-1, kernel.shape[3])
    shape = (len(images), *windows.output, kernel.shape[3])
    at_a_time = max(1, COLUMN_BYTES // (matrix.shape[0] * windows.output[0] * windows.output[1] * padded.itemsize))
    parts = [slice(start, start + at_a_time) for start in range(0, len(images), at_a_time)]
    output = np.empty(shape)
    for part in parts:
        output[part] = (windows.unrolled(padded[part]) @ matrix).reshape(-1, *shape[1:])
    if bias is not None:
        output += bias

    def pullback(gradient: Array) -> Gradients:
        by_padded = np.zeros_like(padded)
        by_matrix = np.zeros_like(matrix)
        by_place = kernel.reshape(-1, *kernel.shape[2:])
        for part in parts:
            rows = gradient[part].reshape(-1, shape[3])
            by_matrix += windows.unrolled(padded[part]).T @ rows
            for place, weights in zip(windows.places(by_padded[part]), by_place, strict=True):
                place += (rows @ weights.T).reshape(place.shape)
        return windows.crop(by_padded), _named(by_matrix.reshape(kernel.shape), bias, gradient)

    return output, pullback


def dense(values: Array, kernel: Array, bias: Array | None) -> tuple[Array, Pullback]:
    """Matrix product: values (N, in), kernel (in, out) -> (N, out)."""
    output = values @ kernel
    if bias is not None:
        output += bias

    def pullback(gradient: Array) -> Gradients:
        return gradient @ kernel.T, _named(values.T @ gradient, bias, gradient)

    return output, pullback


def _named(by_kernel: Array, bias: Array | None, gradient: Array) -> dict[str, Array]:
    """Gradients of a kernel and, where there is one, of the bias that was added to each output."""
    by_bias = {} if bias is None else {"bias": gradient.reshape(-1, len(bias)).sum(axis=0)}
    return {"kernel": by_kernel, **by_bias}


def max_pool(images: Array, pool: tuple[int, int], strides: tuple[int, int], padding: str) -> tuple[Array, Pullback]:
    """Largest of each window: (N, H, W, C) -> (N, Hout, Wout, C). The first of tied maxima takes the gradient."""
    windows = _Windows.over(images, pool, strides, padding)
    padded = windows.pad(images, -np.inf)
    output = np.full((len(images), *windows.output, images.shape[3]), -np.inf)
    winner = np.zeros(output.shape, np.int32)
    for number, place in enumerate(windows.places(padded)):
        winner[place > output] = number
        np.maximum(output, place, out=output)

    def pullback(gradient: Array) -> Gradients:
        by_padded = np.zeros_like(padded)
        for number, place in enumerate(windows.places(by_padded)):
            place += gradient * (winner == number)
        return windows.crop(by_padded), {}

    return output, pullback


def average_pool(
    images: Array, pool: tuple[int, int], strides: tuple[int, int], padding: str
) -> tuple[Array, Pullback]:
    """Mean of each window's true values: (N, H, W, C) -> (N, Hout, Wout, C)."""
    windows = _Windows.over(images, pool, strides, padding)
    padded = windows.pad(images)
    counts = sum(windows.places(windows.pad(np.ones((1, *images.shape[1:3], 1)))), np.zeros(()))
    output = sum(windows.places(padded), np.zeros(())) / counts

    def pullback(gradient: Array) -> Gradients:
        by_padded = np.zeros_like(padded)
        for place in windows.places(by_padded):
            place += gradient / counts
        return windows.crop(by_padded), {}

    return output, pullback


def global_average_pool(images: Array) -> tuple[Array, Pullback]:
    """Mean over each channel: (N, H, W, C) -> (N, C)."""

    def pullback(gradient: Array) -> Gradients:
        share = gradient / (images.shape[1] * images.shape[2])
        return np.broadcast_to(share[:, None, None, :], images.shape), {}

    return images.mean(axis=(1, 2)), pullback


def flatten(images: Array) -> tuple[Array, Pullback]:
    """(N, H, W, C) -> (N, H * W * C)."""
    return images.reshape(len(images), -1), lambda gradient: (gradient.reshape(images.shape), {})


def activation(function: str, values: Array) -> tuple[Array, Pullback]:
    """``linear``, ``relu``, ``tanh`` or ``sigmoid`` of each value. The gradient of relu at zero is zero."""
    if function == "linear":
        return values, lambda gradient: (gradient, {})
    if function == "relu":
        return np.maximum(values, 0.0), lambda gradient: (gradient * (values > 0.0), {})
    if function == "tanh":
        tanh = np.tanh(values)
        return tanh, lambda gradient: (gradient * (1.0 - tanh * tanh), {})
    # exp of a negative number only, so that it cannot overflow.
    small = np.exp(-np.abs(values))
    sigmoid = np.where(values >= 0.0, 1.0, small) / (1.0 + small)
    return sigmoid, lambda gradient: (gradient * sigmoid * (1.0 - sigmoid), {})


def dropout(values: Array, rate: float, generator: np.random.Generator) -> tuple[Array, Pullback]:
    """Zero each value with probability ``rate``, divide the others by (1 - rate)."""
    if rate == 0.0:
        return values, lambda gradient: (gradient, {})
    mask = (generator.random(values.shape) >= rate) / (1.0 - rate)
    return values * mask, lambda gradient: (gradient * mask, {})


def moments(values: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel (last axis)."""
    axes = tuple(range(values.ndim - 1))
    return values.mean(axis=axes), values.var(axis=axes)


def batch_norm(
    values: Array, scale: Array, offset: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Pullback]:
    """Normalise (N, ..., C) by the batch's own moments. Gradient: Ioffe and Szegedy, 2015, section 3.

    The pullback holds only where ``mean`` and ``variance`` are ``moments(values)``: their dependence on
    the values is in it. With moving statistics only the output is of use.
    """
    deviation = np.sqrt(variance + epsilon)
    normal = (values - mean) / deviation

    def pullback(gradient: Array) -> Gradients:
        axes = tuple(range(values.ndim - 1))
        by_scale = (gradient * normal).sum(axis=axes)
        by_offset = gradient.sum(axis=axes)
        count = values.size // values.shape[-1]
        by_values = scale / deviation * (gradient - (by_offset + normal * by_scale) / count)
        return by_values, {"scale": by_scale, "offset": by_offset}

    return scale * normal + offset, pullback


def cross_entropy(logits: Array, labels: NDArray[np.integer]) -> tuple[Array, Array]:
    """Softmax cross-entropy of each example (N,), and the gradient (N, classes) of their mean."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    losses = np.log(sums[:, 0]) - shifted[rows, labels]
    by_logits = exponentials / sums
    by_logits[rows, labels] -= 1.0
    return losses, by_logits / len(labels)


def relu_margin(values: Array) -> float:
    """Smallest distance of a relu's input from zero, relative to the largest; exact zeros do not count."""
    magnitudes = np.abs(values)
    return _smallest(magnitudes[magnitudes > 0.0], magnitudes)


def max_pool_margin(images: Array, pool: tuple[int, int], strides: tuple[int, int], padding: str) -> float:
    """Smallest lead of a window's maximum over the next smaller value, relative to the largest magnitude."""
    windows = _Windows.over(images, pool, strides, padding)
    places = np.stack(list(windows.places(windows.pad(images, -np.inf))))
    largest = places.max(axis=0)
    lead = largest - np.where(places < largest, places, -np.inf).max(axis=0)
    return _smallest(lead, np.abs(images))


def _smallest(distances: Array, magnitudes: Array) -> float:
    """The smallest finite distance relative to the largest magnitude; infinity if there is none."""
    finite = distances[np.isfinite(distances)]
    return float(finite.min() / magnitudes.max()) if finite.size else math.inf
