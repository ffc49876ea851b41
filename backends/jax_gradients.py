"""Gradients in other forms than those that JAX derives: the same values, which XLA computes faster on processors.

Pools: JAX's gradient of a max-pool is select-and-scatter, which XLA's CPU compiler expands into a reduce-window that
carries indices beside values. Here a window's gradient goes to its first maximum, row by row, as there.

Convolutions: JAX derives both gradients as convolutions whose operands have their axes in unusual orders. XLA's CPU
compiler turns these into usual ones in a program's entry computation only (``xla/service/cpu/conv_canonicalization.cc``
of openxla/xla), so that within a loop they fall to a kernel without any optimisation. Here the same convolutions have
NHWC and HWIO operands from the start.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from harness.core.model import MaxPool, pair_strides

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def can_pool(layer: MaxPool, shape: Sequence[int]) -> bool:
    """Whether ``max_pool`` is this layer's on values of ``shape`` (B, H, W, C): no window overlaps or is padded."""
    fits = all(size % pool == 0 for size, pool in zip(shape[1:3], layer.pool, strict=True))
    return pair_strides(layer) == tuple(layer.pool) and (fits or layer.padding == "valid")


def max_pool(values: Any, pool: tuple[int, int]) -> Any:
    """The maxima of windows that do not overlap; what is left at the end of an axis is in none.

    ``values`` (B, H, W, C) -> (B, H // pool[0], W // pool[1], C).
    """
    return _max_pool()(values, pool)


def convolution(
    images: Any,
    kernel: Any,
    strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
) -> Any:
    """``jax.lax.conv_general_dilated`` as ``flax.linen.Conv`` calls it: images (B, H, W, C), kernel (h, w, C, filters).

    Undilated and in one group, as all layers of ``harness.core.model`` are.
    """
    import jax

    assert feature_group_count == 1
    assert set(lhs_dilation) == set(rhs_dilation) == {1}
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)
    around = tuple((int(low), int(high)) for low, high in padding)
    return _convolution()(images, kernel, tuple(strides), around, precision)


@cache
def _max_pool() -> Any:
    import jax
    import jax.numpy as jnp

    def pooled(values: Any, pool: tuple[int, int]) -> Any:
        window = (1, *pool, 1)
        return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, window, "VALID")

    def forward(values: Any, pool: tuple[int, int]) -> Any:
        found = pooled(values, pool)
        return found, (values, found)

    def backward(pool: tuple[int, int], kept: Any, gradient: Any) -> Any:
        values, found = kept
        (height, width), (rows, columns) = pool, found.shape[1:3]
        inside = values[:, : rows * height, : columns * width]
        batch, channels = values.shape[0], values.shape[3]
        windows = inside.reshape(batch, rows, height, columns, width, channels)
        is_maximum = windows == found[:, :, None, :, None]
        # Row by row within a window: the axes of its rows and columns side by side are one axis of places.
        places = jnp.moveaxis(is_maximum, 3, 2).reshape(batch, rows, columns, height * width, channels)
        is_first = places & (jnp.cumsum(places, axis=3) == 1)
        is_first = jnp.moveaxis(is_first.reshape(batch, rows, columns, height, width, channels), 2, 3)
        spread = jnp.where(is_first, gradient[:, :, None, :, None], 0).reshape(inside.shape)
        beyond = (values.shape[1] - rows * height, values.shape[2] - columns * width)
        return (jnp.pad(spread, ((0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0))),)

    differentiable = jax.custom_vjp(pooled, nondiff_argnums=(1,))
    differentiable.defvjp(forward, backward)
    return differentiable


@cache
def _convolution() -> Any:
    import jax
    import jax.numpy as jnp

    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=_LAYOUT)

    def convolved(images: Any, kernel: Any, strides: Any, around: Any, precision: Any) -> Any:
        return convolve(images, kernel, strides, around, precision=precision)

    def forward(images: Any, kernel: Any, strides: Any, around: Any, precision: Any) -> Any:
        return convolved(images, kernel, strides, around, precision), (images, kernel)

    def backward(strides: Any, around: Any, precision: Any, kept: Any, gradient: Any) -> Any:
        images, kernel = kept
        sizes = list(zip(images.shape[1:3], kernel.shape[:2], gradient.shape[1:3], strides, around, strict=True))
        # Of the kernel: the images slide over the gradient, examples being what is summed over.
        reach = [(low, (out - 1) * stride + size - image - low) for image, size, out, stride, (low, _) in sizes]
        of_kernel = convolve(
            jnp.transpose(images, (3, 1, 2, 0)),
            jnp.transpose(gradient, (1, 2, 0, 3)),
            (1, 1),
            reach,
            rhs_dilation=strides,
            precision=precision,
        )
        # Of the images: the kernel, turned round, slides over the gradient.
        full = [(size - 1 - low, image + low - 1 - (out - 1) * stride) for image, size, out, stride, (low, _) in sizes]
        of_images = convolve(
            gradient,
            jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)),
            (1, 1),
            full,
            lhs_dilation=strides,
            precision=precision,
        )
        return of_images, jnp.transpose(of_kernel, (1, 2, 0, 3))

    differentiable = jax.custom_vjp(convolved, nondiff_argnums=(2, 3, 4))
    differentiable.defvjp(forward, backward)
    return differentiable
