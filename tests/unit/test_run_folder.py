from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import StoreError
from harness.core.record import FAILED, STATUSES, Blocks, Epoch, Record
from harness.runs import record_file
from harness.runs.folder import AlreadyRecorded, Plan, Run
from tests.unit.records import JAX, TENSORFLOW, cell, failed, plan, record

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
REPOSITORY = Path(__file__).parents[2]
SIZES = (16, 32, 64)
CELLS = tuple(cell(size, target) for size in SIZES for target in (JAX, TENSORFLOW))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", plan(CELLS))


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


class TestPlan:
    def test_comes_back_as_it_was_frozen(self, tmp_path: Path) -> None:
        frozen = plan(CELLS, skips={CELLS[0].cell_id: "batch size 16 is larger than the 8 training examples"})
        Run.create(tmp_path / "run", frozen)
        assert Run.open(tmp_path / "run").plan == frozen

    def test_holds_each_shared_part_once(self, tmp_path: Path) -> None:
        few, many = (
            Run.create(tmp_path / str(count), plan([cell(repeat=repeat) for repeat in range(count)]))
            for count in (1, 1001)
        )
        sizes = [(made.folder / "plan.json").stat().st_size for made in (few, many)]
        assert sizes[1] - sizes[0] < 130 * 1000

    def test_same_cells_are_the_same_run_whatever_their_order_and_name(self, run: Run) -> None:
        again = Run.create(run.folder, plan(CELLS[::-1], name="other", command="harness sweep other"))
        assert again.plan == run.plan

    def test_other_cells_are_refused_with_the_difference_in_one_line(self, run: Run) -> None:
        other = [cell(size, target) for size in (16, 128) for target in (JAX, TENSORFLOW)]
        with pytest.raises(StoreError) as caught:
            Run.create(run.folder, plan(other))
        assert "4 cells only there, 2 only asked for" in str(caught.value)
        assert "batch size 16, 32, 64 there, 16, 128 asked for" in str(caught.value)
        assert "target" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert Run.open(run.folder).plan == run.plan

    def test_other_content_under_equal_names_is_refused_too(self, run: Run) -> None:
        changed = [dataclasses.replace(c, inputs=dataclasses.replace(c.inputs, order_sha256="9" * 64)) for c in CELLS]
        with pytest.raises(StoreError, match="equal names, but other contents"):
            Run.create(run.folder, plan(changed))

    def test_damaged_plan_names_the_file(self, run: Run) -> None:
        path = run.folder / "plan.json"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(StoreError, match=r"plan\.json: damaged"):
            Run.open(run.folder)

    def test_of_a_later_schema_is_refused(self, run: Run) -> None:
        path = run.folder / "plan.json"
        path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
        with pytest.raises(StoreError, match="schema version 2, this harness reads 1"):
            Run.open(run.folder)


class TestFolder:
    def test_missing_run_is_told_from_a_folder_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no such run folder"):
            Run.open(tmp_path / "missing")
        with pytest.raises(StoreError, match="not a run folder"):
            Run.open(tmp_path)

    def test_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(StoreError, match="not a run folder and not empty"):
            Run.create(tmp_path, plan(CELLS))
        assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("place", ["taken", "taken/run"])
    def test_file_in_the_way_is_said(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(StoreError, match="a file is in the way"):
            Run.create(tmp_path / place, plan(CELLS))

    def test_left_half_made_by_a_killed_harness_is_completed(self, tmp_path: Path) -> None:
        for name in (".lock", ".plan.json.abc.tmp"):
            (tmp_path / name).write_text("")
        (tmp_path / "records").mkdir()
        run = Run.create(tmp_path, plan(CELLS))
        with run.locked():
            assert not list(tmp_path.glob(".*.tmp"))
        assert len(run.pending()) == len(CELLS)

    def test_that_may_not_be_written_is_said(self, tmp_path: Path) -> None:
        with read_only(tmp_path) as folder, pytest.raises(StoreError, match="is not writable"):
            Run.create(folder / "run", plan(CELLS))


class TestRecords:
    def test_comes_back_as_it_was_saved(self, run: Run) -> None:
        saved = record(CELLS[0], worker={"packages": {"jax": "0.10.2"}}, machine={"cores": 2, "load": 0.5})
        run.save(saved)
        assert run.record(CELLS[0].cell_id) == saved
        assert list(Run.open(run.folder).records()) == [saved]
        assert run.record(CELLS[1].cell_id) is None

    def test_keeps_losses_that_are_not_finite(self, run: Run) -> None:
        losses = [math.nan, math.inf, -math.inf, 0.1]
        blocks = Blocks([0] * 4, ["train"] * 4, [1] * 4, [0.1] * 4, [0.1] * 4, losses)
        run.save(record(CELLS[0], blocks=blocks, epochs=(Epoch(0, math.nan, math.inf, 0.1, 0.2),)))
        found = run.record(CELLS[0].cell_id)
        assert found is not None
        assert str(found.blocks.mean_loss) == str(losses)
        assert str((found.epochs[0].train_loss, found.epochs[0].test_loss)) == "(nan, inf)"

    def test_are_never_written_over(self, run: Run) -> None:
        first = record(CELLS[0])
        run.save(first)
        for again in (first, dataclasses.replace(first, attempt=2)):
            with pytest.raises(StoreError, match="records never change"):
                run.save(again)
        assert run.record(first.cell_id) == first

    def test_of_a_cell_that_was_not_planned_is_refused(self, run: Run) -> None:
        with pytest.raises(StoreError, match="no such cell"):
            run.save(record(cell(128)))
        assert run.statuses() == {}

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(status=st.sampled_from(STATUSES), reason=st.text(max_size=600))
    def test_status_is_read_whatever_the_reason(
        self, tmp_path_factory: pytest.TempPathFactory, status: str, reason: str
    ) -> None:
        run = Run.create(tmp_path_factory.mktemp("run"), plan(CELLS))
        run.save(failed(CELLS[0], status, reason))
        assert run.statuses() == {CELLS[0].cell_id: status}
        assert [found.reason for found in run.records()] == [reason]

    def test_status_is_read_from_a_record_laid_out_differently(self, run: Run) -> None:
        run.save(record(CELLS[0]))
        path = run.records_folder / f"{CELLS[0].cell_id}.json"
        path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
        assert run.statuses() == {CELLS[0].cell_id: "ok"}


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "cut off at the end": lambda content: content[:-2],
    "zeros": lambda content: bytes(len(content)),
    "not JSON": lambda content: b"\xff\xfe" + content,
    "no object": lambda content: b"[]\n",
    "another version": lambda content: content.replace(b'"schema_version": 1', b'"schema_version": 7'),
    "another cell's": lambda content: content.replace(CELLS[0].cell_id.encode(), CELLS[1].cell_id.encode()),
    "an unknown status": lambda content: content.replace(b'"status": "ok"', b'"status": "fine"'),
    "a number for the status": lambda content: content.replace(b'"status": "ok"', b'"status": 5'),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_names_the_file_and_spares_the_others(self, run: Run, damage: str) -> None:
        for done in CELLS[:3]:
            run.save(record(done))
        path = run.records_folder / f"{CELLS[0].cell_id}.json"
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        for read in (run.statuses, lambda: list(run.records())):
            with pytest.raises(StoreError, match=path.name):
                read()
        problems: list[StoreError] = []
        intact = {done.cell_id for done in CELLS[1:3]}
        assert {found.cell_id for found in run.records(problems)} == intact
        assert run.statuses(problems).keys() == intact
        assert [path.name in str(problem) for problem in problems] == [True, True]

    def test_foreign_files_are_reported(self, run: Run, tmp_path: Path) -> None:
        stranger = cell(1)
        other = Run.create(tmp_path / "other", plan([stranger]))
        other.save(record(stranger))
        name = f"{stranger.cell_id}.json"
        (run.records_folder / name).write_bytes((other.records_folder / name).read_bytes())
        (run.records_folder / "notes.json").write_text("{}")
        problems: list[StoreError] = []
        assert list(run.records(problems)) == []
        assert len(problems) == 2

    def test_removing_the_file_runs_the_cell_again(self, run: Run) -> None:
        run.save(record(CELLS[0]))
        path = run.records_folder / f"{CELLS[0].cell_id}.json"
        path.write_bytes(b"")
        with pytest.raises(StoreError, match=path.name):
            run.pending()
        path.unlink()
        assert run.pending() == list(CELLS)

    def test_temporary_files_are_ignored_and_then_removed(self, run: Run) -> None:
        run.save(record(CELLS[0]))
        stray = run.records_folder / f".{CELLS[1].cell_id}.json.x7.tmp"
        stray.write_bytes(b"{half")
        assert run.statuses().keys() == {CELLS[0].cell_id}
        assert stray.exists()
        (heat,) = (number for number, heat in enumerate(run.plan.heats) if CELLS[1] in heat.cells)
        with run.claimed(heat) as mine:
            assert mine
            assert not stray.exists()


class TestAnotherProcess:
    def test_a_record_set_aside_while_records_are_read_is_none_any_more(self, run: Run) -> None:
        """Another process runs its cell again: no moment of that is an error."""
        for planned in CELLS:
            run.save(failed(planned, "interrupted", "for a test"))
        listed = run.record_paths

        def list_then_lose() -> list[Path]:
            paths = listed()
            if (run.records_folder / f"{CELLS[0].cell_id}.json").exists():
                run.set_aside(CELLS[0].cell_id)
            return paths

        run.record_paths = list_then_lose  # type: ignore[method-assign]
        assert run.statuses().keys() == {planned.cell_id for planned in CELLS[1:]}
        run.save(dataclasses.replace(record(CELLS[0]), attempt=2))
        assert {kept.cell_id for kept in run.records()} == {planned.cell_id for planned in CELLS[1:]}

    def test_of_two_who_save_one_cell_the_first_stays(self, run: Run) -> None:
        """Where a disk has no locks two may run one heat."""
        first, second = record(CELLS[0]), dataclasses.replace(record(CELLS[0]), reason="the other's")
        run.save(first)
        original, Path.exists = Path.exists, lambda self: False  # type: ignore[assignment]  # as seen a moment before
        try:
            with pytest.raises(AlreadyRecorded, match="another process has recorded this cell"):
                run.save(second)
        finally:
            Path.exists = original  # type: ignore[method-assign]
        assert run.record(CELLS[0].cell_id) == first
        assert not list(run.records_folder.glob(".*.tmp"))

    def test_a_heat_is_claimed_by_one_at_a_time(self, run: Run) -> None:
        with run.claimed(0) as mine, run.claimed(1) as other:
            assert mine
            assert other
            with Run.open(run.folder).claimed(0) as again:
                assert not again
        with Run.open(run.folder).claimed(0) as after:
            assert after


class TestResume:
    def test_only_cells_without_a_record_are_pending_in_the_plans_order(self, run: Run) -> None:
        run.save(record(CELLS[1]))
        run.save(failed(CELLS[4], "crashed", "signal 11"))
        assert Run.open(run.folder).pending() == [CELLS[0], CELLS[2], CELLS[3], CELLS[5]]

    def test_retry_adds_those_of_the_statuses_asked_for(self, run: Run) -> None:
        for done, status in zip(CELLS, ("ok", "crashed", "skipped", "timeout", "ok", "interrupted"), strict=True):
            run.save(failed(done, status, "for a test"))
        assert run.pending() == []
        assert run.pending(frozenset({"timeout"})) == [CELLS[3]]
        assert run.pending(frozenset(FAILED)) == [CELLS[1], CELLS[3], CELLS[5]]

    def test_earlier_attempts_are_kept(self, run: Run) -> None:
        chosen = CELLS[0]
        attempts = [failed(chosen, "crashed", f"attempt {number}", attempt=number) for number in (1, 2, 3)]
        assert run.set_aside(chosen.cell_id) == 1
        for attempt in attempts:
            run.save(attempt)
            assert run.set_aside(chosen.cell_id) == attempt.attempt + 1
        final = record(chosen, attempt=4)
        run.save(final)
        assert list(run.records()) == [final]
        assert run.statuses() == {chosen.cell_id: "ok"}
        kept = [run.records_folder / f"{chosen.cell_id}.attempt-{attempt.attempt}.json" for attempt in attempts]
        assert [path.read_bytes() for path in kept] == [record_file.encode(attempt) for attempt in attempts]

    def test_cell_killed_in_its_second_attempt_is_pending_and_knows_its_number(self, run: Run) -> None:
        run.save(failed(CELLS[0], "crashed", "signal 11"))
        run.set_aside(CELLS[0].cell_id)
        resumed = Run.open(run.folder)
        assert CELLS[0] in resumed.pending()
        assert resumed.set_aside(CELLS[0].cell_id) == 2
        with pytest.raises(StoreError, match="records never change"):
            resumed.save(record(CELLS[0], attempt=1))


HOLD = """
import sys
from pathlib import Path
from harness.runs.folder import Run
with Run.open(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


class TestLock:
    def test_second_process_is_refused_at_once_and_told_who_runs(self, run: Run) -> None:
        command = [sys.executable, "-c", HOLD, str(run.folder)]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            began = time.monotonic()
            message = f"another harness \\(process {other.pid} on {socket.gethostname()}\\) is running in {run.folder}"
            with pytest.raises(StoreError, match=message), run.locked():
                pass
            with pytest.raises(StoreError, match=message):
                Run.create(run.folder, plan(CELLS))
            assert time.monotonic() - began < 60
            assert run.pending() == list(CELLS)
            other.kill()
        with run.locked():
            run.save(record(CELLS[0]))

    def test_is_free_again_after_an_error_inside(self, run: Run) -> None:
        with pytest.raises(ZeroDivisionError), run.locked():
            raise ZeroDivisionError
        with run.locked():
            pass


SAVE_ALL = """
import dataclasses, sys
from pathlib import Path
from harness.runs.folder import Run
from tests.unit.records import record
run = Run.open(Path(sys.argv[1]))
with run.locked():
    print("ready", flush=True)
    for cell in run.pending():
        attempt = run.set_aside(cell.cell_id)
        run.save(record(cell, attempt=attempt))
        print(cell.cell_id, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
def test_killed_at_any_moment_it_leaves_every_finished_record_whole(tmp_path: Path) -> None:
    cells = [cell(repeat=repeat) for repeat in range(400)]
    run = Run.create(tmp_path / "run", plan(cells))
    confirmed: set[str] = set()
    for round_number in range(6):
        with start(SAVE_ALL, run.folder) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.003 + 0.007 * round_number)
            writer.send_signal(signal.SIGKILL)
            said = writer.stdout.read().splitlines()
        confirmed |= {line for line in said if len(line) == 16}
        found = {kept.cell_id: kept for kept in run.records()}
        assert confirmed <= found.keys()
        assert run.statuses() == dict.fromkeys(found, "ok")
        assert all(kept == record(kept.cell) for kept in found.values())
    with start(SAVE_ALL, run.folder) as writer:
        assert writer.stdout is not None
        writer.stdout.read()
    for heat in range(len(run.plan.heats)):
        with run.claimed(heat) as mine:
            assert mine
    assert run.pending() == []
    assert {kept.cell_id for kept in run.records()} == {planned.cell_id for planned in cells}
    assert not list(run.records_folder.glob(".*.tmp"))


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, or a skip that says why there is none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its permissions, or for root, who ignores them, by its mount."""
    if os.name != "posix":
        pytest.skip("folder permissions work otherwise here")
    if os.geteuid() == 0:
        with mounted(tmp_path / "disk", "ro") as folder:
            yield folder
        return
    tmp_path.chmod(0o500)
    try:
        yield tmp_path
    finally:
        tmp_path.chmod(0o700)


class TestFullDisk:
    def test_is_said_and_loses_nothing(self, tmp_path: Path) -> None:
        cells = [cell(repeat=repeat) for repeat in range(400)]
        with mounted(tmp_path / "disk", "size=512k") as disk:
            run = Run.create(disk / "run", plan(cells))
            saved: list[Record] = []

            def save_all() -> None:
                for planned in cells:
                    run.save(record(planned))
                    saved.append(record(planned))

            with run.locked(), pytest.raises(StoreError, match=r"\.json: cannot be written, the disk is full"):
                save_all()
            assert 0 < len(saved) < len(cells)
            assert sorted(run.records(), key=lambda kept: kept.cell.repeat) == saved
            assert run.pending() == cells[len(saved) :]
            assert not list(run.records_folder.glob(".*.tmp"))

    def test_is_said_when_the_run_is_made(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "disk", "size=64k") as disk:
            (disk / "ballast").write_bytes(bytes(60 * 1024))
            big = plan([cell(repeat=repeat) for repeat in range(400)])
            with pytest.raises(StoreError, match="the disk is full"):
                Run.create(disk / "run", big)
            (disk / "ballast").unlink()
            assert len(Run.create(disk / "run", big).pending()) == 400


class TestGolden:
    """``golden/run-schema-1`` was written by the first version; later ones must read it, and write the same bytes."""

    def test_has_every_status(self) -> None:
        assert set(Run.open(GOLDEN).statuses().values()) == set(STATUSES)

    def test_is_written_again_to_the_same_bytes(self) -> None:
        run = Run.open(GOLDEN)
        for kept in run.records():
            path = run.records_folder / f"{kept.cell_id}.json"
            assert record_file.encode(kept) == path.read_bytes()

    def test_keeps_its_plan_and_its_ids(self, tmp_path: Path) -> None:
        golden = Run.open(GOLDEN)
        again = Run.create(tmp_path / "run", golden.plan)
        assert (again.folder / "plan.json").read_bytes() == (GOLDEN / "plan.json").read_bytes()
        assert golden.pending() == []
        assert [kept.cell.cell_id for kept in golden.records()] == [kept.cell_id for kept in golden.records()]
        assert [kept.cell.work_id for kept in golden.records()] == [kept.work_id for kept in golden.records()]

    def test_keeps_its_earlier_attempt(self) -> None:
        chosen = next(kept for kept in Run.open(GOLDEN).records() if kept.attempt == 2)
        assert (GOLDEN / "records" / f"{chosen.cell_id}.attempt-1.json").exists()

    def test_plan_without_cells_is_a_plan(self, tmp_path: Path) -> None:
        assert Run.create(tmp_path / "run", Plan("none", "", "", "0.1.0", ())).pending() == []
