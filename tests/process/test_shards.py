"""Parts of one frozen plan run in folders of their own, as on machines of their own, and united again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.runs import folder as run_folder
from tests.command import HARNESS
from tests.process.small_sweep import Sweeper

TARGETS = "scripted,reference"
SIZES = (4, 8, 16, 32)
PARTS = ("shard-1", "shard-2", "shard-3")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, sweep_cache: Path) -> Sweeper:
    """Three parts, each in its folder."""
    made = Sweeper(tmp_path_factory.mktemp("shards"), sweep_cache, "shards-of-one-plan")
    for number, name in enumerate(PARTS, 1):
        sweep(made, name, "--shard", f"{number}/3")
    return made


@pytest.fixture(scope="module")
def planned(measured: Sweeper) -> set[str]:
    """The cells of the whole sweep, asked for without parts."""
    done = measured.run("--plan", "--json", target=TARGETS, batch_sizes=SIZES)
    return {cell["cell_id"] for cell in json.loads(done.stdout)["cells"]}


@pytest.fixture
def shards(measured: Sweeper) -> Iterator[Sweeper]:
    """The parts, and afterwards what a test made beside them removed."""
    before = set(measured.folder.iterdir())
    yield measured
    for path in set(measured.folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def sweep(sweeper: Sweeper, out: str, *flags: str) -> run_folder.Run:
    """Run a part of the plan into a folder; the last ``--out`` counts."""
    done = sweeper.run("--out", out, *flags, target=TARGETS, batch_sizes=SIZES)
    assert done.returncode == 0, done.stderr
    return opened(sweeper, out)


def opened(sweeper: Sweeper, name: str) -> run_folder.Run:
    return run_folder.Run.open(sweeper.folder / name)


def merged(sweeper: Sweeper, *names: str, out: str = "whole") -> dict[str, Any]:
    done = sweeper.finished([HARNESS, "merge", *names, "--out", out, "--json"], None)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_part_holds_the_whole_plan_and_whole_heats_of_it(shards: Sweeper, planned: set[str]) -> None:
    runs = [opened(shards, name) for name in PARTS]
    assert [set(run.cells) for run in runs] == [planned] * 3
    recorded = [set(run.statuses()) for run in runs]
    assert set().union(*recorded) == planned
    assert sum(map(len, recorded)) == len(planned) == 8
    for heat in runs[0].plan.heats:
        assert sorted(len(part & {cell.cell_id for cell in heat.cells}) for part in recorded) == [0, 0, 2]


def test_three_parts_one_given_twice_make_the_whole_plan_each_cell_once(shards: Sweeper, planned: set[str]) -> None:
    shutil.copytree(shards.folder / "shard-2", shards.folder / "copy-of-2")
    before = {name: files(shards.folder / name) for name in PARTS}
    found = merged(shards, *PARTS, "shard-2", "copy-of-2")
    whole = opened(shards, "whole")
    assert set(whole.cells) == planned
    assert sorted(record.cell_id for record in whole.records()) == sorted(planned)
    assert found["missing"] == []
    assert found["recorded"] == {"ok": 8}
    assert sum(source["new"] for source in found["sources"]) == 8
    assert [source["new"] for source in found["sources"]][3:] == [0]
    assert {name: files(shards.folder / name) for name in PARTS} == before
    for record in whole.records():
        assert (whole.folder / record.log).is_file()
        assert (whole.proofs_folder / f"{record.proof}.json").is_file()
    assert (whole.folder / "report.html").is_file()
    assert shards.finished([HARNESS, "report", "whole"], None).returncode == 0
    records = files(whole.records_folder)
    sweep(shards, "whole")  # nothing is left to run
    assert files(whole.records_folder) == records


def test_a_part_that_is_left_out_is_listed_and_can_be_added_or_run(shards: Sweeper, planned: set[str]) -> None:
    found = merged(shards, "shard-1", "shard-3")
    left_out = opened(shards, "shard-2").statuses()
    assert {cell["cell_id"] for cell in found["missing"]} == set(left_out)
    done = shards.finished([HARNESS, "merge", "shard-1", "shard-3", "--out", "whole"], None)
    assert f"Missing: {len(left_out)} cells" in done.stdout
    shutil.copytree(shards.folder / "whole", shards.folder / "completed")
    assert merged(shards, "shard-2")["missing"] == []
    assert opened(shards, "whole").statuses().keys() == planned
    there = files(shards.folder / "completed" / "records")
    completed = sweep(shards, "completed")
    assert completed.statuses().keys() == planned
    assert there.items() <= files(completed.records_folder).items()


def test_a_part_that_was_run_again_elsewhere_is_a_conflict_and_nothing_is_written(shards: Sweeper) -> None:
    again = sweep(shards, "again", "--shard", "2/3")
    done = shards.finished([HARNESS, "merge", *PARTS, "again", "--out", "whole"], None)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert f"harness: {len(again.statuses())} cells have different records, and nothing was written" in lines[-1]
    for cell_id in again.statuses():
        (line,) = [line for line in lines if cell_id in line]
        assert line.startswith("conflict: ")
        for name in ("shard-2", "again"):
            assert str(shards.folder / name / "records" / f"{cell_id}.json") in line
    assert not (shards.folder / "whole").exists()
    merged(shards, *PARTS)
    whole = files(shards.folder / "whole")
    assert shards.finished([HARNESS, "merge", "again", "--out", "whole"], None).returncode == 1
    assert files(shards.folder / "whole") == whole


def test_parts_chosen_by_what_cells_are_unite_too(shards: Sweeper) -> None:
    sweep(shards, "scripted", "--only", "target=scripted")
    sweep(shards, "small", "--only", "target=reference", "--only", "batch_size=4,8")
    found = merged(shards, "scripted", "small")
    assert {(cell["target"], cell["batch_size"]) for cell in found["missing"]} == {
        ("reference:numpy", 16),
        ("reference:numpy", 32),
    }


def test_a_run_of_another_plan_is_refused(shards: Sweeper) -> None:
    assert shards.run("--out", "other", target=TARGETS, batch_sizes=[4]).returncode == 0
    done = shards.finished([HARNESS, "merge", "shard-1", "other", "--out", "whole"], None)
    assert done.returncode == 2
    assert "are runs of different plans: 6 cells only in the first, 0 only in the second" in done.stderr
    assert not (shards.folder / "whole").exists()


def files(folder: Path) -> dict[str, bytes]:
    """Every file that says something; locks and the page, which names its folder and the time, do not."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".html") and path.name != ".lock"
    }
