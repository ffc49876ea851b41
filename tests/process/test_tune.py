"""``harness tune`` on real workers: what gains is found, what errs does not count, a search that stopped goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from harness.plan import tomlfile
from harness.runs.folder import Run
from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper, stop

INPUTS = ("--model", "model.toml", "--dataset", "small.npz", "--optimizer", "sgd", "--batch-size", "4,8")


@pytest.fixture
def knobbed(sweeper: Sweeper) -> Sweeper:
    """With the target "knobbed", which is quick with pace=quick, wrong with pace=wrong, and fails with pace=slower."""
    sweeper.add("knobbed", "scripted_backend:KnobbedBackend")
    return sweeper


def tune(sweeper: Sweeper, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("tune", *arguments, *INPUTS, "--precision", "0.5", "--out", "tuned", patience=4 * PATIENCE)


@pytest.mark.long
def test_the_quick_setting_is_found_shown_afresh_and_usable_as_a_target(knobbed: Sweeper) -> None:
    done = tune(knobbed, "knobbed@cpus=1", "--budget", "600s", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (found,) = answer["targets"]
    trials = {one["setting"]["pace"]: one for one in found["trials"]}
    assert trials["quick"]["gain"] > 1.5
    assert trials["wrong"]["gain"] is None
    assert trials["wrong"]["problem"].startswith("parity failed")
    assert trials["slower"]["gain"] is None
    assert "this cannot be trained slower" in trials["slower"]["problem"]
    assert found["winner"] == {"pace": "quick"}
    assert found["is_better"]
    assert {one["batch_size"]: one["verdict"] for one in found["final"]} == {4: "faster", 8: "faster"}
    final = Run.open(next((knobbed.folder / "tuned").glob("*/final")))
    singles = Run.open(next((knobbed.folder / "tuned").glob("*/single")))
    assert not {record.started for record in final.records() if record.status == "ok"} & {
        record.started for record in singles.records()
    }
    assert not list((knobbed.folder / "tuned").glob("*/unions"))

    toml = (knobbed.folder / "tuned" / "tuned.toml").read_text()
    assert toml == found["toml"]
    (knobbed.folder / "own.toml").write_text(knobbed.tables() + "\n" + toml)
    assert tomlfile.read(knobbed.folder / "own.toml")["targets"]["knobbed-here"]["options"] == {"pace": "quick"}
    assert "at batch size 4 " in toml

    again = tune(knobbed, "knobbed@cpus=1", "--budget", "600s")
    assert again.returncode == 0, again.stderr
    assert "measured afresh: faster." in again.stdout
    assert 'like = "knobbed"' in again.stdout


def test_where_nothing_gains_that_is_said(knobbed: Sweeper) -> None:
    done = tune(knobbed, "knobbed@cpus=1@pace=quick", "--budget", "600s")
    assert done.returncode == 2
    assert "unknown key 'pace'" in done.stderr
    done = tune(knobbed, "scripted@cpus=1")
    assert done.returncode == 0, done.stderr
    assert "nothing of it can be set otherwise" in done.stdout


@pytest.mark.long
def test_a_search_that_was_stopped_goes_on_where_it_was(knobbed: Sweeper) -> None:
    (knobbed.folder / "harness.toml").write_text(knobbed.tables())
    command = [HARNESS, "tune", "knobbed@cpus=1", *INPUTS, "--precision", "0.5", "--budget", "600s", "--out", "tuned"]
    with knobbed.started(command) as process:
        while not any((knobbed.folder / "tuned").glob("*/single/records/*.json")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        code, _, errors = stop(process, signal.SIGINT)
    assert code == 1
    assert "this resumes: " in errors
    assert "Traceback" not in errors
    kept = {path: path.read_bytes() for path in (knobbed.folder / "tuned").glob("*/single/records/*.json")}
    done = tune(knobbed, "knobbed@cpus=1", "--budget", "600s", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["targets"][0]
    assert found["winner"] == {"pace": "quick"}
    ended = [path for path, text in kept.items() if b'"status": "interrupted"' not in text]
    assert all(path.read_bytes() == kept[path] for path in ended)
