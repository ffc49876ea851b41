"""The reference under other names, with one slow layer, a wrong part, or without parts: what must be found.

Without a yardstick, whose search for the device's limits takes longer than all else here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from backends.protocol import Arrays
from backends.reference import ReferenceBackend, ReferenceSession
from backends.reference_parts import ReferencePart
from harness.core.cell import Cell
from harness.core.model import MaxPool

SLEEP_SECONDS = 0.06


class Plain(ReferenceBackend):
    """The reference."""

    yardstick = None  # type: ignore[assignment]


class _SlowSession(ReferenceSession):
    def _plain(self, name: str, layer: Any, values: Any, training: bool) -> Any:
        output, pullback = super()._plain(name, layer, values, training)
        if not isinstance(layer, MaxPool):
            return output, pullback

        def slow(gradient: Any) -> Any:
            time.sleep(SLEEP_SECONDS)
            return pullback(gradient)

        return output, slow


class SlowPool(Plain):
    """The way back through a max-pool sleeps, in a step as in a part."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        super().session(cell, arrays)
        return _SlowSession(cell, arrays)


class _WrongSession(ReferenceSession):
    def part(self, name: str, direction: str, given: Mapping[str, Any]) -> ReferencePart:
        right = super().part(name, direction, given)
        if not name.endswith("max_pool"):
            return right
        return ReferencePart(lambda: {key: 1.01 * value for key, value in right.values().items()})


class WrongPool(Plain):
    """Trains as it should; its max-pool as a part does other work."""

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        super().session(cell, arrays)
        return _WrongSession(cell, arrays)


class Untold(Plain):
    """A backend written before there were parts."""

    name = "untold"

    def session(self, cell: Cell, arrays: Arrays) -> ReferenceSession:
        session = super().session(cell, arrays)
        return _Without(session)  # type: ignore[return-value]


class _Without:
    """A session without ``part`` and ``trace``."""

    def __init__(self, session: ReferenceSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        if name in ("part", "trace"):
            raise AttributeError(name)
        return getattr(self._session, name)
