from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import cli
from harness.paths import CACHE_VARIABLE
from harness.workers import Worker
from tests.process.processes import wait_until_none
from tests.process.small_cell import Place, prepare
from tests.process.small_sweep import Sweeper, made_cache

LINUX_ONLY = {
    "test_killed.py": "the kernel ends orphans on Linux",
    "test_worker_failures.py": "written in terms of POSIX's signals and file descriptors",
    "test_sweep_interrupted.py": "stops the harness by signals",
    "test_whatever_a_worker_does_becomes_a_typed_record_and_the_sweep_goes_on": "names POSIX's signals",
    "test_the_harness_sleeps_while_a_worker_runs": "stops the harness by a signal",
    "test_an_interrupted_heat_keeps_every_lane_and_resumes": "stops the harness by a signal",
    "test_of_two_sweeps_in_one_folder_the_second_says_who_is_there": "stops the harness by a signal",
    "test_a_python_is_found_although_a_shim_before_it_fails": "the shim is a shell script",
    "test_stopping_ends_everything_and_may_be_repeated": "starts a program of POSIX",
}
"""Files and tests that run on Linux only, and why."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip elsewhere what only Linux can show."""
    for item in items if sys.platform != "linux" else ():
        name = getattr(item, "originalname", item.name)
        reason = LINUX_ONLY.get(item.path.name) or LINUX_ONLY.get(name)
        if reason and item.path.parent.name == "process":
            item.add_marker(pytest.mark.skip(reason=f"{reason}: tested on Linux"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A run folder; afterwards no process may be left that was started for it."""
    made = prepare(tmp_path_factory.mktemp("run"), uuid.uuid4().hex)
    yield made
    assert wait_until_none(made.mark) == []


@pytest.fixture(scope="module")
def host(place: Place) -> Iterator[Worker]:
    """One forking host for all tests of a module; every test leaves it able to serve."""
    with Worker(place.launch()) as worker:
        yield worker


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls ``harness`` with what is wrong, in this process, as nothing is started; the one line that it says."""

    def call(sweeper: Sweeper, *arguments: str) -> str:
        monkeypatch.chdir(sweeper.folder)
        monkeypatch.setenv(CACHE_VARIABLE, str(sweeper.cache))
        (sweeper.folder / "harness.toml").write_text(sweeper.tables())
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said, errors = capsys.readouterr()
        assert (ended.value.code, said, len(errors.strip().splitlines())) == (2, "", 1), errors
        return errors

    return call


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    made = prepare(tmp_path, uuid.uuid4().hex)
    yield made
    assert wait_until_none(made.mark) == []


@pytest.fixture(scope="session")
def sweep_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all sweeps of the tests."""
    return made_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def sweeper(tmp_path: Path, sweep_cache: Path) -> Iterator[Sweeper]:
    """A small sweep in a folder of its own; afterwards no process may be left that it started."""
    made = Sweeper(tmp_path / "work", sweep_cache, uuid.uuid4().hex)
    yield made
    assert wait_until_none(made.mark) == []
