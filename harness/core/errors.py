"""The exception tree. Everything the harness or a worker raises on purpose is in it.

HarnessError                    one clear sentence; exit status 1
├── UsageError                  what a person wrote or asked for is wrong; exit status 2
│   └── ModelError              a layer or key of a model is wrong (carries layer and key)
├── ContractError               a message, record or file does not have the agreed form
├── DatasetError                a dataset is missing, truncated or altered
├── EnvironmentBuildError       a target's environment cannot be found or built
├── StoreError                  a run folder cannot be read, written or locked
├── SchedulerError              a cluster's scheduler does not do what is asked of it
└── CellError                   a cell did not end well; carries the status of its record
    ├── Unsupported             the target cannot do what the cell asks   -> unsupported
    ├── OutOfMemory             host or device memory ran out             -> out_of_memory
    ├── WrongDevice             the requested device did not do the work  -> wrong_device
    ├── WorkerTimeout           no answer in the time allowed             -> timeout
    └── WorkerCrashed           the process ended or answered nonsense    -> crashed
        └── DeviceLost          the device was taken away or gave up      -> crashed
"""

from __future__ import annotations


class HarnessError(Exception):
    """Base of all deliberate errors. ``str(error)`` is one line for a person."""

    exit_status = 1


class UsageError(HarnessError):
    """A wrong flag, file, key or value: says what, where, and what is allowed."""

    exit_status = 2


class ModelError(UsageError):
    """A wrong model: ``where`` names the layer and key, ``problem`` what is wrong and allowed."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.problem = problem


class ContractError(HarnessError):
    """A message, record or file that does not have the agreed form."""


class DatasetError(HarnessError):
    """A dataset that is missing, truncated or altered."""


class EnvironmentBuildError(HarnessError):
    """A target's environment cannot be found or built."""


class StoreError(HarnessError):
    """A run folder that cannot be read, written or locked."""


class SchedulerError(HarnessError):
    """A cluster's scheduler that cannot be reached, or that refuses."""


class CellError(HarnessError):
    """A cell that did not end well; ``status`` is that of the record it becomes.

    ``peak_memory_bytes``: largest resident set of the worker that failed, where it could still say.
    """

    status = "crashed"
    peak_memory_bytes: int | None = None


class Unsupported(CellError):
    """The target cannot do what the cell asks (layer, mode, precision, input)."""

    status = "unsupported"


class OutOfMemory(CellError):
    """Host or device memory ran out."""

    status = "out_of_memory"


class WrongDevice(CellError):
    """The requested device is absent or did not do the work."""

    status = "wrong_device"


class WorkerTimeout(CellError):
    """The worker gave no answer in the time allowed."""

    status = "timeout"


class WorkerCrashed(CellError):
    """The worker's process ended, or answered something that is no message."""

    status = "crashed"


class DeviceLost(WorkerCrashed):
    """The device was reset, removed or gave up: a fault of the machine or of its driver, not of the cell."""
