"""Backends that burn a known share of each step's time: what a comparison must find, planted by ``trust.py``.

The variable ``SLOWDOWN`` holds the share, such as 0.03. Each step is trained, waited for, and followed by
a busy wait of that share of what it took. A lane without a slowdown has the same shim with the share 0, so that nothing
differs but the burn.
"""

from __future__ import annotations

import os
import time
from typing import Any

from backends.jax_flax import JaxBackend
from backends.protocol import Arrays
from backends.tensorflow_keras import TensorFlowBackend
from harness.core.cell import Cell


class _Slowed:
    """A session that is slower by a share of its own time."""

    def __init__(self, session: Any, share: float) -> None:
        self._session = session
        self._share = share

    def train(self, steps: int) -> None:
        for _ in range(steps):
            start = time.perf_counter()
            self._session.train(1)
            self._session.synchronise()
            end = time.perf_counter()
            until = end + self._share * (end - start)
            while time.perf_counter() < until:
                pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class SlowedTensorFlow(TensorFlowBackend):
    """TensorFlow, slowed."""

    def session(self, cell: Cell, arrays: Arrays) -> Any:
        return _Slowed(super().session(cell, arrays), float(os.environ["SLOWDOWN"]))


class SlowedJax(JaxBackend):
    """JAX, slowed."""

    def session(self, cell: Cell, arrays: Arrays) -> Any:
        return _Slowed(super().session(cell, arrays), float(os.environ["SLOWDOWN"]))
