"""Tables in terminals of every width."""

from __future__ import annotations

import sys

import pytest

from harness.report.printed import new_table, print_table
from harness.report.terminal import console_for

ROWS = (("jax-cpu:jit", "103.7 %", "nothing to catch", "a sentence that may break between its words"),)


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_columns_stay_whole_but_for_prose(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    headings = ("target", "control takes", "found", "why")
    table = new_table(*headings, numbers=("control takes",), prose=("why",), title="A title of many words")
    for row in ROWS:
        table.add_row(*row)
    print_table(table, console_for(sys.stdout))
    lines = capsys.readouterr().out.splitlines()
    for whole in (headings[:3], *(row[:3] for row in ROWS)):
        assert any(all(cell in line for cell in whole) for line in lines)
    assert {word for row in ROWS for word in row[3].split()} <= {word for line in lines for word in line.split()}
    if columns >= 60:
        assert max(map(len, lines)) <= columns


def test_a_table_without_rows_shows_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(new_table("target", "why", prose=("why",)), console_for(sys.stdout))
    assert capsys.readouterr().out.split()[:2] == ["target", "why"]


def test_a_table_without_prose_is_as_wide_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    table = new_table("one heading", "another one")
    table.add_row("two words", "three more words")
    print_table(table, console_for(sys.stdout))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "one heading  another one",
        "─" * 29,
        "two words    three more words",
    ]
