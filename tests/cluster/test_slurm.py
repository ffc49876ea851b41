"""Sweeps on a real Slurm of two nodes, and whatever happens to their jobs: each cell is recorded exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from harness.runs import folder as run_folder
from tests.cluster.two_nodes import ClusterSweeper, each_once, until
from tests.command import HARNESS
from tests.process.disks import read_only


def job_of(sweeper: ClusterSweeper, number: int = 1) -> str:
    """The number of an array's job."""
    return (sweeper.folder / "run" / "slurm" / f"{number:04}.job").read_text().strip().partition(";")[0]


def reached(sweeper: ClusterSweeper) -> Path:
    return sweeper.folder / "reached"


def hang_at(sweeper: ClusterSweeper, batch_size: int = 8) -> None:
    """The cell of that batch size says that it trains, and then never ends."""
    sweeper.script((batch_size, "train", 2, f"touch:{reached(sweeper)}"), (batch_size, "train", 3, "hang"))


@pytest.mark.long
def test_both_frameworks_on_both_nodes_leave_what_a_local_run_leaves(sweeper: ClusterSweeper) -> None:
    sizes = ["--batch-size", "16,32", "--seed", "0,1", "--epochs", "1", "--train-examples", "512"]
    quick = [HARNESS, "sweep", "quick", "--model", "lenet5", *sizes, "--test-examples", "200"]
    done = sweeper.finished([*quick, "--launcher", "slurm", "--out", "run"])
    assert done.returncode == 0, done.stderr
    assert "2 tasks, 4 heats of tensorflow-cpu:graph, jax-cpu:jit" in done.stdout
    waited = sweeper.wait()
    assert waited.returncode == 0, waited.stderr
    assert (sweeper.folder / "run" / "report.html").exists()
    local = sweeper.finished([*quick, "--out", "local"])
    assert local.returncode == 0, local.stderr
    here, there = sweeper.kept, run_folder.Run.open(sweeper.folder / "local")
    assert set(each_once(here).values()) == {"ok"}
    assert each_once(here) == each_once(there)
    assert sweeper.nodes_of_records() == {"n1", "n2"}
    by_seed = {(record.cell.training.seed, record.machine["slurm"]["node"]) for record in here.records()}
    assert len(by_seed) == 2, "a replicate's batch sizes are measured on one machine"
    for record in here.records():
        given = record.machine["slurm"]
        assert given["exclusive"] is True
        assert (given["job"], given["partition"], given["other_jobs"]) == (job_of(sweeper), "main", 0)
        assert record.heat.interleave == "block"
    rows = [
        [row.split()[:2] for row in text.splitlines() if "-cpu:" in row][:8] for text in (waited.stdout, local.stdout)
    ]
    assert rows[0] == rows[1]


def test_targets_that_ask_for_other_hardware_run_in_arrays_of_their_own(sweeper: ClusterSweeper) -> None:
    sweeper.add("second", "scripted_backend:ScriptedBackend")
    sweeper.add("third", "scripted_backend:ScriptedBackend")
    flags = [
        "--slurm",
        "scripted.constraint=dml",
        "--slurm",
        "second.constraint=cuda",
        "--slurm",
        "third.constraint=dml",
    ]
    assert sweeper.submit(*flags, target="scripted,second,third").returncode == 0
    assert sweeper.wait().returncode == 0
    nodes = {record.cell.target.name: record.machine["slurm"]["node"] for record in sweeper.kept.records()}
    assert nodes == {"scripted": "n2", "third": "n2", "second": "n1"}
    assert {len(record.heat.cells) for record in sweeper.kept.records() if record.cell.target.name == "second"} == {1}
    assert {len(record.heat.cells) for record in sweeper.kept.records() if record.cell.target.name == "third"} == {2}
    jobs = sweeper.status()["jobs"]
    assert {tuple(job["targets"]): job["hardware"] for job in jobs} == {
        ("scripted:numpy", "third:numpy"): "constraint=dml",
        ("second:numpy",): "constraint=cuda",
    }
    other = sweeper.submit("--slurm", "third.constraint=cuda", "--retry", "failed", target="scripted,second,third")
    assert other.returncode == 2
    assert "share their heats in this run" in other.stderr


@pytest.mark.long
def test_a_node_that_dies_in_mid_heat_costs_nothing_but_time(sweeper: ClusterSweeper) -> None:
    hang_at(sweeper)
    assert sweeper.submit().returncode == 0
    until(reached(sweeper).exists, "the heat to train")
    node = sweeper.until_running(job_of(sweeper))
    sweeper.script()
    sweeper.nodes.kill_node(node)
    try:
        sweeper.nodes.hurry(job_of(sweeper))
        assert sweeper.wait().returncode == 0
    finally:
        sweeper.nodes.start_node(node)
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    found = {record.cell.training.batch_size: record.machine["slurm"]["node"] for record in sweeper.kept.records()}
    (other,) = {"n1", "n2"} - {node}
    assert found[4] == node
    assert found[8] == found[16] == other


@pytest.mark.long
def test_a_node_that_dies_where_jobs_do_not_come_back_leaves_what_resumes(sweeper: ClusterSweeper) -> None:
    hang_at(sweeper)
    assert sweeper.submit("--slurm", "no-requeue").returncode == 0
    until(reached(sweeper).exists, "the heat to train")
    node = sweeper.until_running(job_of(sweeper))
    sweeper.script()
    sweeper.nodes.kill_node(node)
    try:
        assert sweeper.wait().returncode == 1
        each_once(sweeper.kept)
        assert {size: status for (_, size), status in sweeper.statuses().items()} == {
            4: "ok",
            8: "interrupted",
            16: "interrupted",
        }
        reasons = {record.reason for record in sweeper.kept.records() if record.status == "interrupted"}
        assert reasons == {f"Slurm's job {job_of(sweeper)}_0 ended because its node failed on {node}"}
        assert sweeper.submit().returncode == 0
        assert sweeper.wait().returncode == 0
    finally:
        sweeper.nodes.start_node(node)
    assert set(each_once(sweeper.kept).values()) == {"ok"}


@pytest.mark.long
def test_the_controller_may_be_restarted_under_a_run(sweeper: ClusterSweeper) -> None:
    go = sweeper.folder / "go"
    sweeper.script((8, "train", 2, f"touch:{reached(sweeper)}"), (8, "train", 3, f"await:{go}"))
    assert sweeper.submit().returncode == 0
    until(reached(sweeper).exists, "the heat to train")
    waited: list[subprocess.CompletedProcess[str]] = []
    follower = threading.Thread(target=lambda: waited.append(sweeper.wait()))
    follower.start()
    sweeper.nodes.restart_controller(down=8.0)
    go.touch()
    follower.join()
    assert waited[0].returncode == 0, waited[0].stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}


def test_cancelled_jobs_leave_records_and_the_same_command_runs_them(sweeper: ClusterSweeper) -> None:
    hang_at(sweeper)
    assert sweeper.submit("--slurm", "heats-per-task=1", "--slurm", "concurrent=1").returncode == 0
    until(reached(sweeper).exists, "the second heat to train")
    assert sweeper.status()["jobs"][0] | {"reasons": []} == {
        "job": job_of(sweeper),
        "targets": ["scripted:numpy"],
        "hardware": "",
        "tasks": 3,
        "waiting": 1,
        "running": 1,
        "ended": 1,
        "nodes": [sweeper.until_running(job_of(sweeper), 1)],
        "reasons": [],
    }
    done = sweeper.finished([HARNESS, "cancel", "run"])
    assert done.returncode == 0, done.stderr
    each_once(sweeper.kept)
    found = {record.cell.training.batch_size: record for record in sweeper.kept.records()}
    assert (found[4].status, found[8].status, found[16].status) == ("ok", "interrupted", "interrupted")
    assert found[8].blocks.seconds, "what was measured until then is kept"
    assert found[16].reason == f"Slurm's job {job_of(sweeper)}_2 was cancelled before it began"
    sweeper.script()
    assert sweeper.submit().returncode == 0
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    assert len(list((sweeper.folder / "run" / "records").glob("*.attempt-1.json"))) == 2


def test_a_task_cancelled_by_somebody_else_and_a_heat_that_is_killed_are_recorded(sweeper: ClusterSweeper) -> None:
    hang_at(sweeper)
    assert sweeper.submit("--slurm", "heats-per-task=1", "--slurm", "concurrent=1").returncode == 0
    until(reached(sweeper).exists, "the second heat to train")
    sweeper.nodes.ask("scancel", f"{job_of(sweeper)}_2")
    (heat,) = (one for one in psutil.process_iter(["cmdline"]) if is_heat(one, sweeper))
    heat.send_signal(signal.SIGKILL)
    assert sweeper.wait().returncode == 1
    each_once(sweeper.kept)
    found = {record.cell.training.batch_size: record for record in sweeper.kept.records()}
    assert (found[4].status, found[8].status, found[16].status) == ("ok", "crashed", "interrupted")
    assert found[8].reason.startswith(f"Slurm's job {job_of(sweeper)}_1 ended as FAILED without a record on n")


def is_heat(process: psutil.Process, sweeper: ClusterSweeper) -> bool:
    command = process.info["cmdline"] or []
    return command[1:4] == ["-m", "harness", "heat"] and command[4].startswith(str(sweeper.folder))


@pytest.mark.long
def test_a_job_over_its_time_limit_says_so_and_keeps_what_it_measured(sweeper: ClusterSweeper) -> None:
    sweeper.script((8, "train", 3, "hang"))
    assert sweeper.submit("--slurm", "time=1").returncode == 0
    assert sweeper.wait().returncode == 1
    each_once(sweeper.kept)
    found = {record.cell.training.batch_size: record for record in sweeper.kept.records()}
    assert (found[4].status, found[8].status, found[16].status) == ("ok", "timeout", "timeout")
    assert found[8].reason.startswith("Slurm's time limit ended it after ")
    assert found[8].blocks.seconds
    assert found[16].reason.startswith(f"Slurm's job {job_of(sweeper)}_0 reached its time limit on n")
    again = sweeper.submit()
    assert "nothing to submit: every cell has its record" in again.stdout
    sweeper.script()
    assert sweeper.submit("--retry", "failed").returncode == 0
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}


def test_submitting_twice_submits_once(sweeper: ClusterSweeper) -> None:
    hang_at(sweeper)
    assert "submitted: 1 task, 3 heats" in sweeper.submit().stdout
    until(reached(sweeper).exists, "the heat to train")
    again = sweeper.submit()
    assert again.returncode == 0, again.stderr
    assert "nothing to submit: its jobs are in the queue" in again.stdout
    assert len(list((sweeper.folder / "run" / "slurm").glob("*.job"))) == 1
    # One started by hand beside it leaves the heat to the job.
    beside = sweeper.finished([HARNESS, "heat", "run", "1"])
    assert beside.returncode == 0, beside.stderr
    assert "another process runs them" in beside.stderr


def test_a_submitter_killed_as_soon_as_the_jobs_are_in_loses_nothing(sweeper: ClusterSweeper, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "sbatch"
    shim.parent.mkdir()
    shim.write_text('#!/bin/bash\n/usr/bin/sbatch "$@" >/dev/null\nkill -9 $PPID\nsleep 1\n')
    shim.chmod(0o755)
    go = sweeper.folder / "go"
    sweeper.script((8, "train", 2, f"touch:{reached(sweeper)}"), (8, "train", 3, f"await:{go}"))
    command = ["env", f"PATH={shim.parent}:{sweeper.environment()['PATH']}", *sweeper.command("--launcher", "slurm")]
    assert sweeper.finished(command).returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    job = sweeper.status()["jobs"][0]["job"]
    again = sweeper.submit()
    assert "nothing to submit: its jobs are in the queue" in again.stdout
    until(reached(sweeper).exists, "the heat to train")
    assert job_of(sweeper) == job
    go.touch()
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}


def test_a_submitter_killed_before_the_jobs_are_in_has_submitted_nothing(
    sweeper: ClusterSweeper, tmp_path: Path
) -> None:
    shim = tmp_path / "bin" / "sbatch"
    shim.parent.mkdir()
    shim.write_text("#!/bin/bash\nkill -9 $PPID\nsleep 1\n")
    shim.chmod(0o755)
    command = ["env", f"PATH={shim.parent}:{sweeper.environment()['PATH']}", *sweeper.command("--launcher", "slurm")]
    sweeper.finished(command)
    assert sweeper.status()["missing"] == 3
    assert "submitted: 1 task, 3 heats" in sweeper.submit().stdout
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}


GREETING = 'echo "** Welcome to the site **"; echo "Your project has 1,234 hours left."'

OTHER_CLUSTER = """
for one in "$@"; do [ "$one" = --clusters=other ] && there=1 || rest+=("$one"); done
"""
"""Has ``there`` set where the other cluster is asked, and ``rest`` be what is asked."""


def release(sweeper: ClusterSweeper) -> None:
    """Let jobs that were submitted with ``hold`` begin."""
    sweeper.nodes.ask("scontrol", "release", job_of(sweeper))


def held(sweeper: ClusterSweeper) -> list[str]:
    """The states of the jobs, as this machine's own Slurm knows them."""
    return sweeper.nodes.ask("squeue", "-h", "-j", job_of(sweeper), "-t", "all", "-o", "%T").split()


def test_a_site_that_greets_before_its_answers_gets_its_jobs_followed(sweeper: ClusterSweeper) -> None:
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
        sweeper.wrap(name, f'{GREETING}; exec $real "$@"')
    assert sweeper.submit("--slurm", "hold").returncode == 0
    assert job_of(sweeper).isdecimal()
    found = sweeper.status()
    assert (found["recorded"], found["missing"], found["jobs"][0]["waiting"]) == ({}, 0, 1)
    release(sweeper)
    waited = sweeper.wait()
    assert waited.returncode == 0, waited.stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}


def test_an_answer_without_a_job_is_told_and_the_job_is_found_by_its_name(sweeper: ClusterSweeper) -> None:
    sweeper.wrap("sbatch", '$real "$@" >/dev/null && echo "Thank you."')
    done = sweeper.submit("--slurm", "hold")
    assert done.returncode == 1
    assert "harness: sbatch: found the answer 'Thank you.', allowed: " in done.stderr
    assert sweeper.status()["jobs"][0]["waiting"] == 1
    assert "nothing to submit: its jobs are in the queue" in sweeper.submit("--slurm", "hold").stdout
    release(sweeper)
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_jobs_of_another_cluster_are_followed_and_cancelled_there(sweeper: ClusterSweeper, by: str) -> None:
    sweeper.wrap(
        "sbatch", f'{OTHER_CLUSTER}unset SBATCH_CLUSTERS; out=$($real "${{rest[@]}}") && echo "$out${{there:+;other}}"'
    )
    sweeper.wrap("squeue", f'{OTHER_CLUSTER}[ "$there" ] && echo "CLUSTER: other" && exec $real "${{rest[@]}}"; true')
    sweeper.wrap("sacct", f'{OTHER_CLUSTER}[ "$there" ] && exec $real "${{rest[@]}}"; exit 1')
    sweeper.wrap("scancel", f'{OTHER_CLUSTER}[ "$there" ] && exec $real "${{rest[@]}}"; exit 1')
    sweeper.wrap("scontrol", f'{OTHER_CLUSTER}exec $real "${{rest[@]}}"')
    there = ["--slurm", "clusters=other"] if by == "flag" else []
    variables = [] if by == "flag" else ["env", "SBATCH_CLUSTERS=other"]
    command = sweeper.command("--launcher", "slurm", "--slurm", "hold", *there)
    done = sweeper.finished([*variables, *command])
    assert done.returncode == 0, done.stderr
    assert (sweeper.folder / "run" / "slurm" / "0001.job").read_text().strip().endswith(";other")
    found = sweeper.status()
    assert (found["recorded"], found["missing"], found["jobs"][0]["waiting"]) == ({}, 0, 1)
    assert held(sweeper) == ["PENDING"]
    cancelled = sweeper.finished([HARNESS, "cancel", "run"])
    assert cancelled.returncode == 0, cancelled.stderr
    assert held(sweeper) == ["CANCELLED"]
    assert {record.reason for record in sweeper.kept.records()} == {
        f"Slurm's job {job_of(sweeper)}_0 was cancelled before it began"
    }
    assert sweeper.finished([*variables, *sweeper.command("--launcher", "slurm", *there)]).returncode == 0
    assert sweeper.wait().returncode == 0
    assert set(each_once(sweeper.kept).values()) == {"ok"}


@pytest.mark.long
def test_a_queue_that_does_not_tell_of_a_job_leaves_no_record_that_lasts(sweeper: ClusterSweeper) -> None:
    blind = sweeper.folder / "blind"
    sweeper.wrap("squeue", f'[ -e {blind} ] || exec $real "$@"; [ "$(cat {blind})" = once ] && rm {blind}; true')
    sweeper.wrap("sacct", 'echo "Slurm accounting storage is disabled" >&2; exit 1')
    assert sweeper.submit("--slurm", "hold").returncode == 0
    # Just after its submission.
    blind.write_text("always")
    found = sweeper.status()
    assert (found["recorded"], found["missing"], found["live"]) == ({}, 0, True)
    assert found["jobs"][0]["reasons"] == ["not in the queue yet"]
    # For a moment, later.
    job_file = sweeper.folder / "run" / "slurm" / "0001.job"
    os.utime(job_file, (0, 0))
    blind.write_text("once")
    found = sweeper.status()
    assert not blind.exists()
    assert (found["recorded"], found["missing"], found["jobs"][0]["waiting"]) == ({}, 0, 1)
    # For so long that its cells say so, and then the job begins after all.
    blind.write_text("always")
    assert sweeper.status()["recorded"] == {"interrupted": 3}
    blind.unlink()
    release(sweeper)
    waited = sweeper.wait()
    assert waited.returncode == 0, waited.stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}


def test_a_persons_own_files_where_a_sweep_is_submitted_are_not_imported(sweeper: ClusterSweeper) -> None:
    for name in ("harness", "queue", "numpy", "json"):
        (sweeper.folder / f"{name}.py").write_text(f"open({str(sweeper.folder / 'imported')!r}, 'a').write({name!r})\n")
    command = sweeper.command("--launcher", "slurm", "--slurm", "setup=test -f queue.py")
    done = sweeper.finished(command)
    assert done.returncode == 0, done.stderr
    waited = sweeper.wait()
    assert waited.returncode == 0, waited.stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    assert not (sweeper.folder / "imported").exists()


def test_reading_a_run_whose_jobs_have_ended_needs_no_writing(sweeper: ClusterSweeper) -> None:
    assert sweeper.submit("--slurm", "setup=false").returncode == 0
    job = job_of(sweeper)
    until(lambda: held(sweeper) == ["FAILED"], "the job to end")
    with read_only(sweeper.folder / "run"):
        done = sweeper.finished([HARNESS, "status", "run"])
        assert done.returncode == 0, done.stderr
        assert f"3 cells crashed: Slurm's job {job}_0 ended as FAILED without a record" in done.stderr
        assert "run is not writable here, so these are not recorded" in done.stderr
        assert "0 of 3 cells recorded" in done.stdout
        waited = sweeper.wait()
        assert waited.returncode == 1
        assert "warning: no page: " in waited.stderr
    assert sweeper.status()["recorded"] == {"crashed": 3}


def test_the_setup_runs_first_and_one_that_fails_is_told(sweeper: ClusterSweeper) -> None:
    mark = sweeper.folder / "mark"
    assert sweeper.submit("--slurm", f"setup=export SEEN=$(hostname)\ntouch '{mark}'").returncode == 0
    assert sweeper.wait().returncode == 0
    assert mark.exists()
    flags = ["--launcher", "slurm", "--slurm", "setup=false", "--out", "failing"]
    assert sweeper.finished(sweeper.command(*flags)).returncode == 0
    waited = sweeper.finished([HARNESS, "wait", "failing"])
    assert waited.returncode == 1
    reasons = {record.reason for record in run_folder.Run.open(sweeper.folder / "failing").records()}
    assert len(reasons) == 1
    assert reasons.pop().endswith(": the setup failed")


def test_what_sbatch_refuses_is_one_line_and_nothing_is_left_behind(sweeper: ClusterSweeper) -> None:
    done = sweeper.submit("--slurm", "partition=nowhere")
    assert done.returncode == 1
    assert "invalid partition specified: nowhere" in done.stderr
    assert done.stderr.count("\n") <= 3
    assert sweeper.status()["jobs"] == []
    assert sweeper.submit().returncode == 0
    assert sweeper.wait().returncode == 0


@pytest.mark.long
def test_fifteen_hundred_heats_go_in_chunks_and_each_cell_is_recorded_once(sweeper: ClusterSweeper) -> None:
    seeds = ",".join(map(str, range(500)))
    unpacked = ["--seed", seeds, "--slurm", "heats-per-task=1", "--slurm", "hold"]
    done = sweeper.submit(*unpacked)
    assert done.returncode == 0, done.stderr
    assert "1001 tasks" in done.stdout.replace(",", "")
    assert "499 tasks" in done.stdout
    cancelled = sweeper.finished([HARNESS, "cancel", "run"])
    assert cancelled.returncode == 0, cancelled.stderr
    assert set(each_once(sweeper.kept).values()) == {"interrupted"}
    sweeper.nodes.restart_controller("MaxArraySize=4", down=0.0)
    try:
        done = sweeper.submit("--seed", seeds, "--slurm", "heats-per-task=100")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("submitted: 4 tasks, 400 heats") == 3
        assert done.stdout.count("submitted: 3 tasks, 300 heats") == 1
        waited = sweeper.finished([HARNESS, "wait", "run"], patience=900.0)
        assert waited.returncode == 0, waited.stderr
    finally:
        sweeper.nodes.restart_controller("MaxArraySize=1001", down=0.0)
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    assert len(sweeper.kept.plan.heats) == 1500
    assert sweeper.nodes_of_records() == {"n1", "n2"}
