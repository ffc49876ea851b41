"""What the block times of one record give, in one pass over its arrays: all that tables know of blocks.

In: ``BlockArrays``, of a record's lists or read straight from its file. Out: ``BlockFigures``, a few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import statistics
from harness.core.errors import ContractError
from harness.core.record import LARGEST_LOSS, Blocks
from harness.statistics import Array

_NORMAL_MAD = 0.6745

Told = Sequence[float | None] | Array
"""What the system told of each block, empty where it was not asked."""


@dataclass(frozen=True)
class BlockArrays:
    """The columns of ``Blocks`` that tables need, (n,) each; ``settle_steps`` is a sum.

    ``timed``: whether a block's kind is ``train``; ``trained``: whether it is any but ``compile``.
    """

    timed: Any
    trained: Any
    steps: Any
    seconds: Array
    mean_loss: Array
    settle_steps: int
    preempted: Told
    stolen_seconds: Told

    @classmethod
    def of(cls, blocks: Blocks) -> BlockArrays:
        """Those of a record that is at hand."""
        return cls(
            timed=np.array([kind == "train" for kind in blocks.kind], dtype=bool),
            trained=np.array([kind != "compile" for kind in blocks.kind], dtype=bool),
            steps=np.array(blocks.steps, dtype=np.int64),
            seconds=np.array(blocks.seconds, dtype=np.float64),
            mean_loss=np.array(blocks.mean_loss, dtype=np.float64),
            settle_steps=sum(blocks.settle),
            preempted=blocks.preempted,
            stolen_seconds=blocks.stolen_seconds,
        )


@dataclass(frozen=True)
class BlockFigures:
    """What the blocks of a record give.

    ``steps``: all that were trained, untimed ones as well; ``trained_``: of all blocks but ``compile``. ``pace_error``
    and ``pace_batches``: ``statistics.batch_median_error`` of the logarithms of the paces. ``diverged``: whether a
    block's loss became infinite or no number. The others are None without a timed block, ``preempted_share`` to
    ``disturbed_cost`` as ``other_load.disturbances`` has them.
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


def figures(blocks: BlockArrays, batch_size: int, is_the_work: bool) -> BlockFigures:
    """Raises ContractError where the columns are not equally long. Other work has no ``pace_error``."""
    seconds, steps = blocks.seconds, blocks.steps
    if not len(seconds) == len(steps) == len(blocks.timed):
        raise ContractError(
            f"blocks: kind, steps and seconds are of different length ({len(blocks.timed)}, {len(steps)}, "
            f"{len(seconds)}), allowed: an entry for each block"
        )
    places = np.flatnonzero(blocks.timed & (seconds > 0) & (steps > 0))
    own_seconds, own_steps = seconds[places], steps[places]
    rates = own_steps * batch_size / own_seconds
    error = statistics.batch_median_error(np.log(rates)) if is_the_work else None
    return BlockFigures(
        steps=int(steps.sum()) + blocks.settle_steps,
        images_per_second=statistics.median_of(rates) if rates.size else None,
        trained_seconds=float(seconds[blocks.trained].sum()),
        trained_steps=int(steps[blocks.trained].sum()),
        train_blocks=int(rates.size),
        pace_error=error[0] if error else None,
        pace_batches=error[1] if error else None,
        diverged=not bool(np.all(np.abs(blocks.mean_loss) <= LARGEST_LOSS)),
        **(_disturbances(blocks, places, own_seconds, own_steps.astype(np.float64)) if rates.size else {}),
    )


def _disturbances(blocks: BlockArrays, places: Any, seconds: Array, steps: Array) -> dict[str, float | None]:
    preempted, stolen = _told(blocks.preempted, places), _told(blocks.stolen_seconds, places)
    return {
        "preempted_share": None if preempted is None else float(np.mean(preempted > 0)),
        "stolen_share": None if stolen is None else float(stolen.sum() / seconds.sum()),
        "noise": _noise(seconds / steps),
        "disturbed_cost": _disturbed_cost(
            seconds, steps, [known > 0 for known in (preempted, stolen) if known is not None]
        ),
    }


def _noise(pace: Array) -> float | None:
    if len(pace) < 2:
        return None
    middle = statistics.median_of(pace)
    return float(np.float64(statistics.median_of(np.abs(pace - middle))) / middle) / _NORMAL_MAD


def _told(values: Told, places: Any) -> Array | None:
    """Those of the blocks at ``places``; None for a record that does not tell them all."""
    if not len(values):
        return None
    if isinstance(values, np.ndarray):
        return np.asarray(values[places], dtype=np.float64)
    own = [values[place] for place in places]
    return None if any(value is None for value in own) else np.array(own, dtype=np.float64)


def _disturbed_cost(seconds: Array, steps: Array, kinds: Sequence[Any]) -> float | None:
    if not kinds:
        return None
    disturbed = np.any(kinds, axis=0)
    if disturbed.all() or not disturbed.any():
        return None
    calm = float(seconds[~disturbed].sum() / steps[~disturbed].sum())
    return float(seconds.sum() / steps.sum()) / calm - 1
