"""Which line of a log tells why its process ended: lines in, one line out.

The last line is as often chatter: what a framework says of itself at level INFO or WARNING, the interpreter's
warnings, the addresses of a stack trace. So an error's own line is taken where there is one, else the last line that is
no chatter, else the last of the warnings. A process that only chatted had no last words.

The forms are those of glog and Abseil (TensorFlow, XLA: ``I0000 00:00:...``, ``2026-01-01 00:00:00.0: W file.cc:1]``),
Python's ``logging`` and ``warnings``, ``libc++abi``, and the tracebacks of the interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEVEL = re.compile(r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[\d.,]*: )?([IWEF])(?:\d{4} | ?\S+:\d+\] | [\w/.]+:\d+\] )")
_INFO = re.compile(
    r"""\s*(
        \[?(DEBUG|INFO)\b |
        WARNING:\ All\ log\ messages\ before\ absl |
        To\ enable\ (the\ following\ instructions:|them\ in\ other\ operations,) |
        \*\*\*.*stack\ trace | @\ +0x | \#\d+\ +0x | \S+\(\S*\+0x[0-9a-f]+\) |
        (CPython|PyPy)\ \d |
        Traceback\ \(most | File\ " | Exception\ ignored\ in | warnings\.warn\(
    )""",
    re.VERBOSE,
)
_WARNING = re.compile(r"\s*(\[?WARN(ING)?\b|\S*:\d+: \w*Warning: )")
_REGISTERED_TWICE = re.compile(r"Unable to register|already (been )?registered", re.IGNORECASE)
"""TensorFlow's GPU builds say so at level ERROR at every start, and mean nothing by it."""

_ERROR = re.compile(
    r"""
        ^[\w.]*(Error|Exception|Interrupt|Exit)(:|$) | Check\ failed | terminate\ called | what\(\): | bad_alloc |
        No\ space\ left\ on\ device | ^fatal\b | (^|\s)error:
    """,
    re.VERBOSE | re.IGNORECASE,
)


def telling(lines: Sequence[str]) -> str:
    """The line that tells most of the end of who wrote ``lines``, stripped; empty where none tells anything."""
    told = {True: "", False: ""}
    warning = ""
    for line in filter(None, map(str.strip, lines)):
        level = _level(line)
        if level in "EF":
            told[level == "F" or bool(_ERROR.search(line))] = line
        elif level == "W":
            warning = line
    return told[True] or told[False] or warning


def _level(line: str) -> str:
    """``I``, ``W``, ``E`` or ``F`` as glog has them; ``E`` for a line that is no chatter."""
    found = _LEVEL.match(line)
    if found:
        return "I" if _REGISTERED_TWICE.search(line) else found[1]
    if _INFO.match(line):
        return "I"
    return "W" if _WARNING.match(line) else "E"
