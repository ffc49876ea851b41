"""What a lane needs of a worker that trains one cell, and the files that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.core.cell import Cell
from harness.core.messages import Closed, HostReady, Open, Opened, Reply, Request


class CellWorker(Protocol):
    """What a lane needs of a worker process."""

    @property
    def ready(self) -> HostReady:
        """What the host said of itself once its framework was imported."""

    def open(self, request: Open, timeout: float) -> Opened:
        """Prepare the cell."""

    def post(self, request: Request) -> None:
        """A question whose answer is waited for by asking it again. Raises CellError."""

    def ask(self, request: Request, timeout: float) -> Reply:
        """One question, one answer. Raises CellError."""

    def said(self) -> str:
        """The end of what it wrote to its log since the cell was opened."""

    def finish(self, timeout: float) -> Closed:
        """End the cell well."""

    def abandon(self) -> None:
        """End the cell at once."""


@dataclass(frozen=True)
class Files:
    """Where a cell's arrays are, and the only folders its worker may write to.

    ``programs``: where compiled programs may be kept for the next process; None: it compiles afresh.
    """

    dataset: Path
    parameters: Path
    order: Path
    scratch: Path
    programs: Path | None = None

    def opening(self, cell: Cell) -> Open:
        """The request to prepare a cell on these arrays."""
        return Open(
            cell=cell,
            dataset=str(self.dataset),
            parameters=str(self.parameters),
            order=str(self.order),
            scratch=str(self.scratch),
            programs=str(self.programs or ""),
        )
