"""A person's own files, where they work, are never imported in place of Python's or the harness's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster.ray import tasks
from harness.cluster.slurm import submissions
from harness.cluster.slurm.options import SlurmOptions
from harness.cluster.slurm.programs import SlurmJob
from harness.doctor import inspection
from harness.report import live
from harness.workers import interpreters
from harness.workers.interpreters import clean_variables
from tests.command import HARNESS
from tests.process.small_sweep import Sweeper

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
NAMES = ("queue", "json", "re", "ctypes", "numpy", "socketserver", "statistics", "harness")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of such files, which is the present one; ``imported`` is there once one has been imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    own_files(folder)
    monkeypatch.chdir(folder)
    return folder


def own_files(folder: Path, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'imported')!r}, 'a').write('{name} ')\n")


def test_the_harness_as_a_module_runs_where_they_lie(here: Path) -> None:
    """But for what ``python -m`` itself takes from there: the module that it is to run, and what ``typing`` imports."""
    for name in ("harness", "re"):
        (here / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "models"], capture_output=True, text=True, env=clean_variables()
    )
    assert done.returncode == 0, done.stderr
    assert "mnist-cnn" in done.stdout
    assert not (here / "imported").exists()


@pytest.mark.parametrize("path", [":", f":{os.sep}nowhere", f"{os.sep}nowhere:"])
def test_an_empty_entry_of_pythonpath_is_not_where_they_lie(here: Path, path: str) -> None:
    """But for the harness itself and what Python imports before it."""
    for name in ("harness", "re"):
        (here / f"{name}.py").unlink()
    variables = {**clean_variables(), "PYTHONPATH": path.replace(":", os.pathsep)}
    done = subprocess.run([HARNESS, "report", str(GOLDEN)], capture_output=True, text=True, env=variables)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "imported").exists()


def test_an_interpreter_is_asked_where_they_lie(here: Path) -> None:
    python = Path(sys.executable)
    assert interpreters.problem_of(python) == ""
    variables = clean_variables()
    answer = inspection._ask(python, inspection._PACKAGES, (), variables)
    assert answer["packages"]
    assert inspection._ask(python, inspection._LOADING, ["nowhere.so"], variables) == ["nowhere.so"]
    assert not (here / "imported").exists()


def test_uv_is_asked_where_its_settings_lie(here: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    usual = interpreters._ask_uv("--version")
    (here / "uv.toml").write_text("broken = [")
    assert usual
    assert interpreters._ask_uv("python", "list", f"cpython@{version}", "--all-versions")


def test_the_live_page_is_served_where_they_lie_in_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    own_files(tmp_path)
    with live.serving(tmp_path) as address:
        assert address.startswith("http://")
    assert not (tmp_path / "imported").exists()


def test_a_task_of_ray_starts_its_heats_among_its_logs(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = SimpleNamespace(get_node_id=lambda: "1234abcd")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.01)
    log = tmp_path / "logs" / "ray" / "heats-0.log"
    command = [sys.executable, "-m", "harness", "--version"]
    _, status, said = tasks._task()(command, str(here), str(log), {}, "NODE")
    assert status == 0, said
    assert said.startswith("harness, version ")
    assert not (here / "imported").exists()


def test_a_job_starts_its_heats_in_the_folder_of_the_jobs(sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shell for Slurm: it runs the script as a job does."""
    assert sweeper.run("--only", "batch_size=4").returncode == 0
    own_files(sweeper.folder)
    monkeypatch.chdir(sweeper.folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", "own", "")))

    def bash(arguments: Any, script: str) -> SlurmJob:
        variables = {**sweeper.environment(), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "PYTHONPATH": ":"}
        done = subprocess.run(["bash", script], env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return SlurmJob("7")

    monkeypatch.setattr(submissions.programs, "submit", bash)
    monkeypatch.setattr(submissions.programs, "largest_array", lambda clusters: 10)
    kept = sweeper.kept
    nothing = submissions.Standing((), {}, {})
    made = submissions.submit(
        kept, kept.pending(), {"": SlurmOptions((), setup="test -f queue.py", heats_per_task=9)}, nothing
    )
    assert len(made) == 1
    assert set(sweeper.statuses().values()) == {"ok"}
    assert len(sweeper.statuses()) == 3
    assert not (sweeper.folder / "imported").exists()
    (script,) = (sweeper.folder / "run" / "slurm").glob("*.sh")
    assert f"export PYTHONPATH={sweeper.folder / 'own'}\n" in script.read_text()
