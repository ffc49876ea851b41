"""The support table in the docs is what the adapters declare."""

from __future__ import annotations

from pathlib import Path

from harness.doctor import support
from harness.plan import targets

from .conftest import Bench

PAGE = Path(__file__).parents[2] / "docs" / "targets.md"
BEGIN = "<!-- support table: what `harness targets support` prints; a test keeps it so -->\n"
END = "<!-- end of the support table -->\n"


def test_the_support_table_in_the_docs_is_current(bench: Bench) -> None:
    definitions = targets.definitions()
    wanted = sorted(set(support.declarers(definitions).values()))
    declared = {name: bench.worker(name).ready.capabilities for name in wanted}
    printed = support.markdown(support.rows(definitions, declared))
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert before
    assert begin, f"{PAGE.name} lacks the line {BEGIN!r}"
    assert end, f"{PAGE.name} lacks the line {END!r}"
    assert table.strip("\n") == printed.strip("\n"), f"replace the table by\n\n{printed}"
