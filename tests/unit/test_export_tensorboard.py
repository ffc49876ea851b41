"""Event files, read back by TensorBoard itself: by its accumulator, and by what answers its HPARAMS dashboard."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from harness import analysis
from harness.core.errors import HarnessError, UsageError
from harness.core.record import Epoch, Record
from harness.export import tensorboard, tracking
from harness.runs import folder as run_folder
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "run-schema-1"

pytestmark = pytest.mark.filterwarnings(
    # TensorBoard's server side carries an old copy of bleach.
    "ignore:html5lib's sanitizer is deprecated:DeprecationWarning"
)


def export(records: list[Record], folder: Path, run_name: str = "quick") -> int:
    collected = analysis.collect(records)
    return tensorboard.export_cells(collected.cells, collected.epochs, folder, run_name)


def reached(*losses: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(number, loss, loss / 2, 0.5 + number / 4, 0.2) for number, loss in enumerate(losses))


WELL = record(cell(32, JAX), epochs=reached(2.0, 1.0))
DIVERGED = record(cell(64, TENSORFLOW), epochs=reached(math.nan, math.inf))
OUT_OF_MEMORY = record(cell(128, TENSORFLOW), status="out_of_memory", reason="8 GB were not enough")
NEVER_RUN = failed(cell(256, TENSORFLOW), "skipped", "batch size 128 ran out of memory", started=WELL.started)
EVERY = [WELL, DIVERGED, OUT_OF_MEMORY, NEVER_RUN]


def folder_of(made: Record, folder: Path) -> Path:
    (found,) = folder.glob(f"*/*_{made.cell_id}")
    return found


def scalars(made: Record, folder: Path) -> dict[str, list[Any]]:
    """Tag -> events of the event file of a cell."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder_of(made, folder))).Reload()
    return {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]}


finds_values = pytest.mark.skipif(
    sys.platform == "win32", reason="TensorBoard asks there for the values of runs whose names end with a backslash"
)


class Dashboard:
    """What TensorBoard's server tells of a folder, without the socket."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
        from tensorboard.plugins import base_plugin
        from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
        from tensorboard.plugins.text.text_plugin import TextPlugin

        runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
        provider = data_provider.MultiplexerDataProvider(runs, str(folder))
        context = base_plugin.TBContext(data_provider=provider, logdir=str(folder), multiplexer=runs)
        self._hparams, self._text = HParamsPlugin(context), TextPlugin(context)

    @property
    def columns(self) -> dict[str, Any]:
        return self._ask("/experiment")

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Session groups by name."""
        statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN"]
        found = self._ask("/session_groups", allowedStatuses=statuses, colParams=[], startIndex=0, sliceSize=9999)
        return {group["name"]: group for group in found["sessionGroups"]}

    def text(self, cell_id: str, tag: str) -> str:
        """A text of a cell, as HTML."""
        (run,) = (run for run, tags in self._get(self._text, "/tags").items() if cell_id in run and tag in tags)
        (piece,) = self._get(self._text, "/text", run=run, tag=tag)
        return str(piece["text"])

    def _ask(self, path: str, **asked: Any) -> dict[str, Any]:
        answer = Client(self._hparams.get_plugin_apps()[path]).post("/", json={"experimentName": "", **asked})
        assert answer.status_code == 200, answer.text
        return dict(json.loads(answer.text))

    def _get(self, plugin: Any, path: str, **query: str) -> Any:
        answer = Client(plugin.get_plugin_apps()[path]).get("/", query_string=query)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)


class TestScalars:
    def test_epochs_are_steps_and_training_time_is_the_wall_time(self, tmp_path: Path) -> None:
        assert export(EVERY, tmp_path) == 4
        read = scalars(WELL, tmp_path)
        assert [(event.step, event.value) for event in read["epoch/test_accuracy"]] == [(1, 0.5), (2, 0.75)]
        assert [event.value for event in read["epoch/train_loss"]] == [2.0, 1.0]
        assert [event.value for event in read["epoch/test_loss"]] == [1.0, 0.5]
        first, second = (event.wall_time for event in read["epoch/test_loss"])
        assert second - first == pytest.approx(0.1, abs=1e-6)

    def test_figures_are_one_point_each(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        read = scalars(WELL, tmp_path)
        figures = {tag: [event.value for event in events] for tag, events in read.items() if "training/" in tag}
        assert figures["training/final_accuracy"] == [0.75]
        assert figures["training/images_per_second"] == [3200.0]
        assert figures["training/compile_seconds"] == [1.5]
        assert figures["training/peak_memory_bytes"] == [500_000_000]
        assert "training/joules_per_image" not in figures

    def test_losses_that_are_not_finite_stay_so(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        first, second = (event.value for event in scalars(DIVERGED, tmp_path)["epoch/test_loss"])
        assert math.isnan(first)
        assert second == math.inf

    def test_a_cell_that_failed_has_none(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        assert scalars(OUT_OF_MEMORY, tmp_path) == {}
        assert scalars(NEVER_RUN, tmp_path) == {}


class TestHyperparameters:
    @finds_values
    def test_every_cell_is_a_row_of_its_settings_and_main_figures(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        rows = Dashboard(tmp_path).rows
        assert rows.keys() == {made.cell_id for made in EVERY}
        row = rows[WELL.cell_id]
        asked = {"target": "jax-cpu:jit", "batch_size": 32, "epochs": 2, "seed": 0, "optimizer": "momentum"}
        asked |= {"learning_rate": 0.01, "precision": "float32", "model": "tiny", "dataset": "digits", "status": "ok"}
        assert asked.items() <= row["hparams"].items()
        values = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        assert values["training/final_accuracy"] == 0.75
        assert values["training/images_per_second"] == 3200
        assert values["training/train_seconds"] == pytest.approx(0.19)

    def test_columns_in_which_cells_differ_come_first_and_the_main_figures_too(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        columns = Dashboard(tmp_path).columns
        assert [info["name"] for info in columns["hparamInfos"] if info["differs"]] == [
            "batch_size",
            "diverged",
            "status",
            "target",
        ]
        assert [info["displayName"] for info in columns["metricInfos"]] == list(tracking.FIGURES)
        untold = {"interleave", "batch_plan"}
        assert {info["name"] for info in columns["hparamInfos"]} == {*tensorboard.HYPERPARAMETERS} - untold

    def test_how_a_cell_ended_and_why_is_told(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        board = Dashboard(tmp_path)
        ends = {name: group["sessions"][0]["status"] for name, group in board.rows.items()}
        assert ends[WELL.cell_id] == "STATUS_SUCCESS"
        assert ends[OUT_OF_MEMORY.cell_id] == "STATUS_FAILURE"
        assert ends[NEVER_RUN.cell_id] == "STATUS_UNKNOWN"
        assert board.rows[OUT_OF_MEMORY.cell_id]["hparams"]["status"] == "out_of_memory"
        assert board.rows[OUT_OF_MEMORY.cell_id]["metricValues"] == []
        assert "8 GB were not enough" in board.text(OUT_OF_MEMORY.cell_id, "reason")

    @finds_values
    def test_a_loss_that_is_not_finite_is_a_value_too(self, tmp_path: Path) -> None:
        export(EVERY, tmp_path)
        values = Dashboard(tmp_path).rows[DIVERGED.cell_id]["metricValues"]
        assert [value["value"] for value in values if value["name"]["tag"] == "training/final_test_loss"] == [
            "Infinity"
        ]


class TestFolder:
    def test_exporting_again_adds_what_is_new_and_leaves_the_rest(self, tmp_path: Path) -> None:
        assert export([WELL], tmp_path) == 1
        (kept,) = folder_of(WELL, tmp_path).iterdir()
        before = kept.stat()
        assert export(EVERY, tmp_path) == 3
        assert export(EVERY, tmp_path) == 0
        assert kept.stat() == before
        assert "batch_size" in [info["name"] for info in Dashboard(tmp_path).columns["hparamInfos"] if info["differs"]]

    def test_two_runs_stand_beside_each_other(self, tmp_path: Path) -> None:
        assert export([WELL], tmp_path, "first") == 1
        assert export([DIVERGED], tmp_path, "second") == 1
        assert len(Dashboard(tmp_path).rows) == 2

    def test_a_cell_that_was_retried_is_one_more(self, tmp_path: Path) -> None:
        export([OUT_OF_MEMORY], tmp_path)
        again = record(OUT_OF_MEMORY.cell, attempt=2, started="2026-11-23T12:00:00+00:00")
        assert export([again], tmp_path) == 1
        assert len(list(tmp_path.glob("quick/*/events*"))) == 2

    def test_what_is_in_the_folder_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "events.out.tfevents.1.mine").write_bytes(b"mine")
        export([WELL], tmp_path)
        assert (tmp_path / "mine" / "events.out.tfevents.1.mine").read_bytes() == b"mine"

    def test_another_run_of_the_same_name_is_not_mixed_in(self, tmp_path: Path) -> None:
        export([WELL], tmp_path)
        elsewhere = dataclasses.replace(WELL, started="2026-11-23T11:00:00+00:00")
        with pytest.raises(UsageError, match=r"another run called quick; name another folder$"):
            export([DIVERGED, elsewhere], tmp_path)
        assert not list(tmp_path.glob(f"quick/*_{DIVERGED.cell_id}"))

    def test_a_place_that_is_no_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(HarnessError, match="file"):
            export([WELL], tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_names_are_safe_on_every_system(self, tmp_path: Path) -> None:
        target = dataclasses.replace(JAX, name="my/own: <jax>", device=1)
        export([record(cell(32, target))], tmp_path, "..")
        (found,) = (
            path.relative_to(tmp_path).parts for path in tmp_path.rglob("*tfevents*") if "columns" not in path.name
        )
        assert found[0].startswith("my-own-jax-jit@device=1_batch-32_")

    def test_a_run_without_records_writes_nothing(self, tmp_path: Path) -> None:
        assert export([], tmp_path / "new") == 0
        assert not (tmp_path / "new").exists()


def test_a_run_of_the_first_version_is_exported(tmp_path: Path) -> None:
    records = list(run_folder.Run.open(GOLDEN).records([]))
    assert export(records, tmp_path) == len(records)
    rows = Dashboard(tmp_path).rows
    assert {made.cell_id: made.status for made in records} == {
        name: row["hparams"]["status"] for name, row in rows.items()
    }


def test_without_the_library_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError) as refused:
        export([WELL], tmp_path)
    assert str(refused.value) == (
        'tensorboard is not installed: pip install "backend-harness[tensorboard]" '
        "(in a clone: uv sync --extra tensorboard)"
    )


def test_neither_tensorflow_nor_torch_is_imported_where_they_are_installed(tmp_path: Path) -> None:
    for name in ("tensorflow", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    code = (
        f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(tmp_path)!r}]\n"
        "from pathlib import Path; from tests.unit import test_export_tensorboard as made\n"
        f"print(made.export(made.EVERY, Path({str(tmp_path)!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert run.stdout == "4\n", run.stderr
