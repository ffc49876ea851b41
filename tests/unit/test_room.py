"""Folders named by the clock, room on disks, and what is kept only where it can be."""

from __future__ import annotations

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from harness.cache import room
from harness.cache.keeping import Keeping
from harness.core.errors import CellError, StoreError, Unsupported, WorkerCrashed
from harness.core.model import Dense, Flatten
from harness.measure import session
from harness.paths import RUNS_FOLDER
from harness.plan import datasets, inputs, targets
from harness.proof import probes
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder
from harness.runs import folder as run_folder
from tests.unit.builders import small_cell, small_model


@pytest.fixture
def probe() -> ProbeCell:
    return probes.ties_probe("float32", targets.resolve("reference", targets.definitions()))


class Frozen(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: object = None) -> Frozen:
        return cls(2026, 11, 23, 10, 15, 0)


def test_folders_named_in_the_same_second_are_each_somebodys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "datetime", Frozen)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(run_folder.default_folder, ["study"] * 16))
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)
    assert {folder.name for folder in folders} >= {"study-20261123-101500", "study-20261123-101500-2"}


def test_a_file_where_runs_belong_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / RUNS_FOLDER).touch()
    with pytest.raises(StoreError, match="a file is in the way"):
        run_folder.default_folder("study")


def test_a_probe_without_room_says_what_it_needs_and_what_is_free(
    probe: ProbeCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda place: 2_000_000)
    folder = tmp_path / "probe"
    with pytest.raises(
        StoreError, match=r"a probe of reference:numpy needs at least 5\.0 MB there, and 2\.0 MB is free"
    ):
        ProbeFolder(folder, probe, answer_bytes=5_000_000).__enter__()
    assert not folder.exists()
    with ProbeFolder(folder, probe):
        assert (folder / "parameters.npz").is_file()


@pytest.mark.parametrize(
    ("free", "error", "expected"),
    [
        (0, WorkerCrashed("its last words: F"), StoreError),
        (10**9, WorkerCrashed("its last words: F"), WorkerCrashed),
        (0, Unsupported("no"), Unsupported),
        (None, WorkerCrashed("died"), WorkerCrashed),
    ],
)
def test_a_worker_that_crashes_on_a_full_disk_is_the_disks_doing(
    probe: ProbeCell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    error: CellError,
    expected: type[Exception],
) -> None:
    with pytest.raises(expected) as caught, ProbeFolder(tmp_path / "probe", probe):  # noqa: PT012
        monkeypatch.setattr(room, "free_bytes", lambda place: free)
        raise error
    assert ("the disk is full: 0.0 MB is free" in str(caught.value)) == (expected is StoreError)
    assert not (tmp_path / "probe").exists()


def test_a_probe_that_cannot_be_written_names_its_folder(
    probe: ProbeCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, array: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(inputs, "save_array", refuse)
    with pytest.raises(StoreError, match=r"probe: cannot be written, the disk is full"):
        ProbeFolder(tmp_path / "probe", probe).__enter__()
    assert not (tmp_path / "probe").exists()


def test_without_a_temporary_folder_the_variable_that_names_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *parts: none())
    with pytest.raises(StoreError, match=r"no temporary folder can be made.*TMPDIR"), session.temporary_folder("test"):
        pass


def test_what_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    keeping = Keeping(told.append)
    (tmp_path / "file").touch()
    for kind in ("proofs", "limits"):
        keeping.keep(tmp_path / "file" / kind / "one.json", lambda path: path.write_text("x"))
    (line,) = told
    assert str(tmp_path / "file" / "proofs") in line
    assert "HARNESS_CACHE_DIR" in line
    keeping.keep(tmp_path / "new" / "one.json", lambda path: path.write_text("x"))
    assert (tmp_path / "new" / "one.json").read_text() == "x"


def test_free_room_is_that_of_the_disk_a_folder_will_be_on(tmp_path: Path) -> None:
    assert (room.free_bytes(tmp_path / "not" / "yet") or 0) > 0


def test_a_dataset_is_made_elsewhere_where_the_cache_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.plan.datasets import cache

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    build, told = cache._build, []

    def full(base: Path, *arguments: object) -> object:
        if base.is_relative_to(tmp_path / "cache"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return build(base, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_build", full)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **names: str(_made(tmp_path / str(names["prefix"]))))
    prepared = datasets.prepare("digits", keeping=Keeping(told.append))
    assert prepared.folder.parent == tmp_path / "harness-datasets-"
    assert (prepared.folder / "train_images.npy").is_file()
    assert len(told) == 1


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_what_cells_start_from_is_counted_once_for_equal_ones(tmp_path: Path) -> None:
    one = small_cell(small_model(Flatten(), Dense(3)))
    wanted = 4 * one.model.parameter_count + 4 * one.training.epochs * one.dataset.train_examples
    assert inputs.missing_bytes(tmp_path, [one, one]) == wanted
    parameters, _ = inputs.names(one.inputs)
    (tmp_path / parameters).touch()
    assert inputs.missing_bytes(tmp_path, [one]) == wanted - 4 * one.model.parameter_count
