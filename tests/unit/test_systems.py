"""Several runs side by side: whose is what, what they did in common, and that nothing is pooled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from html import unescape
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest

import harness
from harness import analysis
from harness.analysis import systems
from harness.analysis.systems import GivenRun
from harness.core.errors import UsageError
from harness.core.record import Record
from harness.report import systems as shown
from harness.runs import folder as run_folder
from tests.unit import made_up_runs, records
from tests.unit.planted_runs import LARGER

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
DESKTOP = {"id": "m1", "processor": "A processor", "logical_cores": 2}
CLUSTER = {"id": "m2", "processor": "Another", "logical_cores": 16}


def of(machine: dict[str, object], found: Sequence[Record]) -> list[Record]:
    return [dataclasses.replace(one, machine=machine) for one in found]


def given(folder: str, found: Sequence[Record], name: str = "") -> GivenRun:
    return GivenRun(folder, name, analysis.collect(found))


def two(**changes: object) -> list[systems.System]:
    """A desktop that trained two batch sizes more than the cluster did, which has one target of its two."""
    desktop = made_up_runs.run(targets=made_up_runs.TARGETS[:2], epochs=(3,), seeds=(0, 1))
    cluster = made_up_runs.run(targets=made_up_runs.TARGETS[:1], sizes=(16, 32, 64), epochs=(3,), seeds=(0, 1))
    return systems.systems([given("a/one", of(DESKTOP, desktop), "desktop"), given("b/two", of(CLUSTER, cluster))])


def test_each_machine_is_a_system_with_its_name() -> None:
    desktop, cluster = two()
    assert (desktop.name, desktop.machine, desktop.runs) == ("desktop", "m1", ("a/one",))
    assert (cluster.name, cluster.machine) == ("two", "m2")
    assert cluster.targets == ["jax-cpu:jit"]


def test_runs_on_one_machine_are_one_system_and_keep_all_their_cells() -> None:
    again = of(DESKTOP, made_up_runs.run(sizes=(16, 32), epochs=(3,)))
    (one,) = systems.systems([given("a/one", again), given("b/two", again)])
    assert one.runs == ("a/one", "b/two")
    assert one.collected.cells.height == 2 * len(again)
    assert one.collected.cells["cell_id"].n_unique() == 2 * len(again)
    assert one.collected.epochs.height == 2 * sum(len(record.epochs) for record in again)


def test_machines_that_share_an_id_and_not_their_processor_are_two() -> None:
    """Virtual machines made of one image have the same id."""
    run = made_up_runs.run(sizes=(16,), epochs=(3,))
    found = systems.systems(
        [given("one", of(DESKTOP, run)), given("two", of({**DESKTOP, "processor": "A newer one"}, run))]
    )
    assert [one.name for one in found] == ["one", "two"]


def test_runs_of_one_name_on_two_machines_are_refused() -> None:
    run = made_up_runs.run(sizes=(16,), epochs=(3,))
    with pytest.raises(UsageError, match="'here' stands for 2 different machines, allowed: one machine a name"):
        systems.systems([given("a", of(DESKTOP, run), "here"), given("b", of(CLUSTER, run), "here")])


def test_folders_of_one_name_are_told_apart_by_their_parents() -> None:
    run = made_up_runs.run(sizes=(16,), epochs=(3,))
    found = systems.systems([given("x/study", of(DESKTOP, run)), given("y/study", of(CLUSTER, run))])
    assert [one.name for one in found] == ["x/study", "y/study"]


def test_a_run_on_two_machines_is_two_systems() -> None:
    run = made_up_runs.run(sizes=(16,), epochs=(3,))
    both = [*of(DESKTOP, run[:4]), *of(CLUSTER, run[4:])]
    found = systems.systems([given("run", both)])
    assert [one.name for one in found] == ["run machine m1", "run machine m2"]
    assert sum(one.collected.cells.height for one in found) == len(run)


def test_only_the_same_work_stands_in_common_and_each_series_has_a_row_of_its_own() -> None:
    found = two()
    common = analysis.analyse(systems.in_common(found))
    assert sorted(common.pace["batch_size"].unique()) == [16, 32, 64]
    assert sorted(common.pace["target"].unique()) == [
        "desktop: jax-cpu:jit",
        "desktop: tensorflow-cpu:graph",
        "two: jax-cpu:jit",
    ]
    alone = analysis.analyse(found[1].collected).pace.sort("batch_size")
    beside = common.pace.filter(pl.col("target") == "two: jax-cpu:jit").sort("batch_size")
    for column in ("images_per_second", "images_per_second_low", "processes"):
        assert beside[column].to_list() == alone[column].to_list()


def test_a_model_of_the_same_name_that_is_another_is_no_common_work() -> None:
    other = dataclasses.replace(LARGER, name=records.MODEL.name)
    one = of(DESKTOP, made_up_runs.run(sizes=(16, 32), epochs=(3,)))
    two = of(CLUSTER, made_up_runs.run(sizes=(16, 32), epochs=(3,), model=other))
    found = systems.systems([given("a", one), given("b", two)])
    assert systems.shared_works(found) == set()
    assert shown.analysed(found, {}).common is None
    assert [work["shared"] for _, work in systems.differing_works(found)] == [0, 0]


def test_the_page_has_every_system_and_asks_the_network_for_nothing() -> None:
    found = shown.analysed(two(), {})
    made = unescape(shown.page(found))
    assert shown.summary(found) in made
    assert shown.summary(found).startswith("2 systems (desktop, two); 6 works that more than one of them did")
    for text in (shown.NOT_POOLED, "desktop by itself", "two by itself", "desktop: tensorflow-cpu:graph", "Another"):
        assert text in made
    assert not re.findall(r"(?:src|href)=[\"']?http", made)
    names = [figure.name for figure in shown.figures(found)]
    assert len(set(names)) == len(names)
    assert "common-training-time" in names
    assert "two-throughput" in names


class TestStoredRuns:
    RUNS = (RESULTS / "h200" / "study", RESULTS / "h200" / "compare", RESULTS / "mnist")

    def test_they_are_shown_with_the_names_that_were_given(self, tmp_path: Path) -> None:
        names = {"h200": [self.RUNS[0], self.RUNS[1]]}
        found = harness.report(*self.RUNS, name=names, html=tmp_path / "page.html")
        assert [one.name for one in found.systems] == ["h200", "mnist"]  # type: ignore[union-attr]
        assert found.cells.height == 5 + 90 + 108
        assert found.cells.columns[:2] == ["system", "runs"]
        assert "no work that two of them did" in str(found)
        page = unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert "h200: jax-cuda-system:jit" in page
        rows = BytesIO()
        found.write_rows("csv", rows)
        assert rows.getvalue().startswith(b"system,runs,cell_id")

    def test_steps_that_were_taken_apart_are_no_training(self, tmp_path: Path) -> None:
        found = harness.report(RESULTS / "desktop", RESULTS / "h200", html=tmp_path / "page.html")
        assert "5 works that more than one of them did" in str(found)
        assert "1 run of harness explain: steps taken apart are not training, so not here." in str(found)
        assert "jax-cpu:jit" not in str(found)
        assert "jax-cpu:jit" in found.cells["target"]
        alone = harness.report(RESULTS / "desktop" / "explained", RESULTS / "h200" / "study")
        assert str(alone).startswith("1 system (study)")
        explained = RESULTS / "desktop" / "explained"
        assert "jax-cpu:jit" in str(harness.report(explained, name={"here": explained}))

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("desktop", "--name: found 'desktop', allowed: NAME=RUN"),
            ("desktop=", "allowed: NAME=RUN"),
            ("desktop=elsewhere", "that run is not among those that are reported"),
        ],
    )
    def test_a_wrong_name_gets_one_line(self, name: str, says: str) -> None:
        with pytest.raises(UsageError, match=says):
            harness.report(*self.RUNS, name=name)

    def test_what_is_of_one_run_is_refused(self) -> None:
        with pytest.raises(UsageError, match="found several runs, allowed: one"):
            harness.report(*self.RUNS, tensorboard="x")

    def test_a_record_tells_what_each_series_is(self) -> None:
        from harness.actions import side_by_side

        found = side_by_side.read(self.RUNS, (), [])
        lanes = side_by_side.lanes(found)
        assert set(lanes) == {
            "study: jax-cpu-system:jit",
            "study: jax-cuda-system:jit",
            "mnist: jax-cpu:jit",
            "mnist: tensorflow-cpu:graph",
        }
        own = {record.cell_id for run in self.RUNS for record in run_folder.Run.open(run).records()}
        assert {record.cell_id for record in lanes.values()} <= own
