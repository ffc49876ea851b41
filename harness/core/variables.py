"""Environment variables that change what a framework computes, or how fast.

A worker inherits none of them from the person's shell, where they are easily forgotten: a target's definition says
them, so that they are part of a cell's identity. Which device to show is the exception, as a cluster's
scheduler says that by variables. Whatever a worker ends up with is on its record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile

COMPUTING = ("TF_", "XLA_", "JAX_", "KERAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "OPENBLAS_")
"""Beginnings of names; ``NVIDIA_TF32_OVERRIDE`` belongs to them as well."""

DEVICES = ("CUDA_", "NVIDIA_", "DML_", "GPU_", "HIP_", "ROCR_")
"""Beginnings of names that choose devices."""

ONLY_DEVICE = "HARNESS_DEVICE"
"""Set for a worker that is shown one device only: which of its target's devices that is."""

EMPTY_HIDES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that show no device where they are set and empty; the others are then as if unset.

Sources: CUDA programming guide, "CUDA environment variables"; ROCR's ``flag.h`` (``filter_visible_gpus_``). HIP's
runtime and DirectML's plugin look whether there is anything in theirs.
"""

_END_OF_DEVICES = re.compile(r"-\d+|NoDevFiles")
"""An entry that hides itself and all after it; the word is Slurm's, for a job without a GPU."""

PLACES = ("_PATH", "_HOME", "_DIR")
"""Ends of names of folders."""


IMAGE = ("NVIDIA_REQUIRE", "NVIDIA_PRODUCT", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VERSION")
"""Beginnings of names by which a container's image describes itself: they choose nothing."""


def is_computing(name: str) -> bool:
    """Whether a variable of this name changes what is computed."""
    return name.upper().startswith(COMPUTING) or name.upper() == "NVIDIA_TF32_OVERRIDE"


def shown_devices(name: str, value: str | None) -> tuple[str, ...] | None:
    """The devices that the variable ``name`` shows by ``value``, in order; None where it hides none."""
    if value is None or not (value.strip() or name.upper() in EMPTY_HIDES):
        return None
    entries = (entry.strip() for entry in value.split(","))
    return tuple(takewhile(lambda entry: not _END_OF_DEVICES.fullmatch(entry), filter(None, entries)))


def effective(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of both groups, sorted by name; those that name a place or describe an image are left out."""
    found = {
        name: value
        for name, value in environment.items()
        if (is_computing(name) or name.upper().startswith(DEVICES) or name == ONLY_DEVICE)
        and not name.upper().startswith(IMAGE)
        and not name.upper().endswith(PLACES)
    }
    return dict(sorted(found.items()))
