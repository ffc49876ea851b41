"""A self-contained page without scripts: answers, then sections of sentences, drawings and tables.

In: plain values and figures. Out: HTML that opens anywhere; it asks the network for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import palette, pictures
from harness.report.figure import Figure
from harness.report.tables import Table
from harness.report.templates import resource, template
from harness.wording import plural

MOST_ROWS = 60
"""Of a table that is not folded away."""


@dataclass(frozen=True)
class PlainSection:
    """One part of a page, in its order: sentences, figures, tables, and further sentences in small print."""

    heading: str = ""
    lines: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    quiet: tuple[str, ...] = ()

    @property
    def drawn(self) -> list[tuple[Figure, str]]:
        """Each figure with its SVG, as the charts' own library escaped it."""
        return [(figure, pictures.drawn(figure, "svg").decode("utf-8")) for figure in self.figures]


def page(title: str, command: str, answers: Sequence[str], sections: Sequence[PlainSection]) -> str:
    """The page. ``command``: what makes such a page, above its title."""
    return template("plain.html.j2").render(
        title=title,
        command=command,
        style=f":root{{{palette.style_variables('light')}}}\n{resource('page.css')}",
        answers=answers,
        sections=sections,
        most_rows=MOST_ROWS,
        plural=plural,
    )
