"""A class name means one thing in the whole project."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SHARED = {
    "Instruments": "in harness/measure a protocol, what a heat asks of them, and the class that answers",
}
"""Names of several classes all the same, with what they are there for and where."""


def classes() -> dict[str, list[str]]:
    """Name -> modules that define a public class of that name, at their top level."""
    found = defaultdict(list)
    for path in sorted(path for folder in ("harness", "backends") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_two_public_classes_share_a_name() -> None:
    shared = {name: places for name, places in classes().items() if len(places) > 1}
    assert {name: places for name, places in shared.items() if name not in SHARED} == {}
    assert SHARED.keys() <= shared.keys(), "these are shared no more"
