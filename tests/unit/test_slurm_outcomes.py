from __future__ import annotations

import json
import os
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster.slurm import programs, submissions
from harness.cluster.slurm.outcomes import STATUSES, only_told, settle
from harness.cluster.slurm.programs import ENDED, SlurmJob, Task
from harness.cluster.slurm.submissions import FORGOTTEN, Standing, Submission
from harness.commands.status import status
from harness.core import codec
from harness.core.errors import SchedulerError
from harness.core.record import Record
from harness.measure.memory import TooLarge
from harness.measure.saving import Saving
from harness.runs.folder import Plan, Run
from tests.unit.records import TENSORFLOW, cell, record

JOB, OTHER = SlurmJob("7"), SlurmJob("8")
CELLS = tuple(cell(size, target) for size in (16, 32) for target in (TENSORFLOW, cell().target))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Plan("made-up", "harness sweep", "", "0", CELLS, interleave="block"))


def standing(*tasks: Task, number: int = 1) -> Standing:
    submission = Submission(number, f"name-{number}", (), "", (), ((0,), (1,)))
    return Standing((submission,), {number: JOB}, {(task.job, task.index): task for task in tasks})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a site's own programs, before all others."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    program(folder, "sacct", "exit 1")
    return folder


def settled(run: Run, told: Standing) -> list[Record]:
    return settle(run, told, run.statuses())


@pytest.mark.parametrize("state", ENDED)
def test_every_end_of_a_job_becomes_one_typed_record_a_cell(run: Run, state: str) -> None:
    made = settled(run, standing(Task(JOB, 0, state, node="n1"), Task(JOB, 1, "RUNNING", node="n2")))
    assert {one.cell_id for one in made} == {one.cell_id for one in run.plan.heats[0].cells}
    expected = STATUSES.get(state, ("crashed", f"ended as {state} without a record"))
    for one in run.records():
        assert one.status == expected[0]
        assert one.reason == f"Slurm's job 7_0 {expected[1]} on n1"
        assert one.machine == {"slurm": {"job": "7", "task": 0, "node": "n1"}}
    assert settled(run, standing(Task(JOB, 0, state), Task(JOB, 1, "RUNNING"))) == []


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
    assert settled(run, standing(Task(JOB, 0, state), Task(JOB, 1, state))) == []
    assert run.statuses() == {}


def test_a_record_is_the_truth_whatever_slurm_says(run: Run) -> None:
    first, second = run.plan.heats[0].cells
    run.save(record(first))
    made = settled(run, standing(Task(JOB, 0, "FAILED"), Task(JOB, 1, "PENDING")))
    assert [one.cell_id for one in made] == [second.cell_id]
    assert run.statuses()[first.cell_id] == "ok"


def test_a_heat_that_somebody_runs_is_not_settled(run: Run) -> None:
    with run.claimed(0) as mine:
        assert mine
        assert settled(run, standing(Task(JOB, 0, "FAILED"), Task(JOB, 1, "PENDING"))) == []
    assert len(settled(run, standing(Task(JOB, 0, "FAILED"), Task(JOB, 1, "PENDING")))) == 2


def test_what_slurm_has_forgotten_is_told_as_that_with_the_last_words(run: Run) -> None:
    log = submissions.task_log(run, Task(JOB, 0, FORGOTTEN))
    log.parent.mkdir(parents=True)
    log.write_text("fine\nslurmstepd: error: something fell over\n\n")
    reasons = {one.reason for one in settled(run, standing(Task(JOB, 1, "RUNNING")))}
    (reason,) = reasons
    assert reason.startswith("Slurm's job 7_0 is not known to Slurm any more, which says nothing of how it ended: ")
    assert reason.endswith(": slurmstepd: error: something fell over")
    assert {one.status for one in run.records()} == {"interrupted"}, "silence is no failure of the cell's"
    assert {one.log for one in run.records()} == {"logs/slurm/7_0.log"}


def test_only_the_latest_task_of_a_heat_counts(run: Run) -> None:
    older = Submission(1, "a", (), "", (), ((0,), (1,)))
    newer = Submission(2, "b", (), "", (), ((1,),))
    never = Submission(3, "c", (), "", (), ((0,),))
    states = {
        (JOB, 0): Task(JOB, 0, "CANCELLED"),
        (JOB, 1): Task(JOB, 1, "CANCELLED"),
        (OTHER, 0): Task(OTHER, 0, "PENDING"),
    }
    told = Standing((older, newer, never), {1: JOB, 2: OTHER}, states)
    assert {one.cell_id for one in settled(run, told)} == {one.cell_id for one in run.plan.heats[0].cells}
    assert told.live_jobs == [OTHER]


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
    assert programs.accounted([JOB]) == {
        (JOB, 0): Task(JOB, 0, "CANCELLED", node="n1"),
        (JOB, 1): Task(JOB, 1, "TIMEOUT", node="n2"),
    }
    program(tmp_path, "sacct", "echo '** Welcome **'; printf 'JobID|State|NodeList\\n7_0|COMPLETED|n1\\n'")
    assert programs.accounted([JOB])[JOB, 0].state == "COMPLETED"
    program(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert programs.accounted([JOB]) == {}


@POSIX
def test_a_program_that_refuses_or_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="there is no squeue on this machine"):
        programs.queue(["a"])
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "sbatch", "echo 'sbatch: error: Batch job submission failed: no such account' >&2; exit 1")
    with pytest.raises(SchedulerError, match="sbatch: sbatch: error: Batch job submission failed: no such account"):
        programs.submit([], "x.sh")


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("7", JOB),
        ("7;other", SlurmJob("7", "other")),
        ("** Welcome to the site **\nYou have 3 hours left.\n7\n", JOB),
        ("7\n7\nSubmitted.\n", JOB),
        ("", None),
        ("Submitted batch job 7", None),
        ("2026\n7", None),
        ("7;other;more", None),
    ],
)
def test_a_job_is_read_from_a_line_that_can_be_nothing_else(said: str, job: SlurmJob | None) -> None:
    assert programs.job_in(said) == job
    assert job is None or programs.job_in(str(job)) == job


@POSIX
def test_an_answer_of_sbatch_without_a_job_is_one_line(site: Path) -> None:
    program(site, "sbatch", "echo 'Submitted batch job 7'")
    with pytest.raises(SchedulerError) as raised:
        programs.submit([], "x.sh")
    assert "found the answer 'Submitted batch job 7'" in str(raised.value)
    assert "nothing was cancelled" in str(raised.value)


@POSIX
def test_a_cluster_is_asked_where_the_jobs_were_submitted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CLUSTERS", "SQUEUE_PARTITION", "SQUEUE_STATES", "SCANCEL_INTERACTIVE"):
        monkeypatch.setenv(name, "other people's")
    record = f'echo "$0 $*" | sed \'s,.*/,,\' >>{site}/asked; env | grep -c "other people\'s" >>{site}/steered; true'
    program(site, "squeue", f"{record}; printf 'CLUSTER: %s\\n7|0|PENDING|None||mine\\n' \"${{1#--clusters=}}\"")
    for name in ("scancel", "sacct", "scontrol"):
        program(site, name, record)
    there = SlurmJob("7", "other")
    assert set(programs.queue(["mine"], "other")) == {(there, 0)}
    assert set(programs.queue(["mine"], "other,third")) == {(SlurmJob("7", "other,third"), 0)}
    assert set(programs.queue(["mine"])) == {(JOB, 0)}
    assert programs.queue(["another's"]) == {}
    programs.cancel([there, OTHER])
    programs.accounted([there])
    programs.largest_array("other")
    asked = (site / "asked").read_text().splitlines()
    assert [line.split()[:2] for line in asked] == [
        ["squeue", "--clusters=other"],
        ["squeue", "--clusters=other,third"],
        ["squeue", "--array"],
        ["squeue", "--array"],
        ["scancel", "--clusters=other"],
        ["scancel", "8"],
        ["sacct", "--clusters=other"],
        ["scontrol", "--clusters=other"],
    ]
    assert set((site / "steered").read_text().split()) == {"0"}, "what a person set for their own questions"


def submitted(run: Run, *arguments: str) -> None:
    """One array of both heats, noted down as job 7."""
    folder = run.folder / submissions.FOLDER
    folder.mkdir()
    codec.write_json(folder / "0001.json", Submission(1, "mine", (), "", arguments, ((0,), (1,))))
    (folder / "0001.job").write_text("7\n")


def age(run: Run, seconds: float) -> None:
    """Have its submission been that long ago."""
    then = time.time() - seconds
    os.utime(run.folder / submissions.FOLDER / "0001.job", (then, then))


@POSIX
class TestAQueueThatDoesNotTell:
    @pytest.fixture(autouse=True)
    def waits(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The seconds that are slept between answers."""
        slept: list[float] = []
        monkeypatch.setattr(submissions, "time", SimpleNamespace(sleep=slept.append, time=time.time))
        return slept

    def test_just_after_submission_the_job_may_still_come(self, run: Run, site: Path, waits: list[float]) -> None:
        submitted(run)
        program(site, "squeue", "true")
        told = submissions.standing(run)
        assert settled(run, told) == []
        assert (told.live, told.live_jobs, told.unseen_jobs) == ({0, 1}, [JOB], [JOB])
        assert told.task(0).reason == "not in the queue yet"
        assert waits == []

    def test_for_a_moment_it_is_asked_again(self, run: Run, site: Path, waits: list[float]) -> None:
        submitted(run)
        age(run, 3600)
        answer = "printf '7|0|PENDING|None||mine\\n7|1|PENDING|None||mine\\n'"
        program(site, "squeue", f"[ -e {site}/asked ] && {answer}; touch {site}/asked")
        told = submissions.standing(run)
        assert settled(run, told) == []
        assert told.live == {0, 1}
        assert waits == [submissions.LOOK_SECONDS]

    def test_for_long_the_cells_say_that_nothing_is_known_and_run_should_the_job_come(
        self, run: Run, site: Path, waits: list[float]
    ) -> None:
        submitted(run)
        age(run, submissions.GRACE + 60)
        program(site, "squeue", "true")
        made = settled(run, submissions.standing(run))
        assert len(made) == len(CELLS)
        assert {one.status for one in made} == {"interrupted"}
        assert len(waits) == submissions.LOOKS - 1
        assert len(run.waiting(CELLS, frozenset({"interrupted"}))) == len(CELLS), "a heat that starts later runs them"
        submissions.standing(run)
        assert len(waits) == submissions.LOOKS - 1, "what has its records is not asked for again"

    def test_one_whose_end_is_recorded_already_does_not_come(self, run: Run, site: Path) -> None:
        submitted(run)
        age(run, 10)
        settled(run, standing(Task(JOB, 0, "CANCELLED"), Task(JOB, 1, "CANCELLED")))
        program(site, "squeue", "true")
        assert submissions.standing(run).live == frozenset()
        age(run, -10)  # submitted again after that
        assert submissions.standing(run).live == {0, 1}

    def test_one_task_that_is_missing_is_looked_for_in_the_accounting(self, run: Run, site: Path) -> None:
        submitted(run)
        age(run, 3600)
        program(site, "squeue", "printf '7|1|RUNNING|None|n1|mine\\n'")
        program(site, "sacct", "printf 'JobID|State|NodeList\\n7_0|TIMEOUT|n1\\n'")
        assert submissions.standing(run).task(0) == Task(JOB, 0, "TIMEOUT", node="n1")


@POSIX
def test_a_job_file_with_a_sites_words_and_the_clusters_of_a_submission_are_understood(run: Run, site: Path) -> None:
    submitted(run, "--clusters=other")
    (run.folder / submissions.FOLDER / "0001.job").write_text("** Welcome **\n7\n")
    program(site, "squeue", "[ $1 = --clusters=other ] && printf 'CLUSTER: other\\n7|0|PENDING|None||mine\\n'")
    told = submissions.standing(run)
    assert told.jobs == {1: SlurmJob("7", "other")}
    assert told.task(0).state == "PENDING"


def test_what_a_folder_that_can_only_be_read_would_record_is_told(run: Run) -> None:
    told = standing(Task(JOB, 0, "TIMEOUT", node="n1"), Task(JOB, 1, "RUNNING"))
    found = only_told(run, told, run.statuses())
    assert {(one.status, one.reason) for one in found} == {("timeout", "Slurm's job 7_0 reached its time limit on n1")}
    assert run.statuses() == {}
    assert [one.cell_id for one in found] == [one.cell_id for one in settled(run, told)]


def test_a_record_that_only_says_that_nothing_is_known_gives_way_to_a_real_one(run: Run) -> None:
    """As on a disk without locks, where a job was taken for lost while it ran."""
    watcher: Any = SimpleNamespace(finished=lambda record: None)
    saving = Saving(run, watcher, TooLarge())
    settled(run, standing(Task(JOB, 1, "RUNNING")))
    first, second = run.plan.heats[0].cells
    assert run.statuses() == dict.fromkeys((first.cell_id, second.cell_id), "interrupted")
    saved = saving.save(record(first))
    assert (saved.status, saved.attempt) == ("ok", 2)
    assert run.record(first.cell_id) == saved
    assert run.attempt_path(first.cell_id, 1).exists()
    again = saving.save(record(first))
    assert again == saved, "a real one stays"
    saving.save(replace(record(second), status="interrupted", reason="stopped"))
    assert run.attempt_path(second.cell_id, 1).exists() is False


@POSIX
def test_where_slurm_gives_no_answer_nothing_is_said_of_what_will_run(
    run: Run, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(run)
    program(site, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert status.main([str(run.folder)], standalone_mode=False) == 0
    told = capsys.readouterr()
    assert "warning: squeue: Unable to contact slurm controller; only the records are told" in told.err
    assert "0 of 4 cells recorded" in told.out
    assert "nothing that will run them" not in told.out
    status.main([str(run.folder), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert (found["missing"], found["live"]) == (None, None)
