"""Variables that lead Python to the packages or libraries of another one: one line that names the variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands import foreign
from tests.command import HARNESS

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"

NUMPY = """
try:
    from numpy import _core
except ImportError as error:
    raise ImportError(
        "\\n\\nIMPORTANT: PLEASE READ THIS FOR ADVICE ON HOW TO SOLVE THIS ISSUE!\\n\\n"
        f"Importing the numpy C-extensions failed.\\n\\nOriginal error was: {error}\\n"
    ) from error
"""
"""As NumPy does it, whose binaries are for one Python only."""


def other(folder: Path, name: str, code: str, core: str = "") -> Path:
    """A folder of packages with one in it."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    if core:
        (folder / name / "_core.py").write_text(core)
    return folder


def run(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HARNESS_CACHE_DIR": str(tmp_path / "cache"), **variables}
    return subprocess.run([HARNESS, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)


def test_numpy_of_another_python_is_one_line_that_names_pythonpath(tmp_path: Path) -> None:
    place = other(tmp_path / "other", "numpy", NUMPY, "from numpy import _multiarray_umath\n")
    for arguments in (("sweep", "--plan"), ("verify", "-t", "reference"), ("cell", "export", str(GOLDEN), "a")):
        done = run(tmp_path, *arguments, PYTHONPATH=f"{tmp_path / 'gone'}{os.pathsep}{place}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"harness: numpy in {place} cannot be used; the variable PYTHONPATH leads there")
        assert "_multiarray_umath" in done.stderr
        assert done.stderr.endswith("unset PYTHONPATH and run the command again\n")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "code", ["raise SystemError('made for another version')", "import nothing_of_that_name", "x ="]
)
def test_other_packages_that_fail_in_other_ways_are_told_likewise(tmp_path: Path, code: str) -> None:
    place = other(tmp_path / "other", "polars", code)
    done = run(tmp_path, "report", str(GOLDEN), PYTHONPATH=str(place))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"polars in {place} cannot be used; the variable PYTHONPATH leads there" in done.stderr


def test_a_path_that_harms_nothing_is_nobody_s_affair(tmp_path: Path) -> None:
    place = other(tmp_path / "other", "something", "raise SystemError")
    done = run(tmp_path, "report", str(GOLDEN), PYTHONPATH=str(place))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="the loader of Linux")
def test_a_library_of_another_system_is_one_line_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "libstdc++.so.6").write_text("of no system")
    done = run(tmp_path, "sweep", "--plan", LD_LIBRARY_PATH=str(tmp_path / "libraries"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "libstdc++.so.6: " in done.stderr
    assert done.stderr.endswith("unset LD_LIBRARY_PATH and run the command again\n")


def test_a_damaged_installation_is_told_as_such(tmp_path: Path) -> None:
    missing = ModuleNotFoundError("No module named 'rich'", name="rich.table")
    assert foreign.sentence(missing, {"LD_LIBRARY_PATH": "/opt/lib"}) == (
        "rich cannot be imported (No module named 'rich'); install the harness anew in an environment of its own"
    )


def test_faults_of_the_harness_itself_are_blamed_on_nothing(tmp_path: Path) -> None:
    assert foreign.blame(ValueError("ours"), {"PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": "/opt/lib"}) == ""
    with pytest.raises(AttributeError) as raised:
        foreign.sentence(None, {})  # type: ignore[arg-type]
    assert foreign.blame(raised.value, {"PYTHONPATH": str(Path(foreign.__file__).parents[2])}) == ""
