"""Training steps again from a given state, with the standard deviation of what rounding does to every number.

``_Following`` is the arithmetic of a pass that carries a variance beside each value (``reference_rounding``); from
step to step ``reference_drift`` carries those of parameters and optimizer on.
"""

from __future__ import annotations

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
    """What ``exact`` computes, with a variance beside each value."""

    def __init__(
        self,
        exact: passes.Arithmetic,
        parameters: Mapping[str, Uncertain],
        terms: Mapping[str, int],
        roundoff: Roundoff,
    ) -> None:
        self._exact, self._parameters, self._terms, self._roundoff = exact, parameters, terms, roundoff

    def apply(self, name: str, layer: Layer, value: passes.Value, drawn: passes.Drawn | None) -> passes.Applied:
        """One primitive layer."""
        values, variance = value
        (output,), exactly_back, moments = self._exact.apply(name, layer, (values,), drawn)
        if isinstance(layer, BatchNorm):
            return self._normalise(name, layer, value, output, exactly_back, moments)
        found, follow_back = self._follow(name, layer, np.asarray(values, np.float64), variance, output, drawn)

        def back(gradient: passes.Value, *inward: bool) -> tuple[passes.Value, dict[str, passes.Value]]:
            slopes, uncertain = gradient
            (by_values,), by_parameter = exactly_back((slopes,), *inward)
            by_variance, of_parameters = follow_back(slopes, uncertain, by_values)
            both = {key: (array, of_parameters[key]) for key, (array,) in by_parameter.items()}
            return (by_values, by_variance), both

        return (output, found), back, moments

    def loss(self, logits: passes.Value, labels: Integers, batch_size: int) -> tuple[passes.Value, passes.Value]:
        """Each example's loss, and the gradient by the logits."""
        (losses,), (gradient,) = self._exact.loss(logits[:1], labels, batch_size)
        of_losses, of_gradient = rounding.cross_entropy(logits[0], logits[1], labels, gradient, self._roundoff)
        return (losses, of_losses), (gradient, of_gradient)

    def _follow(
        self, name: str, layer: Layer, values: Any, variance: Any, output: Any, drawn: passes.Drawn | None
    ) -> Any:
        if isinstance(layer, (Conv2D, Dense)):
            kernel, bias = self._parameters[f"{name}/kernel"], self._parameters.get(f"{name}/bias")
            kind: layers.Convolution | layers.MatrixProduct = layers.MatrixProduct()
            if isinstance(layer, Conv2D):
                kind = layers.convolution(values, kernel.value, layer.strides, layer.padding)
            terms = self._terms[name]
            return rounding.product(kind, values, variance, kernel, bias, output, terms, self._roundoff)
        if isinstance(layer, MaxPool):
            window = layer.pool, pair_strides(layer), layer.padding
            return rounding.max_pool(values, variance, output, *window, self._roundoff)
        if isinstance(layer, AveragePool):
            return rounding.average_pool(values, variance, output, layer.pool, pair_strides(layer), layer.padding)
        if isinstance(layer, GlobalAveragePool):
            return rounding.global_average_pool(values, variance, output)
        if isinstance(layer, Activation) and layer.function == "relu":
            return rounding.relu(values, variance, self._roundoff)
        if isinstance(layer, Activation) and layer.function != "linear":
            return rounding.smooth(layer.function, variance, output, self._roundoff)
        if isinstance(layer, Dropout) and drawn is not None:
            return rounding.scaled(variance, output, (drawn.random(values.shape) >= layer.rate) / (1.0 - layer.rate))
        before = values.shape
        after = variance if variance is None else variance.reshape(output.shape)
        return after, lambda gradient, uncertain, by_values: (uncertain.reshape(before), {})

    def _normalise(
        self,
        name: str,
        layer: BatchNorm,
        value: passes.Value,
        output: Any,
        exactly_back: Callable[..., Any],
        moments: Mapping[str, Any],
    ) -> passes.Applied:
        found, follow_back, of_moments = rounding.batch_norm(
            np.asarray(value[0], np.float64),
            value[1],
            self._parameters[f"{name}/scale"],
            self._parameters[f"{name}/offset"],
            (moments["mean"], moments["variance"]),
            layer.epsilon,
            output,
            self._roundoff,
        )

        def back(gradient: passes.Value, *inward: bool) -> tuple[passes.Value, dict[str, passes.Value]]:
            (by_values,), by_parameter = exactly_back(gradient[:1])
            plain = {key: array for key, (array,) in by_parameter.items()}
            by_variance, of_parameters = follow_back(*gradient, by_values, plain)
            return (by_values, by_variance), {key: (array, of_parameters[key]) for key, array in plain.items()}

        both = {key: (array, of_moments[key]) for key, array in moments.items()}
        return (output, found), back, both


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
    a pass at these parameters, each batch normalisation's moments being off by its shifts.
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
    ) -> None:
        self._model, self._exact, self._roundoff = model, exact, Roundoff(roundoff)
        self._parameters, self._statistics, self._optimizer = parameters, statistics, optimizer
        self._terms = batch_terms(model, training.batch_size)
        self._drift = Drift(training.optimizer, parameters, self._roundoff)
        self._of_statistics = {name: np.zeros(value.shape) for name, value in statistics.items()}
        self._losses: list[tuple[float, float]] = []
        self._generator = np.random.default_rng(0)

    def step(self, images: Floats, labels: Integers, numbers: Named, rate: float) -> dict[str, passes.Value]:
        """One step; what its batch gives at the parameters before it: each value with its variance."""
        known = {name: self._drift.known(name, value) for name, value in self._parameters.items()}
        following = Following(self._exact(self._parameters), known, self._terms, self._roundoff)
        found = passes.differentiate(self._model, following, (images, None), labels, numbers)
        gradients = {name: found.gradients[name][0] for name in self._parameters}
        variances = {name: self._of_gradient(name, *found.gradients[name]) for name in self._parameters}
        mean, of_loss = self._loss(*found.losses)
        moments = found.moments
        if self._shares_errors():
            of_loss += self._of_shared(gradients, moments)
            moments = self._rehearse(images, labels, numbers, found, gradients, variances)
        loss = mean, of_loss
        self._losses.append(loss)
        self._optimizer.update(self._parameters, gradients, rate)
        self._drift.update(self._parameters, self._optimizer, gradients, variances, rate)
        for trace in self._model.traced:
            if isinstance(trace.layer, BatchNorm):
                for key, moment in moments[trace.name].items():
                    self._move(f"{trace.name}/moving_{key}", trace.layer.momentum, *moment)
        return {
            "logits": found.logits,
            "loss": loss,
            **{f"gradient/{name}": (array, variances[name]) for name, array in gradients.items()},
        }

    def _shares_errors(self) -> bool:
        """Whether all rows of a batch share errors: those of parameters, or of a batch's moments."""
        normalises = any(isinstance(trace.layer, BatchNorm) for trace in self._model.traced)
        return normalises or self._roundoff.narrow or self._drift.moved

    def _rehearse(
        self,
        images: Floats,
        labels: Integers,
        numbers: Named,
        found: passes.Differentiated,
        gradients: Named,
        variances: Named,
    ) -> dict[str, dict[str, passes.Value]]:
        """Widen ``variances`` by what shared errors do to the gradients; the batch's moments, widened likewise.

        The batch is differentiated once more, at parameters and moments that are off as rounding may put them.
        """
        unit, normal = self._roundoff.unit, self._generator.standard_normal
        parameters = {
            name: value + unit * np.sqrt(self._of_parameter(name)) * normal(value.shape)
            for name, value in self._parameters.items()
        }
        shifts = {
            name: {key: unit * np.sqrt(variance) * normal(variance.shape) for key, (_, variance) in moments.items()}
            for name, moments in found.moments.items()
        }
        again = passes.differentiate(self._model, self._exact(parameters, shifts), (images,), labels, numbers)
        for name, gradient in gradients.items():
            variances[name] = rounding.widened(variances[name], (again.gradients[name][0] - gradient) / unit)
        return {
            name: {
                key: (moment, rounding.widened(variance, (again.moments[name][key] - moment) / unit))
                for key, (moment, variance) in moments.items()
            }
            for name, moments in found.moments.items()
        }

    def _of_parameter(self, name: str) -> Floats:
        """The variance with which a parameter is used."""
        variance = self._drift.parameters[name]
        return variance + ONE * self._parameters[name] ** 2 if self._roundoff.narrow else variance

    def _of_shared(self, gradients: Named, moments: Mapping[str, Mapping[str, passes.Value]]) -> float:
        """The variance that shared errors give the loss, by its derivatives."""
        total = sum(float(np.sum(gradients[name] ** 2 * self._of_parameter(name))) for name in self._parameters)
        for trace in self._model.traced:
            if isinstance(trace.layer, BatchNorm):
                (_, of_mean), (spread, of_spread) = moments[trace.name]["mean"], moments[trace.name]["variance"]
                scale, inverse = self._parameters[f"{trace.name}/scale"], 1 / np.sqrt(spread + trace.layer.epsilon)
                by_mean = scale * inverse * gradients[f"{trace.name}/offset"]
                by_spread = scale * inverse**2 * gradients[f"{trace.name}/scale"] / 2
                total += float(np.sum(by_mean**2 * of_mean + by_spread**2 * of_spread))
        return total

    def results(self) -> dict[str, passes.Value]:
        """Losses and the state after the steps so far: each value with its variance."""
        state, drift = self._optimizer.state(), self._drift.state()
        return {
            "losses": tuple(np.array(self._losses).reshape(-1, 2).T),
            **{f"parameter/{name}": (array, self._drift.parameters[name]) for name, array in self._parameters.items()},
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
        return rounding.summed(gradient, variance, self._terms[layer]) if layer in self._terms else variance

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
