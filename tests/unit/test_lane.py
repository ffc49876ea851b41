from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.messages import Block, HostReady, Opened, Train
from harness.core.model import Dense, Flatten
from harness.core.training import TrainingSpec
from harness.measure.lane import Lane
from harness.workers.cell_worker import Files
from tests.unit.builders import small_cell, small_model


class Worker:
    """Answers at once; between two blocks its process uses ``idle`` seconds of a processor.

    Where it is asked to rest after a block it takes ``rest`` seconds for that.
    """

    ready = HostReady(1, 0.1, False, {}, {})

    def __init__(self, idle: float, rest: float = 0.0) -> None:
        self.idle = idle
        self.rest = rest
        self.asked: list[Train] = []

    def open(self, request: Any, timeout: float) -> Opened:
        return Opened(1, 0.0, 0.0, 0.0, {"device": "cpu", "platform": "cpu"})

    def ask(self, request: Train, timeout: float) -> Block:
        self.asked.append(request)
        losses, rest = [1.0] * (request.settle + request.steps), self.rest if request.rest else 0.0
        return Block(request.steps, 0.0, 0.001, 0.001, losses, request.settle, 0.0, self.idle, rest_seconds=rest)

    def said(self) -> str:
        return ""

    def post(self, request: Any) -> None:
        raise AssertionError("nothing opens together here")

    finish = abandon = post


def warm_lane(worker: Worker, turns: int) -> Lane:
    """A lane with steps for so many turns, and some more."""
    cell = small_cell(small_model(Flatten(), Dense(3)), train_examples=4 * (turns + 5))
    lane = Lane(cell, worker, Files(*[Path(name) for name in "abcd"]), 1.0, evaluates=False)
    assert lane.open(), lane.record({}, "", 1, "").reason
    while lane.warming:
        assert lane.advance()
    return lane


def idle_share(idle: float, turns: int, seconds: float, rest: float = 0.0) -> float | None:
    lane = warm_lane(Worker(idle, rest), turns)
    for number in range(turns):
        assert lane.turn(number, 1, 0) is not None
    return lane.idle_share(seconds)


def test_a_turn_s_own_cost_is_no_idling_however_short_the_others_turns_are() -> None:
    assert idle_share(0.0005, turns=150, seconds=1.5) == 0.0


def test_a_worker_that_spins_while_it_waits_is_seen_beside_short_turns_and_long_ones() -> None:
    for turn in (0.005, 0.1):
        share = idle_share(turn, turns=250, seconds=250 * (turn + 0.001))
        assert share == pytest.approx((turn - 0.001) / turn, rel=0.02)


def test_the_time_until_a_process_is_at_rest_is_none_in_which_it_waits() -> None:
    assert idle_share(0.011, turns=100, seconds=100 * 0.101, rest=0.05) == pytest.approx(0.01 / 0.05, rel=0.02)


def test_a_worker_rests_after_its_turn_and_after_warming_up_and_goes_right_on_where_it_is_alone() -> None:
    worker = Worker(0.0, rest=0.0001)
    lane = warm_lane(worker, turns=4)
    assert lane.rest_share == pytest.approx(0.0001 / 0.001, rel=1)
    lane.turn(0, 1, 1)
    assert [request.rest for request in worker.asked] == [True] * len(worker.asked)
    worker.asked.clear()
    lane.advance()
    assert [request.rest for request in worker.asked] == [False]
    assert len(lane.record({}, "", 1, "").blocks.rest_seconds) == len(lane.record({}, "", 1, "").blocks.seconds)


def test_an_epoch_of_one_step_is_timed_without_one_before_it() -> None:
    cell = small_cell(small_model(Flatten(), Dense(3)), TrainingSpec(batch_size=4, epochs=9), train_examples=4)
    lane = Lane(cell, Worker(0.0), Files(*[Path(name) for name in "abcd"]), 1.0, evaluates=False)
    assert lane.open()
    while lane.warming:
        assert lane.advance()
    block = lane.turn(0, 1, 1)
    assert block is not None
    assert (block.settle, block.steps) == (0, 1)
    assert lane.record({}, "", 1, "").blocks.kind[-1] == "train"


def test_of_a_lane_that_hardly_waited_nothing_is_said() -> None:
    assert idle_share(0.0005, turns=10, seconds=0.5) is None
