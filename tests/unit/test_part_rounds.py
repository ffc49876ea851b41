"""Rounds of parts on made-up lanes: who runs what, how long blocks are, what counts, and when they end."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core import parts
from harness.core.messages import Block, Part, PartTimed
from harness.core.model import Dense, Flatten, MaxPool, ModelSpec
from harness.core.training import TrainingSpec
from harness.measure import part_rounds
from harness.measure.part_rounds import FEWEST_ROUNDS, STEP, PartRounds
from harness.measure.rounds import BLOCK_SECONDS
from harness.plan import inputs
from harness.proof import parts as part_values
from tests.unit.builders import small_cell

MODEL = ModelSpec("small", (4, 4, 1), (MaxPool((2, 2)), Flatten(), Dense(3), Dense(2)))
ASKED = parts.askable(MODEL)
RIGHT = {"output": np.ones(())}


class Clock:
    now = 0.0


class FakeLane:
    """A lane whose calls take ``seconds``. ``dies_at``: the part that ends it; ``gives``: what its parts write."""

    def __init__(self, clock: Clock, log: list[tuple[str, Any]], name: str, seconds: float, **trouble: Any) -> None:
        self.cell = small_cell(MODEL, TrainingSpec(4), train_examples=40)
        self.clock, self.log, self.name, self.seconds, self.trouble = clock, log, name, seconds, trouble
        self.status, self.reason, self.steps = "ok", "", 0
        self.step_seconds = 10 * seconds

    @property
    def running(self) -> bool:
        return self.status == "ok" and self.steps < self.trouble.get("total", 10**9)

    def part(self, request: Part) -> PartTimed | None:
        self.log.append((self.name, request))
        if self.trouble.get("dies_at") == (request.name, request.direction):
            self.status = "crashed"
            return None
        if request.output:
            inputs.save_arrays(Path(request.output), self.trouble.get("gives", RIGHT))
        taken = request.calls * self.seconds
        self.clock.now += taken
        return PartTimed(request.calls, self.clock.now, taken, 2 * taken)

    def turn(self, number: int, steps: int, settle: int) -> Block | None:
        self.log.append((self.name, STEP))
        left = self.cell.steps_per_epoch - self.steps % self.cell.steps_per_epoch
        settle, steps = (settle, min(steps, left - settle)) if left > settle else (0, left)
        self.steps += settle + steps
        taken = steps * self.step_seconds
        self.clock.now += taken
        return Block(steps, self.clock.now, taken, 2 * taken, [1.0] * (settle + steps), settle)

    def fail(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason


def lanes_of(*seconds: float, **trouble: Any) -> tuple[Clock, list[tuple[str, Any]], list[FakeLane]]:
    clock, log = Clock(), []  # type: tuple[Clock, list[tuple[str, Any]]]
    made = [FakeLane(clock, log, str(place), one) for place, one in enumerate(seconds)]
    made[-1].trouble = trouble
    return clock, log, made


def rounds_of(lanes: list[FakeLane], folder: Path) -> PartRounds:
    return PartRounds(lanes, folder)  # type: ignore[arg-type]


def test_each_lane_runs_each_part_and_a_step_in_every_round(tmp_path: Path) -> None:
    clock, log, lanes = lanes_of(0.001, 0.002, 0.003)
    turns = rounds_of(lanes, tmp_path)
    turns.take(0.0, lambda: clock.now)
    assert turns.count == FEWEST_ROUNDS
    counted = Counter((name, STEP if one == STEP else (one.name, one.direction)) for name, one in log)
    assert set(counted) == {(str(lane), asked) for lane in range(3) for asked in (*ASKED, STEP)}
    assert set(counted.values()) == {FEWEST_ROUNDS}
    for number, seconds in enumerate((0.001, 0.002, 0.003)):
        for one in turns.times(number):
            calls = 10 if one.name == parts.STEP else 1
            assert one.seconds == pytest.approx((calls * seconds,) * FEWEST_ROUNDS)
            assert one.cpu_seconds == pytest.approx((2 * calls * seconds,) * FEWEST_ROUNDS)


def test_lanes_follow_each_other_about_equally_often(tmp_path: Path) -> None:
    clock, log, lanes = lanes_of(0.001, 0.001, 0.001)
    rounds_of(lanes, tmp_path).take(0.0, lambda: clock.now)
    blocks = [[name for name, _ in log[start : start + 3]] for start in range(0, len(log), 3)]
    assert all(sorted(block) == ["0", "1", "2"] for block in blocks)
    first = Counter(block[0] for block in blocks)
    followers = Counter(pair for block in blocks for pair in pairwise(block))
    assert max(first.values()) - min(first.values()) <= 2
    assert max(followers.values()) - min(followers.values()) <= 2


def test_rounds_go_on_for_as_long_as_asked(tmp_path: Path) -> None:
    clock, _, lanes = lanes_of(0.01, 0.01, 0.01)
    turns = rounds_of(lanes, tmp_path)
    turns.take(60.0, lambda: clock.now)
    assert turns.count > FEWEST_ROUNDS
    assert turns.seconds >= 60.0


def test_blocks_are_as_long_as_the_slowest_lane_needs(tmp_path: Path) -> None:
    _, log, lanes = lanes_of(0.0001, 0.001)
    turns = rounds_of(lanes, tmp_path)
    turns.calibrate()
    log.clear()
    turns.take(0.0, lambda: 0.0)
    asked = [one for _, one in log if one != STEP]
    assert {one.calls for one in asked} == {round(BLOCK_SECONDS / 0.001)}
    assert {one.settle for one in asked} == {1}
    assert turns.step.calls == 1  # a step of the slower lane takes 10 ms


def test_long_calls_need_none_before_them(tmp_path: Path) -> None:
    _, _, lanes = lanes_of(1.0, 1.0)
    turns = rounds_of(lanes, tmp_path)
    turns.calibrate()
    assert (turns.step.calls, turns.step.settle) == (1, 0)


def test_the_last_steps_of_an_epoch_that_cannot_settle_do_not_count(tmp_path: Path) -> None:
    _, _, lanes = lanes_of(0.001)
    turns = rounds_of(lanes, tmp_path)
    lanes[0].steps = 9  # one step is left of ten
    turns.take(0.0, lambda: 0.0)
    [step] = [one for one in turns.times(0) if one.name == parts.STEP]
    assert step.seconds[0] is None
    assert all(step.seconds[1:])


def test_a_lane_that_fails_ends_the_rounds(tmp_path: Path) -> None:
    _, _, lanes = lanes_of(0.001, 0.001, dies_at=("03_dense", "both"))
    turns = rounds_of(lanes, tmp_path)
    turns.take(0.0, lambda: 0.0)
    assert turns.count == 1
    assert not turns.running


def test_rounds_end_with_the_training(tmp_path: Path) -> None:
    _, _, lanes = lanes_of(0.001, 0.001, total=4)
    turns = rounds_of(lanes, tmp_path)
    turns.take(0.0, lambda: 0.0)
    assert 0 < turns.count < FEWEST_ROUNDS


def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for ``proof.parts``: outputs must be equal."""

    def compare(cell: Any, name: str, direction: str, drawn: Any, expected: Any, found: Any) -> Any:
        error = float(np.max(np.abs(found["output"] - expected["output"])))
        return (part_values.Quantity(f"{name} {direction}", error, 0.5),)

    monkeypatch.setattr(part_rounds.part_values, "compare", compare)


def test_values_are_checked_before_any_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(monkeypatch)
    _, log, lanes = lanes_of(0.001, 0.001)
    turns = rounds_of(lanes, tmp_path)
    turns.build(lambda asked, given: RIGHT)
    assert [len(checks) for checks in turns.checks] == [len(ASKED)] * 2
    assert {one.calls for _, one in log} == {0}
    assert list(tmp_path.iterdir()) == []


def test_a_lane_whose_values_are_too_far_has_failed_its_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(monkeypatch)
    _, log, lanes = lanes_of(0.001, 0.001, gives={"output": np.full((), 2.0)})
    turns = rounds_of(lanes, tmp_path)
    turns.build(lambda asked, given: RIGHT)
    assert (lanes[0].status, lanes[1].status) == ("ok", "parity_failed")
    assert lanes[1].reason.startswith("part of a step: dispatch forward")
    assert len(log) == 2  # no further part is built
    assert not turns.running


def test_without_a_reference_parts_are_built_only(tmp_path: Path) -> None:
    _, log, lanes = lanes_of(0.001)
    turns = rounds_of(lanes, tmp_path)
    turns.build(None)
    assert [(one.name, one.direction) for _, one in log] == list(ASKED)
    assert {one.output for _, one in log} == {""}
    assert turns.checks == [[]]
