"""The gradient noise scale: estimated from gradients of several batches, and as a run folder keeps it.

McCandlish et al., An Empirical Model of Large-Batch Training, arXiv 1812.06162, equation 2.9: with G the gradient of
the mean loss and Sigma the covariance of the gradients of single examples, B_simple = tr(Sigma) / |G|^2, in examples.
A step on a batch well below it goes about as far per example as the smallest batch does, so steps scale nearly
perfectly; well above it, more examples make hardly a better step. It says nothing of a learning rate or an optimizer.
It is a property of one point, and so is its interval: as |G|^2 goes up and down, eight steps of mnist-cnn with momentum
have taken it from 480 to 210, and eight more to 320.

Measuring it is ``harness.measure.noise_probe``'s affair. One point of training is one file,
``RUN/noise-scale/ID.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.runs.noise_scales import Estimate
from harness.statistics import LEVEL, student_quantile

FEWEST_BATCHES = 8
"""Fewer say too little of how the batches scatter."""

_COLUMNS = 2**20
"""Parameters at a time whose products are summed in float64, so that no second copy of all gradients is made."""

_Floats = NDArray[np.floating[Any]]
_Array = NDArray[np.float64]


def estimate(gradients: Sequence[_Floats], batch_size: int, level: float = LEVEL) -> Estimate:
    """From the gradients (P,) of K batches of ``batch_size`` examples each, drawn alike and independently.

    |G|^2 is the mean product of two different gradients, tr(Sigma) the batch size times what their mean square has
    more: what appendix A.1 of the paper gives for a small batch of ``batch_size`` and a big one of all K together.

    Interval: Fieller's (Journal of the Royal Statistical Society B 16:175, 1954) for the ratio of the two, with
    their covariance by the jackknife over batches, as for U-statistics (Arvesen, Annals of Mathematical Statistics
    40:2076, 1969), and Student's t with K - 1 degrees of freedom. Where |G|^2 cannot be told from zero it has no upper
    end. The jackknife overestimates the variance of a |G|^2 that is near zero, so it is wide there.
    Coverage, simulated for K = 16 and 32, noise scales of 1/50 to 10 times K batches and 100 parameters whose variances
    are equal or fall as one over their rank, in per cent where the nominal one is 95: 92 to 99.6 for noise that is
    normal, skewed, or of another size in each batch. Where it has no fourth moment (t with 3 degrees of freedom) a
    variance is underestimated as a rule: 75 to 87 for noise scales up to a tenth of K batches.

    ValueError for fewer than FEWEST_BATCHES, other shapes, or values that are not finite.
    """
    count = len(gradients)
    if count < FEWEST_BATCHES or any(row.ndim != 1 or len(row) != len(gradients[0]) for row in gradients):
        raise ValueError(f"expected {FEWEST_BATCHES} or more gradients in one row each, as long as each other")
    products = _products(gradients)
    if not np.isfinite(products).all():
        raise ValueError("the gradients are not finite")
    own, total = np.diag(products), products.sum()
    whole = _moments(own.sum(), total, count)
    without_one = _moments(own.sum() - own, total - 2 * products.sum(axis=1) + own, count - 1)
    pseudo_values = count * whole[:, None] - (count - 1) * without_one
    noise, square = (float(value) for value in whole)
    low, high = _ratio_interval(noise, square, np.cov(pseudo_values) / count, count - 1, level)
    return Estimate(
        variance=batch_size * noise,
        gradient_square=square,
        noise_scale=batch_size * noise / square if square > 0 else None,
        low=None if low is None else batch_size * low,
        high=None if high is None else batch_size * high,
    )


def _products(gradients: Sequence[_Floats]) -> _Array:
    """Inner products (K, K) of the gradients, in float64."""
    products = np.zeros((len(gradients), len(gradients)))
    for start in range(0, len(gradients[0]), _COLUMNS):
        part = np.stack([row[start : start + _COLUMNS] for row in gradients]).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # whoever wants them looks whether they are finite
            products += part @ part.T
    return products


def _moments(own: ArrayLike, total: ArrayLike, count: int) -> _Array:
    """Variance of a batch's gradient and |G|^2 (2, ...), from the sum of squares and the sum of all products."""
    square = (np.asarray(total) - own) / (count * (count - 1))
    return np.stack([np.asarray(own) / count - square, square])


def _ratio_interval(
    above: float, below: float, covariance: _Array, freedom: int, level: float
) -> tuple[float | None, float | None]:
    """Positive ratios r for which above - r below is within t standard errors of zero: one stretch, from ``low`` on."""
    square = student_quantile(freedom, level) ** 2
    # The r between, or outside, the roots of a r^2 - 2 b r + c.
    a = below**2 - square * float(covariance[1, 1])
    b = above * below - square * float(covariance[0, 1])
    c = above**2 - square * float(covariance[0, 0])
    if a > 0 and below <= 0:
        return None, None
    root = math.sqrt(max(b**2 - a * c, 0.0))
    if a > 0:
        return max((b - root) / a, 0.0), (b + root) / a
    return (max((b - root) / a, 0.0) if a < 0 else None), None
