"""Tables to files that other programs read: CSV, JSON, Parquet, Markdown.

CSV, JSON and Parquet hold every column of the frame; Markdown the headline table of the terminal. A missing
value is an empty field in CSV and null in JSON and Parquet; losses that are not finite are NaN and inf
in CSV, themselves in Parquet, and the strings "NaN", "Infinity", "-Infinity" in JSON, as in records.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness import outputs
from harness.core import codec
from harness.core.errors import UsageError

if TYPE_CHECKING:
    import polars as pl


def export(frame: pl.DataFrame, format: str, destination: Path | IO[bytes]) -> None:
    """Write ``frame`` (of ``analysis.summary``) in one of FORMATS to a file (``harness.outputs``) or a binary stream.

    Raises UsageError for another format, HarnessError if the file cannot be written.
    """
    if format not in _WRITERS:
        raise UsageError(f"format {format!r} is not known; allowed: {', '.join(FORMATS)}")
    content = _WRITERS[format](frame)
    if isinstance(destination, Path):
        outputs.write(destination, content)
    else:
        destination.write(content)


def _csv(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_csv(buffer)
    return buffer.getvalue()


def _json(frame: pl.DataFrame) -> bytes:
    return (json.dumps(codec.to_json(frame.to_dicts()), indent=1, allow_nan=False) + "\n").encode("ascii")


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _markdown(frame: pl.DataFrame) -> bytes:
    from harness.report.headline import COLUMNS, caption_and_groups

    caption, groups = caption_and_groups(frame)
    rule = ["---:" if column.numeric else ":---" for column in COLUMNS]
    header = [column.header.replace("\n", " ") for column in COLUMNS]
    lines = [caption, ""] if caption else []
    for group in groups:
        lines += [f"**{group.heading}**", ""] if group.heading else []
        rows = ([column.text(row).replace("|", "\\|") for column in COLUMNS] for row in group.rows)
        lines += [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
        lines.append("")
    return "\n".join(lines).encode("utf-8")


_WRITERS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "markdown": _markdown,
}
FORMATS = tuple(_WRITERS)
