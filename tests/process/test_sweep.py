"""``harness sweep`` on backends that misbehave: every cell ends as one typed record, and the others go on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from harness.core.record import Record
from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper, count, stop, wait_for

MISBEHAVIOUR = [
    (2, "train", "segfault", "crashed", "worker killed by SIGSEGV during train"),
    (3, "session", "exit:3", "crashed", "worker exited with status 3 during open"),
    (4, "train", "say:Hello, harness!", "crashed", "the worker said 'Hello, harness!'"),
    (5, "train", 'say:{"kind":"probed"}', "crashed", "the worker said"),
    (6, "train", "type error", "crashed", "TypeError: something in two lines"),
    (7, "evaluate", "unsupported", "unsupported", "the fake cannot do this"),
    (8, "train", "killed", "crashed", "worker killed by SIGKILL during train"),
    (9, "train", "hang", "timeout", "train: no answer within 5 s"),
    (10, "train", "print", "ok", ""),
]


def ids_and_statuses(sweeper: Sweeper) -> dict[str, tuple[str, str, list[float]]]:
    """cell_id -> what must be the same however the cell was run: status, reason, losses and accuracies."""

    def outcome(record: Record) -> tuple[str, str, list[float]]:
        numbers = [number for epoch in record.epochs for number in (epoch.train_loss, epoch.test_loss)]
        return record.status, record.reason, numbers + [epoch.test_accuracy for epoch in record.epochs]

    return {record.cell_id: outcome(record) for record in sweeper.kept.records()}


def test_whatever_a_worker_does_becomes_a_typed_record_and_the_sweep_goes_on(sweeper: Sweeper) -> None:
    sweeper.script(*((size, place, 2 if place == "train" else 1, action) for size, place, action, *_ in MISBEHAVIOUR))
    sizes = [size for size, *_ in MISBEHAVIOUR]
    done = sweeper.run("--timeout", "5", target="scripted,reference", batch_sizes=sizes)
    assert done.returncode == 1
    records = sweeper.records()
    assert len(records) == 2 * len(sizes)
    for size, _, _, status, reason in MISBEHAVIOUR:
        record = records["scripted", size]
        assert (record.status, record.reason[: len(reason)]) == (status, reason)
        assert "\n" not in record.reason
        assert record.proof
        assert records["reference", size].status == "ok"
    assert [
        line for line in done.stderr.splitlines() if not re.match(r"\[\d+/18] |18 cells to run|images of small: ", line)
    ] == []
    assert "garbage" not in done.stdout + done.stderr
    assert "garbage from a process" in (sweeper.folder / "run" / "logs" / "scripted.log").read_text(errors="replace")


def test_batches_larger_than_one_that_ran_out_of_memory_are_skipped_with_the_reason(sweeper: Sweeper) -> None:
    sweeper.script((8, "train", 2, "memory error"))
    assert sweeper.run(target="scripted,reference").returncode == 1
    assert sweeper.statuses() == {
        ("scripted", 4): "ok",
        ("scripted", 8): "out_of_memory",
        ("scripted", 16): "skipped",
        ("reference", 4): "ok",
        ("reference", 8): "ok",
        ("reference", 16): "ok",
    }
    skipped = sweeper.records()["scripted", 16]
    assert skipped.reason == "batch size 8 of this target already ran out of memory"

    (sweeper.kept.records_folder / f"{skipped.cell_id}.json").unlink()
    sweeper.script()
    assert sweeper.run(target="scripted,reference").returncode == 1
    assert sweeper.records()["scripted", 16].reason == skipped.reason, "a resumed sweep remembers it"


def test_retry_runs_what_failed_or_was_skipped_for_it_and_keeps_the_earlier_attempts(sweeper: Sweeper) -> None:
    sweeper.script((2, "train", 2, "segfault"), (8, "train", 2, "memory error"))
    choices = {"batch_sizes": (2, 4, 8, 16, 999)}
    assert sweeper.run(**choices).returncode == 1
    before, bytes_before = sweeper.records(), sweeper.record_bytes()
    sweeper.script()

    assert sweeper.run(**choices).returncode == 1
    assert sweeper.record_bytes() == bytes_before

    assert sweeper.run("--retry", "failed", **choices).returncode == 0
    after, bytes_after = sweeper.records(), sweeper.record_bytes()
    assert count(sweeper.statuses()) == {"ok": 4, "skipped": 1}
    for key, record in before.items():
        name = f"{record.cell_id}.json"
        again = record.cell.training.batch_size in (2, 8, 16)
        assert after[key].attempt == (2 if again else 1)
        kept = f"{record.cell_id}.attempt-1.json" if again else name
        assert bytes_after[kept] == bytes_before[name]
    assert len(bytes_after) == 5 + 3


def test_targets_that_fail_as_a_whole_leave_records_with_the_reason_and_the_others_run(sweeper: Sweeper) -> None:
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="segfault")
    sweeper.add("missing", "no_such_module:Backend")
    sweeper.add("homeless", "scripted_backend:ScriptedBackend", python="/nonexistent/python")
    sweeper.add("strange", "scripted_backend:ScriptedBackend", python="/bin/true")
    sweeper.add("wrong", "scripted_backend:WrongBackend")
    done = sweeper.run(target="dying,missing,homeless,strange,wrong,scripted")
    assert done.returncode == 1
    reasons = {
        "dying": ("crashed", "worker killed by SIGSEGV during start"),
        "missing": ("crashed", "ModuleNotFoundError: No module named 'no_such_module'"),
        "homeless": ("unsupported", "target 'homeless': there is no interpreter /nonexistent/python"),
        "strange": ("unsupported", "target 'strange': /bin/true"),
        "wrong": ("parity_failed", "losses "),
    }
    records = sweeper.records()
    assert len(records) == 18
    for (target, _), record in records.items():
        status, reason = reasons.get(target, ("ok", ""))
        assert (record.status, record.reason[: len(reason)]) == (status, reason)
        assert "\n" not in record.reason
    log = (sweeper.folder / "run" / "logs" / "dying.log").read_text()
    assert log.count("Fatal Python error: Segmentation fault") == 2, "a host that cannot start is given up after two"


def test_a_backend_that_computes_wrongly_gets_no_times(sweeper: Sweeper) -> None:
    sweeper.add("wrong", "scripted_backend:WrongBackend")
    done = sweeper.run(target="wrong,scripted", batch_sizes=[4])
    records = sweeper.records()
    wrong, right = records["wrong", 4], records["scripted", 4]
    assert wrong.status == "parity_failed"
    assert (wrong.blocks.seconds, wrong.phases.train, wrong.epochs) == ([], None, ())
    assert "parameters" in wrong.reason
    assert right.blocks.seconds
    proofs = sweeper.kept.proofs_folder
    failed, passed = (json.loads((proofs / f"{record.proof}.json").read_text()) for record in (wrong, right))
    assert any(quantity["error"] > quantity["tolerance"] for quantity in failed["quantities"])
    assert all(quantity["error"] <= quantity["tolerance"] for quantity in passed["quantities"])
    row = next(line for line in done.stdout.splitlines() if line.startswith("wrong:numpy"))
    assert row.split()[2:5] == ["-", "-", "-"]


def test_a_changed_backend_is_proven_again(sweeper: Sweeper) -> None:
    (sweeper.folder / "own.py").write_text("from backends.reference import ReferenceBackend as Backend")
    sweeper.add("own", "own:Backend")
    sweeper.targets["own"]["path"] = "."
    assert sweeper.run(target="own", batch_sizes=[4]).returncode == 0
    wrong = "import sys; sys.path.append({!r}); from scripted_backend import WrongBackend as Backend"
    (sweeper.folder / "own.py").write_text(wrong.format(sweeper.targets["scripted"]["path"]))
    sweeper.run("--out", "again", target="own", batch_sizes=[4])
    again = json.loads(next((sweeper.folder / "again" / "records").glob("*.json")).read_text())
    assert again["status"] == "parity_failed"


def test_a_probe_that_hangs_is_the_record_of_its_cells(sweeper: Sweeper) -> None:
    sweeper.script(("probe", "train", 1, "hang"))
    assert sweeper.run("--timeout", "5", target="scripted,reference").returncode == 1
    records = sweeper.records()
    for size in (4, 8, 16):
        assert records["scripted", size].status == "timeout"
        assert records["scripted", size].reason.startswith("parity probe: probe: no answer within 5 s")
        assert records["reference", size].status == "ok"


def test_forked_and_fresh_processes_give_the_same_records(sweeper: Sweeper) -> None:
    sweeper.script((8, "train", 2, "segfault"), (16, "session", 1, "memory error"))
    sizes = (4, 8, 16, 32)
    sweeper.run(batch_sizes=sizes)
    forked = ids_and_statuses(sweeper)
    assert {record.worker["forked"] for record in sweeper.kept.records() if record.status == "ok"} == {True}
    (sweeper.folder / "run").rename(sweeper.folder / "forked")
    sweeper.run("--no-fork", batch_sizes=sizes)
    assert ids_and_statuses(sweeper) == forked
    assert {record.worker["forked"] for record in sweeper.kept.records() if record.status == "ok"} == {False}
    assert count(sweeper.statuses()) == {"ok": 1, "crashed": 1, "out_of_memory": 1, "skipped": 1}


def test_a_plan_names_every_cell_and_runs_nothing(sweeper: Sweeper) -> None:
    sizes = (4, 999)
    planned = json.loads(sweeper.run("--plan", "--json", target="scripted,reference", batch_sizes=sizes).stdout)
    assert not (sweeper.folder / "run").exists()
    too_large = [cell["skip"] for cell in planned["cells"] if cell["batch_size"] == 999]
    assert len(too_large) == 2
    assert all(reason.endswith("batch size 999 is larger than the 64 training examples") for reason in too_large)

    assert sweeper.run(target="scripted,reference", batch_sizes=sizes).returncode == 0
    assert {cell["cell_id"] for cell in planned["cells"]} == set(sweeper.kept.statuses())
    assert count(sweeper.statuses()) == {"ok": 2, "skipped": 2}
    again = sweeper.run("--plan", target="scripted,reference", batch_sizes=sizes)
    assert "another plan" not in again.stderr
    other = sweeper.run("--plan", target="scripted", batch_sizes=(8,))
    assert other.returncode == 0
    (said,) = (line for line in other.stderr.splitlines() if "another plan" in line)
    assert (
        "run holds the run of another plan: 4 cells only there, 1 only asked for (batch size 4, 999 there, 8 asked for"
        in said
    )
    assert said.endswith("; to run this one, choose another folder")


def test_rows_for_programs_are_the_records(sweeper: Sweeper) -> None:
    sweeper.script((8, "train", 2, "segfault"))
    done = sweeper.run("--json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [(row["batch_size"], row["status"]) for row in rows] == [(4, "ok"), (8, "crashed"), (16, "ok")]
    report = [HARNESS, "report", str(sweeper.folder / "run"), "--format", "csv"]
    shown = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    assert [row["status"] for row in csv.DictReader(io.StringIO(shown))] == ["ok", "crashed", "ok"]


def test_the_harness_sleeps_while_a_worker_runs(sweeper: Sweeper) -> None:
    reached = sweeper.folder / "reached"
    sweeper.script((4, "train", 3, f"touch:{reached}"), (4, "train", 3, "hang"))
    with sweeper.running(batch_sizes=[4]) as process:
        wait_for(reached, process)
        harness = psutil.Process(process.pid)
        before, start = harness.cpu_times(), time.monotonic()
        time.sleep(1.5)
        after, seconds = harness.cpu_times(), time.monotonic() - start
        used = after.user - before.user + after.system - before.system
        stop(process, signal.SIGTERM)
    assert used / seconds <= 0.02


def test_the_reader_of_a_pipe_that_leaves_changes_neither_the_run_nor_its_status(sweeper: Sweeper) -> None:
    sweeper.script((8, "train", 2, "segfault"))
    with sweeper.running() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(PATIENCE) == 1
    assert count(sweeper.statuses()) == {"ok": 2, "crashed": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_on_a_terminal_a_bar_shows_the_cell_its_loss_and_the_time_left(sweeper: Sweeper) -> None:
    import pty

    sweeper.script(*((8, "train", call, "slow") for call in (3, 4, 5)))
    ours, theirs = pty.openpty()
    env = {**sweeper.environment(), "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    with subprocess.Popen(
        sweeper.command(), cwd=sweeper.folder, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait(PATIENCE) == 0
    text = shown.decode()
    assert "[0/3]" in text
    assert "left scripted:numpy, small, batch 8, 2 epochs: loss " in text
    assert "[3/3] scripted:numpy, small, batch 16, 2 epochs: ok, trained in " in text
    assert not re.search(r"\x1b\[[0-9;]*\b[349][0-7][;m]", text), "colours in spite of NO_COLOR"
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_a_batch_size_that_changes_within_an_epoch_is_swept_reported_and_drawn(sweeper: Sweeper) -> None:
    sweeper.command()
    plan = ("--batch-size", "4,0:4,step20:16", "--epochs", "3")
    done = sweeper.finished([HARNESS, "sweep", "small.toml", "-t", "scripted", *plan, "--out", "run"], None)
    assert done.returncode == 0, done.stderr
    (cell,) = (cell for cell in sweeper.kept.plan.cells if cell.training.batch_changes)
    assert (cell.training.batch_plan, cell.epoch_steps) == ("4>16@step20", (16, 7, 4))
    (record,) = (one for one in sweeper.kept.records() if one.cell == cell)
    assert (record.status, [one.epoch for one in record.epochs]) == ("ok", [0, 1, 2])
    assert record.same_work.counted_steps == cell.total_steps == 27
    assert "4>16@step20" in done.stdout
    assert sweeper.harness("report", "run", "--html", "page.html").returncode == 0
    assert "4\\u003e16@step20" in (sweeper.folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("accuracy", "trained", "evaluations"),
    [("0.01", 5, [5]), ("1", 3 * 16, [5, 10, 15, 0, 20, 25, 30, 0, 35, 40, 45, 0])],
)
def test_training_ends_at_an_accuracy_or_after_the_most_epochs(
    sweeper: Sweeper, accuracy: str, trained: int, evaluations: list[int]
) -> None:
    flags = ("--until-accuracy", accuracy, "--max-epochs", "3", "--evaluate-every", "5")
    done = sweeper.run(*flags, target="scripted,reference", batch_sizes=[4])
    assert done.returncode == 0, done.stderr
    for record in sweeper.records().values():
        assert record.status == "ok"
        assert sum(record.blocks.steps) + sum(record.blocks.settle) == trained
        assert [epoch.steps for epoch in record.epochs] == evaluations
        assert record.same_work.counted_steps in (trained, None)
        assert record.same_work.witnessed_steps > 0
