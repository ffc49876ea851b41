"""What the block times of records give, many records in a pass over their arrays: all that tables know of blocks.

In: ``BlockArrays``, of a record's lists or read straight from its file. Out: ``BlockFigures``, a few numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness import statistics
from harness.core.cell import Cell
from harness.core.errors import ContractError
from harness.core.record import LARGEST_LOSS, NOT_THE_WORK, Record
from harness.statistics import Array

_NORMAL_MAD = 0.6745

_TOGETHER = 32
"""Records in a pass: of a thousand blocks their times fit the second cache of a processor."""

Told = Sequence[float | None] | Array
"""What the system told of each block, empty where it was not asked."""


@dataclass(frozen=True)
class BlockArrays:
    """The columns of ``Blocks`` that tables need, (n,) each, and what of the record they are read with.

    ``timed``: whether a block's kind is ``train``; ``trained``: whether it is any but ``compile``. ``settle_steps`` is
    a sum. ``works``: whether the record's times are those of the work that was asked for. ``sizes``: the batch size of
    each block, (n,), where it changes; None where ``batch_size`` is that of all.
    """

    timed: Any
    trained: Any
    steps: Any
    seconds: Array
    mean_loss: Array
    settle_steps: int
    preempted: Told
    stolen_seconds: Told
    batch_size: int
    works: bool
    sizes: Any = None

    @classmethod
    def of(cls, record: Record) -> BlockArrays:
        """Those of a record that is at hand."""
        blocks = record.blocks
        return cls(
            timed=timed(blocks.kind),
            trained=trained(blocks.kind),
            steps=np.array(blocks.steps, dtype=np.int64),
            seconds=np.array(blocks.seconds, dtype=np.float64),
            mean_loss=np.array(blocks.mean_loss, dtype=np.float64),
            settle_steps=sum(blocks.settle),
            preempted=blocks.preempted,
            stolen_seconds=blocks.stolen_seconds,
            batch_size=record.cell.training.batch_size,
            works=record.status not in NOT_THE_WORK,
            sizes=sizes_of(record.cell, blocks.steps, blocks.settle),
        )

    def check(self) -> None:
        """Raise ContractError where the columns are not equally long."""
        if not len(self.seconds) == len(self.steps) == len(self.timed):
            raise ContractError(
                f"blocks: kind, steps and seconds are of different length ({len(self.timed)}, {len(self.steps)}, "
                f"{len(self.seconds)}), allowed: an entry for each block"
            )

    def alike(self) -> Hashable:
        """Equal for records of which the same blocks count."""
        return self.timed.tobytes(), self.trained.tobytes(), len(self.mean_loss), self.works


@dataclass(frozen=True)
class BlockFigures:
    """What the blocks of a record give.

    ``steps``: all that were trained, untimed ones as well; ``trained_``: of all blocks but ``compile``. ``pace_error``
    and ``pace_batches``: ``statistics.batch_median_error`` of the logarithms of the paces, None for other work.
    ``diverged``: whether a block's loss became infinite or no number. The others are None without a timed block,
    ``preempted_share`` to ``disturbed_cost`` as ``record_row`` has them.

    Where the batch size changes, ``by_size`` has (batch size, figures of its blocks) in the order of first use. What
    holds of one size only is None for the whole, and ``images_per_second`` is the images of all blocks but ``compile``
    over the seconds that they take at their sizes' own: the sizes that were timed count.
    """

    steps: int
    images_per_second: float | None
    trained_seconds: float
    trained_steps: int
    train_blocks: int
    pace_error: float | None
    pace_batches: int | None
    diverged: bool
    preempted_share: float | None = None
    stolen_share: float | None = None
    noise: float | None = None
    disturbed_cost: float | None = None
    by_size: tuple[tuple[int, BlockFigures], ...] = ()


def sizes_of(cell: Cell, steps: Sequence[int] | Array, settle: Sequence[int] | Array) -> Any:
    """The batch size of blocks of so many timed steps, after so many that settle (none where that is empty).

    They are all blocks of the cell, in order. None of a cell whose batch size is fixed.
    """
    if not cell.training.batch_changes:
        return None
    taken = np.asarray(steps, dtype=np.int64) + (np.asarray(settle, dtype=np.int64) if len(settle) else 0)
    return np.array(cell.batch_sizes_at((np.cumsum(taken) - taken).tolist()))


def timed(kinds: Sequence[str]) -> Any:
    """Which count as throughput, as booleans (n,)."""
    return np.array([kind == "train" for kind in kinds], dtype=bool)


def trained(kinds: Sequence[str]) -> Any:
    """Which count as training, as booleans (n,)."""
    return np.array([kind != "compile" for kind in kinds], dtype=bool)


def of_record(record: Record) -> BlockFigures:
    """Of a record that is at hand. Raises ContractError where the columns are not equally long."""
    arrays = BlockArrays.of(record)
    arrays.check()
    return figures([arrays])[0]


def figures(blocks: Sequence[BlockArrays]) -> list[BlockFigures]:
    """Of each of several records, whose columns are equally long."""
    if any(one.sizes is not None for one in blocks):
        return [_of_plan(one) if one.sizes is not None else figures([one])[0] for one in blocks]
    found: dict[int, BlockFigures] = {}
    for group in _grouped([one.alike() for one in blocks]):
        for start in range(0, len(group), _TOGETHER):
            places = group[start : start + _TOGETHER]
            found |= zip(places, _alike([blocks[place] for place in places]), strict=True)
    return [found[place] for place in range(len(blocks))]


def _of_plan(one: BlockArrays) -> BlockFigures:
    """Of a record whose batch size changes: of the blocks of each size by themselves, and together."""
    one.check()
    if len(one.sizes) != len(one.seconds):
        raise ContractError("blocks: epoch and seconds are of different length, allowed: an entry for each block")
    sizes = list(dict.fromkeys(one.sizes.tolist()))
    masks = [one.sizes == size for size in sizes]
    parts = [
        replace(one, timed=one.timed & mask, trained=one.trained & mask, batch_size=size, sizes=None)
        for size, mask in zip(sizes, masks, strict=True)
    ]
    (whole, *own) = figures([replace(one, sizes=None), *parts])
    own = [replace(part, steps=int(one.steps[mask].sum())) for part, mask in zip(own, masks, strict=True)]
    by_size = tuple(zip(sizes, own, strict=True))
    images = [(size * part.trained_steps, part.images_per_second) for size, part in by_size]
    seconds = sum(count / rate for count, rate in images if rate)
    return replace(
        whole,
        images_per_second=sum(count for count, rate in images if rate) / seconds if seconds else None,
        pace_error=None,
        pace_batches=None,
        noise=None,
        disturbed_cost=None,
        by_size=by_size,
    )


def _grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of equal keys."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _alike(blocks: Sequence[BlockArrays]) -> Iterator[BlockFigures]:
    """Of records that are ``alike``: a row of each (m, n) is a record's."""
    places = np.flatnonzero(blocks[0].trained)
    seconds, steps = np.stack([one.seconds for one in blocks]), np.stack([one.steps for one in blocks])
    trained_seconds = seconds.take(places, axis=1).sum(axis=1)
    trained_steps = steps.take(places, axis=1).sum(axis=1)
    all_steps = steps.sum(axis=1)
    sound: Any = (np.abs(np.stack([one.mean_loss for one in blocks])) <= LARGEST_LOSS).all(axis=1)
    usable: Any = blocks[0].timed & (seconds > 0) & (steps > 0)
    found: dict[int, dict[str, Any]] = {}
    for rows in _grouped([row.tobytes() for row in usable]):
        places = np.flatnonzero(usable[rows[0]])
        own = [array[rows].take(places, axis=1) for array in (seconds, steps)]
        found |= zip(rows, _timed([blocks[row] for row in rows], places, *own), strict=True)
    for row, one in enumerate(blocks):
        yield BlockFigures(
            steps=int(all_steps[row]) + one.settle_steps,
            trained_seconds=float(trained_seconds[row]),
            trained_steps=int(trained_steps[row]),
            diverged=not sound[row],
            **found[row],
        )


def _timed(blocks: Sequence[BlockArrays], places: Any, seconds: Array, steps: Any) -> list[dict[str, Any]]:
    """What the timed blocks give, at ``places`` in each record; ``seconds``, ``steps``: theirs, (m, k)."""
    count = len(places)
    if not count:
        return [{"images_per_second": None, "train_blocks": 0, "pace_error": None, "pace_batches": None}] * len(blocks)
    rates = (steps * np.array([[one.batch_size] for one in blocks])).astype(np.float64) / seconds
    steps = steps.astype(np.float64)
    errors = statistics.batch_median_errors(np.log(rates)) if blocks[0].works else None
    paces, noise = seconds / steps, [None] * len(blocks)
    if count > 1:
        middles = statistics.medians(paces)
        deviations = statistics.medians(np.abs(paces - middles[:, np.newaxis]))
        noise = (deviations / middles / _NORMAL_MAD).tolist()
    speeds = statistics.medians(rates).tolist()
    return [
        {
            "images_per_second": speeds[row],
            "train_blocks": count,
            "pace_error": float(errors[0][row]) if errors else None,
            "pace_batches": errors[1] if errors else None,
            "noise": noise[row],
            **_disturbances(one, places, seconds[row], steps[row]),
        }
        for row, one in enumerate(blocks)
    ]


def _disturbances(blocks: BlockArrays, places: Any, seconds: Array, steps: Array) -> dict[str, float | None]:
    preempted, stolen = _told(blocks.preempted, places), _told(blocks.stolen_seconds, places)
    kinds = [told > 0 for told in (preempted, stolen) if told is not None]
    return {
        "preempted_share": None if preempted is None else float(np.mean(preempted > 0)),
        "stolen_share": None if stolen is None else float(stolen.sum() / seconds.sum()),
        "disturbed_cost": _disturbed_cost(seconds, steps, kinds) if kinds else None,
    }


def _told(values: Told, places: Any) -> Array | None:
    """Those of the blocks at ``places``; None for a record that does not tell them all."""
    if not len(values):
        return None
    if isinstance(values, np.ndarray):
        return np.asarray(values[places], dtype=np.float64)
    own = [values[place] for place in places]
    return None if any(value is None for value in own) else np.array(own, dtype=np.float64)


def _disturbed_cost(seconds: Array, steps: Array, kinds: Sequence[Any]) -> float | None:
    disturbed = np.any(kinds, axis=0)
    if disturbed.all() or not disturbed.any():
        return None
    calm = float(seconds[~disturbed].sum() / steps[~disturbed].sum())
    return float(seconds.sum() / steps.sum()) / calm - 1
