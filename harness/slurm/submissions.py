"""The job arrays of a run, as files in its folder, and submitting the heats that no job has.

    RUN/slurm/0001.json     what was submitted; written before sbatch is called
    RUN/slurm/0001.tasks    line N: the heats of task N
    RUN/slurm/0001.sh       the script
    RUN/slurm/0001.job      the array's job id, written by the submitter and by the first task that starts
    RUN/logs/slurm/         what the tasks wrote

A submitter may be killed at any line. What it wrote first has a name of its own, by which the array is found in the
queue; an array that is not there, and of which no task has started, was never submitted. Should two arrays hold one
heat all the same, its claim lets one of them run it.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import runfiles
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import StoreError
from harness.paths import CACHE_VARIABLE
from harness.plan import by_place, packed
from harness.slurm import programs
from harness.slurm.options import Options
from harness.slurm.programs import Task
from harness.store import Run

FOLDER = "slurm"
LOGS = "slurm"


@dataclass(frozen=True)
class Submission:
    """One array. ``name`` is that of its jobs; ``tasks`` the heats of each; ``targets`` whose hardware it asks for.

    ``hardware``: the options that tell it from another, in words.
    """

    number: int
    name: str
    targets: tuple[str, ...]
    hardware: str
    arguments: tuple[str, ...]
    tasks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Standing:
    """How the heats of a run stand with Slurm.

    ``jobs``: submission number -> job id. ``states``: (job, index) -> task.
    """

    submissions: tuple[Submission, ...]
    jobs: Mapping[int, str]
    states: Mapping[tuple[str, int], Task]

    @cached_property
    def placed(self) -> dict[int, tuple[Submission, int]]:
        """Heat -> the latest array that has it, and which task of it; arrays that never came to be are left out."""
        found = {}
        for submission in self.submissions:
            if submission.number in self.jobs:
                for index, heats in enumerate(submission.tasks):
                    found.update(dict.fromkeys(heats, (submission, index)))
        return found

    def task(self, heat: int) -> Task:
        """The latest task that has a heat, one of ``placed``."""
        submission, index = self.placed[heat]
        job = self.jobs[submission.number]
        return self.states.get((job, index), Task(job, index, FORGOTTEN))

    @cached_property
    def live(self) -> frozenset[int]:
        """Heats that a task has which runs or will run."""
        tasks = {heat: self.task(heat) for heat in self.placed}
        return frozenset(heat for heat, task in tasks.items() if not task.ended and task.state != FORGOTTEN)

    @property
    def live_jobs(self) -> list[str]:
        """Ids of arrays of which a task runs or waits."""
        return list(dict.fromkeys(job for (job, _), task in self.states.items() if not task.ended))


FORGOTTEN = "FORGOTTEN"
"""Of a task that neither the controller nor an accounting knows any more."""


def is_used(run: Run) -> bool:
    """Whether anything of a run was ever submitted."""
    return (run.folder / FOLDER).is_dir()


def standing(run: Run) -> Standing:
    """Ask Slurm. Raises SchedulerError where it gives no answer, StoreError for damaged files."""
    found = _submissions(run)
    states = programs.queue([one.name for one in found])
    by_name = {task.name: task.job for task in states.values()}
    jobs: dict[int, str] = {}
    for one in found:
        job = _job(run, one.number) or by_name.get(one.name, "")
        if job:
            jobs[one.number] = job
            _note(run, one.number, job)
    forgotten = [
        jobs[one.number] for one in found if one.number in jobs and (jobs[one.number], len(one.tasks) - 1) not in states
    ]
    return Standing(found, jobs, {**programs.accounted(forgotten), **states})


def submit(run: Run, waiting: Iterable[Cell], options: Mapping[str, Options], told: Standing) -> list[Submission]:
    """Submit the heats with a waiting cell that no live task has; returns the new arrays.

    ``options``: place -> what to ask for. Raises SchedulerError with what sbatch said: arrays before that are in.
    """
    numbers = by_place(run.plan, waiting).items()
    free = {place: [heat for heat in heats if heat not in told.live] for place, heats in numbers}
    due = {place: heats for place, heats in free.items() if heats}
    largest = programs.largest_array() if due else 0
    made: list[Submission] = []
    number = max((one.number for one in told.submissions), default=0)
    for place, heats in due.items():
        wanted = options[place]
        tasks = packed(run.plan, heats, wanted.heats_per_task)
        for start in range(0, len(tasks), largest):
            number += 1
            made.append(_submit_one(run, number, wanted, tasks[start : start + largest]))
    return made


def task_log(run: Run, task: Task) -> Path:
    """What a task wrote."""
    return run.logs_folder / LOGS / f"{task.label}.log"


def _submit_one(run: Run, number: int, options: Options, tasks: Sequence[tuple[int, ...]]) -> Submission:
    base, logs = run.folder / FOLDER / f"{number:04}", run.logs_folder / LOGS
    labels = dict.fromkeys(
        cell.target.label for heats in tasks for heat in heats for cell in run.plan.heats[heat].cells
    )
    name = f"harness-{run.plan.name}-{secrets.token_hex(4)}"
    throttle = f"%{options.concurrent}" if options.concurrent else ""
    arguments = (
        f"--job-name={name}",
        f"--array=0-{len(tasks) - 1}{throttle}",
        "--nodes=1",
        "--ntasks=1",
        f"--output={_literal(logs)}/%A_%a.log",
        "--open-mode=append",  # a task that is put back into the queue goes on in its log
        *options.arguments(),
    )
    submission = Submission(number, name, tuple(labels), options.summary(), arguments, tuple(tasks))
    try:
        base.parent.mkdir(exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)
        codec.write_atomically(base.with_suffix(".tasks"), "".join(f"{' '.join(map(str, one))}\n" for one in tasks))
        codec.write_atomically(base.with_suffix(".sh"), _script(run, base, options.setup, arguments))
        codec.write_json(base.with_suffix(".json"), submission)
    except OSError as error:
        raise runfiles.unwritable(base.parent, error) from error
    _note(run, number, programs.submit(arguments, str(base.with_suffix(".sh"))))
    return submission


def _script(run: Run, base: Path, setup: str, arguments: Sequence[str]) -> str:
    cache = os.environ.get(CACHE_VARIABLE)
    lines = [
        "#!/bin/bash -l" if setup else "#!/bin/bash",
        f"# One task of an array: the heats in its line of {base.name}.tasks. Cells that have their record are not run",
        "# again, so this may be started any number of times. Submitted with:",
        f"# {shlex.join(['sbatch', *arguments, str(base.with_suffix('.sh'))])}",
        f"cd {shlex.quote(os.getcwd())} || exit 1",
        f'[ -s {shlex.quote(str(base))}.job ] || echo "$SLURM_ARRAY_JOB_ID" >{shlex.quote(str(base))}.job',
        *([f"export {CACHE_VARIABLE}={shlex.quote(str(Path(cache).absolute()))}"] if cache else []),
        *(["{", setup.rstrip(), '} || { echo "the setup failed" >&2; exit 1; }'] if setup else []),
        f'heats=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(base))}.tasks)',
        f"exec {shlex.quote(sys.executable)} -m harness heat {shlex.quote(str(run.folder))} $heats",
    ]
    return "\n".join(lines) + "\n"


def _literal(path: Path) -> str:
    """A path in which sbatch is to replace nothing."""
    return str(path).replace("%", "%%")


def _submissions(run: Run) -> tuple[Submission, ...]:
    files = sorted((run.folder / FOLDER).glob("[0-9]*.json")) if is_used(run) else []
    return tuple(runfiles.read(path, Submission) for path in files)


def _job_file(run: Run, number: int) -> Path:
    return run.folder / FOLDER / f"{number:04}.job"


def _job(run: Run, number: int) -> str:
    """The job id that is noted down; empty if none is."""
    path = _job_file(run, number)
    try:
        return path.read_text(encoding="ascii").strip() if path.exists() else ""
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def _note(run: Run, number: int, job: str) -> None:
    path = _job_file(run, number)
    if not path.exists():
        try:
            codec.write_atomically(path, f"{job}\n")
        except OSError as error:
            raise runfiles.unwritable(path, error) from error
