"""The clock: the only module of the workers that reads one.

Wall time is ``time.perf_counter``, monotonic and of sub-microsecond resolution. A block of training steps ends with
a true synchronisation, so its time is the work's and not that of putting it into a queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from backends.protocol import Session, StepPart, Yardstick
from harness.core import system
from harness.core.errors import ContractError
from harness.core.messages import Block, ClaimedEnd, Limit, Limited, PartTimed, Synchronised, Synchrony

SMALLEST_MATRIX = 256
SMALLEST_ARRAY = 4 * 1024 * 1024
"""Rows of a matrix, values of an array: where the search for the device's limits begins. Both grow by two or four."""

LONGEST_PRODUCT = 0.4
"""Seconds that the largest matrix product may be expected to take."""

ARRAY_SECONDS = 0.02
"""What passing over the largest array should take: such an array is far beyond every cache."""

REPEAT_SECONDS, REPEATS, MOST_IN_A_ROW = 0.05, 5, 1000
"""The best of so many repeats counts, each of as many operations in a row as take that long."""

LOOK_SECONDS = 0.0005
"""How often is looked whether threads are still at work."""

LEAST_REST, MOST_REST = 0.05, 1.0
"""Seconds. Rest is waited for as long as the block took, within these bounds: a thread may never stop."""

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


def rested(block: Block) -> Block:
    """The block, once all that it left to this process's threads is done; threads that never stop are given up.

    Where the system does not tell of threads nothing is waited for.
    """
    return replace(block, rest_seconds=_rest(block.settle_seconds + block.seconds))


def _rest(after: float) -> float:
    """Seconds until no thread was at work any more, after work of ``after`` seconds."""
    if not system.threads_at_work():
        return 0.0
    start = time.perf_counter()
    until = start + min(max(after, LEAST_REST), MOST_REST)
    while system.threads_at_work() and time.perf_counter() < until:
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - start


def time_part(part: StepPart, calls: int, settle: int = 0) -> PartTimed:
    """``settle`` calls of a part that do not count, then ``calls`` that do, until they have really happened, and rest.

    Without calls nothing is done, but for those that settle.
    """
    if settle:
        part.run(settle)
    if not calls:
        return PartTimed(calls=0, started=time.perf_counter(), seconds=0.0, cpu_seconds=0.0)
    before = Usage.now()
    start = time.perf_counter()
    part.run(calls)
    seconds = time.perf_counter() - start
    after = Usage.now()
    used = after.processor - before.processor
    return PartTimed(calls=calls, started=start, seconds=seconds, cpu_seconds=used, rest_seconds=_rest(seconds))


def claimed_ends(session: Session, request: Synchrony, at_once: int = 1) -> Synchronised:
    """Blocks as ``train_block`` times them, and controls without synchronisation, each with what came after its end.

    ``at_once``: the steps of a call, of which all step counts are multiples. They go up and down in turn, so that a
    drift of the machine hits all alike.
    """
    blocks, controls, idle = [], [], []
    for repeat in range(request.repeats):
        idle.append(_idle_read_back(session, at_once))
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


def _idle_read_back(session: Session, at_once: int) -> float:
    """Seconds to read every parameter back, one call after the last time and twice as long after it as it can take.

    A framework may keep what was read back, so reading the same parameters twice would not tell.
    """
    one = _claimed_end(session, at_once, partial(train, session))
    train(session, at_once)
    time.sleep(2 * (one.seconds + one.late_seconds))
    _, seconds = timed(session.parameters)
    session.losses()
    return seconds


def limits(yardstick: Yardstick, request: Limit) -> Limited:
    """The device's best rates: of matrix products of growing size, and of one pass over arrays beyond its caches.

    The best of several repeats, since whatever else the machine does can only make an operation slower.
    """
    size, product_size, product_rate = SMALLEST_MATRIX, 0, 0.0
    while True:
        seconds = _best_seconds(yardstick.product(size))
        if 2 * size**3 / seconds > product_rate:
            product_size, product_rate = size, 2 * size**3 / seconds
        factors = (4, 2) if 64 * seconds <= LONGEST_PRODUCT / 8 else (2,)  # each size is a compilation: seconds on GPUs
        fits = [one for one in factors if 3 * (one * size) ** 2 * yardstick.value_bytes <= request.memory_bytes]
        if not fits or fits[0] ** 3 * seconds > LONGEST_PRODUCT:
            break
        size *= fits[0]
    values = SMALLEST_ARRAY
    while True:
        addition = yardstick.addition(values)
        addition(1)  # compiles, and touches every page for the first time
        _, seconds = timed(partial(addition, 1))
        factors = (4, 2) if 4 * seconds <= ARRAY_SECONDS else (2,)
        fits = [one for one in factors if 2 * one * values * yardstick.value_bytes <= request.memory_bytes]
        if not fits or seconds >= ARRAY_SECONDS:
            break
        del addition  # or two sizes would be held at once
        values *= fits[0]
    array_bytes = values * yardstick.value_bytes
    return Limited(
        product_flops_per_second=product_rate,
        product_size=product_size,
        memory_bytes_per_second=3 * array_bytes / _best_seconds(addition),
        array_bytes=array_bytes,
        dtype=yardstick.dtype,
    )


def _best_seconds(work: Callable[[int], None]) -> float:
    """Seconds of one operation, by the quickest of several series of them."""
    work(1)
    _, once = timed(partial(work, 1))
    times = max(1, min(round(REPEAT_SECONDS / max(once, 1e-9)), MOST_IN_A_ROW))
    return min(timed(partial(work, times))[1] for _ in range(REPEATS)) / times


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
