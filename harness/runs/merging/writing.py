"""Writing what was decided into a run folder that is locked; repeated after any interruption, it ends the same."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from harness import refusals
from harness.core import codec
from harness.core.cell import Cell
from harness.core.errors import StoreError
from harness.core.record import Record
from harness.plan import inputs
from harness.runs import locks, part_times, record_file
from harness.runs.folder import Run
from harness.runs.merging.deciding import Chain
from harness.runs.merging.sources import KEPT, Outcome, SourceRun, identity_of, read

_DIGITS = 8
"""Of the digest in the name of a file whose own name was taken."""


@dataclass
class Contribution:
    """What came from one folder: it has ``records``, of which ``added`` were new, with ``attempts`` earlier ones."""

    folder: Path
    records: int
    machines: dict[str, str]
    added: int = 0
    attempts: int = 0


class Writer:
    """Writes what was decided into the locked folder of ``before``."""

    def __init__(self, before: SourceRun, sources: Sequence[SourceRun], chains: Mapping[str, Chain]) -> None:
        self._before = before
        self._out = before.run
        self._sources = sources
        self._chains = chains
        self._logs: dict[Path, str] = {}
        self.contributions = {
            source.run.folder: Contribution(source.run.folder, len(source.final), source.machines) for source in sources
        }

    def write(self) -> None:
        """Proofs and inputs first, as records point to them; then the cells, heat by heat."""
        heats = {
            number: waiting
            for number, heat in enumerate(self._out.plan.heats)
            if (waiting := [cell for cell in heat.cells if self._is_news(cell.cell_id)])
        }
        for number in heats:
            if locks.claim_path(self._out.folder, number).exists():
                self._claim(number, [])
        try:
            for source in self._sources:
                for name in KEPT:
                    self._keep(name, source.kept[name], self._before.kept[name])
                self._copy_inputs(source.run)
                self._keep_parts(source)
            for number, cells in heats.items():
                self._claim(number, cells)
        except OSError as error:
            raise refusals.unwritable(Path(error.filename or self._out.folder), error) from error

    def _is_news(self, cell_id: str) -> bool:
        chain = self._chains.get(cell_id)
        if chain is None:
            return False
        wanted = [*chain.earlier, *([chain.final] if chain.final else [])]
        there = [*self._before.earlier.get(cell_id, {}).values()]
        there += [self._before.final[cell_id]] if cell_id in self._before.final else []
        return wanted != there or (chain.final is not None and chain.final.attempt in self._numbers(cell_id))

    def _numbers(self, cell_id: str) -> set[int]:
        return set(self._before.earlier.get(cell_id, {}))

    def _claim(self, heat: int, cells: Sequence[Cell]) -> None:
        with self._out.claimed(heat) as mine:
            if not mine:
                raise StoreError(
                    f"{self._out.folder}: heat {heat} is running there; repeat this command when it has ended"
                )
            for cell in cells:
                self._write_cell(cell.cell_id, self._chains[cell.cell_id])

    def _write_cell(self, cell_id: str, chain: Chain) -> None:
        there = {one.identity for one in self._before.earlier.get(cell_id, {}).values()}
        numbers = self._numbers(cell_id)
        standing = self._before.final.get(cell_id)
        stays = chain.final is not None and standing is not None and chain.final.identity == standing.identity
        if standing is not None and not stays:
            numbers.add(self._out.set_aside(cell_id) - 1)
            there.add(standing.identity)
        for outcome in chain.earlier:
            if outcome.identity not in there:
                number = _first_free(numbers)
                numbers.add(number)
                content = record_file.encode(self._moved(outcome, number))
                codec.write_atomically(self._out.attempt_path(cell_id, number), content)
                self._contribution(outcome).attempts += 1
        if chain.final is None:
            return
        if not stays:
            self._out.save(self._moved(chain.final, max(chain.final.attempt, _first_free(numbers))))
            self._contribution(chain.final).added += 1
        elif chain.final.attempt in numbers:  # attempts before it have come: the same outcome, by its new number
            record = dataclasses.replace(read(chain.final), attempt=max(numbers) + 1)
            content = record_file.encode(record)
            codec.write_atomically(chain.final.path, content)
            if self._out.on_saved is not None:
                self._out.on_saved(chain.final.path, content)

    def _contribution(self, outcome: Outcome) -> Contribution:
        return self.contributions[outcome.path.parent.parent]

    def _moved(self, outcome: Outcome, attempt: int) -> Record:
        """The record as it is to be in this folder, its log having been copied."""
        record = read(outcome)
        return dataclasses.replace(record, attempt=attempt, log=self._log(outcome.path.parent.parent, record.log))

    def _log(self, folder: Path, log: str) -> str:
        """Where in this folder the log of another one is now; empty if that has none."""
        path = _log_path(folder, log)
        if path is None:
            return ""
        if path not in self._logs:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
            parts = path.relative_to(folder).parts
            inner = PurePosixPath(*(parts[1:] if parts[0] == "logs" else parts))
            named = self._free(self._out.logs_folder / inner, content)
            self._logs[path] = named.relative_to(self._out.folder).as_posix()
        return self._logs[path]

    def _free(self, wanted: Path, content: bytes) -> Path:
        """Write a file under its name, or where other content has that, under one with its digest; returns which."""
        digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
        path = wanted
        if wanted.exists() and wanted.read_bytes() != content:
            path = wanted.with_name(f"{wanted.stem}-{digest}{wanted.suffix}")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            codec.write_atomically(path, content)
        return path

    def _keep(self, name: str, values: Mapping[str, Any], there: dict[str, Any]) -> None:
        """Keep proofs or noise scales that are not there: by content, so that line ends do not count."""
        known = {identity_of(value) for value in there.values()}
        for file, value in values.items():
            identity = identity_of(value)
            if identity in known:
                continue
            path = self._out.folder / name / file
            if file in there:
                path = path.with_name(f"{path.stem}-{identity[:_DIGITS]}{path.suffix}")
            path.parent.mkdir(exist_ok=True)
            codec.write_json(path, value)
            known.add(identity)
            there[path.name] = value

    def _keep_parts(self, source: SourceRun) -> None:
        """Keep the parts of records that count and are a source's, where there are none of the same outcome."""
        for cell_id, times in source.parts.items():
            chain, standing = self._chains.get(cell_id), self._before.final.get(cell_id)
            if chain is None or chain.final is None or cell_id not in source.final:
                continue
            counts = source.final[cell_id].identity == chain.final.identity
            stays = standing is not None and standing.identity == chain.final.identity
            if counts and not (stays and cell_id in self._before.parts):
                part_times.keep(self._out.folder, times)

    def _copy_inputs(self, run: Run) -> None:
        """Copy drawn arrays that cells of the plan name and that are whole; any others are drawn again when needed."""
        for name, digest in _planned_inputs(self._out.plan.cells).items():
            path, copy = run.inputs_folder / name, self._out.inputs_folder / name
            if copy.exists() or not path.is_file():
                continue
            try:
                whole = inputs.arrays_digest(inputs.load_arrays(path)) == digest
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                whole = False
            if whole:
                codec.write_atomically(copy, path.read_bytes())


def _first_free(numbers: set[int]) -> int:
    return next(number for number in count(1) if number not in numbers)


def _log_path(folder: Path, log: str) -> Path | None:
    """The file that ``Record.log`` names, in whichever way its system writes paths, if it is in the folder."""
    for text in (log, log.replace("\\", "/")):
        inner = PurePosixPath(text)
        path = folder / inner
        if text and path.is_relative_to(folder) and ".." not in inner.parts and path.is_file():
            return path
    return None


def _planned_inputs(cells: Sequence[Cell]) -> dict[str, str]:
    """Name of a file in ``inputs/`` -> the digest of its arrays."""
    found: dict[str, str] = {}
    for drawn in dict.fromkeys(cell.inputs for cell in cells):
        parameters, order = inputs.names(drawn)
        found |= {parameters: drawn.parameters_sha256, order: drawn.order_sha256}
    return found
