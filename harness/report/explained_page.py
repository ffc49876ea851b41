"""An explanation as one self-contained page: the answers, a drawing and a table for each batch size, how to read them.

In: ``harness.analysis.explaining.Explanation``. Out: HTML, without scripts; it asks the network for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.explaining import WALL, Explanation
from harness.report import explaining, plain_page
from harness.report.plain_page import PlainSection


def page(found: Sequence[Explanation]) -> str:
    """The page; ``found`` is not empty."""
    parts = [
        PlainSection(figures=(figure,), tables=(explaining.plain_table(one),), quiet=(explaining.rests_on(one),))
        for one, figure in zip(found, explaining.figures(found), strict=True)
    ]
    legends = (
        explaining.LEGEND,
        *explaining.no_limits(found),
        *([explaining.BOUNDS] if any(one.clock == WALL for one in found) else []),
    )
    return plain_page.page(
        f"Why {found[0].lane} differs from {found[0].base}",
        "harness explain",
        [explaining.sentence(one) for one in found],
        [*parts, PlainSection(quiet=legends)],
    )
