"""Values as Python source, and words of others made harmless: what generated scripts are put together from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 80
"""Characters of a foreign word in a script's docstring."""

_IN_NAMES = " ._-+:@=,/()"


def literal(value: Any) -> str:
    """Python source of numbers, strings, booleans, tuples, lists and mappings of them; NumPy's name for what no
    literal says (infinite, not a number). Raises TypeError for anything else.
    """
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else f"{'-' if value < 0 else ''}np.inf"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, tuple):
        inside = ", ".join(literal(item) for item in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, list):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no literal here")


def call(function: str, *arguments: Any, **named: Any) -> str:
    """Source of a call; arguments are values, and ``Source`` stands as it is. Named ones that are None are left out."""
    written = [_written(argument) for argument in arguments]
    written += [f"{name}={_written(value)}" for name, value in named.items() if value is not None]
    return f"{function}({', '.join(written)})"


class Source(str):
    """Text that is Python source already."""


def plain(text: str) -> str:
    """A foreign text as one harmless line: letters, digits and a few signs, the rest as question marks."""
    line = "".join(sign if sign.isalnum() or sign in _IN_NAMES else "?" for sign in text)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def square(pair: tuple[int, int]) -> int | tuple[int, int]:
    """A pair as people write it: one number where both are equal."""
    return pair[0] if pair[0] == pair[1] else pair


def _written(value: Any) -> str:
    return value if isinstance(value, Source) else literal(value)
