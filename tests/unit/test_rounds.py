from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from harness.core.messages import Block
from harness.measure import rounds
from harness.measure.rounds import Rounds, order, take_turns


class Clock:
    """Time that lanes spend and that nothing else moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asleep = 0.0


class FakeLane:
    """A lane of ``total`` steps of ``seconds`` each; ``sleeps`` maps a round to seconds for which something stops."""

    def __init__(self, clock: Clock, name: str, seconds: float, total: int = 60, **trouble: Any) -> None:
        self.clock, self.name, self.step_seconds, self.total = clock, name, seconds, total
        self.status, self.done, self.epochs = "ok", 0, 0
        self.trouble = trouble
        self.rest_share: float = trouble.get("rest", 0.0)
        self.steps_per_call: int = trouble.get("steps_per_call", 1)
        self.turns: list[tuple[int, int, int]] = []

    @property
    def running(self) -> bool:
        return self.status == "ok" and self.done < self.total

    def turn(self, number: int, steps: int, settle: int, unit: int) -> Block | None:
        if self.trouble.get("dies") == number:
            self.status = "crashed"
            return None
        self.turns.append((number, steps, settle))
        self.done += steps + settle
        pause = self.trouble.get("pauses", {}).get(number, 0.0)
        seconds = steps * self.step_seconds + pause
        rest = self.rest_share * self.step_seconds
        self.clock.now += seconds + settle * self.step_seconds + rest + self.trouble.get("gaps", {}).get(number, 0.0)
        self.clock.asleep += self.trouble.get("suspended", {}).get(number, 0.0)
        return Block(steps, self.clock.now, seconds, 0.0, [1.0], settle, settle * self.step_seconds, rest_seconds=rest)

    def end_epoch(self) -> bool:
        self.epochs += 1
        return True


def turns_of(clock: Clock, *lanes: FakeLane, **limits: Any) -> Rounds:
    made = Rounds()
    take_turns(lanes, made, clock=lambda: clock.now, suspended=lambda: clock.asleep, **limits)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("lanes", range(2, 8))
def test_order_is_balanced_for_place_and_predecessor(lanes: int) -> None:
    cycle = [order(number, lanes) for number in range(lanes if lanes % 2 == 0 else 2 * lanes)]
    places = Counter((place, lane) for row in cycle for place, lane in enumerate(row))
    followers = Counter(pair for row in cycle for pair in pairwise(row))
    assert len(places) == lanes**2
    assert len(set(places.values())) == 1
    assert len(followers) == lanes * (lanes - 1)
    assert len(set(followers.values())) == 1
    assert [order(number + len(cycle), lanes) for number in range(len(cycle))] == cycle


def test_two_lanes_go_a_b_b_a() -> None:
    assert [order(number, 2) for number in range(2)] == [(0, 1), (1, 0)]


def test_every_lane_trains_the_same_steps_to_the_end() -> None:
    clock = Clock()
    quick, slow = FakeLane(clock, "quick", 0.002), FakeLane(clock, "slow", 0.005)
    made = turns_of(clock, quick, slow)
    assert quick.turns == slow.turns
    assert quick.done == slow.done >= 60
    assert made.count == len(quick.turns)
    assert made.steps == round(rounds.BLOCK_SECONDS / 0.005)
    assert made.settle == 1
    assert quick.epochs == slow.epochs == made.count
    assert made.seconds == pytest.approx(clock.now)


def test_blocks_are_whole_calls_of_every_lane() -> None:
    clock = Clock()
    single, called = FakeLane(clock, "single", 0.0005), FakeLane(clock, "called", 0.0005, steps_per_call=6)
    other = FakeLane(clock, "other", 0.0005, steps_per_call=4)
    made = turns_of(clock, single, called, other)
    assert (made.unit, made.steps, made.settle) == (12, 12, 12)
    assert single.turns == called.turns == other.turns


def test_a_call_that_takes_long_needs_none_before_it() -> None:
    clock = Clock()
    lanes = FakeLane(clock, "a", 0.05), FakeLane(clock, "b", 0.05, steps_per_call=8)
    made = turns_of(clock, *lanes)
    assert (made.steps, made.settle) == (8, 0)


def test_a_step_that_takes_long_is_a_block_of_its_own_without_another_before_it() -> None:
    clock = Clock()
    made = turns_of(clock, FakeLane(clock, "a", 0.5, 8), FakeLane(clock, "b", 0.7, 8))
    assert (made.steps, made.settle) == (1, 0)


def test_a_long_step_that_leaves_work_behind_settles_first_so_that_the_timed_one_pays_for_as_much() -> None:
    clock = Clock()
    made = turns_of(clock, FakeLane(clock, "a", 0.5, 8), FakeLane(clock, "b", 0.7, 8, rest=0.05))
    assert (made.steps, made.settle) == (1, 1)
    alone = turns_of(clock, FakeLane(clock, "b", 0.7, 8, rest=0.05))
    assert alone.settle == 1


def test_what_a_block_leaves_to_be_done_is_no_gap() -> None:
    clock = Clock()
    made = turns_of(clock, FakeLane(clock, "a", 3.0, 8, rest=0.6), FakeLane(clock, "b", 3.0, 8))
    assert made.dropped == {}


def test_a_lane_that_dies_leaves_the_others_to_finish() -> None:
    clock = Clock()
    dying, living = FakeLane(clock, "a", 0.01, dies=3), FakeLane(clock, "b", 0.01)
    turns_of(clock, dying, living)
    assert [number for number, *_ in dying.turns] == [0, 1, 2]
    assert living.done >= 60
    assert dying.epochs == 3


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"suspended": {4: 30.0}}, "the machine was suspended for 30.0 s"),
        ({"gaps": {4: 5.0}}, "nothing ran for 5.0 s"),
        ({"pauses": {4: 8.0}}, "a block took 8.0 s"),
    ],
)
def test_a_round_in_which_the_machine_slept_is_dropped_and_counted(trouble: dict[str, Any], reason: str) -> None:
    clock = Clock()
    made = turns_of(clock, FakeLane(clock, "a", 0.01), FakeLane(clock, "b", 0.01, **trouble))
    assert made.dropped == {4: reason}


def test_a_pause_of_five_times_a_block_is_noise_and_stays() -> None:
    clock = Clock()
    made = turns_of(clock, FakeLane(clock, "a", 0.01), FakeLane(clock, "b", 0.01, pauses={4: 0.1}))
    assert made.dropped == {}


def test_rounds_stop_when_enough_is_measured() -> None:
    clock = Clock()
    lanes = FakeLane(clock, "a", 0.01, 10**6), FakeLane(clock, "b", 0.01, 10**6)
    made = turns_of(clock, *lanes, enough=lambda so_far: so_far.seconds >= 2.0)
    assert 2.0 <= made.seconds < 2.2
    assert math.isclose(made.seconds, clock.now)
