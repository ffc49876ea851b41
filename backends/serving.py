"""One cell in a worker: opens it, answers the questions about it, and turns what goes wrong into ``Failed``.

Runs in a forked child or in a process of its own, alike.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from typing import TYPE_CHECKING

import numpy as np

from backends import arrays, loop, witnessing
from backends.pipe import Pipe
from backends.protocol import PLANS, Backend, StepPart
from backends.rows import Rows
from harness.core import knobs, system
from harness.core.cell import PLAN_AND_STEPS_PER_CALL, Cell, Target
from harness.core.errors import CellError, ContractError, HarnessError, Unsupported
from harness.core.messages import (
    Block,
    Close,
    Closed,
    Compile,
    Compiled,
    Evaluate,
    Evaluated,
    Failed,
    Forward,
    Forwarded,
    Inventory,
    Limit,
    Limited,
    Masks,
    Open,
    Opened,
    Part,
    PartTimed,
    Placed,
    Placement,
    Probe,
    Probed,
    Replay,
    Reply,
    Request,
    Snapshot,
    Synchrony,
    Trace,
    Traced,
    Train,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_REASON = 500


def serve_cell(pipe: Pipe, backend: Backend, opening: Open) -> int:
    """Serve one cell until ``Close``, a failure, or the end of the pipe. Returns the process's exit status."""
    try:
        cell = _OpenCell(backend, opening)
        pipe.send(cell.opened)
        while True:
            request = pipe.receive()
            if request is None:
                return 0
            if isinstance(request, Close):
                pipe.send(Closed(peak_memory_bytes=system.peak_memory_bytes(), device=cell.session.device()))
                break
            pipe.send(cell.answer(request))
    except BrokenPipeError:
        return 0
    except BaseException as error:
        traceback.print_exc()
        pipe.send(failure(backend, error))
        return 1
    # After the answer: a cell that ended well must not hang on how well a framework takes itself down.
    cell.session.close()
    return 0


def failure(backend: Backend | None, error: BaseException) -> Failed:
    """The typed reply that an exception stands for."""
    known = error if isinstance(error, CellError) else None
    if known is None and backend is not None:
        known = backend.translate(error)
    if known is not None:
        status, reason = known.status, str(known)
    elif isinstance(error, MemoryError):
        status, reason = "out_of_memory", str(error) or "host memory ran out"
    elif isinstance(error, HarnessError):
        status, reason = "crashed", str(error)
    else:
        status, reason = "crashed", f"{type(error).__name__}: {error}"
    line = " ".join(reason.split()) or type(error).__name__
    return Failed(status=status, reason=line[:LONGEST_REASON], peak_memory_bytes=system.peak_memory_bytes())


def require_trainable(backend: Backend, cell: Cell) -> None:
    """Refuse options of training that the backend does not declare. Raises Unsupported."""
    asked = cell.training.options
    if not asked:
        return  # backends from before there were such declare nothing
    able, mode = backend.capabilities(), cell.target.mode
    for option in asked:
        elsewhere = able.refusals.get(
            f"{option} in {mode}", able.refusals.get(f"{option} on {cell.target.accelerator}")
        )
        if elsewhere is not None or option not in getattr(able, "options", ()):
            why = elsewhere or able.refusals.get(option, "its adapter does not declare it")
            raise Unsupported(f"{backend.name} cannot train with {option} in mode {mode!r}: {why}")


def require_offered(backend: Backend, target: Target) -> None:
    """Refuse several steps per call, and options, that the backend does not declare. Raises Unsupported."""
    at_once, options = target.steps_per_call, target.all_options
    if at_once == 1 and not options:
        return  # backends from before there was either need declare nothing
    able = backend.capabilities()
    if at_once > 1 and target.input not in getattr(able, "loops", {}).get(target.mode, ()):
        where = f"in mode {target.mode!r} with input {target.input!r}"
        why = able.refusals.get(f"steps_per_call in {target.mode}", "its adapter offers one step per call")
        raise Unsupported(f"{backend.name} has no steps_per_call={at_once} {where}: {why}")
    knobs.chosen(options, getattr(able, "knobs", ()))


def require_plans(backend: Backend, cell: Cell) -> None:
    """Refuse a batch size that changes where the backend declares no such plans. Raises Unsupported."""
    if not cell.training.batch_changes:
        return  # nor need those from before there were plans declare anything
    able, target = backend.capabilities(), cell.target
    if target.mode not in getattr(able, "plans", ()):
        why = able.refusals.get(f"{PLANS} in {target.mode}", "its adapter offers one batch size per cell")
        raise Unsupported(f"{backend.name} trains no {PLANS} in mode {target.mode!r}: {why}")
    if target.steps_per_call > 1:
        raise Unsupported(PLAN_AND_STEPS_PER_CALL)


def require_microbatches(backend: Backend, cell: Cell) -> None:
    """Refuse accumulated gradients that the backend does not declare, or the cell cannot have. Raises Unsupported."""
    if not cell.target.microbatch:
        return
    able, mode = backend.capabilities(), cell.target.mode
    if mode not in getattr(able, "microbatches", ()):
        why = able.refusals.get(f"microbatch in {mode}", "its adapter trains each batch at once")
        raise Unsupported(f"{backend.name} has no microbatch in mode {mode!r}: {why}")
    if cell.why_no_microbatch:
        raise Unsupported(cell.why_no_microbatch)


def require_devices(backend: Backend, cell: Cell) -> None:
    """Refuse several devices that the backend does not declare, or the cell cannot have. Raises Unsupported."""
    target = cell.target
    if target.devices == 1:
        return
    able, mode = backend.capabilities(), target.mode
    narrower = [f"devices on {target.accelerator}", f"devices in {mode}"]
    if target.steps_per_call > 1:
        narrower.append(f"devices with steps_per_call in {mode}")
    why = next((able.refusals[one] for one in narrower if one in able.refusals), "")
    if not why and mode not in getattr(able, "devices", ()):
        why = "its adapter trains on one"
    if why or cell.why_no_devices:
        reason = why or cell.why_no_devices
        raise Unsupported(f"{backend.name} has no devices={target.devices} in mode {mode!r}: {reason}")


class _OpenCell:
    """A built cell and the answers about it."""

    def __init__(self, backend: Backend, opening: Open) -> None:
        _work_in(opening.scratch)
        cell = opening.cell
        require_offered(backend, cell.target)
        require_trainable(backend, cell)
        require_plans(backend, cell)
        require_microbatches(backend, cell)
        require_devices(backend, cell)
        processors = system.use_processors(cell.target.cpus)
        keep_programs = getattr(backend, "keep_programs", None) if opening.programs else None
        if keep_programs is not None:
            keep_programs(opening.programs)
        facts, initialise_seconds = loop.timed(lambda: backend.initialise(cell.target))
        self._backend, self._target = backend, cell.target
        self._arrays, load_seconds = loop.timed(lambda: arrays.load(opening))
        self.session, build_seconds = loop.timed(lambda: backend.session(cell, self._arrays))
        self._evaluates = False
        self._last_block: loop.Usage | None = None
        self._parts: dict[tuple[str, str], StepPart] = {}
        self.opened = Opened(
            pid=os.getpid(),
            initialise_seconds=initialise_seconds,
            load_seconds=load_seconds,
            build_seconds=build_seconds,
            device={**facts, "processors": list(processors), **({} if keep_programs is None else {"programs": "kept"})},
        )

    def answer(self, request: Request) -> Reply:
        """Do what is asked and say so."""
        if isinstance(request, Train):
            return self._train(request)
        if isinstance(request, Compile):
            return self._prepare(request)
        if isinstance(request, Evaluate):
            return self._evaluate()
        if isinstance(request, Probe):
            return self._probe(request)
        if isinstance(request, Forward):
            return self._forward(request)
        if isinstance(request, Synchrony):
            return loop.claimed_ends(self.session, request, self._target.steps_per_call)
        if isinstance(request, Placement):
            return self._placement(request)
        if isinstance(request, Limit):
            return self._limit(request)
        if isinstance(request, Snapshot):
            self._last_block = None
            return witnessing.snapshot(self.session, request, self._target.devices)
        if isinstance(request, Masks):
            return witnessing.masks(self.session, request)
        if isinstance(request, Inventory):
            return witnessing.inventory(self.session, self._target.devices)
        if isinstance(request, Replay):
            return witnessing.replay(self.session, request)
        if isinstance(request, Part):
            return self._part(request)
        if isinstance(request, Trace):
            return self._trace(request)
        raise ContractError(f"{request.kind} came while a cell was open")

    def _train(self, request: Train) -> Block:
        block = loop.train_block(self.session, request.steps, request.settle, self._last_block)
        if request.rest:
            block = loop.rested(block)
        self._last_block = loop.Usage.now()
        return block

    def _prepare(self, request: Compile) -> Compiled:
        """Whatever adapters this is asked of declare plans, so they have it."""
        self._last_block = None
        prepare = getattr(self.session, "prepare", None)
        if prepare is None:
            raise ContractError(f"the backend {self._backend.name} declares {PLANS}s, but its session has no prepare")
        _, seconds = loop.timed(lambda: prepare(request.batch_size))
        return Compiled(seconds)

    def _evaluate(self) -> Evaluated:
        compile_seconds = 0.0
        self._last_block = None  # what evaluation uses is not the idleness of a waiting lane
        if not self._evaluates:
            _, compile_seconds = loop.timed(lambda: self.session.evaluate(first_batch_only=True))
            self._evaluates = True
        (loss, accuracy), seconds = loop.timed(self.session.evaluate)
        return Evaluated(loss=float(loss), accuracy=float(accuracy), seconds=seconds, compile_seconds=compile_seconds)

    def _probe(self, request: Probe) -> Probed:
        order, at_once = Rows(self._arrays), self._target.steps_per_call
        batch, rows = order.row(0), order.first(request.steps)
        images, labels = self._arrays.train_images[batch], self._arrays.train_labels[batch]
        initial = self.session.gradients(images, labels)
        # Only the reference can tell its margin; it is taken before each step, on that step's images.
        margin = getattr(self.session, "kink_margin", None)
        losses, margins = [], []
        for first in range(0, len(rows), at_once):
            if margin is not None:
                margins.append(margin(self._arrays.train_images[rows[first]]))
            losses += loop.train_block(self.session, min(at_once, len(rows) - first)).losses
        arrays.save(
            request.output,
            {
                **({"kink_margin": np.asarray(min(margins))} if margins else {}),
                "logits": initial.logits,
                "loss": np.asarray(initial.loss),
                "losses": np.asarray(losses),
                "evaluation_logits": self.session.forward(images, training=False),
                **self._test_set(request.evaluate),
                **{f"gradient/{name}": array for name, array in initial.gradients.items()},
                **{f"parameter/{name}": array for name, array in self.session.parameters().items()},
                **{f"statistic/{name}": array for name, array in self.session.statistics().items()},
            },
        )
        return Probed()

    def _test_set(self, wanted: bool) -> dict[str, NDArray[np.floating]]:
        if not wanted:
            return {}
        loss, accuracy = self.session.evaluate()
        return {"test_loss": np.asarray(loss, np.float64), "test_accuracy": np.asarray(accuracy, np.float64)}

    def _limit(self, request: Limit) -> Limited:
        yardstick = getattr(self._backend, "yardstick", None)
        if yardstick is None:  # the host has said so before
            raise ContractError(f"the backend {self._backend.name} has no yardstick")
        return loop.limits(yardstick(self._target), request)

    def _forward(self, request: Forward) -> Forwarded:
        images = self._arrays.train_images[: request.examples]
        passes = [self.session.forward(images, training=request.training) for _ in range(request.repeats)]
        arrays.save(request.output, {"logits": np.stack(passes)})
        return Forwarded()

    def _placement(self, request: Placement) -> Placed:
        """Only some frameworks run a step as operations that could each be elsewhere."""
        tell = getattr(self.session, "placement", None)
        placed: Placed = Placed(tells=False) if tell is None else tell(request.kernels_of)
        return placed

    def _part(self, request: Part) -> PartTimed:
        """What a part was given it keeps, so that what is timed moves nothing to the device."""
        key = request.name, request.direction
        self._last_block = None
        if self._target.microbatch:
            raise Unsupported("a step of microbatches has each part several times, so it is not taken apart")
        if self._target.devices > 1:
            raise Unsupported("a step on several devices has each part on every one, so it is not taken apart")
        if request.given or key not in self._parts:
            build = getattr(self.session, "part", None)
            if build is None:
                raise Unsupported(f"the backend {self._backend.name} cannot run the parts of a step on their own")
            self._parts[key] = build(*key, arrays.load_given(request.given))
        part = self._parts[key]
        if request.output:
            arrays.save(request.output, part.values())
        return loop.time_part(part, request.calls, request.settle)

    def _trace(self, request: Trace) -> Traced:
        trace = getattr(self.session, "trace", None)
        if trace is None:
            raise Unsupported(f"the backend {self._backend.name} has no profiler")
        _, seconds = loop.timed(lambda: trace(request.steps, request.folder))
        self.session.losses()
        self._last_block = None
        return Traced(steps=request.steps, seconds=seconds)


def _work_in(scratch: str) -> None:
    """Whatever a framework writes without being told where goes to ``scratch``."""
    os.makedirs(scratch, exist_ok=True)
    with contextlib.suppress(OSError):  # too long for Windows: it stays in its host's folder, which is scratch as well
        os.chdir(scratch)
    for variable in ("TMPDIR", "TMP", "TEMP"):
        os.environ[variable] = scratch
    tempfile.tempdir = None
