"""Packages of another Python, where a variable of a person's shell leads ours to them: one sentence that names it.

Modules of clusters and set-up scripts export such variables. Workers are shielded from them; this process cannot be, as
Python and the system's loader read them before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from traceback import walk_tb

import harness

PYTHON_PATH = "PYTHONPATH"
LIBRARY_PATHS = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES")
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(harness.__file__)))


def sentence(error: ImportError, variables: Mapping[str, str]) -> str:
    """Why something cannot be imported. ``variables``: of this process, any of which may be to blame."""
    said = blame(error, variables)
    if said:
        return said
    name = (error.name or "a package").partition(".")[0]
    return f"{name} cannot be imported ({_reason(error)}); install the harness anew in an environment of its own"


def blame(error: BaseException, variables: Mapping[str, str]) -> str:
    """The sentence where code that a variable led to failed; empty where none did."""
    for file in _files(error):
        for entry in _entries(variables.get(PYTHON_PATH, "")):
            if _is_in(file, entry):
                package = os.path.relpath(file, entry).split(os.sep)[0].partition(".")[0]
                return (
                    f"{package} in {entry} cannot be used; the variable {PYTHON_PATH} leads there, likely to the "
                    f"packages of another Python ({_reason(error)}); unset {PYTHON_PATH} and run the command again"
                )
    if isinstance(error, ImportError) and not isinstance(_first(error), ModuleNotFoundError):
        for name in LIBRARY_PATHS:
            if variables.get(name):
                return (
                    f"a library cannot be loaded ({_reason(error)}); the variable {name} leads to others "
                    f"than those of this Python: unset {name} and run the command again"
                )
    return ""


def _first(error: BaseException) -> BaseException:
    """What all the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """The first line of what was said first: libraries wrap it into pages of advice."""
    first = _first(error)
    return next((line.strip() for line in str(first).splitlines() if line.strip()), type(first).__name__)


def _files(error: BaseException | None) -> Iterator[str]:
    """The files in which it happened, innermost first, then those of what it was raised from."""
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        yield from reversed([frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)])
        error = error.__cause__


def _entries(path: str) -> list[str]:
    """The folders of a search path, but for that of the harness itself, which may well be given so."""
    found = [os.path.abspath(entry) for entry in path.split(os.pathsep) if entry]
    return [entry for entry in found if os.path.realpath(entry) != os.path.realpath(_OWN)]


def _is_in(file: str, folder: str) -> bool:
    return os.path.abspath(file).startswith(folder.rstrip(os.sep) + os.sep)
