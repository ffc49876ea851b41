"""The measures of error and the bounds that go with them, on arrays whose rounding is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.core.errors import Unsupported
from harness.core.training import PRECISIONS
from harness.proof import parity, tolerances
from harness.proof.parity import Quantity

MIXED = [name for name in PRECISIONS if name != "float32"]
BITS = {"mixed_bfloat16": 8, "mixed_float16": 11}
PROBED = {
    **dict.fromkeys(("logits", "evaluation_logits"), (4, 10)),
    **dict.fromkeys(("loss", "test_loss", "test_accuracy"), ()),
    "losses": (4,),
    "gradient/1_conv2d/kernel": (3, 3, 4, 8),
    "gradient/1_conv2d/bias": (8,),
    "parameter/1_conv2d/kernel": (3, 3, 4, 8),
    "parameter/1_conv2d/bias": (8,),
    "statistic/2_batch_norm/moving_mean": (8,),
}


def rounded(array: NDArray[Any], bits: int) -> NDArray[Any]:
    mantissa, exponent = np.frexp(array)
    found: NDArray[Any] = np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)
    return found


def reference() -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(1)
    return {name: np.asarray(generator.normal(size=shape)) for name, shape in PROBED.items()}


def compared(found: dict[str, NDArray[Any]], precision: str) -> dict[str, Quantity]:
    initial = {name: np.zeros(PROBED[f"parameter/{name}"], np.float32) for name in ("1_conv2d/kernel", "1_conv2d/bias")}
    quantities = parity.compare_training(reference(), found, initial, precision)
    return {quantity.name: quantity for quantity in quantities}


def test_every_precision_has_bounds_for_the_same_quantities() -> None:
    assert tolerances.TOLERANCES.keys() == set(PRECISIONS)
    usual = tolerances.TOLERANCES["float32"].keys()
    for name in MIXED:
        assert tolerances.TOLERANCES[name].keys() == usual | {"gradient_scale", "parameter_scale", "too_exact"}
        for quantity in usual:
            assert tolerances.TOLERANCES[name][quantity] > tolerances.TOLERANCES["float32"][quantity]


def test_a_precision_without_bounds_is_refused() -> None:
    with pytest.raises(Unsupported, match="parity in float8 cannot be proven: only float32, mixed_bfloat16"):
        tolerances.tolerances("float8")


@pytest.mark.parametrize("precision", MIXED)
def test_whatever_passes_as_float32_is_too_exact_for_a_mixed_precision(precision: str) -> None:
    assert tolerances.too_exact(tolerances.TOLERANCES["float32"]["logits"], precision) > 1.0
    assert tolerances.too_exact(0.0, precision) == math.inf
    assert tolerances.too_exact(tolerances.TOLERANCES[precision]["logits"], precision) < 1.0


@pytest.mark.parametrize("precision", MIXED)
def test_values_rounded_to_the_type_pass(precision: str) -> None:
    found = {name: rounded(array, BITS[precision]) for name, array in reference().items()}
    quantities = compared(found, precision)
    assert quantities.keys() == tolerances.TOLERANCES[precision].keys() - {"dropout scale"}
    assert [quantity.fault for quantity in quantities.values() if not quantity.passed] == []


@pytest.mark.parametrize("precision", MIXED)
def test_values_in_float32_fail_as_too_exact_and_as_nothing_else(precision: str) -> None:
    found = {name: array.astype(np.float32) for name, array in reference().items()}
    failed = [quantity for quantity in compared(found, precision).values() if not quantity.passed]
    assert [quantity.name for quantity in failed] == ["too_exact"]
    type_name = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[precision]
    assert "times closer to the reference than " + type_name in failed[0].fault


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize(("group", "quantity"), [("gradient/", "gradient_scale"), ("parameter/", "parameter_scale")])
def test_a_group_off_by_a_tenth_fails_by_its_scale_alone(precision: str, group: str, quantity: str) -> None:
    found = {
        name: rounded(array * (1.1 if name.startswith(group) else 1.0), BITS[precision])
        for name, array in reference().items()
    }
    failed = {name for name, one in compared(found, precision).items() if not one.passed}
    assert failed == {quantity}


def test_one_value_gone_astray_fails_float32_and_hardly_moves_a_mixed_error() -> None:
    whole = reference()
    astray = {name: array.copy() for name, array in whole.items()}
    kernel = astray["gradient/1_conv2d/kernel"]
    kernel[0, 0, 0, 0] = -kernel[0, 0, 0, 0]
    assert not compared(astray, "float32")["gradients"].passed
    assert compared(astray, "mixed_float16")["gradients"].passed


def test_the_scale_of_arrays_of_different_sizes_counts_each_value_alike() -> None:
    generator = np.random.default_rng(2)
    large, small = generator.normal(size=200), 1e-2 * generator.normal(size=200)
    assert tolerances.scale_error([large, small], [large, small]) == 0.0
    assert tolerances.scale_error([large, small], [large, 0 * small]) == pytest.approx(0.5)
    assert tolerances.scale_error([large, small], [0 * large, small]) == pytest.approx(0.5)


@pytest.mark.parametrize("precision", MIXED)
def test_a_missing_or_broken_array_fails(precision: str) -> None:
    whole = {name: rounded(array, BITS[precision]) for name, array in reference().items()}
    without = {name: array for name, array in whole.items() if name != "gradient/1_conv2d/bias"}
    assert {"gradients", "gradient_scale"} <= {n for n, one in compared(without, precision).items() if not one.passed}
    broken = {name: np.full_like(array, np.nan) for name, array in whole.items()}
    assert not any(quantity.passed for quantity in compared(broken, precision).values())
