"""The reference and its planted faults, with every activation and product rounded as a mixed precision does.

For each class NAME of ``faulty_backends`` there is a ``Bfloat16NAME`` and a ``Float16NAME``, and for the reference
itself ``Bfloat16`` and ``Float16``. Sums stay in float64, and the exponent has no bounds: a model of rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import faulty_backends
import numpy as np

from backends import reference_layers as layers
from backends.protocol import Capabilities
from backends.reference import ReferenceBackend
from harness.core.training import PRECISIONS

PRODUCTS = ("conv2d", "dense")
OTHERS = ("activation", "max_pool", "average_pool", "global_average_pool", "batch_norm", "dropout", "flatten")
BITS = {"Bfloat16": 8, "Float16": 11}


class _Claiming(ReferenceBackend):
    """Offers all precisions, whatever it computes in."""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), precisions=PRECISIONS)


class Unrounded(_Claiming):
    """Claims a mixed precision and computes in float64: what a framework does that drops the casts."""


class _Rounding(_Claiming):
    bits = 0

    def load(self) -> None:
        super().load()
        for name in (*PRODUCTS, *OTHERS):
            setattr(layers, name, _rounding(getattr(layers, name), self.bits, name in PRODUCTS))


def _rounding(layer: Callable[..., Any], bits: int, product: bool) -> Callable[..., Any]:
    def rounded(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        mantissa, exponent = np.frexp(value)
        return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)

    def apply(*given: Any) -> Any:
        output, pullback = layer(*(map(rounded, given) if product else given))

        def back(gradient: Any, *inward: bool) -> Any:
            by_values, by_parameter = pullback(gradient, *inward)
            if product:
                by_parameter = {name: rounded(value) for name, value in by_parameter.items()}
            return rounded(by_values), by_parameter

        return rounded(output), back

    return apply


def _bases() -> dict[str, type]:
    found = vars(faulty_backends).items()
    return {name: cls for name, cls in found if isinstance(cls, type) and cls.__module__ == "faulty_backends"}


for _type, _bits in BITS.items():
    for _name, _base in {"": ReferenceBackend, **_bases()}.items():
        _parents = (_Rounding,) if _base is ReferenceBackend else (_Rounding, _base)
        globals()[f"{_type}{_name}"] = type(f"{_type}{_name}", _parents, {"bits": _bits})
