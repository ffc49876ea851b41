"""Tests that run side by side: which of them one process has, and which of them wait to be asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sharing import group_of, place_of

ROOT = Path(__file__).parents[2]
CASES = """
import pytest

@pytest.mark.long
def test_slow():
    pass

def test_quick():
    pass
"""


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/unit/test_a.py::test_b", "tests/unit/test_a.py"),
        ("tests/unit/test_a.py::TestC::test_b[jax-cpu:jit]", "tests/unit/test_a.py"),
        ("tests/cluster/test_a.py::test_b", "tests/cluster/"),
        ("tests/conformance/test_a.py::test_b[jax-cpu:jit@cpus=1-lenet5]", "jax-cpu"),
        ("tests/conformance/test_a.py::test_b[lenet5-sgd-tensorflow210-cpu:fit]", "tensorflow210-cpu"),
        ("tests/conformance/test_a.py::test_b[tensorflow-directml:graph]", "tensorflow-directml"),
        ("tests/conformance/test_a.py::test_b[jax-cpu-cuda-JAX found no cuda device]", "jax-cpu"),
        ("tests/conformance/test_a.py::test_b[AnotherEpsilon]", "tests/conformance/test_a.py"),
        ("tests/conformance/test_a.py::test_b", "tests/conformance/test_a.py"),
    ],
)
def test_a_file_stays_together_and_so_do_all_tests_of_a_framework(test: str, group: str) -> None:
    assert group_of(test) == group


def test_long_groups_begin_first() -> None:
    tests = ["tests/unit/test_a.py::test_b", "tests/conformance/test_a.py::test_b", "tests/conformance/a::b[jax-cpu]"]
    assert sorted(tests, key=place_of) == tests[::-1]


@pytest.fixture
def own_tests(tmp_path: Path) -> Path:
    """Two tests, one of them long, with what all tests here share."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("conftest.py", "sharing.py"):
        (tmp_path / "tests" / name).write_text((ROOT / "tests" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tests" / "test_one.py").write_text(CASES, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "passed", "told"),
    [
        ("", 1, True),
        ("-n 0", 1, True),
        ("-p no:xdist", 1, True),
        ("--long", 2, False),
        ("-n 0 -m long", 1, False),
        ("tests/test_one.py::test_slow", 1, False),
    ],
)
def test_long_tests_wait_to_be_asked_for_and_one_line_says_so(
    own_tests: Path, arguments: str, passed: int, told: bool
) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments.split()]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=own_tests, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout
    assert ("1 long tests left out; with them: uv run pytest --long" in done.stdout) == told
    assert ("2 workers" in done.stdout) == (arguments in ("", "--long"))
