"""The worker's code: one folder named by its hash, whole or absent, alone on the worker's path."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.core.errors import EnvironmentBuildError
from harness.workers import Launch, bundle


def test_it_holds_the_contract_and_the_backends_and_nothing_else(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    names = {path.relative_to(made.path).as_posix() for path in made.path.rglob("*") if path.is_file()}
    assert {"harness/__init__.py", "harness/core/codec.py", "backends/worker.py", "backends/__init__.py"} <= names
    names.remove("harness/__init__.py")
    assert all(name.endswith(".py") and name.startswith(("harness/core/", "backends/")) for name in names)
    assert (made.path / "harness/__init__.py").read_bytes() == b""
    assert made.path.name == made.sha256[:16]


def test_it_is_the_same_wherever_and_however_often_it_is_made(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(bundle, [tmp_path / "one", tmp_path / "two", tmp_path / "one", tmp_path / "one"]))
    assert len({one.sha256 for one in made}) == 1
    names = [path.name for path in (tmp_path / "one").iterdir()]
    assert [name for name in names if not name.endswith(".lock")] == [made[0].path.name]


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_one_is_replaced(tmp_path: Path, damage: str) -> None:
    made = bundle(tmp_path)
    file = made.path / "backends" / "loop.py"
    good = file.read_bytes()
    if damage == "altered":
        file.write_bytes(good + b"# altered\n")
    else:
        file.unlink()
    assert bundle(tmp_path) == made
    assert file.read_bytes() == good


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentBuildError, match=r"file.*: the worker's code cannot be written \(File exists\)"):
        bundle(tmp_path / "file")


def test_a_worker_sees_nothing_of_the_persons_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONWARNINGS", "VIRTUAL_ENV", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = bundle(tmp_path / "bundles")
    launch = Launch(Path(sys.executable), "reference", made, {"TF_CPP_MIN_LOG_LEVEL": "2"}, tmp_path, tmp_path / "log")
    environment = launch.environment(tmp_path)
    assert "/elsewhere" not in environment.values()
    assert environment["PYTHONPATH"] == str(made.path)
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "2"
    assert "OMP_NUM_THREADS" not in environment  # it changes what is computed: a target's definition may set it
    assert Path(environment["TMPDIR"]).is_relative_to(tmp_path)


def test_the_worker_can_be_imported_from_the_bundle_alone(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    script = "import backends.host, harness, sys; print(harness.__file__); print('harness.paths' in sys.modules)"
    command = [sys.executable, "-c", script]
    environment = {"PYTHONPATH": str(made.path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [str(made.path / "harness" / "__init__.py"), "False"], done.stderr
