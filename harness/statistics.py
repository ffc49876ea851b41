"""Intervals and tests for times of lanes that took turns: pure functions on arrays.

In: of each set of fresh processes the natural logs of seconds per step, an array (rounds, lanes) whose dropped
rows are NaN. A process effect is the median over rounds of a paired log contrast, so one number for each set; the
answer is an interval over these. (``moving_block_interval`` and ``nested_bootstrap_interval``, which look within
processes, are what that choice was held against: tests use them, no command does.) Out: ``Interval`` in log units of
time ratios (lane over base: positive is slower), p-values, and ``verdict``. Coverages in the docstrings are
simulated, in per cent where the nominal one is 95; the tests simulate most of them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

SIGNIFICANCE = 0.05
"""The bar for a p-value."""

NO_DIFFERENCE = "no difference found"
"""The verdict on what cannot be told from noise."""

LEVEL = 1 - SIGNIFICANCE
"""The level of an interval that is reported."""

FEWEST_PROCESSES = 6
"""Sets of fresh processes before the interval is looked at for the first time.

From then on it is looked at after each set, and sampling stops when it is narrow enough: a fixed-width
sequential interval (Chow & Robbins, Annals of Mathematical Statistics 36:457, 1965). Their theorem is for ever
narrower intervals; with few sets, stopping on the estimated width prefers samples that underestimate the variance.
"""

STOPPING_LEVEL = 0.96
"""Nominal level of the interval that is looked at again and again; it holds about LEVEL.

Simulated, at most 30 sets, widths that are reached after 6 to 26 sets on average: normal effects 93.8 to 96.0
(at nominal 95 %: 92.5 to 95.0), one in ten with three times the spread 94.5 to 96.6, t with 3 degrees of
freedom 95.0 to 97.2. Skewed effects lose most: with one process in ten slower by three sd, 92.9 to 95.4.
"""


BATCHES, FEWEST_BATCHES = 20, 5
"""Batches that one process's series is cut into: as many, and no fewer."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a log ratio: estimate, ends, and the level that it is reported at.

    ``freedom``: degrees of freedom of the Student's t that its ends come from; infinite for a normal one.
    """

    estimate: float
    low: float
    high: float
    level: float
    freedom: float = field(default=math.inf, compare=False)

    @property
    def half_width(self) -> float:
        """Half of high minus low, in log units."""
        return (self.high - self.low) / 2

    def ratios(self) -> tuple[float, float, float]:
        """Estimate, low and high as ratios of times; infinite where no float is as large."""
        return _exp(self.estimate), _exp(self.low), _exp(self.high)


@dataclass(frozen=True)
class Proportionality:
    """How seconds grow with steps: see ``proportionality``."""

    intercept: float
    slope: float
    worst: float


def paired_contrast(log_seconds: ArrayLike, lane: int, base: Sequence[int]) -> Array:
    """Log time of a lane minus the mean log time of the base lanes, one value for each complete round.

    (rounds, lanes) -> (complete rounds,): those without NaN in the lanes involved. With two base lanes that do
    the same work (the first target and its control lane) and lanes of equal variance s^2 it has variance 1.5 s^2,
    with one 2 s^2, and it is uncorrelated with the contrast control minus first. A price: pauses are one-sided,
    so two base lanes skew it; if one block in ten of each lane takes five times as long, its median moves by
    -0.12 sd of the other rounds, with one base lane by nothing. ValueError if base is empty or holds the lane.
    """
    if not base or lane in base:
        raise ValueError(f"base lanes {list(base)} of lane {lane}: expected one or more other lanes")
    logs = np.asarray(log_seconds, dtype=np.float64)
    contrast: Array = logs[:, lane] - logs[:, list(base)].mean(axis=1)
    return contrast[~np.isnan(contrast)]


def process_effect(log_seconds: ArrayLike, lane: int, base: Sequence[int]) -> float:
    """The log ratio that one set of processes gives: the mean, over the base lanes, of the median paired log ratio.

    With two base lanes it has less variance than with one (simulated: sd 0.226 against 0.274 of that of a round, 40
    rounds), and it is uncorrelated with control minus first. The medians are taken before the mean, as
    pauses are one-sided: the median of ``paired_contrast`` with two bases is biased by them, this is not.
    ValueError without a complete round. However long the pauses of a few rounds, they move it by a fraction of
    the other rounds' sd; they move a mean in proportion.
    """
    complete = np.asarray(log_seconds, dtype=np.float64)
    complete = complete[~np.isnan(complete[:, [lane, *base]]).any(axis=1)]
    if not complete.size:
        raise ValueError(f"no round has times of lane {lane} and base lanes {list(base)}")
    return float(np.mean([np.median(paired_contrast(complete, lane, [one])) for one in base]))


def moving_block_interval(
    values: ArrayLike, level: float = LEVEL, seed: int = 0, resamples: int = 2000, block_length: int | None = None
) -> Interval:
    """Interval of the median of one autocorrelated series (n,), by moving blocks: of one process set only.

    It does not contain the variance between processes. ValueError for fewer than 2 values or one not finite, and
    for a block length outside 1 to n // 2.

    Standard error: of the medians of resampled blocks of length b (Kuensch, Annals of Statistics 17:1217, 1989),
    over sqrt(1 - b/n), as blocks scatter about the sample's own centre, and over the root of the share of the
    variance that such blocks keep, 1 - G / (b g(0)) (their leading bias; at least 1/2). Ends: Student's t with
    n/b - 1 degrees of freedom, the blocks that fit less one. Percentiles of the medians cover less.

    Default of b: twice the optimum of Politis & White (Econometric Reviews 23:53, 2004) for an AR(1) series, as
    bias costs an interval more than scatter does; no less than n^(1/3), no more than n/5. In their terms
    G / g(0) = 2 r / (1 - r^2); r is the lag-1 autocorrelation of the signs about the median, which are what a
    median averages, corrected for its small-sample bias (Kendall, Biometrika 41:403, 1954), and 0 if negative.

    Coverage for n = 50 to 400: white noise (normal, t with 3 degrees of freedom, or 10 % pauses of five times) and
    AR(1) with phi 0.3 or 0.6, 93 to 96; phi 0.8, 92 (n = 50) to 94.
    """
    series = _finite(values, 2, "values")
    count, memory = len(series), _memory(series)
    length = _block_length(count, memory) if block_length is None else block_length
    if not 1 <= length <= count // 2:
        raise ValueError(f"block length {length}: expected 1 to {count // 2} for {count} values")
    medians = _block_medians(series, length, resamples, np.random.default_rng(seed))
    kept = (1 - length / count) * (1 - min(memory / length, 0.5))
    error = float(np.std(medians, ddof=1)) / math.sqrt(kept)
    return interval_around(float(np.median(series)), error, count / length - 1, level)


def process_interval(effects: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of R process effects (R,) with Student's t interval, R - 1 degrees of freedom.

    Kalibera & Jones, Rigorous benchmarking in reasonable time, ISMM 2013: the variance of the highest level of
    repetition is the one that counts. Here that is the process, whose effects contain the noise within it, so
    nothing below it is resampled or added (Davison & Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8). ValueError for R < 2 or an effect that is not finite.

    Coverage for R = 6 and 15: 94.5 to 96.3, also where one process in ten has three times the spread, or is
    slower by three sd, and for effects that follow t with 3 degrees of freedom.
    """
    series = _finite(effects, 2, "process effects")
    mean, error = _mean_and_error(series)
    return interval_around(mean, error, len(series) - 1, level)


def ratio_interval(above: ArrayLike, below: ArrayLike, level: float = LEVEL) -> Interval | None:
    """The ratio of two means, from pairs of process effects, both (R,): sums of ``above`` over sums of ``below``.

    Fieller's interval (Journal of the Royal Statistical Society B 16:175, 1954): the ratios r for which the mean of
    above - r below is within t standard errors of zero, R - 1 degrees of freedom; not in log units. None where these
    are no bounded stretch, ``below`` not being told from zero. ValueError as ``process_interval``.

    Coverage for R = 6, means of ``below`` of 4 and 10 standard errors, correlations of -0.5, 0 and 0.8: 94 to 96.
    """
    top, bottom = _finite(above, 2, "process effects"), _finite(below, 2, "process effects")
    count = len(top)
    square = student_quantile(count - 1, level) ** 2 / count
    covariance = np.cov(top, bottom)
    over, under = float(np.mean(top)), float(np.mean(bottom))
    a = under**2 - square * float(covariance[1, 1])
    if a <= 0:
        return None
    b = over * under - square * float(covariance[0, 1])
    c = over**2 - square * float(covariance[0, 0])
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Interval(over / under, (b - root) / a, (b + root) / a, level)


def nested_bootstrap_interval(
    contrasts: Sequence[ArrayLike], level: float = LEVEL, seed: int = 0, resamples: int = 2000
) -> Interval:
    """A check on ``process_interval``: resamples processes, and moving blocks within each.

    ``contrasts``: one series of paired contrasts (n,) for each of R processes. Estimate: mean of their medians.
    Ends: standard error over resamples times sqrt(R / (R - 1)), by Student's t with R - 1 degrees of freedom.
    ValueError for R < 2, a series of fewer than 2 values, or a value not finite.

    Resampling with replacement on both levels counts the noise within processes twice (Davison & Hinkley 1997,
    section 3.8), so it is wider. Coverage for R = 6 with 40 rounds: 96 where the sd between processes is five
    times that of a process's median, 99 where they are equal, 99.5 or more with nothing between processes.
    """
    series = [_finite(values, 2, "contrasts of a process") for values in contrasts]
    count = len(series)
    if count < 2:
        raise ValueError(f"{count} processes: expected at least 2")
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, count, size=(resamples, count))
    medians = np.empty(picks.shape)
    for process, values in enumerate(series):
        picked = picks == process
        length = _block_length(len(values), _memory(values))
        medians[picked] = _block_medians(values, length, int(picked.sum()), generator)
    error = float(np.std(medians.mean(axis=1), ddof=1)) * math.sqrt(count / (count - 1))
    return interval_around(float(np.mean([np.median(values) for values in series])), error, count - 1, level)


def sequential_interval(effects: ArrayLike) -> Interval:
    """``process_interval`` at STOPPING_LEVEL, reported at LEVEL: what it holds where its width may end sampling."""
    computed = process_interval(effects, STOPPING_LEVEL)
    return Interval(computed.estimate, computed.low, computed.high, LEVEL)


def narrow_enough(effects: ArrayLike, precision: float) -> bool:
    """Whether sampling may stop: FEWEST_PROCESSES effects, and an interval of at most +-``precision`` as a ratio."""
    series = np.asarray(effects, dtype=np.float64)
    return len(series) >= FEWEST_PROCESSES and sequential_interval(series).half_width <= math.log1p(precision)


def p_value(effects: ArrayLike) -> float:
    """Two-sided t test that process effects (R,) have mean zero; below SIGNIFICANCE where the interval excludes 0.

    So that it agrees with ``sequential_interval``, whose nominal level is STOPPING_LEVEL, the test's p is
    multiplied by SIGNIFICANCE / (1 - STOPPING_LEVEL), 5/4, and capped at 1. Effects that are all equal give 0,
    all zero 1. ValueError as ``process_interval``.
    """
    from scipy.special import stdtr

    series = _finite(effects, 2, "process effects")
    mean, error = _mean_and_error(series)
    if error == 0:
        return 0.0 if mean else 1.0
    nominal = 2 * float(stdtr(len(series) - 1, -abs(mean) / error))
    return min(1.0, nominal * SIGNIFICANCE / (1 - STOPPING_LEVEL))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given (Holm, Scandinavian Journal of Statistics 6:65, 1979).

    The k-th smallest of m is multiplied by m - k + 1, is no smaller than the one before it, and at most 1. NaN
    stays NaN and does not count.
    """
    given = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known])]
    adjusted = given.copy()
    adjusted[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)))
    return [float(p) for p in adjusted]


def batch_median_error(values: ArrayLike) -> tuple[float, int] | None:
    """Standard error of the median of one autocorrelated series (n,), and the number of batches it comes from.

    Batch means (Schmeiser, Operations Research 30:556, 1982) of medians: the series is cut into BATCHES batches, or as
    many of at least three values as there are, and their medians' sd is divided by the root of their number. With
    Student's t of one degree less it makes an interval within one process at a fraction of what
    ``moving_block_interval`` costs. None for a series too short for FEWEST_BATCHES. ValueError for a value not finite.

    Coverage for n = 15 to 400: white noise (normal, t with 3 degrees of freedom, or 10 % pauses of five times) 93 to
    97; AR(1) with phi 0.3, 91 to 95; phi 0.6, 83 (n = 30) to 93 (n = 400).
    """
    found = batch_median_errors(_finite(values, 0, "values")[np.newaxis])
    return None if found is None else (float(found[0][0]), found[1])


def batch_median_errors(values: Array) -> tuple[Array, int] | None:
    """``batch_median_error`` of each of several series of the same length, (m, n): (m,), and the number of batches.

    ValueError for a value not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("values: expected finite numbers")
    count = min(BATCHES, values.shape[1] // 3)
    if count < FEWEST_BATCHES:
        return None
    length, longer = divmod(values.shape[1], count)
    cut = longer * (length + 1)
    parts = (
        values[:, :cut].reshape(len(values), longer, length + 1),
        values[:, cut:].reshape(len(values), count - longer, length),
    )
    found = np.concatenate([medians(part) for part in parts if part.size], axis=1)
    away = found - np.add.reduce(found, axis=1, keepdims=True) / count
    return np.sqrt(np.add.reduce(away * away, axis=1) / (count - 1)) / math.sqrt(count), count


def medians(values: Array) -> Any:
    """Of numbers along the last axis, which is not empty: what ``numpy.median`` gives, in a fraction of its time.

    None of the numbers may be NaN.
    """
    half = values.shape[-1] // 2
    parted = np.partition(values, half, axis=-1)
    if values.shape[-1] % 2:
        return parted[..., half]
    return (parted[..., :half].max(axis=-1) + parted[..., half]) / 2  # quicker than to ask for both places


def interval_around(centre: float, error: float, freedom: float, level: float = LEVEL) -> Interval:
    """Student's t interval of an estimate with a standard error of ``freedom`` degrees of freedom."""
    half = student_quantile(freedom, level) * error
    return Interval(centre, centre - half, centre + half, level, freedom)


@lru_cache(maxsize=4096)
def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """Half width, in standard errors, of an interval of that level; remembered, as tables ask for few of them."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + level / 2))


def unpaired_interval(a: ArrayLike, b: ArrayLike, level: float = LEVEL, run_to_run: float = 0.0) -> Interval:
    """Log ratio b over a of two runs that did not take turns: per-process log seconds (R_a,) and (R_b,).

    Welch's interval (Biometrika 34:28, 1947) with Satterthwaite's degrees of freedom. ``run_to_run``: sd, in log
    units, of the same work between runs, taken as known; each run carries it, so twice its square is added to the
    variance. ValueError for a side of fewer than 2 processes or a value not finite. Coverage for 6 against 6, 4
    against 9 and 9 against 4 processes, one side of three times the spread: 93.7 to 96.2.
    """
    sides = [_finite(side, 2, "processes of a run") for side in (a, b)]
    variances = [float(np.var(side, ddof=1)) / len(side) for side in sides]
    total = sum(variances) + 2 * run_to_run**2
    estimated = sum(variance**2 / (len(side) - 1) for variance, side in zip(variances, sides, strict=True))
    freedom = total**2 / estimated if estimated else math.inf
    return interval_around(float(np.mean(sides[1]) - np.mean(sides[0])), math.sqrt(total), freedom, level)


def drifting_interval(a: ArrayLike, b: ArrayLike, run_to_run: float, level: float = LEVEL) -> Interval:
    """As ``unpaired_interval``, for runs of which one may have a single process, so that its own spread is unknown.

    Then the spread is taken from ``run_to_run`` alone, as a normal interval: with one process a side, twice its
    square is all there is. Coverage for 1 against 1, 1 against 6 and 6 against 6 processes whose own sd is a quarter of
    ``run_to_run``: 93.5 to 95.5; 1 against 1 with an sd as large as ``run_to_run``, 83.
    ValueError for an empty side.
    """
    sides = [_finite(side, 1, "processes of a run") for side in (a, b)]
    if all(len(side) >= 2 for side in sides):
        return unpaired_interval(a, b, level, run_to_run)
    known = [float(np.var(side, ddof=1)) / len(side) for side in sides if len(side) >= 2]
    error = math.sqrt(2 * run_to_run**2 + sum(known))
    return interval_around(float(np.mean(sides[1]) - np.mean(sides[0])), error, math.inf, level)


def next_value_interval(before: ArrayLike, value: float, level: float = LEVEL) -> Interval:
    """How much a further value is above the mean of those ``before``, (k,), one of each run: log units.

    A normal prediction interval, moved: the spread of the values before, s, is what the further one has too, so its
    difference from their mean has the error s sqrt(1 + 1/k), with k - 1 degrees of freedom. ValueError for fewer than
    2 values or one not finite. Coverage for k = 4 to 10: 94.5 to 95.5.
    """
    series = _finite(before, 2, "values before")
    mean, error = _mean_and_error(series)
    return interval_around(value - mean, error * math.sqrt(len(series) + 1), len(series) - 1, level)


def slope_within_groups(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike, clusters: ArrayLike, level: float = LEVEL
) -> Interval | None:
    """What y changes by for each unit of x, among values of one group, over all groups; in units of y over x.

    All (n,); ``groups`` and ``clusters`` are labels. Each group has a level of its own (fixed effects), so that only
    differences within it count. Values of one cluster were disturbed together: they share an error, of any size.
    Least squares with the cluster-robust error CR2 and Student's t of as many degrees of freedom as Bell & McCaffrey
    (Survey Methodology 28:169, 2002) give it; Imbens & Kolesar (Review of Economics and Statistics 98:701, 2016) show
    that both are needed where clusters are few, or some of them have most of the variation of x. None where they cannot
    be had: no group with two clusters, no variation of x in any, or one cluster alone that has it.
    ValueError for rows of different lengths or a value not finite.

    Coverage, where clusters and values have errors of one size: 5 groups of 6 clusters, or one of 10, 95 to 97, also if
    the errors grow threefold with x, or x is skewed; 3 or 4 clusters in one group, 94 to 97, of those that have one.
    """
    xs, ys = _finite(x, 0, "x"), _finite(y, 0, "y")
    group, cluster = (np.unique(np.asarray(one), return_inverse=True)[1] for one in (groups, clusters))
    if not len(xs) == len(ys) == len(group) == len(cluster):
        raise ValueError(f"{len(xs)}, {len(ys)}, {len(group)} and {len(cluster)} values: expected as many of each")
    pairs = np.unique(np.stack([group, cluster], axis=1), axis=0)
    told = np.isin(group, np.flatnonzero(np.bincount(pairs[:, 0], minlength=len(xs)) > 1))
    if not told.any():
        return None
    xs, ys = xs[told], ys[told]
    group, cluster = (np.unique(one[told], return_inverse=True)[1] for one in (group, cluster))
    sizes = np.bincount(group)
    xs, ys = (values - (np.bincount(group, values) / sizes)[group] for values in (xs, ys))
    variation = float(xs @ xs)
    if variation <= _NO_VARIATION * len(xs):
        return None
    slope = float(xs @ ys) / variation
    weights = _cr2_weights(xs, group, cluster, sizes, variation)
    if weights is None:
        return None
    error = math.sqrt(float(np.sum(np.bincount(cluster, weights * (ys - slope * xs)) ** 2))) / variation
    return interval_around(slope, error, _cr2_freedom(weights, xs, group, cluster, sizes, variation), level)


def _cr2_weights(
    xs: Array, group: NDArray[np.int64], cluster: NDArray[np.int64], sizes: NDArray[np.int64], variation: float
) -> Array | None:
    """Of each value (n,): its cluster's x through the inverse root of what the fit leaves of the cluster's error.

    None if it leaves nothing of one: that cluster is what the slope is drawn through.
    """
    weights = np.empty_like(xs)
    order = np.argsort(cluster, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        own, of = xs[members], group[members]
        left = np.eye(len(members)) - (of[:, None] == of) / sizes[of] - np.outer(own, own) / variation
        values, vectors = np.linalg.eigh(left)
        kept = values > _LEAST_LEFT
        turned = vectors.T @ own
        if float(np.sum(turned[~kept] ** 2)) > 1e-9 * variation:
            return None
        weights[members] = vectors[:, kept] @ (turned[kept] / np.sqrt(values[kept]))
    return weights


def _cr2_freedom(
    weights: Array,
    xs: Array,
    group: NDArray[np.int64],
    cluster: NDArray[np.int64],
    sizes: NDArray[np.int64],
    variation: float,
) -> float:
    """Satterthwaite's, for errors that are in truth independent: tr(W)^2 / tr(W^2) of W (clusters, clusters).

    W is a diagonal matrix less one of low rank, U U', U of a column for each group and one for x.
    """
    from scipy.sparse import coo_array

    diagonal = np.bincount(cluster, weights**2)
    by_group = coo_array((weights / np.sqrt(sizes[group]), (cluster, group))).tocsr()
    by_x = np.bincount(cluster, weights * xs) / math.sqrt(variation)
    taken = np.asarray(by_group.multiply(by_group).sum(axis=1)).ravel() + by_x**2
    across = by_group.T @ by_group
    between = 2 * float(np.sum((by_group.T @ by_x) ** 2)) + float(by_x @ by_x) ** 2
    squares = float(across.multiply(across).sum()) + between
    trace = float(np.sum(diagonal - taken))
    return trace**2 / (float(np.sum(diagonal**2)) + squares - 2 * float(np.sum(diagonal * taken)))


_NO_VARIATION = 1e-12
"""Mean square of x about its groups' means below which there is nothing to draw a slope through."""

_LEAST_LEFT = 0.01
"""Share of a cluster's error that the fit must leave for it to be told from the slope."""


def interval_p_value(interval: Interval, of: float = 0.0) -> float:
    """Two-sided, that the log ratio is ``of``, from an interval of Student's t by its half width."""
    from scipy.special import stdtr

    away = abs(interval.estimate - of)
    error = interval.half_width / student_quantile(interval.freedom, interval.level)
    return 2 * float(stdtr(interval.freedom, -away / error)) if error else float(away == 0)


def noise_floor(control_effects: ArrayLike) -> float:
    """Absolute mean of the control lane's process effects (R,), log units: what the same program differed by."""
    return abs(float(np.mean(_finite(control_effects, 1, "control effects"))))


def verdict(interval: Interval, adjusted_p: float, floor: float) -> str:
    """The lane against its base: "faster", "slower" or "no difference found".

    A difference needs all of: an adjusted p-value below SIGNIFICANCE, an interval that excludes 0, and an estimate
    beyond the noise floor. NaN anywhere is no difference.
    """
    excludes_zero = interval.low > 0 or interval.high < 0
    if adjusted_p < SIGNIFICANCE and excludes_zero and abs(interval.estimate) > floor:
        return "slower" if interval.estimate > 0 else "faster"
    return NO_DIFFERENCE


def proportionality(steps: ArrayLike, seconds: ArrayLike, of_each: Callable[[Array], Any] = np.min) -> Proportionality:
    """Whether time grows in proportion to steps, as it must where a block ends with a true synchronisation.

    ``steps`` and ``seconds`` of blocks, both (n,). A robust line through each step count's least time, since whatever
    else the machine does only adds; ``of_each`` may be ``np.median``, where it always does something, which a short
    block escapes more easily than a long one. Medians of the slopes between all pairs and of what they leave (Theil,
    1950; Sen, JASA 63:1379, 1968). ``slope``: seconds per step. ``intercept``: share of that time at the largest step
    count, 0 for proportion. ``worst``: largest distance of a least time from the line, as share of that time.
    ValueError with fewer than 3 distinct step counts, or a value that is not finite.
    """
    counts, times = _finite(steps, 1, "steps"), _finite(seconds, 1, "seconds")
    distinct = np.unique(counts)
    if len(distinct) < 3:
        raise ValueError(f"{len(distinct)} distinct step counts: expected at least 3")
    least = np.array([of_each(times[counts == count]) for count in distinct])
    one, other = np.triu_indices(len(distinct), 1)
    slope = float(np.median((least[other] - least[one]) / (distinct[other] - distinct[one])))
    intercept = float(np.median(least - slope * distinct))
    worst = float(np.max(np.abs(least - (intercept + slope * distinct)) / least))
    return Proportionality(intercept / float(least[-1]), slope, worst)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _finite(values: ArrayLike, fewest: int, name: str) -> Array:
    """The values as (n,) floats; ValueError for another shape, fewer than ``fewest``, or one not finite."""
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) < fewest or not np.isfinite(series).all():
        raise ValueError(f"{name}: expected at least {fewest} finite numbers in one row, found shape {series.shape}")
    return series


def _mean_and_error(series: Array) -> tuple[float, float]:
    """Mean of (n,) and its standard error: ``numpy.mean`` and ``numpy.std``, in a fraction of their time."""
    count = len(series)
    mean = np.add.reduce(series) / count
    away = series - mean
    return float(mean), math.sqrt(np.add.reduce(away * away) / (count - 1)) / math.sqrt(count)


def _memory(series: Array) -> float:
    """G / g(0) of an AR(1) series with the lag-1 autocorrelation of the signs about the median: 0 for white noise."""
    signs, count = np.sign(series - np.median(series)), len(series)
    size = float(signs @ signs)
    raw = float(signs[1:] @ signs[:-1]) / size if size else 0.0
    r = min(max(raw + (1 + 3 * raw) / count, 0.0), 0.9)
    return 2 * r / (1 - r * r)


def _block_length(count: int, memory: float) -> int:
    optimum = math.pow(1.5 * memory**2 * count, 1 / 3)
    return max(1, min(math.ceil(max(2 * optimum, math.pow(count, 1 / 3))), count // 5))


def _block_medians(series: Array, length: int, resamples: int, generator: np.random.Generator) -> Array:
    """Medians (resamples,) of series of the same length, put together from blocks that begin anywhere."""
    count = len(series)
    starts = generator.integers(0, count - length + 1, size=(resamples, -(-count // length)))
    places = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :count]
    return np.asarray(np.median(series[places], axis=1, overwrite_input=True))
