"""The comparison with what rounding allows: which element is told, in what units, and what never passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.proof.rounding import allowed, compare, sigmas


def expected(deviation: float = 1e-7) -> dict[str, Any]:
    found: dict[str, Any] = {
        "losses": np.array([2.0, 1.0]),
        "parameter/a/kernel": np.array([[0.5, -2.0], [1.0, 0.0]]),
        "parameter/a/bias": np.zeros(2),
        "optimizer/velocity/a/kernel": np.full((2, 2), 1e-3),
    }
    return {**found, **{f"deviation/{key}": np.full(array.shape, deviation) for key, array in found.items()}}


def found(**moved: Any) -> dict[str, Any]:
    arrays = {key: array.copy() for key, array in expected().items() if not key.startswith("deviation/")}
    return arrays | moved


def test_each_kind_of_array_is_one_quantity_and_what_is_equal_passes() -> None:
    quantities = compare(expected(), found())
    assert [one.name for one in quantities] == ["losses", "parameters", "optimizer state"]
    assert all(one.passed and one.error == 0.0 and one.tolerance > 0.0 for one in quantities)


def test_the_element_farthest_beyond_its_bound_is_told_relative_to_the_largest_of_its_array() -> None:
    given, wrong = expected(), found()
    given["deviation/parameter/a/kernel"][0, 1] = 1e-3
    wrong["parameter/a/kernel"][0, 1] += 1e-3  # one deviation
    wrong["parameter/a/kernel"][1, 1] += 1e-5  # a hundred
    worst = next(one for one in compare(given, wrong) if one.name == "parameters")
    assert worst.detail == "a/kernel"
    assert not worst.passed
    assert worst.error == pytest.approx(1e-5 / 2.0)
    assert worst.share == pytest.approx(100 / sigmas(12))


def test_the_bound_grows_slowly_with_the_number_of_looks() -> None:
    assert 5.0 < sigmas(1) < sigmas(10**6) < 8.0
    tail = math.erfc(sigmas(10**6) / math.sqrt(2))
    assert tail * 10**6 < 1e-6


def test_no_element_is_held_to_far_less_than_what_is_usual_in_its_array() -> None:
    bounds = allowed(np.array([4.0, 4.0, 4.0, 0.0, 1e-9]), 2.0)
    np.testing.assert_array_equal(bounds, [8.0, 8.0, 8.0, 2.0, 2.0])
    np.testing.assert_array_equal(allowed(np.zeros(3), 2.0), np.zeros(3))


def test_where_nothing_may_be_off_nothing_is() -> None:
    exact = expected(deviation=0.0)
    assert all(one.passed for one in compare(exact, found()))
    wrong = found(losses=np.array([2.0, np.nextafter(1.0, 2.0)]))
    assert [one.name for one in compare(exact, wrong) if not one.passed] == ["losses"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_never_passes(value: float) -> None:
    wrong = found()
    wrong["parameter/a/bias"][1] = value
    quantities = compare(expected(), wrong)
    assert [(one.name, one.detail) for one in quantities if not one.passed] == [("parameters", "a/bias")]


def test_an_array_that_is_missing_or_of_another_shape_never_passes() -> None:
    without = {key: array for key, array in found().items() if key != "losses"}
    for wrong in (without, found(losses=np.array([2.0]))):
        worst = next(one for one in compare(expected(), wrong) if not one.passed)
        assert worst.detail == "losses missing or of another shape"
