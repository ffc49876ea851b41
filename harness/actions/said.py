"""What a person said to have something done: the command that was typed, or the call in Python. It resumes a run."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_TYPED: ContextVar[tuple[str, ...]] = ContextVar("_TYPED", default=())


def harness_version() -> str:
    """This version of the harness, for the plan."""
    from importlib.metadata import version  # a tenth of what ``harness --help`` takes

    return version("backend-harness")


@contextmanager
def typed() -> Iterator[None]:
    """Around a command: what was said is what was typed."""
    before = _TYPED.set(("harness", *sys.argv[1:]))
    try:
        yield
    finally:
        _TYPED.reset(before)


def command(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The command that was typed, else the call of the function with what it was given."""
    words = _TYPED.get()
    if words:
        from harness import shells

        return shells.joined(words)
    parameters = inspect.signature(function).parameters
    shown = []
    for name, value in given.items():
        one = parameters[name]
        if one.kind is one.VAR_POSITIONAL:
            shown += [_shown(part) for part in value]
        elif value != one.default:
            shown.append(_shown(value) if one.kind is one.POSITIONAL_OR_KEYWORD else f"{name}={_shown(value)}")
    return f"harness.{function.__name__}({', '.join(shown)})"


def resuming(function: Callable[..., Any], given: Mapping[str, Any], folder: str) -> str:
    """As ``command``, going on in the run folder where the first call named none."""
    if given["out"] is not None:
        return command(function, given)
    if _TYPED.get():
        from harness import shells

        return f"{command(function, given)} --out {shells.quoted(folder)}"
    return command(function, {**given, "out": folder})


def _shown(value: object) -> str:
    """Objects by their names: what they are made of is long, and stands in the plan."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else repr(value)
