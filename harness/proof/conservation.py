"""Whether a cell trained as many steps as it claims, on the data that it was given: what the device counted and holds.

The optimizer, or the step itself, counts its steps where it runs, and a backend that can reads images, labels and the
order of examples back from where training reads them. Their digests are compared with those of what was shipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cell import Cell
from harness.core.messages import Inventoried
from harness.proof.parity import APART, COUNTED, HELD, REDUCED, Quantity

NAMES = {"images": "array of images", "labels": "array of labels", "order": "order of images"}
_DIGEST_BYTES = 16

SHOWN = 3
"""Unequal arrays that a reason names."""


@dataclass(frozen=True)
class Kept:
    """What was found: ``quantities``, whose errors must be zero; ``not_shown``: what the backend does not tell."""

    quantities: tuple[Quantity, ...]
    not_shown: tuple[str, ...]


def judge(cell: Cell, claimed: int, told: Inventoried, expected: Mapping[str, str]) -> Kept:
    """Compare what a device told with ``claimed`` steps and the ``expected`` digests."""
    quantities, not_shown = [], []
    if told.steps is None:
        not_shown.append("the backend does not count steps on the device")
    else:
        quantities.append(step_count(told.steps, claimed))
    absent = [NAMES[name] for name in expected if name not in told.digests]
    if absent:
        why = "sent from the host batch by batch" if cell.target.input == "host" else "not shown by the backend"
        not_shown.append(f"{', '.join(absent)}: {why}")
    for name, digest in expected.items():
        if name in told.digests:
            quantities.append(Quantity(HELD, float(told.digests[name] != digest), 0.0, NAMES[name]))
    if cell.target.devices > 1:
        quantities += [replicas_apart(len(told.apart), told.apart), _reduced(told.collectives)]
    return Kept(tuple(quantities), tuple(not_shown))


def replicas_apart(count: int, names: Sequence[str] = ()) -> Quantity:
    """How many arrays several devices have unequal that training must leave equal, bit by bit."""
    shown = f" ({', '.join([*names[:SHOWN], *(['...'] if len(names) > SHOWN else [])])})" if names else ""
    return Quantity(APART, float(count), 0.0, f"the devices have {count} arrays unequal{shown}" if count else "")


def _reduced(collectives: Mapping[str, int]) -> Quantity:
    """Whether several devices do anything together in a step: without, each trains for itself."""
    fault = "" if collectives else "the compiled step adds nothing up over its devices"
    return Quantity(REDUCED, float(not collectives), 0.0, fault)


def step_count(counted: int, claimed: int) -> Quantity:
    """How far a device's count of steps is from what is claimed."""
    detail = "" if counted == claimed else f"{counted:,} training steps where {claimed:,} were claimed"
    return Quantity(COUNTED, float(abs(counted - claimed)), 0.0, detail)


def expected(dataset: Path, order: Path, cell: Cell) -> dict[str, str]:
    """The digests of what a cell is given (``harness.core.messages.Inventoried``): images, labels, order."""
    images, labels, rows = dataset / "train_images.npy", dataset / "train_labels.npy", np.load(order, mmap_mode="r")
    count = cell.dataset.train_examples
    used = [rows[epoch, :images_of_it] for epoch, images_of_it in enumerate(cell.epoch_images)]
    return {
        "images": _images(images, images.stat().st_mtime_ns, count),
        "labels": _digest(np.load(labels, mmap_mode="r")[:count], "<i4"),
        "order": _digest(np.concatenate(used), "<i4"),
    }


@lru_cache(maxsize=64)
def _images(path: Path, modified: int, count: int) -> str:
    """As float32, integers divided by 255; computed once for as long as the file stays as it is."""
    images = np.load(path, mmap_mode="r")[:count]
    if images.dtype == np.uint8:
        images = np.divide(images, np.float32(255), dtype=np.float32)
    return _digest(images, "<f4")


def _digest(array: NDArray[Any], kind: str) -> str:
    whole = np.ascontiguousarray(array, dtype=np.dtype(kind)).reshape(-1).view(np.uint8)
    return hashlib.blake2b(whole.data, digest_size=_DIGEST_BYTES).hexdigest()
