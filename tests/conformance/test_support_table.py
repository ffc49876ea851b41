"""README's support table is what the adapters declare."""

from __future__ import annotations

from pathlib import Path

from harness import support

from .conftest import Bench

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- support table: what `harness targets support` prints; a test keeps it so -->\n"
END = "<!-- end of the support table -->\n"


def test_the_support_table_in_the_readme_is_current(bench: Bench) -> None:
    wanted = sorted(set(support.declarers(bench.definitions).values()))
    declared = {name: bench.worker(name).ready.capabilities for name in wanted}
    printed = support.markdown(support.rows(bench.definitions, declared))
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert before
    assert begin, f"README.md lacks the line {BEGIN!r}"
    assert end, f"README.md lacks the line {END!r}"
    assert table.strip("\n") == printed.strip("\n"), f"replace the table by\n\n{printed}"
