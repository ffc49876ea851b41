"""The project's JAX and TensorFlow on one device through the code of several: for ``benchmarks/parallel.py`` alone.

A target with one device is trained by the plain code; these backends train it by that of several devices.
"""

from __future__ import annotations

from typing import Any

from backends.jax_devices import Spread
from backends.jax_flax import JaxBackend
from backends.tensorflow_keras import TensorFlowBackend
from backends.tensorflow_replicas import Replicas
from harness.core.cell import Target


class OnJax(JaxBackend):
    """A mesh of one device."""

    def spread(self, target: Target) -> Spread:
        """Always one."""
        return Spread(target.devices)


class OnTensorFlow(TensorFlowBackend):
    """A strategy of one replica."""

    def initialise(self, target: Target) -> dict[str, Any]:
        """Always a strategy."""
        facts = super().initialise(target)
        self.replicas = Replicas(["/CPU:0"])
        return facts
