"""The arrows of the design, read from the imports themselves and, for what is really loaded, from ``sys.modules``.

Imports inside functions and for type checkers count as well, unless a test says otherwise.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.plan import tomlfile

ROOT = Path(__file__).resolve().parents[2]

BASE = {"core", "paths", "wording", "statistics", "refusals", "outputs", "shells", "network", "cache"}
"""What every folder may import: the contract, and what knows nothing of plans, runs or machines."""

MAY_IMPORT = {
    "core": "",
    "paths": "",
    "wording": "core",
    "statistics": "core",
    "refusals": "core",
    "outputs": "core refusals",
    "shells": "core",
    "network": "core",
    "cache": "core paths wording",
    "machine": "BASE",
    "plan": "BASE",
    "workers": "BASE",
    "proof": "BASE plan workers machine",
    "doctor": "BASE plan workers machine",
    "runs": "BASE plan workers proof",
    "measure": "BASE plan workers machine proof runs",
    "analysis": "BASE",
    "report": "BASE analysis",
    "export": "BASE plan analysis report",
    "cluster": "BASE plan runs machine",
    "actions": "BASE plan workers machine proof doctor runs measure analysis report export cluster",
    "commands": "BASE plan report actions",
    "cli": "BASE actions commands",
    "__main__": "cli",
}
"""Folder or module of ``harness`` -> what it may import: the table of docs/architecture.md. What comes first knows
nothing of what comes after."""

BESIDES = {
    "harness.analysis.reading": "plan proof runs",
    "harness.analysis.explaining": "runs",
    "harness.analysis.index": "runs",
    "harness.analysis.journal": "runs",
    "harness.analysis.noise_scale": "runs",
    "harness.measure.series": "analysis",
    "harness.measure.noise_probe": "analysis",
    "harness.report.live": "runs",
}
"""Single modules that may import more, since reading or deciding is what they are for."""

PURE = ("analysis", "report", "statistics", "wording")
"""These start nothing."""

SERVER = "harness.report.live"
"""But this: the page of a sweep that is under way is served by a process of its own."""

FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "jax", "jaxlib", "flax", "optax"}
ADAPTERS: dict[str, set[str]] = {
    "reference": set(),
    "tensorflow": {"tensorflow", "keras", "tf_keras"},
    "jax": {"jax", "jaxlib", "flax", "optax"},
}
"""First word of an adapter's modules, and the framework that is its own."""

OTHERWISE_NAMED = {
    "mlflow_skinny": "mlflow",
    "nvidia_ml_py": "pynvml",
    "pysimdjson": "simdjson",
    "pywin32": "win32pdh",
    "vl_convert_python": "vl_convert",
}
"""Dependencies whose module has another name."""

EXPORTERS = {
    "harness.export.mlflow": "mlflow",
    "harness.export.tensorboard": "tensorboard",
    "harness.cluster.ray.tasks": "ray",
}
"""Modules that import what an optional extra installs, when they run only, and the extra."""

HEAVY = {"numpy", "polars", "pydantic", "rich", "httpx", "psutil", "scipy", "backends", *FRAMEWORKS}
"""What ``harness --help`` must not wait for."""


@dataclass(frozen=True)
class Import:
    """One import statement: the dotted module, where it stands, and whether importing the file runs it."""

    module: str
    file: Path
    line: int
    at_import: bool
    for_types: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module: str) -> bool:
    place = ROOT.joinpath(*module.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def imports_of(path: Path) -> list[Import]:
    """Every import of a file, ``from a import b`` as ``a.b`` where that is a module of ours, and import_module("a")."""
    return [
        Import(module, path, node.lineno, at_import, for_types)
        for node, at_import, for_types in _walk(ast.parse(path.read_text(encoding="utf-8")), True, False)
        for module in _modules(node, path)
    ]


def _walk(node: ast.AST, at_import: bool, for_types: bool) -> Iterator[tuple[ast.stmt | ast.expr, bool, bool]]:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)):
        yield node, at_import and not for_types, for_types
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        at_import = False
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, at_import, True)
        for child in node.orelse:
            yield from _walk(child, at_import, for_types)
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, at_import, for_types)


def _modules(node: ast.stmt | ast.expr, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module_name(path).split(".")
            package = package if path.name == "__init__.py" else package[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield whole if exists(whole) else base
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
        ("import_module", "importlib.import_module", "__import__")
    ):
        arguments = [constant for argument in node.args[:1] for constant in ast.walk(argument)]
        yield from (c.value for c in arguments if isinstance(c, ast.Constant) and isinstance(c.value, str))


def all_imports(*folders: str) -> list[Import]:
    return [found for path in files(*folders) for found in imports_of(path)]


def unit_of(module: str) -> str:
    """``harness.report.terminal`` -> ``report``; ``harness`` itself -> ``""``."""
    return [*module.split("."), ""][1]


def none(wrong: Iterable[object]) -> None:
    listed = [str(item) for item in wrong]
    assert not listed, "\n" + "\n".join(listed)


def standard(module: str) -> bool:
    return module in sys.stdlib_module_names or module == "tomllib"  # that one came with 3.11


# By reading imports


def test_contract_imports_the_standard_library_and_itself() -> None:
    none(
        found
        for found in all_imports("harness/core")
        if not (standard(found.top) or found.module.startswith("harness.core"))
    )


def test_backends_import_the_standard_library_numpy_the_contract_and_their_own_framework() -> None:
    for path in files("backends"):
        own = next((ADAPTERS[word] for word in ADAPTERS if path.stem.split("_")[0] == word), set())
        none(
            found
            for found in imports_of(path)
            if not (
                standard(found.top)
                or found.top in {"numpy", "backends", *own}
                or found.module.startswith("harness.core")
            )
        )


def test_frameworks_are_imported_inside_functions_only() -> None:
    none(found for found in all_imports("backends") if found.top in FRAMEWORKS and found.at_import)


def test_adapters_do_not_import_each_other() -> None:
    shared = {module_name(path).rpartition(".")[2] for path in files("backends")}
    shared -= {name for name in shared if name.split("_")[0] in ADAPTERS}
    for path in files("backends"):
        word = path.stem.split("_")[0]
        for found in imports_of(path):
            if found.top == "backends":
                other = unit_of(found.module)
                assert other in shared or other.split("_")[0] == word or not other, str(found)


def test_harness_never_imports_backends_nor_a_framework() -> None:
    none(found for found in all_imports("harness") if found.top in {"backends", *FRAMEWORKS})


def allowed(module: str) -> set[str]:
    """Units that a module may import, its own among them."""
    unit = unit_of(module)
    words = {unit, *MAY_IMPORT[unit].split(), *BESIDES.get(module, "").split()}
    return words | BASE if "BASE" in words else words


def test_every_unit_of_harness_has_its_line_in_the_table() -> None:
    units = {unit_of(module_name(path)) for path in files("harness")} - {""}
    assert units == MAY_IMPORT.keys()


def test_every_module_imports_what_the_table_allows_and_no_more() -> None:
    def wrong(found: Import) -> bool:
        here, there = module_name(found.file), unit_of(found.module)
        # The package itself offers what a notebook uses: it is above all, and imports when that is called.
        return bool(there) and (found.at_import if here == "harness" else there not in allowed(here))

    none(found for found in all_imports("harness") if found.top == "harness" and wrong(found))


def test_the_table_has_no_circle_and_its_exceptions_are_used() -> None:
    places = {unit: number for number, unit in enumerate(MAY_IMPORT)}
    for unit, words in MAY_IMPORT.items():
        assert all(places[other] < places[unit] for other in words.split() if other != "BASE"), unit
    for module, words in BESIDES.items():
        used = {unit_of(found.module) for found in imports_of(ROOT / f"{module.replace('.', '/')}.py")}
        assert set(words.split()) <= used, module


def test_programs_that_tests_start_import_modules_that_are_there() -> None:
    """They stand in tests as texts, where no type checker looks at them, and some run on few machines only."""
    line = re.compile(r"(?:^|; )from (harness[\w.]*) import (\w+(?:, \w+)*)", re.M)
    for path in files("tests", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            for base, names in line.findall(text):
                module = importlib.import_module(base)
                none(
                    f"{path.relative_to(ROOT)}: {base} has no {name}"
                    for name in names.split(", ")
                    if not (hasattr(module, name) or exists(f"{base}.{name}"))
                )


def test_analysis_and_report_start_nothing() -> None:
    starts = {"subprocess", "multiprocessing", "threading", "socket"}
    none(
        found
        for found in all_imports("harness")
        if unit_of(module_name(found.file)) in PURE and module_name(found.file) != SERVER and found.top in starts
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module_name(path): {found.module for found in imports_of(path)} for path in files("harness", "backends")}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module not in done:
            for other in sorted(graph[module] & graph.keys()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_every_other_import_of_harness_is_a_declared_dependency() -> None:
    project = tomlfile.read(ROOT / "pyproject.toml")["project"]
    declared = modules_of(project["dependencies"])
    declared.add("pydantic_core")  # part of pydantic, which asks for one exact version of it
    for path in files("harness"):
        extra = modules_of(project["optional-dependencies"].get(EXPORTERS.get(module_name(path), ""), ()))
        none(
            found
            for found in imports_of(path)
            if not found.for_types
            and not standard(found.top)
            and found.top not in {"harness", *declared}
            and (found.at_import or found.top not in extra)
        )


def modules_of(requirements: Iterable[str]) -> set[str]:
    distributions = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in requirements}
    return {OTHERWISE_NAMED.get(distribution, distribution) for distribution in distributions}


def test_nothing_anywhere_imports_or_installs_torch() -> None:
    torch = {"torch", "torchvision", "torchaudio", "pytorch_lightning", "lightning"}
    none(found for found in all_imports("harness", "backends", "tests", "benchmarks") if found.top in torch)
    requirement = re.compile(r"""^\s*["']?(torch|torchvision|torchaudio)\b(?!\w)\s*(==|>=|<=|~=|["',\[]|$)""", re.M)
    places = [ROOT / "pyproject.toml", *(path for path in (ROOT / "harness" / "targets").rglob("*") if path.is_file())]
    none(path for path in places if requirement.search(path.read_text(encoding="utf-8")))


# By what is really loaded


def loaded_by(*modules: str, options: tuple[str, ...] = ()) -> set[str]:
    """Names in ``sys.modules`` that importing the modules adds, in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        f"import {', '.join(modules)}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def tops(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_loading_the_contract_loads_the_standard_library_only() -> None:
    # -S leaves site-packages out, so anything else would fail.
    loaded = loaded_by(*(module_name(path) for path in files("harness/core")), options=("-S",))
    none(top for top in tops(loaded) if not standard(top) and top != "harness")
    none(name for name in loaded if name.startswith("harness.") and not name.startswith("harness.core"))


def test_loading_every_backend_module_loads_no_framework_and_no_harness_but_the_contract() -> None:
    loaded = loaded_by(*(module_name(path) for path in files("backends")))
    assert tops(loaded).isdisjoint(HEAVY - {"numpy", "backends"})
    none(name for name in loaded if name.startswith("harness.") and not name.startswith("harness.core"))


@pytest.mark.parametrize("module", ["harness.cli", "harness.plan.tomlfile"])
def test_loading_the_command_line_loads_nothing_heavy(module: str) -> None:
    assert tops(loaded_by(module)).isdisjoint(HEAVY)
