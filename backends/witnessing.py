"""What a session shows of its training to whoever checks it: its state, its masks, its data, and steps done again.

A backend need not be able to show all of it; what it cannot is left out of the answer, and the harness says so.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import arrays
from backends.protocol import Session
from harness.core.errors import ContractError
from harness.core.messages import Inventoried, Masked, Masks, Replay, Replayed, Snapshot, Snapshotted

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPES = {"images": "<f4", "labels": "<i4", "order": "<i4"}
"""As what each array is digested, whatever type the device holds it in."""
DIGEST_BYTES = 16


def snapshot(session: Session, request: Snapshot, devices: int = 1) -> Snapshotted:
    """The state as it is now; ``devices``: on how many it is."""
    named: dict[str, NDArray[Any]] = {
        **{f"parameter/{name}": array for name, array in session.parameters().items()},
        **{f"statistic/{name}": array for name, array in session.statistics().items()},
    }
    if (state := getattr(session, "optimizer_state", None)) is not None:
        named |= {f"optimizer/{name}": array for name, array in state().items()}
    if (steps := getattr(session, "steps_done", None)) is not None:
        named["steps"] = np.asarray(steps(), np.int64)
    if devices > 1 and (apart := getattr(session, "apart", None)) is not None:
        named["apart"] = np.asarray(len(apart()), np.int64)
    arrays.save(request.output, named)
    return Snapshotted()


def masks(session: Session, request: Masks) -> Masked:
    """What dropout kept in past steps."""
    tell = getattr(session, "masks", None)
    named: dict[str, NDArray[Any]] = {}
    for step in range(request.first_step, request.first_step + request.steps):
        drawn = None if tell is None else tell(step)
        if drawn is None:
            return Masked(tells=False)
        named |= {f"{step}/{layer}": np.asarray(mask, bool) for layer, mask in drawn.items()}
    arrays.save(request.output, named)
    return Masked(tells=True)


def inventory(session: Session, devices: int = 1) -> Inventoried:
    """Steps counted and data held on the device; of several ``devices`` what they do together and have unequal."""
    count, held = getattr(session, "steps_done", None), getattr(session, "held", None)
    found = {} if held is None else held()
    apart, collectives = (getattr(session, name, None) if devices > 1 else None for name in ("apart", "collectives"))
    return Inventoried(
        steps=None if count is None else int(count()),
        digests={name: digest(found[name], kind) for name, kind in TYPES.items() if name in found},
        apart=[] if apart is None else apart(),
        collectives={} if collectives is None else collectives(),
    )


def digest(array: NDArray[Any], kind: str) -> str:
    """Of an array's values as type ``kind``."""
    whole = np.ascontiguousarray(array, dtype=np.dtype(kind)).reshape(-1).view(np.uint8)
    return hashlib.blake2b(whole.data, digest_size=DIGEST_BYTES).hexdigest()


def replay(session: Session, request: Replay) -> Replayed:
    """Only the reference can."""
    again = getattr(session, "replay", None)
    if again is None:
        raise ContractError("only the reference replays steps")
    state = _read(request.state)
    found: dict[str, NDArray[Any]] = again(
        state, request.first_step, request.steps, request.roundoff, _read(request.masks), request.gradients
    )
    arrays.save(request.output, found)
    return Replayed()


def _read(path: str) -> dict[str, NDArray[Any]]:
    if not path:
        return {}
    with open(path, "rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return {name: stored[name] for name in stored.files}
