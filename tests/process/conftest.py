from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import paths
from harness.workers import Worker
from tests.process.processes import wait_until_none
from tests.process.small_cell import Place, prepare
from tests.process.small_sweep import Sweeper


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
def own_place(tmp_path: Path) -> Iterator[Place]:
    made = prepare(tmp_path, uuid.uuid4().hex)
    yield made
    assert wait_until_none(made.mark) == []


@pytest.fixture(scope="session")
def sweep_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all sweeps of the tests: their proofs are their own, the environments the person's."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "environments").symlink_to(paths.cache_folder("environments"), target_is_directory=True)
    return cache


@pytest.fixture
def sweeper(tmp_path: Path, sweep_cache: Path) -> Iterator[Sweeper]:
    """A small sweep in a folder of its own; afterwards no process may be left that it started."""
    made = Sweeper(tmp_path / "work", sweep_cache, uuid.uuid4().hex)
    yield made
    assert wait_until_none(made.mark) == []
