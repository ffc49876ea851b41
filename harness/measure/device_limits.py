"""What a device can do at most through a target: its rate of matrix products and of passing over memory.

Measured by the target's own worker (``backends.loop.limits``), once for each target, machine, packages and code, and
kept in the user's cache. It is the yardstick that a training's achieved rate is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.errors import CellError, ContractError
from harness.core.messages import Limit, Limited
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.record import now
from harness.core.told import asked
from harness.core.training import TrainingSpec
from harness.machine import facts as machine_facts
from harness.machine import nvidia
from harness.plan import inputs
from harness.proof.probes import ProbeCell
from harness.proof.probing import ProbeFolder, opened
from harness.workers.cell_worker import CellWorker

VERSION = 1
"""Of how it is measured; another one measures anew."""

MEMORY_SHARE = 8
"""The arrays may take one part in so many of the device's memory."""

ANSWER_SECONDS = 60.0
"""What the worker may take at least, however short the answers are that its user allows: some seconds do as a rule."""

UNKNOWN_MEMORY_BYTES = 4 * 2**30
"""Taken for the memory of a device that does not tell."""

MODEL = ModelSpec("limit", (2, 2, 1), (Flatten(), Dense(2)))
"""A cell must be open for its worker to be on the device; nothing of it is trained."""

KEYS = ("product_flops_per_second", "product_size", "memory_bytes_per_second", "array_bytes", "dtype")


@dataclass(frozen=True)
class Limits:
    """What was measured (see ``messages.Limited``), or the ``problem``; ``key`` is what it depends on."""

    id: str
    target: str
    key: dict[str, Any]
    product_flops_per_second: float | None = None
    product_size: int = 0
    memory_bytes_per_second: float | None = None
    array_bytes: int = 0
    dtype: str = ""
    created: str = ""
    problem: str = field(default="", metadata=codec.LATER)

    @property
    def for_record(self) -> dict[str, Any]:
        """What a record tells of it."""
        if self.problem:
            return {"problem": self.problem}
        return {"id": self.id, "created": self.created, **{key: getattr(self, key) for key in KEYS}}


class Limiter:
    """Gives each target its limits, measured at the first need.

    ``folder``: the cache of what was measured. ``scratch``: for the worker's files. ``circumstances``: what else they
    depend on (code hash, machine). ``timeout``: for one answer, in seconds. ``keeping``: how the cache is written.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        circumstances: Mapping[str, Any],
        timeout: float,
        keeping: Keeping | None = None,
    ) -> None:
        self._folder = folder
        self._scratch = scratch
        self._circumstances = circumstances
        self._timeout = timeout
        self._keeping = keeping or Keeping()
        self._known: dict[str, Limits] = {}

    def limits(self, target: Target, worker: Callable[[], CellWorker], fresh: bool = False) -> Limits:
        """Of a target; a stored one, or measured now (always, if ``fresh``) and stored.

        ``worker`` gives the live worker. What fails is a ``problem``, which is not stored. Raises CellError only if
        the worker does not even start.
        """
        facts = worker().ready.worker
        key = {
            "version": VERSION,
            "backend": target.backend,
            "accelerator": target.accelerator,
            "mode": target.mode,
            "device": target.device,
            "cpus": target.cpus,
            "matmul_precision": target.matmul_precision,
            "environment": target.environment,
            "settings": target.settings,
            **{name: facts.get(name) for name in ("packages", "python", "variables")},
            **self._circumstances,
        }
        identity = codec.digest(key)[:16]
        if identity in self._known:
            return self._known[identity]
        path = self._folder / f"{identity}.json"
        found = None if fresh else _stored(path)
        if found is None:
            found = self._measure(Limits(identity, target.label, key), target, facts.get("variables") or {}, worker)
            if not found.problem:
                self._keeping.keep(path, partial(codec.write_json, value=found))
        self._known[identity] = found
        return found

    def _measure(
        self, empty: Limits, target: Target, variables: Mapping[str, str], worker: Callable[[], CellWorker]
    ) -> Limits:
        if not worker().ready.capabilities.get("yardstick"):
            problem = f"the backend {target.backend} offers no yardstick to measure its device with"
            return Limits(empty.id, empty.target, empty.key, created=now(), problem=problem)
        request = Limit(memory_bytes=memory_bytes(target, variables) // MEMORY_SHARE)
        try:
            with (
                ProbeFolder(self._scratch / f"limit-{empty.id}", _probe(target)) as files,
                opened(worker(), files.request, self._timeout) as (host, _),
            ):
                reply = host.ask(request, max(self._timeout, ANSWER_SECONDS))
        except CellError as error:
            return Limits(empty.id, empty.target, empty.key, created=now(), problem=str(error))
        assert isinstance(reply, Limited)
        told = {key: getattr(reply, key) for key in KEYS}
        return Limits(empty.id, empty.target, empty.key, created=now(), **told)


def memory_bytes(target: Target, variables: Mapping[str, str]) -> int:
    """Bytes of memory that a target's device has free for a worker with these environment variables."""
    if target.accelerator == "cpu":
        free = asked(machine_facts.available_memory)[0]
        return UNKNOWN_MEMORY_BYTES if free is None else free
    index = nvidia.index_for(target, variables)
    free = None if index is None else nvidia.free_memory_bytes(index)
    return UNKNOWN_MEMORY_BYTES if free is None else free


def _stored(path: Path) -> Limits | None:
    try:
        found = codec.read_json(path, Limits) if path.exists() else None
    except ContractError:
        return None
    mark_used(path)
    return found


def _probe(target: Target) -> ProbeCell:
    """One batch of zeros, on one device, whose limit it is."""
    images, labels = np.zeros((2, *MODEL.input_shape), np.float32), np.zeros(2, np.int32)
    dataset = Dataset("probe", "", 2, 2, MODEL.input_shape, MODEL.classes)
    return ProbeCell(
        cell=Cell(MODEL, TrainingSpec(2), dataset, Inputs("", ""), replace(target, steps_per_call=1, devices=1)),
        images=images,
        labels=labels,
        test_images=images,
        test_labels=labels,
        parameters=inputs.draw_parameters(MODEL, seed=0),
        order=np.array([[0, 1]], np.int32),
    )
