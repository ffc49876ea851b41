from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.errors import UsageError
from harness.plan.shards import chosen, shard
from harness.runs.folder import Plan
from tests.unit.records import JAX, TENSORFLOW, cell

CELLS = tuple(cell(size, target, seed=seed) for seed in (0, 1) for size in (16, 32, 64) for target in (JAX, TENSORFLOW))
PLAN = Plan("made-up", "", "", "0", CELLS, interleave="block")


def test_shards_are_whole_heats_and_together_the_plan() -> None:
    parts = [chosen(PLAN, (part, 4), []) for part in (1, 2, 3, 4)]
    assert sorted(cell_id for part in parts for cell_id in part) == sorted(one.cell_id for one in CELLS)
    for heat in PLAN.heats:
        assert sum(all(one.cell_id in part for one in heat.cells) for part in parts) == 1
    assert chosen(PLAN, (5, 9), []) | chosen(PLAN, (9, 9), []) == chosen(PLAN, (5, 9), [])


def test_a_replicate_stays_on_one_machine_where_there_are_enough() -> None:
    seeds = [{one.training.seed for one in CELLS if one.cell_id in chosen(PLAN, (part, 2), [])} for part in (1, 2)]
    assert seeds == [{0}, {1}]


def test_a_part_has_heats_of_both_orders() -> None:
    many = replace(
        PLAN, cells=tuple(one for one in (cell(size, target) for size in range(1, 33) for target in (JAX, TENSORFLOW)))
    )
    for parts in (2, 3, 4):
        for part in range(1, parts + 1):
            own = chosen(many, (part, parts), [])
            first = [heat.cells[0].target for heat in many.heats if heat.cells[0].cell_id in own]
            assert abs(first.count(JAX) - first.count(TENSORFLOW)) <= 1


def test_only_names_cells_by_several_keys() -> None:
    found = chosen(PLAN, (1, 1), ["target=jax-cpu", "batch-size=16,64", "seed=1"])
    assert found == {one.cell_id for one in CELLS if one.target == JAX and one.training.seed == 1} - {
        cell(32, JAX, seed=1).cell_id
    }
    by_mode = chosen(PLAN, (1, 1), ["target=jax-cpu:jit"])
    assert by_mode == chosen(PLAN, (1, 1), [f"target={JAX.label}"]) == {o.cell_id for o in CELLS if o.target == JAX}


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3", ""])
def test_a_wrong_shard_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard: found .*, allowed: K/N"):
        shard(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("target=jax-gpu", "no cell of this sweep has target 'jax-gpu'.*jax-cpu"),
        ("batch=16", "allowed: KEY=VALUE,... with target, model, batch_size, epochs, seed"),
        ("batch_size", "allowed: KEY=VALUE"),
        ("batch_size=17", "no cell of this sweep has batch_size '17'.*16, 32, 64"),
    ],
)
def test_a_wrong_choice_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(PLAN, (1, 1), [text])


def test_targets_of_other_places_make_heats_of_their_own() -> None:
    plan = replace(PLAN, places={JAX.label: "1", TENSORFLOW.label: "2"})
    assert len(plan.heats) == 2 * len(PLAN.heats)
    assert all(len({one.target for one in heat.cells}) == 1 for heat in plan.heats)
