from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import cli
from harness.core import codec
from harness.core.errors import StoreError, UsageError
from harness.core.record import Record
from harness.plan import inputs
from harness.proof import parity
from harness.runs import files, locks, noise_scales, part_times, record_file
from harness.runs.folder import Run
from harness.runs.merging import ConflictError, merge
from harness.runs.part_times import PartTime, PartTimes
from tests.unit.records import JAX, MODEL, TENSORFLOW, cell, failed, plan, record

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
REPOSITORY = Path(__file__).parents[2]
SIZES = (16, 32, 64)
CELLS = tuple(cell(size, target) for size in SIZES for target in (JAX, TENSORFLOW))
PLAN = plan(CELLS)
ONE = CELLS[0]

Maker = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Makes a run folder of the whole plan with some records."""

    def made(name: str, *records: Record, of: object = PLAN) -> Run:
        run = Run.create(tmp_path / name, of)  # type: ignore[arg-type]
        for one in records:
            run.set_aside(one.cell_id)
            run.save(one)
        return run

    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "whole"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but its locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (locks.LOCK_FILE,) and path.suffix != ".lock"
    }


def records_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "records").iterdir())}


def with_crlf(folder: Path) -> None:
    """As a copy that went through Windows."""
    for path in folder.rglob("*.json"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def with_log(run: Run, of: Record, text: str, log: str = "logs/jax-cpu.log") -> None:
    path = run.folder / log
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    run.save(dataclasses.replace(of, log=log))


def log_text(run: Run, cell_id: str) -> str:
    found = run.record(cell_id)
    assert found is not None
    return (run.folder / found.log).read_text()


def proof(identity: str = "0123456789abcdef", **changes: object) -> parity.Proof:
    made = parity.Proof(identity, "jax-cpu:jit", "tiny", "sgd", "float32", {"machine": "a"}, created="2026-11-23")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class TestUniting:
    def test_three_parts_one_twice_give_each_record_once(self, make: Maker, out: Path, tmp_path: Path) -> None:
        parts = [make(f"part-{number}", *map(record, CELLS[number::3])) for number in range(3)]
        shutil.copytree(parts[1].folder, tmp_path / "again")
        before = [content(part.folder) for part in parts]
        merged = merge([*parts, parts[0], Run.open(tmp_path / "again")], out)
        assert merged.run.folder == out
        assert list(merged.run.records()) == sorted(map(record, CELLS), key=lambda one: one.cell_id)
        assert merged.run.plan == PLAN
        assert merged.missing == []
        assert [(one.records, one.added) for one in merged.contributions] == [(2, 2), (2, 2), (2, 2), (2, 0)]
        assert [content(part.folder) for part in parts] == before

    def test_what_no_part_has_is_missing(self, make: Maker, out: Path) -> None:
        merged = merge([make("a", record(CELLS[1])), make("b", record(CELLS[4]))], out)
        assert merged.missing == [CELLS[0], CELLS[2], CELLS[3], CELLS[5]]
        assert Run.open(out).pending() == merged.missing

    def test_again_changes_nothing_and_adds_what_is_new(self, make: Maker, out: Path) -> None:
        a, b = make("a", record(CELLS[0]), failed(CELLS[1], "interrupted", "stopped")), make("b", record(CELLS[1]))
        merge([a, b], out)
        before = content(out)
        assert [one.added for one in merge([b, a], out).contributions] == [0, 0]
        assert content(out) == before
        b.save(record(CELLS[2]))
        merged = merge([a, b], out)
        assert merged.before == 2
        assert [one.added for one in merged.contributions] == [0, 1]
        assert before.items() <= content(out).items()

    def test_into_one_of_them_adds_the_others_to_it(self, make: Maker) -> None:
        a, b = make("a", record(CELLS[0])), make("b", record(CELLS[1]))
        merge([a, b], a.folder)
        assert a.statuses().keys() == {CELLS[0].cell_id, CELLS[1].cell_id}
        assert b.statuses().keys() == {CELLS[1].cell_id}

    def test_of_one_folder_is_a_copy(self, make: Maker, out: Path) -> None:
        a = make("a", *map(record, CELLS))
        merge([a], out)
        assert records_of(out) == records_of(a.folder)

    def test_of_a_folder_with_itself_is_a_wrong_call(self, make: Maker) -> None:
        a = make("a", record(ONE))
        with pytest.raises(UsageError, match="nothing to unite it with"):
            merge([a, a], a.folder)

    def test_a_stored_run_of_every_status_comes_through_whole(self, out: Path) -> None:
        merge([Run.open(GOLDEN)], out)
        expected = {name: text.replace(b'"logs/jax-cpu.log"', b'""') for name, text in records_of(GOLDEN).items()}
        assert records_of(out) == expected  # the stored run has no logs

    def test_machines_are_told(self, make: Maker, out: Path) -> None:
        facts = {"id": "abc", "processor": "a quick one"}
        merged = merge([make("a", record(ONE, machine=facts)), make("b", record(CELLS[1]))], out)
        assert [one.machines for one in merged.contributions] == [{"abc": "a quick one"}, {}]


class TestPlans:
    def test_of_other_cells_are_refused_with_both_folders_and_the_difference(self, make: Maker, out: Path) -> None:
        a, b = make("a", record(ONE)), make("b", of=plan([cell(size) for size in (16, 128)]))
        with pytest.raises(UsageError) as caught:
            merge([a, b], out)
        said = str(caught.value)
        assert said.startswith(f"{a.folder} and {b.folder} are runs of different plans: 5 cells only in the first, 1")
        assert "batch size 16, 32, 64 in the first, 16, 128 in the second" in said
        assert "asked" not in said
        assert not out.exists()

    def test_of_other_turns_are_refused(self, make: Maker, out: Path) -> None:
        with pytest.raises(UsageError, match="interleave cell in the first, block in the second"):
            merge([make("a"), make("b", of=plan(CELLS, interleave="block"))], out)

    def test_that_of_the_result_counts_too(self, make: Maker, out: Path) -> None:
        make("whole", of=plan([cell(128)]))
        with pytest.raises(UsageError, match=re.escape(f"{out} and {out.with_name('a')} are runs of different plans")):
            merge([make("a", record(ONE))], out)

    def test_order_name_and_command_may_differ(self, make: Maker, out: Path) -> None:
        other = plan(CELLS[::-1], name="other", command=r"harness sweep C:\Users\me\small.toml")
        merged = merge([make("a", of=other), make("b", *map(record, CELLS))], out)
        assert merged.missing == []
        assert merged.run.plan == other


class TestConflicts:
    @pytest.mark.parametrize("status", ["ok", "crashed", "out_of_memory"])
    def test_two_records_that_were_run_are_refused_with_nothing_written(
        self, make: Maker, out: Path, status: str
    ) -> None:
        a = make("a", record(ONE), record(CELLS[1]))
        b = make("b", record(CELLS[1]), record(ONE, status, finished="2026-11-24T10:00:00+00:00"))
        with pytest.raises(ConflictError, match="1 cell has different records, and nothing was written") as caught:
            merge([a, b], out)
        (conflict,) = caught.value.conflicts
        assert conflict.cell == ONE
        assert [one.path for one in conflict.outcomes] == [run.records_folder / f"{ONE.cell_id}.json" for run in (a, b)]
        assert not out.exists()

    def test_with_the_result_are_refused_too(self, make: Maker, out: Path) -> None:
        whole = make("whole", record(ONE))
        before = content(out)
        with pytest.raises(ConflictError):
            merge([make("a", record(CELLS[1]), record(ONE, peak_memory_bytes=1))], out)
        assert content(out) == before
        assert whole.statuses().keys() == {ONE.cell_id}

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_what_was_interrupted_or_skipped_gives_way_and_is_kept(
        self, make: Maker, out: Path, order: tuple[int, ...]
    ) -> None:
        ran = record(ONE)
        given = [failed(ONE, "interrupted", "stopped"), failed(ONE, "skipped", "no room"), ran]
        runs = [make(str(number), given[number]) for number in order]
        merged = merge(runs, out)
        assert merged.run.record(ONE.cell_id) == dataclasses.replace(ran, attempt=3)
        assert attempts(merged.run) == [given[number].status for number in order if number != 2]
        assert [one.attempts for one in merged.contributions] == [int(number != 2) for number in order]

    def test_what_was_skipped_goes_before_what_was_interrupted(self, make: Maker, out: Path) -> None:
        a, b = make("a", failed(ONE, "interrupted", "stopped")), make("b", failed(ONE, "skipped", "no room"))
        assert merge([a, b], out).statuses == {ONE.cell_id: "skipped"}

    @pytest.mark.parametrize("status", ["interrupted", "skipped"])
    def test_two_that_were_not_run_are_none(self, make: Maker, out: Path, status: str) -> None:
        a, b = make("a", failed(ONE, status, "here")), make("b", failed(ONE, status, "there"))
        merged = merge([a, b], out)
        assert [one.reason for one in merged.run.records()] == ["here"]
        assert attempts(merged.run) == [status]

    @pytest.mark.parametrize("turned", [False, True])
    def test_an_attempt_gives_way_to_what_was_tried_after_it(self, make: Maker, out: Path, turned: bool) -> None:
        crashed = failed(ONE, "crashed", "signal 11")
        runs = [make("a", crashed), make("b", crashed, record(ONE, attempt=2))]
        merged = merge(runs[::-1] if turned else runs, out)
        assert records_of(out) == records_of(runs[1].folder)
        assert merged.missing == [*CELLS[1:]]

    def test_a_cell_tried_again_after_a_merge_replaces_what_was_merged(self, make: Maker, out: Path) -> None:
        a = make("a", failed(ONE, "crashed", "signal 11"))
        merge([a], out)
        a.save(record(ONE, attempt=a.set_aside(ONE.cell_id)))
        merge([a], out)
        assert records_of(out) == records_of(a.folder)


def attempts(run: Run) -> list[str]:
    """Statuses of the first cell's earlier attempts, each file being numbered as its record is."""
    found = []
    for number in itertools.count(1):
        path = run.records_folder / f"{ONE.cell_id}.attempt-{number}.json"
        if not path.exists():
            return found
        kept = files.read(path, Record)
        assert kept.attempt == number
        found.append(kept.status)
    raise AssertionError


class TestAttempts:
    def test_of_all_folders_are_kept_and_numbered(self, make: Maker, out: Path) -> None:
        a = make("a", failed(ONE, "crashed", "a1"), failed(ONE, "timeout", "a2", attempt=2), record(ONE, attempt=3))
        b = make("b", failed(ONE, "out_of_memory", "b1"), failed(ONE, "interrupted", "b2", attempt=2))
        merged = merge([b, a], out)
        assert attempts(merged.run) == ["out_of_memory", "interrupted", "crashed", "timeout"]
        assert merged.run.record(ONE.cell_id) == record(ONE, attempt=5)
        assert merged.run.set_aside(ONE.cell_id) == 6

    @pytest.mark.parametrize("status", ["interrupted", "ok"])
    def test_that_come_later_go_after_those_that_are_there(self, make: Maker, out: Path, status: str) -> None:
        first = make("a", failed(ONE, "crashed", "a1"), failed(ONE, status, "", attempt=2))
        merge([first], out)
        there = out / "records" / f"{ONE.cell_id}.attempt-1.json"
        before = there.read_bytes()
        later = make("b", failed(ONE, "timeout", "b1"), failed(ONE, "interrupted", "b2", attempt=2))
        merged = merge([later], out)
        assert attempts(merged.run) == ["crashed", "timeout", "interrupted"]
        assert merged.statuses == {ONE.cell_id: status}
        assert there.read_bytes() == before
        assert [one.attempt for one in merged.run.records()] == [4]
        again = content(out)
        merge([later, first], out)
        assert content(out) == again

    def test_of_a_cell_that_was_killed_in_its_second_are_kept(self, make: Maker, out: Path) -> None:
        a = make("a", failed(ONE, "crashed", "signal 11"))
        a.set_aside(ONE.cell_id)
        merged = merge([a], out)
        assert ONE in merged.missing
        assert attempts(merged.run) == ["crashed"]


class TestCompanions:
    def test_logs_of_one_name_are_all_kept(self, make: Maker, out: Path) -> None:
        runs = [make(name) for name in "abc"]
        for run, of, text in zip(runs, CELLS, ("said here", "said there", "said here"), strict=False):
            with_log(run, record(of), text)
        merged = merge(runs, out)
        assert [log_text(merged.run, of.cell_id) for of in CELLS[:3]] == ["said here", "said there", "said here"]
        assert len(list((out / "logs").iterdir())) == 2
        before = content(out)
        merge(runs[::-1], out)
        assert content(out) == before
        again = merge([merged.run], out.with_name("again"))
        assert content(again.run.folder) == before

    def test_a_log_that_has_grown_does_no_harm(self, make: Maker, out: Path) -> None:
        a = make("a")
        with_log(a, record(CELLS[0]), "one")
        merge([a], out)
        with_log(a, record(CELLS[1]), "one two")
        merged = merge([a], out)
        assert [log_text(merged.run, of.cell_id) for of in CELLS[:2]] == ["one", "one two"]

    def test_a_record_whose_log_is_gone_or_elsewhere_points_to_no_other(self, make: Maker, out: Path) -> None:
        (out.parent / "secret").write_text("not of the run")
        a = make("a", record(CELLS[0], log="logs/jax-cpu.log"), record(CELLS[1], log="../secret"))
        b = make("b")
        with_log(b, record(CELLS[2]), "another's")
        merged = merge([a, b], out)
        assert {one.cell_id: one.log for one in merged.run.records()} == {
            CELLS[0].cell_id: "",
            CELLS[1].cell_id: "",
            CELLS[2].cell_id: "logs/jax-cpu.log",
        }

    def test_equal_records_with_their_logs_elsewhere_are_equal(self, make: Maker, out: Path) -> None:
        a, b = make("a"), make("b")
        with_log(a, record(ONE), "text")
        with_log(b, record(ONE), "text", "logs/node-7/jax-cpu.log")
        merged = merge([a, b], out)
        assert [one.log for one in merged.run.records()] == ["logs/jax-cpu.log"]

    def test_proofs_and_noise_scales_come_along_once_each(self, make: Maker, out: Path) -> None:
        a, b = make("a", record(CELLS[0])), make("b", record(CELLS[1]))
        scale = noise_scales.NoiseScale("f" * 16, {}, "w", "tiny", "digits", 320, "sgd", 0.1, 0, "jax", 0, 10, 32, 8, 4)
        for run in (a, b):
            codec.write_json(run.proofs_folder / f"{proof().id}.json", proof())
            noise_scales.keep(run.folder, scale)
        codec.write_json(b.proofs_folder / "fedcba9876543210.json", proof("fedcba9876543210"))
        with_crlf(b.folder)
        merge([a, b], out)
        assert sorted(path.name for path in (out / "proofs").iterdir()) == [
            "0123456789abcdef.json",
            "fedcba9876543210.json",
        ]
        assert noise_scales.stored(out) == [scale]
        assert (out / "proofs" / "fedcba9876543210.json").read_bytes().count(b"\r") == 0

    def test_another_proof_of_the_same_name_is_kept_beside_it(self, make: Maker, out: Path) -> None:
        a, b = make("a", record(CELLS[0])), make("b", record(CELLS[1]))
        proofs = [proof(), proof(problem="the probe crashed")]
        for run, one in zip((a, b), proofs, strict=True):
            codec.write_json(run.proofs_folder / f"{one.id}.json", one)
        merge([a, b], out)
        merge([b, a], out)
        found = [files.read(path, parity.Proof) for path in sorted((out / "proofs").iterdir())]
        assert sorted(one.problem for one in found) == ["", "the probe crashed"]
        assert (out / "proofs" / f"{proof().id}.json").exists()

    def test_parts_go_with_the_record_that_counts(self, make: Maker, out: Path) -> None:
        a = make("a", record(ONE, status="interrupted"), record(CELLS[1]))
        b, c = make("b", record(ONE)), make("c", record(ONE, status="skipped"))
        times = {
            name: PartTimes(one.cell_id, (PartTime("step", "", 1, (seconds,), (None,)),))
            for name, one, seconds in (("a", ONE, 1.0), ("a1", CELLS[1], 2.0), ("b", ONE, 3.0), ("c", ONE, 4.0))
        }
        for run, name in ((a, "a"), (a, "a1"), (b, "b"), (c, "c")):
            part_times.keep(run.folder, times[name])
        merge([a], out)
        assert part_times.stored(out, ONE.cell_id) == times["a"]
        merge([a, b, c], out)
        assert part_times.stored(out, ONE.cell_id) == times["b"]
        assert part_times.stored(out, CELLS[1].cell_id) == times["a1"]
        before = content(out)
        merge([c, b, a], out)
        assert content(out) == before
        part_times.path_of(b.folder, ONE.cell_id).rename(part_times.path_of(b.folder, CELLS[2].cell_id))
        with pytest.raises(StoreError, match=r"holds the parts of cell .*, which do not belong there"):
            merge([b], out)
        part_times.path_of(out, ONE.cell_id).unlink()
        part_times.path_of(b.folder, CELLS[2].cell_id).rename(part_times.path_of(b.folder, ONE.cell_id))
        merge([b], out)
        assert content(out) == before

    def test_inputs_that_are_whole_come_along(self, make: Maker, out: Path) -> None:
        drawn = inputs.identify(MODEL, 320, 2, 0)
        planned = dataclasses.replace(ONE, inputs=drawn)
        a, b = (make(name, of=plan([planned])) for name in "ab")
        parameters, order = inputs.write(b.inputs_folder, planned)
        shutil.copy(parameters, a.inputs_folder)
        shutil.copy(order, a.inputs_folder / order.name)
        (a.inputs_folder / order.name).write_bytes(b"cut off")
        np.savez(b.inputs_folder / "parameters-of-nobody.npz", a=np.zeros(1))
        merge([a, b], out)
        assert sorted(path.name for path in (out / "inputs").iterdir()) == sorted((parameters.name, order.name))
        assert inputs.write(out / "inputs", planned)

    def test_what_belongs_to_a_machine_stays_there(self, make: Maker, out: Path) -> None:
        a = make("a", record(ONE))
        for name in ("setting.json", "slurm/0001.json", "report.html", "scratch/programs/x"):
            (a.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (a.folder / name).write_text("{}")
        merge([a], out)
        assert content(out).keys() == {"plan.json", f"records/{ONE.cell_id}.json"}


class TestWindows:
    def test_line_ends_count_for_nothing(self, make: Maker, out: Path, tmp_path: Path) -> None:
        a = make("a", failed(ONE, "crashed", "signal 11"), record(ONE, attempt=2), record(CELLS[1]))
        shutil.copytree(a.folder, tmp_path / "windows")
        with_crlf(tmp_path / "windows")
        windows = Run.open(tmp_path / "windows")
        assert b"\r\n" in (windows.folder / "plan.json").read_bytes()
        assert [one.added for one in merge([a, windows], out).contributions] == [2, 0]
        merge([windows], tmp_path / "from-windows")
        assert records_of(tmp_path / "from-windows") == records_of(out) == records_of(a.folder)
        assert b"\r" not in (tmp_path / "from-windows" / "plan.json").read_bytes()

    def test_backslashes_in_the_place_of_a_log_are_understood(self, make: Maker, out: Path) -> None:
        a = make("a", record(CELLS[0], log="logs\\node-7\\jax-cpu.log"))
        b = make("b", record(CELLS[1], log="C:\\Users\\me\\run\\logs\\jax-cpu.log"))
        (a.logs_folder / "node-7").mkdir()
        (a.logs_folder / "node-7" / "jax-cpu.log").write_text("said there")
        merged = merge([a, b], out)
        assert log_text(merged.run, CELLS[0].cell_id) == "said there"
        logs = [one.log for one in map(merged.run.record, (CELLS[0].cell_id, CELLS[1].cell_id)) if one]
        assert logs == ["logs/node-7/jax-cpu.log", ""]


DAMAGED = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "another's": lambda path: path.write_bytes(record_file.encode(record(CELLS[2]))),
    "of a later version": lambda path: path.write_text(path.read_text().replace('_version": 1', '_version": 2')),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGED)
    @pytest.mark.parametrize("name", [f"{ONE.cell_id}.json", f"{ONE.cell_id}.attempt-1.json"])
    def test_of_a_record_names_the_file_and_nothing_is_written(
        self, make: Maker, out: Path, damage: str, name: str
    ) -> None:
        a = make("a", failed(ONE, "crashed", "signal 11"), record(ONE, attempt=2))
        DAMAGED[damage](a.records_folder / name)
        with pytest.raises(StoreError, match=name.replace(".", r"\.")) as caught:
            merge([make("b", record(CELLS[1])), a], out)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    def test_of_several_is_counted(self, make: Maker, out: Path) -> None:
        a = make("a", *map(record, CELLS[:3]))
        (a.proofs_folder / "a.json").write_text("{}")
        for path in a.records_folder.iterdir():
            path.write_bytes(b"")
        with pytest.raises(StoreError, match=r"\(and 3 more such files\)"):
            merge([a], out)

    def test_a_folder_of_something_else_is_left_alone(self, make: Maker, out: Path) -> None:
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
        with pytest.raises(StoreError, match="not a run folder and not empty"):
            merge([make("a", record(ONE))], out)
        assert content(out) == {"thesis.tex": b"precious"}

    def test_a_record_that_changes_meanwhile_is_refused(
        self, make: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a = make("a", record(ONE))
        create = Run.create

        def created(folder: Path, frozen: object) -> Run:
            (a.records_folder / f"{ONE.cell_id}.json").write_bytes(record_file.encode(record(ONE, peak_memory_bytes=1)))
            return create(folder, frozen)  # type: ignore[arg-type]

        monkeypatch.setattr(Run, "create", created)
        with pytest.raises(StoreError, match="has changed meanwhile; repeat this command"):
            merge([a], out)


class TestInUse:
    def test_a_result_in_which_a_harness_runs_is_refused(self, make: Maker, out: Path) -> None:
        whole = make("whole", record(ONE))
        before = content(out)
        with whole.locked(), pytest.raises(StoreError, match=r"another harness .* is running in"):
            merge([make("a", record(CELLS[1]))], out)
        assert records_of(out) == {name.removeprefix("records/"): before[name] for name in before if "records" in name}

    def test_a_result_in_which_a_heat_runs_is_refused_with_nothing_written(self, make: Maker, out: Path) -> None:
        whole = make("whole")
        with whole.claimed(2), pytest.raises(StoreError, match="heat 2 is running there; repeat"):
            merge([make("a", *map(record, CELLS))], out)
        assert whole.statuses() == {}
        assert merge([Run.open(out.with_name("a"))], out).missing == []


MERGE = """
import sys
from pathlib import Path
from harness.runs.merging import merge
from harness.runs.folder import Run
print("ready", flush=True)
merge([Run.open(Path(folder)) for folder in sys.argv[2:]], Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_killed_at_any_moment_and_repeated_it_ends_the_same(make: Maker, tmp_path: Path) -> None:
    cells = [cell(repeat=repeat) for repeat in range(150)]
    frozen = plan(cells)
    a, b = make("a", of=frozen), make("b", of=frozen)
    for number, one in enumerate(cells):
        with_log(a, failed(one, "interrupted", "stopped"), "here")
        with_log(b, record(one, machine={"number": number}), f"there {number}", f"logs/{number % 7}.log")
    merge([a, b], tmp_path / "whole")
    whole, killed = content(tmp_path / "whole"), tmp_path / "killed"
    assert len([name for name in whole if name.startswith("records/")]) == 300
    kills = 0
    for round_number in range(6):
        command = [sys.executable, "-c", MERGE, str(killed), str(a.folder), str(b.folder)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as merging:
            assert merging.stdout is not None
            assert merging.stdout.readline() == "ready\n"
            time.sleep(0.1 + 0.1 * round_number)
            kills += merging.poll() is None
            merging.send_signal(signal.SIGKILL)
    assert kills
    merge([a, b], killed)
    found = {name: text for name, text in content(killed).items() if not name.endswith(".tmp")}
    assert {name: text for name, text in found.items() if name != locks.HOLDER_FILE} == whole


class TestCommand:
    @pytest.fixture
    def call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., tuple[int, str, str]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("COLUMNS", "200")

        def run(*arguments: str) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["harness", "merge", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            said, err = capsys.readouterr()
            return int(str(ended.value.code)), said, err

        return run

    def test_tells_what_came_from_where_and_what_is_missing(
        self, call: Callable[..., tuple[int, str, str]], make: Maker, out: Path
    ) -> None:
        make("a", *map(record, CELLS[:3])), make("b", record(CELLS[4]))
        status, said, err = call("a", "b", "--out", "whole")
        assert (status, err) == (0, "")
        lines = [line.split() for line in said.splitlines()]
        assert ["a", "3", "3", "0"] in lines
        assert "4 of 6 cells recorded (4 ok)" in said
        assert "Missing: 2 cells" in said
        assert ["tensorflow-cpu:graph", "32,", "64"] in lines
        assert "Show it: harness report whole" in said
        assert (out / "report.html").is_file()

    def test_tells_a_program(self, call: Callable[..., tuple[int, str, str]], make: Maker, out: Path) -> None:
        make("a", *map(record, CELLS[:5])), make("b", failed(CELLS[5], "crashed", "signal 11"))
        status, said, err = call("a", "b", "b", "--out", "whole", "--json")
        assert (status, err) == (0, "")
        found = json.loads(said)
        assert found["recorded"] == {"ok": 5, "crashed": 1}
        assert found["missing"] == []
        assert [(Path(one["run"]).name, one["new"]) for one in found["sources"]] == [("a", 5), ("b", 1)]

    def test_tells_conflicts_with_their_cells_and_files(
        self, call: Callable[..., tuple[int, str, str]], make: Maker, out: Path
    ) -> None:
        a = make("a", *map(record, CELLS))
        make("b", *(record(one, finished="later") for one in CELLS))
        status, said, err = call("a", "b", "--out", "whole")
        assert (status, said) == (1, "")
        lines = err.splitlines()
        first = a.records_folder / f"{ONE.cell_id}.json"
        assert lines[0].startswith(f"conflict: jax-cpu:jit, tiny, batch 16, 2 epochs, seed 0: {first} (ok), ")
        assert lines[-2:] == [
            "and 1 conflict more",
            (
                "harness: 6 cells have different records, and nothing was written; leave out a folder, or remove the "
                "records that are not to count"
            ),
        ]
        assert not out.exists()

    def test_warns_of_a_folder_in_which_a_harness_runs(
        self, call: Callable[..., tuple[int, str, str]], make: Maker
    ) -> None:
        a = make("a", *map(record, CELLS))
        with a.locked():
            status, _, err = call("a", "--out", "whole")
        assert status == 0
        assert f"warning: another harness (process {os.getpid()} on " in err
        assert f"is running in {a.folder}" in err

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ("--out whole", "Missing argument 'RUN...'"),
            ("a", "Missing option '--out'"),
            ("a nope --out whole", "nope: there is no such run folder"),
            ("a . --out whole", "is not a run folder (it has no plan.json)"),
            ("a a --out a", "there is nothing to unite it with"),
        ],
    )
    def test_a_wrong_call_is_one_line(
        self, call: Callable[..., tuple[int, str, str]], make: Maker, out: Path, arguments: str, says: str
    ) -> None:
        make("a", record(ONE))
        status, said, err = call(*arguments.split())
        assert (status, said, err.count("\n")) == (2, "", 1)
        assert says in err
        assert not out.exists()
