"""Knobs: what a backend can do in more than one way, to the same result, as data.

A backend declares its own in ``Capabilities.knobs``. Those of the project's backends stand here, so that a target that
asks for something else is refused before anything is started. A target's definition sets them in its table
``[options]``, a person beside its name: ``jax-cpu:jit@pool_gradient=first_maximum``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.core.errors import Unsupported


@dataclass(frozen=True)
class Knob:
    """One choice. ``values`` has the default first, which is what a framework does unasked; ``meaning`` is a line."""

    name: str
    values: tuple[str, ...]
    meaning: str

    @property
    def default(self) -> str:
        """What is done where nothing is asked for."""
        return self.values[0]


ROLLED, UNROLLED = "rolled", "unrolled"
LOOP = Knob(
    "loop",
    (ROLLED, UNROLLED),
    "with several steps per call: a loop in the program, or the steps written out one after the other",
)

SELECT_AND_SCATTER, FIRST_MAXIMUM = "select_and_scatter", "first_maximum"
POOL_GRADIENT = Knob(
    "pool_gradient",
    (SELECT_AND_SCATTER, FIRST_MAXIMUM),
    "the gradient of max-pools whose windows do not overlap: JAX's own, or one that looks for each window's first "
    "maximum",
)

TRANSPOSED, CANONICAL = "transposed", "canonical"
CONVOLUTION_GRADIENT = Knob(
    "convolution_gradient",
    (TRANSPOSED, CANONICAL),
    "the gradients of convolutions: JAX's own, or the same written as convolutions in NHWC and HWIO, which XLA "
    "compiles well inside loops too",
)

OF_BACKENDS: dict[str, tuple[Knob, ...]] = {
    "jax_flax": (LOOP, POOL_GRADIENT, CONVOLUTION_GRADIENT),
    "tensorflow_keras": (LOOP,),
    "reference": (),
}
"""Backend -> its knobs. Of a backend that is not in it nothing is known before it is asked."""

ONEDNN = Knob(
    "TF_ENABLE_ONEDNN_OPTS",
    ("", "1", "0"),
    "whether TensorFlow computes with oneDNN; unasked it does so only on processors with AVX-512 and the like",
)
YNNPACK_FUSION = Knob(
    "XLA_FLAGS",
    ("", "--xla_cpu_experimental_ynn_fusion_type="),
    "whether XLA gives products, convolutions and reductions on processors to YNNPACK; unasked it does",
)
VARIABLES: dict[tuple[str, str], tuple[Knob, ...]] = {
    ("tensorflow_keras", "cpu"): (ONEDNN,),
    ("jax_flax", "cpu"): (YNNPACK_FUSION,),
}
"""Backend and accelerator -> environment variables that change how it computes, and not what. Empty: not set."""


def problem(name: str, value: str, knobs: Iterable[Knob]) -> str:
    """Why a value cannot be asked for, as the end of a sentence; empty if it can."""
    known = {knob.name: knob for knob in knobs}
    if name not in known:
        return f"unknown key {name!r}; allowed: {', '.join(known) or 'none'}"
    if value not in known[name].values:
        return f"{name}: found {value!r}, allowed: {', '.join(known[name].values)}"
    return ""


def chosen(options: Mapping[str, str], knobs: Iterable[Knob]) -> dict[str, str]:
    """The value of every knob. Raises Unsupported for an option that is none, or that has no such value."""
    declared = tuple(knobs)
    for name, value in options.items():
        why = problem(name, value, declared)
        if why:
            raise Unsupported(f"options of the target: {why}")
    return {knob.name: options.get(knob.name, knob.default) for knob in declared}
