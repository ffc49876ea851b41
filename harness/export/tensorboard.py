"""A run for TensorBoard: event files that its SCALARS, TIME SERIES, HPARAMS and TEXT dashboards read.

``FOLDER/RUN/CELL/events.out.tfevents...`` for each cell: test accuracy, test loss and training loss by epoch, the
cell's figures as one point each, its settings as hyperparameters, and as text why it failed. The step is the epoch, so
that batch sizes can be laid over each other; the wall time is the start plus the seconds trained, so that the axis
"relative" is training time. ``FOLDER/RUN`` itself tells HPARAMS which columns there are. A loss that is not finite
stays so.

Written with the format's own library, ``tensorboard``, which is what opens it: the messages of its event files and
of its HPARAMS plugin, and its framing of records. It needs no TensorFlow. Its ``EventFileWriter`` would start a thread
for each file and imports TensorFlow where there is one; ``tensorboardX`` has copies of the messages, which
may age.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import outputs
from harness.core.errors import UsageError
from harness.export import tracking
from harness.export.tracking import FIGURES, TrackedCell

if TYPE_CHECKING:
    import polars as pl

_IN_TARGET = ("backend", "accelerator", "mode", "input")
HYPERPARAMETERS = (*(name for name in tracking.SETTINGS if name not in _IN_TARGET), "status", "diverged")
"""HPARAMS shows the first five in which cells differ, by name: what the target's name says already would fill them."""

_EVENTS = "events.out.tfevents"
"""How TensorBoard knows a file of events."""

_EPOCH, _WHOLE = "epoch/", "training/"
"""Scalars with the same beginning stand together in a group that can be folded."""

_FILE_VERSION = "brain.Event:2"


def export_cells(cells: pl.DataFrame, epochs: pl.DataFrame, destination: Path, run_name: str) -> int:
    """Write the cells of ``analysis.collect`` that are not in ``destination`` yet; returns how many those were.

    Nothing that is there is changed but the columns of this run. Raises UsageError if TensorBoard is not installed or
    if the place of a cell holds another record's events, HarnessError if a file cannot be written.
    """
    tracking.require("tensorboard", "tensorboard")
    folder = destination / _safe(run_name)
    tracked = list(tracking.tracked_cells(cells, epochs))
    missing = [cell for cell in tracked if not _is_there(folder, cell)]
    if not tracked:
        return 0
    outputs.make_folder(destination)
    for cell in missing:
        _write(_file(folder, cell), _events(cell))
    _write(folder / f"{_EVENTS}.columns", _columns(tracked))
    return len(missing)


def _is_there(folder: Path, cell: TrackedCell) -> bool:
    """Whether the cell was exported before; UsageError if its place is taken by anything else."""
    file = _file(folder, cell)
    try:
        others = [path for path in file.parent.iterdir() if path.name.startswith(_EVENTS) and path != file]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{error.filename}: no folder for event files ({error.strerror})") from error
    if others:
        raise UsageError(f"{others[0]} is of another run called {folder.name}; name another folder")
    return file.exists()


def _file(folder: Path, cell: TrackedCell) -> Path:
    attempt = cell.facts["attempt"]
    size = cell.settings.get("batch_plan", cell.settings["batch_size"])
    name = f"{cell.settings['target']}_batch-{size}_{cell.facts['cell_id']}"
    name += f"_attempt-{attempt}" if attempt != "1" else ""
    return folder / _safe(name) / f"{_EVENTS}.{cell.started:010.0f}"


def _safe(name: str) -> str:
    """A name that is one folder on every operating system."""
    return re.sub(r"[^\w.@=+-]+", "-", name).strip(".")


def _write(path: Path, events: Iterable[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    content = buffer.getvalue()
    if not path.exists() or path.read_bytes() != content:
        outputs.make_folder(path.parent)
        outputs.write(path, content)


def _events(cell: TrackedCell) -> Iterator[Any]:
    """The ``Event`` messages of a cell: settings, epochs, figures, and how it ended."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=cell.facts["cell_id"], start_time_secs=cell.started)
    for name, value in _hyperparameters(cell).items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    ending = {"ok": api_pb2.STATUS_SUCCESS, "skipped": api_pb2.STATUS_UNKNOWN}
    end = plugin_data_pb2.SessionEndInfo(
        status=ending.get(cell.facts["status"], api_pb2.STATUS_FAILURE), end_time_secs=cell.ended
    )
    last = int(cell.settings["epochs"])
    yield Event(wall_time=cell.started, file_version=_FILE_VERSION)
    yield _hparams(cell.started, metadata.SESSION_START_INFO_TAG, session_start_info=start)
    for epoch in cell.epochs:
        yield _scalars(epoch.reached, epoch.epoch, _EPOCH, epoch.figures)
    if cell.figures:
        yield _scalars(cell.ended, last, _WHOLE, cell.figures)
    if "reason" in cell.facts:
        yield _text(cell.ended, "reason", cell.facts["reason"])
    yield _hparams(cell.ended, metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _hyperparameters(cell: TrackedCell) -> dict[str, str | int | float]:
    known = {**cell.settings, **cell.facts}
    return {name: known[name] for name in HYPERPARAMETERS if name in known}


def _columns(cells: list[TrackedCell]) -> Iterator[Any]:
    """The ``Event`` messages that say which columns HPARAMS has; those in which cells differ come first there."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import api_pb2, metadata

    started = min(cell.started for cell in cells)
    experiment = api_pb2.Experiment(time_created_secs=started)
    known = [_hyperparameters(cell) for cell in cells]
    for name in HYPERPARAMETERS:
        values = {hyperparameters[name] for hyperparameters in known if name in hyperparameters}
        if not values:
            continue
        info = experiment.hparam_infos.add(name=name, differs=len(values) > 1, type=api_pb2.DATA_TYPE_FLOAT64)
        if any(isinstance(value, str) for value in values):
            info.type = api_pb2.DATA_TYPE_STRING
            info.domain_discrete.extend(sorted(values))
    for name, description in FIGURES.items():
        tag = api_pb2.MetricName(tag=f"{_WHOLE}{name}")
        experiment.metric_infos.add(name=tag, display_name=name, description=description)
    yield Event(wall_time=started, file_version=_FILE_VERSION)
    yield _hparams(started, metadata.EXPERIMENT_TAG, experiment=experiment)


def _scalars(wall_time: float, step: int, group: str, values: dict[str, float]) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=wall_time, step=step)
    for name, value in values.items():
        event.summary.value.add(tag=f"{group}{name}", simple_value=value)
    return event


def _text(wall_time: float, tag: str, text: str) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    event = Event(wall_time=wall_time)
    told = create_summary_metadata(display_name=None, description=None)
    event.summary.value.add(tag=tag, metadata=told, tensor=make_tensor_proto(text.encode()))
    return event


def _hparams(wall_time: float, tag: str, **content: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    event = Event(wall_time=wall_time)
    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    event.summary.value.add(tag=tag, metadata=told, tensor=metadata.NULL_TENSOR)
    return event
