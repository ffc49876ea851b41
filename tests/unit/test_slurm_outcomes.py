from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from harness.core.errors import SchedulerError
from harness.core.record import Record
from harness.slurm import programs, submissions
from harness.slurm.outcomes import STATUSES, settle
from harness.slurm.programs import ENDED, Task
from harness.slurm.submissions import FORGOTTEN, Standing, Submission
from harness.store import Plan, Run
from tests.unit.records import TENSORFLOW, cell, record

CELLS = tuple(cell(size, target) for size in (16, 32) for target in (TENSORFLOW, cell().target))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Plan("made-up", "harness sweep", "", "0", CELLS, interleave="block"))


def standing(*tasks: Task, number: int = 1) -> Standing:
    submission = Submission(number, f"name-{number}", (), "", (), ((0,), (1,)))
    return Standing((submission,), {number: "7"}, {(task.job, task.index): task for task in tasks})


def settled(run: Run, told: Standing) -> list[Record]:
    return settle(run, told, run.statuses())


@pytest.mark.parametrize("state", ENDED)
def test_every_end_of_a_job_becomes_one_typed_record_a_cell(run: Run, state: str) -> None:
    made = settled(run, standing(Task("7", 0, state, node="n1"), Task("7", 1, "RUNNING", node="n2")))
    assert {one.cell_id for one in made} == {one.cell_id for one in run.plan.heats[0].cells}
    expected = STATUSES.get(state, ("crashed", f"ended as {state} without a record"))
    for one in run.records():
        assert one.status == expected[0]
        assert one.reason == f"Slurm's job 7_0 {expected[1]} on n1"
        assert one.machine == {"slurm": {"job": "7", "task": 0, "node": "n1"}}
    assert settled(run, standing(Task("7", 0, state), Task("7", 1, "RUNNING"))) == []


def test_the_kinds_of_ends(run: Run) -> None:
    told = {state: STATUSES.get(state, ("crashed",))[0] for state in ENDED}
    assert {state for state, status in told.items() if status == "interrupted"} == {
        "CANCELLED",
        "PREEMPTED",
        "NODE_FAIL",
        "BOOT_FAIL",
        "REVOKED",
    }
    assert told["OUT_OF_MEMORY"] == "out_of_memory"
    assert told["TIMEOUT"] == told["DEADLINE"] == "timeout"
    assert told["FAILED"] == told["COMPLETED"] == "crashed"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "CONFIGURING"])
def test_what_may_still_run_is_left_alone(run: Run, state: str) -> None:
    assert settled(run, standing(Task("7", 0, state), Task("7", 1, state))) == []
    assert run.statuses() == {}


def test_a_record_is_the_truth_whatever_slurm_says(run: Run) -> None:
    first, second = run.plan.heats[0].cells
    run.save(record(first))
    made = settled(run, standing(Task("7", 0, "FAILED"), Task("7", 1, "PENDING")))
    assert [one.cell_id for one in made] == [second.cell_id]
    assert run.statuses()[first.cell_id] == "ok"


def test_a_heat_that_somebody_runs_is_not_settled(run: Run) -> None:
    with run.claimed(0) as mine:
        assert mine
        assert settled(run, standing(Task("7", 0, "FAILED"), Task("7", 1, "PENDING"))) == []
    assert len(settled(run, standing(Task("7", 0, "FAILED"), Task("7", 1, "PENDING")))) == 2


def test_what_slurm_has_forgotten_is_told_as_that_with_the_last_words(run: Run) -> None:
    log = submissions.task_log(run, Task("7", 0, FORGOTTEN))
    log.parent.mkdir(parents=True)
    log.write_text("fine\nslurmstepd: error: something fell over\n\n")
    reasons = {one.reason for one in settled(run, standing(Task("7", 1, "RUNNING")))}
    assert reasons == {"Slurm's job 7_0 ended, and Slurm no longer knows how: slurmstepd: error: something fell over"}
    assert {one.log for one in run.records()} == {"logs/slurm/7_0.log"}


def test_only_the_latest_task_of_a_heat_counts(run: Run) -> None:
    older = Submission(1, "a", (), "", (), ((0,), (1,)))
    newer = Submission(2, "b", (), "", (), ((1,),))
    never = Submission(3, "c", (), "", (), ((0,),))
    states = {
        ("7", 0): Task("7", 0, "CANCELLED"),
        ("7", 1): Task("7", 1, "CANCELLED"),
        ("8", 0): Task("8", 0, "PENDING"),
    }
    told = Standing((older, newer, never), {1: "7", 2: "8"}, states)
    assert {one.cell_id for one in settled(run, told)} == {one.cell_id for one in run.plan.heats[0].cells}
    assert told.live_jobs == ["8"]


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@POSIX
def test_accounting_tells_what_the_queue_has_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(
        tmp_path,
        "sacct",
        "printf 'JobID|State|NodeList\\n7_0|CANCELLED by 1000|n1\\n7_1|TIMEOUT|n2\\n'; "
        "printf '7_[2-9]|PENDING|None assigned\\n7|X|\\n'",
    )
    assert programs.accounted(["7"]) == {
        ("7", 0): Task("7", 0, "CANCELLED", node="n1"),
        ("7", 1): Task("7", 1, "TIMEOUT", node="n2"),
    }
    program(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert programs.accounted(["7"]) == {}


@POSIX
def test_a_program_that_refuses_or_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="there is no squeue on this machine"):
        programs.queue(["a"])
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "sbatch", "echo 'sbatch: error: Batch job submission failed: no such account' >&2; exit 1")
    with pytest.raises(SchedulerError, match="sbatch: sbatch: error: Batch job submission failed: no such account"):
        programs.submit([], "x.sh")
