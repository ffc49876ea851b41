"""Verdicts from records: made-up heats with a known truth."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from harness.analysis import across_runs, comparison
from harness.analysis.across_runs import compare_runs
from harness.analysis.comparison import LaneKey, compare, lane_keys, overall
from harness.core.record import Blocks, HeatFacts, Record
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record

ROUNDS = 40
LANES = lane_keys([TENSORFLOW, JAX])
WORKER = {"code": "1", "forked": True, "packages": {}, "python": "3.11", "variables": {}}


def heat(repeat: int, slower: float, generator: np.random.Generator, batch_size: int = 32) -> list[Record]:
    """One heat of fresh processes: noise of 5 % in each block, of 0.5 % in each process."""
    found = []
    for key in LANES:
        pace = 0.01 * (1 + slower * (key.target == JAX)) * math.exp(0.005 * generator.normal())
        seconds = [pace * math.exp(0.05 * generator.normal()) for _ in range(ROUNDS)]
        found.append(lane_record(key, repeat, seconds, batch_size))
    return found


def lane_record(key: LaneKey, repeat: int, seconds: list[float], batch_size: int = 32, **changes: Any) -> Record:
    of = dataclasses.replace(cell(batch_size, key.target, repeat=repeat), lane=key.lane)
    count = len(seconds)
    blocks = Blocks(
        epoch=[0] * count,
        kind=["train"] * count,
        steps=[1] * count,
        seconds=seconds,
        cpu_seconds=seconds,
        mean_loss=[1.0] * count,
        started=[float(number) for number in range(count)],
        settle=[1] * count,
        settle_seconds=seconds,
        round=list(range(count)),
        idle_cpu_seconds=[0.0] * count,
        preempted=[0] * count,
        stolen_seconds=[0.0] * count,
    )
    facts = HeatFacts("block", dropped={}, idle_share=0.001)
    worker = {**WORKER, "device": {"processors": [0, 1]}}
    return record(of, blocks=blocks, heat=facts, worker=worker, machine={"id": "m"}, **changes)


def heats(slower: float, count: int = 8, seed: int = 0, **choices: Any) -> list[Record]:
    generator = np.random.default_rng(seed)
    return [one for repeat in range(count) for one in heat(repeat, slower, generator, **choices)]


def test_lanes_of_one_target_are_numbered_and_the_second_is_the_control() -> None:
    assert [(key.target.name, key.lane) for key in lane_keys([JAX, TENSORFLOW])] == [
        ("jax-cpu", 0),
        ("jax-cpu", 1),
        ("tensorflow-cpu", 0),
    ]
    assert [key.lane for key in lane_keys([JAX, JAX])] == [0, 1, 2]
    assert len(set(lane_keys([JAX, JAX, JAX]))) == 4


@pytest.mark.parametrize(("slower", "verdict"), [(0.10, "slower"), (-0.10, "faster"), (0.0, "no difference found")])
def test_a_planted_difference_is_found_with_its_size(slower: float, verdict: str) -> None:
    (one,) = compare(heats(slower), LANES)
    assert one.verdict == verdict
    assert one.speed is not None
    assert one.speed[1] <= 1 / (1 + slower) <= one.speed[2]
    assert one.processes == 8
    assert one.rounds == 8 * ROUNDS
    assert one.floor is not None


def test_a_difference_inside_the_noise_floor_is_none_whatever_its_interval() -> None:
    records = heats(0.03)
    noisy = [
        dataclasses.replace(
            one, blocks=dataclasses.replace(one.blocks, seconds=[1.2 * value for value in one.blocks.seconds])
        )
        if one.cell.lane == 1
        else one
        for one in records
    ]
    (one,) = compare(noisy, LANES)
    assert one.interval is not None
    assert one.interval.low > 0 or one.interval.high < 0
    assert one.verdict == "no difference found"


def test_dropped_rounds_do_not_count() -> None:
    records = heats(0.0)
    spoilt = [
        dataclasses.replace(
            one, heat=dataclasses.replace(one.heat, dropped={"3": "the machine was suspended for 9.0 s"})
        )
        for one in records
    ]
    (one,) = compare(spoilt, LANES)
    assert (one.rounds, one.dropped) == (8 * (ROUNDS - 1), 8)


def test_verdicts_over_batch_sizes_are_corrected_together() -> None:
    many = [one for size in (8, 16, 32) for one in heats(0.0, batch_size=size, seed=size)]
    found = compare(many, LANES)
    assert [one.batch_size for one in found] == [8, 16, 32]
    (alone,) = compare([one for one in many if one.cell.training.batch_size == 8], LANES)
    assert found[0].p_adjusted >= alone.p_adjusted
    assert overall(found) == "no difference found"


@pytest.mark.parametrize(
    ("status", "reason"), [("parity_failed", "gradients differ"), ("wrong_device", "ran on the processor")]
)
def test_what_is_no_equal_work_gets_no_verdict(status: str, reason: str) -> None:
    records = [
        dataclasses.replace(one, status=status, reason=reason) if one.cell.target == JAX else one for one in heats(0.5)
    ]
    (one,) = compare(records, LANES)
    assert one.verdict == comparison.NOT_COMPARABLE
    assert any(reason in text for text in one.reasons)
    assert one.effects == ()


def test_a_lane_that_never_ran_gets_no_verdict_and_its_reason() -> None:
    records = [failed(one.cell, "out_of_memory", "no room") if one.cell.target == JAX else one for one in heats(0.5)]
    (one,) = compare(records, LANES)
    assert one.verdict == comparison.NOT_COMPARABLE
    assert any("out of memory: no room" in text for text in one.reasons)


def test_one_heat_of_processes_is_too_few() -> None:
    (one,) = compare(heats(0.5, count=1), LANES)
    assert one.verdict == comparison.NOT_COMPARABLE
    assert "1 heat of fresh processes" in one.reasons[0]


def test_a_lane_that_spins_while_it_waits_gets_no_verdict() -> None:
    records = [dataclasses.replace(one, heat=dataclasses.replace(one.heat, idle_share=0.9)) for one in heats(0.5)]
    (one,) = compare(records, LANES)
    assert one.verdict == comparison.NOT_COMPARABLE
    assert "keeps a processor busy" in one.reasons[0]


def test_without_its_control_a_heat_still_counts() -> None:
    records = [one for one in heats(0.1) if (one.cell.lane, one.cell.repeat) != (1, 2)]
    (one,) = compare(records, LANES)
    assert (one.processes, len(one.control_effects)) == (8, 7)
    assert one.verdict == "slower"


def test_runs_that_did_not_take_turns_are_compared_with_a_term_for_drift() -> None:
    before, after = heats(0.0, seed=1), heats(0.02, seed=2)
    found = compare_runs(before, after, ("one", "two"))
    assert {one.lane.label for one in found} == {f"{JAX.label} of two", f"{TENSORFLOW.label} of two"}
    for one in found:
        assert one.interval is not None
        assert one.interval.half_width > 1.9 * across_runs.RUN_TO_RUN
        assert one.verdict == "no difference found"


def test_a_run_whose_repeats_are_of_two_machines_is_compared_with_none() -> None:
    before, after = heats(0.0, seed=1), heats(0.02, seed=2)
    mixed = [
        dataclasses.replace(one, machine={**one.machine, "id": "another"}) if one.cell.repeat % 2 else one
        for one in before
    ]
    for one in compare_runs(mixed, after, ("one", "two")):
        assert one.verdict == comparison.NOT_COMPARABLE
        assert any("different machines" in reason for reason in one.reasons)


def test_the_plain_form_is_json_in_ratios_of_speed() -> None:
    (one,) = compare(heats(0.1), LANES)
    plain = json.loads(json.dumps(comparison.to_plain(one)))
    assert plain["speed_ratio_low"] <= plain["speed_ratio"] <= plain["speed_ratio_high"]
    assert plain["speed_ratio"] == pytest.approx(1 / 1.1, abs=0.01)
