"""Environments are really built here, with NumPy alone, in a cache folder of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from harness.cache import room
from harness.core import system
from harness.core.errors import EnvironmentBuildError
from harness.paths import CACHE_VARIABLE
from harness.plan import targets
from harness.workers import environments, interpreters

REFERENCE = targets.built_in()["reference"]
BUILDER = """
from harness.plan import targets
from harness.workers import environments
print(environments.ensure(targets.built_in()["reference"], lambda line: print(line, flush=True)), flush=True)
"""
LEAKS = {
    "VIRTUAL_ENV": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONHOME": "/nowhere",
    "PYTHONDONTWRITEBYTECODE": "1",
    "UV_PROJECT_ENVIRONMENT": "/nowhere",
    "UV_OVERRIDE": "/nowhere/overrides.txt",
    "UV_PYTHON": "2.7",
    "UV_NO_VERIFY_HASHES": "1",
}
"""What a person's shell, or ``uv run``, may have set."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The reference's environment, built in a hostile shell, and what was said meanwhile."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        for key, value in LEAKS.items():
            patch.setenv(key, value)
        assert environments.inspect(REFERENCE).state == "buildable"
        python = environments.ensure(REFERENCE, said.append)
        for key in LEAKS:
            patch.delenv(key)
        yield python, said


def entries(cache: Path) -> set[str]:
    """What is in the cache apart from locks and logs."""
    return {path.name for path in cache.iterdir() if path.suffix not in (".lock", ".log")}


def own(tmp_path: Path, **table: str) -> targets.TargetDefinition:
    return targets.definitions({"mine": {"like": "reference", **table}}, str(tmp_path / "harness.toml"))["mine"]


def start_builder() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_an_environment_is_built_with_the_locked_packages(built: tuple[Path, list[str]]) -> None:
    python, said = built
    assert REFERENCE.lock is not None
    code = "import numpy, sys; print(numpy.__version__, *sys.version_info[:2], sys.prefix)"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"numpy=={answer[0]} " in REFERENCE.lock.read_text("utf-8")
    assert ".".join(answer[1:3]) == REFERENCE.python_version
    assert Path(answer[3]) == python.parent.parent
    assert any("building" in line for line in said)
    assert any("Installed" in line for line in said)


def test_bytecode_is_compiled_although_the_shell_forbids_it(built: tuple[Path, list[str]]) -> None:
    packages = next((built[0].parent.parent).rglob("numpy/__init__.py")).parent
    sources = [path for path in packages.rglob("*.py") if "tests" not in path.parts]
    compiled = {path.name.partition(".")[0] for path in packages.rglob("*.pyc")}
    assert {path.stem for path in sources} <= compiled


def test_a_built_environment_is_ready_and_not_built_again(built: tuple[Path, list[str]]) -> None:
    state = environments.inspect(REFERENCE)
    assert (state.state, state.python, state.identity) == ("ready", built[0], REFERENCE.environment)
    said: list[str] = []
    assert environments.ensure(REFERENCE, said.append) == built[0]
    assert said == []


def test_two_processes_at_once_build_one_environment(cache: Path) -> None:
    builders = [start_builder() for _ in range(2)]
    outputs = [builder.communicate(timeout=600)[0].splitlines() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sum("building" in line for output in outputs for line in output) == 1
    assert len(entries(cache)) == 1


def test_a_build_killed_in_the_middle_leaves_nothing_that_is_used(cache: Path) -> None:
    builder = start_builder()
    deadline = time.monotonic() + 600
    while not list(cache.glob("tmp-*/bin/python")) and not list(cache.glob("tmp-*/Scripts/python.exe")):
        assert time.monotonic() < deadline
        assert builder.poll() is None
        time.sleep(0.005)
    os.kill(builder.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    builder.communicate()
    assert environments.inspect(REFERENCE).state == "buildable"
    python = environments.ensure(REFERENCE)
    subprocess.run([python, "-c", "import numpy"], check=True)
    assert entries(cache) == {python.parent.parent.name}


def test_a_process_that_waits_says_so_and_an_incomplete_environment_is_built_anew(cache: Path) -> None:
    folder = environments.inspect(REFERENCE).folder
    assert folder is not None
    (folder / "lib").mkdir(parents=True)
    assert environments.inspect(REFERENCE).state == "broken"
    other = FileLock(folder.with_name(f"{folder.name}.lock"))
    other.acquire()
    said: list[str] = []

    def progress(line: str) -> None:
        said.append(line)
        other.release()

    environments.ensure(REFERENCE, progress)
    assert "waiting for another process" in said[0]
    assert environments.inspect(REFERENCE).state == "ready"


def test_a_wrong_hash_is_refused_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    assert REFERENCE.lock is not None
    first = REFERENCE.lock.read_text("utf-8").split("\n")[0]
    (tmp_path / "wrong.txt").write_text(f"{first}\n    --hash=sha256:{'0' * 64}\n")
    definition = own(tmp_path, lock="wrong.txt")
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.ensure(definition)
    message = str(caught.value)
    assert "\n" not in message
    assert "'mine'" in message
    assert "hash" in message.lower()
    assert Path(message.rpartition("log: ")[2]).is_file()
    assert entries(cache) == set()
    assert environments.inspect(definition).state == "buildable"


def test_a_package_without_hash_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("numpy==2.4.6\n")
    with pytest.raises(EnvironmentBuildError, match="hash"):
        environments.ensure(own(tmp_path, lock="bare.txt"))
    assert entries(cache) == set()


def test_an_environment_without_numpy_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(EnvironmentBuildError, match="cannot import NumPy"):
        environments.ensure(own(tmp_path, lock="empty.txt"))
    assert entries(cache) == set()


def test_an_interpreter_of_ones_own_is_used_as_it_is(built: tuple[Path, list[str]], tmp_path: Path) -> None:
    definition = own(tmp_path, python=str(built[0]))
    assert environments.ensure(definition) == built[0]
    assert environments.inspect(definition).state == "ready"
    assert environments.inspect(definition).folder is None


def test_an_interpreter_that_cannot_serve_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "silent").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "old").write_text("""#!/bin/sh\necho '{"python": [3, 8, 18], "error": ""}'\n""")
    (tmp_path / "bare").write_text(f"""#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n""")
    (tmp_path / "text").write_text("no program")
    for name in ("silent", "old", "bare"):
        (tmp_path / name).chmod(0o755)
    reasons = {
        "missing": "no interpreter",
        "silent": "exit status 3",
        "old": "is Python 3.8.18; 3.10 or later",
        "bare": "cannot import NumPy",
        "text": "cannot be run",
    }
    for name, reason in reasons.items():
        definition = own(tmp_path, python=str(tmp_path / name))
        state = environments.inspect(definition)
        assert state.state == "broken"
        assert reason in state.detail
        with pytest.raises(EnvironmentBuildError, match=reason) as caught:
            environments.ensure(definition)
        assert "\n" not in str(caught.value)


def test_an_unusable_cache_folder_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(EnvironmentBuildError, match="cache folder cannot be used"):
        environments.ensure(REFERENCE)


def test_a_build_on_a_full_disk_says_what_is_free_and_names_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> tuple[int, list[str]]:
        return 2, ["error: Failed to install: numpy", "  Caused by: No space left on device (os error 28)"]

    monkeypatch.setattr(environments, "_run_uv", full)
    monkeypatch.setattr(room, "free_bytes", lambda place: 3_000_000)
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.ensure(REFERENCE)
    for words in ("No space left", "3.0 MB is free there", "up to 2 GB", "HARNESS_CACHE_DIR names another folder"):
        assert words in str(caught.value)


def test_a_python_is_found_although_a_shim_before_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shim = tmp_path / "shims" / f"python{version}"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(shim.parent), str(Path(sys.base_prefix) / "bin"), os.environ["PATH"]])
    )
    found = interpreters.find_python(version)
    assert found is not None
    assert found != shim


def test_a_python_is_found_among_pyenvs_versions_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("3.99.2", "3.99.10", "3.99-dev"):
        python = tmp_path / "versions" / name / "bin" / "python3.99"
        python.parent.mkdir(parents=True)
        python.touch()
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert interpreters.find_python("3.99") == tmp_path / "versions" / "3.99.10" / "bin" / "python3.99"


def test_a_python_that_nobody_has_is_named_with_what_to_do(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "any.txt").write_text("numpy==2.4.6 --hash=sha256:" + "0" * 64)
    definition = own(tmp_path, lock="any.txt", python="3.99")
    state = environments.inspect(definition)
    assert state.state == "no python"
    assert "uv python install 3.99" in state.detail
    with pytest.raises(EnvironmentBuildError, match=r"Python 3\.99 is not on this machine: install it"):
        environments.ensure(definition)
    assert entries(cache) == set()


def test_a_network_that_cannot_be_reached_is_told_with_the_settings_that_lead_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.ensure(REFERENCE)
    message = str(caught.value)
    assert "\n" not in message
    assert "https_proxy=http://***@127.0.0.1:9" in message
    assert "SSL_CERT_FILE: found" in message
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:99999")
    with pytest.raises(EnvironmentBuildError, match=r"https_proxy: found .*allowed: a host and a port"):
        environments.ensure(REFERENCE)


TOO_LONG = (
    "error: Failed to install: tensorflow.whl\n  Caused by: The system cannot find the path specified. (os error 3)"
)


@pytest.mark.parametrize(
    ("said", "hinted"),
    [
        (TOO_LONG, True),
        ("error: The filename or extension is too long. (os error 206)", True),
        ("error: Failed to fetch: `https://packages.example/numpy`\n  Caused by: dns error", False),
        ("error: There is not enough space on the disk. (os error 112)", False),
        ("error: Hash mismatch for `numpy==2.2.6`", False),
    ],
)
def test_only_a_path_that_failed_brings_the_hint_about_long_paths(
    cache: Path, monkeypatch: pytest.MonkeyPatch, said: str, hinted: bool
) -> None:
    monkeypatch.setattr(system, "long_paths_allowed", lambda: False)
    monkeypatch.setattr(environments, "find_python", lambda version: Path(sys.executable))
    monkeypatch.setattr(environments, "_run_uv", lambda arguments, *_: (arguments[0] == "pip", said.splitlines()))
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.ensure(REFERENCE)
    assert ("LongPathsEnabled" in str(caught.value)) is hinted


def test_where_long_paths_are_allowed_there_is_no_hint(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_python", lambda version: Path(sys.executable))
    monkeypatch.setattr(environments, "_run_uv", lambda arguments, *_: (arguments[0] == "pip", TOO_LONG.splitlines()))
    with pytest.raises(EnvironmentBuildError) as caught:
        environments.ensure(REFERENCE)
    assert "LongPathsEnabled" not in str(caught.value)
