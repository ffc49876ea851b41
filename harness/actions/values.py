"""Single values as flags and keyword arguments give them, checked: each mistake is a ``UsageError`` of one line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.training import OPTIMIZERS, PRECISIONS, OptimizerSpec
from harness.plan.sweep import FLAGS
from harness.wording import nearest

Place = str | os.PathLike[str]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def several(value: object) -> tuple[Any, ...]:
    """A single value as one of several; None as none."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple, set, range)) else (value,)


def texts(value: object) -> tuple[str, ...]:
    """One value or several, as flags would say them."""
    return tuple(str(one) for one in several(value))


def place(value: Place | None) -> Path | None:
    """A path; ``~`` is the home folder, where a shell has not said so before."""
    return None if value is None else Path(value).expanduser()


def optimizer(name: str) -> OptimizerSpec:
    """The optimizer that a flag names, with its usual constants. Raises UsageError."""
    if name not in OPTIMIZERS:
        raise UsageError(f"--optimizer: found {name!r}{nearest(name, OPTIMIZERS)}, allowed: {', '.join(OPTIMIZERS)}")
    return OptimizerSpec(name)


def whole_number(flag: str, text: str, least: int, most: int) -> int:
    """The number that a flag names. Raises UsageError."""
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise UsageError(f"{flag}: found {text!r}, allowed: a whole number from {least} to {most}")
    return int(text)


def compute_precision(name: str) -> str:
    """The precision that a flag names. Raises UsageError."""
    if name not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise UsageError(f"{FLAGS['precision']}: found {name!r}{nearest(name, PRECISIONS)}, allowed: {allowed}")
    return name


def accuracy(value: str | float | None) -> float | None:
    """A test accuracy as a share of one. Raises UsageError; 98 for 0.98 is a likely slip, so it is named."""
    if value is None:
        return None
    found = _number(value)
    if not 0 < found <= 1:
        meant = f" (for {found:g} % write {found / 100:g})" if 1 < found <= 100 else ""
        raise UsageError(
            f"--accuracy: found {str(value)!r}, allowed: a share of one, above 0 and up to 1, such as 0.98{meant}"
        )
    return found


def half_width(value: str | float) -> float:
    """``--precision`` of a comparison. Raises UsageError."""
    found = _number(value)
    if not 0.0005 <= found <= 0.5:
        raise UsageError(
            f"--precision: found {str(value)!r}, allowed: a half width from 0.0005 to 0.5, such as 0.02 for 2 %"
        )
    return found


def seconds_of(value: str | float) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` as seconds. Raises UsageError."""
    match = _DURATION.fullmatch(str(value).strip().lower())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= 7 * 86400:
        raise UsageError(f"--budget: found {str(value)!r}, allowed: a time from 1s to 7 days, such as 90s, 10m, 1.5h")
    return seconds


def one_of(flag: str, value: str | None, allowed: Sequence[str]) -> str | None:
    """One of a few words, or none. Raises UsageError."""
    if value is not None and value not in allowed:
        raise UsageError(f"{flag}: found {value!r}{nearest(str(value), allowed)}, allowed: {', '.join(allowed)}")
    return value


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
