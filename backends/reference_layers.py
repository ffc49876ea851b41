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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from harness.core.model import same_padding, window_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Gradients = tuple[Array, dict[str, Array]]
    Pullback = Callable[..., Gradients]

COLUMN_BYTES = 4 * 1024 * 1024
"""A convolution unrolls as many images at a time as fit into this, so that memory stays bounded."""


@dataclass(frozen=True)
class _Windows:
    """Where a window of (height, width) falls on images: zeros around them, output size, strides, image size."""

    window: tuple[int, int]
    strides: tuple[int, int]
    rows_around: tuple[int, int]
    columns_around: tuple[int, int]
    output: tuple[int, int]
    image: tuple[int, int]

    @classmethod
    def over(cls, images: Any, window: tuple[int, int], strides: tuple[int, int], padding: str) -> _Windows:
        sizes = images.shape[1:3]
        around = [
            same_padding(size, reach, stride) if padding == "same" else (0, 0)
            for size, reach, stride in zip(sizes, window, strides, strict=True)
        ]
        output = [
            window_output(size, reach, stride, padding)
            for size, reach, stride in zip(sizes, window, strides, strict=True)
        ]
        return cls(window, strides, around[0], around[1], (output[0], output[1]), (sizes[0], sizes[1]))

    def pad(self, images: Any, fill: float = 0.0) -> Any:
        """Images (N, H, W, C) with ``fill`` around them; the same array where there is nothing to add."""
        if not any(self.rows_around + self.columns_around):
            return images
        return np.pad(images, ((0, 0), self.rows_around, self.columns_around, (0, 0)), constant_values=fill)

    def crop(self, padded: Any) -> Any:
        """Undo ``pad``."""
        (top, bottom), (left, right) = self.rows_around, self.columns_around
        return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]

    def places(self, padded: Any) -> Iterator[Any]:
        """For each place in the window, row by row: a view (N, Hout, Wout, C) of what falls on it."""
        height, width = ((size - 1) * stride + 1 for size, stride in zip(self.output, self.strides, strict=True))
        for row in range(self.window[0]):
            for column in range(self.window[1]):
                yield padded[:, row : row + height : self.strides[0], column : column + width : self.strides[1]]

    def unrolled(self, padded: Any) -> Any:
        """The places side by side: (N * Hout * Wout, Kh * Kw * C), to be multiplied with an HWIO kernel."""
        every = sliding_window_view(padded, self.window, axis=(1, 2))  # (N, H, W, C, Kh, Kw)
        rows = slice(None, (self.output[0] - 1) * self.strides[0] + 1, self.strides[0])
        columns = slice(None, (self.output[1] - 1) * self.strides[1] + 1, self.strides[1])
        side_by_side = every[:, rows, columns].transpose(0, 1, 2, 4, 5, 3)
        return np.reshape(side_by_side, (-1, self.window[0] * self.window[1] * padded.shape[3]))

    def fold(self, unrolled: Any, padded: Any) -> None:
        """The way back of ``unrolled``: add each value to the place in ``padded`` that it is of."""
        side_by_side = unrolled.reshape(-1, *self.output, self.window[0] * self.window[1], padded.shape[3])
        for number, place in enumerate(self.places(padded)):
            place += side_by_side[:, :, :, number]


@dataclass(frozen=True)
class Convolution:
    """The three products of a cross-correlation over images of one shape (N, H, W, C), in their own precision."""

    windows: _Windows

    def apply(self, images: Any, kernel: Any) -> Any:
        """Images (N, H, W, Cin), kernel (Kh, Kw, Cin, Cout) -> (N, Hout, Wout, Cout)."""
        padded, matrix = self.windows.pad(images), kernel.reshape(-1, kernel.shape[3])
        output = np.empty((len(images), *self.windows.output, kernel.shape[3]), padded.dtype)
        for part in self._parts(padded):
            np.matmul(self.windows.unrolled(padded[part]), matrix, out=output[part].reshape(-1, kernel.shape[3]))
        return output

    def by_kernel(self, images: Any, gradient: Any) -> Any:
        """The gradient by the kernel, given that by the output (N, Hout, Wout, Cout)."""
        padded, filters = self.windows.pad(images), gradient.shape[3]
        total = np.zeros((math.prod(self.windows.window) * images.shape[3], filters), padded.dtype)
        for part in self._parts(padded):
            total += self.windows.unrolled(padded[part]).T @ gradient[part].reshape(-1, filters)
        return total.reshape(*self.windows.window, images.shape[3], filters)

    def by_values(self, gradient: Any, kernel: Any) -> Any:
        """The gradient by the images, given that by the output."""
        windows, matrix = self.windows, kernel.reshape(-1, kernel.shape[3])
        (top, bottom), (left, right) = windows.rows_around, windows.columns_around
        height, width = windows.image
        padded = np.zeros((len(gradient), top + height + bottom, left + width + right, kernel.shape[2]), gradient.dtype)
        for part in self._parts(padded):
            windows.fold(gradient[part].reshape(-1, kernel.shape[3]) @ matrix.T, padded[part])
        return windows.crop(padded)

    def _parts(self, padded: Any) -> list[slice]:
        unrolled = math.prod(self.windows.window) * math.prod(self.windows.output) * padded.shape[3] * padded.itemsize
        at_a_time = max(1, COLUMN_BYTES // unrolled)
        return [slice(start, start + at_a_time) for start in range(0, len(padded), at_a_time)]


class MatrixProduct:
    """The three products of a dense layer."""

    def apply(self, values: Any, kernel: Any) -> Any:
        """Values (N, in), kernel (in, out) -> (N, out)."""
        return values @ kernel

    def by_kernel(self, values: Any, gradient: Any) -> Any:
        """The gradient by the kernel, given that by the output."""
        return values.T @ gradient

    def by_values(self, gradient: Any, kernel: Any) -> Any:
        """The gradient by the values, given that by the output."""
        return gradient @ kernel.T


def convolution(images: Any, kernel: Any, strides: tuple[int, int], padding: str) -> Convolution:
    """The products of a cross-correlation of the images with the kernel."""
    return Convolution(_Windows.over(images, (kernel.shape[0], kernel.shape[1]), strides, padding))


def conv2d(
    images: Array, kernel: Array, bias: Array | None, strides: tuple[int, int], padding: str
) -> tuple[Array, Pullback]:
    """Cross-correlation: images (N, H, W, Cin), kernel (Kh, Kw, Cin, Cout) -> (N, Hout, Wout, Cout).

    With ``inward=False`` the pullback leaves the gradient by the images out and gives None in its place.
    """
    return _biased(convolution(images, kernel, strides, padding), images, kernel, bias)


def dense(values: Array, kernel: Array, bias: Array | None) -> tuple[Array, Pullback]:
    """Matrix product: values (N, in), kernel (in, out) -> (N, out). ``inward``: as ``conv2d`` has it."""
    return _biased(MatrixProduct(), values, kernel, bias)


def _biased(
    product: Convolution | MatrixProduct, values: Array, kernel: Array, bias: Array | None
) -> tuple[Array, Pullback]:
    output = product.apply(values, kernel)
    if bias is not None:
        output += bias

    def pullback(gradient: Array, inward: bool = True) -> Any:
        by_values = product.by_values(gradient, kernel) if inward else None
        return by_values, _named(product.by_kernel(values, gradient), bias, gradient)

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
    winner = np.zeros(output.shape, np.int8 if math.prod(pool) < 128 else np.int32)
    for number, place in enumerate(windows.places(padded)):
        np.copyto(winner, number, where=place > output, casting="unsafe")
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


def cross_entropy(logits: Array, labels: NDArray[np.integer], smoothing: float = 0.0) -> tuple[Array, Array]:
    """Softmax cross-entropy of each example (N,), and the gradient (N, classes) of their mean.

    ``smoothing``: the share of the label that all classes have in equal parts.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    losses = np.log(sums[:, 0]) - (1.0 - smoothing) * shifted[rows, labels]
    by_logits = exponentials / sums
    by_logits[rows, labels] -= 1.0 - smoothing
    if smoothing:
        losses -= smoothing * shifted.mean(axis=1)
        by_logits -= smoothing / logits.shape[1]
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
