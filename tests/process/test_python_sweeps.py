"""Sweeps from Python: beside the main thread, stopped and resumed, on backends that are scripted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.process.small_sweep import PATIENCE, Sweeper, stop, wait_for

BEGINNING = "import harness, json, threading\n"
CALL = 'harness.sweep("small.toml", target={target!r}, batch_size=[4, 8, 16], out={out!r}, interleave="cell")'


def python(sweeper: Sweeper, code: str) -> list[str]:
    """The command that runs the code, in which a sweep file is there."""
    sweeper.command()
    return [sys.executable, "-c", BEGINNING + code]


def called(sweeper: Sweeper, code: str) -> subprocess.CompletedProcess[str]:
    return sweeper.finished(python(sweeper, code), PATIENCE)


def test_a_sweep_gives_a_result_with_frames_and_leaves_the_run_that_the_command_leaves(sweeper: Sweeper) -> None:
    code = (
        f"result = {CALL.format(target='reference', out='run')}\n"
        "print(json.dumps([result.cells['status'].to_list(), result.has_failed, result.page, str(result)]))"
    )
    done = called(sweeper, code)
    assert done.returncode == 0, done.stderr
    statuses, has_failed, page, text = json.loads(done.stdout)
    assert (statuses, has_failed) == (["ok"] * 3, False)
    assert Path(page).is_file()
    assert f"Its page: {Path('run', 'report.html')}" in text
    assert "[3/3]" in done.stderr
    assert sweeper.kept.plan.command == (
        "harness.sweep('small.toml', target='reference', batch_size=[4, 8, 16], interleave='cell', out='run')"
    )
    ids = set(sweeper.kept.cells)
    again = sweeper.finished(
        [*sweeper.command("--interleave", "cell", target="reference")[:-4], "--out", "other"], PATIENCE
    )
    assert again.returncode == 0, again.stderr
    assert {path.stem for path in (sweeper.folder / "other" / "records").glob("*.json")} == ids


def test_a_sweep_beside_the_main_thread_runs_to_its_end(sweeper: Sweeper) -> None:
    code = (
        "found = []\n"
        f"thread = threading.Thread(target=lambda: found.append({CALL.format(target='reference', out='run')}))\n"
        "thread.start(); thread.join()\n"
        "print(found[0].cells['status'].to_list())"
    )
    done = called(sweeper, code)
    assert (done.returncode, done.stdout) == (0, f"{['ok'] * 3}\n"), done.stderr


def test_an_interrupt_raises_what_holds_the_result_and_the_same_call_resumes(sweeper: Sweeper) -> None:
    reached = sweeper.folder / "reached"
    sweeper.script((8, "train", 3, f"touch:{reached}"), (8, "train", 3, "hang"))
    call = CALL.format(target="scripted", out="run")
    code = (
        f"try:\n    {call}\nexcept harness.RunStopped as stop:\n"
        "    assert isinstance(stop, KeyboardInterrupt)\n"
        "    print(json.dumps([str(stop), stop.result.cells['status'].to_list()]))"
    )
    process = subprocess.Popen(
        python(sweeper, code),
        cwd=sweeper.folder,
        env=sweeper.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(reached, process)
    status, output, errors = stop(process, signal.SIGINT)
    assert status == 0, errors
    says, statuses = json.loads(output)
    assert sorted(statuses) == ["interrupted", "ok"]
    assert says.startswith("stopped; this resumes: harness.sweep('small.toml', target='scripted'")
    sweeper.script()
    resumed = called(sweeper, says.partition("resumes: ")[2])
    assert resumed.returncode == 0, resumed.stderr
    assert set(sweeper.statuses().values()) == {"ok"}
    assert len(sweeper.statuses()) == 3
