"""Looking at the machine and at targets: the facts that ``harness.doctor.rules`` judges.

Nothing is built or downloaded, and no framework is imported: an interpreter is asked for its packages by their
metadata, and for libraries of the system by loading them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harness.cache import room
from harness.core import system
from harness.core.errors import EnvironmentBuildError, WrongDevice
from harness.core.told import asked
from harness.core.variables import shown_devices
from harness.doctor import cache, requirements
from harness.doctor.rules import Cache, Examined, Gpu, Machine, Pace
from harness.machine import facts as machine_facts
from harness.machine import nvidia
from harness.machine.other_load import held_back
from harness.paths import cache_place
from harness.plan.targets import DEVICE, TargetDefinition
from harness.workers import environments
from harness.workers.interpreters import NOT_FROM_HERE, clean_variables, uv_binary

PACE_SECONDS = 0.8
"""How long the empty loop runs: some four hundred blocks."""

BLOCK_SECONDS = 0.002
"""The length of the blocks that a comparison is made of."""

CALIBRATION_TURNS, CALIBRATIONS = 20_000, 5
NORMAL = 1.4826
"""Standard deviations per median absolute deviation, of a normal distribution."""

ANSWER_SECONDS = 120
"""How long an interpreter may take to list its packages, from cold files on a network disk."""

_PACKAGES = """
import importlib.util, json, os, re
from importlib import metadata
answer = {"packages": {}, "cuda_build": None}
for found in metadata.distributions():
    if found.metadata["Name"]:
        answer["packages"].setdefault(found.metadata["Name"], found.version)
place = importlib.util.find_spec("tensorflow")
if place is not None and place.origin:
    file = os.path.join(os.path.dirname(place.origin), "python", "platform", "build_info.py")
    if os.path.exists(file):
        with open(file, encoding="utf-8") as lines:
            said = re.search(r"'is_cuda_build', (True|False)", lines.read())
        answer["cuda_build"] = said and said.group(1) == "True"
print(json.dumps(answer))
"""
"""What TensorFlow says of its build stands in a file: importing it all would take ten seconds."""

_LOADING = """
import ctypes, json
missing = []
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name, winmode=0)
    except OSError:
        missing.append(name)
print(json.dumps(missing))
"""
"""``winmode=0``: look along the PATH on Windows, as TensorFlow does."""


def look_at_machine() -> Machine:
    """Everything about the machine; takes about a second, most of it for the pace."""
    return Machine(
        processor=machine_facts.facts(),
        load=machine_facts.load(),
        pace=measure_pace(PACE_SECONDS),
        platform=system.platform_name(),
        scaling=system.governor_driver(),
        wsl=system.wsl_version(),
        uv=_problem_of_uv(),
        driver=nvidia.driver_version(),
        gpus=tuple(
            Gpu(device.index, device.name, device.memory_bytes, _names(nvidia.processes(device.index) or ()))
            for device in nvidia.devices()
        ),
        directml=system.missing_for_directml(),
        cache=look_at_cache(),
    )


def look_at_target(definition: TargetDefinition) -> Examined:
    """One target: its environment, packages, and the libraries of the system that it needs.

    Raises UsageError: the lock file cannot be read; EnvironmentBuildError: the cache folder cannot be used.
    """
    common: dict[str, Any] = {
        "name": definition.name,
        "backend": definition.backend,
        "accelerator": definition.accelerator,
        "interpreter": definition.interpreter or "",
        "source": definition.source,
    }
    try:
        found = environments.inspect(definition)
    except EnvironmentBuildError:
        if not _problem_of_uv():
            raise
        return Examined(**common, environment="no uv")
    if found.state == "unavailable":
        return Examined(**common, environment=found.state, detail=found.detail)
    is_built = found.state == "ready"
    own, hidden = _variables(definition)
    variables = {**clean_variables(), **own}
    answer = _ask(found.python, _PACKAGES, (), variables) if is_built else None
    if isinstance(answer, dict):
        packages = {requirements.normalised(name): version for name, version in answer["packages"].items()}
    else:
        packages = {} if definition.lock is None else requirements.locked_packages(_text(definition.lock))
    toolkits = requirements.system_libraries(
        definition.backend, definition.accelerator, packages, system.platform_name()
    )
    files = [file for toolkit in toolkits for file in toolkit.files]
    # Any Python loads them as well as the target's own will, but for folders that only its own knows.
    missing = _ask(found.python if is_built else Path(sys.executable), _LOADING, files, variables) if files else []
    return Examined(
        **common,
        environment=found.state,
        detail=found.detail,
        folder=str(found.folder or ""),
        packages=packages,
        cuda_build=answer["cuda_build"] if isinstance(answer, dict) else None,
        missing=tuple(missing or ()),
        hidden=hidden,
        shown=_shown(definition),
    )


def look_at_cache() -> Cache:
    """The user's cache, which is not made if it is not there. Raises OSError where a file is in the way."""
    folder = cache_place()
    existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    return Cache(str(folder), cache.size(folder), room.free_bytes(folder), os.access(existing, os.W_OK))


def measure_pace(seconds: float) -> Pace:
    """Run an empty loop in blocks of 2 ms on one processor, and see how much neighbouring blocks differ."""
    # The quickest of several: the first are slow, before the interpreter has adapted to the loop.
    quickest = min(_loop(CALIBRATION_TURNS) for _ in range(CALIBRATIONS))
    turns = max(round(CALIBRATION_TURNS * BLOCK_SECONDS / quickest), 1)
    stolen, throttled, began = system.stolen_seconds(), system.throttled_seconds(), time.perf_counter()
    times: list[float] = []
    while time.perf_counter() - began < seconds or len(times) < 3:
        times.append(_loop(turns))
    took = time.perf_counter() - began
    stolen_after, throttled_after = system.stolen_seconds(), system.throttled_seconds()
    share = None
    if stolen is not None and stolen_after is not None:
        share = max(stolen_after - stolen, 0.0) / (took * (os.cpu_count() or 1))
    waited = held_back(throttled, throttled_after)
    ratios = [abs(math.log(after / before)) for before, after in itertools.pairwise(times)]
    return Pace(
        statistics.median(times),
        NORMAL * statistics.median(ratios),
        share,
        None if waited is None else min(waited / took, 1.0),
    )


def _loop(turns: int) -> float:
    """What an empty loop takes, in seconds, never zero."""
    start = time.perf_counter()
    for _ in range(turns):
        pass
    return max(time.perf_counter() - start, 1e-9)


def _ask(python: Path, question: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Any:
    """What an interpreter prints as JSON; None if it gives no such answer."""
    try:
        done = subprocess.run(
            [str(python), "-c", NOT_FROM_HERE + question, *arguments],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_SECONDS,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return None


def _variables(definition: TargetDefinition) -> tuple[dict[str, str], str]:
    """The worker's variables, and why its device is hidden from it, if it is."""
    try:
        return definition.variables(definition.device, os.environ), ""
    except WrongDevice as error:
        return {}, str(error)


def _shown(definition: TargetDefinition) -> int | None:
    """How many devices this process's variables leave to the target; None where they hide none."""
    chosen_by = (name for name, value in definition.env.items() if value == DEVICE)
    shown = [found for name in chosen_by if (found := shown_devices(name, os.environ.get(name))) is not None]
    return min(map(len, shown), default=None)


def _problem_of_uv() -> str:
    try:
        uv_binary()
    except EnvironmentBuildError as error:
        return str(error)
    return ""


def _names(processes: Sequence[int]) -> tuple[str, ...]:
    """``python (4711)``, or the bare number of a process that has gone or may not be looked at."""
    named = ((number, asked(partial(_name, number))[0]) for number in processes)
    return tuple(f"{name} ({number})" if name else str(number) for number, name in named)


def _name(process: int) -> str:
    return str(psutil.Process(process).name())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
