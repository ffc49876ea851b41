"""What a person asks of a cluster for each target, and which targets ask the same.

From the launcher's table in ``harness.toml``, the one in the sweep file, and its flag, later ones before earlier:

    [slurm]
    partition = "batch"
    [slurm.targets.jax-cuda]
    gres = "gpu:h100:1"

``--slurm KEY=VALUE`` is for all targets, ``--slurm TARGET.KEY=VALUE`` for one. Targets that ask for the same share
their hardware, and so their heats; others have another *place*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from harness.core.cell import Target
from harness.core.errors import UsageError
from harness.wording import nearest, shown

ALL = 10**9
"""More heats than any run has."""

Table = tuple[Mapping[str, Any], str]
"""A launcher's table, and the file it stands in."""

Value = str | bool
"""What is asked for: a text, or True where a key stands alone, or False where it is to be left out."""

_TARGETS = "targets"


class Asked(Protocol):
    """What is asked for one kind of hardware; equal ones are one place."""

    def summary(self) -> str:
        """What tells this hardware from another, in a few words."""


Options = TypeVar("Options", bound=Asked)


def wishes(
    launcher: str,
    targets: Sequence[Target],
    tables: Sequence[Table],
    flags: Sequence[str],
    key: Callable[[str, str], str],
    dotted: tuple[str, ...] = (),
) -> dict[str, dict[str, Value]]:
    """Target label -> key -> value. ``launcher`` names the flag and the tables; ``flags``: [TARGET.]KEY=VALUE.

    ``key`` takes a key as written and where it stands, and gives its proper form or raises UsageError; ``dotted`` are
    beginnings of keys that may hold dots. Raises UsageError.
    """
    names = list(dict.fromkeys(name for target in targets for name in (target.name, target.label)))
    for_all: dict[str, Value] = {}
    for_one: dict[str, dict[str, Value]] = {name: {} for name in names}
    for table, file in tables:
        _take(launcher, table, file, key, for_all, for_one)
    for text in flags:
        written, equals, value = text.partition("=")
        written = written.strip()
        of = max((name for name in names if written.startswith(f"{name}.")), key=len, default="")
        written = written.removeprefix(f"{of}.") if of else written
        if not of and "." in written and not written.startswith(dotted):
            name = written.rpartition(".")[0]
            raise UsageError(
                f"--{launcher}: found {text!r}; {name!r} is no target of this sweep{nearest(name, names)}, "
                f"allowed: {', '.join(names)}"
            )
        found = _value(value.strip() if equals else True)
        (for_one[of] if of else for_all)[key(written, f"--{launcher} {text}")] = found
    return {target.label: {**for_all, **for_one[target.name], **for_one[target.label]} for target in targets}


def count(launcher: str, key: str, value: Value, all_allowed: bool = False) -> int:
    """A number from 1, or ALL for "all" where that is allowed; 0 for what was not said. Raises UsageError."""
    if not value:
        return 0
    if all_allowed and value == "all":
        return ALL
    if not (isinstance(value, str) and value.isascii() and value.isdecimal() and int(value) > 0):
        other = ", or all" if all_allowed else ""
        raise UsageError(f"--{launcher}: {key}: found {shown(value)}, allowed: a whole number from 1{other}")
    return int(value)


def places(chosen: Mapping[str, Asked]) -> dict[str, str]:
    """Target label -> name of the hardware that its options stand for; empty where all are the same."""
    kinds = list(dict.fromkeys(chosen.values()))
    return {label: str(1 + kinds.index(options)) for label, options in chosen.items()} if len(kinds) > 1 else {}


def of_places(launcher: str, chosen: Mapping[str, Options], frozen: Mapping[str, str]) -> dict[str, Options]:
    """Place -> options, for a run whose plan has the places ``frozen``. Raises UsageError where a place has several."""
    found: dict[str, tuple[str, Options]] = {}
    for label, options in chosen.items():
        first, before = found.setdefault(frozen.get(label, ""), (label, options))
        if before != options:
            raise UsageError(
                f"--{launcher}: {first} and {label} share their heats in this run, as it was planned, but different "
                f"nodes are asked for ({before.summary() or 'no options'}; {options.summary() or 'no options'}): give "
                "both the same options, or plan the sweep in another folder"
            )
    return {place: options for place, (_, options) in found.items()}


def _take(
    launcher: str,
    table: Mapping[str, Any],
    file: str,
    proper: Callable[[str, str], str],
    for_all: dict[str, Value],
    for_one: dict[str, dict[str, Value]],
) -> None:
    """Read one table; targets that this sweep does not have are another sweep's."""
    for key, value in table.items():
        if key != _TARGETS:
            where = f"{file}: key {launcher}.{key}"
            for_all[proper(key, where)] = _value(value, where)
            continue
        if not isinstance(value, Mapping) or not all(isinstance(one, Mapping) for one in value.values()):
            raise UsageError(
                f"{file}: key {launcher}.{_TARGETS}: allowed are tables named [{launcher}.{_TARGETS}.NAME]"
            )
        for name, own in value.items():
            for inner, what in own.items():
                where = f"{file}: key {launcher}.{_TARGETS}.{name}.{inner}"
                for_one.setdefault(name, {})[proper(inner, where)] = _value(what, where)


def _value(value: Any, where: str = "") -> Value:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, (str, bool)):
        raise UsageError(f"{where}: found {shown(value)}, allowed: a text, a number, true or false")
    return False if value == "no" else value
