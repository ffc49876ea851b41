"""A real Chromium without a window, and pages for it; where there is none, the tests here are skipped, saying so."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.core.record import Record
from harness.report import page
from harness.report.page import PageView
from tests.browser.reader import Reader
from tests.unit.made_up_runs import view

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def bundle() -> str:
    import vl_convert

    return str(vl_convert.javascript_bundle())


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    browser = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("there is no Chromium with its chromedriver on this machine")
    made = Reader(browser, driver, tmp_path_factory.mktemp("browser"))
    yield made
    made.quit()


class Opener:
    """Writes a page of records and opens it from the file."""

    def __init__(self, reader: Reader, bundle: str, folder: Path) -> None:
        self.reader, self.bundle, self.folder = reader, bundle, folder

    def __call__(self, made: PageView | Sequence[Record], **changes: Any) -> Reader:
        whole = made if isinstance(made, PageView) else view(made)
        path = self.folder / "page.html"
        path.write_text(page.render(dataclasses.replace(whole, bundle=self.bundle, **changes)), encoding="utf-8")
        self.reader.open(path.as_uri())
        return self.reader


@pytest.fixture
def opened(reader: Reader, bundle: str, tmp_path: Path) -> Iterator[Opener]:
    reader.reset()
    yield Opener(reader, bundle, tmp_path)
    assert reader.complaints() == []
