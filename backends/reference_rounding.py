"""How far rounding may move a number: statistical running error analysis of every layer, beside its values.

The reference's values are exact here. Beside each stands the *variance* of the error with which a target may have it,
in units of u squared, u being the unit roundoff of what the target computes in (float32: 2^-24). Each operation adds
what it rounds itself, and passes on what came in by the squares of its derivatives: running error analysis (Wilkinson;
Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.3) with errors that are independent and of
mean zero (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5),
2019).

One rounding of y moves it by u |y| at most, evenly spread: its variance is y^2 / 3 in our units.

A sum S of n products p_i. In whatever order they are added, the k-th partial sum s_k is rounded once and each product
once, so the variance is (sum of s_k^2 + sum of p_i^2) / 3. With Q the sum of p_i^2, terms that come in no order of
their own have partial sums s_k^2 = (k/n)^2 S^2 + (k/n) Q or less; hence

    sum of s_k^2 = n S^2 / 3 + n Q / 2        (``accumulated``)

as if one after the other. A kernel that adds in blocks errs less; none errs more, unless it is worse than a plain loop.
Products with an exact zero are exact, and so are their sums: what an empty background gives has no error.

A product of values x with weights w passes on x^2 Var(w) + w^2 Var(x): the same product with the squares. On the way
back likewise, Var(dx) = w^2 Var(g) + g^2 Var(w) and Var(dw) = x^2 Var(g) + g^2 Var(x), with Q of g^2 and w^2 or x^2.

Branches. Where a value is within ``KINK`` standard deviations of ReLU's kink, or of the largest in a pool's window, the
target may go the other way: the gradient g that then goes there, or no more, is added as a variance g^2 at that place.
Exact ties stay exact, as values that are equal come of equal images by equal operations.

Functions (tanh, exp, log) are taken to be within ``FUNCTION_ROUNDINGS`` u. Softmax: z - max is rounded, which moves
exp(z - max) by as much relative to itself; p = e / sum e; the loss is log(sum e) - (z_label - max).

Batch normalisation over N values: mean and variance are sums of N. A framework may find the variance as E[x^2] - E[x]^2
and the output as x s + (b - mean s), so what is rounded there is as large as x^2 and x s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers as layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]
    Variance = NDArray[np.float32]
    Followed = tuple[Variance, Callable[..., tuple[Variance | None, dict[str, Variance]]]]

FLOAT32 = 2.0**-24
"""Unit roundoff of what parameters, optimizer, moments and loss are kept in, whatever activations are."""

KINK = 6.0
TIED = 1e-12
"""Relative: the reference's own rounding, below which two values are equal."""

FUNCTION_ROUNDINGS = 4.0
ONE = np.float32(1 / 3)
"""The variance of one rounding of a value of one."""


@dataclass(frozen=True)
class Uncertain:
    """A parameter: its value, and the variance of the target's (None: exact)."""

    value: Array
    variance: Variance | None = None


@dataclass(frozen=True)
class Roundoff:
    """``unit``: of activations and products. ``kept``: the square of float32's in units of the square of that."""

    unit: float

    @property
    def kept(self) -> float:
        """One at most: what is wider than float32 is kept as wide."""
        return min(1.0, (FLOAT32 / self.unit) ** 2)

    @property
    def narrow(self) -> bool:
        """Whether parameters are rounded before they are used."""
        return self.unit > FLOAT32


def square(values: Any) -> Variance:
    """In float32: a variance need not be known better."""
    found: Variance = np.square(values, dtype=np.float32)
    return found


def accumulated(total: Any, squares: Any, count: float) -> Any:
    """The variance that rounding leaves in a sum of ``count`` products; ``squares``: the sum of their squares."""
    return ONE * (count * (square(total) / 3 + squares / 2) + squares)


def _weight(count: float) -> Any:
    """What a square counts in ``accumulated``."""
    return np.float32((count / 2 + 1) / 3)


def product(
    kind: layers.Convolution | layers.MatrixProduct,
    values: Array,
    variance: Variance | None,
    kernel: Uncertain,
    bias: Uncertain | None,
    output: Array,
    batch_terms: int,
    roundoff: Roundoff,
) -> Followed:
    """A convolution or dense layer. ``batch_terms``: how many products the gradient of a weight adds up in the batch.

    The variances of those gradients lack what the batch's whole sum is rounded by: ``summed`` adds it.
    """
    inner, outer = math.prod(kernel.value.shape[:-1]), math.prod(kernel.value.shape) // kernel.value.shape[-2]
    squares, weights = square(values), square(kernel.value)
    moved = kernel.variance
    if roundoff.narrow:
        moved = ONE * weights if moved is None else moved + ONE * weights
    entering = _weight(inner) * squares if variance is None else variance + _weight(inner) * squares
    plain = output if bias is None else output - bias.value
    found = kind.apply(entering, weights) + (inner / 9 + 1 / 3) * square(plain)
    if moved is not None:
        found += kind.apply(squares, moved)
    if bias is not None:
        found += ONE * square(output) * ((plain != 0.0) & (bias.value != 0.0))
        if bias.variance is not None:
            found += bias.variance

    def back(gradient: Array, uncertain: Variance, by_values: Array | None) -> tuple[Variance | None, Any]:
        slopes = square(gradient)
        here = uncertain + _weight(batch_terms) * slopes
        by_parameter = {"kernel": kind.by_kernel(squares, here)}
        if variance is not None:
            by_parameter["kernel"] += kind.by_kernel(variance, slopes)
        if bias is not None:
            by_parameter["bias"] = here.reshape(-1, here.shape[-1]).sum(axis=0)
        if by_values is None:
            return None, by_parameter
        inward = kind.by_values(uncertain + _weight(outer) * slopes, weights)
        inward += (outer / 9 + 1 / 3) * square(by_values)
        if moved is not None:
            inward += kind.by_values(slopes, moved)
        return inward, by_parameter

    return found.astype(np.float32, copy=False), back


def summed(gradient: Array, variance: Variance, batch_terms: int) -> Variance:
    """The variance of a weight's gradient, with what the sum over the whole batch is rounded by."""
    found: Variance = variance + np.float32(batch_terms / 9 + 1 / 3) * square(gradient)
    return found


def relu(values: Array, variance: Variance | None, roundoff: Roundoff) -> Followed:
    """Kinked at zero."""
    if variance is None:
        variance = np.zeros(values.shape, np.float32)
    near = (np.abs(values) <= KINK * roundoff.unit * np.sqrt(variance)) & (variance > 0.0)
    passes = (values > 0.0) | near

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        return uncertain * passes + near * square(gradient) / np.float32(roundoff.unit**2), {}

    return variance * passes, back


def smooth(function: str, variance: Variance | None, output: Array, roundoff: Roundoff) -> Followed:
    """``tanh`` or ``sigmoid``, which some frameworks find as (1 + tanh(x / 2)) / 2."""
    tanh = function == "tanh"
    slope = np.asarray(1.0 - output * output if tanh else output * (1.0 - output), np.float32)
    bend = np.asarray(-2.0 * output if tanh else 1.0 - 2.0 * output, np.float32)
    found = FUNCTION_ROUNDINGS**2 * (square(output) if tanh else np.float32(0.25) + 0 * square(output))
    if variance is not None:
        found += square(slope) * variance

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        slopes = square(gradient)
        return square(slope) * uncertain + slopes * (square(bend) * found + 2 * ONE * (1 + square(slope))), {}

    return found, back


def scaled(variance: Variance | None, output: Array, factor: Any) -> Followed:
    """Dropout: values times ``factor``, zero or 1 / (1 - rate)."""
    squares = square(factor)
    found = ONE * square(output)
    if variance is not None:
        found += squares * variance

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        return squares * uncertain + ONE * square(by_values), {}

    return found, back


def max_pool(
    values: Array,
    variance: Variance | None,
    output: Array,
    pool: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    roundoff: Roundoff,
) -> Followed:
    """The largest of each window; another that comes near it may take its place."""
    windows = layers._Windows.over(values, pool, strides, padding)
    padded = windows.pad(values, -np.inf)
    errors = windows.pad(np.zeros(values.shape, np.float32) if variance is None else variance)
    found = np.zeros(output.shape, np.float32)
    taken = np.zeros(output.shape, bool)
    hits, leads = [], []
    for place, error in zip(windows.places(padded), windows.places(errors), strict=True):
        hit = (place == output) & ~taken
        taken |= hit
        found += hit * error
        hits.append(hit)
    for place, error in zip(windows.places(padded), windows.places(errors), strict=True):
        lead = output - place
        near = (lead > TIED * np.abs(output)) & (lead <= KINK * roundoff.unit * np.sqrt(found + error))
        leads.append(near if near.any() else None)
    contested = np.zeros(output.shape, bool)
    for other in leads:
        if other is not None:
            contested |= other
    overlaps = math.prod(-(-size // stride) for size, stride in zip(pool, strides, strict=True))

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        slopes = square(gradient)
        turned = slopes / np.float32(roundoff.unit**2)
        winner = uncertain + contested * turned
        if overlaps > 1:
            winner += _weight(overlaps) * slopes
        by_padded = np.zeros(padded.shape, np.float32)
        for hit, near, place in zip(hits, leads, windows.places(by_padded), strict=True):
            place += hit * winner
            if near is not None:
                place += near * turned
        inward = windows.crop(by_padded)
        return inward + np.float32(overlaps / 9) * square(by_values) if overlaps > 1 else inward, {}

    return found, back


def average_pool(
    values: Array,
    variance: Variance | None,
    output: Array,
    pool: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
) -> Followed:
    """The mean of each window's true values."""
    windows = layers._Windows.over(values, pool, strides, padding)
    counts = sum(windows.places(windows.pad(np.ones((1, *values.shape[1:3], 1), np.float32))), np.zeros((), np.float32))
    size = math.prod(pool)
    entering = _weight(size) * square(values)
    if variance is not None:
        entering = entering + variance
    found = sum(windows.places(windows.pad(entering)), np.zeros((), np.float32)) / counts**2
    found += (size / 9 + 2 / 3) * square(output)

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        share = (uncertain + _weight(size) * square(gradient)) / counts**2
        by_padded = windows.pad(np.zeros(values.shape, np.float32))
        for place in windows.places(by_padded):
            place += share
        return windows.crop(by_padded) + (size / 9 + 1 / 3) * square(by_values), {}

    return found.astype(np.float32), back


def global_average_pool(values: Array, variance: Variance | None, output: Array) -> Followed:
    """The mean over each channel of N values."""
    count = values.shape[1] * values.shape[2]
    entering = _weight(count) * square(values)
    if variance is not None:
        entering = entering + variance
    found = entering.sum(axis=(1, 2)) / np.float32(count**2) + np.float32(count / 9 + 2 / 3) * square(output)

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        share = uncertain / np.float32(count**2)
        return share[:, None, None, :] + ONE * square(by_values), {}

    return found, back


def cross_entropy(
    logits: Array, variance: Variance | None, labels: NDArray[np.integer[Any]], gradient: Array, roundoff: Roundoff
) -> tuple[Variance, Variance]:
    """Of each example's loss (N,), and of the gradient by the logits (N, classes) of the batch's mean."""
    if variance is None:
        variance = np.zeros(logits.shape, np.float32)
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    shares = exponentials / sums
    function = FUNCTION_ROUNDINGS**2
    relative = ONE * square(shifted) + function  # of each exponential
    of_sum = (square(shares) * relative).sum(axis=1) + ONE * (logits.shape[1] / 2 + 1)
    logarithm = np.log(sums[:, 0])
    slopes = shares.copy()
    slopes[rows, labels] -= 1.0
    losses = (square(slopes) * variance).sum(axis=1)
    own = of_sum + function * square(logarithm) + 2 * ONE * square(shifted[rows, labels])
    losses += roundoff.kept * (own + ONE * square(logarithm - shifted[rows, labels]))
    # dp_c = p_c (dz_c - sum of p_k dz_k), and what the functions round
    through = square(shares) * ((1 - 2 * shares) * variance + (square(shares) * variance).sum(axis=1, keepdims=True))
    through += roundoff.kept * square(shares) * (relative + of_sum[:, None] + ONE)
    size = np.abs(gradient).sum(axis=1, keepdims=True) / np.maximum(np.abs(slopes).sum(axis=1, keepdims=True), 1e-300)
    return losses, (np.maximum(through, 0.0) * square(size) + ONE * square(gradient)).astype(np.float32)


def batch_norm(
    values: Array,
    variance: Variance | None,
    scale: Uncertain,
    offset: Uncertain,
    moments: tuple[Array, Array],
    epsilon: float,
    output: Array,
    roundoff: Roundoff,
) -> tuple[Variance, Callable[..., Any], dict[str, Variance]]:
    """In training form, over the whole batch; ``moments``: mean and variance. The third result is of these two."""
    mean, spread = moments
    axes, count = tuple(range(values.ndim - 1)), values.size // values.shape[-1]
    kept = roundoff.kept
    if variance is None:
        variance = np.zeros(values.shape, np.float32)
    squares = square(values)
    power = spread + mean**2
    of_mean = variance.mean(axis=axes) / count + kept * accumulated(mean, power / count, count)
    of_spread = 4 * (square(values - mean) * variance).mean(axis=axes) / count + 4 * square(mean) * of_mean
    of_spread += kept * (accumulated(power, (squares * squares).mean(axis=axes) / count, count) + ONE * square(power))
    inverse = 1.0 / np.sqrt(spread + epsilon)
    slope = scale.value * inverse
    normal = np.asarray((values - mean) * inverse, np.float32)
    wide = np.asarray((np.abs(values) + np.abs(mean)) * inverse, np.float32)  # what cancels in it
    of_inverse = square(inverse**2) / 4 * of_spread  # relative to the inverse
    of_normal = square(inverse) * (variance + of_mean) + square(normal) * of_inverse + kept * square(wide)
    found = square(scale.value) * of_normal + ONE * square(output)
    for known, factor in ((scale, square(normal)), (offset, np.float32(1.0))):
        if known.variance is not None:
            found += factor * known.variance

    def back(gradient: Array, uncertain: Variance, by_values: Array, by: dict[str, Array]) -> tuple[Variance, Any]:
        slopes = square(gradient)
        of_offset = uncertain.sum(axis=axes) + kept * accumulated(by["offset"], slopes.sum(axis=axes), count)
        of_scale = (square(normal) * uncertain + slopes * of_normal).sum(axis=axes)
        cancels = square(by["scale"]) + square(mean * inverse * by["offset"])
        of_scale += kept * (_weight(count) * (slopes * square(wide)).sum(axis=axes) + np.float32(count / 4.5) * cancels)
        inner = gradient - (by["offset"] + normal * by["scale"]) / count
        inward = uncertain + of_offset / count**2 + square(normal) * (of_scale / count**2)
        inward += square(by["scale"] / count) * of_normal + square(inner) * of_inverse
        inward += kept * (slopes + square(by["offset"] / count) + square(wide) * square(by["scale"] / count))
        inward *= square(slope)
        if scale.variance is not None:
            inward += square(inner) * square(inverse) * scale.variance
        return (inward + ONE * square(by_values)).astype(np.float32), {"scale": of_scale, "offset": of_offset}

    return found.astype(np.float32), back, {"mean": of_mean, "variance": of_spread}
