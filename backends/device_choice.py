"""Which of the accelerators that a process sees is the target's: nothing is guessed, so none is taken by mistake.

Libraries number the devices that they see from 0. A variable such as ``CUDA_VISIBLE_DEVICES`` hides all
others before the process starts: a target's ``env`` sets it to the target's own device, and a cluster's
scheduler to those of the job.
"""

from __future__ import annotations

import os

from harness.core.errors import WrongDevice


def index_of(device: int, variable: str) -> int:
    """The position of a target's ``device`` among those that the process sees.

    0 where ``variable`` names that very device alone; anywhere else a target's device counts among the visible.
    """
    return 0 if os.environ.get(variable, "").strip() == str(device) else device


def require_visible(index: int, seen: int, device: int, variable: str) -> None:
    """Raise WrongDevice unless position ``index`` is one of the ``seen`` devices."""
    if index < seen:
        return
    value = os.environ.get(variable)
    setting = f"{variable} is not set" if value is None else f"{variable} is {value!r}"
    raise WrongDevice(f"asked for device {device}, but {seen} can be seen ({setting}; devices count from 0)")
