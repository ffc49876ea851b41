"""The example backend with one mistake that its author could have made: rows and columns of a kernel exchanged.

Found through a target's ``path``; what it is derived from, through the installed package.
"""

from __future__ import annotations

from typing import Any

from numpy_float32 import NumpyFloat32, layers


class KernelTransposed(NumpyFloat32):
    def load(self) -> None:
        right = layers.conv2d
        layers.conv2d = lambda images, kernel, *others: _turned(right(images, kernel.swapaxes(0, 1), *others))


def _turned(result: Any) -> Any:
    output, back = result

    def turned(gradient: Any) -> Any:
        by_input, by_parameter = back(gradient)
        return by_input, {**by_parameter, "kernel": by_parameter["kernel"].swapaxes(0, 1)}

    return output, turned
