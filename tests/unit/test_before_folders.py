"""What the version before the folders of ``harness`` wrote is read, shown and carried on by this one.

``tests/golden/run-before-folders`` is a run folder of that version, with the sweep file and the ``harness.toml`` that
it was made from. Its ``setting.json`` names a ``harness.toml`` of another machine. Its cells' identities hold the
reference's lock file: where that is renewed they change, and this folder is made anew.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import cli
from harness.analysis import reading
from harness.runs import folder as run_folder
from harness.runs import setting

BEFORE = Path(__file__).resolve().parents[1] / "golden" / "run-before-folders"
CELLS = ("a97f74b76054b770", "59020d257f0155f7", "5707af5c4b451983", "b0a465d40261f2bc")
"""In the order of the plan."""

Caller = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that commands run in: the sweep file, its ``harness.toml``, and the run as ``run`` and ``again``."""
    place = tmp_path_factory.mktemp("before")
    for name in ("digits.toml", "harness.toml"):
        shutil.copy(BEFORE / name, place / name)
    for name in ("run", "again"):
        shutil.copytree(BEFORE, place / name, ignore=shutil.ignore_patterns("*.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE_DIR", str(place / "cache"))
        patch.chdir(place)
        yield place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    """Runs a command that must do well; gives its output."""

    def called(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        return out

    return called


def contents(folder: str) -> dict[str, bytes]:
    """The records of a run folder, which nothing may change."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder, "records").iterdir())}


class TestReading:
    def test_every_record_proof_and_noise_scale_and_the_images_are_read(self) -> None:
        found = reading.read(run_folder.open_run(BEFORE))
        assert (found.unreadable, found.unreadable_proofs) == ((), ())
        assert set(found.found.cells["cell_id"]) == set(CELLS)
        assert [proof.passed for proof in found.proofs] == [True]
        assert {record.proof for record in found.lanes} == {proof.id for proof in found.proofs}
        assert [(one.model, one.step, one.trained_batch_size) for one in found.noise_scales] == [("lenet5", 0, 16)]

    def test_its_setting_is_read_though_the_file_that_it_names_is_not_there(self) -> None:
        kept = setting.read(run_folder.open_run(BEFORE))
        assert not Path(kept.targets[0].file).exists()
        assert kept.images is None, "the range of its images was not kept"
        setting.require_planned(run_folder.open_run(BEFORE), kept.definitions())

    @pytest.mark.parametrize("table", reading.TABLES)
    def test_every_table_is_loaded(self, table: str) -> None:
        assert harness.load(BEFORE, table).columns

    def test_a_table_that_had_another_name_is_found_by_it(self) -> None:
        assert harness.load(BEFORE, "load").equals(harness.load(BEFORE, "other_load"))

    @pytest.mark.parametrize("table", ["cells", "epochs", "pace"])
    def test_no_cell_is_missing_from_a_table(self, table: str) -> None:
        assert harness.load(BEFORE, table).height == len(CELLS)


class TestCommands:
    def test_the_terminal_shows_every_cell(self, call: Caller) -> None:
        shown = call("report", "run")
        assert shown.count(" ok ") == 4
        assert all(f"{name}:numpy" in shown for name in ("mine", "reference"))

    def test_the_page_shows_the_proof_and_the_noise_scale(self, call: Caller) -> None:
        call("report", "run", "--html", "page.html")
        page = Path("page.html").read_text(encoding="utf-8")
        assert 'id="noise-scale"' in page
        assert "not readable" not in page

    def test_rows_for_a_program_have_the_identities_of_before(self, call: Caller) -> None:
        rows = list(csv.DictReader(io.StringIO(call("report", "run", "--format", "csv"))))
        assert {row["cell_id"] for row in rows} == set(CELLS)
        assert {row["status"] for row in rows} == {"ok"}

    def test_a_noise_scale_is_not_measured_again(self, call: Caller) -> None:
        kept = sorted(Path("run", "noise-scale").iterdir())
        assert " 58 " in call("noise-scale", "run", "--steps", "0", "--batches", "8")
        assert sorted(Path("run", "noise-scale").iterdir()) == kept

    def test_the_sweep_file_is_the_same_plan_and_nothing_of_it_is_left_to_run(self, call: Caller) -> None:
        plan: dict[str, Any] = json.loads(call("sweep", "digits.toml", "--out", "run", "--plan", "--json"))
        assert tuple(cell["cell_id"] for cell in plan["cells"]) == CELLS
        assert {cell["skip"] for cell in plan["cells"]} == {"has its record: ok"}
        assert plan["seconds"] == 0

    def test_sweeping_again_runs_nothing_and_shows_the_table(self, call: Caller) -> None:
        shutil.copytree("run", "swept")
        assert call("sweep", "digits.toml", "--out", "swept").count(" ok ") == 4
        assert contents("swept") == contents(str(BEFORE))
        assert not list(Path("swept", "logs").iterdir()), "no worker was started"
        assert setting.read(run_folder.open_run(Path("swept"))).targets[0].file == str(Path("harness.toml").absolute())

    def test_two_such_folders_are_compared(self, call: Caller) -> None:
        compared = call("compare", "run", "again")
        assert compared.count("no difference found") >= 4

    def test_such_folders_are_merged(self, call: Caller) -> None:
        call("merge", "run", "again", "--out", "merged")
        assert contents("merged").keys() == contents(str(BEFORE)).keys()
        found = reading.read(run_folder.open_run(Path("merged")))
        assert (len(found.proofs), len(found.noise_scales)) == (1, 1)
