"""A run for MLflow: an experiment of the run's name, in it an MLflow run for each cell.

Settings become parameters, figures metrics, and test accuracy, test loss and training loss metrics whose step is the
epoch and whose time is the start plus the seconds trained. What identifies a record and says how it ended are
tags; by them a cell that is there already is known again, and one whose export was cut short is completed.

``mlflow-skinny`` with SQLAlchemy and Alembic writes to a server or a database, without the scientific libraries and the
web server that ``mlflow`` brings. MLflow no longer writes folders of files unless told to, so a folder gets a database.
A loss that is NaN stays so; of an infinite one a database keeps the largest number there is, as MLflow stores it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import outputs
from harness.core.errors import HarnessError, UsageError
from harness.export import tracking
from harness.export.tracking import TrackedCell

if TYPE_CHECKING:
    import polars as pl

DATABASE = "mlflow.db"
"""Its name in a folder; MLflow's own default."""

_MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
"""Without these MLflow reports its use to its makers, prints two lines for each cell between our own, logs a traceback
beside each exception, and lets a person wait minutes for a server that is not there. It asks the environment only."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")

_METRICS_AT_ONCE = 900
"""MLflow takes 1,000 entities in one call, the parameters among them."""

_RUNS_AT_ONCE = 1000

_STATUSES = {"ok": "FINISHED", "interrupted": "KILLED", "skipped": "KILLED"}


def export_cells(cells: pl.DataFrame, epochs: pl.DataFrame, destination: str, run_name: str) -> int:
    """Log the cells of ``analysis.collect`` that MLflow does not have yet; returns how many those were.

    ``destination``: http://, https://, sqlite:/// or another database that MLflow takes, or a local folder. Raises
    UsageError if MLflow is not installed or the destination is none, HarnessError with MLflow's reason if it fails.
    """
    if not destination.strip():
        raise UsageError("--mlflow: found '', allowed: a folder, sqlite:///FILE or http://...")
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    tracking.require("mlflow", "mlflow", "sqlalchemy", "alembic")

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    address = _address(destination)
    written = 0
    try:
        _open_once(address)
        client = MlflowClient(tracking_uri=address)
        experiment = _experiment(client, run_name)
        known = _known_runs(client, experiment)
        for cell in tracking.tracked_cells(cells, epochs):
            run_id, is_whole = known.get(cell.identity, (None, False))
            if not is_whole:
                _log(client, run_id or _begin(client, experiment, cell), cell)
                written += 1
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        # ImportError: the driver of a database that MLflow takes and that is not installed.
        so_far = f" (after {written:,} of {cells.height:,} cells; the same command goes on)" if written else ""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise HarnessError(f"MLflow: {reason}{so_far}") from error
    return written


def _address(destination: str) -> str:
    """The URI to give MLflow; for a folder, that of the database in it."""
    if "://" in destination:
        return destination
    if destination == str(outputs.STANDARD_OUTPUT):
        raise UsageError(
            f"--mlflow: found {destination!r}, standard output, allowed: a folder or the address of a database"
        )
    folder = Path(destination).absolute()
    if next(folder.glob("*/meta.yaml"), None):
        raise UsageError(
            f"{destination} holds an MLflow file store, to which MLflow no longer writes: "
            "convert it with `mlflow migrate-filestore`, or name another folder"
        )
    outputs.make_folder(folder)
    return f"sqlite:///{(folder / DATABASE).as_posix()}"


def _open_once(address: str) -> None:
    """Connect to a database, which fails at once where MLflow would try ten times, over minutes."""
    from sqlalchemy import create_engine

    if address.partition(":")[0].partition("+")[0] in _DATABASES:
        engine = create_engine(address)
        engine.connect().close()
        engine.dispose()


def _experiment(client: Any, name: str) -> str:
    """The id of the experiment of that name, made if need be."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise UsageError(
            f"experiment {name!r} was deleted in MLflow: "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` brings it back"
        )
    return str(found.experiment_id)


def _known_runs(client: Any, experiment: str) -> dict[tuple[str, ...], tuple[str, bool]]:
    """By a record's identity, the id of its MLflow run and whether that was exported to its end."""
    known = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_RUNS_AT_ONCE, page_token=token)
        for run in page:
            known[tracking.identity_of(run.data.tags)] = run.info.run_id, run.info.status != "RUNNING"
        token = page.token
        if not token:
            return known


def _begin(client: Any, experiment: str, cell: TrackedCell) -> str:
    run = client.create_run(experiment, start_time=_milliseconds(cell.started), tags=cell.facts, run_name=cell.title)
    return str(run.info.run_id)


def _log(client: Any, run_id: str, cell: TrackedCell) -> None:
    """Log parameters and metrics, then the end. What a run has already, MLflow does not take twice."""
    from mlflow.entities import Metric, Param

    metrics = [
        Metric(name, value, _milliseconds(epoch.reached), epoch.epoch)
        for epoch in cell.epochs
        for name, value in epoch.figures.items()
    ]
    last = int(cell.settings["epochs"])
    metrics += [Metric(name, float(value), _milliseconds(cell.ended), last) for name, value in cell.figures.items()]
    params = [Param(name, str(value)) for name, value in cell.settings.items()]
    client.log_batch(run_id, metrics=metrics[:_METRICS_AT_ONCE], params=params)
    for first in range(_METRICS_AT_ONCE, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[first : first + _METRICS_AT_ONCE])
    client.set_terminated(run_id, _STATUSES.get(cell.facts["status"], "FAILED"), _milliseconds(cell.ended))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
