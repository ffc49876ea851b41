from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.messages import Block
from harness.measure.schedule import BLOCK_SECONDS, NextBlock, Schedule
from tests.unit.records import JAX, cell


def schedule(steps_per_epoch: int, epochs: int = 3, steps_per_call: int = 1) -> Schedule:
    target = replace(JAX, steps_per_call=steps_per_call)
    return Schedule(cell(4, target, epochs=epochs, examples=4 * steps_per_epoch))


def train(planned: NextBlock, schedule: Schedule) -> NextBlock:
    schedule.trained(Block(planned.steps, 0.0, 0.0, 0.0, [], planned.settle, 0.0, 0.0))
    return planned


def alone(schedule: Schedule, step: float) -> list[NextBlock]:
    """All blocks of a lane that runs alone, at ``step`` seconds a step."""
    found = []
    while not schedule.ended:
        found.append(train(schedule.next(), schedule))
        if found[-1].kind != "compile":
            schedule.calibrate(step)
    return found


def test_one_step_compiles_a_few_warm_up_and_the_rest_is_measured() -> None:
    found = alone(schedule(50), BLOCK_SECONDS / 10)
    assert [block.kind for block in found[:3]] == ["compile", "warmup", "train"]
    assert (found[0].steps, found[1].steps) == (1, 2)
    assert {block.kind for block in found[2:]} == {"train"}
    assert sum(block.steps for block in found) == 150


def test_blocks_grow_and_shrink_at_most_twofold_towards_their_length() -> None:
    found = alone(schedule(1000, epochs=1), BLOCK_SECONDS / 10)
    assert [block.steps for block in found[2:8]] == [2, 4, 8, 10, 10, 10]
    paused = schedule(1000)
    paused.done = 500
    for _ in range(5):
        paused.calibrate(BLOCK_SECONDS / 8)
    paused.calibrate(1000.0)
    assert paused.next().steps == 4


def test_no_block_crosses_the_end_of_an_epoch() -> None:
    found = alone(schedule(7), BLOCK_SECONDS / 4)
    for epoch in range(3):
        assert sum(block.steps for block in found if block.epoch == epoch) == 7


def test_an_epoch_has_ended_with_its_last_step_and_not_before_or_after() -> None:
    planned = schedule(2)
    ended = [planned.ended_epoch]
    for _ in range(4):
        planned.done += 1
        ended.append(planned.ended_epoch)
    assert ended == [None, None, 0, None, 1]


@pytest.mark.parametrize(
    ("done", "block"),
    [
        (0, NextBlock(0, "train", 3, 1, 5)),
        (8, NextBlock(0, "train", 1, 1, 5)),
        (9, NextBlock(0, "warmup", 1, 0, 5)),
        (10, NextBlock(1, "train", 3, 1, 5)),
    ],
)
def test_a_turn_settles_first_and_the_last_steps_of_an_epoch_do_not_count_where_too_few_are_left(
    done: int, block: NextBlock
) -> None:
    planned = schedule(10)
    planned.done = done
    assert planned.turn(5, 3, 1) == block


@pytest.mark.parametrize(("steps_per_epoch", "steps_per_call"), [(50, 8), (48, 8), (9, 8), (8, 8), (16, 8), (7, 2)])
def test_with_several_steps_per_call_timed_blocks_are_whole_calls(steps_per_epoch: int, steps_per_call: int) -> None:
    found = alone(schedule(steps_per_epoch, steps_per_call=steps_per_call), BLOCK_SECONDS / 20)
    rest = steps_per_epoch % steps_per_call
    assert found[0] == NextBlock(0, "compile", steps_per_call + rest)  # both programs are compiled in it
    for block in found[1:]:
        assert block.steps % steps_per_call == 0 or (block.kind, block.steps) == ("warmup", rest)
    for epoch in range(3):
        assert sum(block.steps for block in found if block.epoch == epoch) == steps_per_epoch
    assert {block.epoch for block in found if block.steps == rest and rest} <= {1, 2}
    assert max(block.steps for block in found) <= max(24, steps_per_call + rest)


@pytest.mark.parametrize(
    ("done", "block"),
    [
        (0, NextBlock(0, "train", 16, 8, 5)),
        (24, NextBlock(0, "train", 16, 8, 5)),
        (32, NextBlock(0, "train", 8, 8, 5)),
        (40, NextBlock(0, "warmup", 10, 0, 5)),
        (50, NextBlock(1, "train", 16, 8, 5)),
    ],
)
@pytest.mark.parametrize("steps_per_call", [1, 4, 8])
def test_lanes_of_different_steps_per_call_have_the_same_turns(
    done: int, block: NextBlock, steps_per_call: int
) -> None:
    planned = schedule(50, steps_per_call=steps_per_call)
    planned.done = done
    assert planned.turn(5, 16, 8, unit=8) == block


def test_an_epoch_that_has_no_room_to_settle_a_call_settles_none() -> None:
    planned = schedule(12, steps_per_call=8)
    assert planned.turn(0, 8, 8, unit=8) == NextBlock(0, "train", 8, 0, 0)


def test_an_epoch_shorter_than_the_unit_has_calls_of_its_own_lane() -> None:
    assert schedule(20, steps_per_call=8).turn(0, 24, 0, unit=24) == NextBlock(0, "train", 16, 0, 0)
    assert schedule(20, steps_per_call=3).turn(0, 24, 0, unit=24) == NextBlock(0, "train", 18, 0, 0)


def test_a_short_cell_warms_up_with_a_quarter_of_its_steps_at_most() -> None:
    assert [block.kind for block in alone(schedule(4, epochs=1), 1.0)] == ["compile", "train", "train", "train"]


def test_a_batch_size_larger_than_the_data_has_nothing_to_train() -> None:
    too_large = Schedule(cell(8, examples=4))
    assert (too_large.ended, too_large.warming) == (True, False)


def test_blocks_in_turns_and_those_that_are_not_timed_wait_until_the_process_is_at_rest() -> None:
    kinds = {
        (kind, number): NextBlock(0, kind, 1, 0, number).request().rest
        for kind in ("warmup", "train")
        for number in (-1, 3)
    }
    assert kinds == {("warmup", -1): True, ("warmup", 3): True, ("train", -1): False, ("train", 3): True}


@pytest.mark.parametrize("alone_or_not", [True, False])
def test_no_block_crosses_an_evaluation_within_an_epoch(alone_or_not: bool) -> None:
    made = cell(4, JAX, epochs=2, examples=4 * 7)
    planned = Schedule(replace(made, training=replace(made.training, evaluate_every=3)))
    due, epochs = [], []
    while not planned.ended:
        train(planned.next() if alone_or_not else planned.turn(0, 4, 1), planned)
        if planned.is_due:
            due.append(planned.done)
            epochs.append(planned.epoch_of_last)
    assert due == [3, 6, 7, 9, 12, 14]
    assert epochs == [0, 0, 0, 1, 1, 1]


def test_what_is_stopped_trains_no_more() -> None:
    planned = schedule(10)
    train(planned.next(), planned)
    planned.stop()
    assert planned.ended
