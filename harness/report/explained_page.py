"""An explanation as one self-contained page: the answers, a drawing and a table for each batch size, how to read them.

In: ``harness.analysis.explaining.Explanation``. Out: HTML, without scripts; it asks the network for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from harness.analysis.explaining import WALL, Explanation
from harness.report import explaining, palette, pictures
from harness.report.figure import Figure
from harness.report.tables import Table


@dataclass(frozen=True)
class ExplainedPart:
    """What the page shows of one batch size. ``drawing``: SVG, as the charts' own library escaped it."""

    figure: Figure
    drawing: str
    table: Table
    rests_on: str


def page(found: Sequence[Explanation]) -> str:
    """The page; ``found`` is not empty."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [
        ExplainedPart(
            figure,
            pictures.drawn(figure, "svg").decode("utf-8"),
            explaining.plain_table(one),
            explaining.rests_on(one),
        )
        for one, figure in zip(found, explaining.figures(found), strict=True)
    ]
    return environment.get_template("explained.html.j2").render(
        title=f"Why {found[0].lane} differs from {found[0].base}",
        style=f":root{{{palette.style_variables('light')}}}\n{_resource('page.css')}",
        answers=[explaining.sentence(one) for one in found],
        parts=parts,
        legends=[
            explaining.LEGEND,
            *explaining.no_limits(found),
            *([explaining.BOUNDS] if any(one.clock == WALL for one in found) else []),
        ],
    )


def _resource(name: str) -> str:
    return (resources.files("harness.report") / name).read_text(encoding="utf-8")
