"""Several devices: what a target with them is, what is refused, and planted speed-ups found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from harness import analysis
from harness.analysis import Analysis, comparison, devices, statement
from harness.core import codec
from harness.core.cell import Target, label_and_devices
from harness.core.errors import WrongDevice
from harness.core.messages import Inventoried
from harness.core.record import Record
from harness.core.training import OptimizerSpec
from harness.plan import inputs, targets, trainable
from harness.proof import conservation, parity, probes
from harness.proof import device as device_proof
from harness.report import charts
from harness.report import devices as told
from harness.report.advice import sentence
from harness.report.figure import Absent, Figure
from tests.unit.planted_runs import lognormal, planted
from tests.unit.records import JAX, MODEL, TENSORFLOW, cell

GPU = replace(JAX, name="jax-cuda", accelerator="cuda")
SIZES, COUNTS = (32, 128, 512, 2048), (1, 2, 4)
OVERHEAD, PER_IMAGE, REDUCTION = 2e-4, 1e-6, 1.5e-4

Law = Callable[[int, int], float]


def law(size: int, count: int) -> float:
    return OVERHEAD + size / count * PER_IMAGE + (REDUCTION if count > 1 else 0.0)


def on(target: Target, count: int) -> Target:
    return replace(target, devices=count)


def test_one_device_is_no_part_of_an_identity() -> None:
    assert "devices" not in codec.to_json(JAX)
    assert codec.digest(on(JAX, 1)) == codec.digest(JAX)
    assert codec.digest(on(JAX, 2)) != codec.digest(JAX)
    assert cell(32, on(JAX, 2)).work_id == cell(32, JAX).work_id
    one, two = (parity.key_of(on(JAX, count), MODEL, OptimizerSpec(), "float32") for count in (1, 2))
    assert two == {**one, "devices": 2}


def test_a_label_tells_its_devices() -> None:
    target = replace(JAX, devices=4, cpus=2, options=(("loop", "unrolled"),))
    assert target.label == "jax-cpu:jit@cpus=2@devices=4@loop=unrolled"
    assert label_and_devices(target.label) == (on(target, 1).label, 4)
    assert label_and_devices(JAX.label) == (JAX.label, 1)


def test_a_batch_that_has_no_equal_parts_is_refused_before_anything_starts() -> None:
    assert trainable.why_not(cell(32, on(JAX, 3))) == (
        "batch size 32 cannot be split into 3 equal parts, one for each device"
    )
    assert trainable.why_not(cell(32, on(JAX, 4))) == ""
    assert "a target has one of the two" in trainable.why_not(cell(32, replace(JAX, devices=2, microbatch=8)))


def test_a_worker_is_shown_all_of_its_devices() -> None:
    cuda = targets.built_in()["jax-cuda"]
    assert cuda.variables(1, devices=2)["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert cuda.variables(0, {"CUDA_VISIBLE_DEVICES": "3,5,7"}, 2)["CUDA_VISIBLE_DEVICES"] == "3,5"
    with pytest.raises(WrongDevice, match=r"asked for device 2, but CUDA_VISIBLE_DEVICES shows 2"):
        cuda.variables(1, {"CUDA_VISIBLE_DEVICES": "3,5"}, 2)


def test_parameters_on_fewer_devices_than_asked_for_are_the_wrong_device() -> None:
    places = {"parameters_on": ["TFRT_CPU_0", "TFRT_CPU_1"], "loss_on": ["TFRT_CPU_0", "TFRT_CPU_1"]}
    assert device_proof.closing_problem(on(JAX, 2), places, trained=True) == ""
    fewer = {**places, "parameters_on": ["TFRT_CPU_0"]}
    assert device_proof.closing_problem(on(JAX, 2), fewer, trained=True) == (
        "asked for 2 devices, but the parameters live on TFRT_CPU_0"
    )


def test_what_devices_have_unequal_or_never_add_up_is_a_fault() -> None:
    of = cell(32, on(JAX, 2))

    def faults(apart: list[str], collectives: dict[str, int]) -> list[str]:
        kept = conservation.judge(of, 5, Inventoried(5, {}, apart, collectives), {})
        return [one.fault for one in kept.quantities if not one.passed]

    assert faults([], {"all-reduce": 1}) == []
    assert faults(["a", "b", "c", "d"], {"all-reduce": 1}) == ["the devices have 4 arrays unequal (a, b, c, ...)"]
    assert faults([], {}) == ["the compiled step adds nothing up over its devices"]


@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 4), (3, 6), (8, 8)])
def test_probes_have_batches_that_the_devices_can_split(count: int, size: int) -> None:
    target = on(JAX, count)
    initial = inputs.draw_parameters(MODEL, seed=0)
    assert probes.training_probe(MODEL, OptimizerSpec(), "float32", target, initial).cell.training.batch_size == size
    assert probes.ties_probe("float32", target).cell.training.batch_size == size
    assert probes.dropout_probe(0.5, "float32", target).cell.training.batch_size % count == 0


def run(
    times: Law = law, target: Target = GPU, sizes: Sequence[int] = SIZES, counts: Sequence[int] = COUNTS
) -> list[Record]:
    """Cells whose blocks vary by 3 %, in processes that vary by 1 %."""
    random = np.random.default_rng(len(sizes) + 10 * len(counts))
    return [
        planted(
            size,
            on(target, count),
            repeat=repeat,
            pace=times(size, count) * float(np.exp(0.01 * random.normal())),
            blocks=60,
            noise=lognormal(random, 0.03),
        )
        for size in sizes
        for count in counts
        for repeat in range(3)
    ]


def analysed(records: Sequence[Record]) -> Analysis:
    return analysis.analyse(analysis.collect(records))


def test_speed_up_and_efficiency_come_back_within_their_intervals() -> None:
    found = analysed(run()).device_scaling
    assert found.select("batch_size", "devices").rows() == [
        (size, count) for size in SIZES for count in COUNTS[1:]
    ] or (sorted(found.select("batch_size", "devices").rows()) == [(size, count) for size in SIZES for count in (2, 4)])
    inside = 0
    for row in found.to_dicts():
        truth = law(row["batch_size"], 1) / law(row["batch_size"], row["devices"])
        assert row["speed_up"] == pytest.approx(truth, rel=0.05)
        assert row["efficiency"] == pytest.approx(row["speed_up"] / row["devices"])
        assert row["predicted_speed_up"] == pytest.approx(truth, rel=0.05)
        assert row["reduction_share"] == pytest.approx(REDUCTION / law(row["batch_size"], row["devices"]), rel=0.15)
        assert (row["base"], row["target"]) == (GPU.label, on(GPU, row["devices"]).label)
        assert (row["logical"], row["heats"]) == (False, 3)
        inside += row["speed_up_low"] <= truth <= row["speed_up_high"]
    assert inside >= 6


def test_with_the_batch_per_device_kept_efficiency_is_that_of_one_device_with_as_many() -> None:
    found = analysed(run()).device_scaling
    weak = {(row["batch_size"], row["devices"]): row["weak_efficiency"] for row in found.to_dicts()}
    assert weak[32, 2] is None
    for size, count in ((128, 4), (512, 4), (2048, 4)):
        assert weak[size, count] == pytest.approx(law(size // count, 1) / law(size, count), rel=0.05)
    alone = [*run(sizes=(32,), counts=(1,)), *run(sizes=(64,), counts=(2,))]
    (row,) = analysed(alone).device_scaling.to_dicts()
    assert (row["speed_up"], row["heats"], row["batch_size"]) == (None, 0, 64)
    assert row["weak_efficiency"] == pytest.approx(law(32, 1) / law(64, 2), rel=0.05)
    found = analysed(alone)
    (weak_words,) = [
        one for one in told.sentences(found.cells, found.device_scaling, found.device_time) if "keeps" in one
    ]
    assert f"{on(GPU, 2).label} keeps on each device" in weak_words


def test_the_parts_of_a_step_come_back() -> None:
    (found,) = analysed(run()).device_time.to_dicts()
    assert (found["target"], found["devices_measured"], found["points"], found["fits"]) == (
        *(GPU.label, "1, 2, 4", 12, True),
    )
    for name, truth in (
        ("overhead_seconds", OVERHEAD),
        ("seconds_per_image", PER_IMAGE),
        ("reduction_seconds", REDUCTION),
    ):
        assert found[name] == pytest.approx(truth, rel=0.15), name
        assert found[f"{name}_low"] < truth < found[f"{name}_high"], name
    assert found["pays_from"] == pytest.approx(2 * REDUCTION / PER_IMAGE, rel=0.15)
    assert found["pays_from_measured"] == 512


def test_without_noise_they_come_back_exactly() -> None:
    points = [(size, count) for size in SIZES for count in COUNTS]
    sizes, counts = zip(*points, strict=True)
    found = devices.fit(sizes, counts, [law(*point) for point in points])
    assert found.overhead[0] == pytest.approx(OVERHEAD, rel=1e-3)
    assert found.per_image[0] == pytest.approx(PER_IMAGE, rel=1e-3)
    assert found.reduction[0] == pytest.approx(REDUCTION, rel=1e-3)
    assert found.pays_from == pytest.approx(300, rel=1e-3)
    assert found.seconds(512, 4) == pytest.approx(law(512, 4), rel=1e-3)


def test_a_second_device_that_never_pays_is_said_to() -> None:
    found = analysed(run(lambda size, count: law(size, 1) * (1.2 if count > 1 else 1.0)))
    assert found.device_time["pays_from_measured"].to_list() == [None]
    assert "at no batch size that was measured" in " ".join(
        told.sentences(found.cells, found.device_scaling, found.device_time)
    )


def test_times_of_another_law_are_refused_with_the_worst_of_them() -> None:
    (found,) = analysed(
        run(lambda size, count: law(size, count) * (size % 100 if count > 1 else 1))
    ).device_time.to_dicts()
    assert not found["fits"]
    assert "no overhead, cost of a device's own images and reduction" in found["reason"]
    assert found["reduction_seconds"] is None


@pytest.mark.parametrize(
    ("sizes", "counts", "why"),
    [
        ((32,), COUNTS, "too few batch sizes were measured: 1"),
        (SIZES, (2, 4), "one device was not measured"),
        ((32, 64), (1, 2), "only 4 times of steps"),
    ],
)
def test_too_little_is_refused(sizes: Sequence[int], counts: Sequence[int], why: str) -> None:
    (found,) = analysed(run(sizes=sizes, counts=counts)).device_time.to_dicts()
    assert why in found["reason"]


def test_one_device_alone_has_no_rows() -> None:
    found = analysed(run(counts=(1,)))
    assert found.device_scaling.is_empty()
    assert found.device_time.is_empty()
    assert told.sentences(found.cells, found.device_scaling, found.device_time) == []
    absent = [one for gallery in charts.galleries(found) for one in gallery.absent]
    assert any("on one device and on several" in one.why for one in absent if isinstance(one, Absent))


def test_nothing_is_judged_of_logical_devices() -> None:
    quick = lambda size, count: law(size, count) / 10  # noqa: E731
    records = [*run(quick, JAX, counts=(1, 2)), *run(law, TENSORFLOW, counts=(1,))]
    collected = analysis.collect(records)
    found = analysis.analyse(collected)
    logical = on(JAX, 2).label
    assert found.device_scaling["logical"].all()
    assert found.device_time.select("pays_from", "pays_from_measured").rows() == [(None, None)]
    assert logical not in {*found.ratios["target"], *found.ratios["base"]}
    (advice,) = found.advice
    assert advice.choice is not None
    assert advice.choice.target == JAX.label
    named = {one.target for one in (*advice.per_target, *advice.alike, *advice.behind)}
    assert logical not in named
    lanes = comparison.lane_keys([JAX, on(JAX, 2)], control=False)
    for one in comparison.compare([record for record in records if record.cell.target.backend == JAX.backend], lanes):
        assert one.verdict == comparison.NOT_COMPARABLE
        assert any("share the same processors" in reason for reason in one.reasons)
    (last,) = told.sentences(found.cells, found.device_scaling, found.device_time)
    assert last == statement.of_logical([logical])
    assert "their speed means nothing" in last
    (figure,) = [
        one for gallery in charts.galleries(found) for one in gallery.figures if one.name.startswith("speed-up")
    ]
    assert isinstance(figure, Figure)
    assert "their speed means nothing" in figure.note


def test_where_only_logical_devices_were_timed_that_is_the_answer() -> None:
    (advice,) = analysed(run(target=JAX, counts=(2,))).advice
    assert (advice.choice, advice.logical) == (None, (on(JAX, 2).label,))
    assert sentence(advice) == "There is no answer: only logical devices, which share the same processors, were timed."


def test_real_devices_are_judged() -> None:
    found = analysed(run())
    assert on(GPU, 4).label in {*found.ratios["target"], *found.ratios["base"]}
    (advice,) = found.advice
    assert advice.choice is not None
    assert advice.choice.target == on(GPU, 4).label
    assert statement.of_logical([]) == ""
    said = " ".join(told.sentences(found.cells, found.device_scaling, found.device_time))
    assert f"{on(GPU, 2).label} against {GPU.label}: " in said
    assert f"A second device of {GPU.label} makes a step shorter from batch size 512 on, as predicted above " in said
    assert isinstance(found.device_scaling, pl.DataFrame)
