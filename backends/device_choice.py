"""Which of the accelerators that a process sees is the target's: nothing is guessed, so none is taken by mistake.

Libraries number the devices that they see from 0. A variable such as ``CUDA_VISIBLE_DEVICES`` hides all
others before the process starts: a target's ``env`` sets it to the target's own device, and a cluster's
scheduler to those of the job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from harness.core.cell import Target
from harness.core.errors import WrongDevice
from harness.core.variables import ONLY_DEVICE


def index_of(device: int, variable: str) -> int:
    """The position of a target's ``device`` among those that the process sees.

    0 where it is known to be the only one: the harness has hidden the others and said so, or ``variable`` names that
    very device alone. Anywhere else a target's device counts among the visible.
    """
    only = os.environ.get(ONLY_DEVICE) == str(device) or os.environ.get(variable, "").strip() == str(device)
    return 0 if only else device


def require_visible(index: int, seen: int, device: int, variable: str) -> None:
    """Raise WrongDevice unless position ``index`` is one of the ``seen`` devices."""
    if index < seen:
        return
    value = os.environ.get(variable)
    setting = f"{variable} is not set" if value is None else f"{variable} is {value!r}"
    raise WrongDevice(f"asked for device {device}, but {seen} can be seen ({setting}; devices count from 0)")


def require_enough(target: Target, seen: int) -> None:
    """Raise WrongDevice unless as many devices are ``seen`` as the target asks for."""
    if target.devices > seen:
        raise WrongDevice(f"asked for {target.devices} devices ({target.accelerator}), but {seen} can be seen")


def together(target: Target, names: Sequence[str], collective: str) -> dict[str, Any]:
    """Facts for the record of a target that trains on several devices; none of another.

    ``replica_devices``: the framework's name of each replica's device. ``collective``: what adds up over them.
    ``logical_devices``: whether they share the same processors.
    """
    if target.devices == 1:
        return {}
    return {
        "replica_devices": list(names),
        "collective": collective,
        "logical_devices": target.shares_processors,
    }
