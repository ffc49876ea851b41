"""Lines for whoever waits, on standard error: all that is told by a command which shows no bar."""

from __future__ import annotations

import sys

from rich.console import Console

from harness.report.printed import say
from harness.report.terminal import console_for


def tell(text: str) -> None:
    """One line on standard error."""
    say(standard_error(), text)


def standard_error() -> Console:
    """For what is told meanwhile."""
    return console_for(sys.stderr, plain=in_notebook())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "IPython.display" in sys.modules and Console(file=sys.stderr).is_jupyter
