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

as if one after the other, which some of TensorFlow's are on processors. A kernel that adds in blocks errs less; none
errs more, unless it is worse than a plain loop.
Products with an exact zero are exact, and so are their sums: what an empty background gives has no error.

Where terms that follow each other have one sign, as those of an empty background may, partial sums grow faster: in the
gradients of convolutions Q counts as often as that makes it (``grown``). In a batch's moments, and in the gradient of
batch normalisation's offset where an average over the image follows, the same number may be added again and again, and
while s stays between two powers of two s + c is then rounded by the same each time: a chain of k equal terms is off by
u k / 2 of its sum at most, of which ``repeated`` takes a quarter for the deviation. In the gradients some neighbours
are equal: where one sign prevails, errors are taken to come in ``FOURS``.

Where a sum has grown so large that many of its terms are smaller than the spacing of its numbers, they are not rounded
up as often as down: squares near zero are many, and one below half a spacing leaves the sum as it is. So the sum of
squares of a large batch, of one sign as it is, falls short by what can be told from the terms (``stagnant``).

A product of values x with weights w passes on x^2 Var(w) + w^2 Var(x): the same product with the squares. On the way
back likewise, Var(dx) = w^2 Var(g) + g^2 Var(w) and Var(dw) = x^2 Var(g) + g^2 Var(x), with Q of g^2 and w^2 or x^2.

Errors of the parameters, and of a batch's moments, are shared by all rows of a batch, and do not average out in a
gradient. What they do is found by a *rehearsal*: the training is done once more beside the other, in float64, with
random numbers of their deviations added to parameters, gradients and moments (Parker, "Monte Carlo Arithmetic", UCLA
CSD-970002, 1997). Its difference is one sample of the shared error (``widened``). The loss, a mean, is moved by the
derivatives.

Branches. Where a value is within ``KINK`` standard deviations of ReLU's kink, or of the largest in a pool's window, the
target may go the other way: the gradient g that then goes there, or no more, is added as a variance p (1 - p) g^2 at
that place, p being the chance that it does (``turning``). So the effect is bounded where it happens, and the layers
above know nothing of it.
Exact ties stay exact, as values that are equal come of equal images by equal operations; not so two zeros of ReLU of
which one alone is near its kink.

Functions (tanh, exp, log) are taken to be within ``FUNCTION_ROUNDINGS`` u. Softmax: z - max is rounded, which moves
exp(z - max) by as much relative to itself; p = e / sum e; the loss is log(sum e) - (z_label - max).

Batch normalisation over N values: mean and variance are sums of N. A framework may find the variance as E[x^2] - E[x]^2
and the output as x s + (b - mean s), so what is rounded there is as large as x^2 and x s. Errors of the batch's sums
are shared by all N values. On the way back, where N of them are added up again in the layer before, such an error e
does not average out: a sum of w_i e has the square (sum of w_i)^2 e^2, at most N times the sum of w_i^2 e^2 (Cauchy and
Schwarz). So it counts N times in each value's variance, and is bounded however they are added. So does the error of an
average's gradient, which all that was averaged share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers as layers
from harness.core.training import LOSS_SCALES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]
    Variance = NDArray[np.float32]
    Followed = tuple[Variance, Callable[..., tuple[Variance | None, dict[str, Variance]]]]

FLOAT32 = 2.0**-24
"""Unit roundoff of what parameters, optimizer, moments and loss are kept in, whatever activations are."""

FLOAT16, FLOAT16_LAST = 2.0**-11, 2.0**-25
"""Its unit roundoff, and half the distance of its smallest numbers."""

KINK = 6.0
RARE = 1 / 30
TIED, TIED_VARIANCE = 1e-12, 1e-3
"""Relative: the reference's own rounding, below which two values, or two variances, are equal."""

FUNCTION_ROUNDINGS = 4.0
FOURS = 4.0
SHARED = 4.0
IMAGES = 8
"""Of so many of a slice the sums are looked at."""

SAMPLE = 4096
"""So many elements of an array tell as much as all of them."""
TERMS = 2**14
"""Of a sum so many terms are looked at in a channel."""
BINADES = 8
"""Of the numbers that a sum goes through, between powers of two: what lies below these is a 256th of it."""
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
    def tiny(self) -> float:
        """The variance of a gradient that float16 rounds below its smallest normal number, the loss being scaled.

        What has float16's roundoff is taken for float16.
        """
        return (
            float(ONE * (FLOAT16_LAST / LOSS_SCALES["mixed_float16"] / self.unit) ** 2) if self.unit == FLOAT16 else 0.0
        )

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
    return of_squares(count) * squares + of_total(count) * square(total)


def of_squares(count: float) -> Any:
    """What the sum of squares counts in ``accumulated``."""
    return np.float32((count / 2 + 1) / 3)


def of_total(count: float) -> Any:
    """What the square of the sum counts in ``accumulated``."""
    return np.float32(count / 9)


def repeated(values: Array, zeros: bool = True) -> Variance:
    """The variance that equal terms add to a channel's mean (last axis), relative to the square of what is added.

    All of them may be one number, so all are taken for one chain. ``zeros``: whether they count; added, they are exact.
    """
    equal = alike(values)
    if not zeros and values.shape[-2] > 1:
        equal &= (values[..., 1:, :] != 0.0).reshape(equal.shape)
    found: Variance = square(equal.mean(axis=0) * (values.size // values.shape[-1]) / 8)
    return found


def stagnant(terms: Array, mean: Array, count: float) -> Array:
    """By how much the mean of ``count`` terms is off where each is rounded into a sum of float32, in units of u.

    ``terms``: some of them, (rows, channels), none below zero. While the sum lies between two powers of two, its
    numbers are equally far apart, and a term moves it by the nearest number of such steps. It is taken to grow evenly.
    """
    total = np.maximum(count * mean, np.finfo(np.float32).tiny)
    highest = np.exp2(np.frexp(total)[1] - 1.0)
    off, upper = np.zeros_like(total), total
    for below in range(BINADES):
        lower = highest * 2.0**-below
        spacing = 2.0 * FLOAT32 * lower
        off += (upper - lower) / total * (np.rint(terms / spacing) * spacing - terms).mean(axis=0)
        upper = lower
    return np.asarray(off / FLOAT32)


def grown(sums: Any, squares: Any) -> Variance:
    """How often the squares of products count, given the sums of squares of whole images' sums and of the products."""
    found: Variance = np.maximum(sums / np.maximum(squares, 1e-30), 1.0).astype(np.float32)
    return found


def alike(values: Array) -> NDArray[np.bool_]:
    """Which values are those of their neighbours, along the rows of images or from one example to the next."""
    ahead, behind = values[..., 1:, :], values[..., :-1, :]
    found = (np.abs(ahead - behind) <= TIED * np.abs(ahead)).reshape(-1, values.shape[-1])
    return found if found.size else np.zeros((1, values.shape[-1]), bool)


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
    entering = of_squares(inner) * squares if variance is None else variance + of_squares(inner) * squares
    plain = output if bias is None else output - bias.value
    found = kind.apply(entering, weights) + (of_total(inner) + ONE) * square(plain)
    if moved is not None:
        found += kind.apply(squares, moved)
    if bias is not None:
        found += ONE * square(output) * ((plain != 0.0) & (bias.value != 0.0))
        if bias.variance is not None:
            found += bias.variance

    def back(gradient: Array, uncertain: Variance, by_values: Array | None) -> tuple[Variance | None, Any]:
        slopes = square(gradient)
        weight = of_squares(batch_terms)
        if gradient.ndim == 2:
            by_parameter = {"kernel": kind.by_kernel(squares, uncertain + weight * slopes)}
        else:
            by_parameter = {"kernel": kind.by_kernel(squares, uncertain)}
            images = [slice(number, number + 1) for number in range(min(len(values), IMAGES))]
            whole = sum(square(kind.by_kernel(values[image], gradient[image])) for image in images)
            apart = kind.by_kernel(squares[: len(images)], slopes[: len(images)])
            by_parameter["kernel"] += weight * grown(whole, apart) * kind.by_kernel(squares, slopes)
        if variance is not None:
            by_parameter["kernel"] += kind.by_kernel(variance, slopes)
        if bias is not None:
            flat = gradient.reshape(len(gradient), -1, gradient.shape[-1])
            apart = slopes.reshape(-1, slopes.shape[-1]).sum(axis=0)
            whole = square(flat.sum(axis=1)).sum(axis=0)
            by_parameter["bias"] = uncertain.reshape(-1, uncertain.shape[-1]).sum(axis=0)
            by_parameter["bias"] += weight * grown(whole, apart) * apart
        if by_values is None:
            return None, by_parameter
        inward = kind.by_values(uncertain + of_squares(outer) * slopes, weights)
        inward += (of_total(outer) + ONE) * square(by_values)
        if moved is not None:
            inward += kind.by_values(slopes, moved)
        return inward, by_parameter

    return found.astype(np.float32, copy=False), back


def summed(gradient: Array, variance: Variance, batch_terms: int) -> Variance:
    """The variance of a weight's gradient, with what the sum over the whole batch is rounded by."""
    found: Variance = variance + (FOURS * of_total(batch_terms) + ONE) * square(gradient)
    return found


def widened(variance: Array, differences: Array, contained: float = 0.0) -> Array:
    """A variance with what shared errors add, of which ``differences`` are one sample.

    Of how much they add, an element's own difference is one sample, and those of its whole array, each relative to its
    variance, are many: both count, ``SHARED`` times, since a sample may be small by chance. ``contained``: how much of
    the variance itself the sample has in it.
    """
    squares = np.square(differences)
    some = slice(None, None, 1 + variance.size // SAMPLE)
    known, sample = np.ravel(variance)[some], np.ravel(squares)[some]
    ratios = sample[known > 0.0] / known[known > 0.0]
    # A few elements may be uncertain for other reasons: half of the squares of normal numbers are below 0.455.
    ratio = 0.0 if not ratios.size else float(np.median(ratios)) / 0.455 if ratios.size >= 8 else float(ratios.mean())
    if contained:
        squares, ratio = np.maximum(squares - 4.0 * contained * variance, 0.0), max(ratio - contained, 0.0)
    found: Array = variance * (1.0 + SHARED * ratio) + SHARED * squares
    return found


def relu(
    values: Array, variance: Variance | None, rehearsed: Array | None, roundoff: Roundoff
) -> tuple[Variance, Callable[..., Any], Array | None]:
    """Kinked at zero. The third result is what the rehearsal goes on with: it decides near branches by chance."""
    if variance is None:
        variance = np.zeros(values.shape, np.float32)
    spread = unsure(values, variance, rehearsed, roundoff)
    turns = turning(np.abs(values), spread, roundoff)
    passes = (values > 0.0) | (turns > 0.0)
    if rehearsed is not None:
        rehearsed = rehearsed + by_chance(values, turns, variance, roundoff)

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        return uncertain * passes + turns * square(gradient) / np.float32(roundoff.unit**2), {}

    return variance * passes, back, rehearsed


def unsure(values: Array, variance: Variance, rehearsed: Array | None, roundoff: Roundoff) -> Variance:
    """The variance of values that decide a branch, with what shared errors add."""
    if rehearsed is None:
        return variance
    found: Variance = widened(variance, (rehearsed - values) / roundoff.unit).astype(np.float32)
    return found


def by_chance(values: Array, turns: Variance, variance: Variance, roundoff: Roundoff) -> Array:
    """A sample of the errors of values that may turn; zero elsewhere. The values themselves are the seed."""
    errors = np.zeros(values.shape)
    near = turns > 0.0
    if near.any():
        seed = np.frombuffer(np.float64(np.sum(values)).tobytes(), np.uint32)
        normal = np.random.default_rng(seed).standard_normal(int(near.sum()))
        errors[near] = roundoff.unit * np.sqrt(variance[near]) * normal
    return errors


def turning(distance: Array, variance: Variance, roundoff: Roundoff) -> Variance:
    """The variance of a branch being taken or not, for values at a distance from it; zero beyond ``KINK`` deviations.

    With p the chance of the other branch, p (1 - p): about exp(-0.63 z^2) / 4 at z deviations. It is ``RARE`` at least,
    so that one place alone stays within the bound even where it is unlikely to turn.
    """
    found = np.zeros(distance.shape, np.float32)
    near = (distance <= KINK * roundoff.unit * np.sqrt(variance)) & (variance > 0.0)
    if near.any():
        away = distance[near] ** 2 / (roundoff.unit**2 * variance[near])
        found[near] = np.maximum(np.exp(-0.63 * away) / 4, RARE)
    return found


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
    rehearsed: Array | None,
    output: Array,
    pool: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    roundoff: Roundoff,
) -> tuple[Variance, Callable[..., Any], Array | None]:
    """The largest of each window; another that comes near it may take its place. The third result: see ``relu``."""
    windows = layers._Windows.over(values, pool, strides, padding)
    padded = windows.pad(values, -np.inf)
    if variance is None:
        variance = np.zeros(values.shape, np.float32)
    errors = windows.pad(variance)
    spreads = windows.pad(unsure(values, variance, rehearsed, roundoff))
    moved = None if rehearsed is None else windows.pad(rehearsed).copy()
    found = np.zeros(output.shape, np.float32)
    taken = np.zeros(output.shape, bool)
    spread = np.zeros(output.shape, np.float32)
    hits, leads = [], []
    for place, error, wide in zip(windows.places(padded), windows.places(errors), windows.places(spreads), strict=True):
        hit = (place == output) & ~taken
        taken |= hit
        found += hit * error
        spread += hit * wide
        hits.append(hit)
    places = [windows.places(array) for array in (padded, errors, spreads)]
    again = [None] * len(hits) if moved is None else windows.places(moved)
    reach = found
    for place, error, wide, place_moved in zip(*places, again, strict=True):
        lead = output - place
        # Two zeros of ReLU are not alike if only one may turn positive, which its variance tells.
        alike = (lead <= TIED * np.abs(output)) & (np.abs(wide - spread) <= TIED_VARIANCE * (wide + spread))
        turns = turning(np.where(alike, np.inf, np.maximum(lead, 0.0)), spread + wide, roundoff)
        leads.append(turns if turns.any() else None)
        reach = np.where(turns > 0.0, np.maximum(reach, error), reach)
        if place_moved is not None and leads[-1] is not None:
            place_moved += by_chance(np.where(turns > 0.0, place, 0.0), turns, found + error, roundoff)
    contested = sum((turns for turns in leads if turns is not None), np.zeros(output.shape, np.float32))
    overlaps = math.prod(-(-size // stride) for size, stride in zip(pool, strides, strict=True))

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        slopes = square(gradient)
        turned = slopes / np.float32(roundoff.unit**2)
        winner = uncertain + contested * turned
        if overlaps > 1:
            winner += of_squares(overlaps) * slopes
        by_padded = np.zeros(padded.shape, np.float32)
        for hit, near, place in zip(hits, leads, windows.places(by_padded), strict=True):
            place += hit * winner
            if near is not None:
                place += near * turned
        inward = windows.crop(by_padded)
        return inward + of_total(overlaps) * square(by_values) if overlaps > 1 else inward, {}

    return reach, back, None if moved is None else windows.crop(moved)


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
    entering = of_squares(size) * square(values)
    if variance is not None:
        entering = entering + variance
    found = sum(windows.places(windows.pad(entering)), np.zeros((), np.float32)) / counts**2
    found += (of_total(size) + 2 * ONE) * square(output)

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        share = (uncertain + of_squares(size) * square(gradient)) / counts  # by all of the window: see batch_norm
        by_padded = windows.pad(np.zeros(values.shape, np.float32))
        for place in windows.places(by_padded):
            place += share
        return windows.crop(by_padded) + (of_total(size) + ONE) * square(by_values), {}

    return found.astype(np.float32), back


def global_average_pool(values: Array, variance: Variance | None, output: Array) -> Followed:
    """The mean over each channel of N values."""
    count = values.shape[1] * values.shape[2]
    entering = of_squares(count) * square(values)
    if variance is not None:
        entering = entering + variance
    found = entering.sum(axis=(1, 2)) / np.float32(count**2) + (of_total(count) + 2 * ONE) * square(output)
    found += repeated(values).mean() * square(output)

    def back(gradient: Array, uncertain: Variance, by_values: Array) -> tuple[Variance, Any]:
        share = uncertain / np.float32(count)  # by all of the channel: see batch_norm
        return share[:, None, None, :] + ONE * square(by_values), {}

    return found, back


def cross_entropy(
    logits: Array,
    variance: Variance | None,
    labels: NDArray[np.integer[Any]],
    gradient: Array,
    roundoff: Roundoff,
    smoothing: float = 0.0,
) -> tuple[Variance, Variance]:
    """Of each example's loss (N,), and of the gradient by the logits (N, classes) of the batch's mean.

    With ``smoothing`` the loss is a sum over all classes of what they are to be, rounded itself, times their logarithm.
    """
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
    slopes[rows, labels] -= 1.0 - smoothing
    slopes -= smoothing / logits.shape[1]
    losses = (square(slopes) * variance).sum(axis=1)
    own = of_sum + function * square(logarithm)
    if smoothing:
        wanted = shares - slopes
        terms = wanted * (logarithm[:, None] - shifted)
        squares = square(terms).sum(axis=1)
        own += (2 * ONE * square(wanted * shifted)).sum(axis=1) + 4 * ONE * squares
        own += accumulated(terms.sum(axis=1), squares, logits.shape[1])
    else:
        own += 2 * ONE * square(shifted[rows, labels]) + ONE * square(logarithm - shifted[rows, labels])
    losses += roundoff.kept * own
    # dp_c = p_c (dz_c - sum of p_k dz_k), and what the functions round
    through = square(shares) * ((1 - 2 * shares) * variance + (square(shares) * variance).sum(axis=1, keepdims=True))
    through += roundoff.kept * square(shares) * (relative + of_sum[:, None] + ONE)
    if smoothing:
        through += roundoff.kept * ONE * square(shares - slopes)
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
    alike = repeated(values)
    of_mean = variance.mean(axis=axes) / count
    of_mean += kept * (accumulated(mean, power / count, count) + alike * square(mean))
    of_spread = 4 * (square(values - mean) * variance).mean(axis=axes) / count + 4 * square(mean) * of_mean
    of_spread += kept * accumulated(power, (squares * squares).mean(axis=axes) / count, count)
    of_spread += kept * (ONE + alike) * square(power)
    some = values.reshape(count, -1)[:: 1 + count // TERMS]
    centred, raw = stagnant(np.square(some - mean), spread, count), stagnant(np.square(some), power, count)
    of_spread += kept * np.maximum(square(centred), square(raw))
    inverse = 1.0 / np.sqrt(spread + epsilon)
    slope = scale.value * inverse
    normal = np.asarray((values - mean) * inverse, np.float32)
    wide = np.asarray((np.abs(values) + np.abs(mean)) * inverse, np.float32)  # what cancels in it
    of_inverse = square(inverse**2) / 4 * of_spread  # relative to the inverse
    # A value is part of its own mean: of one value alone, the difference is exactly zero.
    of_difference = np.maximum(variance * np.float32(1 - 2 / count) + of_mean, 0.0)
    of_normal = square(inverse) * of_difference + square(normal) * of_inverse + kept * square(wide)
    found = square(scale.value) * of_normal + ONE * square(output)
    for known, factor in ((scale, square(normal)), (offset, np.float32(1.0))):
        if known.variance is not None:
            found += factor * known.variance

    def back(gradient: Array, uncertain: Variance, by_values: Array, by: dict[str, Array]) -> tuple[Variance, Any]:
        slopes = square(gradient)
        of_offset = uncertain.sum(axis=axes) + kept * accumulated(by["offset"], slopes.sum(axis=axes), count)
        of_offset += kept * repeated(gradient, zeros=False) * square(by["offset"])
        of_scale = (square(normal) * uncertain + slopes * of_normal).sum(axis=axes)
        cancels = square(by["scale"]) + square(mean * inverse * by["offset"])
        of_scale += kept * (of_squares(count) * (slopes * square(wide)).sum(axis=axes) + 2 * of_total(count) * cancels)
        inner = gradient - (by["offset"] + normal * by["scale"]) / count
        # What all N values share counts N times: see above.
        inward = uncertain + of_offset / count + square(normal) * (of_scale / count)
        inward += square(by["scale"] / count) * (of_normal + count * square(inverse) * of_mean)
        inward += square(inner) * of_inverse
        inward += kept * (slopes + square(by["offset"] / count) + square(wide) * square(by["scale"] / count))
        inward *= square(slope)
        if scale.variance is not None:
            inward += square(inner) * square(inverse) * scale.variance
        return (inward + ONE * square(by_values)).astype(np.float32), {"scale": of_scale, "offset": of_offset}

    return found.astype(np.float32), back, {"mean": of_mean, "variance": of_spread}
