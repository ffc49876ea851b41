"""What tests start as a program of its own, written in a string, imports modules that are there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
IMPORT = re.compile(r"^\s*from ((?:harness|backends|tests)[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def imports() -> Iterator[tuple[str, str, str]]:
    """File, module and name of every such import."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for module, names in IMPORT.findall(node.value.replace("; ", "\n")):
                    for name in names.split(","):
                        yield path.name, module, name.split(" as ")[0].strip()


@pytest.mark.parametrize(("file", "module", "name"), sorted(set(imports())))
def test_a_program_in_a_string_imports_what_is_there(file: str, module: str, name: str) -> None:
    if not hasattr(importlib.import_module(module), name):
        importlib.import_module(f"{module}.{name}")
