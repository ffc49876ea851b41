"""The optimizers of ``harness.core.training`` in NumPy float64, as its docstring writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.core.training import DECOUPLED, L2, OptimizerSpec

if TYPE_CHECKING:
    from backends.protocol import Floats


class Optimizer:
    """An optimizer with its state: a velocity or first moment, and a second moment, per parameter, from zero."""

    def __init__(self, spec: OptimizerSpec, parameters: Mapping[str, Floats]) -> None:
        """``parameters``: full name -> float64 array, whose shapes the state takes."""
        self._spec = spec
        self._steps = 0
        self._first = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._second = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, parameters: Mapping[str, Floats], gradients: Mapping[str, Floats], rate: float) -> None:
        """Take one step: change every parameter in place by its gradient at learning rate ``rate``."""
        self._steps += 1
        trained = self.trained(parameters, gradients)
        for name, parameter in parameters.items():
            decay = self._spec.weight_decay * rate * parameter if self._spec.decays(name, DECOUPLED) else 0.0
            parameter += self._change(name, trained[name], rate) - decay

    def trained(self, parameters: Mapping[str, Floats], gradients: Mapping[str, Floats]) -> dict[str, Floats]:
        """The gradients as a step takes them: clipped, and with what L2 adds."""
        spec = self._spec
        share = clipped_share(spec.clip_norm, gradients)
        found = {name: gradient if share == 1.0 else share * gradient for name, gradient in gradients.items()}
        for name in found:
            if spec.decays(name, L2):
                found[name] = found[name] + spec.weight_decay * parameters[name]
        return found

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self._steps

    def state(self) -> dict[str, Floats]:
        """``SLOT/NAME`` -> copy of the array (``backends.protocol.Witnessed``)."""
        slots = {"sgd": {}, "adam": {"first": self._first, "second": self._second}}
        kept = slots.get(self._spec.name, {"velocity": self._first})
        return {f"{slot}/{name}": value.copy() for slot, arrays in kept.items() for name, value in arrays.items()}

    def restore(self, state: Mapping[str, Floats], steps: int) -> None:
        """Go on from a state as ``state`` gives it, after ``steps`` updates."""
        self._steps = steps
        for slot, kept in (("velocity", self._first), ("first", self._first), ("second", self._second)):
            for name in kept:
                if f"{slot}/{name}" in state:
                    kept[name] = np.array(state[f"{slot}/{name}"], np.float64)

    def _change(self, name: str, gradient: Floats, rate: float) -> Floats:
        spec = self._spec
        if spec.name == "sgd":
            return -rate * gradient
        if spec.name == "adam":
            first = self._first[name] = spec.beta_1 * self._first[name] + (1.0 - spec.beta_1) * gradient
            second = self._second[name] = spec.beta_2 * self._second[name] + (1.0 - spec.beta_2) * gradient**2
            correction = math.sqrt(1.0 - spec.beta_2**self._steps) / (1.0 - spec.beta_1**self._steps)
            return -rate * correction * first / (np.sqrt(second) + spec.epsilon)
        velocity = self._first[name] = spec.momentum * self._first[name] - rate * gradient
        return velocity if spec.name == "momentum" else spec.momentum * velocity - rate * gradient


def clipped_share(clip_norm: float, gradients: Mapping[str, Floats]) -> float:
    """What clipping leaves of the gradients; 1 where they are short enough, or are not clipped at all."""
    if not clip_norm:
        return 1.0
    norm = math.sqrt(sum(float(np.sum(np.square(gradient))) for gradient in gradients.values()))
    return clip_norm / norm if norm > clip_norm else 1.0
