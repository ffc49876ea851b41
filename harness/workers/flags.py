"""Whether a framework knows the flags that a target's definition gives it, asked of it before anything is run.

XLA reads its flags from the environment once, and ends the process at one that it does not know: without a word before
its first program, so in TensorFlow not before a function is compiled.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.workers.interpreters import clean_variables

VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS")

COMPILES = {
    "jax_flax": "import jax; jax.devices('cpu')",
    "tensorflow_keras": "import tensorflow as tf; tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()",
}
"""Backend -> the shortest program in which it reads them. It needs no device but the processor."""

SECONDS = 120.0
"""Of an answer that does not come in time nothing is known."""

_UNKNOWN = re.compile(r"Unknown flags? in (\w+): (.+)")
_UNREADABLE = re.compile(r"Couldn't interpret value (.*) for flag (\S+?)\.?$", re.MULTILINE)


def refused(python: Path, backend: str, variables: Mapping[str, str]) -> str:
    """What the backend's framework says against its flags, as the end of a sentence; empty if nothing."""
    if backend not in COMPILES or not any(variables.get(name) for name in VARIABLES):
        return ""
    try:
        done = subprocess.run(
            [str(python), "-c", COMPILES[backend]],
            env={**clean_variables(), **variables, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode == 0 else told(done.stderr)


def told(output: str) -> str:
    """What a process that ended says of its flags; empty if it ended for another reason."""
    if unknown := _UNKNOWN.search(output):
        return f"its framework does not know {unknown[2].strip()} in {unknown[1]}"
    if unreadable := _UNREADABLE.search(output):
        return f"its framework cannot read the value {unreadable[1]!r} of {unreadable[2]}"
    return ""
