"""Tables are the same with and without an index, whatever became of the records or of the index meanwhile."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import analysis
from harness.analysis import blocks, index, journal, quick_reading, reading
from harness.analysis.blocks import BlockArrays
from harness.core.errors import StoreError
from harness.core.record import Blocks, Epoch, HeatFacts, Record
from harness.runs import record_file
from harness.runs.folder import Run
from harness.runs.merging import merge
from tests.unit.records import JAX, TENSORFLOW, cell, failed, plan, record

SIZES = (16, 32, 64, 128)
CELLS = tuple(cell(size, target) for size in SIZES for target in (JAX, TENSORFLOW))
LONG_AGO = 1_700_000_000
BLOCKS = 70


def told(of: Any, **changes: Any) -> Record:
    """A record with every column of blocks, and what machines, heats and devices tell."""
    kinds = ["compile", "warmup", *["train"] * (BLOCKS - 2)]
    seconds = [1.5, *(0.01 + 0.001 * math.sin(of.training.batch_size * number) for number in range(BLOCKS - 1))]
    blocks = Blocks(
        epoch=[number * 2 // BLOCKS for number in range(BLOCKS)],
        kind=kinds,
        steps=[1, *[3] * (BLOCKS - 1)],
        seconds=seconds,
        cpu_seconds=seconds,
        mean_loss=[1 / (1 + number) for number in range(BLOCKS)],
        started=[float(number) for number in range(BLOCKS)],
        settle=[2] * BLOCKS,
        settle_seconds=seconds,
        round=[*[-1] * 2, *range(BLOCKS - 2)],
        idle_cpu_seconds=seconds,
        preempted=[number % 3 for number in range(BLOCKS)],
        stolen_seconds=[0.001 * (number % 2) for number in range(BLOCKS)],
    )
    made = dataclasses.replace(
        record(of),
        blocks=blocks,
        machine={"id": "abc", "gpu": {"name": "G"}, "load_1min": 0.5, "slurm": {"node": "n1", "exclusive": True}},
        heat=HeatFacts(interleave="block", cells=(of.cell_id, "other"), other_processors=0.25),
        power={"gpu": {"energy_joules_per_image": 0.125, "process_memory_bytes": 2**33}},
        limit={"product_flops_per_second": 1e12, "memory_bytes_per_second": 1e11},
        worker={"device": {"peak_device_memory_bytes": 2**32, "beyond_dedicated_memory": False, "programs": ""}},
    )
    return dataclasses.replace(made, **changes)


def several() -> list[Record]:
    one, two, three, four, five, six, seven, _ = CELLS
    untold = dataclasses.replace(
        told(four).blocks, preempted=[None] * BLOCKS, stolen_seconds=[None, *[0.0] * (BLOCKS - 1)]
    )
    broken = dataclasses.replace(told(five).blocks, mean_loss=[math.nan, *[1.0] * (BLOCKS - 1)])
    return [
        told(one),
        record(two),
        told(three, status="parity_failed", reason='not "equal"\n'),
        told(four, blocks=untold, machine={"id": "def"}),
        told(five, blocks=broken, epochs=(Epoch(0, math.inf, math.nan, 0.1, 1.0), Epoch(1, 1.0, 1.0, 0.1, 1.0))),
        failed(six, "skipped", "too large"),
        told(seven, epochs=(Epoch(0, 1e39, 1.0, 0.5, 1.0),)),
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(index, "WORTH_KEEPING", 1)
    made = Run.create(tmp_path / "run", plan(CELLS))
    for one in several():
        made.save(one)
    age(made)
    return made


def age(run: Run, at: int = LONG_AGO) -> None:
    for path in run.record_paths():
        os.utime(path, (at, at))


def tables(found: analysis.Collected) -> dict[str, Any]:
    made = analysis.analyse(found)
    return {
        **{name: getattr(made, name) for name in reading.TABLES},
        "disturbances": found.disturbances,
        "machines": found.machines,
        "blame": made.blame,
        "advice": made.advice,
    }


def assert_as_from_records(run: Run) -> None:
    """Tables by the index are those of the records, decoded as a whole one after the other; errors too."""
    wrong, right = [], []
    found = tables(reading.collect(run, wrong))
    for name, expected in tables(analysis.collect(run.records(right))).items():
        if hasattr(expected, "equals"):
            assert found[name].schema == expected.schema
            assert found[name].equals(expected, null_equal=True), name
        else:
            assert repr(found[name]) == repr(expected), name
    assert list(map(str, wrong)) == list(map(str, right))


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was read of records' files, one after the other."""
    read: list[bytes] = []
    original = quick_reading.QuickReader.read

    def noted(self: Any, content: bytes) -> Any:
        read.append(content)
        return original(self, content)

    monkeypatch.setattr(quick_reading.QuickReader, "read", noted)
    return read


def path_of(run: Run, place: int) -> Path:
    return run.records_folder / f"{CELLS[place].cell_id}.json"


def add(run: Run) -> None:
    run.save(told(CELLS[7]))


def replace(run: Run) -> None:
    run.set_aside(CELLS[0].cell_id)
    run.save(dataclasses.replace(record(CELLS[0]), attempt=2))


def remove(run: Run) -> None:
    path_of(run, 0).unlink()


def damage(run: Run) -> None:
    path_of(run, 0).write_bytes(path_of(run, 0).read_bytes()[:-20])


def change_in_place(run: Run) -> None:
    """Of the same size, in the same file."""
    path = path_of(run, 0)
    content = path.read_bytes().replace(b'"status": "ok"', b'"status": "no"').replace(b"[1.5, ", b"[2.5, ")
    with path.open("r+b") as stream:
        stream.write(content)


def change_and_set_the_time_back(run: Run) -> None:
    path = path_of(run, 0)
    path.write_bytes(path.read_bytes().replace(b"[1.5, ", b"[2.5, "))
    os.utime(path, (LONG_AGO, LONG_AGO))


def give_to_another_cell(run: Run) -> None:
    os.replace(path_of(run, 0), path_of(run, 1))


CHANGES = (add, replace, remove, damage, change_in_place, change_and_set_the_time_back, give_to_another_cell)


class TestRecords:
    def test_of_the_first_and_the_second_time_give_the_same_tables(self, run: Run) -> None:
        assert_as_from_records(run)
        assert (run.folder / index.INDEX_FILE).exists()
        assert_as_from_records(run)

    def test_that_have_not_changed_are_not_read_again(self, run: Run, read_files: list[bytes]) -> None:
        reading.collect(run)
        assert len(read_files) == len(several())
        reading.collect(run)
        assert len(read_files) == len(several())

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
    def test_that_changed_show_in_the_tables(self, run: Run, change: Callable[[Run], None]) -> None:
        reading.collect(run)
        change(run)
        assert_as_from_records(run)
        age(run, LONG_AGO + 1)
        assert_as_from_records(run)
        assert_as_from_records(run)

    def test_that_were_written_just_now_are_read_again(self, run: Run, read_files: list[bytes]) -> None:
        """A change within the steps in which a file system counts would not show."""
        add(run)
        reading.collect(run)
        reading.collect(run)
        assert len(read_files) == len(several()) + 2

    def test_that_are_damaged_raise_where_nobody_asks_for_a_list(self, run: Run) -> None:
        reading.collect(run)
        damage(run)
        with pytest.raises(StoreError, match="damaged"):
            reading.collect(run)

    def test_of_columns_of_different_length_are_damaged(self, run: Run) -> None:
        blocks = dataclasses.replace(record(CELLS[7]).blocks, steps=[1])
        run.save(dataclasses.replace(record(CELLS[7]), blocks=blocks))
        unreadable: list[StoreError] = []
        assert reading.collect(run, unreadable).cells.height == len(several())
        assert "kind, steps and seconds are of different length" in str(unreadable[0])

    def test_that_helpers_read_give_the_same_tables(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index, "WORTH_HELP", 1)
        monkeypatch.setattr(index, "READ_TOGETHER", 1)
        monkeypatch.setattr(index, "usable_processors", lambda: (0, 1))
        damage(run)
        wrong: list[StoreError] = []
        shared = index.read(run, wrong, helped=True)
        (run.folder / index.INDEX_FILE).unlink()
        alone = index.read(run, [], helped=False)
        assert shared.equals(alone, null_equal=True)
        assert len(wrong) == 1


class TestIndex:
    @pytest.fixture(autouse=True)
    def _made(self, run: Run) -> None:
        reading.collect(run)

    @pytest.mark.parametrize("place", [0, 20, 200, 2000, -1])
    def test_that_is_damaged_is_made_again(self, run: Run, place: int, read_files: list[bytes]) -> None:
        path = run.folder / index.INDEX_FILE
        content = bytearray(path.read_bytes())
        content[place] ^= 0xFF
        path.write_bytes(content)
        assert_as_from_records(run)
        assert len(read_files) == len(several())
        reading.collect(run)
        assert len(read_files) == len(several())

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]\n", b"\xff\n\xff", b"null\n" * 3, b"[" * 100_000], ids=len)
    def test_that_is_something_else_is_made_again(self, run: Run, content: bytes) -> None:
        (run.folder / index.INDEX_FILE).write_bytes(content)
        assert_as_from_records(run)

    def test_that_was_cut_short_is_made_again(self, run: Run) -> None:
        path = run.folder / index.INDEX_FILE
        path.write_bytes(path.read_bytes()[:-100])
        assert_as_from_records(run)

    def test_of_other_code_is_made_again(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, read_files: list[bytes]
    ) -> None:
        monkeypatch.setattr(journal, "code", lambda: "another")
        assert_as_from_records(run)
        assert len(read_files) == len(several())

    def test_of_another_run_counts_for_nothing(self, run: Run, tmp_path: Path, read_files: list[bytes]) -> None:
        other = Run.create(tmp_path / "other", plan(CELLS))
        for one in several():
            other.save(dataclasses.replace(one, phases=dataclasses.replace(one.phases, build=9.0)))
        age(other)
        shutil.copy(run.folder / index.INDEX_FILE, other.folder / index.INDEX_FILE)
        assert_as_from_records(other)
        assert len(read_files) == len(several())

    def test_of_another_plan_vouches_for_no_record(self, run: Run, tmp_path: Path) -> None:
        """The same files, of which one does not belong to the plan any more."""
        fewer = Run.create(tmp_path / "fewer", plan(CELLS[1:]))
        shutil.copy(fewer.folder / "plan.json", run.folder / "plan.json")
        assert_as_from_records(Run.open(run.folder))

    def test_where_nothing_can_be_written_is_done_without(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        (run.folder / index.INDEX_FILE).unlink()

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(index.codec, "write_atomically", refuse)
        assert_as_from_records(run)
        assert not (run.folder / index.INDEX_FILE).exists()

    def test_stays_behind_when_runs_are_united(self, run: Run, tmp_path: Path) -> None:
        united = merge([run], tmp_path / "united").run
        assert not (united.folder / index.INDEX_FILE).exists()
        assert_as_from_records(united)

    def test_of_few_records_is_not_kept(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        (run.folder / index.INDEX_FILE).unlink()
        reading.collect(run)
        assert not (run.folder / index.INDEX_FILE).exists()


class TestReadingQuickly:
    @pytest.mark.parametrize("place", [0, 1, 2, 3, 5, 6])
    def test_gives_what_decoding_everything_gives(self, place: int) -> None:
        """Of usual records, those of a system that tells less among them."""
        made = several()[place]
        found, arrays = quick_reading.QuickReader().read(record_file.encode(made))
        assert dataclasses.replace(found, blocks=made.blocks) == made
        assert blocks.figures([arrays]) == [blocks.of_record(made)]

    def test_of_many_at_once_gives_what_it_gives_of_each(self, run: Run) -> None:
        """Alike ones, some with a block that took no time, or that tells more, and others between them."""
        made = [
            told(CELLS[0]),
            told(CELLS[1], status="parity_failed"),
            told(CELLS[2], blocks=dataclasses.replace(told(CELLS[2]).blocks, seconds=[1.0, 0.0, 0.0] + [0.5] * 67)),
            *several()[1:],
            *(told(one) for one in CELLS),
        ]
        reader = quick_reading.QuickReader()
        arrays = [BlockArrays.of(one) for one in made]
        assert blocks.figures(arrays) == [blocks.of_record(one) for one in made]
        assert (
            blocks.figures([reader.read(record_file.encode(one))[1] for one in made[:3]]) == blocks.figures(arrays)[:3]
        )
        assert blocks.figures([]) == []

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b'"seconds": [1.5, ', b'"seconds": [[1.5], '),
            (b'"seconds": [1.5, ', b'"seconds": ["NaN", '),
            (b'"seconds": [1.5, ', b'"seconds": [NaN, '),
            (b'"seconds": [1.5, ', b'"seconds": [true, '),
            (b'"cpu_seconds": [1.5, ', b'"cpu_seconds": [null, '),
            (b'"steps": [1, ', b'"steps": [1.0, '),
            (b'"epoch": [0, ', b'"epoch": ["0", '),
            (b'"kind": ["compile", ', b'"kind": [7, '),
            (b'"kind": ["compile", ', b'"kind": ["a]", '),
            (b'"blocks": {', b'"blocks": {"steps": [1], '),
            (b'"blocks": {', b'"blocks": {"new": [1], '),
            (b'"batch_size": 16', b'"batch_size": 16.0'),
            (b'"repeat": 0', b'"repeat": "0"'),
            (b'"attempt": 1', b'"attempt": true'),
            (b'"proof": ', b'"new": 1, "proof": '),
            (b'"status": "ok"', b'"status": "ok", "status": "ok"'),
            (b'"log": ""', b'"log": "\xc3\xa4"'),
            (b'"log": ""', b'"log": "\\ud800"'),
            (b'"schema_version": 1', b'"schema_version": 2'),
            (b"{\n", b"\xef\xbb\xbf{\n"),
            (b"}\n", b"} 1\n"),
        ],
    )
    def test_leaves_whatever_is_unusual_to_decoding_everything(self, before: bytes, after: bytes) -> None:
        content = record_file.encode(told(CELLS[0]))
        assert content.count(before) >= 1
        with pytest.raises(quick_reading.NotUsual):
            quick_reading.QuickReader().read(after.join(content.rsplit(before, 1)))

    @pytest.mark.parametrize("loss", [1e39, math.nan, -math.inf])
    def test_tells_a_loss_that_became_infinite(self, loss: float) -> None:
        losses = dataclasses.replace(told(CELLS[0]).blocks, mean_loss=[*[1.0] * (BLOCKS - 1), loss])
        found, arrays = quick_reading.QuickReader().read(record_file.encode(told(CELLS[0], blocks=losses)))
        assert blocks.figures([arrays])[0].diverged
        assert json.dumps(found.machine)
