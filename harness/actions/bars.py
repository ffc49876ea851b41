"""Bars that are drawn over what they drew before: in a terminal by rich, in a notebook by an output that is replaced.

A notebook's bar needs nothing but IPython, which is there.
"""

from __future__ import annotations

import html
import sys
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from harness.actions.telling import in_notebook


class Bar(Protocol):
    """What shows how far something is. ``share``: 0 to 1, None where that is not known."""

    def draw(self, before: str, share: float | None, left: str, what: str) -> None:
        """Show a text, the bar, and two texts after it."""

    def end(self) -> None:
        """Take it away."""


class TerminalBar:
    """A line of a terminal, below the lines that are printed meanwhile on the same console."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.fields[before]}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.description}", markup=False),
        )
        self._progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = self._progress.add_task("", total=1.0, before="", left="")
        self._progress.start()

    def draw(self, before: str, share: float | None, left: str, what: str) -> None:
        """Show a text, the bar, and two texts after it."""
        total = None if share is None else 1.0
        self._progress.update(
            self._task, total=total, completed=share or 0.0, before=before, left=left, description=what
        )
        self._progress.refresh()

    def end(self) -> None:
        """Take it away."""
        self._progress.stop()


class NotebookBar:
    """An output of a notebook's cell."""

    def __init__(self) -> None:
        self._shows = sys.modules["IPython.display"]
        self._output: Any = None

    def draw(self, before: str, share: float | None, left: str, what: str) -> None:
        """Show a text, the bar, and two texts after it."""
        value = "" if share is None else f' value="{share:.3f}"'
        words = (html.escape(text) for text in (before, left, what))
        first, *rest = words
        bar = f'{first} <progress{value} max="1" style="vertical-align:middle"></progress> {" ".join(rest)}'
        self._put(f'<div style="font-family:monospace">{bar}</div>')

    def end(self) -> None:
        """Take it away."""
        if self._output is not None:
            self._put("")

    def _put(self, text: str) -> None:
        shown = self._shows.HTML(text)
        if self._output is None:
            self._output = self._shows.display(shown, display_id=True)
        else:
            self._output.update(shown)


def bar_on(console: Console) -> Bar | None:
    """A bar on the console's terminal, or in a notebook; None where there is neither."""
    if in_notebook():
        return NotebookBar()
    return TerminalBar(console) if console.is_terminal else None
