"""What every action gives: an object that is printed as in a terminal, shown in a notebook, and plain for a program."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_HTML = '<pre style="font-family:monospace;line-height:1.3;white-space:pre">{code}</pre>'
_COLOUR_OF_PAPER = re.compile(r"(?:background-)?color: #(?:000000|ffffff);? ?")
NOTEBOOK_WIDTH = 120
"""Columns of a text in a notebook."""


class Shown(ABC):
    """A result. ``str`` and ``repr`` are what a terminal shows, without colours."""

    @abstractmethod
    def print_to(self, console: Console) -> None:
        """Print it for a person."""

    @abstractmethod
    def plain(self) -> Any:
        """It as what JSON can say: dicts, lists, texts, numbers; what ``--json`` prints."""

    def __str__(self) -> str:
        from harness.report.terminal import console_for

        stream = StringIO()
        self.print_to(console_for(stream, plain=True))
        return stream.getvalue().rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For a notebook: the text in a monospaced font, with its colours; nothing is loaded from anywhere."""
        from rich.console import Console

        console = Console(
            file=StringIO(),
            record=True,
            width=NOTEBOOK_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
            force_jupyter=False,
        )
        self.print_to(console)
        return _COLOUR_OF_PAPER.sub("", console.export_html(inline_styles=True, code_format=_HTML))


@dataclass(frozen=True, repr=False)
class Lines(Shown):
    """What is said in a few lines."""

    lines: tuple[str, ...]

    def print_to(self, console: Console) -> None:
        """Each on a line of its own."""
        from harness.report.printed import say

        for line in self.lines:
            say(console, line)

    def plain(self) -> list[str]:
        """The lines."""
        return list(self.lines)


@dataclass(frozen=True, repr=False)
class Listed(Shown):
    """A table, and what it is of for a program."""

    table: Table
    value: Any

    def print_to(self, console: Console) -> None:
        """The table."""
        from harness.report.printed import print_table

        print_table(self.table, console)

    def plain(self) -> Any:
        """The values."""
        return self.value


class RunStopped(KeyboardInterrupt):
    """Somebody stopped a run (Ctrl-C, a notebook's interrupt). What had been measured is saved, and the run resumes.

    ``result``: what there is of it, as the call would have returned it. The same call, with ``out`` its run folder,
    goes on where it stopped.
    """

    def __init__(self, result: Any, how_to_resume: str) -> None:
        super().__init__(f"stopped; this resumes: {how_to_resume}")
        self.result = result
        self.how_to_resume = how_to_resume
