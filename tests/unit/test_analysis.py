from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness import analysis
from harness.core.record import NOT_THE_WORK, STATUSES, Blocks, Epoch, Phases, Record
from harness.core.training import LearningRate, OptimizerSpec
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record


def only_row(made: Record) -> dict[str, object]:
    return analysis.summary([made]).row(0, named=True)


class TestRatesThatGoWithBatchSizes:
    def works(self, *rates: tuple[int, float], **training: object) -> list[tuple[object, ...]]:
        made = [record(cell(size, learning_rate=LearningRate(rate), **training)) for size, rate in rates]
        return analysis.summary(made).select("batch_size", "learning_rate", "scaling").sort("batch_size").rows()

    def test_are_one_work_that_says_which_is_which(self) -> None:
        told = "0.01 at 32, 0.08 at 64"
        assert self.works((32, 0.01), (64, 0.08)) == [(32, 0.01, told), (64, 0.01, told)]

    def test_but_a_grid_is_several(self) -> None:
        grid = [(32, 0.01), (32, 0.08), (64, 0.01), (64, 0.08)]
        assert {scaling for *_, scaling in self.works(*grid)} == {"none"}
        assert self.works((32, 0.01), (64, 0.01)) == [(32, 0.01, "none"), (64, 0.01, "none")]

    def test_and_so_are_those_beside_one_rate_that_every_batch_size_has_too(self) -> None:
        told = "0.02 at 32, 0.08 at 64"
        beside = self.works((32, 0.01), (32, 0.02), (64, 0.01), (64, 0.08))
        assert sorted(beside) == [(32, 0.01, "none"), (32, 0.02, told), (64, 0.01, "none"), (64, 0.02, told)]

    @pytest.mark.parametrize(
        "rates",
        [
            [(32, 0.01), (32, 0.02), (64, 0.01)],  # a size without a rate of its own
            [(32, 0.01), (32, 0.02), (32, 0.04), (64, 0.01), (64, 0.08)],  # two besides at one
            [(32, 0.01), (32, 0.02), (64, 0.04), (64, 0.08)],  # none that all have
            [(32, 0.01), (32, 0.02)],  # one batch size
        ],
    )
    def test_but_not_where_it_cannot_be_told_which_belong_together(self, rates: list[tuple[int, float]]) -> None:
        assert {scaling for *_, scaling in self.works(*rates)} == {"none"}

    def test_what_goes_with_the_optimizer_makes_other_works(self) -> None:
        decayed = OptimizerSpec("sgd", weight_decay=0.1)
        made = [
            record(cell(32, learning_rate=LearningRate(0.01), optimizer=OptimizerSpec("sgd"))),
            record(cell(64, learning_rate=LearningRate(0.08), optimizer=decayed)),
        ]
        rows = analysis.summary(made).select("optimizer", "scaling").rows()
        assert rows == [("sgd", "none"), ("sgd with weight decay 0.1", "none")]


class TestFigures:
    def test_of_a_finished_cell(self) -> None:
        row = only_row(record(cell(batch_size=32, epochs=2, examples=320)))
        assert row["images_per_second"] == pytest.approx(3200)
        assert row["seconds_per_epoch"] == pytest.approx(0.1)
        assert row["train_seconds"] == pytest.approx(0.19)
        assert row["steps"] == 20
        assert (row["compile_seconds"], row["import_seconds"], row["build_seconds"]) == (1.5, 2.0, 0.3)
        assert (row["evaluate_seconds"], row["peak_memory_bytes"]) == (0.4, 500_000_000)
        assert (row["final_accuracy"], row["final_test_loss"], row["final_train_loss"]) == (0.9, 0.25, 0.5)

    def test_name_the_work_and_the_target(self) -> None:
        made = record(cell(64, TENSORFLOW, seed=3, repeat=2))
        row = only_row(made)
        names = ("cell_id", "work_id", "model", "dataset", "train_examples")
        assert [row[name] for name in names] == [made.cell_id, made.work_id, "tiny", "digits", 320]
        names = ("target", "backend", "accelerator", "mode")
        assert [row[name] for name in names] == ["tensorflow-cpu:graph", "tensorflow_keras", "cpu", "graph"]
        names = ("input", "batch_size", "epochs", "seed", "optimizer", "learning_rate", "repeat", "proof", "attempt")
        assert [row[name] for name in names] == ["resident", 64, 2, 3, "momentum", 0.01, 2, "0123456789abcdef", 1]

    def test_throughput_is_the_median_of_train_blocks_alone(self) -> None:
        seconds = [5.0, 1.0, 0.1, 0.2, 40.0]
        kinds = ["compile", "warmup", "train", "train", "train"]
        blocks = Blocks([0] * 5, kinds, [1, 1, 2, 2, 2], seconds, [0.0] * 5, [1.0] * 5)
        row = only_row(record(cell(batch_size=32), blocks=blocks))
        assert row["images_per_second"] == pytest.approx(2 * 32 / 0.2)
        assert row["train_seconds"] == pytest.approx(41.3)

    def test_an_epoch_that_only_compiled_is_no_quick_epoch(self) -> None:
        made = record(
            cell(batch_size=320, epochs=3, examples=320),
            blocks=Blocks([0, 1, 2], ["compile", "train", "train"], [1, 1, 1], [9.0, 2.0, 4.0], [0.0] * 3, [1.0] * 3),
        )
        assert only_row(made)["seconds_per_epoch"] == pytest.approx(3.0)

    def test_a_cell_cut_short_has_its_pace_but_no_final_accuracy(self) -> None:
        made = record(
            cell(batch_size=32, epochs=5, examples=320),
            "timeout",
            reason="no answer for 900 s",
            blocks=Blocks([0, 0], ["compile", "train"], [1, 4], [1.0, 0.4], [0.0] * 2, [1.0] * 2),
            epochs=(Epoch(0, 0.5, 0.5, 0.8, 0.1),),
        )
        row = only_row(made)
        assert row["seconds_per_epoch"] == pytest.approx(1.0)
        assert row["final_accuracy"] is None

    def test_without_a_train_block_there_is_no_throughput(self) -> None:
        blocks = Blocks([0], ["compile"], [1], [1.0], [1.0], [1.0])
        row = only_row(record(cell(batch_size=320, epochs=1), blocks=blocks))
        assert (row["images_per_second"], row["seconds_per_epoch"], row["train_seconds"]) == (None, None, None)
        assert row["steps"] == 1

    @pytest.mark.parametrize("status", NOT_THE_WORK)
    def test_times_of_other_work_are_not_shown(self, status: str) -> None:
        row = only_row(record(cell(), status, reason="gradients differ"))
        for column in (
            "images_per_second",
            "seconds_per_epoch",
            "train_seconds",
            "compile_seconds",
            "evaluate_seconds",
        ):
            assert row[column] is None
        assert row["status"] == status

    def test_losses_that_are_not_finite_survive(self) -> None:
        row = only_row(record(cell(epochs=1), epochs=(Epoch(0, math.inf, math.nan, 0.1, 0.1),)))
        assert str((row["final_train_loss"], row["final_test_loss"])) == "(inf, nan)"

    @pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 3.5e38])
    def test_a_loss_that_no_float32_holds_is_divergence_wherever_it_stands(self, loss: float) -> None:
        sound = record(cell(epochs=1))
        assert only_row(sound)["diverged"] is False
        blocks = dataclasses.replace(sound.blocks, mean_loss=[*sound.blocks.mean_loss[:-1], loss])
        for losses in ({"train_loss": loss}, {"test_loss": loss}):
            epochs = (dataclasses.replace(sound.epochs[0], **losses),)
            assert only_row(dataclasses.replace(sound, epochs=epochs))["diverged"] is True
        row = only_row(dataclasses.replace(sound, blocks=blocks))
        assert (row["diverged"], row["status"]) == (True, "ok")
        assert row["images_per_second"] == only_row(sound)["images_per_second"]

    def test_every_status_gives_a_row(self) -> None:
        made = [failed(cell(2**n), status, f"because {status}") for n, status in enumerate(STATUSES, start=1)]
        frame = analysis.summary(made)
        assert frame["status"].to_list() == list(STATUSES)
        assert frame["reason"].to_list() == [f"because {status}" for status in STATUSES]
        assert frame["images_per_second"].null_count() == len(STATUSES)


class TestTable:
    def test_is_sorted_by_work_then_target_whatever_the_order_of_records(self) -> None:
        wanted = [
            cell(size, target, epochs=epochs, seed=seed)
            for epochs in (1, 5, 10)
            for seed in (0, 1)
            for size in (16, 128, 1024)
            for target in (JAX, TENSORFLOW)
        ]
        shuffled = sorted((failed(c, "skipped", "") for c in wanted), key=lambda made: made.cell_id)
        assert analysis.summary(shuffled)["cell_id"].to_list() == [c.cell_id for c in wanted]

    def test_without_records_has_its_columns(self) -> None:
        empty, full = analysis.summary([]), analysis.summary([record(cell())])
        assert empty.schema == full.schema
        assert empty.height == 0
        assert analysis.agreement(empty).height == 0

    def test_holds_one_record_at_a_time(self) -> None:
        alive: list[int] = []

        class Counted(list):  # type: ignore[type-arg]
            def __del__(self) -> None:
                alive.remove(id(self))

        def stream() -> Iterator[Record]:
            for repeat in range(20):
                losses = Counted([1.0] * 4)
                alive.append(id(losses))
                made = record(cell(repeat=repeat))
                yield dataclasses.replace(made, blocks=dataclasses.replace(made.blocks, mean_loss=losses))
                del made, losses
                assert len(alive) <= 2

        assert analysis.summary(stream()).height == 20


class TestAgreement:
    def test_gives_the_largest_difference_of_lanes_that_did_the_same_work(self) -> None:
        def reached(size: int, accuracy: float, **changes: object) -> Record:
            return record(cell(size, epochs=1, **changes), epochs=(Epoch(0, 0.1, 0.1, accuracy, 0.1),))  # type: ignore[arg-type]

        made = [
            reached(32, 0.90, target=JAX),
            reached(32, 0.91, target=TENSORFLOW),
            reached(64, 0.80, target=JAX),
            reached(64, 0.84, target=TENSORFLOW),
            reached(128, 0.10, target=JAX),
        ]
        frame = analysis.agreement(analysis.summary(made))
        assert frame["batch_size"].to_list() == [64, 32]
        assert frame["difference_points"].to_list() == pytest.approx([4.0, 1.0])
        assert frame["targets"].to_list()[0] == ["jax-cpu:jit", "tensorflow-cpu:graph"]
        assert frame["accuracies"].to_list()[0] == [0.80, 0.84]

    def test_leaves_out_cells_that_did_not_end_well(self) -> None:
        made = [record(cell(target=JAX)), record(cell(target=TENSORFLOW), "parity_failed", reason="gradients differ")]
        assert analysis.agreement(analysis.summary(made)).is_empty()

    def test_repeats_of_one_target_are_no_agreement_between_targets(self) -> None:
        made = [record(cell(repeat=repeat)) for repeat in range(3)]
        assert analysis.agreement(analysis.summary(made)).is_empty()


def test_a_sweep_does_not_load_polars_before_there_is_anything_to_show() -> None:
    """Its threads and its memory would stand beside what is measured."""
    code = "import sys, harness.actions.sweep; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_phases_that_were_not_reached_are_empty() -> None:
    row = only_row(record(cell(), "crashed", reason="signal 11", phases=Phases(framework_import=2.0)))
    assert (row["import_seconds"], row["build_seconds"], row["compile_seconds"]) == (2.0, None, None)
