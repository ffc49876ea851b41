"""MLflow runs, read back by MLflow's own client."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import analysis
from harness.core.errors import HarnessError, UsageError
from harness.core.record import Epoch, Record
from harness.export import mlflow
from harness.runs import folder as run_folder
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"

pytestmark = pytest.mark.filterwarnings(
    # MLflow's own tables use an option that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)

LOSSES = (2.0, math.nan, math.inf)
EPOCHS = tuple(Epoch(number, loss, loss, 0.5 + number / 8, 0.2) for number, loss in enumerate(LOSSES))
WELL = record(cell(32, JAX, epochs=3), epochs=EPOCHS, machine={"id": "m1"})
OUT_OF_MEMORY = record(cell(128, TENSORFLOW), status="out_of_memory", reason="8 GB were not enough")
INTERRUPTED = failed(cell(256, TENSORFLOW), "interrupted", "Ctrl-C", started=WELL.started)
EVERY = [WELL, OUT_OF_MEMORY, INTERRUPTED]
LARGEST = sys.float_info.max


def export(records: list[Record], destination: str, run_name: str = "quick") -> int:
    collected = analysis.collect(records)
    return mlflow.export_cells(collected.cells, collected.epochs, destination, run_name)


def client(destination: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=destination)


def runs(destination: str, experiment: str = "quick") -> dict[str, Any]:
    """MLflow's runs of an experiment by cell_id; no cell has two."""
    asked = client(destination)
    found = asked.search_runs([asked.get_experiment_by_name(experiment).experiment_id])
    by_cell = {run.data.tags["cell_id"]: run for run in found}
    assert len(by_cell) == len(found)
    return by_cell


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("mlflow")
    export([], str(folder), "none")
    return folder / mlflow.DATABASE


@pytest.fixture
def database(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'own.db').as_posix()}"


class TestCell:
    def test_settings_are_parameters_and_figures_metrics(self, database: str) -> None:
        assert export(EVERY, database) == 3
        run = runs(database)[WELL.cell_id]
        asked = {"target": "jax-cpu:jit", "batch_size": "32", "epochs": "3", "seed": "0", "optimizer": "momentum"}
        asked |= {"learning_rate": "0.01", "precision": "float32", "model": "tiny", "dataset": "digits"}
        assert asked.items() <= run.data.params.items()
        assert run.data.metrics["final_accuracy"] == 0.75
        assert run.data.metrics["images_per_second"] == 3200
        assert run.data.metrics["compile_seconds"] == 1.5
        assert run.info.run_name == "jax-cpu:jit, batch size 32"

    def test_epochs_are_steps_and_training_time_is_their_time(self, database: str) -> None:
        export(EVERY, database)
        run = runs(database)[WELL.cell_id]
        history = client(database).get_metric_history(run.info.run_id, "test_accuracy")
        assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.625), (3, 0.75)]
        assert [point.timestamp - run.info.start_time for point in history] == [100, 200, 300]
        assert run.info.end_time - run.info.start_time == 300

    def test_a_loss_that_is_nan_stays_so_and_an_infinite_one_is_the_largest_number(self, database: str) -> None:
        export(EVERY, database)
        run_id = runs(database)[WELL.cell_id].info.run_id
        first, second, third = (point.value for point in client(database).get_metric_history(run_id, "test_loss"))
        assert first == 2.0
        assert math.isnan(second)
        assert third == LARGEST

    def test_tags_identify_the_record(self, database: str) -> None:
        export(EVERY, database)
        tags = runs(database)[WELL.cell_id].data.tags
        expected = {"work_id": WELL.work_id, "status": "ok", "proof": WELL.proof, "machine": "m1", "attempt": "1"}
        assert expected.items() <= tags.items()
        assert "reason" not in tags

    def test_a_cell_that_failed_has_its_reason_and_no_metrics(self, database: str) -> None:
        export(EVERY, database)
        found = runs(database)
        assert found[OUT_OF_MEMORY.cell_id].info.status == "FAILED"
        assert found[OUT_OF_MEMORY.cell_id].data.tags["status"] == "out_of_memory"
        assert found[OUT_OF_MEMORY.cell_id].data.tags["reason"] == "8 GB were not enough"
        assert found[INTERRUPTED.cell_id].info.status == "KILLED"
        assert found[OUT_OF_MEMORY.cell_id].data.metrics == found[INTERRUPTED.cell_id].data.metrics == {}

    def test_more_epochs_than_one_call_takes(self, database: str) -> None:
        long = record(cell(32, epochs=700))
        export([long], database)
        run_id = runs(database)[long.cell_id].info.run_id
        assert len(client(database).get_metric_history(run_id, "train_loss")) == 700


class TestAgain:
    def test_exporting_again_logs_what_is_new_only(self, database: str) -> None:
        assert export([WELL], database) == 1
        assert export(EVERY, database) == 2
        assert export(EVERY, database) == 0
        assert runs(database).keys() == {made.cell_id for made in EVERY}

    def test_more_runs_than_a_page_are_known_again(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mlflow, "_RUNS_AT_ONCE", 2)
        export(EVERY, database)
        assert export(EVERY, database) == 0

    def test_a_cell_that_was_retried_or_run_elsewhere_is_one_more(self, database: str) -> None:
        export([OUT_OF_MEMORY], database)
        assert export([record(OUT_OF_MEMORY.cell, attempt=2)], database) == 1
        assert export([dataclasses.replace(OUT_OF_MEMORY, started="2026-11-24T10:00:00+00:00")], database) == 1

    def test_runs_have_experiments_of_their_own(self, database: str) -> None:
        assert export([WELL], database, "first") == 1
        assert export([WELL], database, "second") == 1
        assert runs(database, "first").keys() == runs(database, "second").keys()

    def test_what_was_cut_short_is_completed(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient

        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, "set_terminated", _cut)
            with pytest.raises(HarnessError, match=r"^MLflow: the line is dead$"):
                export(EVERY, database)
        assert export(EVERY, database) == 3
        run = runs(database)[WELL.cell_id]
        assert run.info.status == "FINISHED"
        assert len(client(database).get_metric_history(run.info.run_id, "test_accuracy")) == 3

    def test_what_was_done_before_an_error_is_told(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow import MlflowClient

        good = MlflowClient.set_terminated
        ends = iter([good, _cut])
        monkeypatch.setattr(MlflowClient, "set_terminated", lambda *given: next(ends)(*given))
        with pytest.raises(HarnessError, match=r"dead \(after 1 of 3 cells; the same command goes on\)$"):
            export(EVERY, database)

    def test_an_experiment_that_was_deleted_is_not_touched(self, database: str) -> None:
        export([WELL], database)
        asked = client(database)
        asked.delete_experiment(asked.get_experiment_by_name("quick").experiment_id)
        with pytest.raises(UsageError, match=r"'quick' was deleted in MLflow: `mlflow experiments restore"):
            export([WELL], database)


def _cut(*_: object) -> None:
    raise OSError("the line is dead")


class TestDestination:
    def test_a_folder_gets_a_database_and_nothing_else_does(
        self, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        folder = tmp_path / "own tracking"
        folder.mkdir()
        shutil.copy(empty_database, folder)
        assert export([WELL], "../own tracking") == 1
        assert runs(f"sqlite:///{(folder / mlflow.DATABASE).as_posix()}").keys() == {WELL.cell_id}
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "here", folder, folder / mlflow.DATABASE]

    def test_a_file_store_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "0").mkdir()
        (tmp_path / "0" / "meta.yaml").write_text("name: Default\n")
        with pytest.raises(UsageError, match="MLflow no longer writes: convert it with `mlflow migrate-filestore`"):
            export([WELL], str(tmp_path))
        assert not (tmp_path / mlflow.DATABASE).exists()

    @pytest.mark.parametrize(
        ("destination", "reason"),
        [
            ("ftp://somewhere/else", "unsupported URI 'ftp://somewhere/else'"),
            ("mysql://nobody@localhost/none", "MySQLdb"),
        ],
    )
    def test_what_mlflow_does_not_take_is_one_line(self, destination: str, reason: str) -> None:
        with pytest.raises(HarnessError, match=f"^MLflow: .*{reason}.*") as refused:
            export([WELL], destination)
        assert "\n" not in str(refused.value)

    def test_an_empty_destination_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"^--mlflow: found '', allowed: a folder"):
            export([WELL], "")

    def test_what_is_no_database_is_one_line_at_once(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file.db").write_text("mine" * 1000)
        for path, reason in ((tmp_path, "unable to open database file"), (tmp_path / "file.db", "is not a database")):
            with pytest.raises(HarnessError, match=f"^MLflow: .*{reason}"):
                export([WELL], f"sqlite:///{path.as_posix()}")
        assert (tmp_path / "file.db").read_text() == "mine" * 1000
        assert capfd.readouterr().err == ""

    def test_a_server_that_is_not_there_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(HarnessError, match=r"^MLflow: .*127\.0\.0\.1:9/") as refused:
            export([WELL], "http://127.0.0.1:9")
        assert "\n" not in str(refused.value)

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(HarnessError, match="file: a file is in the way where a folder must be"):
            export([WELL], str(tmp_path / "file"))


@pytest.mark.parametrize("module", ["mlflow", "sqlalchemy"])
def test_without_the_libraries_the_command_that_installs_them_is_told(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as refused:
        export([WELL], "anywhere")
    assert str(refused.value) == (
        f'{module} is not installed: pip install "backend-harness[mlflow]" (in a clone: uv sync --extra mlflow)'
    )


def test_a_library_that_is_broken_is_told_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alembic.py").write_text("raise ImportError('libssl is too old')")
    monkeypatch.delitem(sys.modules, "alembic", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"^alembic cannot be imported \(libssl is too old\): pip install"):
        export([WELL], "anywhere")


def test_a_run_of_the_first_version_is_logged(database: str) -> None:
    records = list(run_folder.Run.open(GOLDEN).records([]))
    assert export(records, database) == len(records)
    found = runs(database)
    assert {made.cell_id: made.status for made in records} == {
        name: run.data.tags["status"] for name, run in found.items()
    }


def test_mlflow_reports_nothing_to_its_makers_unless_a_person_says_so(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    export([WELL], database)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    export([WELL], database)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
