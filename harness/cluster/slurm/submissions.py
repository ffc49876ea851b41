"""The job arrays of a run, as files in its folder, and submitting the heats that no job has.

    RUN/slurm/0001.json     what was submitted; written before sbatch is called
    RUN/slurm/0001.tasks    line N: the heats of task N
    RUN/slurm/0001.sh       the script
    RUN/slurm/0001.job      the array's job id, written by the submitter and by the first task that starts
    RUN/logs/slurm/         what the tasks wrote

A submitter may be killed at any line. What it wrote first has a name of its own, by which the array is found in the
queue; an array that is not there, and of which no task has started, was never submitted. Should two arrays hold one
heat all the same, its claim lets one of them run it.

That a queue does not tell of a task says little: it may not know it yet, or not for a moment. A task is FORGOTTEN only
a while after it was submitted, and if it was missing from every one of several answers.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness import refusals
from harness.cluster.slurm import programs
from harness.cluster.slurm.options import SlurmOptions
from harness.cluster.slurm.programs import SlurmJob, Task
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import StoreError
from harness.paths import CACHE_VARIABLE
from harness.plan.plan import by_place, packed
from harness.runs import files as runs_files
from harness.runs.folder import Run

FOLDER = "slurm"
LOGS = "slurm"

GRACE = 120.0
"""Seconds after its submission in which a job that Slurm does not tell of is one that it does not know yet."""

LOOKS, LOOK_SECONDS = 3, 5.0
"""How many answers a task has to be missing from until it is forgotten, and the seconds from one to the next."""

UNFINISHED = frozenset({"interrupted"})
"""Statuses of records that a task replaces."""

PYTHON_PATH = "PYTHONPATH"

CLUSTERS_FLAGS = ("--clusters=", "--cluster=")


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

    @property
    def clusters(self) -> str:
        """Where it was submitted, as sbatch was told: one cluster or several; empty for this machine's own."""
        named = [one.partition("=")[2] for one in self.arguments if one.startswith(CLUSTERS_FLAGS)]
        return named[-1] if named else ""


@dataclass(frozen=True)
class Standing:
    """How the heats of a run stand with Slurm.

    ``jobs``: submission number -> job. ``states``: (job, index) -> task. ``young``: jobs that Slurm need not know yet.
    """

    submissions: tuple[Submission, ...]
    jobs: Mapping[int, SlurmJob]
    states: Mapping[tuple[SlurmJob, int], Task]
    young: frozenset[SlurmJob] = frozenset()

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
        return self.task_of(submission, index)

    def task_of(self, submission: Submission, index: int) -> Task:
        """One task of an array that has a job."""
        job = self.jobs[submission.number]
        unknown = Task(job, index, UNSEEN, UNSEEN_REASON) if job in self.young else Task(job, index, FORGOTTEN)
        return self.states.get((job, index), unknown)

    @cached_property
    def live(self) -> frozenset[int]:
        """Heats that a task has which runs or will run."""
        tasks = {heat: self.task(heat) for heat in self.placed}
        return frozenset(heat for heat, task in tasks.items() if not task.ended and task.state != FORGOTTEN)

    @property
    def live_jobs(self) -> list[SlurmJob]:
        """Arrays of which a task runs or waits."""
        told = [job for (job, _), task in self.states.items() if not task.ended]
        return list(dict.fromkeys([*told, *self.unseen_jobs]))

    @property
    def unseen_jobs(self) -> list[SlurmJob]:
        """Arrays of which Slurm tells nothing yet."""
        seen = {job for job, _ in self.states}
        return sorted(self.young - seen, key=str)


FORGOTTEN = "FORGOTTEN"
"""Of a task that neither the controller nor an accounting knows any more: nothing is known of its end."""

UNSEEN = "UNSEEN"
"""Of a task that they do not know yet."""

UNSEEN_REASON = "not in the queue yet"


def is_used(run: Run) -> bool:
    """Whether anything of a run was ever submitted."""
    return (run.folder / FOLDER).is_dir()


def standing(run: Run) -> Standing:
    """Ask Slurm, again where it does not tell of a task whose cells have no record.

    Raises SchedulerError where it gives no answer, StoreError for damaged files.
    """
    told = _look(run)
    for _ in range(LOOKS - 1):
        if not _misses(run, told):
            break
        time.sleep(LOOK_SECONDS)
        again = _look(run)
        told = replace(again, states={**told.states, **again.states})
    return told


def _look(run: Run) -> Standing:
    """One answer."""
    found = _submissions(run)
    noted = {one.number: job for one in found if (job := _job(run, one)) is not None}
    names: dict[str, list[str]] = {}
    for one in found:
        names.setdefault(noted[one.number].cluster if one.number in noted else one.clusters, []).append(one.name)
    states = {key: task for clusters, some in names.items() for key, task in programs.queue(some, clusters).items()}
    by_name = {task.name: task.job for task in states.values()}
    jobs = {one.number: job for one in found if (job := by_name.get(one.name, noted.get(one.number))) is not None}
    for number in jobs.keys() - noted.keys():
        with suppress(StoreError):  # reading needs no writing: its name finds it again
            _note(run, number, jobs[number])
    missed = [
        one
        for one in found
        if one.number in jobs and not all((jobs[one.number], index) in states for index in range(len(one.tasks)))
    ]
    states = {**programs.accounted([jobs[one.number] for one in missed]), **states}
    young = frozenset(jobs[one.number] for one in missed if _is_young(run, one))
    return Standing(found, jobs, states, young)


def _misses(run: Run, told: Standing) -> bool:
    """Whether Slurm does not tell of a task that should have left records."""
    heats = (run.plan.heats[heat] for heat in told.placed if told.task(heat).state == FORGOTTEN)
    return any(run.waiting(heat.cells) for heat in heats)


def _is_young(run: Run, submission: Submission) -> bool:
    """Whether it was submitted just now, and has something left to do of which no record was made since."""
    with suppress(OSError):
        submitted = _job_file(run, submission.number).stat().st_mtime
        if time.time() - submitted < GRACE:
            cells = [cell for heats in submission.tasks for heat in heats for cell in run.plan.heats[heat].cells]
            return any(run.saved_at(cell.cell_id) < submitted for cell in run.waiting(cells, UNFINISHED))
    return False


def submit(run: Run, waiting: Iterable[Cell], options: Mapping[str, SlurmOptions], told: Standing) -> list[Submission]:
    """Submit the heats with a waiting cell that no live task has; returns the new arrays.

    ``options``: place -> what to ask for. Raises SchedulerError with what sbatch said: arrays before that are in.
    """
    numbers = by_place(run.plan, waiting).items()
    free = {place: [heat for heat in heats if heat not in told.live] for place, heats in numbers}
    due = {place: heats for place, heats in free.items() if heats}
    made: list[Submission] = []
    number = max((one.number for one in told.submissions), default=0)
    for place, heats in due.items():
        wanted = options[place]
        largest = programs.largest_array(wanted.clusters)
        tasks = packed(run.plan, heats, wanted.heats_per_task)
        for start in range(0, len(tasks), largest):
            number += 1
            made.append(_submit_one(run, number, wanted, tasks[start : start + largest]))
    return made


def task_log(run: Run, task: Task) -> Path:
    """What a task wrote."""
    return run.logs_folder / LOGS / f"{task.label}.log"


def _submit_one(run: Run, number: int, options: SlurmOptions, tasks: Sequence[tuple[int, ...]]) -> Submission:
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
        # Written down even where a variable says it: whoever asks later may not have that.
        *([f"{CLUSTERS_FLAGS[0]}{options.clusters}"] if options.clusters else []),
        *(one for one in options.arguments() if not one.startswith(CLUSTERS_FLAGS)),
    )
    submission = Submission(number, name, tuple(labels), options.summary(), arguments, tuple(tasks))
    try:
        base.parent.mkdir(exist_ok=True)
        logs.mkdir(parents=True, exist_ok=True)
        codec.write_atomically(base.with_suffix(".tasks"), "".join(f"{' '.join(map(str, one))}\n" for one in tasks))
        codec.write_atomically(base.with_suffix(".sh"), _script(run, base, submission, options.setup))
        codec.write_json(base.with_suffix(".json"), submission)
    except OSError as error:
        raise refusals.unwritable(base.parent, error) from error
    _note(run, number, programs.submit(arguments, str(base.with_suffix(".sh"))))
    return submission


def _script(run: Run, base: Path, submission: Submission, setup: str) -> str:
    cache, path, job_file = os.environ.get(CACHE_VARIABLE), os.environ.get(PYTHON_PATH), f"{shlex.quote(str(base))}.job"
    # Only there: a cluster that was not named may not be known by its name.
    cluster = "${SLURM_CLUSTER_NAME:+;$SLURM_CLUSTER_NAME}" if submission.clusters else ""
    lines = [
        "#!/bin/bash -l" if setup else "#!/bin/bash",
        f"# One task of an array: the heats in its line of {base.name}.tasks. Cells that have their record are not run",
        "# again, so this may be started any number of times. Submitted with:",
        f"# {shlex.join(['sbatch', *submission.arguments, str(base.with_suffix('.sh'))])}",
        f"cd {shlex.quote(os.getcwd())} || exit 1",
        f'[ -s {job_file} ] || echo "$SLURM_ARRAY_JOB_ID{cluster}" >{job_file}',
        *([f"export {CACHE_VARIABLE}={shlex.quote(str(Path(cache).absolute()))}"] if cache else []),
        *([f"export {PYTHON_PATH}={shlex.quote(_from_anywhere(path))}"] if path else []),
        *(["{", setup.rstrip(), '} || { echo "the setup failed" >&2; exit 1; }'] if setup else []),
        f'heats=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(base))}.tasks)',
        "# Python imports from the present folder first, and a person's may hold a harness.py or a queue.py.",
        f"cd {shlex.quote(str(base.parent))} || exit 1",
        f"exec {shlex.quote(sys.executable)} -m harness heat {shlex.quote(str(run.folder))} $heats",
    ]
    return "\n".join(lines) + "\n"


def _from_anywhere(path: str) -> str:
    """Folders of PYTHONPATH as they are in another present folder; an empty one, which is the present, is left out."""
    return os.pathsep.join(os.path.abspath(folder) for folder in path.split(os.pathsep) if folder)


def _literal(path: Path) -> str:
    """A path in which sbatch is to replace nothing."""
    return str(path).replace("%", "%%")


def _submissions(run: Run) -> tuple[Submission, ...]:
    files = sorted((run.folder / FOLDER).glob("[0-9]*.json")) if is_used(run) else []
    return tuple(runs_files.read(path, Submission) for path in files)


def _job_file(run: Run, number: int) -> Path:
    return run.folder / FOLDER / f"{number:04}.job"


def _job(run: Run, submission: Submission) -> SlurmJob | None:
    """The job that is noted down; None if none is that can be read."""
    path = _job_file(run, submission.number)
    try:
        found = programs.job_in(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    return found if found is None or found.cluster else replace(found, cluster=submission.clusters)


def _note(run: Run, number: int, job: SlurmJob) -> None:
    path = _job_file(run, number)
    try:
        codec.write_atomically(path, f"{job}\n")
    except OSError as error:
        raise refusals.unwritable(path, error) from error
