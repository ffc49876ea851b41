"""A run as a page: what it is made of is gathered here, ``harness.report.page`` makes it."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path

from harness import outputs
from harness.analysis.reading import Reading
from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.paths import PAGES, cache_place
from harness.report import advice, page

PAGE_FILE = "report.html"
"""In the run folder: the page that a sweep leaves."""

CHARTS = "vl-convert-python"


def view(reading: Reading, version: str = "") -> page.PageView:
    """Everything that the page shows; ``version`` for one that is served while its sweep runs."""
    run, plan = reading.run, reading.run.plan
    several, images = len(reading.found.advice) > 1, reading.images
    return page.PageView(
        found=reading.found,
        name=plan.name,
        command=plan.command,
        created=plan.created,
        harness_version=plan.harness_version,
        folder=str(run.folder),
        planned=len(plan.cells),
        answers=tuple(
            page.Answer(
                advice.heading(one) if several else "",
                advice.sentence(one),
                tuple(advice.evidence(one)),
                tuple(advice.measure_next(one)),
            )
            for one in reading.found.advice
        ),
        bundle=_bundle(),
        lanes=reading.lanes,
        proofs=reading.proofs,
        unreadable_proofs=tuple(str(error) for error in reading.unreadable_proofs),
        unreadable=tuple(str(error) for error in reading.unreadable),
        noise=reading.noise_scales,
        rates=reading.rate_searches,
        version=version,
        images=images.words if images else "",
        doubt=images.doubt if images else "",
    )


def write(reading: Reading, path: Path) -> None:
    """Write the page where ``path`` points (``harness.outputs``). Raises HarnessError if it cannot be."""
    text = page.render(view(reading))
    with outputs.reader_may_leave():
        outputs.write(path, text)


def _bundle() -> str:
    """The scripts that draw, from the user's cache: putting them together takes seconds."""
    path = cache_place(PAGES) / charts_file()
    with contextlib.suppress(OSError):
        found = path.read_text(encoding="utf-8")
        mark_used(path)
        return found
    import vl_convert

    text: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    Keeping().keep(path, partial(codec.write_atomically, content=text))
    return text


def charts_file() -> str:
    """What the scripts that draw are called in the cache, as of the library that is installed."""
    return f"charts-{installed(CHARTS)}.js"
