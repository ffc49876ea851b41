"""The clock: the only module of the workers that reads one.

Wall time is ``time.perf_counter``, monotonic and of sub-microsecond resolution. A block of training steps ends with
a true synchronisation, so its time is the work's and not that of putting it into a queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from backends.protocol import Session
from harness.core import system
from harness.core.errors import ContractError
from harness.core.messages import Block

T = TypeVar("T")


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What ``action`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def train_block(session: Session, steps: int) -> Block:
    """Run the next ``steps`` steps and wait until they have really happened. Reading the losses is not timed."""
    cpu_start = system.processor_seconds()
    start = time.perf_counter()
    session.train(steps)
    session.synchronise()
    seconds = time.perf_counter() - start
    cpu_seconds = system.processor_seconds() - cpu_start
    losses = [float(loss) for loss in session.losses()]
    if len(losses) != steps:
        raise ContractError(f"the backend gave {len(losses)} losses for {steps} steps")
    return Block(steps=steps, started=start, seconds=seconds, cpu_seconds=cpu_seconds, losses=losses)
