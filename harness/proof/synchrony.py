"""Whether the end of a block is the end of its work: the check of the clock that everything else rests on.

A worker times blocks of several step counts; after each it reads every parameter back, which cannot be had before
the work is done. Beside them it times controls whose end nothing waits for. Three things must hold. Time grows in
proportion to steps. Nothing is outstanding at the end of a block. And that look at what is outstanding sees it all:
what a control took and what was outstanding at its end add up to a block of as many steps, however much of it the
framework computes within the call. Where the sum falls short, some of the work was hidden from the look. If much was
outstanding the control is caught, if nothing was there is nothing to catch, and in between it is caught in part.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.errors import CellError
from harness.core.messages import ClaimedEnd, Synchronised, Synchrony
from harness.core.model import ModelSpec
from harness.core.training import TrainingSpec
from harness.machine.other_load import Load, Neighbours
from harness.plan import inputs
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder, opened
from harness.statistics import proportionality
from harness.wording import plural
from harness.workers.cell_worker import CellWorker

INTERCEPT = 0.10
"""Largest distance from proportion: the time at no steps as share of the largest block's."""

SCATTER = 0.25
"""Largest distance of a step count's least time from the straight line, as share of that time."""

OUTSTANDING = 0.05
"""Largest share of the work that may come after the end of a block."""

CAUGHT = 0.20
"""Least share of a block's work outstanding at the end of a control that counts as caught, and not in part."""

ALL_OF_IT = 0.83
"""Least time of a control and of what was outstanding at its end, together, as share of what its work takes in blocks.

In simulations with a noise of a tenth 2 % of sound controls fall below it at first, none after all attempts.
"""

MULTIPLES = (1, 2, 4, 8)
"""Step counts of the blocks, in units of ``k`` steps."""

CONTROL = 4
"""Steps of the control, in the same units."""

SMALLEST_SECONDS = 0.03
"""What ``k`` steps should take, where the cell has enough steps for it."""

MOST_REPEATS, FEWEST_REPEATS, BUDGET_SECONDS = 7, 3, 5.0
"""Repeats are as many as fit the budget, within bounds."""

CALIBRATION_UNITS, CALIBRATION_STEPS = 5, 64
"""What finding ``k`` and the read-backs may use up: multiples of the largest ``k`` that there may be, and steps."""

CALLS = 250
"""Of a target that trains several steps per call a step here is a call; so many of them are enough."""

PER_UNIT = sum(MULTIPLES) + CONTROL
"""What a repeat uses up, in units of ``k`` steps."""

ATTEMPTS = 4
"""How often is measured before a failure is believed, all attempts together: a machine may do other work meanwhile."""

OTHERS = 0.2
"""Processors that others kept busy or held back while it was measured, from which medians may show what least times do
not: where others always work, no long block escapes them, and some short ones do."""

BATCH_SIZE, GPU_BATCH_SIZE = 32, 1024
"""A GPU computes a small batch sooner than Python asks for it; then nothing is ever outstanding, and nothing proven.

One that takes ``SMALLEST_SECONDS`` for a step of the small batch does not, and would take minutes for the large one.
"""

PACE_STEPS = 3
"""Of the quickest of so many steps a device's pace is told."""

IMAGE_BYTES, GPU_IMAGE_BYTES = 200_000_000, 700_000_000
"""Of float32 images that are resident in the worker: they bound the steps of the one epoch."""


@dataclass(frozen=True)
class Figures:
    """What was measured: medians over repeats, but least times where other load, which only adds, would mislead, unless
    the machine is never without it.

    ``step_seconds``, ``intercept`` and ``scatter``: see ``statistics.proportionality``. ``outstanding``: share of the
    work that came after the end of blocks. ``missing``: steps without a loss at the end of a block. Of the quickest
    control, as shares of what as many steps take by the straight line: ``control_time`` until its end, and
    ``control_outstanding``, what came after it.
    """

    step_seconds: float
    intercept: float
    scatter: float
    outstanding: float
    missing: int
    control_outstanding: float
    control_time: float

    @property
    def control_caught(self) -> bool:
        """Whether the control was told from a block by what was outstanding at its end."""
        return self.control_outstanding >= CAUGHT

    @property
    def nothing_to_catch(self) -> bool:
        """Whether nothing was outstanding at the end of a control: the framework computes within the call."""
        return self.control_outstanding <= OUTSTANDING

    @property
    def control_whole(self) -> bool:
        """Whether what a control took and what was outstanding at its end are together all of the work."""
        return self.control_time + self.control_outstanding >= ALL_OF_IT

    @property
    def faults(self) -> tuple[str, ...]:
        """What does not hold, one phrase each."""
        found = []
        if not (self.step_seconds > 0 and abs(self.intercept) <= INTERCEPT):
            found.append(
                f"time does not grow in proportion to steps: at no steps it is {_percent(self.intercept)} "
                f"of the largest block's (allowed {_percent(INTERCEPT)})"
            )
        elif not self.scatter <= SCATTER:
            found.append(
                f"time does not grow evenly with steps: {_percent(self.scatter)} off a straight line "
                f"(allowed {_percent(SCATTER)})"
            )
        if self.missing:
            found.append(f"{plural(self.missing, 'step')} had no loss yet at the end of a block")
        if not self.outstanding <= OUTSTANDING:
            found.append(
                f"{_percent(self.outstanding)} of a block's work came after its end (allowed {_percent(OUTSTANDING)}): "
                "synchronise does not wait for it"
            )
        if not self.control_whole:
            found.append(
                f"the unsynchronised control took {_percent(self.control_time)} of a block's time, "
                f"but only {_percent(self.control_outstanding)} of its work was seen to be outstanding: "
                f"together less than {_percent(ALL_OF_IT)}"
            )
        return tuple(found)


@dataclass(frozen=True)
class Synchronisation:
    """The outcome for one target. ``problem`` is why there are no figures, the check itself having failed."""

    target: str
    figures: Figures | None = None
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether there are figures and nothing is wrong with them."""
        return self.figures is not None and not self.figures.faults

    @property
    def reason(self) -> str:
        """Why it failed, in one line; empty if it passed."""
        return self.problem or ("; ".join(self.figures.faults) if self.figures else "nothing was measured")

    @property
    def verdict(self) -> str:
        """One line for a person."""
        if self.figures is None or not self.passed:
            return f"FAILED: {self.reason}"
        if self.figures.control_caught:
            return "ok: the unsynchronised control is caught"
        share = f"unsynchronised time is {_percent(self.figures.control_time)} of synchronised"
        if self.figures.nothing_to_catch:
            return f"ok, nothing to catch: the framework computes within the call ({share})"
        rest = f"{_percent(self.figures.control_outstanding)} was seen to be outstanding"
        return f"ok: the framework computes most within the call ({share}), and {rest}"


def check(
    target: Target, model: ModelSpec, worker: Callable[[], CellWorker], folder: Path, timeout: float
) -> Synchronisation:
    """Measure and judge one target on steps of ``model``; again if it fails. ``folder`` is removed afterwards.

    ``worker`` gives the live worker; ``timeout`` is for one answer, in seconds. A CellError becomes a ``problem``.
    """
    try:
        worker().ready  # noqa: B018  # before the files are made
        probe = _probe(target, model, _batch_size(target, model, worker, folder, timeout))
        at_once = probe.cell.target.steps_per_call
        calls = probe.cell.total_steps // at_once
        with ProbeFolder(folder, probe) as files:
            request: Synchrony | None = None

            def measure() -> Synchronised:
                nonlocal request
                with opened(worker(), files.request, timeout) as (host, _):
                    _seconds(host, at_once, timeout)  # compiles
                    request = request or _calibrated(host, calls, at_once, timeout)
                    return _ask(host, request, timeout)

            neighbours = Neighbours()
            neighbours.start()
            return believed(target.label, measure, lambda: _processors_lost(neighbours.stop()))
    except CellError as error:
        return Synchronisation(target.label, problem=str(error))


def believed(
    target: str, measure: Callable[[], Synchronised], lost: Callable[[], float] = lambda: 0.0
) -> Synchronisation:
    """The judgement of what ``measure`` gives; one that is a failure waits for more of it, at most ATTEMPTS times.

    ``lost``: the processors that others have taken since the start. From OTHERS on it passes by medians as well.
    """
    rounds: list[Synchronised] = []
    while True:
        rounds.append(measure())
        found = Synchronisation(target, figures(_together(rounds)))
        if not found.passed and len(rounds) > 1 and lost() >= OTHERS:
            typical = Synchronisation(target, figures(_together(rounds), typical=True))
            found = typical if typical.passed else found
        if found.passed or len(rounds) == ATTEMPTS:
            return found


def figures(found: Synchronised, typical: bool = False) -> Figures:
    """What a worker's times say; by medians, if ``typical``, in place of least times.

    ValueError for fewer than 3 step counts, or controls no blocks match.
    """
    idle, of_each = statistics.median(found.idle_seconds), statistics.median if typical else min
    line = proportionality([block.steps for block in found.blocks], [block.seconds for block in found.blocks], of_each)
    most = max(end.steps for end in found.blocks)
    largest = of_each(end.seconds for end in found.blocks if end.steps == most)
    whole = line.intercept * largest + line.slope * found.controls[0].steps
    control_time, control_outstanding = _control(found.controls, idle, max(whole, 1e-9), typical)
    return Figures(
        step_seconds=line.slope,
        intercept=line.intercept,
        scatter=line.worst,
        outstanding=_outstanding(found.blocks, idle),
        missing=max(end.missing for end in found.blocks),
        control_outstanding=control_outstanding,
        control_time=control_time,
    )


def _processors_lost(load: Load) -> float:
    return sum(part or 0.0 for part in (load.other_processors, load.stolen_processors, load.throttled_processors))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _outstanding(ends: Sequence[ClaimedEnd], idle: float) -> float:
    """Share of the work after the end: by the time of the read-back, or by the losses missing after it."""
    seconds = late = 0.0
    missing = []
    for steps in {end.steps for end in ends}:
        alike = [end for end in ends if end.steps == steps]
        seconds += statistics.median(end.seconds for end in alike)
        late += max(statistics.median(end.late_seconds for end in alike) - idle, 0.0)
        missing.append(statistics.median(end.missing for end in alike) / steps)
    return max(late / (seconds + late), *missing)


def _control(controls: Sequence[ClaimedEnd], idle: float, whole: float, typical: bool) -> tuple[float, float]:
    """Time of the quickest control, or a ``typical`` one, and of what came after it, as shares of ``whole``."""

    def late(end: ClaimedEnd) -> float:
        return max(end.late_seconds - idle, 0.0)

    ranked = sorted(controls, key=lambda end: end.seconds + late(end))
    control = ranked[len(ranked) // 2 if typical else 0]
    missing = statistics.median(end.missing for end in controls) / control.steps
    return control.seconds / whole, max(late(control) / whole, missing)


def _together(rounds: Sequence[Synchronised]) -> Synchronised:
    """All repeats of all attempts."""
    return Synchronised(
        blocks=[block for one in rounds for block in one.blocks],
        controls=[control for one in rounds for control in one.controls],
        idle_seconds=[idle for one in rounds for idle in one.idle_seconds],
    )


def _calibrated(worker: CellWorker, calls: int, at_once: int, timeout: float) -> Synchrony:
    """What to time: finds ``k`` by doubling. ``calls``: how many, of ``at_once`` steps, the cell has."""
    largest = max((calls - CALIBRATION_STEPS) // _most_units(), 1)
    unit, seconds = 1, _seconds(worker, at_once, timeout)
    while seconds < SMALLEST_SECONDS and unit < largest:
        unit = min(2 * unit, largest)
        seconds = _seconds(worker, unit * at_once, timeout)
    fitting = math.ceil(unit * SMALLEST_SECONDS / seconds)
    unit, seconds = min(fitting, unit), seconds * min(fitting, unit) / unit
    repeats = min(max(int(BUDGET_SECONDS / (seconds * PER_UNIT)), FEWEST_REPEATS), MOST_REPEATS)
    return Synchrony([unit * at_once * multiple for multiple in MULTIPLES], unit * at_once * CONTROL, repeats)


def _seconds(worker: CellWorker, steps: int, timeout: float) -> float:
    """What a block takes until it is read back, whatever its end is claimed to be."""
    (block,) = _ask(worker, Synchrony([steps], steps, 1), timeout).blocks
    return block.seconds + block.late_seconds


def _ask(worker: CellWorker, request: Synchrony, timeout: float) -> Synchronised:
    reply = worker.ask(request, timeout)
    assert isinstance(reply, Synchronised)
    return reply


def _batch_size(
    target: Target, model: ModelSpec, worker: Callable[[], CellWorker], folder: Path, timeout: float
) -> int:
    """How many images a step trains: few on processors, and on a device whose own pace is a processor's."""
    if target.accelerator == "cpu":
        return BATCH_SIZE
    probe = _probe(target, model, BATCH_SIZE, CALIBRATION_STEPS)
    with ProbeFolder(folder, probe) as files, opened(worker(), files.request, timeout) as (host, _):
        _seconds(host, 1, timeout)  # compiles
        quickest = min(_seconds(host, 1, timeout) for _ in range(PACE_STEPS))
    return BATCH_SIZE if quickest >= SMALLEST_SECONDS else GPU_BATCH_SIZE


def _most_units() -> int:
    """What all repeats, and finding ``k``, may use up, in units of ``k`` steps."""
    return MOST_REPEATS * PER_UNIT + CALIBRATION_UNITS


def _steps(target: Target, model: ModelSpec, batch_size: int) -> int:
    """Steps whose images, all different, fit; for a slow device no more than it can use, as ``k`` is 1 there."""
    if target.accelerator != "cpu" and batch_size == BATCH_SIZE:
        return _most_units() + CALIBRATION_STEPS
    bytes_allowed = IMAGE_BYTES if target.accelerator == "cpu" else GPU_IMAGE_BYTES
    step_bytes = batch_size * math.prod(model.input_shape) * np.dtype(np.float32).itemsize
    return max(bytes_allowed // step_bytes, 1)


def _steps_per_call(target: Target, steps: int) -> int:
    """The target's, or fewer, so that there are CALLS."""
    return min(target.steps_per_call, max(steps // CALLS, 1))


def _probe(target: Target, model: ModelSpec, batch_size: int, steps: int | None = None) -> ProbeCell:
    """Random images for one epoch of whole calls, more than enough if it is not said how many ``steps``."""
    generator = np.random.default_rng(0)
    batch_size += -batch_size % target.devices
    steps = steps or _steps(target, model, batch_size)
    at_once = _steps_per_call(target, steps)
    count = steps // at_once * at_once * batch_size
    images = generator.integers(0, 256, (count, *model.input_shape), np.uint8)
    labels = generator.integers(0, model.classes, count, np.int32)
    dataset = Dataset("probe", "", count, batch_size, model.input_shape, model.classes)
    return ProbeCell(
        cell=Cell(model, TrainingSpec(batch_size), dataset, Inputs("", ""), replace(target, steps_per_call=at_once)),
        images=images,
        labels=labels,
        test_images=images[:batch_size],
        test_labels=labels[:batch_size],
        parameters=inputs.draw_parameters(model, seed=0),
        order=generator.permutation(count).astype(np.int32)[None],
    )
