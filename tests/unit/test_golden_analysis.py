"""The analysis of stored runs against tables kept beside them, column by column.

``golden/analysis/RUN.json`` holds, of each stored run, every table as table -> column -> values, and the advice.
Numbers may differ by 1e-9 of themselves, those that an optimiser finds by 1e-6. To write the tables anew, after a
change that is meant, and look at what it changed:

    HARNESS_GOLDEN=write uv run pytest tests/unit/test_golden_analysis.py && git diff tests/golden/analysis
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import reading
from harness.core import codec
from harness.runs import folder as run_folder

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "analysis"
RUNS = {
    "run-schema-1": ROOT / "tests" / "golden" / "run-schema-1",
    "h200-study": ROOT / "benchmarks" / "results" / "h200" / "study",
    "h200-compare": ROOT / "benchmarks" / "results" / "h200" / "compare",
}
FOUND_BY_AN_OPTIMISER = ("step_model", "predicted")


def tables(run: Path) -> dict[str, dict[str, list[Any]]]:
    """Every table and the advice of a run, as JSON would give them back."""
    found = reading.read(run_folder.open_run(run)).found
    made: dict[str, Any] = {name: getattr(found, name).to_dict(as_series=False) for name in reading.TABLES}
    advice = [dataclasses.asdict(one) for one in found.advice]
    made["advice"] = {field: [one[field] for one in advice] for field in (advice[0] if advice else ())}
    made["run"] = {"accuracy": [found.accuracy], "accuracies": list(found.accuracies)}
    plain: dict[str, dict[str, list[Any]]] = json.loads(json.dumps(codec.to_json(made)))
    return plain


def differences(kept: Any, now: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two values differ: numbers by more than the tolerance, anything else at all."""
    if isinstance(kept, dict) and isinstance(now, dict) and kept.keys() == now.keys():
        return [line for key in kept for line in differences(kept[key], now[key], tolerance, f"{where}.{key}")]
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        pairs = enumerate(zip(kept, now, strict=True))
        return [line for n, pair in pairs for line in differences(*pair, tolerance, f"{where}[{n}]")]
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (kept, now))
    alike = math.isclose(kept, now, rel_tol=tolerance, abs_tol=1e-12) if numbers else kept == now
    return [] if alike else [f"{where}: kept {kept!r}, now {now!r}"]


def write(path: Path, made: dict[str, dict[str, list[Any]]]) -> None:
    """One line for each column, so that a changed table is a readable difference."""
    columns = {
        table: ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in of.items())
        for table, of in made.items()
    }
    lines = [f"{json.dumps(table)}: {{\n{text}\n}}" for table, text in columns.items()]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@pytest.mark.parametrize("name", RUNS)
def test_tables_of_a_stored_run_are_those_that_were_kept(name: str) -> None:
    path, now = GOLDEN / f"{name}.json", tables(RUNS[name])
    if os.environ.get("HARNESS_GOLDEN") == "write":
        write(path, now)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert {table: list(columns) for table, columns in kept.items()} == {
        table: list(columns) for table, columns in now.items()
    }
    for table, columns in kept.items():
        tolerance = 1e-6 if table in FOUND_BY_AN_OPTIMISER else 1e-9
        for column, values in columns.items():
            assert differences(values, now[table][column], tolerance, f"{table}.{column}") == []


def test_a_difference_is_named() -> None:
    kept, now = {"a": [1.0, None, "x"], "b": [True]}, {"a": [1.0 + 1e-8, None, "y"], "b": [1]}
    assert differences(kept, now, 1e-9, "table") == [
        "table.a[0]: kept 1.0, now 1.00000001",
        "table.a[2]: kept 'x', now 'y'",
    ]
    assert differences([1.0], [1.0 + 1e-10], 1e-9) == []
    assert differences([1.0], [None], 1e-9) == ["[0]: kept 1.0, now None"]
    assert differences([1.0], [1.0, 2.0], 1e-9) == [": kept [1.0], now [1.0, 2.0]"]
