"""Training steps again from a given state, with the standard deviation of what rounding does to every number.

``_Following`` is the arithmetic of a pass that carries a variance beside each value (``reference_rounding``); from
step to step ``reference_drift`` carries those of parameters and optimizer on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import reference_layers as layers
from backends import reference_passes as passes
from backends import reference_rounding as rounding
from backends.reference_drift import Drift
from backends.reference_optimizers import Optimizer
from backends.reference_rounding import ONE, Roundoff, Uncertain
from harness.core.model import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePool,
    Layer,
    MaxPool,
    ModelSpec,
    pair_strides,
)
from harness.core.training import TrainingSpec

if TYPE_CHECKING:
    from backends.protocol import Floats, Integers

    Named = dict[str, Any]


UNBOUNDED = 1e30
"""In place of a deviation beyond all numbers: of what rounding alone decides nothing can be said."""


class Following:
    """What ``exact`` computes, with a variance beside each value, and what the rehearsal has in its place.

    ``rehearsal``: its arithmetic; None without one, and then the third of each value is None. ``shifts``: what it moves
    a batch normalisation's moments by, which is filled in here.
    """

    def __init__(
        self,
        exact: passes.Arithmetic,
        parameters: Mapping[str, Uncertain],
        terms: Mapping[str, int],
        roundoff: Roundoff,
        rehearsal: passes.Arithmetic | None,
        shifts: Named,
        smoothing: float = 0.0,
    ) -> None:
        self._smoothing = smoothing
        self._exact, self._parameters, self._terms, self._roundoff = exact, parameters, terms, roundoff
        self._rehearsal, self._shifts = rehearsal, shifts

    def apply(self, name: str, layer: Layer, value: passes.Value, drawn: passes.Drawn | None) -> passes.Applied:
        """One primitive layer."""
        values, variance, rehearsed = value
        (output,), exactly_back, moments = self._exact.apply(name, layer, (values,), drawn)
        values = np.asarray(values, np.float64)
        if isinstance(layer, BatchNorm):
            found, follow_back, of_moments = self._normalise(name, layer, values, variance, output, moments)
        else:
            found, follow_back, rehearsed = self._follow(name, layer, values, variance, rehearsed, output, drawn)
            of_moments = {}
        again, rehearse_back = None, None
        moved: Mapping[str, Any] = {}
        if self._rehearsal is not None:
            (again,), rehearse_back, moved = self._rehearsal.apply(name, layer, (rehearsed,), drawn)

        def back(gradient: passes.Value, *inward: bool) -> tuple[passes.Value, dict[str, passes.Value]]:
            slopes, uncertain, others = gradient
            if self._roundoff.tiny:
                uncertain = uncertain + np.float32(self._roundoff.tiny)
            (by_values,), exactly = exactly_back((slopes,), *inward)
            plain = {key: array for key, (array,) in exactly.items()}
            further = (plain,) if isinstance(layer, BatchNorm) else ()
            by_variance, of_parameters = follow_back(slopes, uncertain, by_values, *further)
            by_others = None
            by_moved: Mapping[str, Any] = {}
            if rehearse_back is not None:
                (by_others,), by_moved = rehearse_back((others,), *inward)
            both = {key: (array, of_parameters[key], *by_moved.get(key, (None,))) for key, array in plain.items()}
            return (by_values, by_variance, by_others), both

        both = {key: (moment, of_moments[key], moved.get(key)) for key, moment in moments.items()}
        return (output, found, again), back, both

    def loss(self, logits: passes.Value, labels: Integers, batch_size: int) -> tuple[passes.Value, passes.Value]:
        """Each example's loss, and the gradient by the logits."""
        (losses,), (gradient,) = self._exact.loss(logits[:1], labels, batch_size)
        of_losses, of_gradient = rounding.cross_entropy(
            logits[0], logits[1], labels, gradient, self._roundoff, self._smoothing
        )
        again = None
        if self._rehearsal is not None:
            (again,) = self._rehearsal.loss(logits[2:], labels, batch_size)[1]
        return (losses, of_losses), (gradient, of_gradient, again)

    def _follow(
        self,
        name: str,
        layer: Layer,
        values: Any,
        variance: Any,
        rehearsed: Any,
        output: Any,
        drawn: passes.Drawn | None,
    ) -> tuple[Any, Any, Any]:
        """The variance of the output, its way back, and the rehearsal's input."""
        if isinstance(layer, MaxPool):
            window = layer.pool, pair_strides(layer), layer.padding
            return rounding.max_pool(values, variance, rehearsed, output, *window, self._roundoff)
        if isinstance(layer, Activation) and layer.function == "relu":
            return rounding.relu(values, variance, rehearsed, self._roundoff)
        return *self._smoothly(name, layer, values, variance, output, drawn), rehearsed

    def _smoothly(
        self, name: str, layer: Layer, values: Any, variance: Any, output: Any, drawn: passes.Drawn | None
    ) -> Any:
        """A layer without branches."""
        if isinstance(layer, (Conv2D, Dense)):
            kernel, bias = self._parameters[f"{name}/kernel"], self._parameters.get(f"{name}/bias")
            kind: layers.Convolution | layers.MatrixProduct = layers.MatrixProduct()
            if isinstance(layer, Conv2D):
                kind = layers.convolution(values, kernel.value, layer.strides, layer.padding)
            terms = self._terms[name]
            return rounding.product(kind, values, variance, kernel, bias, output, terms, self._roundoff)
        if isinstance(layer, AveragePool):
            return rounding.average_pool(values, variance, output, layer.pool, pair_strides(layer), layer.padding)
        if isinstance(layer, GlobalAveragePool):
            return rounding.global_average_pool(values, variance, output)
        if isinstance(layer, Activation) and layer.function != "linear":
            return rounding.smooth(layer.function, variance, output, self._roundoff)
        if isinstance(layer, Dropout) and drawn is not None:
            return rounding.scaled(variance, output, (drawn.random(values.shape) >= layer.rate) / (1.0 - layer.rate))
        before = values.shape
        after = variance if variance is None else variance.reshape(output.shape)
        return after, lambda gradient, uncertain, by_values: (uncertain.reshape(before), {})

    def _normalise(
        self, name: str, layer: BatchNorm, values: Any, variance: Any, output: Any, moments: Mapping[str, Any]
    ) -> Any:
        found, back, of_moments = rounding.batch_norm(
            values,
            variance,
            self._parameters[f"{name}/scale"],
            self._parameters[f"{name}/offset"],
            (moments["mean"], moments["variance"]),
            layer.epsilon,
            output,
            self._roundoff,
        )
        normal = np.random.default_rng(len(self._shifts)).standard_normal
        self._shifts[name] = {
            key: self._roundoff.unit * np.sqrt(of_moment) * normal(of_moment.shape)
            for key, of_moment in of_moments.items()
        }
        return found, back, of_moments


def batch_terms(model: ModelSpec, batch: int) -> dict[str, int]:
    """Layer name -> how many products the gradient of one of its weights adds up, for convolutions and products."""
    return {
        trace.name: batch * math.prod(trace.output_shape[:-1])
        for trace in model.traced
        if isinstance(trace.layer, (Conv2D, Dense))
    }


class Follower:
    """A training that goes on from a given state, followed from step to step.

    ``parameters``, ``statistics`` and ``optimizer`` are changed by it. ``exact(parameters, shifts)``: the arithmetic of
    a pass at these parameters, each batch normalisation's moments being off by its shifts. ``several``: whether more
    than one step is to follow; one alone shares no errors, unless something in it does.
    """

    def __init__(
        self,
        model: ModelSpec,
        training: TrainingSpec,
        exact: Callable[..., passes.Arithmetic],
        parameters: Named,
        statistics: Named,
        optimizer: Optimizer,
        roundoff: float,
        several: bool,
    ) -> None:
        self._model, self._exact, self._roundoff = model, exact, Roundoff(roundoff)
        normalises = any(isinstance(trace.layer, BatchNorm) for trace in model.traced)
        self._rehearses = several or normalises or self._roundoff.narrow
        self._others = {name: value.copy() for name, value in parameters.items()}
        self._again = copy.deepcopy(optimizer)
        self._parameters, self._statistics, self._optimizer = parameters, statistics, optimizer
        self._terms: dict[str, int] = {}
        self._smoothing = training.label_smoothing
        self._drift = Drift(training.optimizer, parameters, self._roundoff)
        self._of_statistics = {name: np.zeros(value.shape) for name, value in statistics.items()}
        self._losses: list[tuple[float, float]] = []
        self._generator = np.random.default_rng(0)

    def step(self, images: Floats, labels: Integers, numbers: Named, rate: float) -> dict[str, passes.Value]:
        """One step; what its batch gives at the parameters before it: each value with its variance."""
        self._terms = batch_terms(self._model, len(labels))
        known = {name: self._drift.known(name, value) for name, value in self._parameters.items()}
        shifts: Named = {}
        rehearsal = self._exact(self._off(), shifts) if self._rehearses else None
        following = Following(
            self._exact(self._parameters), known, self._terms, self._roundoff, rehearsal, shifts, self._smoothing
        )
        value = images, None, images if self._rehearses else None
        found = passes.differentiate(self._model, following, value, labels, numbers)
        gradients = {name: found.gradients[name][0] for name in self._parameters}
        own = {name: self._of_gradient(name, *found.gradients[name][:2]) for name in self._parameters}
        mean, of_loss = self._loss(*found.losses)
        loss = mean, of_loss + self._of_shared(gradients, found.moments)
        self._losses.append(loss)
        variances = {name: self._widened(own[name], *found.gradients[name][::2]) for name in self._parameters}
        trained = self._optimizer.trained(self._parameters, gradients)
        of_trained = self._drift.trained(gradients, trained, variances)
        self._optimizer.update(self._parameters, gradients, rate)
        self._drift.update(self._parameters, self._optimizer, trained, of_trained, rate)
        if self._rehearses:
            self._rehearse({name: found.gradients[name][2] for name in self._parameters}, own, rate)
        for trace in self._model.traced:
            if isinstance(trace.layer, BatchNorm):
                for key, (moment, variance, again) in found.moments[trace.name].items():
                    full = f"{trace.name}/moving_{key}"
                    self._move(full, trace.layer.momentum, moment, self._widened(variance, moment, again))
        return {
            "logits": found.logits[:2],
            "loss": loss,
            **{f"gradient/{name}": (array, variances[name]) for name, array in gradients.items()},
        }

    def _off(self) -> Named:
        """The rehearsal's parameters, as they are used: rounded once more where products are narrower than they."""
        if not self._roundoff.narrow:
            return self._others
        spread = self._roundoff.unit * math.sqrt(ONE)
        return {name: value + spread * self._normal(value) * value for name, value in self._others.items()}

    def _rehearse(self, gradients: Named, variances: Named, rate: float) -> None:
        """The rehearsal's step, with what rounding may do to each gradient and parameter."""
        unit, kept = self._roundoff.unit, self._roundoff.unit * math.sqrt(ONE * self._roundoff.kept)
        before = {name: value.copy() for name, value in self._others.items()}
        off = {name: value + unit * np.sqrt(variances[name]) * self._normal(value) for name, value in gradients.items()}
        self._again.update(self._others, off, rate)
        longer = unit * self._drift.shared(self._again.steps) * float(self._generator.choice([-1.0, 1.0]))
        for name, value in self._others.items():
            value += longer * (value - before[name]) + kept * value * self._normal(value)

    def _normal(self, like: Floats) -> Floats:
        return self._generator.standard_normal(like.shape)

    def _widened(self, variance: Any, value: Any, rehearsed: Any, contained: float = 0.0) -> Any:
        """A variance with what shared errors add to the value."""
        if rehearsed is None:
            return variance
        return rounding.widened(variance, (rehearsed - value) / self._roundoff.unit, contained)

    def _of_result(self, name: str) -> Any:
        variance = self._drift.parameters[name]
        return self._widened(variance, self._parameters[name], self._others[name], 1.0) if self._rehearses else variance

    def _of_parameter(self, name: str) -> Floats:
        """The variance with which a parameter is used."""
        variance = self._drift.parameters[name]
        return variance + ONE * self._parameters[name] ** 2 if self._roundoff.narrow else variance

    def _of_shared(self, gradients: Named, moments: Mapping[str, Mapping[str, passes.Value]]) -> float:
        """The variance that shared errors give the loss, by its derivatives."""
        total = sum(float(np.sum(gradients[name] ** 2 * self._of_parameter(name))) for name in self._parameters)
        for trace in self._model.traced:
            if isinstance(trace.layer, BatchNorm):
                (_, of_mean, _), (spread, of_spread, _) = (moments[trace.name][key] for key in ("mean", "variance"))
                scale, inverse = self._parameters[f"{trace.name}/scale"], 1 / np.sqrt(spread + trace.layer.epsilon)
                by_mean = scale * inverse * gradients[f"{trace.name}/offset"]
                by_spread = scale * inverse**2 * gradients[f"{trace.name}/scale"] / 2
                total += float(np.sum(by_mean**2 * of_mean + by_spread**2 * of_spread))
        return total

    def results(self) -> dict[str, passes.Value]:
        """Losses and the state after the steps so far: each value with its variance."""
        state, drift = self._optimizer.state(), self._drift.state()
        if self._rehearses:
            again = self._again.state()
            drift = {name: self._widened(variance, state[name], again[name], 1.0) for name, variance in drift.items()}
        return {
            "losses": tuple(np.array(self._losses).reshape(-1, 2).T),
            **{f"parameter/{name}": (array, self._of_result(name)) for name, array in self._parameters.items()},
            **{f"statistic/{name}": (array, self._of_statistics[name]) for name, array in self._statistics.items()},
            **{f"optimizer/{name}": (array, drift[name]) for name, array in state.items()},
        }

    def named(self, results: Mapping[str, passes.Value]) -> Named:
        """As the answer's file has them: each array, and under ``deviation/KEY`` its standard deviation."""
        named: Named = {}
        for key, (array, variance) in results.items():
            named[key] = np.asarray(array)
            deviation = self._roundoff.unit * np.sqrt(np.asarray(variance, np.float64))
            named[f"deviation/{key}"] = np.nan_to_num(deviation, nan=UNBOUNDED, posinf=UNBOUNDED)
        return named

    def _of_gradient(self, name: str, gradient: Floats, variance: Floats) -> Floats:
        layer = name.rpartition("/")[0]
        if layer not in self._terms:
            return variance
        terms = self._terms[layer]
        return rounding.summed(gradient, variance, terms) + self._roundoff.tiny * terms

    def _loss(self, losses: Floats, variances: Floats) -> tuple[float, float]:
        """Of the batch's mean loss."""
        count, mean = len(losses), float(losses.mean())
        own = rounding.accumulated(mean, float(rounding.square(losses).mean()) / count, count) + ONE * mean**2
        return mean, float(variances.mean(dtype=np.float64)) / count + self._roundoff.kept * float(own)

    def _move(self, name: str, momentum: float, moment: Floats, variance: Floats) -> None:
        """A moving statistic. The square of what momentum and one less momentum are off by, in float32, is ``off``."""
        old, off = self._statistics[name], self._roundoff.kept
        new = self._statistics[name] = momentum * old + (1.0 - momentum) * moment
        moved = momentum**2 * self._of_statistics[name] + (1.0 - momentum) ** 2 * variance
        self._of_statistics[name] = moved + off * (old**2 + moment**2 + ONE * new**2)
