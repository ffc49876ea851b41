"""The judgement of synchronisation, on times that are made up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core import codec
from harness.core.cell import Target
from harness.core.messages import ClaimedEnd, Closed, HostReady, Open, Opened, Synchronised, Synchrony
from harness.core.model import Dense, Flatten, ModelSpec
from harness.proof import synchrony
from harness.proof.synchrony import Synchronisation, figures

STEP, READ_BACK = 0.010, 0.002
COUNTS, CONTROL, REPEATS = (3, 6, 12, 24), 12, 5


def measured(
    fixed: float = 0.0,
    hidden: int = 0,
    enqueued: float = 0.0,
    control_seen: float = 1.0,
    missing: int = 0,
    noise: float = 0.0,
    load: float = 0.0,
    seed: int = 0,
) -> Synchronised:
    """What a worker would say.

    ``fixed``: seconds of every block at no steps. ``hidden``: steps that a block's end does not wait for.
    ``enqueued``: share of its work that a control does within the call; of the rest ``control_seen`` shows.
    ``load``: how likely a block takes up to three times as long, because the machine does something else.
    """
    generator = np.random.default_rng(seed)

    def taking(seconds: float) -> float:
        return seconds * float(np.exp(noise * generator.standard_normal()))

    def read_back(steps: float) -> float:
        return taking(READ_BACK) + taking(steps * STEP)

    blocks, controls = [], []
    for repeat in range(REPEATS):
        for steps in COUNTS if repeat % 2 == 0 else COUNTS[::-1]:
            late = min(hidden, steps)
            beside = generator.uniform(1, 3) if generator.random() < load else 1.0
            seconds = beside * taking(fixed + (steps - late) * STEP + 1e-5)
            blocks.append(ClaimedEnd(steps, seconds, read_back(late), missing))
        rest = (1 - enqueued) * CONTROL * control_seen
        controls.append(ClaimedEnd(CONTROL, taking(enqueued * CONTROL * STEP + 1e-5), read_back(rest), 0))
    return Synchronised(blocks, controls, [taking(READ_BACK) for _ in range(REPEATS)])


def judged(**changes: float) -> Synchronisation:
    return Synchronisation("target:mode", figures(measured(**changes)))  # type: ignore[arg-type]


def believed(seed: int, lost: float = 0.0, **changes: float) -> Synchronisation:
    """After as many attempts as it takes, each with its own noise, while others take ``lost`` processors."""
    seeds = itertools.count(seed * synchrony.ATTEMPTS)
    return synchrony.believed("target", lambda: measured(**changes, seed=next(seeds)), lambda: lost)  # type: ignore[arg-type]


def test_an_asynchronous_framework_that_waits_passes() -> None:
    found = figures(measured())
    assert found.step_seconds == pytest.approx(STEP)
    assert found.intercept == pytest.approx(0, abs=1e-3)
    assert found.outstanding == pytest.approx(0, abs=1e-9)
    assert found.control_outstanding == pytest.approx(1, abs=1e-3)
    assert found.control_caught
    assert not found.faults


def test_a_framework_that_computes_within_the_call_passes() -> None:
    found = judged(enqueued=1.0)
    assert found.passed
    assert found.verdict == (
        "ok, nothing to catch: the framework computes within the call (unsynchronised time is 100 % of synchronised)"
    )


def test_a_control_that_is_caught_in_part_counts_as_caught() -> None:
    assert judged(enqueued=0.7).verdict == "ok: the unsynchronised control is caught"


@pytest.mark.parametrize("enqueued", [0.82, 0.9, 0.93])
def test_a_framework_that_computes_most_within_the_call_passes_where_the_rest_is_seen(enqueued: float) -> None:
    assert judged(enqueued=enqueued).verdict == (
        f"ok: the framework computes most within the call (unsynchronised time is {100 * enqueued:.0f} % of "
        f"synchronised), and {100 - 100 * enqueued:.0f} % was seen to be outstanding"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fixed": 0.05}, "at no steps it is 17 % of the largest block's"),
        ({"hidden": 24}, "100 % of a block's work came after its end"),
        ({"hidden": 2}, "18 % of a block's work came after its end"),
        ({"hidden": 1}, "9 % of a block's work came after its end"),
        ({"missing": 1}, "1 step had no loss yet at the end of a block"),
        ({"control_seen": 0}, "took 0 % of a block's time, but only 0 % of its work was seen"),
        ({"enqueued": 0.5, "control_seen": 0}, "took 50 % of a block's time, but only 0 % of its work was seen"),
        ({"enqueued": 0.4, "control_seen": 0.5}, "took 40 % of a block's time, but only 30 % of its work was seen"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, float], reason: str) -> None:
    found = judged(**changes)
    assert not found.passed
    assert reason in found.reason
    assert found.verdict == f"FAILED: {found.reason}"


@pytest.mark.parametrize("enqueued", [0.0, 0.5, 0.93, 1.0])
def test_a_noise_of_a_tenth_seldom_fails_a_sound_target(enqueued: float) -> None:
    once = sum(not judged(enqueued=enqueued, noise=0.1, seed=seed).passed for seed in range(1000))
    assert once <= 40
    assert sum(not believed(seed, enqueued=enqueued, noise=0.1).passed for seed in range(1000)) <= 1


@pytest.mark.parametrize("enqueued", [0.0, 0.93, 1.0])
def test_a_machine_that_does_other_work_half_of_the_time_seldom_fails_a_sound_target(enqueued: float) -> None:
    once = sum(not judged(enqueued=enqueued, load=0.5, noise=0.03, seed=seed).passed for seed in range(1000))
    assert 10 <= once <= 60
    assert sum(not believed(seed, enqueued=enqueued, load=0.5, noise=0.03).passed for seed in range(1000)) <= 1


def beside_others(seed: int, fixed: float = 0.0) -> Synchronised:
    """Blocks on a machine that others never leave: of each step some are as quick as alone, some take three times."""
    generator = np.random.default_rng(seed)

    def taking(steps: int) -> float:
        return fixed + STEP * float(generator.choice([1.0, 3.0], steps).sum())

    counts = [count for _ in range(REPEATS) for count in (2, 4, 8, 16)]
    blocks = [ClaimedEnd(count, taking(count), READ_BACK, 0) for count in counts]
    controls = [ClaimedEnd(8, taking(8), READ_BACK, 0) for _ in range(REPEATS)]
    return Synchronised(blocks, controls, [READ_BACK] * REPEATS)


def test_beside_others_that_never_rest_medians_show_that_a_target_is_sound() -> None:
    def passing(lost: float, fixed: float) -> int:
        found = 0
        for seed in range(40):
            seeds = itertools.count(seed * synchrony.ATTEMPTS)
            measure = partial(_next_beside_others, seeds, fixed)
            found += synchrony.believed("target", measure, lambda: lost).passed
        return found

    assert passing(0.0, 0.0) <= 32
    assert passing(1.0, 0.0) >= 38
    assert passing(1.0, 8 * STEP) == 0


def _next_beside_others(seeds: Iterator[int], fixed: float) -> Synchronised:
    return beside_others(next(seeds), fixed)


def test_neither_hides_a_fault() -> None:
    hidden_from_the_look = (
        {"control_seen": 0.0},
        {"enqueued": 0.5, "control_seen": 0.0},
        {"enqueued": 0.2, "control_seen": 0.4},
    )
    for changes in ({"fixed": 0.1}, {"hidden": 2}, *hidden_from_the_look):
        for disturbed in ({"noise": 0.1}, {"load": 0.5, "noise": 0.03}):
            assert not any(judged(**changes, **disturbed, seed=seed).passed for seed in range(300)), (
                changes,
                disturbed,
            )
            for lost, seeds in ((0.0, 100), (1.0, 30)):
                found = [believed(seed, lost=lost, **changes, **disturbed) for seed in range(seeds)]
                assert not any(one.passed for one in found), (changes, disturbed, lost)


def test_a_failure_is_believed_after_the_last_attempt_and_a_pass_at_once() -> None:
    asked: list[float] = []

    def measure(fixed: float) -> Synchronised:
        asked.append(fixed)
        return measured(fixed=fixed)

    assert not synchrony.believed("target", lambda: measure(0.1)).passed
    assert len(asked) == synchrony.ATTEMPTS
    asked.clear()
    assert not synchrony.believed("target", lambda: measure(0.1), lambda: synchrony.OTHERS).passed
    assert len(asked) == synchrony.ATTEMPTS
    asked.clear()
    assert synchrony.believed("target", lambda: measure(0.0)).passed
    assert len(asked) == 1


def test_nothing_that_is_not_a_number_passes() -> None:
    sound = figures(measured())
    for name in ("step_seconds", "intercept", "scatter", "outstanding", "control_outstanding"):
        assert replace(sound, **{name: float("nan")}).faults, name  # type: ignore[arg-type]


def test_without_figures_there_is_a_reason() -> None:
    found = Synchronisation("target:mode", problem="worker killed during open")
    assert not found.passed
    assert found.verdict == "FAILED: worker killed during open"
    assert not Synchronisation("target:mode").passed


def test_an_outcome_survives_json() -> None:
    for found in (judged(), Synchronisation("target:mode", problem="dead")):
        assert codec.from_json(Synchronisation, json.loads(json.dumps(codec.to_json(found)))) == found


@pytest.mark.parametrize("step_seconds", [0.0, 1e-5, 1e-3, 0.02, 3.0])
@pytest.mark.parametrize(("steps", "at_once"), [(1993, 1), (97656, 1), (1993, 7), (97656, 32)])
def test_the_measurement_stays_within_the_epoch(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, steps: int, at_once: int
) -> None:
    asked: list[Synchrony] = []

    def answer(_: object, request: Synchrony, __: float) -> Synchronised:
        asked.append(request)
        blocks = [ClaimedEnd(count, step_seconds * count + 1e-9, 1e-9, 0) for count in request.steps]
        return Synchronised(blocks, [], [])

    monkeypatch.setattr(synchrony, "_ask", answer)
    synchrony._seconds(None, at_once, 1.0)  # type: ignore[arg-type]
    asked.append(synchrony._calibrated(None, steps // at_once, at_once, 1.0))  # type: ignore[arg-type]
    assert sum(request.repeats * (2 * at_once + sum(request.steps) + request.control) for request in asked) <= steps
    assert all(count % at_once == 0 for request in asked for count in (*request.steps, request.control))
    assert synchrony.FEWEST_REPEATS <= asked[-1].repeats <= synchrony.MOST_REPEATS
    assert asked[-1].control in asked[-1].steps
    if step_seconds >= 0.003:
        assert step_seconds * asked[-1].steps[0] >= synchrony.SMALLEST_SECONDS


class Paced:
    """A worker on a device that takes ``seconds`` for a step of ``BATCH_SIZE`` images; says what it was opened with."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.opened: list[int] = []
        self.ready = HostReady(1, 0.0, forks=False, worker={}, capabilities={})

    def open(self, request: Open, timeout: float) -> Opened:
        self.opened.append(request.cell.training.batch_size)
        self._left = request.cell.total_steps
        self._device = request.cell.target.accelerator
        return Opened(1, 0.0, 0.0, 0.0, {"accelerator": self._device})

    def ask(self, request: Synchrony, timeout: float) -> Synchronised:
        """As ``backends.loop`` does: two more steps a repeat to see what reading back takes."""
        self._left -= request.repeats * (2 + sum(request.steps) + request.control)
        assert self._left >= 0
        step = self._seconds * self.opened[-1] / synchrony.BATCH_SIZE
        blocks = [ClaimedEnd(steps, steps * step, READ_BACK, 0) for steps in request.steps] * request.repeats
        controls = [ClaimedEnd(request.control, 1e-5, request.control * step + READ_BACK, 0)] * request.repeats
        return Synchronised(blocks, controls, [READ_BACK] * request.repeats)

    def said(self) -> str:
        return ""

    def finish(self, timeout: float) -> Closed:
        return Closed(peak_memory_bytes=None, device={"parameters_on": [f"{self._device}:0"]})

    def abandon(self) -> None:
        raise AssertionError("nothing fails here")


@pytest.mark.parametrize(
    ("accelerator", "seconds", "batch_sizes"),
    [
        ("tpu", 0.002, [32, 1024]),
        ("tpu", 0.027, [32, 1024]),
        ("tpu", 0.031, [32, 32]),
        ("tpu", 2.0, [32, 32]),
        ("cpu", 2.0, [32]),
    ],
)
def test_the_clock_of_a_slow_device_is_checked_on_small_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerator: str, seconds: float, batch_sizes: list[int]
) -> None:
    for name in ("IMAGE_BYTES", "GPU_IMAGE_BYTES"):
        monkeypatch.setattr(synchrony, name, 40_000_000)
    model = ModelSpec("small", (4, 4, 1), (Flatten(), Dense(3)))
    target = Target("paced", "paced", accelerator, "graph", "resident", "python:some")
    worker: Any = Paced(seconds)
    found = synchrony.check(target, model, lambda: worker, tmp_path / "files", 60.0)
    assert found.passed, found.reason
    assert worker.opened == batch_sizes
