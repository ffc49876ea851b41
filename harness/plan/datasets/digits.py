"""The built-in dataset ``digits``: handwriting-like images made here, from jittered strokes, with NumPy alone.

Each image starts from a glyph: a few control points and the strokes through them. The points are
jittered, the strokes sampled along Catmull-Rom splines (Catmull and Rom, 1974) and moved by a random
linear map and shift; a pixel's ink falls off with its distance to the nearest sample. Then come
clutter (short stray strokes), an erased patch, weaker contrast and noise.

Everything is integer arithmetic on the raw output of PCG64, whose stream NumPy keeps fixed (NEP 19),
so the bytes are the same on every platform and every NumPy: ``SHA256`` is checked in the tests.
Lengths are in glyph units (a glyph is 100 tall) or pixels, as fixed-point numbers with ``*_UNIT`` parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.plan.datasets.arrays import DatasetArrays

VERSION = 1
"""Raised with every change of the bytes."""

SHA256 = "1d8312dad1679a3bd601a3bd070812ff9a6510d3cb30e0c986487bb0c847e886"
"""Content hash of version ``VERSION``."""

TRAIN_EXAMPLES, TEST_EXAMPLES = 60_000, 10_000
SIZE = 28
CLASSES = 10

PIXEL_UNIT = 16
"""Positions are in sixteenths of a pixel."""

GLYPH_UNIT = 16
"""Control points are in sixteenths of a glyph unit."""

WEIGHT_UNIT = 4096
"""Spline weights and the linear map are in 4096ths."""

FAR = 170
"""Offsets along one axis saturate here (10.6 pixels), so that a squared distance fits 16 bits."""

CHUNK = 128
"""Images drawn at a time: small enough for the processor's cache."""

Point = tuple[int, int]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Glyph:
    """One way to write a digit: control points in a box of 100 x 100 (x right, y down), strokes as indices of points.

    A stroke that ends where it began is a closed curve; strokes that share a point meet there at a corner.
    """

    digit: int
    points: tuple[Point, ...]
    strokes: tuple[tuple[int, ...], ...]


_RING = ((50, 0), (76, 14), (84, 50), (76, 86), (50, 100), (24, 86), (16, 50), (24, 14))
_THREE = (78, 62), (80, 84), (52, 100), (16, 90)

GLYPHS = (
    Glyph(0, _RING, ((0, 1, 2, 3, 4, 5, 6, 7, 0),)),
    Glyph(0, ((62, 2), (36, 8), (18, 50), (36, 96), (60, 96), (82, 50), (70, 10)), ((0, 1, 2, 3, 4, 5, 6, 0),)),
    Glyph(1, ((50, 0), (50, 50), (50, 100)), ((0, 1, 2),)),
    Glyph(1, ((28, 24), (54, 0), (52, 50), (52, 100)), ((0, 1), (1, 2, 3))),
    Glyph(1, ((30, 22), (52, 0), (52, 100), (28, 100), (76, 100)), ((0, 1), (1, 2), (3, 2, 4))),
    Glyph(
        2,
        ((18, 26), (30, 6), (54, 0), (78, 12), (78, 36), (52, 66), (14, 99), (86, 99)),
        ((0, 1, 2, 3, 4, 5, 6), (6, 7)),
    ),
    Glyph(
        2,
        ((18, 22), (48, 0), (78, 16), (70, 48), (38, 86), (18, 94), (14, 80), (34, 78), (62, 94), (88, 92)),
        ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9),),
    ),
    Glyph(3, ((18, 14), (46, 0), (74, 14), (68, 36), (42, 46), *_THREE), ((0, 1, 2, 3, 4), (4, 5, 6, 7, 8))),
    Glyph(3, ((18, 2), (78, 2), (42, 42), *_THREE), ((0, 1), (1, 2), (2, 3, 4, 5, 6))),
    Glyph(4, ((30, 0), (14, 60), (86, 60), (68, 26), (64, 100)), ((0, 1), (1, 2), (3, 4))),
    Glyph(4, ((64, 0), (12, 66), (88, 66), (64, 100)), ((0, 1), (1, 2), (0, 3))),
    Glyph(
        5,
        ((80, 2), (28, 2), (22, 46), (52, 38), (82, 58), (76, 88), (48, 100), (16, 90)),
        ((0, 1), (1, 2), (2, 3, 4, 5, 6, 7)),
    ),
    Glyph(
        6,
        ((70, 2), (38, 26), (20, 64), (32, 94), (58, 98), (80, 76), (66, 54), (40, 56)),
        ((0, 1, 2, 3, 4, 5, 6, 7, 2),),
    ),
    Glyph(6, ((34, 0), (22, 40), (20, 76), (46, 100), (74, 88), (76, 64), (52, 52)), ((0, 1, 2, 3, 4, 5, 6, 2),)),
    Glyph(7, ((14, 2), (84, 2), (56, 50), (40, 100)), ((0, 1), (1, 2, 3))),
    Glyph(7, ((14, 2), (84, 2), (58, 50), (42, 100), (32, 52), (80, 48)), ((0, 1), (1, 2, 3), (4, 2, 5))),
    Glyph(
        8,
        ((50, 46), (24, 28), (28, 8), (50, 0), (72, 8), (76, 28), (20, 70), (24, 92), (50, 100), (76, 92), (80, 70)),
        ((0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 0),),
    ),
    Glyph(
        8,
        ((50, 46), (28, 36), (28, 10), (50, 0), (72, 10), (72, 36), (22, 58), (22, 88), (50, 100), (78, 88), (78, 58)),
        ((0, 1, 2, 3, 4, 5, 0), (0, 6, 7, 8, 9, 10, 0)),
    ),
    Glyph(
        9,
        ((76, 26), (66, 4), (40, 2), (20, 22), (32, 48), (60, 46), (74, 66), (68, 100)),
        ((0, 1, 2, 3, 4, 5, 0), (0, 6, 7)),
    ),
    Glyph(9, ((78, 26), (50, 0), (22, 24), (46, 52), (78, 60), (66, 94), (28, 94)), ((0, 1, 2, 3, 0), (0, 4, 5, 6))),
)


def make(progress: Callable[[int, int], None], train: int = TRAIN_EXAMPLES, test: int = TEST_EXAMPLES) -> DatasetArrays:
    """Draw the dataset. ``progress(done, total)`` counts images.

    Returns uint8 images (N, 28, 28, 1) and int32 labels (N,). Training and test images come from separate streams.
    """
    total = train + test
    train_images, train_labels = _draw(0, train, lambda done: progress(done, total))
    test_images, test_labels = _draw(1, test, lambda done: progress(train + done, total))
    return DatasetArrays(train_images, train_labels, test_images, test_labels)


def _draw(stream: int, count: int, progress: Callable[[int], None]) -> tuple[Bytes, NDArray[np.int32]]:
    """``count`` images and labels from one stream of random numbers."""
    source = np.random.PCG64([VERSION, stream])
    labels = _raw(source, (count,)) % CLASSES
    variant = _raw(source, (count,))
    images = np.empty((count, SIZE, SIZE, 1), np.uint8)
    done = 0
    for digit in range(CLASSES):
        glyphs = [glyph for glyph in GLYPHS if glyph.digit == digit]
        for number, glyph in enumerate(glyphs):
            members = np.flatnonzero((labels == digit) & (variant % len(glyphs) == number))
            plan = _spline(glyph)
            for start in range(0, len(members), CHUNK):
                chosen = members[start : start + CHUNK]
                images[chosen, :, :, 0] = _render(glyph, plan, len(chosen), source).transpose(2, 0, 1)
                done += len(chosen)
                progress(done)
    return images, labels.astype(np.int32)


def _raw(source: np.random.PCG64, shape: tuple[int, ...]) -> Integers:
    """Uniform integers from 0 to 65535."""
    count = math.prod(shape)
    words = np.asarray(source.random_raw(-(-count // 4)), "<u8")
    return words.view("<u2")[:count].reshape(shape).astype(np.int64)


def _uniform(source: np.random.PCG64, low: int, high: int, *shape: int) -> Integers:
    """Uniform integers from ``low`` to ``high``, both included."""
    return low + ((_raw(source, shape) * (high - low + 1)) >> 16)


def _peaked(source: np.random.PCG64, width: int, *shape: int) -> Integers:
    """Integers from ``-width`` to ``width`` around 0, the middle more likely (the mean of two uniform ones)."""
    return (_uniform(source, -width, width, *shape) + _uniform(source, -width, width, *shape)) >> 1


def _spline(glyph: Glyph) -> list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Samples along all strokes, about five glyph units (a pixel) apart: four point indices and their weights."""
    plan = []
    for stroke in glyph.strokes:
        closed = stroke[0] == stroke[-1]
        before, after = (stroke[-2], stroke[1]) if closed else (stroke[0], stroke[-1])
        padded = (before, *stroke, after)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
            pieces = max(
                2, math.isqrt(sum((p - q) ** 2 for p, q in zip(glyph.points[b], glyph.points[c], strict=True))) // 4
            )
            plan += [((a, b, c, d), _catmull_rom(k, pieces)) for k in range(pieces)]
        last = stroke[-1]
        plan.append(((last,) * 4, (0, WEIGHT_UNIT, 0, 0)))
    return plan


def _catmull_rom(k: int, n: int) -> tuple[int, int, int, int]:
    """Weights of four points at u = k / n between the middle two, in parts of ``WEIGHT_UNIT``."""
    cubes = (
        -(k**3) + 2 * k**2 * n - k * n**2,
        3 * k**3 - 5 * k**2 * n + 2 * n**3,
        -3 * k**3 + 4 * k**2 * n + k * n**2,
        k**3 - k**2 * n,
    )
    a, b, c, d = (WEIGHT_UNIT * cube // (2 * n**3) for cube in cubes)
    return a, b, c, d


def _render(
    glyph: Glyph,
    plan: list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]],
    count: int,
    source: np.random.PCG64,
) -> Bytes:
    """``count`` images of one glyph, uint8 (28, 28, count): images last, so that every inner loop is long."""
    control = np.array(glyph.points, np.int64)[:, :, None] - 50
    jittered = control * GLYPH_UNIT + _peaked(source, 9 * GLYPH_UNIT, len(glyph.points), 2, count)
    samples = np.stack([sum(w * jittered[i] for i, w in zip(index, weight, strict=True)) for index, weight in plan])
    x, y = _place(samples[:, 0] // WEIGHT_UNIT, samples[:, 1] // WEIGHT_UNIT, count, source)
    radius = _uniform(source, 40, 112, count)
    ink = _ink(_nearest(x, y), radius) * _uniform(source, 130, 255, count)
    ink = np.maximum(ink, _clutter(count, source))
    ink = np.where(_patch(count, source), 0, ink) >> 6
    noise = _raw(source, (SIZE, SIZE, count)) - (1 << 15)
    ink += (noise * _uniform(source, 0, 70, count)) >> 15
    image: Bytes = np.clip(ink, 0, 255).astype(np.uint8)
    return image


def _place(x: Integers, y: Integers, count: int, source: np.random.PCG64) -> tuple[Integers, Integers]:
    """Glyph coordinates to pixel coordinates: random size, proportions, rotation, slant and shift."""
    size = _uniform(source, 740, 1060, count)  # 0.18 to 0.26 pixels per glyph unit, in 4096ths
    turn = _peaked(source, 1500, count)
    slant = _peaked(source, 900, count)
    width = WEIGHT_UNIT + _peaked(source, 1000, count)
    # Parts of a pixel: GLYPH_UNIT == PIXEL_UNIT, so only the factors in 4096ths are divided out.
    across = (x * width - y * (turn + slant)) // WEIGHT_UNIT
    down = (y * WEIGHT_UNIT + x * turn) // WEIGHT_UNIT
    centre = (SIZE - 1) * PIXEL_UNIT // 2
    shift = _peaked(source, 4 * PIXEL_UNIT, 2, count)
    return across * size // WEIGHT_UNIT + centre + shift[0], down * size // WEIGHT_UNIT + centre + shift[1]


def _nearest(x: Integers, y: Integers) -> NDArray[np.uint16]:
    """Squared distance, in (1/16 pixel)^2, of every pixel to the nearest of the samples x, y (samples, count).

    Sample by sample dx^2 + dy^2 over the whole image: two 16-bit operations per pixel.
    """
    grid = np.arange(SIZE)[:, None] * PIXEL_UNIT
    shape = (SIZE, SIZE, x.shape[1])
    nearest = np.full(shape, 2 * FAR * FAR, np.uint16)
    here = np.empty(shape, np.uint16)
    for across, down in zip(x, y, strict=True):
        dx, dy = (np.minimum(np.abs(grid - position), FAR).astype(np.uint16) for position in (across, down))
        np.add((dy * dy)[:, None, :], (dx * dx)[None, :, :], out=here)
        np.minimum(nearest, here, out=nearest)
    return nearest


_ROOTS = np.array([math.isqrt(16 * square) for square in range(2 * FAR * FAR + 1)], np.int16)
"""Squared distance in (1/16 pixel)^2 to distance in 1/64 pixel."""


def _ink(nearest: NDArray[np.uint16], radius: Integers) -> Integers:
    """Ink from 0 to 64: full inside ``radius`` (1/64 pixel), falling to none over one pixel."""
    ink: Integers = np.clip(radius + 32 - _ROOTS[nearest], 0, 64)
    return ink


def _clutter(count: int, source: np.random.PCG64) -> Integers:
    """One stray straight stroke per image, up to nine pixels long, in ink from 0 to 64 * 200."""
    start = _uniform(source, 0, (SIZE - 1) * PIXEL_UNIT, 2, count)
    reach = _peaked(source, 9 * PIXEL_UNIT, 2, count)
    steps = np.arange(10)[:, None]
    nearest = _nearest(start[0] + reach[0] * steps // 9, start[1] + reach[1] * steps // 9)
    ink: Integers = _ink(nearest, _uniform(source, 20, 70, count)) * _uniform(source, 0, 200, count)
    return ink


def _patch(count: int, source: np.random.PCG64) -> NDArray[np.bool_]:
    """Where a rectangle of up to seven pixels a side is erased, (28, 28, count)."""
    corner = _uniform(source, 0, SIZE - 4, 2, count)
    end = corner + _uniform(source, 0, 7, 2, count)
    grid = np.arange(SIZE)[:, None]
    down, across = ((grid >= corner[axis]) & (grid < end[axis]) for axis in (0, 1))
    inside: NDArray[np.bool_] = down[:, None, :] & across[None, :, :]
    return inside
