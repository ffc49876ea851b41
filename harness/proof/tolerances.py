"""How far a target may be from the float64 reference, per precision, and by what measure it is told.

float32 has a unit roundoff of 6e-8. Sums of up to a thousand products in another order than the reference's stay
within about 1e-6 of the largest value, and the backward pass adds about as much again: the bounds leave a
factor of ten. A parameter near one that training moved by 1e-3 is itself only known to 6e-5 of that
movement, which is what ``parameters`` allows for. Of the test images one may fall on the other side.
The mistakes that all this is for (another epsilon, a rate not folded into the velocity, an unbiased
variance, padding on the other side) show at 1e-3 to 1.

bfloat16 keeps 8 bits of a number and float16 11: unit roundoffs u of 3.9e-3 and 4.9e-4. Every rounding of a value or a
parameter puts the logits off by about u/3, and a network of five layers has a dozen: a few u in all, more where a
kernel accumulates in the narrow type too. That far no probe stays clear of branches: of a thousand values a few fall
on the other side of ReLU's kink or tie in a pool's window, and each sends its gradient another way altogether. One
element may so be off by its whole size, while as a vector a gradient is off by the square root of the share that
turned. Hence in the mixed precisions:

- An error is the root mean square of the difference relative to that of the reference (a ratio of L2 norms).
- Such errors are as good as random, so they hardly change a gradient's length along the reference's: ``gradient_scale``
  and ``parameter_scale`` are that length, over all arrays, less one. Mistakes of optimizer, rate or
  loss change it by a tenth or more, and are told by it, however coarse the bound on each array is.
- ``too_exact`` is the least error that rounding leaves, u/8, as a multiple of the error of the logits, and more than
  one where a target rounds less than it claims: float32 leaves 1e-6, and does other work.

The largest errors of TensorFlow 2.10 (which accumulates in float16), TensorFlow 2.21 and JAX 0.10 on CPUs, over the
built-in models in every mode, all optimizers and the tests' odd layers, were half of these bounds at most, but for
``gradients`` (0.41) and ``parameters`` (0.74) in bfloat16 and ``parameters`` (0.39) in float16, where Adam makes
steps of gradients that are all rounding. What these bounds cannot tell, and those of float32 can: Bessel's correction
in a moving variance of many values, batch normalisation's epsilon, a wrong factor in a single small array. A proof of
the same adapter in float32 stands in for them. What no proof tells: TF32 in place of float16, float16 in place of
bfloat16, a loss scale left out where nothing underflows, and whether every layer rounds: one that does is enough to
leave an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import Unsupported

TEST_EXAMPLES = 503

TOLERANCES: dict[str, dict[str, float]] = {
    "float32": {
        "logits": 1e-5,
        "loss": 1e-5,
        "gradients": 1e-4,
        "losses": 1e-4,
        "parameters": 1e-3,
        "statistics": 1e-4,
        "evaluation_logits": 1e-4,
        "test_loss": 1e-4,
        "test_accuracy": 1.5 / TEST_EXAMPLES,
        "dropout scale": 1e-5,
    },
    "mixed_bfloat16": {
        "logits": 0.15,
        "loss": 3e-2,
        "gradients": 0.6,
        "gradient_scale": 5e-2,
        "losses": 2e-2,
        "parameters": 0.9,
        "parameter_scale": 8e-2,
        "statistics": 0.2,
        "evaluation_logits": 0.15,
        "test_loss": 1e-2,
        "test_accuracy": 15.5 / TEST_EXAMPLES,
        "too_exact": 1.0,
        "dropout scale": 2.0**-7,
    },
    "mixed_float16": {
        "logits": 3e-2,
        "loss": 1e-2,
        "gradients": 0.4,
        "gradient_scale": 1e-2,
        "losses": 1e-2,
        "parameters": 0.6,
        "parameter_scale": 2e-2,
        "statistics": 8e-2,
        "evaluation_logits": 0.1,
        "test_loss": 2e-3,
        "test_accuracy": 8.5 / TEST_EXAMPLES,
        "too_exact": 1.0,
        "dropout scale": 2.0**-10,
    },
}
"""Per precision, the largest error allowed of each quantity; of a mask's 1 / (1 - rate) two roundings."""

UNIT_ROUNDOFF = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
"""Half the distance from one to the next larger number (Higham, Accuracy and Stability, section 2.1)."""

LEAST_ROUNDING = 1 / 8
"""The share of it that is the least error of logits."""

SMALLEST_SCALE = 1e-3
VANISHING, VANISHING_SCALE = 1e-9, 0.1
"""A reference's array this much smaller than the largest of its kind is zero in mathematics: see ``scale``."""


def tolerances(precision: str) -> dict[str, float]:
    """The bounds of a precision. Raises Unsupported if there are none."""
    if precision not in TOLERANCES:
        raise Unsupported(f"parity in {precision} cannot be proven: only {', '.join(TOLERANCES)} have tolerances")
    return TOLERANCES[precision]


def size(array: NDArray[Any], precision: str) -> float:
    """How large an array is: its largest absolute value in float32, else its root mean square."""
    if not array.size:
        return 0.0
    if precision == "float32":
        return float(np.max(np.abs(array)))
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def scale(own: float, largest: float) -> float:
    """What an array's error is relative to, given its own size and the largest size of all of its kind."""
    if own < VANISHING * largest:
        return VANISHING_SCALE * largest
    return max(own, SMALLEST_SCALE * largest)


def scale_error(reference: list[NDArray[Any]], found: list[NDArray[Any]]) -> float:
    """The length of ``found`` along ``reference``, relative to the latter's, less one, without its sign.

    Over all arrays, each divided by its ``scale`` first, so that an element of each counts alike.
    """
    sizes = [size(array, "mixed") for array in reference]
    along = whole = 0.0
    for expected, got, own in zip(reference, found, sizes, strict=True):
        weight = 1.0 / (scale(own, max(sizes)) or 1.0) ** 2
        along += weight * float(np.sum(expected * got))
        whole += weight * float(np.sum(np.square(expected)))
    return abs(along / whole - 1.0) if whole else 0.0


def too_exact(error: float, precision: str) -> float:
    """The least error that rounding to a mixed precision leaves in logits, as a multiple of ``error``, theirs."""
    least = LEAST_ROUNDING * UNIT_ROUNDOFF[precision]
    return least / error if error else float("inf")
