"""The reference with one mistake each in what a training may ask for beyond its optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import backends.reference as reference
from backends import reference_layers as layers
from backends import reference_optimizers
from backends.protocol import Capabilities
from backends.reference import ReferenceBackend
from harness.core.training import OptimizerSpec


class DecaysBiases(ReferenceBackend):
    """As Keras, optax and PyTorch do unless told otherwise; what batch normalisation scales and shifts by, too."""

    def load(self) -> None:
        right = OptimizerSpec.decays
        OptimizerSpec.decays = lambda self, name, form: right(self, "any/kernel", form)  # type: ignore[method-assign]


class AddsL2WhereDecoupled(ReferenceBackend):
    """What Adam with weight decay was before AdamW."""

    def load(self) -> None:
        right = OptimizerSpec.decays
        others = {"decoupled": "l2", "l2": "decoupled"}
        OptimizerSpec.decays = lambda self, name, form: right(self, name, others[form])  # type: ignore[method-assign]


class DecaysByTheMultiplierAlone(ReferenceBackend):
    """As the paper of AdamW writes it: without the rate."""

    def load(self) -> None:
        right = reference_optimizers.Optimizer.update

        def update(self: Any, parameters: Any, gradients: Any, rate: float) -> None:
            before = {name: value.copy() for name, value in parameters.items()}
            right(self, parameters, gradients, rate)
            for name, value in parameters.items():
                if self._spec.decays(name, "decoupled"):
                    value -= (1.0 - rate) * self._spec.weight_decay * before[name]

        reference_optimizers.Optimizer.update = update  # type: ignore[method-assign]


class ClipsEachParameter(ReferenceBackend):
    """``clipnorm`` of Keras, where ``global_clipnorm`` is meant."""

    def load(self) -> None:
        share = reference_optimizers.clipped_share

        def trained(self: Any, parameters: Any, gradients: Any) -> Any:
            return {name: share(self._spec.clip_norm, {name: one}) * one for name, one in gradients.items()}

        reference_optimizers.Optimizer.trained = trained  # type: ignore[method-assign]


class LabelsNotSmoothed(ReferenceBackend):
    def load(self) -> None:
        right = layers.cross_entropy
        layers.cross_entropy = lambda logits, labels, smoothing=0.0: right(logits, labels)


class WarmsUpAStepLate(ReferenceBackend):
    """From a rate of zero on."""

    def load(self) -> None:
        right = reference._rate_at
        reference._rate_at = lambda step, rates: right(step - 1, rates) if step else 0.0


class DecayEndsAStepEarly(ReferenceBackend):
    """As though the last step had what is left after it."""

    def load(self) -> None:
        right = reference._rate_at
        reference._rate_at = lambda step, rates: right(step + 1, rates)


class _DeclaresNothing(ReferenceBackend):
    """An adapter from before there was anything of the kind."""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), options=())
