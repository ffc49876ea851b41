"""Figures as files: PNG at twice their size, or SVG, on white paper, one file a figure, named after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import outputs
from harness.core.errors import UsageError
from harness.report import vega
from harness.report.figure import Figure

FORMATS = ("png", "svg")
WIDTH = 720
SCALE = 2


def write(figures: Sequence[Figure], folder: Path, format: str) -> list[Path]:
    """Write each figure to ``folder``, which is made if need be; give the paths.

    Raises UsageError for a format not in FORMATS, HarnessError if a file cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not known; allowed: {', '.join(FORMATS)}")
    written = []
    for figure in figures:
        path = folder / f"{figure.name}.{format}"
        outputs.make_folder(folder)
        outputs.write(path, drawn(figure, format))
        written.append(path)
    return written


def drawn(figure: Figure, format: str) -> bytes:
    """A figure as PNG or SVG."""
    import vl_convert

    spec = {**figure.spec, "width": WIDTH, "title": {"text": figure.words.title}}
    config = vega.picture_config()
    if format == "png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=SCALE, config=config, allowed_base_urls=[]))
    return str(vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[])).encode("utf-8")
