"""Heats and ``harness compare`` on backends that misbehave: lanes in turns, deaths, memory, interruptions."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import comparison
from harness.core.record import Record
from harness.runs import folder as run_folder
from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper, stop, wait_for

INPUTS = ("--model", "model.toml", "--dataset", "small.npz")
"""The sweeper's own."""


def train_rounds(record: Record) -> list[int]:
    """Rounds of the timed blocks."""
    blocks = record.blocks
    return [number for number, kind in zip(blocks.round, blocks.kind, strict=True) if kind == "train"]


def test_lanes_of_a_heat_take_turns_and_reach_what_they_reach_alone(sweeper: Sweeper) -> None:
    assert sweeper.run(target="scripted,reference", batch_sizes=[4]).returncode == 0
    together = {record.cell.target.name: record for record in sweeper.kept.records()}
    scripted, reference = together["scripted"], together["reference"]
    assert scripted.heat.interleave == reference.heat.interleave == "block"
    assert set(scripted.heat.cells) == {scripted.cell_id, reference.cell_id}
    assert train_rounds(scripted) == train_rounds(reference)
    for record in (scripted, reference):
        blocks = record.blocks
        assert sum(blocks.steps) + sum(blocks.settle) == record.cell.total_steps
        assert all(kind != "train" or settle == 1 for kind, settle in zip(blocks.kind, blocks.settle, strict=True))
        assert len(record.epochs) == 2
        shown = record.same_work
        assert shown.steps >= 12
        assert (shown.error, shown.witness_error) == (0.0, 0.0)
        assert shown.witnessed_steps > 0
        assert shown.counted_steps == record.cell.total_steps
        assert len(shown.held) == 3
        assert shown.not_shown == ()
    assert scripted.same_work.first_witnessed == reference.same_work.first_witnessed
    starts = sorted(
        (start, record.cell.target.name)
        for record in (scripted, reference)
        for start, number in zip(record.blocks.started, record.blocks.round, strict=True)
        if number >= 0
    )
    names = [name for _, name in starts]
    assert names[:4] in (["scripted", "reference", "reference", "scripted"], names[:1] + names[1:2] * 2 + names[:1])
    (sweeper.folder / "run").rename(sweeper.folder / "together")
    assert sweeper.run("--interleave", "cell", target="scripted,reference", batch_sizes=[4]).returncode == 0
    for alone in sweeper.kept.records():
        assert alone.heat.interleave == "cell"
        beside = together[alone.cell.target.name]
        assert [one.test_loss for one in alone.epochs] == [one.test_loss for one in beside.epochs]
        assert [one.train_loss for one in alone.epochs] == pytest.approx([one.train_loss for one in beside.epochs])


@pytest.mark.parametrize(("action", "status"), [("segfault", "crashed"), ("hang", "timeout"), ("exit:3", "crashed")])
def test_a_lane_that_ends_in_mid_heat_leaves_the_others_to_finish(sweeper: Sweeper, action: str, status: str) -> None:
    sweeper.script((4, "train", 5, action))
    done = sweeper.run("--timeout", "5", target="scripted,reference", batch_sizes=[4])
    assert done.returncode == 1
    records = sweeper.records()
    assert records["scripted", 4].status == status
    assert records["scripted", 4].blocks.seconds
    assert records["reference", 4].status == "ok"
    assert len(records["reference", 4].epochs) == 2


def test_memory_that_does_not_hold_all_lanes_makes_them_run_whole(sweeper: Sweeper) -> None:
    sweeper.add("neighbour", "scripted_backend:CrowdedBackend")
    sweeper.add("crowded", "scripted_backend:CrowdedBackend")
    done = sweeper.run(target="neighbour,crowded", batch_sizes=[4])
    assert done.returncode == 0, done.stderr
    for record in sweeper.kept.records():
        assert record.status == "ok"
        assert record.heat.interleave == "cell"
        assert "memory did not hold all lanes" in record.heat.fallback


def test_a_lane_too_large_even_alone_is_out_of_memory_and_the_others_take_turns(sweeper: Sweeper) -> None:
    sweeper.script((4, "session", 1, "framework error"))
    sweeper.add("second", "backends.reference:ReferenceBackend")
    done = sweeper.run(target="scripted,reference,second", batch_sizes=[4])
    assert done.returncode == 1
    records = sweeper.records()
    assert records["scripted", 4].status == "out_of_memory"
    for name in ("reference", "second"):
        assert records[name, 4].status == "ok"
        assert records[name, 4].heat.interleave == "block"


def test_an_interrupted_heat_keeps_every_lane_and_resumes(sweeper: Sweeper, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    sweeper.script((4, "train", 5, f"touch:{reached}"), (4, "train", 6, "hang"))
    with sweeper.running(target="scripted,reference", batch_sizes=[4]) as process:
        wait_for(reached, process)
        code, _, errors = stop(process, signal.SIGINT)
    assert code == 1
    assert "Traceback" not in errors
    records = sweeper.records()
    assert {record.status for record in records.values()} == {"interrupted"}
    assert all(train_rounds(record) for record in records.values())
    sweeper.script()
    assert sweeper.run(target="scripted,reference", batch_sizes=[4]).returncode == 0
    assert set(sweeper.statuses().values()) == {"ok"}


def test_a_run_resumes_only_as_it_was_interleaved(sweeper: Sweeper) -> None:
    assert sweeper.run(batch_sizes=[4]).returncode == 0
    done = sweeper.run("--interleave", "none", batch_sizes=[4])
    assert done.returncode == 1
    assert "interleave block there, none asked for" in done.stderr


def test_a_lane_that_leaves_out_what_no_proof_comes_to_ends_as_no_work(sweeper: Sweeper) -> None:
    """Whatever the moment: nothing is trained from half of the cell on, and its device counts no more steps."""
    sweeper.add("lazy", "scripted_backend:LazyBackend")
    done = sweeper.run(target="lazy,reference", batch_sizes=[4])
    assert done.returncode == 1
    records = sweeper.records()
    assert records["reference", 4].status == "ok"
    lazy = records["lazy", 4]
    assert lazy.status == "parity_failed"
    assert "the device counted 16 training steps where 32 were claimed" in lazy.reason
    told = sweeper.harness("status", "run")
    assert "reference:numpy is proven at 4: 48 steps, largest error 0" in told.stdout


def compare(sweeper: Sweeper, *flags: str) -> subprocess.CompletedProcess[str]:
    """``harness compare`` in the sweeper's folder."""
    return sweeper.harness("compare", *flags, *INPUTS, patience=3 * PATIENCE)


def compared(sweeper: Sweeper, *flags: str) -> tuple[int, dict[str, Any]]:
    done = compare(sweeper, *flags, "--batch-size", "4", "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.long
def test_a_slower_lane_is_found_slower_in_fresh_processes(sweeper: Sweeper) -> None:
    sweeper.add("late", "scripted_backend:LateBackend")
    code, answer = compared(sweeper, "scripted", "late", "--budget", "600s", "--precision", "0.5", "--out", "run")
    (one,) = answer["comparisons"]
    assert one["reasons"] == []
    assert one["verdict"] == "slower"
    assert code == 0
    assert one["speed_ratio"] < 0.5
    assert one["processes"] >= 6
    assert set(answer["verdicts"].values()) == {"slower"}
    records = list(run_folder.Run.open(sweeper.folder / "run").records())
    assert len(records) == 3 * 30
    measured = [record for record in records if record.status == "ok"]
    assert len(measured) == 3 * one["processes"]
    assert {record.reason for record in records if record.status == "skipped"} == {"the interval is as narrow as asked"}
    again = compare(sweeper, "scripted", "late", "--batch-size", "4", "--out", "run")
    assert "slower" in again.stdout


@pytest.mark.long
def test_a_lane_that_dies_is_named_and_the_others_are_compared(sweeper: Sweeper) -> None:
    sweeper.add("late", "scripted_backend:LateBackend")
    sweeper.add("dying", "scripted_backend:DyingBackend")
    code, answer = compared(
        sweeper, "reference", "late", "dying", "--budget", "600s", "--precision", "0.5", "--timeout", "60"
    )
    late, dying = answer["comparisons"]
    assert code == 1
    assert late["reasons"] == []
    assert late["verdict"] == "slower"
    assert dying["verdict"] == comparison.NOT_COMPARABLE
    assert any("crashed" in reason for reason in dying["reasons"])


def test_stored_runs_are_compared_with_a_warning(sweeper: Sweeper) -> None:
    for name in ("one", "two"):
        assert sweeper.run(batch_sizes=[4, 8]).returncode == 0
        (sweeper.folder / "run").rename(sweeper.folder / name)
    done = subprocess.run(
        [HARNESS, "compare", "one", "two"],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "did not take turns" in done.stderr
    assert "scripted:numpy of two" in done.stdout


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["scripted"], "two or more targets"),
        (["scripted", "scriptet"], "did you mean"),
        (["scripted", "reference", "--budget", "soon"], "--budget: found 'soon'"),
        (["scripted", "reference", "--precision", "2"], "--precision: found '2'"),
        (["scripted", "reference", "--batch-size", "0"], "--batch-size: found '0'"),
        (["scripted", "reference", "--batch-size", "100000"], "--batch-size: found 100000"),
        (["scripted", "reference", "--optimizer", "adan"], "--optimizer: found 'adan'"),
    ],
)
def test_a_wrong_call_gets_one_line(
    sweeper: Sweeper, refused: Callable[..., str], flags: list[str], problem: str
) -> None:
    assert problem in refused(sweeper, "compare", *flags, *INPUTS)
