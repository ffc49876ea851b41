"""Having a worker do a probe: its files laid out, its cell opened and ended, its arrays read back."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from harness import refusals
from harness.cache import room
from harness.core.errors import CellError, StoreError
from harness.core.messages import Open, Placed, Placement, Probe
from harness.plan import inputs
from harness.proof import device as device_proof
from harness.proof import probes
from harness.proof.device_facts import device_facts, require_device
from harness.workers.cell_worker import CellWorker

Arrays = dict[str, NDArray[Any]]

ATTEMPTS = 2
"""How often a probe may fail to run (a crash, a time-out) before its target is given up."""


def run_probe(
    probe: probes.ProbeCell,
    worker: CellWorker,
    folder: Path,
    timeout: float,
    evaluate: bool = False,
    value_bytes: int = 4,
) -> Arrays:
    """Let a worker do a training probe; the arrays are named as ``messages.Probe`` says. Raises CellError.

    ``value_bytes``: of each gradient and each parameter in the answer.
    """
    with ProbeFolder(folder, probe, 2 * value_bytes * probe.cell.model.parameter_count) as files:
        output = files.path / "probed.npz"
        with opened(worker, files.request, timeout):
            worker.ask(Probe(probe.cell.total_steps, str(output), evaluate), timeout)
        return load_probed(output)


def placement_of(
    probe: probes.ProbeCell, worker: CellWorker, folder: Path, timeout: float, kernels_of: str = ""
) -> Placed:
    """Where the operations of a step of the probe's cell run; ``kernels_of``: see ``Placement``. Raises CellError."""
    with ProbeFolder(folder, probe) as files, opened(worker, files.request, timeout):
        placed = worker.ask(Placement(kernels_of), timeout)
    assert isinstance(placed, Placed)
    return placed


@contextmanager
def opened(
    worker: CellWorker, request: Open, timeout: float, trained: bool = False
) -> Iterator[tuple[CellWorker, dict[str, Any]]]:
    """A cell that is open in the block: ended well after it, at once if it fails. Gives the worker and device facts.

    After the block the facts have those of the cell's end as well. ``trained``: a loss must be known by then. Raises
    WrongDevice if the device that its target asks for is not the one that did the work.
    """
    target, answer = request.cell.target, worker.open(request, timeout)
    try:
        facts = device_facts(target, worker, answer)
        require_device(device_proof.opening_problem(target, facts))
        yield worker, facts
    except BaseException:
        worker.abandon()
        raise
    facts |= worker.finish(timeout).device
    require_device(device_proof.closing_problem(target, facts, trained=trained))


class ProbeFolder:
    """The files of one probe, removed at the end; ``answer_bytes``: what the worker writes there at least.

    Entering raises StoreError, before any work is done, if the disk has no room for them. A worker that crashed while
    the disk was full did not do so by itself: then leaving raises StoreError, which says that it was the disk.
    """

    def __init__(self, path: Path, probe: probes.ProbeCell, answer_bytes: int = 0) -> None:
        self.path = path
        self._probe = probe
        self._files = {
            "train_images.npy": probe.images,
            "train_labels.npy": probe.labels,
            "test_images.npy": probe.test_images,
            "test_labels.npy": probe.test_labels,
            "order.npy": probe.order,
        }
        arrays = (*self._files.values(), *probe.parameters.values())
        self._needed = answer_bytes + sum(array.nbytes for array in arrays)
        self.request = Open(
            cell=probe.cell,
            dataset=str(path),
            parameters=str(path / "parameters.npz"),
            order=str(path / "order.npy"),
            scratch=str(path),
        )

    def __enter__(self) -> ProbeFolder:
        room.require(self.path, self._needed, f"a probe of {self.request.cell.target.label}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, array in self._files.items():
                inputs.save_array(self.path / name, array)
            inputs.save_arrays(self.path / "parameters.npz", self._probe.parameters)
        except OSError as error:
            self._remove()
            raise refusals.unwritable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problem = room.shortage(self.path) if isinstance(error, CellError) and error.status == "crashed" else ""
        self._remove()
        if problem:
            raise StoreError(f"{problem} ({error})") from error

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def load_probed(path: Path) -> Arrays:
    """What a worker wrote for a probe. Raises CellError."""
    try:
        return inputs.load_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CellError(f"the worker's probe file {path.name} cannot be read ({error})") from error
