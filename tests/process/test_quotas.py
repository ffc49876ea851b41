"""A quota for real: a process in a control group of its own, made where this machine allows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core.system import quotas

ROOT = Path(__file__).parents[2]
QUOTA_MICROSECONDS, PERIOD_MICROSECONDS = 30_000, 100_000

MEASURED = """
import json, sys, time
from harness.doctor.inspection import measure_pace
from harness.core import system
from harness.machine.facts import facts
from harness.machine.other_load import Neighbours, held_back
with open(sys.argv[1] + "/cgroup.procs", "w") as group:
    group.write("0")
before, ends = system.throttled_seconds(), time.monotonic() + 60
with Neighbours() as found:
    while held_back(before, system.throttled_seconds()) < 0.1 and time.monotonic() < ends:
        pass
print(json.dumps([facts()["processor_quota"], vars(found.load), measure_pace(0.3).throttled]))
"""
"""Works until a tenth of a second of work has been held back, as long as that takes beside what else runs here."""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a quota, below the one that this process is in."""
    around = next(iter(quotas._groups(quotas.ROOT, "cpu")), None)
    if around is None:
        pytest.skip("this system has no control groups for processors")
    folder = around / f"harness-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        if (folder / "cpu.cfs_quota_us").exists():
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS), encoding="ascii")
            (folder / "cpu.cfs_quota_us").write_text(str(QUOTA_MICROSECONDS), encoding="ascii")
        elif (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text(f"{QUOTA_MICROSECONDS} {PERIOD_MICROSECONDS}", encoding="ascii")
        else:
            pytest.skip("the group around this process gives no control of processors to those below")
        yield folder
    finally:
        folder.rmdir()


def test_a_process_in_a_group_with_a_quota_knows_it_and_what_it_held_back(group: Path) -> None:
    command = [sys.executable, "-c", MEASURED, str(group)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    quota, load, held_back_in_the_loop = told
    assert quota == 0.3
    assert load["throttled_processors"] > 0
    assert held_back_in_the_loop is not None
