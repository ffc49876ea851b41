from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.messages import Block, HostReady, Opened, Train
from harness.core.model import Dense, Flatten
from harness.lane import Files, Lane
from tests.unit.builders import small_cell, small_model


class Worker:
    """Answers at once; between two blocks its process uses ``idle`` seconds of a processor."""

    ready = HostReady(1, 0.1, False, {}, {})

    def __init__(self, idle: float) -> None:
        self.idle = idle

    def open(self, request: Any, timeout: float) -> Opened:
        return Opened(1, 0.0, 0.0, 0.0, {"device": "cpu", "platform": "cpu"})

    def ask(self, request: Train, timeout: float) -> Block:
        steps = request.settle + request.steps
        return Block(request.steps, 0.0, 0.001, 0.001, [1.0] * steps, request.settle, 0.0, self.idle)

    def said(self) -> str:
        return ""

    def post(self, request: Any) -> None:
        raise AssertionError("nothing opens together here")

    finish = abandon = post


def idle_share(idle: float, turns: int, seconds: float) -> float | None:
    cell = small_cell(small_model(Flatten(), Dense(3)), train_examples=4 * (turns + 5))
    lane = Lane(cell, Worker(idle), Files(*[Path(name) for name in "abcd"]), 1.0, evaluates=False)
    assert lane.open(), lane.record({}, "", 1, "").reason
    while lane.warming:
        assert lane.advance()
    for number in range(turns):
        assert lane.turn(number, 1, 0) is not None
    return lane.idle_share(seconds)


def test_a_turn_s_own_cost_is_no_idling_however_short_the_others_turns_are() -> None:
    assert idle_share(0.0005, turns=150, seconds=1.5) == 0.0


def test_a_worker_that_spins_while_it_waits_is_seen_beside_short_turns_and_long_ones() -> None:
    for turn in (0.005, 0.1):
        share = idle_share(turn, turns=250, seconds=250 * (turn + 0.001))
        assert share == pytest.approx((turn - 0.001) / turn, rel=0.02)


def test_of_a_lane_that_hardly_waited_nothing_is_said() -> None:
    assert idle_share(0.0005, turns=10, seconds=0.5) is None
