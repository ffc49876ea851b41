from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.report import charts, palette, pictures
from tests.unit.made_up_runs import TARGETS, whole


def test_every_figure_is_a_picture_named_after_it(tmp_path: Path) -> None:
    drawn = charts.figures(whole().found)
    written = pictures.write(drawn, tmp_path / "new" / "folder", "svg")
    assert written == [tmp_path / "new" / "folder" / f"{figure.name}.svg" for figure in drawn]
    assert {"training-time", "accuracy", "throughput", "time-to-accuracy"} <= {path.stem for path in written}
    for path, figure in zip(written, drawn, strict=True):
        text = path.read_text(encoding="utf-8")
        assert figure.words.title in re.sub(r"<[^>]+>", "", text).replace("&#x27;", "'").replace("&apos;", "'")
        assert all(target.label in text for target in TARGETS)
        assert "var(" not in text
    for place in range(len(TARGETS)):
        assert palette.LIGHT[place] in written[0].read_text(encoding="utf-8")


def test_a_png_has_twice_the_pixels_and_white_paper(tmp_path: Path) -> None:
    first = charts.figures(whole().found)[:1]
    (path,) = pictures.write(first, tmp_path, "png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, _ = struct.unpack(">II", content[16:24])
    assert width > pictures.SCALE * pictures.WIDTH


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match=r"file: a file is in the way where a folder must be") as caught:
        pictures.write(charts.figures(whole().found)[:1], tmp_path / "file", "svg")
    assert "\n" not in str(caught.value)


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed: png, svg"):
        pictures.write([], tmp_path, "gif")


def test_nothing_to_draw_is_no_picture(tmp_path: Path) -> None:
    assert pictures.write([], tmp_path, "png") == []
