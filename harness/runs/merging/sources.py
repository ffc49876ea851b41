"""What a run folder holds, read for comparing it with others: each record as an outcome with an identity."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import codec
from harness.core.errors import StoreError
from harness.core.record import Record
from harness.proof import parity
from harness.runs import files, noise_scales, part_times, rate_searches, record_file
from harness.runs.folder import Run
from harness.runs.part_times import PartTimes

KEPT: dict[str, type] = {
    "proofs": parity.Proof,
    noise_scales.FOLDER: noise_scales.NoiseScale,
    rate_searches.FOLDER: rate_searches.RateSearch,
}
"""Folders of small files that go along with the records, and what is in one."""


@dataclass(frozen=True)
class Outcome:
    """One record of a run folder. ``digest``: of all but its attempt number and log.

    ``occurrence`` numbers those of one cell and folder that are equal in that.
    """

    path: Path
    digest: str
    status: str
    attempt: int
    occurrence: int = 0

    @property
    def identity(self) -> tuple[str, int]:
        """Equal exactly for equal outcomes, in whatever folder they are."""
        return self.digest, self.occurrence

    @property
    def rank(self) -> int:
        """An outcome gives way to one of a higher rank."""
        return {"interrupted": 0, "skipped": 1}.get(self.status, 2)


@dataclass(frozen=True)
class SourceRun:
    """What a run folder holds.

    ``final``: cell_id -> its record; ``earlier``: cell_id -> its earlier attempts, in order, by their numbers.
    ``machines``: id -> processor of those that the records name. ``kept``: folder -> its proofs or noise scales.
    ``parts``: cell_id -> what the parts of its step took.
    """

    run: Run
    final: dict[str, Outcome]
    earlier: dict[str, dict[int, Outcome]]
    machines: dict[str, str]
    kept: dict[str, dict[str, Any]]
    parts: dict[str, PartTimes]


def survey(run: Run) -> SourceRun:
    """Read all records, earlier attempts, times of parts, proofs and noise scales of a run folder.

    Raises StoreError naming the first file that is damaged or foreign, and how many more are.
    """
    problems: list[StoreError] = []
    final: dict[str, Outcome] = {}
    machines: dict[str, str] = {}
    for record in run.records(problems):
        final[record.cell_id] = _outcome(run.records_folder / f"{record.cell_id}.json", record)
        if record.machine.get("id"):
            machines[str(record.machine["id"])] = str(record.machine.get("processor") or "")
    earlier: dict[str, dict[int, Outcome]] = {}
    for path, cell_id, number in run.attempts():
        try:
            record = files.read(path, Record)
        except StoreError as error:
            problems.append(error)
            continue
        if record.cell_id != cell_id or cell_id not in run.cells:
            problems.append(
                StoreError(f"{path}: holds the record of cell {record.cell_id}, which does not belong there")
            )
            continue
        earlier.setdefault(cell_id, {})[number] = _outcome(path, record)
    kept = {name: _values(run.folder / name, cls, problems) for name, cls in KEPT.items()}
    parts = {}
    for name, times in _values(run.folder / part_times.FOLDER, PartTimes, problems).items():
        if name != f"{times.cell_id}.json" or times.cell_id not in run.cells:
            path = run.folder / part_times.FOLDER / name
            problems.append(StoreError(f"{path}: holds the parts of cell {times.cell_id}, which do not belong there"))
        parts[times.cell_id] = times
    if problems:
        more = f" (and {len(problems) - 1:,} more such files)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}")
    for cell_id, found in earlier.items():
        seen: Counter[str] = Counter()
        for number in sorted(found):
            one = found.pop(number)
            found[number] = dataclasses.replace(one, occurrence=seen[one.digest])
            seen[one.digest] += 1
        if cell_id in final:
            final[cell_id] = dataclasses.replace(final[cell_id], occurrence=seen[final[cell_id].digest])
    return SourceRun(run, final, earlier, machines, kept, parts)


def _outcome(path: Path, record: Record) -> Outcome:
    placeless = dataclasses.replace(record, attempt=1, log="")
    return Outcome(path, hashlib.sha256(record_file.encode(placeless)).hexdigest(), record.status, record.attempt)


def read(outcome: Outcome) -> Record:
    """The record. Raises StoreError if it is another than it was."""
    record = files.read(outcome.path, Record)
    if _outcome(outcome.path, record).digest != outcome.digest:
        raise StoreError(f"{outcome.path}: has changed meanwhile; repeat this command")
    return record


def identity_of(value: Any) -> str:
    """Equal for equal proofs or noise scales, however they are written."""
    return hashlib.sha256(codec.canonical(codec.to_json(value)).encode("ascii")).hexdigest()


def _values(folder: Path, cls: type, problems: list[StoreError]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.name] = files.read(path, cls)
        except StoreError as error:
            problems.append(error)
    return found
