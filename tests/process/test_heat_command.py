"""``harness heat``: what launchers start on their machines. Whatever starts it, how often, it does its work once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.analysis import index, journal
from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper, wait_for


def planned(sweeper: Sweeper) -> None:
    """A run folder of three heats, of which the first is done."""
    done = sweeper.run("--only", "batch_size=4")
    assert done.returncode == 0, done.stderr
    assert "2 cells of the plan are not of this part" in done.stderr
    assert sweeper.statuses() == {("scripted", 4): "ok"}


def heat(sweeper: Sweeper, *numbers: str) -> subprocess.CompletedProcess[str]:
    return sweeper.finished([HARNESS, "heat", "run", *numbers], PATIENCE)


def test_heats_run_from_the_folder_alone_and_leave_what_a_sweep_leaves(sweeper: Sweeper) -> None:
    planned(sweeper)
    for name in ("small.toml", "model.toml"):
        (sweeper.folder / name).unlink()
    before = sweeper.record_bytes()
    done = heat(sweeper, "1", "2")
    assert done.returncode == 0, done.stderr
    assert set(sweeper.statuses().values()) == {"ok"}
    assert len(sweeper.records()) == 3
    after = sweeper.record_bytes()
    assert {name: after[name] for name in before} == before
    assert heat(sweeper, "0", "1", "2").returncode == 0
    assert sweeper.record_bytes() == after
    kinds = {record.heat.interleave for record in sweeper.kept.records()}
    assert len(kinds) == 1
    assert list((sweeper.folder / "run" / "claims").iterdir()) == []


def test_a_sweep_and_a_heat_write_the_rows_of_what_they_save(sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(sweeper)
    assert heat(sweeper, "1", "2").returncode == 0
    monkeypatch.setattr(index, "_made", None)
    rows = index.read(sweeper.kept)
    assert set(rows["cell_id"]) == set(sweeper.kept.statuses())
    assert rows.height == 3
    assert len(list((sweeper.folder / "run" / journal.FOLDER).iterdir())) == 2


def test_started_twice_at_the_same_time_one_runs_it(sweeper: Sweeper, tmp_path: Path) -> None:
    planned(sweeper)
    reached, go = tmp_path / "reached", tmp_path / "go"
    sweeper.script((8, "train", 2, f"touch:{reached}"), (8, "train", 3, f"await:{go}"))
    first = subprocess.Popen(
        [HARNESS, "heat", "run", "1"], cwd=sweeper.folder, env=sweeper.environment(), stderr=subprocess.PIPE, text=True
    )
    wait_for(reached, first)
    command = [HARNESS, "heat", "run", "1", "2"]
    second = subprocess.run(command, cwd=sweeper.folder, env=sweeper.environment(), capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "1 of the heats: another process runs them" in second.stderr
    assert sweeper.statuses() == {("scripted", 4): "ok", ("scripted", 16): "ok"}
    go.touch()
    _, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, errors
    assert set(sweeper.statuses().values()) == {"ok"}
    assert len(sweeper.records()) == 3


def test_a_sweep_leaves_heats_to_those_who_run_them(sweeper: Sweeper, tmp_path: Path) -> None:
    planned(sweeper)
    reached, go = tmp_path / "reached", tmp_path / "go"
    sweeper.script((8, "train", 2, f"touch:{reached}"), (8, "train", 3, f"await:{go}"))
    first = subprocess.Popen([HARNESS, "heat", "run", "1"], cwd=sweeper.folder, env=sweeper.environment())
    wait_for(reached, first)
    done = subprocess.run(
        sweeper.command(), cwd=sweeper.folder, env=sweeper.environment(), capture_output=True, text=True
    )
    assert "1 heat left to other processes that run them" in done.stderr
    assert sweeper.statuses() == {("scripted", 4): "ok", ("scripted", 16): "ok"}
    go.touch()
    assert first.wait(PATIENCE) == 0
    assert len(sweeper.records()) == 3


def test_a_failed_cell_is_its_record_and_is_not_run_again(sweeper: Sweeper) -> None:
    planned(sweeper)
    sweeper.script((8, "train", 3, "segfault"))
    assert heat(sweeper, "1").returncode == 0
    assert sweeper.statuses()["scripted", 8] == "crashed"
    sweeper.script()
    assert heat(sweeper, "1").returncode == 0
    assert sweeper.statuses()["scripted", 8] == "crashed"


def test_what_cannot_be_run_is_one_line(sweeper: Sweeper) -> None:
    planned(sweeper)
    wrong = heat(sweeper, "3")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "numbered from 0 to 2" in wrong.stderr
    setting = sweeper.folder / "run" / "setting.json"
    told = json.loads(setting.read_text())
    told["targets"][0]["targets"]["scripted"]["env"]["MORE"] = "1"
    setting.write_text(json.dumps(told))
    changed = heat(sweeper, "1")
    assert (changed.returncode, changed.stderr.count("\n")) == (1, 1)
    assert "scripted:numpy is no longer what this run was planned with" in changed.stderr
    setting.unlink()
    gone = heat(sweeper, "1")
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert "has no setting.json" in gone.stderr
    assert sweeper.statuses() == {("scripted", 4): "ok"}
