"""What tables, figures and advice make of a batch size that changes: a category of its own, with its sizes' figures."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from harness import analysis
from harness.analysis import blocks, quick_reading
from harness.core.cell import Target
from harness.core.record import Blocks, Compilation, Epoch, Record
from harness.report import figures_of_learning, terminal
from harness.report.figure import Figure
from harness.report.page import render
from harness.report.works import works
from harness.runs import record_file
from tests.unit.made_up_runs import TARGETS, run, trained, view
from tests.unit.records import JAX, TENSORFLOW, cell

SECONDS = {32: 0.01, 64: 0.016, 128: 0.02}
"""Of a step, of each batch size."""

PLAN = "32>64@1>128@3"


def planned(target: Target = JAX, seed: int = 0, slower: float = 1.0) -> Record:
    """Trained with 32, 64, 64 and 128 images a step: a step that compiles, one that warms up, then equal blocks."""
    of = cell(32, target, epochs=4, examples=4096, seed=seed, batch_changes=((1, 64), (3, 128)))
    made = Blocks()
    for epoch, steps in enumerate(of.epoch_steps):
        parts = [("compile", 1), ("warmup", 1), *[("train", 2)] * (steps // 2 - 1)] if not epoch else []
        for kind, count in parts or [("train", 2)] * (steps // 2):
            made.epoch.append(epoch)
            made.kind.append(kind)
            made.steps.append(count)
            pace = SECONDS[of.training.epoch_sizes(of.dataset.train_examples)[epoch][0][1]] * slower
            made.seconds.append(1.5 if kind == "compile" else pace * count)
            made.cpu_seconds.append(0.1)
            made.mean_loss.append(1.0)
            made.started.append(0.0)
    return Record(
        of,
        of.cell_id,
        of.work_id,
        "ok",
        blocks=made,
        epochs=tuple(Epoch(epoch, 0.5, 0.4, 0.8 + 0.02 * epoch, 0.1) for epoch in range(4)),
        proof="0123456789abcdef",
        machine={"id": "m1", "processor": "A processor", "logical_cores": 2, "memory_bytes": 8_000_000_000},
        compilations=(Compilation(32, 1.5), Compilation(64, 2.5), Compilation(128, 3.5)),
    )


def test_throughput_is_that_of_each_size_and_never_of_a_mixture() -> None:
    found = analysis.collect([planned(seed=0), planned(seed=1), planned(TENSORFLOW)])
    table = analysis.analyse(found).plans
    assert table.filter(table["target"] == JAX.label).select("batch_plan", "batch_size", "processes").rows() == [
        (PLAN, 32, 2),
        (PLAN, 64, 2),
        (PLAN, 128, 2),
    ]
    for row in table.to_dicts():
        assert row["images_per_second"] == pytest.approx(row["batch_size"] / SECONDS[row["batch_size"]])
        assert row["accuracy"] == pytest.approx(0.86)
    assert table.filter(table["target"] == JAX.label)["compile_seconds"].to_list() == [1.5, 2.5, 3.5]


def test_the_whole_is_the_images_of_all_sizes_over_the_time_that_each_takes() -> None:
    (row,) = analysis.summary([planned()]).to_dicts()
    images = {32: 127 * 32, 64: 128 * 64, 128: 32 * 128}
    seconds = sum(count / size * SECONDS[size] for size, count in images.items())
    assert row["images_per_second"] == pytest.approx(sum(images.values()) / seconds)
    assert (row["batch_size"], row["batch_plan"], row["pace_error"]) == (32, PLAN, None)


def test_steps_and_seconds_until_the_end_of_an_epoch_are_those_of_its_sizes() -> None:
    epochs = analysis.collect([planned(), trained(32, TARGETS[0])]).epochs
    (own,) = [part for part in epochs.partition_by("cell_id") if part["cell_id"][0] == planned().cell_id]
    assert own["steps"].to_list() == [128, 192, 256, 288]
    assert own["seconds"].to_list() == pytest.approx([1.28, 2.304, 3.328, 3.968])


def test_a_record_read_quickly_has_the_same_figures() -> None:
    made = planned()
    found, arrays = quick_reading.QuickReader().read(record_file.encode(made))
    assert dataclasses.replace(found, blocks=made.blocks) == made
    assert blocks.figures([arrays, arrays]) == [blocks.of_record(made)] * 2


def test_a_plan_stands_in_no_table_by_batch_size_and_changes_no_advice() -> None:
    fixed = run(epochs=(3,))
    beside = [planned(target, seed) for target in TARGETS for seed in (0, 1, 2)]
    alone, both = (analysis.analyse(analysis.collect(records)) for records in (fixed, [*fixed, *beside]))
    assert both.plans.height == 3 * len(TARGETS)
    for name in ("pace", "ratios", "step_model", "accuracy_by_size", "time_to_accuracy", "startup", "advice"):
        kept, wanted = getattr(both, name), getattr(alone, name)
        assert kept == wanted if isinstance(kept, tuple) else kept.equals(wanted), name


def test_a_plan_is_a_series_of_its_own_in_the_learning_curves() -> None:
    fixed = [trained(32, TARGETS[0], epochs=3), planned()]
    (work,) = works(analysis.analyse(analysis.collect(fixed)))
    figure = figures_of_learning.learning_by_epoch(work)
    assert isinstance(figure, Figure)
    assert PLAN in figure.spec["layer"][0]["encoding"]["strokeDash"]["scale"]["domain"]
    assert f"{TARGETS[0].label} at 32, {JAX.label} at {PLAN}" in figure.note


def test_the_terminal_and_the_page_name_the_plan_and_its_sizes() -> None:
    records = [planned(), planned(TENSORFLOW)]
    found = analysis.outline(analysis.collect(records))
    console = Console(file=io.StringIO(), width=140, highlight=False)
    terminal.print_summary(found.cells, console, Path("run"), agreement=found.agreement, planned=2, plans=found.plans)
    assert isinstance(console.file, io.StringIO)
    text = " ".join(console.file.getvalue().split())
    assert f"jax-cpu:jit {PLAN}" in text
    assert (
        f"jax-cpu:jit with the plan {PLAN}: 3,200 images per s at 32 (ready after 1.50 s), 4,000 images per s at 64 "
        "(ready after 2.50 s), 6,400 images per s at 128 (ready after 3.50 s)." in text
    )
    assert "Plans of batch sizes" in render(view(records))
