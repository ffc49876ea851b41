"""A batch size that changes, as data: its identity, its steps and rates, how it is written, its rows and its blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import arrays as loading
from backends.rows import Rows
from harness.analysis.blocks import sizes_of
from harness.commands.flags import BatchSizes
from harness.core.cell import Cell
from harness.core.codec import digest, from_json, to_json
from harness.core.errors import ContractError, UsageError
from harness.core.messages import Compile, Open, Train
from harness.core.model import Dense, Flatten
from harness.core.training import EPOCH, STEP, LearningRate, Piece, TrainingSpec
from harness.measure.schedule import Schedule, rehearsal
from harness.plan import inputs, sweep, trainable
from harness.proof.sized import plan_cell
from tests.unit.builders import small_cell, small_model

PLAN = TrainingSpec(4, 6, batch_changes=((2, 8), (4, 16)))


def cell_of(training: TrainingSpec, examples: int = 100) -> Cell:
    return small_cell(small_model(Flatten(), Dense(3)), training, train_examples=examples)


def test_a_plan_that_never_changes_is_the_fixed_batch_size() -> None:
    fixed = TrainingSpec(64, 4)
    for changes in ([(2, 64)], [(4, 128)], [(1, 64), (3, 64), (9, 5)]):
        constant = TrainingSpec(64, 4, batch_changes=tuple(changes))
        assert constant == fixed
        assert digest(constant) == digest(fixed)
        assert cell_of(constant).cell_id == cell_of(fixed).cell_id
    assert cell_of(TrainingSpec(64, 4, batch_changes=((3, 128),))).work_id != cell_of(fixed).work_id


def test_a_plan_is_read_as_it_is_written() -> None:
    assert from_json(TrainingSpec, to_json(PLAN)) == PLAN
    assert "batch_changes" not in to_json(TrainingSpec(64))


def test_each_epoch_has_the_whole_batches_of_its_size() -> None:
    assert PLAN.epoch_steps(100) == (25, 25, 12, 12, 6, 6)
    assert PLAN.pieces(100) == (Piece(0, 0, 50, 4), Piece(2, 50, 24, 8), Piece(4, 74, 12, 16))
    cell = cell_of(PLAN)
    assert (cell.total_steps, cell.total_images) == (86, 50 * 4 + 24 * 8 + 12 * 16)
    assert [cell.batch_size_at(step) for step in (0, 49, 50, 73, 74, 85)] == [4, 4, 8, 8, 16, 16]
    assert [cell.epoch_of(step) for step in (0, 24, 25, 50, 86)] == [(0, 0), (0, 24), (1, 0), (2, 0), (6, 0)]
    assert (PLAN.batch_plan, PLAN.at_size(8).batch_plan) == ("4>8@2>16@4", "")


def test_commas_within_a_plan_separate_no_flags_values() -> None:
    split = BatchSizes().convert
    assert split("64,0:32, 2:128,16..32,0:8,1:16", None, None) == ("64", "0:32,2:128", "16..32", "0:8,1:16")
    assert split("0:32,1:64,128", None, None) == ("0:32,1:64", "128")
    assert split("1:32", None, None) == ("1:32",)


@pytest.mark.parametrize(
    ("scaling", "rates"),
    [
        ("none", ((0, 0.1), (62, 0.05))),
        ("linear", ((0, 0.1), (50, 0.2), (62, 0.1), (74, 0.2))),
        ("sqrt", ((0, 0.1), (50, 0.1 * 2**0.5), (62, 0.05 * 2**0.5), (74, 0.1))),
    ],
)
def test_a_scaled_rate_follows_the_size_of_the_moment(scaling: str, rates: Any) -> None:
    rule = LearningRate(0.1, (3,), 0.5, scaling, base_batch_size=4)
    found = replace(PLAN, learning_rate=rule).learning_rates(PLAN.epoch_steps(100))
    assert [step for step, _ in found] == [step for step, _ in rates]
    np.testing.assert_allclose([rate for _, rate in found], [rate for _, rate in rates])


def test_a_drop_beyond_the_last_epoch_is_beyond_the_last_step() -> None:
    rule = LearningRate(0.1, (8,), 0.5)
    assert replace(PLAN, learning_rate=rule).learning_rates(PLAN.epoch_steps(100)) == ((0, 0.1), (98, 0.05))


def loaded(tmp_path: Path, cell: Cell) -> Any:
    generator = np.random.default_rng(0)
    for part, count in (("train", cell.dataset.train_examples), ("test", 5)):
        np.save(tmp_path / f"{part}_images.npy", generator.random((count, *cell.dataset.image_shape), np.float32))
        np.save(tmp_path / f"{part}_labels.npy", np.zeros(count, np.int32))
    inputs.save_arrays(tmp_path / "parameters.npz", inputs.draw_parameters(cell.model, 0))
    order = inputs.draw_order(cell.dataset.train_examples, cell.training.epochs, 7)
    inputs.save_array(tmp_path / "order.npy", order)
    paths = (str(tmp_path / name) for name in ("parameters.npz", "order.npy", "scratch"))
    return order, loading.load(Open(cell, str(tmp_path), *paths))


def test_the_rows_are_the_front_of_each_epochs_permutation_cut_by_its_size(tmp_path: Path) -> None:
    training = replace(PLAN, batch_changes=((2, 8), (4, 4)))
    cell = cell_of(training)
    order, found = loaded(tmp_path, cell)
    rows = Rows(found)
    wanted = [
        order[epoch, step * size : (step + 1) * size]
        for epoch in range(training.epochs)
        for size in [training.epoch_sizes(100)[epoch][0][1]]
        for step in range(cell.epoch_steps[epoch])
    ]
    assert len(rows) == len(wanted) == cell.total_steps
    for step, row in enumerate(wanted):
        np.testing.assert_array_equal(rows.row(step), row)
    np.testing.assert_array_equal(rows.in_order(), np.concatenate(wanted))
    assert {size: len(held) for size, held in rows.of_size.items()} == {4: 100, 8: 24}
    assert [len(one) for one in found.pieces] == [50, 24, 50]
    trained = [(one.batch_size, one.first, one.end) for one in rows.stretches(48, 30)]
    assert trained == [(4, 48, 50), (8, 0, 24), (4, 50, 54)]
    with pytest.raises(ContractError, match="ends after 124"):
        list(rows.stretches(120, 5))


def test_no_block_crosses_a_change_and_the_first_steps_after_it_warm_up() -> None:
    schedule, blocks = Schedule(cell_of(PLAN)), []
    while not schedule.ended:
        block = schedule.next() if schedule.warming else schedule.turn(len(blocks), 3, 1)
        blocks.append((schedule.done, block))
        schedule.trained(block)
    sizes = dict(enumerate((4, 4, 8, 8, 16, 16)))
    for piece in cell_of(PLAN).pieces:
        inside = [one for first, one in blocks if piece.first_step <= first < piece.first_step + piece.steps]
        assert sum(block.settle + block.steps for block in inside) == piece.steps
        assert all(sizes[block.epoch] == piece.batch_size for block in inside)
        assert "train" in {block.kind for block in inside}
    assert [(first, block.kind, block.steps) for first, block in blocks if first in (50, 74)] == [
        (50, "warmup", 2),
        (74, "warmup", 2),
    ]


BY_STEPS = TrainingSpec(4, 3, batch_changes=((30, 16), (33, 8)), batch_changes_by=STEP)


def test_a_plan_by_steps_changes_within_an_epoch_and_has_an_identity_of_its_own() -> None:
    cell = cell_of(BY_STEPS)
    assert BY_STEPS.batch_plan == "4>16@step30>8@step33"
    assert BY_STEPS.epoch_sizes(100) == (((25, 4),), ((5, 4), (3, 16), (4, 8)), ((12, 8),))
    assert cell.pieces == (Piece(0, 0, 30, 4), Piece(1, 30, 3, 16), Piece(1, 33, 16, 8))
    assert (cell.epoch_steps, cell.epoch_images, cell.total_images) == ((25, 12, 12), (100, 100, 96), 296)
    assert cell.batch_sizes_at([0, 29, 30, 32, 33, 48]) == [4, 4, 16, 16, 8, 8]
    by_epochs = replace(BY_STEPS, epochs=50, batch_changes_by=EPOCH)
    assert digest(by_epochs) != digest(replace(BY_STEPS, epochs=50))
    assert from_json(TrainingSpec, to_json(BY_STEPS)) == BY_STEPS


def test_changes_at_steps_that_are_never_trained_are_no_part_of_the_work() -> None:
    assert BY_STEPS.reached(100) is not BY_STEPS
    assert BY_STEPS.reached(100) == BY_STEPS
    fixed = replace(BY_STEPS, batch_changes=((75, 8),)).reached(100)
    assert fixed == TrainingSpec(4, 3)
    assert digest(fixed) == digest(TrainingSpec(4, 3))
    too_large = replace(BY_STEPS, batch_changes=((20, 101),)).reached(100)
    assert trainable.why_not(cell_of(too_large)) == "batch size 101 is larger than the 100 training examples"


def test_a_scaled_rate_follows_a_size_that_changes_at_a_step() -> None:
    rule = LearningRate(0.1, drop_epochs=(2,), factor=0.5, scaling="linear", base_batch_size=4)
    rates = replace(BY_STEPS, learning_rate=rule).learning_rates(BY_STEPS.epoch_steps(100))
    assert rates == ((0, 0.1), (30, 0.4), (33, 0.2), (37, 0.1))


def test_rows_of_a_plan_by_steps_use_up_each_epochs_permutation(tmp_path: Path) -> None:
    cell = cell_of(BY_STEPS)
    order, found = loaded(tmp_path, cell)
    rows = Rows(found)
    assert [one.shape for one in found.pieces] == [(30, 4), (3, 16), (16, 8)]
    for epoch, (first, images) in enumerate(zip((0, 25, 37), cell.epoch_images, strict=True)):
        taken = [rows.row(step) for step in range(first, first + cell.epoch_steps[epoch])]
        np.testing.assert_array_equal(np.concatenate(taken), order[epoch, :images])


@pytest.mark.parametrize("turns", [True, False])
def test_no_block_of_a_plan_by_steps_crosses_a_change_or_an_epoch(turns: bool) -> None:
    cell = cell_of(BY_STEPS)
    schedule, starts, blocks = Schedule(cell), set[int](), list[tuple[int, int]]()
    while not schedule.ended:
        block = schedule.turn(len(blocks), 3, 1) if turns and not schedule.warming else schedule.next()
        starts.add(schedule.done)
        schedule.trained(block)
        schedule.calibrate(1e-6)
        blocks.append((block.steps, block.settle))
        if schedule.ended_epoch is not None:
            assert schedule.done == sum(cell.epoch_steps[: schedule.ended_epoch + 1])
    assert {0, 25, 30, 33, 37} <= starts
    steps, settle = zip(*blocks, strict=True)
    sizes = sizes_of(cell, steps, settle)
    taken = np.array(steps) + np.array(settle)
    assert {int(size): int(taken[sizes == size].sum()) for size in (4, 8, 16)} == {4: 30, 8: 16, 16: 3}


def test_the_proof_of_a_plan_by_steps_changes_within_epochs() -> None:
    cell = cell_of(BY_STEPS)
    proven = plan_cell(cell)
    assert proven.training.batch_plan == "4>16@step4>8@step5"
    assert proven.training.epoch_sizes(32)[:2] == (((4, 4), (1, 16)), ((4, 8),))
    assert proven.training.learning_rate.drop_epochs == (3,)
    small = plan_cell(cell_of(BY_STEPS, examples=20))
    assert small.training.epoch_sizes(16) == (((4, 4),), ((1, 16),), ((2, 8),), ((2, 8),))
    assert plan_cell(cell_of(PLAN)).training.batch_plan == "4>8@1>16@2"


def test_all_sizes_are_made_ready_after_the_first_block() -> None:
    asked = rehearsal(cell_of(PLAN))
    assert asked[:3] == [Train(1, 0, rest=True), Compile(8), Compile(16)]
    assert not any(isinstance(one, Compile) for one in [asked[0], *asked[3:]])
    assert not any(isinstance(one, Compile) for one in rehearsal(cell_of(TrainingSpec(4, 2))))


HEAD = 'name = "x"\nmodel = "mnist-cnn"\ntarget = "jax-cpu"\ndataset = "digits"\n'


def written(tmp_path: Path, text: str, **flags: Any) -> sweep.Sweep:
    path = tmp_path / "x.toml"
    path.write_text(f"{HEAD}batch_size = {text}\n", encoding="utf-8")
    return sweep.load(str(path), flags)


@pytest.mark.parametrize(
    ("batch_size", "found"),
    [
        ("{ 0 = 64, 2 = 128 }", (((0, 64), (2, 128)),)),
        ("{ 2 = 128, 0 = 64 }", (((0, 64), (2, 128)),)),
        ("[64, { 0 = 64, 2 = 128 }, { 0 = 32 }]", (64, ((0, 64), (2, 128)), 32)),
    ],
)
def test_a_sweep_file_has_plans_beside_sizes(tmp_path: Path, batch_size: str, found: Any) -> None:
    assert written(tmp_path, batch_size).batch_sizes == found


@pytest.mark.parametrize("text", ["{ 0 = 64, step300 = 128 }", '{ "step 300" = 128, step0 = 64 }'])
def test_a_plan_may_go_by_steps(tmp_path: Path, text: str) -> None:
    wanted = sweep.BySteps(((0, 64), (300, 128)))
    assert written(tmp_path, text).batch_sizes == (wanted,)
    assert written(tmp_path, "1", batch_size=("32", "0:64,step300:128")).batch_sizes == (32, wanted)
    made = sweep.SweepDefinition(
        {
            "name": "x",
            "model": "mnist-cnn",
            "target": "jax-cpu",
            "dataset": "digits",
            "batch_size": {0: 64, "step300": 128},
        }
    )
    assert sweep.load(made, {}).batch_sizes == (wanted,)


def test_a_flag_and_python_write_plans_too(tmp_path: Path) -> None:
    assert written(tmp_path, "1", batch_size=("64,32", "0:64,2:128")).batch_sizes == (64, 32, ((0, 64), (2, 128)))
    made = sweep.SweepDefinition(
        {"name": "x", "model": "mnist-cnn", "target": "jax-cpu", "dataset": "digits", "batch_size": [8, {0: 8, 1: 16}]}
    )
    assert sweep.load(made, {}).batch_sizes == (8, ((0, 8), (1, 16)))


@pytest.mark.parametrize(
    ("batch_size", "flags", "error"),
    [
        (
            "{ 1 = 64 }",
            {},
            "x.toml: key batch_size: found {1 = 64}, allowed: a whole number of 1 or more, or the",
        ),
        (
            "{ 0 = 64, x = 3 }",
            {},
            "allowed: a whole number of 1 or more, or the batch size from each of some epochs on",
        ),
        ("[8, { 0 = 0 }]", {}, "key batch_size[1]: found "),
        ("{ 0 = 64, 1 = 32, step300 = 128 }", {}, "or of some steps: { 0 = 64, step300 = 128 }"),
        ("8", {"batch_size": "0:64,2"}, "--batch-size: found '0:64,2', allowed: a whole number of 1 or more, or the"),
    ],
)
def test_a_mistake_in_a_plan_gets_one_line(tmp_path: Path, batch_size: str, flags: Any, error: str) -> None:
    with pytest.raises(UsageError) as raised:
        written(tmp_path, batch_size, **flags)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def expanded(tmp_path: Path, training: str) -> list[TrainingSpec]:
    path = tmp_path / "x.toml"
    path.write_text(f"{HEAD}batch_size = [32, 64]\nepochs = 4\n[training]\n{training}\n", encoding="utf-8")
    cell = small_cell(small_model(Flatten(), Dense(3)), train_examples=10_000)
    found = sweep.expand(
        sweep.load(str(path), {}), [cell.model], [cell.target], cell.dataset, lambda model, seed, epochs: cell.inputs
    )
    return [one.cell.training for one in found]


@pytest.mark.parametrize(
    ("rule", "plans", "rates"),
    [
        ("increase", ["32>80@1>200@3", "64>160@1>400@3"], [0.1, 0.1, 0.1]),
        ("adabatch", ["32>64@1>128@3", "64>128@1>256@3"], [0.1, 0.08, 0.064]),
    ],
)
def test_a_rule_keeps_what_the_drops_do_to_the_noise(
    tmp_path: Path, rule: str, plans: list[str], rates: list[float]
) -> None:
    """Rate over batch size falls as that of the fixed batch size does."""
    drops = "learning_rate = 0.1\ndrop_epochs = [1, 3]\ndrop_factor = 0.4\n"
    fixed, ruled = expanded(tmp_path, drops), expanded(tmp_path, f'{drops}batch_rule = "{rule}"')
    assert [one.batch_plan for one in ruled] == plans
    for before, after in zip(fixed, ruled, strict=True):
        for epoch, rate in zip((0, 1, 3), rates, strict=True):
            assert rate_in(after, epoch) == pytest.approx(rate)
            noise = [rate_in(one, epoch) / one.epoch_sizes(10_000)[epoch][0][1] for one in (before, after)]
            assert noise[0] == pytest.approx(noise[1])


def rate_in(training: TrainingSpec, epoch: int) -> float:
    steps = training.epoch_steps(10_000)
    return next(rate for first, rate in reversed(training.learning_rates(steps)) if first <= sum(steps[:epoch]))


@pytest.mark.parametrize(
    ("training", "error"),
    [
        ('batch_rule = "adabatch"', "key training.batch_rule: found 'adabatch' without drop_epochs"),
        ('batch_rule = "doubling"', "key training.batch_rule: found 'doubling', allowed: none, adabatch, increase"),
        ('batch_rule = "increase"\ndrop_epochs = 1\nscaling = "linear"', "beside scaling 'linear'"),
    ],
)
def test_a_rule_that_has_nothing_to_go_by_is_refused(tmp_path: Path, training: str, error: str) -> None:
    with pytest.raises(UsageError) as raised:
        expanded(tmp_path, training)
    assert error in str(raised.value)
