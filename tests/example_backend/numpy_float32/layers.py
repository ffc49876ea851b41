"""Layers in NumPy float32, each a forward pass that returns its own way back.

A layer takes its input (N, ...) and returns its output and a function from the loss's gradient by the output to
the gradient by the input and those by its parameters. Layouts are the harness's: NHWC, HWIO, dense (in, out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray[Any, Any]
Back = Callable[[Array], tuple[Array, dict[str, Array]]]


def conv2d(
    images: Array, kernel: Array, bias: Array | None, strides: tuple[int, int], around: Any
) -> tuple[Array, Back]:
    """Cross-correlation; ``around`` is the zeros before and after the rows and the columns."""
    padded = np.pad(images, ((0, 0), *around, (0, 0)))
    windows = _windows(padded, kernel.shape[:2], strides)  # (N, Hout, Wout, C, Kh, Kw)
    output = np.tensordot(windows, kernel, axes=([4, 5, 3], [0, 1, 2]))
    if bias is not None:
        output = output + bias

    def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
        by_kernel = np.tensordot(windows, gradient, axes=([0, 1, 2], [0, 1, 2])).transpose(1, 2, 0, 3)
        by_padded = np.zeros_like(padded)
        by_windows = np.tensordot(gradient, kernel, axes=([3], [3]))  # (N, Hout, Wout, Kh, Kw, C)
        for row, column, place in _places(by_padded, kernel.shape[:2], strides, gradient.shape[1:3]):
            place += by_windows[:, :, :, row, column]
        by_bias = {} if bias is None else {"bias": gradient.sum(axis=(0, 1, 2))}
        return _inside(by_padded, around), {"kernel": by_kernel, **by_bias}

    return output, back


def max_pool(images: Array, pool: tuple[int, int], strides: tuple[int, int], around: Any) -> tuple[Array, Back]:
    """Largest of each window. The first of tied maxima, row by row, takes the gradient."""
    padded = np.pad(images, ((0, 0), *around, (0, 0)), constant_values=-np.inf)
    windows = _windows(padded, pool, strides)
    flat = windows.reshape(*windows.shape[:4], -1)
    winners = flat.argmax(axis=4)  # the first, as argmax has it
    output = np.take_along_axis(flat, winners[..., None], axis=4)[..., 0]

    def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
        by_padded = np.zeros_like(padded)
        for row, column, place in _places(by_padded, pool, strides, gradient.shape[1:3]):
            place += np.where(winners == row * pool[1] + column, gradient, np.float32(0))
        return _inside(by_padded, around), {}

    return output, back


def dense(values: Array, kernel: Array, bias: Array | None) -> tuple[Array, Back]:
    """Matrix product."""
    output = values @ kernel if bias is None else values @ kernel + bias

    def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
        by_bias = {} if bias is None else {"bias": gradient.sum(axis=0)}
        return gradient @ kernel.T, {"kernel": values.T @ gradient, **by_bias}

    return output, back


def activation(function: str, values: Array) -> tuple[Array, Back]:
    """``linear``, ``relu``, ``tanh`` or ``sigmoid``."""
    if function == "linear":
        return values, lambda gradient: (gradient, {})
    if function == "relu":
        return np.maximum(values, np.float32(0)), lambda gradient: (gradient * (values > 0), {})
    if function == "tanh":
        output = np.tanh(values)
        return output, lambda gradient: (gradient * (1 - output * output), {})
    output = (np.tanh(values / 2) + 1) / 2  # cannot overflow
    return output, lambda gradient: (gradient * output * (1 - output), {})


def flatten(images: Array) -> tuple[Array, Back]:
    """In H, W, C order."""
    return images.reshape(len(images), -1), lambda gradient: (gradient.reshape(images.shape), {})


def dropout(values: Array, rate: float, generator: np.random.Generator) -> tuple[Array, Back]:
    """Zero each value with probability ``rate``, scale the others so that the mean stays."""
    mask = (generator.random(values.shape, np.float32) >= rate).astype(np.float32) / np.float32(1 - rate)
    return values * mask, lambda gradient: (gradient * mask, {})


def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Each example's loss (N,), and the gradient of their mean by the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(logarithms)
    gradient[rows, labels] -= 1
    return -logarithms[rows, labels], gradient / np.float32(len(labels))


def _windows(padded: Array, window: tuple[int, ...], strides: tuple[int, int]) -> Array:
    every = sliding_window_view(padded, window, axis=(1, 2))
    return every[:, :: strides[0], :: strides[1]]


def _places(padded: Array, window: tuple[int, ...], strides: tuple[int, int], output: tuple[int, ...]) -> Any:
    """For each place in the window: its row and column, and the view of what it falls on."""
    height, width = ((size - 1) * stride + 1 for size, stride in zip(output, strides, strict=True))
    for row in range(window[0]):
        for column in range(window[1]):
            yield row, column, padded[:, row : row + height : strides[0], column : column + width : strides[1]]


def _inside(padded: Array, around: Any) -> Array:
    (top, bottom), (left, right) = around
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]
