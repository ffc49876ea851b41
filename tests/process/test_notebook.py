"""The notebook of the docs runs, and gives outputs of the kinds that it was kept with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from harness import paths

NOTEBOOK = Path(__file__).parents[2] / "docs" / "example.ipynb"
PATIENCE = 600


def kinds(cell: Any) -> set[tuple[str, ...]]:
    """What a cell gives in the end, and in which forms: not what is told meanwhile, which depends on the cache."""
    lasting = [output for output in cell.get("outputs", ()) if output.output_type not in ("stream", "display_data")]
    return {(output.output_type, *sorted(output.get("data", ()))) for output in lasting}


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


# What nbclient and its kernel leave to Python's end, where tests take warnings for errors.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_example_runs_and_gives_outputs_of_the_same_kinds(
    tmp_path: Path, sweep_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(sweep_cache))
    kept, made = read(), read()
    for cell in made.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(made, timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for before, now in zip(kept.cells, made.cells, strict=True):
        assert kinds(before) == kinds(now), before.source
    assert "[4/4]" in str(made.cells)
    bars = [output for cell in made.cells for output in cell.get("outputs", ()) if output.output_type == "display_data"]
    assert bars, "a bar was drawn, and taken away again"
    assert {bar.data["text/html"] for bar in bars} == {""}
    assert not [output for cell in made.cells for output in cell.get("outputs", ()) if output.output_type == "error"]


def test_the_example_was_kept_whole_and_shows_figures_without_a_network() -> None:
    code = [cell for cell in read().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    html = "".join(output.data.get("text/html", "") for cell in code for output in cell.outputs if "data" in output)
    assert html.count("<svg") == 4
    assert not re.search(r"<script|<link|<img|@import", html)
