"""``harness doctor`` as a command: what it says of targets, and what it finds when it starts their workers."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.process.small_sweep import Sweeper


def doctor(sweeper: Sweeper, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("doctor", *arguments)


def judged(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {found["target"]: found for found in json.loads(done.stdout)["targets"]}


def test_a_named_target_is_ready_when_its_worker_has_trained(sweeper: Sweeper) -> None:
    done = doctor(sweeper, "scripted", "--json")
    assert done.returncode == 0
    found = judged(done)["scripted"]
    assert (found["state"], found["environment"], found["findings"]) == ("ready", "ready", [])
    assert found["trial"]["status"] == "ok"
    assert found["trial"]["device"]["loss_on"]
    assert "scripted: starting its worker" in done.stderr


def test_a_worker_that_fails_is_found_unless_nobody_looks(sweeper: Sweeper) -> None:
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="exit:3")
    done = doctor(sweeper, "dying", "scripted")
    assert done.returncode == 1
    (finding,) = [line for line in done.stdout.splitlines() if "problem: dying: " in line]
    assert "its worker failed (crashed): worker exited with status 3 during start" in finding
    assert "-> mend the packages of " in finding
    assert "problem: scripted: " not in done.stdout
    quick = doctor(sweeper, "dying", "--quick", "--json")
    assert quick.returncode == 0
    assert judged(quick)["dying"]["trial"] is None


def test_a_device_that_is_not_there_is_another_thing_than_a_broken_worker(sweeper: Sweeper) -> None:
    sweeper.add("blind", "deviceless_backend:DevicelessBackend")
    done = doctor(sweeper, "blind", "--json")
    assert done.returncode == 1
    found = judged(done)["blind"]
    assert found["state"] == "no device"
    assert found["findings"][0]["text"] == "asked for device 0, but 0 can be seen"


def test_a_worker_that_lies_about_its_device_is_not_believed(sweeper: Sweeper) -> None:
    sweeper.add("lying", "deviceless_backend:LyingBackend")
    sweeper.targets["lying"]["accelerator"] = "cuda"
    done = doctor(sweeper, "lying", "--json")
    assert done.returncode == 1
    found = judged(done)["lying"]
    assert found["state"] == "no device"
    assert found["trial"]["status"] == "wrong_device"
    assert "asked for cuda, but " in found["findings"][0]["text"]


def test_without_names_nothing_is_started_and_nothing_fails(sweeper: Sweeper) -> None:
    sweeper.add("homeless", "scripted_backend:ScriptedBackend", python="/nonexistent/python")
    sweeper.add("dying", "scripted_backend:ScriptedBackend", AT_LOAD="exit:3")
    done = doctor(sweeper, "--json")
    assert done.returncode == 0
    found = judged(done)
    assert {"scripted", "dying", "homeless", "jax-cuda", "reference"} <= found.keys()
    assert all(target["trial"] is None for target in found.values())
    assert found["homeless"]["state"] == "broken"
    assert "/nonexistent/python" in found["homeless"]["findings"][0]["text"]
    assert "harness.toml" in found["homeless"]["findings"][0]["remedy"]
    named = doctor(sweeper, "homeless")
    assert named.returncode == 1
    assert "problem: homeless: there is no interpreter /nonexistent/python -> " in named.stdout
