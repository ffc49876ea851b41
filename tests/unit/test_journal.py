"""Rows that are written down as records are saved: equal to those by reading, and never in the way of anything."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import index, journal, quick_reading
from harness.core import codec
from harness.core.record import Record
from harness.runs.folder import Run
from harness.runs.merging import merge
from tests.unit import made_up_runs
from tests.unit.records import plan, record
from tests.unit.test_index import CELLS, LONG_AGO, assert_as_from_records, path_of, several, told

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted(path.parent for path in (ROOT / "tests" / "golden").glob("*/plan.json"))
PATIENCE = 120.0


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records' files that reports read, one after the other."""
    read: list[str] = []
    original = quick_reading._content

    def noted(path: str) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(quick_reading, "_content", noted)
    return read


def saved(folder: Path, records: Sequence[Record]) -> Run:
    run = Run.create(folder, plan(CELLS))
    journal.keep(run)
    for one in records:
        run.save(one)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return saved(tmp_path / "run", several())


def lines(run: Run) -> Path:
    """The one journal that there is."""
    (found,) = (run.folder / journal.FOLDER).iterdir()
    return found


def change_line(run: Run, change: Callable[[bytes], bytes]) -> None:
    """Of the record of the first cell."""
    path, name = lines(run), path_of(run, 0).name.encode()
    content = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(change(line) if name in line else line for line in content))


class TestRows:
    def test_of_saved_records_are_those_by_reading_and_no_record_is_read(self, run: Run, read_files: list[str]) -> None:
        found = index.read(run)
        assert read_files == []
        shutil.rmtree(run.folder / journal.FOLDER)
        assert index.read(run).equals(found, null_equal=True)
        assert len(read_files) == found.height == len(several())

    def test_give_the_tables_of_the_records(self, run: Run) -> None:
        assert_as_from_records(run)

    @pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
    def test_of_runs_that_were_measured_are_those_by_reading(
        self, folder: Path, tmp_path: Path, read_files: list[str]
    ) -> None:
        """Their records saved anew, as they were read, in files of the same content or not."""
        old = Run.open(folder)
        made = Run.create(tmp_path / "run", old.plan)
        journal.keep(made)
        for one in old.records():
            made.save(one)
        found = index.read(made)
        assert read_files == []
        assert found.equals(index.read(old), null_equal=True)
        assert found.height == len(read_files) > 0

    def test_of_a_made_up_sweep_are_those_by_reading(self, tmp_path: Path, read_files: list[str]) -> None:
        records = made_up_runs.run(sizes=(16, 64), seeds=(0, 1))
        made = Run.create(tmp_path / "run", plan([one.cell for one in records]))
        journal.keep(made)
        for one in records:
            made.save(one)
        assert_as_from_records(made)
        assert index.read(made).height == len(records)
        assert read_files == []

    def test_of_a_record_saved_again_are_of_the_last_attempt(self, run: Run, read_files: list[str]) -> None:
        run.set_aside(CELLS[0].cell_id)
        run.save(dataclasses.replace(told(CELLS[0]), attempt=2, peak_memory_bytes=7))
        found = index.read(run)
        assert read_files == []
        assert found.filter(cell_id=CELLS[0].cell_id)["peak_memory_bytes"].to_list() == [7]
        assert_as_from_records(run)

    def test_of_a_record_set_aside_count_for_nothing(self, run: Run) -> None:
        run.set_aside(CELLS[0].cell_id)
        assert CELLS[0].cell_id not in set(index.read(run)["cell_id"])

    def test_of_a_record_that_another_puts_in_its_place_are_not_written(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        """Between the save and the look at its file, as where a disk has no locks."""
        written = codec.write_atomically

        def overtaken(path: Path, content: bytes, new: bool = False) -> None:
            written(path, content, new)
            written(path, content.replace(b"[1.5, ", b"[2.5, "))

        monkeypatch.setattr(codec, "write_atomically", overtaken)
        run.save(told(CELLS[7]))
        monkeypatch.undo()
        assert_as_from_records(run)
        assert [path_of(run, 7).name in line for line in lines(run).read_text().splitlines()].count(True) == 0

    def test_of_united_runs_are_written_too(self, run: Run, tmp_path: Path, read_files: list[str]) -> None:
        united = merge([run], tmp_path / "united", journal.keep).run
        found = index.read(united)
        assert read_files == []
        assert found.height == len(several())
        assert_as_from_records(united)

    def test_are_computed_without_data_frames(self, tmp_path: Path) -> None:
        """Whoever measures loads neither polars nor SciPy for them."""
        code = (
            "import sys; from pathlib import Path; from harness.analysis import journal; from harness.runs.folder "
            "import Run; run = Run.open(Path(sys.argv[1])); journal.keep(run)\n"
            "for path in run.record_paths(): run.on_saved(path, path.read_bytes())\n"
            "print(sorted({'polars', 'scipy'} & sys.modules.keys()))"
        )
        run = Run.create(tmp_path / "run", plan(CELLS))
        run.save(told(CELLS[0]))
        done = subprocess.run(
            [sys.executable, "-c", code, str(run.folder)], capture_output=True, check=True, text=True, timeout=PATIENCE
        )
        assert done.stdout == "[]\n"
        assert lines(run).read_text().count(path_of(run, 0).name) == 1


class TestLines:
    @pytest.mark.parametrize(
        "change",
        [
            lambda line: b"",
            lambda line: line[: len(line) // 2],
            lambda line: line[:-1],
            lambda line: line[1:],
            lambda line: line.replace(b"0.5", b"0.6") if b"0.5" in line else line.replace(b"1", b"2"),
            lambda line: line[:65] + b"[]",
            lambda line: line.swapcase(),
            lambda line: b"\0" * len(line),
            lambda line: b"\xff" * 200,
            lambda line: line[65:],
        ],
    )
    def test_that_are_damaged_are_passed_over(
        self, run: Run, change: Callable[[bytes], bytes], read_files: list[str]
    ) -> None:
        change_line(run, change)
        index.read(run)
        assert [os.path.basename(path) for path in read_files] == [path_of(run, 0).name]
        assert_as_from_records(run)

    @pytest.mark.parametrize("length", [0, 1, 66, 500])
    def test_that_are_cut_off_spoil_no_other(self, run: Run, length: int, read_files: list[str]) -> None:
        """The end of a journal is missing, and another line comes after it."""
        path = lines(run)
        whole = path.read_bytes()
        last = whole.rindex(b"\n", 0, len(whole) - 1)
        path.write_bytes(whole[: last + 1 + length])
        run.save(told(CELLS[7]))
        index.read(run)
        assert len(read_files) == 1
        assert_as_from_records(run)

    def test_that_a_full_disk_cuts_off_cost_no_save(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        write = os.write
        monkeypatch.setattr(journal.os, "write", lambda descriptor, content: write(descriptor, content[:100]))
        run.save(told(CELLS[7]))
        monkeypatch.undo()
        run.set_aside(CELLS[0].cell_id)
        run.save(dataclasses.replace(record(CELLS[0]), attempt=2))
        assert index.read(run).height == len(several()) + 1
        assert_as_from_records(run)

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd"), MemoryError()])
    def test_that_cannot_be_written_cost_no_save(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, read_files: list[str]
    ) -> None:
        def refuse(*_: Any) -> None:
            raise error

        monkeypatch.setattr(journal.Journal, "_append", refuse)
        run = saved(tmp_path / "run", several())
        assert_as_from_records(run)
        assert len(read_files) == len(several())

    def test_whose_place_is_taken_cost_no_save(self, tmp_path: Path) -> None:
        run = Run.create(tmp_path / "run", plan(CELLS))
        (run.folder / journal.FOLDER).write_text("a person's own")
        journal.keep(run)
        for one in several():
            run.save(one)
        assert_as_from_records(run)
        assert (run.folder / journal.FOLDER).read_text() == "a person's own"

    def test_of_two_writers_stand_in_two_files(self, tmp_path: Path, read_files: list[str]) -> None:
        one, two = (saved(tmp_path / "run", []) for _ in range(2))
        for number, made in enumerate(several()):
            (one, two)[number % 2].save(made)
        index.read(one)
        assert len(list((one.folder / journal.FOLDER).iterdir())) == 2
        assert read_files == []
        assert_as_from_records(one)

    def test_of_a_writer_that_is_killed_before_its_line_are_missing(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        class Killed(BaseException):
            pass

        def killed(*_: Any) -> None:
            raise Killed

        monkeypatch.setattr(journal.Journal, "_append", killed)
        with pytest.raises(Killed):
            run.save(told(CELLS[7]))
        monkeypatch.undo()
        assert_as_from_records(run)
        assert run.record(CELLS[7].cell_id) is not None

    def test_of_other_code_are_passed_over(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        monkeypatch.setattr(journal, "code", lambda: "another")
        assert_as_from_records(run)
        assert len(read_files) == len(several())

    def test_of_another_plan_vouch_for_no_record(self, run: Run, tmp_path: Path) -> None:
        fewer = Run.create(tmp_path / "fewer", plan(CELLS[1:]))
        shutil.copy(fewer.folder / "plan.json", run.folder / "plan.json")
        assert_as_from_records(Run.open(run.folder))

    def test_of_a_copied_run_are_passed_over(self, run: Run, tmp_path: Path, read_files: list[str]) -> None:
        shutil.copytree(run.folder, tmp_path / "copy")
        assert_as_from_records(Run.open(tmp_path / "copy"))
        assert len(read_files) == len(several())

    def test_twice_count_once(self, run: Run) -> None:
        shutil.copy(lines(run), run.folder / journal.FOLDER / "again")
        assert index.read(run).height == len(several())

    def test_are_not_written_where_a_disk_counts_in_whole_seconds(self, run: Run) -> None:
        before = lines(run).read_bytes()
        path = path_of(run, 0)
        os.utime(path, (LONG_AGO, LONG_AGO))
        assert run.on_saved is not None
        run.on_saved(path, path.read_bytes())
        assert lines(run).read_bytes() == before


class TestReaders:
    @pytest.fixture(autouse=True)
    def _keeping(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "WORTH_KEEPING", 1)

    def later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that was written has been there for a while."""
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * index.SETTLED_NANOSECONDS)

    def test_take_rows_over_and_remove_the_journal(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        self.later(monkeypatch)
        found = index.read(run)
        assert list((run.folder / journal.FOLDER).iterdir()) == []
        assert index.read(run).equals(found, null_equal=True)
        assert read_files == []
        assert_as_from_records(run)

    def test_leave_a_journal_that_is_being_written_to(self, run: Run, read_files: list[str]) -> None:
        index.read(run)
        assert lines(run).exists()
        index.read(run)
        assert read_files == []

    def test_leave_a_journal_that_has_grown_meanwhile(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.later(monkeypatch)
        kept = index._keep

        def grown(*given: Any) -> bool:
            done = kept(*given)
            with lines(run).open("ab") as stream:
                stream.write(b"\n")
            return done

        monkeypatch.setattr(index, "_keep", grown)
        index.read(run)
        assert lines(run).exists()

    def test_remove_nothing_where_the_index_cannot_be_written(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        self.later(monkeypatch)

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(index.codec, "write_atomically", refuse)
        for _ in range(2):
            index.read(run)
            assert lines(run).exists()
        assert read_files == []

    def test_of_a_few_records_leave_the_journal(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "WORTH_KEEPING", 10**9)
        self.later(monkeypatch)
        index.read(run)
        assert lines(run).exists()
        assert not (run.folder / index.INDEX_FILE).exists()

    def test_remove_it_when_the_index_has_all_of_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The index was written too soon after the last line for its journal to be removed then."""
        content = lines(run).read_bytes()
        path = lines(run)
        self.later(monkeypatch)
        index.read(run)
        path.write_bytes(content)
        index.read(run)
        assert not path.exists()

    def test_find_what_a_writer_adds_after_the_removal(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[str]
    ) -> None:
        self.later(monkeypatch)
        index.read(run)
        run.save(told(CELLS[7]))
        assert index.read(run).height == len(several()) + 1
        assert read_files == []
        assert_as_from_records(run)
