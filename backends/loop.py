"""The clock: the only module of the workers that reads one.

Wall time is ``time.perf_counter``, monotonic and of sub-microsecond resolution. A block of training steps ends with
a true synchronisation, so its time is the work's and not that of putting it into a queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from backends.protocol import Session
from harness.core import system
from harness.core.errors import ContractError
from harness.core.messages import Block, ClaimedEnd, Synchronised, Synchrony

T = TypeVar("T")


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What ``action`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def train(session: Session, steps: int) -> None:
    """The next ``steps`` steps, until they have really happened."""
    session.train(steps)
    session.synchronise()


def train_block(session: Session, steps: int, settle: int = 0, since: Usage | None = None) -> Block:
    """Run the next ``settle + steps`` steps, timing the latter until they have really happened.

    Reading the losses is not timed. ``since``: the usage at the end of this process's last block.
    """
    woken = Usage.now()
    settle_start = time.perf_counter()
    if settle:
        train(session, settle)
    before = Usage.now()
    start = time.perf_counter()
    train(session, steps)
    seconds = time.perf_counter() - start
    after = Usage.now()
    losses = [float(loss) for loss in session.losses()]
    if len(losses) != settle + steps:
        raise ContractError(f"the backend gave {len(losses)} losses for {settle + steps} steps")
    return Block(
        steps=steps,
        started=start,
        seconds=seconds,
        cpu_seconds=after.processor - before.processor,
        losses=losses,
        settle=settle,
        settle_seconds=start - settle_start if settle else 0.0,
        idle_cpu_seconds=0.0 if since is None else max(woken.processor - since.processor, 0.0),
        preempted=_difference(after.preemptions, before.preemptions),
        stolen_seconds=_difference(after.stolen, before.stolen),
    )


def claimed_ends(session: Session, request: Synchrony) -> Synchronised:
    """Blocks as ``train_block`` times them, and controls without synchronisation, each with what came after its end.

    The step counts go up and down in turn, so that a drift of the machine hits all alike.
    """
    blocks, controls, idle = [], [], []
    for repeat in range(request.repeats):
        idle.append(_idle_read_back(session))
        counts = request.steps if repeat % 2 == 0 else request.steps[::-1]
        blocks += [_claimed_end(session, count, partial(train, session)) for count in counts]
        controls.append(_claimed_end(session, request.control, session.train))
    return Synchronised(blocks, controls, idle)


def _claimed_end(session: Session, steps: int, work: Callable[[int], None]) -> ClaimedEnd:
    _, seconds = timed(lambda: work(steps))
    # Parameters depend on every step before; where the framework reads them without waiting, losses are missing.
    _, late_seconds = timed(session.parameters)
    missing = max(steps - len(session.losses()), 0)
    session.synchronise()
    session.losses()
    return ClaimedEnd(steps, seconds, late_seconds, missing)


def _idle_read_back(session: Session) -> float:
    """Seconds to read every parameter back, one step after the last time and twice as long after it as it can take.

    A framework may keep what was read back, so reading the same parameters twice would not tell.
    """
    one = _claimed_end(session, 1, partial(train, session))
    train(session, 1)
    time.sleep(2 * (one.seconds + one.late_seconds))
    _, seconds = timed(session.parameters)
    session.losses()
    return seconds


@dataclass(frozen=True)
class Usage:
    """Counters of this process and machine at one moment: seconds of processor time, preemptions, stolen seconds."""

    processor: float
    preemptions: int | None
    stolen: float | None

    @classmethod
    def now(cls) -> Usage:
        """Read them all."""
        return cls(system.processor_seconds(), system.preemptions(), system.stolen_seconds())


N = TypeVar("N", int, float)


def _difference(after: N | None, before: N | None) -> N | None:
    return None if after is None or before is None else after - before
