"""Single values as flags and keyword arguments give them, checked: each mistake is a ``UsageError`` of one line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.training import OPTIMIZERS, PRECISIONS, OptimizerSpec
from harness.wording import nearest, shown

Place = str | os.PathLike[str]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb|tb|kib|mib|gib|tib)?")
_BYTES = {None: 1, "b": 1}
_BYTES |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}
_BYTES |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)}

LONGEST_TIMEOUT = 1_000_000
"""Seconds. Endless waits are refused: they hide a hang, and no clock takes them."""

TIMEOUTS = f"a number of seconds from 1 to {LONGEST_TIMEOUT:,}"


TRAINING_FLAGS = (
    *("scaling", "warmup_steps", "warmup_epochs", "decay", "decay_power", "decay_to"),
    *("weight_decay", "weight_decay_form", "clip_norm", "label_smoothing"),
)
"""Keys of a sweep's training of which it has one value."""


def plain(value: Any) -> Any:
    """What a keyword was given, as a file would say it: several values a tuple, NumPy's numbers Python's, paths texts.

    An iterator is used up by it, so it comes before all else.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(map(plain, value))
    return value


def several(value: object) -> tuple[Any, ...]:
    """A single value as one of several; None as none."""
    found = plain(value)
    if found is None:
        return ()
    return found if isinstance(found, tuple) else (found,)


def options(flag: str, value: object) -> tuple[str, ...]:
    """KEY=VALUE as flags say them; a mapping stands for several, and several values of a key for a list with commas.

    Raises UsageError for what is no such value.
    """
    if not isinstance(value, Mapping):
        return texts(value)
    for key, one in value.items():
        if one is None or any(isinstance(part, Mapping) or part is None for part in several(one)):
            raise UsageError(f"{flag}: found {shown(one)} for {key}, allowed: a text, a number, or several of them")
    return tuple(f"{key}={','.join(texts(one))}" for key, one in value.items())


def texts(value: object) -> tuple[str, ...]:
    """One value or several, as flags would say them."""
    return tuple(str(one) for one in several(value))


def place(value: Place | None) -> Path | None:
    """As ``path``, or none."""
    return None if value is None else path(value)


def path(value: Place) -> Path:
    """A path; ``~`` is the home folder, where a shell has not said so before. Raises UsageError for anything else."""
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"a path: found {shown(value)}, allowed: a text or a pathlib.Path")
    if not os.fspath(value):
        raise UsageError("a path cannot be empty")
    return Path(value).expanduser()


def text(flag: str, value: object) -> str:
    """A text. Raises UsageError for anything else."""
    if not isinstance(value, str):
        raise UsageError(f"{flag}: found {shown(value)}, allowed: a text")
    return value


def models(value: object) -> tuple[str | ModelSpec, ...]:
    """Models by name and as objects. Raises UsageError for anything else."""
    found = several(value)
    for one in found:
        if not isinstance(one, (str, ModelSpec)):
            raise UsageError(f"--model: found {shown(one)}, allowed: names, files that end in .toml, harness.Model")
    return found


def dataset(value: Place) -> str:
    """A dataset's name, or a file. Raises UsageError."""
    from harness.plan.sweep import known_dataset

    return known_dataset("--dataset", text("--dataset", plain(value)))


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
        from harness.plan.sweep import FLAGS

        allowed = ", ".join(PRECISIONS)
        raise UsageError(f"{FLAGS['precision']}: found {name!r}{nearest(name, PRECISIONS)}, allowed: {allowed}")
    return name


def accuracy(value: str | float | None) -> float | None:
    """A test accuracy as a share of one. Raises UsageError; 98 for 0.98 is a likely slip, so it is named."""
    if value is None:
        return None
    found = number(value)
    if not 0 < found <= 1:
        meant = f" (for {found:g} % write {found / 100:g})" if 1 < found <= 100 else ""
        raise UsageError(
            f"--accuracy: found {str(value)!r}, allowed: a share of one, above 0 and up to 1, such as 0.98{meant}"
        )
    return found


def half_width(value: str | float) -> float:
    """``--precision`` of a comparison. Raises UsageError."""
    found = number(value)
    if not 0.0005 <= found <= 0.5:
        raise UsageError(
            f"--precision: found {str(value)!r}, allowed: a half width from 0.0005 to 0.5, such as 0.02 for 2 %"
        )
    return found


def share(flag: str, value: str | float) -> float:
    """``3%``, ``3 %`` or ``0.03`` as a share of one, above 0 and below 1. Raises UsageError."""
    words = str(value).strip()
    found = number(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    if not 0 < found < 1:
        raise UsageError(f"{flag}: found {str(value)!r}, allowed: a share above 0 and below 100 %, such as 3% or 0.03")
    return found


def seconds_of(value: str | float) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` as seconds. Raises UsageError."""
    match = _DURATION.fullmatch(str(value).strip().lower())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= 7 * 86400:
        raise UsageError(f"--budget: found {str(value)!r}, allowed: a time from 1s to 7 days, such as 90s, 10m, 1.5h")
    return seconds


def bytes_of(flag: str, value: str | int) -> int:
    """``4GiB``, ``500 MB``, ``2.5GB`` or a number of bytes. Raises UsageError."""
    match = _SIZE.fullmatch(str(value).strip().lower())
    if not match:
        raise UsageError(f"{flag}: found {str(value)!r}, allowed: a size such as 4GiB, 500MB")
    return int(float(match[1]) * _BYTES[match[2]])


def one_of(flag: str, value: str | None, allowed: Sequence[str]) -> str | None:
    """One of a few words, or none. Raises UsageError."""
    if value is not None and value not in allowed:
        raise UsageError(f"{flag}: found {value!r}{nearest(str(value), allowed)}, allowed: {', '.join(allowed)}")
    return value


def timeout(value: float) -> float:
    """Seconds to wait for an answer. Raises UsageError."""
    if not is_timeout(number(value)):
        raise UsageError(f"--timeout: found {str(value)!r}, allowed: {TIMEOUTS}")
    return number(value)


def is_timeout(seconds: float) -> bool:
    """Whether it is one of TIMEOUTS."""
    return 1 <= seconds <= LONGEST_TIMEOUT


def number(value: object) -> float:
    """As ``float`` reads it; no number where it does not."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
