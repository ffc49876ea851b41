"""How far rounding may move parameters and optimizer state from step to step, beside ``reference_optimizers``.

Variances, and the covariance of a parameter with its velocity or first moment, which carries an old error on into every
later step. In units of u squared, as ``reference_rounding`` has them; a rounding in float32 counts ``kept``.

A coefficient such as 1 - beta is off by float32's u itself where a framework finds it in float32, which is a large
share of 1 - beta_2; so is Adam's correction, which is made of such differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from backends.reference_optimizers import Optimizer, clipped_share
from backends.reference_rounding import FUNCTION_ROUNDINGS, ONE, Roundoff, Uncertain
from harness.core.training import DECOUPLED, L2, OptimizerSpec

if TYPE_CHECKING:
    from backends.protocol import Floats

    Named = dict[str, Floats]


class Drift:
    """Variances of parameters, moments and their covariance, by name; all exact at first."""

    def __init__(self, spec: OptimizerSpec, parameters: Mapping[str, Floats], roundoff: Roundoff) -> None:
        self._spec, self._kept = spec, ONE * roundoff.kept
        self._unit = roundoff.unit
        self.parameters = {name: np.zeros(value.shape) for name, value in parameters.items()}
        self.first = {name: np.zeros(value.shape) for name, value in parameters.items()}
        self.second = {name: np.zeros(value.shape) for name, value in parameters.items()}
        self._together = {name: np.zeros(value.shape) for name, value in parameters.items()}
        self.moved = False
        self._of_clipping = 0.0

    def known(self, name: str, value: Floats) -> Uncertain:
        """A parameter with its variance, if it has one yet."""
        return Uncertain(value, self.parameters[name].astype(np.float32) if self.moved else None)

    def state(self) -> dict[str, Floats]:
        """``SLOT/NAME`` -> variance, as ``Optimizer.state`` names them."""
        slots = {"sgd": {}, "adam": {"first": self.first, "second": self.second}}
        kept = slots.get(self._spec.name, {"velocity": self.first})
        return {f"{slot}/{name}": value for slot, arrays in kept.items() for name, value in arrays.items()}

    def shared(self, steps: int) -> float:
        """The deviation of all of step number ``steps``, relative to it, by its coefficients."""
        if self._spec.name != "adam":
            return math.sqrt(2 * self._kept + self._of_clipping)
        one_of_many = 1.0 / max(1.0 - self._spec.beta_2, 1e-9)
        return math.sqrt(self._of_correction(steps) + 3 * self._kept * one_of_many**2 / 4 + self._of_clipping)

    def trained(
        self, gradients: Mapping[str, Floats], trained: Mapping[str, Floats], variances: Mapping[str, Floats]
    ) -> dict[str, Floats]:
        """The variances of ``Optimizer.trained``, ``variances`` being those of the gradients before it.

        Clipping's share c / n is off by what moves the norm: dn / n = sum of g dg / n^2, and the rounding of the sum of
        squares, one parameter after the other, whose error relative to n is half of that relative to n^2. That error is
        shared by all. L2 adds the parameter's own.
        """
        share, spec = clipped_share(self._spec.clip_norm, gradients), self._spec
        found = dict(variances)
        if share < 1.0:
            squares = sum(float(np.sum(np.square(gradient))) for gradient in gradients.values())
            passed = sum(float(np.sum(np.square(gradients[name]) * variances[name])) for name in gradients)
            count = max(gradient.size for gradient in gradients.values()) + len(gradients)
            own = self._kept * (count / 4 + FUNCTION_ROUNDINGS**2)
            self._of_clipping = passed / squares**2 + own
            for name, variance in variances.items():
                found[name] = (
                    share**2 * variance + (self._of_clipping + 2 * self._kept) * (share * gradients[name]) ** 2
                )
        else:
            self._of_clipping = 0.0
        for name in found:
            if spec.decays(name, L2):
                added = 2 * self._kept * (trained[name] - share * gradients[name]) ** 2
                found[name] = found[name] + spec.weight_decay**2 * self.parameters[name] + added
                found[name] = found[name] + self._kept * trained[name] ** 2
        return found

    def _of_correction(self, steps: int) -> float:
        """The variance of Adam's correction, relative to its square."""
        one, two = self._spec.beta_1**steps, self._spec.beta_2**steps
        lost = FUNCTION_ROUNDINGS + steps
        return float(3 * self._kept * lost**2 * ((one / (1 - one)) ** 2 + (two / (1 - two) / 2) ** 2))

    def update(
        self,
        parameters: Mapping[str, Floats],
        optimizer: Optimizer,
        gradients: Mapping[str, Floats],
        variances: Mapping[str, Floats],
        rate: float,
    ) -> None:
        """Follow a step that ``optimizer`` has just taken to ``parameters`` by ``gradients`` of these variances.

        The gradients are those that it trained with (``Optimizer.trained``). Decay pulls errors towards zero as well;
        that they fade is left out.
        """
        state = optimizer.state()
        for name, parameter in parameters.items():
            gradient, variance = gradients[name], variances[name].astype(np.float64)
            if self._spec.name == "sgd":
                self.parameters[name] += rate**2 * variance + 2 * self._kept * (rate * gradient) ** 2
            elif self._spec.name == "adam":
                self._adam(name, state, gradient, variance, rate, optimizer.steps)
            else:
                self._momentum(name, state[f"velocity/{name}"], gradient, variance, rate)
            self.parameters[name] += self._kept * parameter**2
            if self._spec.decays(name, DECOUPLED):
                decay = self._spec.weight_decay * rate * parameter
                self.parameters[name] += self._kept * (parameter**2 + 3 * decay**2)
        self.moved = True

    def _momentum(self, name: str, velocity: Floats, gradient: Floats, variance: Floats, rate: float) -> None:
        """With e the error of rate g: v <- m v - e, and p <- p + v, or nesterov's p + m v - e."""
        m, kept = self._spec.momentum, self._kept
        old, together, step = self.first[name], self._together[name], rate * gradient
        entering = rate**2 * variance + 2 * kept * step**2
        entering += kept * (2 * (velocity + step) ** 2 + velocity**2)
        ahead = self._spec.name == "nesterov"
        share, whole = (m * m, 1 + m) if ahead else (m, 1.0)  # of the old velocity, and of e, in the parameter's step
        self.first[name] = m * m * old + entering
        self.parameters[name] += 2 * share * together + share**2 * old + whole**2 * entering
        if ahead:
            self.parameters[name] += kept * (2 * (m * velocity) ** 2 + step**2)
        self._together[name] = m * together + share * m * old + whole * entering

    def _adam(
        self, name: str, state: Mapping[str, Floats], gradient: Floats, variance: Floats, rate: float, steps: int
    ) -> None:
        """Step -c m / (sqrt(s) + epsilon) by its derivatives."""
        spec, kept = self._spec, self._kept
        first, second = state[f"first/{name}"], state[f"second/{name}"]
        one, two = 1.0 - spec.beta_1, 1.0 - spec.beta_2
        off = 3 * kept  # the square of float32's u: what a coefficient is off by
        self.first[name] = spec.beta_1**2 * self.first[name] + one**2 * variance
        before = first - one * gradient, second - two * gradient**2  # times beta
        self.first[name] += off * (gradient**2 + (before[0] / max(spec.beta_1, 1e-9)) ** 2) + kept * first**2
        self.second[name] = spec.beta_2**2 * self.second[name]
        self.second[name] += two**2 * (4 * gradient**2 * variance + 2 * variance**2 * self._unit**2)
        self.second[name] += off * (gradient**4 + (before[1] / max(spec.beta_2, 1e-9)) ** 2) + kept * second**2
        powers = spec.beta_1**steps, spec.beta_2**steps
        correction = math.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        root = np.sqrt(second)
        # No step is longer than this, so neither is what an error makes of one (Cauchy and Schwarz on m and s).
        fades = 1.0 - spec.beta_1**2 / spec.beta_2 if spec.beta_1**2 < spec.beta_2 else 0.0
        longest = rate * correction * one / math.sqrt(two * fades) if fades else math.inf
        most = 2 * longest / (self._unit * np.sqrt(self.first[name]) + 1e-300)
        slope = np.minimum(rate * correction / (root + spec.epsilon), most)
        # Near zero a square root moves by no more than the root of what is under it.
        of_root = self.second[name] / (4 * second + 2 * self._unit * np.sqrt(self.second[name]) + 1e-300)
        step = rate * correction / (root + spec.epsilon) * first
        self.parameters[name] += slope**2 * self.first[name] - 2 * slope * spec.beta_1 * self._together[name]
        self.parameters[name] += np.minimum((step / (root + spec.epsilon)) ** 2 * of_root, (longest / self._unit) ** 2)
        self.parameters[name] += (self._of_correction(steps) + 2 * kept * FUNCTION_ROUNDINGS**2) * step**2
        self._together[name] = spec.beta_1 * self._together[name] - slope * self.first[name]
