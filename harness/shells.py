"""Commands as the shell in use takes them as meant: every command that a person is shown goes through here.

Shells differ in what they take off a word. POSIX's take off single quotes and double ones; below cmd.exe the called
program takes off double ones, by its C library; PowerShell takes off both, and runs a quoted program after ``&`` only.
Sources: POSIX.1, "Shell Command Language"; Microsoft, "Parsing C command-line arguments" and ``cmd /?``; Microsoft,
"about_Quoting_Rules", "about_Parsing" and "about_Operators" (the call operator).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import PureWindowsPath

import psutil

from harness.core import system
from harness.core.told import asked

POSIX, CMD, POWERSHELL = "posix", "cmd", "powershell"

PROGRAMS = {
    "cmd": CMD,
    "powershell": POWERSHELL,
    "pwsh": POWERSHELL,
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "fish", "ksh", "tcsh", "csh"), POSIX),
}
"""Shells by the names of their programs, without ``.exe``."""

_PLAIN_IN_CMD = re.compile(r"[^\s&|<>^()%\"]+")
_PLAIN_IN_POWERSHELL = re.compile(r"(?!-[^-]*[.:])[\w\-./\\:+=][\w\-./\\:+=@~]*")
"""``-a.b`` is taken apart there, ``~`` and ``@`` mean something at a word's beginning."""


def joined(words: Iterable[str], shell: str | None = None) -> str:
    """A whole command, its program first, for ``shell``, else for the one in use."""
    program, *arguments = words
    shell = shell or in_use()
    first = quoted(program, shell)
    call = "& " if shell == POWERSHELL and first != program else ""
    return call + " ".join([first, *(quoted(word, shell) for word in arguments)])


def quoted(word: str, shell: str | None = None) -> str:
    """One word of a command, quoted if it must be, for ``shell``, else for the one in use."""
    return _QUOTING[shell or in_use()](word)


@lru_cache(maxsize=1)
def in_use() -> str:
    """The nearest shell that this process descends from; without one that is known, the system's usual."""
    usual = CMD if system.platform_name() == "windows" else POSIX
    ancestors = asked(lambda: psutil.Process().parents())[0] or ()
    names = (asked(partial(_program, process))[0] for process in ancestors)
    return next((PROGRAMS[name] for name in names if name in PROGRAMS), usual)


def _program(process: psutil.Process) -> str:
    return PureWindowsPath(process.name().lower()).name.removesuffix(".exe").removeprefix("-")


def _for_cmd(word: str) -> str:
    """In double quotes nothing but ``%`` and ``"`` means anything there; a backslash before the last one is doubled."""
    if _PLAIN_IN_CMD.fullmatch(word):
        return word
    made = subprocess.list2cmdline([word])
    # It quotes for the C library, which knows of blanks only; the blank has it quoted, and is taken out again.
    return made if made.startswith('"') else subprocess.list2cmdline([f" {word}"]).replace('" ', '"', 1)


def _for_powershell(word: str) -> str:
    return word if _PLAIN_IN_POWERSHELL.fullmatch(word) else "'" + word.replace("'", "''") + "'"


_QUOTING: dict[str, Callable[[str], str]] = {POSIX: shlex.quote, CMD: _for_cmd, POWERSHELL: _for_powershell}
