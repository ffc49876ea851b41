"""``harness heat``: one heat of a run, or some, run here; what every launcher starts on its machines."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from harness.actions.progress import NEWS, RunProgress, tell
from harness.analysis import journal
from harness.core import record, system
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.machine import allocation
from harness.measure import session
from harness.plan.prepare import planned_dataset
from harness.runs import folder as run_folder
from harness.runs import setting
from harness.runs.locks import DEAD_CLAIM_SECONDS


def run_heats(folder: Path, numbers: Sequence[str]) -> None:
    """Run heats of a run folder to their records, or leave them to others who are doing it.

    A cell that has its record is not run again, but for one that was interrupted, so a heat may be started twice. A
    record that says how a cell failed is a record, no failure of this.
    """
    if allocation.is_task_of_ray():
        _end_with_input()
    kept = run_folder.open_run(folder)
    journal.keep(kept)
    wanted = [_number(text, kept) for text in numbers]
    cells = [cell for number in wanted for cell in kept.plan.heats[number].cells]
    told = setting.read(kept)
    definitions = told.definitions()
    setting.require_planned(kept, definitions)
    waiting = kept.waiting(cells, record.INTERRUPTED)
    if not waiting:
        tell("nothing to run: every cell has its record")
        return
    if allocation.is_requeued():
        _await_claims(kept, wanted)
    source, data_dir = told.dataset, Path(told.data_dir) if told.data_dir else None
    dataset = planned_dataset(source, waiting[0], data_dir, kept.folder, NEWS).folder
    logs = kept.logs_folder / (allocation.name() or f"{socket.gethostname()}-{os.getpid()}")
    with session.temporary_folder("heat") as scratch:
        conditions = session.Conditions(
            definitions, dataset, told.timeout, told.fork, record.INTERRUPTED, scratch, logs
        )
        elsewhere = session.run_cells(kept, waiting, conditions, NEWS, lambda: _progress(waiting))
    if elsewhere:
        tell(f"{elsewhere} of the heats: another process runs them")


def _end_with_input() -> None:
    """Stop as on SIGTERM when whoever holds this process's standard input lets go of it, in whatever way it ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        system.terminate_main_thread()

    threading.Thread(target=watch, daemon=True).start()


def _progress(waiting: Sequence[Cell]) -> RunProgress:
    return RunProgress({cell.cell_id: 1.0 for cell in waiting})


def _number(text: str, kept: run_folder.Run) -> int:
    count = len(kept.plan.heats)
    if not (text.isascii() and text.isdecimal() and int(text) < count):
        raise UsageError(
            f"heat: found {text!r}, allowed: the heats of {kept.folder} are numbered from 0 to {count - 1}"
        )
    return int(text)


def _await_claims(kept: run_folder.Run, heats: Sequence[int]) -> None:
    """Wait for locks of a machine that failed while it ran one of these heats."""
    deadline = time.monotonic() + DEAD_CLAIM_SECONDS
    for heat in heats:
        while time.monotonic() < deadline:
            with kept.claimed(heat) as mine:
                if mine:
                    break
            time.sleep(1.0)
