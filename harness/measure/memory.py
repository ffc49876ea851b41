"""What is known of batch sizes that ran out of memory: a larger one of the same target and model is not tried."""

from __future__ import annotations

from harness.core import codec
from harness.core.cell import Cell


class TooLarge:
    """The smallest batch size that ran out of memory, for each target, model, optimizer and precision."""

    def __init__(self) -> None:
        self._smallest: dict[tuple[str, str, str], int] = {}

    def remember(self, cell: Cell) -> None:
        """A cell that ran out of memory."""
        key, size = _key(cell), max(cell.training.batch_sizes)
        self._smallest[key] = min(size, self._smallest.get(key, size))

    def reason(self, cell: Cell) -> str:
        """Why a cell is not worth trying; empty if it is."""
        smallest = self._smallest.get(_key(cell))
        if smallest is None or max(cell.training.batch_sizes) < smallest:
            return ""
        return f"batch size {smallest} of this target already ran out of memory"


def _key(cell: Cell) -> tuple[str, str, str]:
    parts = (cell.model, cell.training.optimizer)
    return cell.target.label, codec.digest([codec.digest(part) for part in parts]), cell.training.precision
