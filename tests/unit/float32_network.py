"""Training steps in float32, with sums in an order of one's choice: what a target may be that rounds as it likes.

Written apart from the reference, for every layer, optimizer and padding of ``harness.core``. ``order`` says how sums
are added up: ``blas`` (as NumPy's library does), ``forward`` and ``backward`` (one after the other, from the first or
from the last, in chains of 1024), ``blocks`` (eight sums in turns, then these).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from harness.core.cell import Cell
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    pair_strides,
    same_padding,
)

Array = Any
Back = Callable[[Array], tuple[Array, dict[str, Array]]]
CHAIN = 1024
ORDERS = ("blas", "forward", "backward", "blocks")
F = np.float32


@dataclass
class Fault:
    """What is wrong, if anything.

    ``half``: a layer whose values and kernel are rounded to so many ``bits``. ``last_tie``: the last of tied maxima
    takes the gradient. ``unbiased``: a moving variance with Bessel's correction. ``epsilon``: Adam's after the
    correction of its bias. ``rows``: the batch's rows that are trained on, None for all.
    """

    half: str = ""
    bits: int = 8
    last_tie: bool = False
    unbiased: bool = False
    epsilon: bool = False
    rows: Any = None


def rounded(values: Array, bits: int) -> Array:
    """To so many bits of mantissa."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * F(2**bits)) / F(2**bits), exponent).astype(F)


class Float32Network:
    """Steps of a cell from a state, without dropout but by given masks."""

    def __init__(self, cell: Cell, state: dict[str, Array], order: str = "blas", fault: Fault | None = None) -> None:
        self._model, self._training = cell.model, cell.training
        self._rates = cell.training.learning_rates(cell.steps_per_epoch)
        self._order, self._fault = order, fault or Fault()
        self.state = {key: np.array(value, F) for key, value in state.items()}
        self.moved: dict[str, tuple[Array, Array, int]] = {}

    def step(self, number: int, images: Array, labels: Array, masks: dict[str, Array]) -> dict[str, Array]:
        """One step; what the batch gives before it."""
        rows = self._fault.rows
        if rows is not None:
            images, labels, masks = images[rows], labels[rows], {key: mask[rows] for key, mask in masks.items()}
        backs = []
        values = np.asarray(images, F)
        for trace in self._model.traced:
            for apply in self._layer(trace.name, trace.layer, masks):
                values, back = apply(values)
                backs.append((trace.name, back))
        shifted = values - values.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        totals = self._sum(exponentials, 1)
        gradient = exponentials / totals[:, None]
        smoothing = self._training.label_smoothing
        if smoothing:
            rest = F(smoothing / values.shape[1])
            wanted = np.full_like(values, rest)
            wanted[np.arange(len(labels)), labels] = F(1 - smoothing) + rest
            losses = self._sum(wanted * (np.log(totals)[:, None] - shifted), 1)
            gradient -= wanted
        else:
            losses = np.log(totals) - shifted[np.arange(len(labels)), labels]
            gradient[np.arange(len(labels)), labels] -= F(1)
        gradient /= F(len(labels))
        found = {"logits": values, "loss": self._sum(losses, 0) / F(len(labels))}
        for name, back in reversed(backs):
            gradient, by = back(gradient)
            found |= {f"gradient/{name}/{key}": value for key, value in by.items()}
        self._update(number, found)
        for name, (mean, variance, count) in self.moved.items():
            layer = next(trace.layer for trace in self._model.traced if trace.name == name)
            assert isinstance(layer, BatchNorm)
            if self._fault.unbiased:
                variance = variance * F(count / (count - 1))
            momentum = F(layer.momentum)
            for key, value in (("moving_mean", mean), ("moving_variance", variance)):
                full = f"statistic/{name}/{key}"
                self.state[full] = momentum * self.state[full] + (F(1) - momentum) * value
        return found

    def _update(self, number: int, found: dict[str, Array]) -> None:
        spec = self._training.optimizer
        rate = F(next(rate for first, rate in reversed(self._rates) if first <= number))
        share = F(1)
        if spec.clip_norm:
            squares = [
                self._sum((found[f"gradient/{name}"] ** 2).reshape(-1), 0) for name in self._model.parameter_shapes
            ]
            norm = np.sqrt(self._sum(np.stack(squares), 0))
            share = F(spec.clip_norm) * min(F(1) / norm, F(1) / F(spec.clip_norm))
        for name in self._model.parameter_shapes:
            gradient = found[f"gradient/{name}"]
            gradient = gradient * share if spec.clip_norm else gradient
            if spec.decays(name, "l2"):
                gradient = gradient + F(spec.weight_decay) * self.state[f"parameter/{name}"]
            if spec.decays(name, "decoupled"):
                kernel = self.state[f"parameter/{name}"]
                self.state[f"parameter/{name}"] = kernel - rate * F(spec.weight_decay) * kernel
            key, velocity = f"parameter/{name}", f"optimizer/velocity/{name}"
            if spec.name == "sgd":
                self.state[key] = self.state[key] - rate * gradient
            elif spec.name == "adam":
                one, two = F(spec.beta_1), F(spec.beta_2)
                first = self.state[f"optimizer/first/{name}"] * one + (F(1) - one) * gradient
                second = self.state[f"optimizer/second/{name}"] * two + (F(1) - two) * gradient * gradient
                self.state |= {f"optimizer/first/{name}": first, f"optimizer/second/{name}": second}
                left = F(1) - one ** F(number + 1), F(1) - two ** F(number + 1)
                correction = np.sqrt(left[1]) / left[0]
                if self._fault.epsilon:
                    change = (first / left[0]) / (np.sqrt(second / left[1]) + F(spec.epsilon))
                else:
                    change = correction * first / (np.sqrt(second) + F(spec.epsilon))
                self.state[key] = self.state[key] - rate * change
            else:
                moving = self.state[velocity] = F(spec.momentum) * self.state[velocity] - rate * gradient
                ahead = F(spec.momentum) * moving - rate * gradient
                self.state[key] = self.state[key] + (moving if spec.name == "momentum" else ahead)

    def _layer(self, name: str, layer: Any, masks: dict[str, Array]) -> list[Callable[[Array], tuple[Array, Back]]]:
        kernel, bias = (self.state.get(f"parameter/{name}/{key}") for key in ("kernel", "bias"))
        if isinstance(layer, (Conv2D, Dense)):
            strides, padding = (layer.strides, layer.padding) if isinstance(layer, Conv2D) else ((1, 1), "valid")
            bits = self._fault.bits if self._fault.half == name else 0

            def product(values: Array) -> tuple[Array, Back]:
                flat = values.ndim == 2
                images, weights = (values[:, None, None], kernel[None, None]) if flat else (values, kernel)
                if bits:
                    images, weights = rounded(images, bits), rounded(weights, bits)
                output, back = self._convolve(images, weights, strides, padding)
                output = output if bias is None else output + bias

                def pull(gradient: Array) -> tuple[Array, dict[str, Array]]:
                    outward = gradient[:, None, None] if flat else gradient
                    inward, by_kernel = back(outward)
                    by = {"kernel": by_kernel[0, 0] if flat else by_kernel}
                    if bias is not None:
                        by["bias"] = self._sum(outward.reshape(-1, outward.shape[-1]), 0)
                    return inward.reshape(values.shape), by

                return output[:, 0, 0] if flat else output, pull

            return [product, lambda values: _activate(layer.activation, values)]
        if isinstance(layer, MaxPool):
            return [lambda values: self._max_pool(values, layer)]
        if isinstance(layer, AveragePool):
            return [lambda values: self._average_pool(values, layer)]
        if isinstance(layer, GlobalAveragePool):

            def mean(values: Array) -> tuple[Array, Back]:
                count = F(values.shape[1] * values.shape[2])
                total = self._sum(values.reshape(len(values), -1, values.shape[3]), 1)
                back = lambda gradient: (np.broadcast_to((gradient / count)[:, None, None], values.shape), {})  # noqa: E731
                return total / count, back

            return [mean]
        if isinstance(layer, BatchNorm):
            return [lambda values: self._normalise(values, name, layer)]
        if isinstance(layer, Activation):
            return [lambda values: _activate(layer.function, values)]
        if isinstance(layer, Flatten):
            return [lambda values: (values.reshape(len(values), -1), lambda g: (g.reshape(values.shape), {}))]
        assert isinstance(layer, Dropout)
        if not layer.rate:
            return []
        mask = masks[name].astype(F) / F(1 - layer.rate)
        return [lambda values: (values * mask, lambda gradient: (gradient * mask, {}))]

    def _sum(self, values: Array, axis: int) -> Array:
        values = np.moveaxis(values, axis, 0)
        if self._order == "blas":
            return np.ascontiguousarray(np.moveaxis(values, 0, -1)).sum(axis=-1)  # pairwise
        if self._order == "backward":
            values = values[::-1]
        if self._order == "blocks":
            values = np.stack([self._run(values[start::8]) for start in range(min(8, len(values)))])
        return self._run(values)

    def _run(self, values: Array) -> Array:
        """One after the other, in chains of no more than ``CHAIN``."""
        if len(values) > CHAIN:
            values = np.stack([self._run(values[start : start + CHAIN]) for start in range(0, len(values), CHAIN)])
        total = values[0].astype(F)
        for value in values[1:]:
            total = total + value
        return total

    def _matrix(self, left: Array, right: Array) -> Array:
        """Left (M, K) times right (K, N)."""
        if self._order == "blas":
            return left @ right
        return self._sum(left.T[:, :, None] * right[:, None, :], 0)

    def _convolve(
        self, images: Array, kernel: Array, strides: tuple[int, int], padding: str
    ) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
        around = _around(images, kernel.shape[:2], strides, padding)
        padded = np.pad(images, ((0, 0), *around, (0, 0)))
        windows = sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))[:, :: strides[0], :: strides[1]]
        shape = windows.shape[:3]
        unrolled = windows.transpose(0, 1, 2, 4, 5, 3).reshape(math.prod(shape), -1)
        matrix = kernel.reshape(-1, kernel.shape[3])

        def back(gradient: Array) -> tuple[Array, Array]:
            rows = gradient.reshape(-1, kernel.shape[3])
            by_unrolled = self._matrix(rows, matrix.T).reshape(*shape, *kernel.shape[:3])
            by_padded = np.zeros_like(padded)
            for row, column, place in _places(by_padded, kernel.shape[:2], strides, shape[1:]):
                place += by_unrolled[:, :, :, row, column]
            return _inside(by_padded, around), self._matrix(unrolled.T, rows).reshape(kernel.shape)

        return self._matrix(unrolled, matrix).reshape(*shape, -1), back

    def _max_pool(self, images: Array, layer: MaxPool) -> tuple[Array, Back]:
        strides = pair_strides(layer)
        around = _around(images, layer.pool, strides, layer.padding)
        padded = np.pad(images, ((0, 0), *around, (0, 0)), constant_values=-np.inf)
        windows = sliding_window_view(padded, layer.pool, axis=(1, 2))[:, :: strides[0], :: strides[1]]
        flat = windows.reshape(*windows.shape[:4], -1)
        winner = flat.argmax(axis=4)
        if self._fault.last_tie:
            winner = flat.shape[4] - 1 - flat[..., ::-1].argmax(axis=4)

        def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
            by_padded = np.zeros_like(padded)
            for row, column, place in _places(by_padded, layer.pool, strides, gradient.shape[1:3]):
                place += np.where(winner == row * layer.pool[1] + column, gradient, F(0))
            return _inside(by_padded, around), {}

        return np.take_along_axis(flat, winner[..., None], axis=4)[..., 0], back

    def _average_pool(self, images: Array, layer: AveragePool) -> tuple[Array, Back]:
        strides = pair_strides(layer)
        around = _around(images, layer.pool, strides, layer.padding)
        padded = np.pad(images, ((0, 0), *around, (0, 0)))
        ones = np.pad(np.ones_like(images[:1, :, :, :1]), ((0, 0), *around, (0, 0)))
        windows, counts = (
            sliding_window_view(array, layer.pool, axis=(1, 2))[:, :: strides[0], :: strides[1]]
            for array in (padded, ones)
        )
        count = counts.sum(axis=(4, 5))

        def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
            by_padded = np.zeros_like(padded)
            for _, _, place in _places(by_padded, layer.pool, strides, gradient.shape[1:3]):
                place += gradient / count
            return _inside(by_padded, around), {}

        return self._sum(windows.reshape(*windows.shape[:4], -1), 4) / count, back

    def _normalise(self, values: Array, name: str, layer: BatchNorm) -> tuple[Array, Back]:
        flat = values.reshape(-1, values.shape[-1])
        count = F(len(flat))
        mean = self._sum(flat, 0) / count
        if self._order == "blocks":  # as some do it: what is subtracted may be large
            variance = np.maximum(self._sum(flat * flat, 0) / count - mean * mean, F(0))
        else:
            variance = self._sum((flat - mean) ** 2, 0) / count
        scale, offset = (self.state[f"parameter/{name}/{key}"] for key in ("scale", "offset"))
        self.moved[name] = mean, variance, len(flat)
        inverse = F(1) / np.sqrt(variance + F(layer.epsilon))
        normal = (flat - mean) * inverse

        def back(gradient: Array) -> tuple[Array, dict[str, Array]]:
            rows = gradient.reshape(flat.shape)
            by_scale, by_offset = self._sum(rows * normal, 0), self._sum(rows, 0)
            inward = scale * inverse * (rows - by_offset / count - normal * (by_scale / count))
            return inward.reshape(values.shape), {"scale": by_scale, "offset": by_offset}

        return (scale * normal + offset).reshape(values.shape), back


def _activate(function: str, values: Array) -> tuple[Array, Back]:
    if function == "linear":
        return values, lambda gradient: (gradient, {})
    if function == "relu":
        return np.maximum(values, F(0)), lambda gradient: (gradient * (values > 0), {})
    if function == "tanh":
        output = np.tanh(values)
        return output, lambda gradient: (gradient * (F(1) - output * output), {})
    output = F(0.5) * np.tanh(F(0.5) * values) + F(0.5)
    return output, lambda gradient: (gradient * output * (F(1) - output), {})


def _around(images: Array, window: Any, strides: tuple[int, int], padding: str) -> Any:
    if padding == "valid":
        return (0, 0), (0, 0)
    return tuple(same_padding(*sizes) for sizes in zip(images.shape[1:3], window, strides, strict=True))


def _places(padded: Array, window: Any, strides: tuple[int, int], output: Any) -> Any:
    height, width = ((size - 1) * stride + 1 for size, stride in zip(output, strides, strict=True))
    for row in range(window[0]):
        for column in range(window[1]):
            yield row, column, padded[:, row : row + height : strides[0], column : column + width : strides[1]]


def _inside(padded: Array, around: Any) -> Array:
    (top, bottom), (left, right) = around
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]
