"""What tables need of one record, as a row of plain values, which needs no library to be made.

In: a record and the figures of its blocks. Out: the values of ``rows.schema``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.core.cell import ID_LENGTH, Cell
from harness.core.codec import digest
from harness.core.model import ModelSpec
from harness.core.record import NOT_THE_WORK, Record, SameWork

if TYPE_CHECKING:
    from harness.analysis.blocks import BlockFigures

REACHED = ("test_accuracy", "test_loss", "train_loss")
"""After each epoch, as lists."""

_DISTURBANCES = 13


def row(record: Record, figures: BlockFigures) -> tuple[Any, ...]:
    """The values of ``schema`` of one record; its own blocks are not looked at."""
    works = is_the_work(record)
    epochs = record.epochs if works else ()
    disturbed = _disturbances(record, figures) if works else None
    return (
        *_of_cell(record, figures),
        json.dumps(record.machine),
        bool(record.machine.get("gpu")),
        record.cell.steps_per_epoch,
        _plan(record, figures) if works else "",
        *([getattr(epoch, name) for epoch in epochs] for name in REACHED),
        *(disturbed or (None,) * _DISTURBANCES),
    )


def is_the_work(record: Record) -> bool:
    """Whether its times are those of the work that was asked for."""
    return record.status not in NOT_THE_WORK


def _of_cell(record: Record, figures: BlockFigures) -> tuple[Any, ...]:
    """The values of ``cells.columns``."""
    cell, target, training, phases = record.cell, record.cell.target, record.cell.training, record.phases
    works = is_the_work(record)
    last = record.epochs[-1] if _is_finished(record) else None
    images_per_second = figures.images_per_second
    pace = figures.trained_seconds / figures.trained_steps if figures.trained_steps else None
    return (
        record.cell_id,
        record.work_id,
        cell.model.name,
        cell.dataset.name,
        cell.dataset.train_examples,
        target.label,
        target.backend,
        target.accelerator,
        target.mode,
        target.input,
        training.batch_size,
        training.epochs,
        training.seed,
        training.method,
        training.learning_rate.base,
        training.learning_rate.scaling,
        training.precision,
        cell.repeat,
        record.status,
        record.reason,
        images_per_second if works else None,
        pace * _steps_per_epoch(cell) if works and pace is not None else None,
        figures.trained_seconds if works and figures.trained_steps else None,
        phases.compile if works and not _programs_kept(record) else None,
        phases.framework_import,
        phases.build,
        phases.evaluate if works else None,
        last.test_accuracy if last else None,
        last.test_loss if last else None,
        last.train_loss if last else None,
        figures.steps,
        record.peak_memory_bytes,
        record.proof,
        record.started,
        record.attempt,
        *_against_limits(record, images_per_second if works else None),
        *_energy(record, works),
        record.worker.get("device", {}).get("peak_device_memory_bytes"),
        record.power.get("gpu", {}).get("process_memory_bytes"),
        record.worker.get("device", {}).get("beyond_dedicated_memory"),
        cell.dataset.test_examples,
        cell.lane,
        record.heat.interleave,
        record.machine.get("id") or "",
        phases.initialise_device,
        phases.load_data,
        figures.train_blocks,
        figures.pace_error,
        figures.pace_batches,
        _node(record.machine),
        _heat(record),
        figures.diverged or record.diverged,
        *_same_work(record.same_work),
        training.batch_plan,
        training.until_accuracy or None,
    )


def _is_finished(record: Record) -> bool:
    """Whether its last evaluation is the one that training was to end with."""
    if not record.epochs:
        return False
    last, training = record.epochs[-1], record.cell.training
    is_reached = bool(training.until_accuracy) and last.test_accuracy >= training.until_accuracy
    return is_reached or (last.epoch == training.epochs - 1 and not last.steps)


def _steps_per_epoch(cell: Cell) -> float:
    """The mean where the batch size changes."""
    return cell.total_steps / cell.training.epochs if cell.training.batch_changes else cell.steps_per_epoch


def _plan(record: Record, figures: BlockFigures) -> str:
    """JSON of what is told of a plan of batch sizes, or of evaluations within epochs (``rows.PLAN``); else empty.

    ``sizes``: of each batch size of a plan its own figures. ``steps`` and ``seconds``: of training until each
    evaluation, the latter at each size's mean pace; null from one on before which a size was not trained.
    """
    cell = record.cell
    if not figures.by_size and not any(epoch.steps for epoch in record.epochs):
        return ""
    sizes_trained = figures.by_size or ((cell.training.batch_size, figures),)
    paces = {size: one.trained_seconds / one.trained_steps for size, one in sizes_trained if one.trained_steps}
    until: dict[str, list[Any]] = {"steps": [], "seconds": []}
    for epoch in record.epochs:
        steps = epoch.steps or sum(cell.epoch_steps[: epoch.epoch + 1])
        own = [(piece.batch_size, min(piece.steps, steps - piece.first_step)) for piece in cell.pieces]
        trained = [(paces.get(size), count) for size, count in own if count > 0]
        known = [pace * count for pace, count in trained if pace is not None]
        until["steps"].append(steps)
        until["seconds"].append(sum(known) if len(known) == len(trained) else None)
    compiled = {} if _programs_kept(record) else {one.batch_size: one.seconds for one in record.compilations}
    sizes = [
        {
            "batch_size": size,
            "images_per_second": one.images_per_second,
            "train_blocks": one.train_blocks,
            "pace_error": one.pace_error,
            "pace_batches": one.pace_batches,
            "compile_seconds": compiled.get(size),
        }
        for size, one in figures.by_size
    ]
    return json.dumps({"sizes": sizes, **until})


def _same_work(shown: SameWork) -> tuple[int | None, float | None, int | None, float | None, str]:
    """What was shown of a cell's own work; of records from before there was that, nothing."""
    if shown == SameWork():
        return None, None, None, None, ""
    told = "\n".join((*shown.notes, *shown.not_shown))
    return shown.steps, shown.error, shown.witnessed_steps, shown.witness_error, told


def _heat(record: Record) -> str:
    """Equal for the cells that ran beside each other; empty where the record does not tell, or each ran for itself.

    Parts of a heat may run apart: on several machines, or when what had failed was run again.
    """
    beside = record.heat.cells
    return "" if record.heat.interleave == "none" or not beside else digest(sorted(beside))[:ID_LENGTH]


def _against_limits(record: Record, images_per_second: float | None) -> tuple[float | None, ...]:
    """Operations per second, the device's largest rates of operations and bytes, and the share of the first."""
    achieved = None if images_per_second is None else images_per_second * _training_flops(record.cell.model)
    of_one, target = record.limit.get("product_flops_per_second"), record.cell.target
    most = of_one and of_one * (1 if target.shares_processors else target.devices)
    # The reference takes float32 cells and computes in its own type, in which its limit is measured as well.
    alike = record.cell.training.precision == "float32"
    share = achieved / most if achieved is not None and most and alike else None
    return achieved, most, record.limit.get("memory_bytes_per_second"), share


@lru_cache(maxsize=1024)
def _training_flops(model: ModelSpec) -> int:
    """Remembered: the records of a run share few models, and each record reads one of its own."""
    return model.training_flops


def _energy(record: Record, works: bool) -> tuple[float | None, float | None]:
    """Joules per image of the GPU and of the host's processors."""
    gpu, host = (record.power.get(part, {}).get("energy_joules_per_image") for part in ("gpu", "host"))
    return (gpu, host) if works else (None, None)


def _programs_kept(record: Record) -> bool:
    """Whether it may have found its programs compiled, so that its compile phase is no compilation."""
    return bool(record.worker.get("device", {}).get("programs"))


def _node(facts: Mapping[str, Any]) -> str:
    """The name of the Slurm node that a machine is, empty outside of Slurm's jobs."""
    return str((facts.get("slurm") or {}).get("node") or "")


def _disturbances(record: Record, figures: BlockFigures) -> tuple[Any, ...] | None:
    """The values of ``rows.DISTURBANCES``; None without a timed block.

    ``preempted_share``: of its timed blocks those that lost a processor to another thread; ``stolen_share``: processor
    seconds that the hypervisor took from the machine per second of them; ``noise``: spread of their times of a step, as
    the normal standard deviation of that median absolute deviation, over the median. ``disturbed_cost``: mean time of a
    step over that of blocks to which neither happened, less 1; null unless there are both kinds of blocks.
    """
    if not figures.train_blocks:
        return None
    slurm = record.machine.get("slurm") or {}
    return (
        record.cell_id,
        slurm.get("exclusive"),
        slurm.get("other_jobs"),
        record.machine.get("load_1min"),
        record.heat.other_processors,
        record.heat.stolen_processors,
        record.heat.throttled_processors,
        record.machine.get("processor_quota"),
        record.heat.load_untold or None,
        figures.preempted_share,
        figures.stolen_share,
        figures.noise,
        figures.disturbed_cost,
    )
