"""What a run knows of a cell beside its plan: what its record says, and where there is none, what others say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness import analysis
from harness.core.cell import Cell
from harness.core.record import NOT_THE_WORK, Epoch, Record
from harness.core.variables import is_computing
from harness.wording import machine_words

PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "jax", "jaxlib", "flax", "optax", "numpy")
"""Those that a script names."""

SAID_IN_CODE = ("TF_CPP_", "JAX_PLATFORMS")
"""Beginnings of variables that a script needs not set: it says the same in code, or they change the log alone."""

_LOCKED = re.compile(r"^([a-z0-9-]+)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Known:
    """``status``: of the record, empty if there is none. ``epochs``: what it says of each that was finished.

    ``images_per_second``: the median over its timed blocks, None if it has none. ``packages``: name -> version, of the
    interpreter in which it ran or would have. ``variables``: environment variables that change what is computed.
    ``machine``: in words.
    """

    status: str = ""
    epochs: tuple[Epoch, ...] = ()
    images_per_second: float | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""


def known(cell: Cell, record: Record | None, others: Iterable[Record] = (), lock: str = "") -> Known:
    """``others``: records of the same run. ``lock``: the text of the environment's lock file, empty if there is none.

    Packages are those of the record, or of another cell in the same environment, or those of the lock file.
    """
    if record is None or not record.worker:
        alike = (other for other in others if other.worker and other.cell.target.environment == cell.target.environment)
        packages = next((_packages(other) for other in alike), None) or _locked(lock)
        return Known("" if record is None else record.status, packages=packages)
    return Known(
        status=record.status,
        epochs=record.epochs if record.status not in NOT_THE_WORK else (),
        images_per_second=analysis.summary([record])["images_per_second"][0],
        packages=_packages(record),
        variables=_variables(record),
        machine=_machine(record),
    )


def has_keras_2(cell: Cell, packages: Mapping[str, str]) -> bool:
    """Whether a TensorFlow cell's Keras is Keras 2; where no version is known, only DirectML's is."""
    if "keras" in packages:
        return packages["keras"].startswith("2.")
    return cell.target.accelerator == "directml"


def _packages(record: Record) -> dict[str, str]:
    return _named(record.worker.get("packages") or {})


def _locked(lock: str) -> dict[str, str]:
    return _named(dict(_LOCKED.findall(lock)))


def _named(packages: Mapping[str, object]) -> dict[str, str]:
    found = {name: str(packages[name]) for name in PACKAGES if name in packages}
    if "tensorflow" in found:
        found.pop("tensorflow-cpu", None)  # the same under the name of its wheel
    return found


def _variables(record: Record) -> dict[str, str]:
    found = record.worker.get("variables") or {}
    kept = (name for name in sorted(found) if name == "CUDA_DEVICE_ORDER" or is_computing(name))
    return {name: str(found[name]) for name in kept if not name.startswith(SAID_IN_CODE)}


def _machine(record: Record) -> str:
    """Its cores are those that the worker had; of a GPU that the driver does not name, the framework's name."""
    device = record.worker.get("device") or {}
    gpu = record.machine.get("gpu") or ({"name": device["adapter"]} if device.get("adapter") else {})
    if not record.machine and not gpu:
        return ""
    cores = len(device.get("processors") or ()) or record.machine.get("usable_cores")
    return machine_words({**record.machine, "gpu": gpu, "usable_cores": cores})
