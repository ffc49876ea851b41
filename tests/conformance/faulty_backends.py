"""The reference with one planted fault each: what a parity check must not let pass.

``load`` plants the fault in the worker's own process. Each is a mistake that a framework's defaults, or an
adapter's author, really make.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import backends.reference as reference
from backends import reference_layers as layers
from backends.reference import ReferenceBackend, ReferenceSession
from backends.reference_optimizers import Optimizer


def _change(self: Optimizer, name: str, gradient: Any, rate: float) -> Any:
    spec = self._spec
    if spec.name == "adam":
        first = self._first[name] = spec.beta_1 * self._first[name] + (1 - spec.beta_1) * gradient
        second = self._second[name] = spec.beta_2 * self._second[name] + (1 - spec.beta_2) * gradient**2
        unbiased = math.sqrt(1 - spec.beta_2**self._steps), 1 - spec.beta_1**self._steps
        return -rate * (first / unbiased[1]) / (np.sqrt(second) / unbiased[0] + spec.epsilon)
    velocity = self._first[name] = spec.momentum * self._first[name] + gradient
    return -rate * velocity


class RateOutsideTheVelocity(ReferenceBackend):
    """Momentum as optax and PyTorch have it: a drop of the rate rescales what was gathered before."""

    def load(self) -> None:
        Optimizer._change = _change  # type: ignore[method-assign]


class EpsilonOfTheOtherForm(RateOutsideTheVelocity):
    """Adam with epsilon after the bias correction, as optax and PyTorch have it. The fault is the same function's."""


class NesterovWithoutLookingAhead(ReferenceBackend):
    def load(self) -> None:
        right = Optimizer._change

        def change(self: Optimizer, name: str, gradient: Any, rate: float) -> Any:
            step = right(self, name, gradient, rate)
            return self._first[name] if self._spec.name == "nesterov" else step

        Optimizer._change = change  # type: ignore[method-assign]


class RateDropsAStepLate(ReferenceBackend):
    def load(self) -> None:
        right = reference._rate_at
        reference._rate_at = lambda step, rates: right(max(step - 1, 0), rates)


class UnbiasedMovingVariance(ReferenceBackend):
    """Fused batch normalisation in TensorFlow moves the variance with Bessel's correction."""

    def load(self) -> None:
        right_moments, right_move = layers.moments, ReferenceSession._move_statistics
        counts: dict[int, int] = {}

        def moments(values: Any) -> Any:
            mean, variance = right_moments(values)
            counts[id(variance)] = values.size // values.shape[-1]
            return mean, variance

        def move(self: ReferenceSession, name: str, momentum: float, moments: Any) -> None:
            count = counts[id(moments["variance"])]
            right_move(self, name, momentum, {**moments, "variance": moments["variance"] * count / (count - 1)})

        layers.moments = moments
        ReferenceSession._move_statistics = move  # type: ignore[method-assign]


class AnotherEpsilonInBatchNorm(ReferenceBackend):
    """Flax's default of 1e-5 where 1e-3 is asked for."""

    def load(self) -> None:
        right = layers.batch_norm
        layers.batch_norm = lambda *given: right(*given[:-1], 1e-5)


class PaddingOnTheOtherSide(ReferenceBackend):
    """The odd zero of ``same`` before instead of after."""

    def load(self) -> None:
        right = layers.same_padding
        layers.same_padding = lambda *sizes: right(*sizes)[::-1]


class AverageCountsPadding(ReferenceBackend):
    """Flax's default: padded places count."""

    def load(self) -> None:
        right = layers.average_pool

        def average(images: Any, pool: Any, strides: Any, padding: str) -> Any:
            output, pullback = right(images, pool, strides, padding)
            ones = np.zeros((1, images.shape[1] + 2, images.shape[2] + 2, 1))
            ones[:, 1:-1, 1:-1] = 1.0
            if padding == "same":
                counted = layers._Windows.over(images, pool, strides, padding)
                inside = sum(counted.places(counted.pad(np.ones((1, *images.shape[1:3], 1)))), np.zeros(()))
                return output * inside / (pool[0] * pool[1]), pullback
            return output, pullback

        layers.average_pool = average


class GradientToTheLastTiedMaximum(ReferenceBackend):
    def load(self) -> None:
        def pool(images: Any, window: Any, strides: Any, padding: str) -> Any:
            windows = layers._Windows.over(images, window, strides, padding)
            padded = windows.pad(images, -np.inf)
            places = np.stack(list(windows.places(padded)))
            winner = len(places) - 1 - places[::-1].argmax(axis=0)

            def pullback(gradient: Any) -> Any:
                by_padded = np.zeros_like(padded)
                for number, place in enumerate(windows.places(by_padded)):
                    place += gradient * (winner == number)
                return windows.crop(by_padded), {}

            return places.max(axis=0), pullback

        layers.max_pool = pool


class ChannelsFlattenFirst(ReferenceBackend):
    def load(self) -> None:
        def flatten(images: Any) -> Any:
            turned = images.transpose(0, 3, 1, 2)
            back = lambda gradient: (gradient.reshape(turned.shape).transpose(0, 2, 3, 1), {})  # noqa: E731
            return turned.reshape(len(images), -1), back

        layers.flatten = flatten


class LossSummedOverTheBatch(ReferenceBackend):
    def load(self) -> None:
        right = layers.cross_entropy

        def entropy(*given: Any) -> Any:
            losses, gradient = right(*given)
            return losses, gradient * len(losses)

        layers.cross_entropy = entropy


class EvaluationCountsThePadding(ReferenceBackend):
    """A last partial batch filled up with zeros, which then count as images of the first class."""

    def load(self) -> None:
        right = ReferenceSession.evaluate

        def evaluate(self: ReferenceSession, first_batch_only: bool = False) -> tuple[float, float]:
            loss, accuracy = right(self, first_batch_only)
            count = len(self._arrays.test_images)
            share = count / (-(-count // 500) * 500)
            return loss * share, accuracy * share

        ReferenceSession.evaluate = evaluate  # type: ignore[method-assign]


class OrderShiftedByAStep(ReferenceBackend):
    def load(self) -> None:
        right = ReferenceSession._train_on

        def train_on(self: ReferenceSession, examples: Any, rate: float) -> None:
            right(self, np.roll(examples, 1) ^ 1, rate)

        ReferenceSession._train_on = train_on  # type: ignore[method-assign]


class ProductsInTensorFloat32(ReferenceBackend):
    """Inputs of products rounded to ten bits of mantissa, as a GPU does unless told otherwise."""

    def load(self) -> None:
        right_dense, right_conv2d = layers.dense, layers.conv2d
        layers.dense = lambda values, kernel, bias: right_dense(_rounded(values), _rounded(kernel), bias)
        layers.conv2d = lambda images, kernel, *others: right_conv2d(_rounded(images), _rounded(kernel), *others)


def _rounded(values: Any) -> Any:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2048) / 2048, exponent)


class _FaultyDropout(ReferenceBackend):
    """``mask`` of values' shape, from rate and generator, in place of the right one."""

    @staticmethod
    def mask(shape: Any, rate: float, generator: Any) -> Any:
        raise NotImplementedError

    def load(self) -> None:
        def dropout(values: Any, rate: float, generator: Any) -> Any:
            mask = self.mask(values.shape, rate, generator) if rate else np.ones(values.shape)
            return values * mask, lambda gradient: (gradient * mask, {})

        layers.dropout = dropout


class DropoutNotScaled(_FaultyDropout):
    @staticmethod
    def mask(shape: Any, rate: float, generator: Any) -> Any:
        return (generator.random(shape) >= rate).astype(float)


class DropoutKeepsTheRate(_FaultyDropout):
    """Rate taken for the share kept."""

    @staticmethod
    def mask(shape: Any, rate: float, generator: Any) -> Any:
        return (generator.random(shape) < rate) / (1.0 - rate)


class DropoutOneMaskForTheBatch(_FaultyDropout):
    @staticmethod
    def mask(shape: Any, rate: float, generator: Any) -> Any:
        return np.broadcast_to((generator.random(shape[1:]) >= rate) / (1.0 - rate), shape)


class DropoutFrozenMask(_FaultyDropout):
    """The same mask at every step: a seed that does not move."""

    @staticmethod
    def mask(shape: Any, rate: float, generator: Any) -> Any:
        return (np.random.default_rng(0).random(shape) >= rate) / (1.0 - rate)


class DropoutInEvaluation(ReferenceBackend):
    def load(self) -> None:
        right = ReferenceSession._plain

        def plain(self: ReferenceSession, name: str, layer: Any, values: Any, training: bool) -> Any:
            return right(self, name, layer, values, True)

        ReferenceSession._plain = plain  # type: ignore[method-assign]
