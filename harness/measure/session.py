"""A session with workers: environments built, hosts, the verifier with its reference, and cells run to their records.

What is to be told goes to a ``News``; nothing is printed here.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from harness import workers
from harness.cache import room
from harness.cache.keeping import Keeping
from harness.core import system
from harness.core.cell import Cell, Target
from harness.core.errors import EnvironmentBuildError, StoreError, Unsupported, UsageError
from harness.core.record import FAILED_TOO, INTERRUPTED
from harness.machine import allocation, nvidia
from harness.machine import facts as machine_facts
from harness.measure import device_limits
from harness.measure import runner as measure_runner
from harness.measure.heat import Watcher
from harness.measure.instruments import Instruments, device_facts
from harness.measure.lane import Stopped
from harness.paths import BUNDLES, LIMITS, PROOFS, cache_place
from harness.plan import inputs, targets
from harness.plan.news import News
from harness.plan.targets import TargetDefinition
from harness.proof import verifier as proof_verifier
from harness.runs import folder as run_folder
from harness.workers import environments, flags, hosts
from harness.workers.cell_worker import CellWorker

REFERENCE = "reference"
END_SLACK = timedelta(seconds=30)
"""Slurm's clock, and when it looks at it."""

DEFAULT_TARGETS = ("tensorflow-cpu", "jax-cpu")


def open_hosts(
    definitions: Mapping[str, TargetDefinition],
    problems: Mapping[str, str],
    scratch: Path,
    logs: Path,
    timeout: float,
    fork: bool = True,
    keeping: Keeping | None = None,
) -> tuple[hosts.Hosts, workers.Bundle]:
    """Hosts for the targets, and the bundle of code that they run.

    ``timeout``: the longest wait for one answer, in seconds; a first import on a cold network disk may take as long,
    and never less than is allowed it anyway.
    """
    bundle = _bundle(scratch, keeping or Keeping())

    def launch(target: Target, lane: int) -> workers.Launch:
        if target.name in problems:
            raise Unsupported(problems[target.name])
        definition = definitions[target.name]
        extra_path = () if definition.path is None else (definition.path,)
        for folder in (bundle.path, *extra_path):
            if os.pathsep in str(folder):
                raise Unsupported(f"{folder}: Python finds no module in a folder whose path holds {os.pathsep!r}")
        place = f"{target.name}-{lane}" if lane else target.name
        try:
            python = environments.ensure(definition)
        except EnvironmentBuildError as error:
            raise Unsupported(str(error)) from error
        return workers.Launch(
            python=python,
            backend=target.backend,
            bundle=bundle,
            env=definition.variables(target.device, os.environ, target.devices),
            scratch=scratch / f"host-{place}",
            log=logs / f"{place}.log",
            fork=fork,
            extra_path=extra_path,
        )

    return hosts.Hosts(launch, max(timeout, workers.START_SECONDS)), bundle


def _bundle(scratch: Path, keeping: Keeping) -> workers.Bundle:
    """From the cache; from ``scratch`` where the cache has not the present code and cannot be written."""
    cache = cache_place(BUNDLES)
    try:
        return workers.bundle(cache)
    except EnvironmentBuildError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        keeping.warn(cache, error.__cause__)
        return workers.bundle(scratch / BUNDLES)


@contextmanager
def temporary_hosts(
    definitions: Mapping[str, TargetDefinition],
    problems: Mapping[str, str],
    purpose: str,
    timeout: float,
    fork: bool = True,
    keeping: Keeping | None = None,
) -> Iterator[tuple[hosts.Hosts, workers.Bundle, Path]]:
    """As ``open_hosts``, with scratch files and logs in a folder of their own, the last value; it ends with the block.

    ``purpose`` is part of the folder's name.
    """
    with temporary_folder(purpose) as place:
        pool, bundle = open_hosts(definitions, problems, place, place, timeout, fork, keeping)
        with pool:
            yield pool, bundle, place


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder that ends with the block; ``purpose`` is part of its name. Raises StoreError where none can be made."""
    try:
        made = tempfile.TemporaryDirectory(prefix=f"harness-{purpose}-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreError(
            f"no temporary folder can be made ({error.strerror or error}); free some space, or name another folder "
            "with the environment variable TMPDIR"
        ) from error
    with made as folder:
        try:
            yield Path(folder)
        except OSError as error:
            problem = room.shortage(Path(folder))
            if not problem:
                raise
            raise StoreError(f"{problem}; the environment variable TMPDIR names another folder") from error


def every_mode(texts: Sequence[str], definitions: Mapping[str, TargetDefinition]) -> list[Target]:
    """Each named target; a name without a mode stands for all of its modes. No names: DEFAULT_TARGETS."""
    found: list[Target] = []
    for text in texts or DEFAULT_TARGETS:
        first = targets.resolve(text, definitions)
        if ":" in text:
            found.append(first)
        else:
            name, at, rest = text.partition("@")
            modes = definitions[first.name].modes
            found += [targets.resolve(f"{name}:{mode}{at}{rest}", definitions) for mode in modes]
    return list(dict.fromkeys(found))


def with_reference(definitions: Mapping[str, TargetDefinition], news: News) -> dict[str, TargetDefinition]:
    """The definitions, the reference's environment being ready.

    It needs NumPy only. So where its own environment cannot be built, as on a machine without its Python or
    without a network, it runs in the harness's own interpreter; proofs say which NumPy it had.
    """
    definition = definitions[REFERENCE]
    try:
        environments.ensure(definition, news.tell)
    except EnvironmentBuildError as error:
        news.tell(f"{error}; the reference runs in the harness's own Python instead")
        definition = replace(definition, lock=None, python_version="", interpreter=sys.executable)
    return {**definitions, REFERENCE: definition}


def build_environments(
    definitions: Mapping[str, TargetDefinition], wanted: Sequence[Target], news: News
) -> dict[str, str]:
    """Make every wanted target's environment ready; returns those that cannot be, with the reason.

    Raises UsageError for a target whose framework does not know the flags that its definition gives it.
    """
    problems: dict[str, str] = {}
    for name in dict.fromkeys(target.name for target in wanted):
        definition = definitions[name]
        try:
            python = environments.ensure(definition, news.tell)
        except EnvironmentBuildError as error:
            problems[name] = str(error)
            news.tell(f"warning: target {name} cannot be used: {error}")
            continue
        if why := flags.refused(python, definition.backend, definition.env):
            raise UsageError(f"target {name!r}: {why}")
    return problems


def open_run(
    kept: run_folder.Run,
    definitions: Mapping[str, TargetDefinition],
    wanted: Sequence[Target],
    news: News,
    timeout: float,
    fork: bool,
    scratch: Path | None = None,
    logs: Path | None = None,
) -> tuple[hosts.Hosts, proof_verifier.Verifier, Instruments]:
    """What the cells of a run folder need: the environments of ``wanted`` and of the reference, hosts, a verifier.

    And what measures beside them. ``scratch`` and ``logs``: folders other than those of the run.
    """
    scratch, logs = scratch or kept.scratch_folder, logs or kept.logs_folder
    problems = build_environments(definitions, wanted, news)
    definitions = with_reference(definitions, news)
    pool, bundle = open_hosts(definitions, problems, scratch, logs, timeout, fork, news.keeping)
    verifier = open_verifier(definitions, pool, bundle.sha256, scratch, timeout, news.keeping)
    return pool, verifier, Instruments(open_limiter(bundle.sha256, scratch, timeout, news.keeping))


def make_way(kept: run_folder.Run, cells: Sequence[Cell]) -> None:
    """Set aside the records of cells that are to be tried again elsewhere.

    Not those of interrupted ones, which a heat tries again by itself.
    """
    recorded = kept.statuses()
    for cell in cells:
        if recorded.get(cell.cell_id) in FAILED_TOO - INTERRUPTED:
            kept.set_aside(cell.cell_id)


@dataclass(frozen=True)
class Conditions:
    """What running cells of a plan takes. ``again``: statuses of records that are to make way for another attempt.

    ``scratch`` and ``logs``: folders other than those of the run.
    """

    definitions: Mapping[str, TargetDefinition]
    dataset: Path
    timeout: float
    fork: bool
    again: frozenset[str]
    scratch: Path | None = None
    logs: Path | None = None


def run_cells(
    kept: run_folder.Run,
    cells: Sequence[Cell],
    conditions: Conditions,
    news: News,
    watcher: Callable[[], AbstractContextManager[Watcher]],
) -> int:
    """Run waiting cells of the plan to their records, heat by heat. Returns how many heats others are running.

    This is what ``harness heat`` does with one heat and ``harness sweep`` with all. KeyboardInterrupt goes up when
    the records of the cells under way are saved.
    """
    require_room(kept, cells)
    wanted = [cell.target for cell in cells]
    pool, verifier, instruments = open_run(
        kept,
        conditions.definitions,
        wanted,
        news,
        conditions.timeout,
        conditions.fork,
        conditions.scratch,
        conditions.logs,
    )
    with pool, instruments, watcher() as progress, terminable():
        runner = measure_runner.Runner(
            kept,
            pool,
            verifier,
            conditions.dataset,
            conditions.timeout,
            progress,
            instruments=instruments,
            scratch=conditions.scratch,
        )
        return runner.run_planned(cells, conditions.again)


def require_room(kept: run_folder.Run, cells: Sequence[Cell]) -> None:
    """Raise StoreError, before anything is built, where the run folder's disk has no room for what cells start from."""
    to_train = [cell for cell in cells if cell.cell_id not in kept.plan.skips]
    needed = inputs.missing_bytes(kept.inputs_folder, to_train)
    room.require(kept.folder, needed, "what the cells start from (initial parameters, order of examples)")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and a terminal that has gone end a run as Ctrl-C does: the present cell is saved, the workers are ended.

    Where it comes from Slurm at the end of a job's time, the present cell ran out of time. Outside the main thread
    Python takes no signals, and nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end, ending = allocation.end(), system.ending_signals()

    def stop(number: int, frame: FrameType | None) -> None:
        for one in ending:  # a session that closes sends several, and what was measured is being saved
            signal.signal(one, _heard)
        if end is not None and datetime.now(timezone.utc) >= end - END_SLACK:
            raise Stopped("timeout", "Slurm's time limit ended it")
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in ending}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    """A signal after the first: nothing more is to be done."""


def open_verifier(
    definitions: Mapping[str, TargetDefinition],
    pool: hosts.Hosts,
    code: str,
    scratch: Path,
    timeout: float,
    keeping: Keeping | None = None,
) -> proof_verifier.Verifier:
    """A verifier that starts the reference's worker when it first needs it."""
    target = targets.resolve(REFERENCE, definitions)

    def reference() -> tuple[Target, CellWorker]:
        return target, pool.worker(target)

    return proof_verifier.Verifier(
        cache_place(PROOFS), scratch, reference, _circumstances(code), timeout, keeping or Keeping()
    )


def open_limiter(code: str, scratch: Path, timeout: float, keeping: Keeping | None = None) -> device_limits.Limiter:
    """What gives each target its device's limits, from the user's cache where they are there."""
    return device_limits.Limiter(cache_place(LIMITS), scratch, _circumstances(code), timeout, keeping or Keeping())


def _circumstances(code: str) -> dict[str, Any]:
    """What else than the target a proof and a limit depend on: a machine may come back with another GPU or driver."""
    facts = machine_facts.facts()
    gpus = [device_facts(device) for device in nvidia.devices()]
    return {"code": code, "machine": facts["id"], "processor": facts["processor"], **({"gpus": gpus} if gpus else {})}
