"""What is compared to prove that a target does the reference's work; ``tolerances`` says how far apart the two may be.

Pure: it makes probe cells and arrays, and turns two sides' arrays into a ``Proof``. Running the probes
is ``harness.proof.verifier``'s affair.

Probe of a model and optimizer: dropout rates at zero, random images, two epochs of two steps of four images,
with the learning rate dropping between the epochs (which tells how momentum treats it). Compared are
logits, loss and every gradient at the initial parameters, then each step's loss, and after all steps every parameter,
moving statistic and evaluation logit, and loss and accuracy over a test set that fills no whole number of batches.

The probe is well conditioned, so that its tolerances can be tight. A value within rounding of ReLU's kink, or of its
neighbour in a pool's window, would send a gradient another way and end in errors of 1e-1; so of several draws
of images that one is taken on which the reference stays farthest from such branches. And Adam divides
each gradient by its own size, which turns those that are all rounding into steps that are all
rounding; so its epsilon is ``PROBE_EPSILON``, at which the place of epsilon in the formula shows more, not less.

An error is the largest absolute difference in an array relative to the largest absolute value of the
reference's array; for parameters, the largest difference relative to the largest change that training made, which
is much stricter. In mixed precisions, root mean squares stand in place of largest values (``tolerances`` says why), and
logits that are closer to the reference than rounding can leave them fail as well: a target that rounds less than it
claims does other work. Arrays much smaller than the largest of their kind are measured against ``SMALLEST_SCALE`` of
that; those that are zero in mathematics, such as the gradient of a bias before batch normalisation,
against ``VANISHING_SCALE`` of it, since what is found there is the rounding of sums that cancel.

Probe of ties, for models with a max-pool: images of zeros and ones through a kernel that looks at its centre only, so
that nearly every window ties. The gradient of the kernel's other places tells which tied value it came through.

Probe of a dropout rate: ones through dropout and an identity matrix, so that the logits are the mask itself.

Of a target that trains several steps per call these probes train as many at once as their short epochs have, and one
more is compared with the same target step by step: two whole calls, and a single step where the target has those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cell import Target
from harness.core.codec import LATER, digest
from harness.core.model import ModelSpec
from harness.core.training import COMPUTE_DTYPES, OptimizerSpec
from harness.proof.probes import PARITY_VERSION
from harness.proof.tolerances import scale, scale_error, size, tolerances, too_exact

TOO_EXACT, COUNTED, HELD = "too_exact", "steps counted", "data held"
APART, REDUCED = "replicas equal", "reduced over devices"
SCALES = {"gradient_scale": "gradients", "parameter_scale": "parameters"}
"""Quantities that look at all arrays of a group together, and the group."""

COMPUTED = frozenset(
    {
        *("logits", "loss", "gradients", "losses", "parameters", "statistics", "optimizer state"),
        *("evaluation_logits", "test_loss"),
    }
)
"""Quantities whose errors are relative to values that a target computed."""

DROPOUT_SIGMAS = 5.0
"""A true mask leaves five standard deviations once in two million proofs."""


@dataclass(frozen=True)
class Quantity:
    """One compared quantity. ``error`` and ``tolerance`` are relative; ``detail`` names the worst array."""

    name: str
    error: float
    tolerance: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        """False for NaN as well."""
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """Error as a share of its tolerance; a tolerance of zero counts every error as beyond all bounds."""
        if self.tolerance:
            return self.error / self.tolerance
        return math.inf if self.error else 0.0

    @property
    def fault(self) -> str:
        """What is wrong where it has not passed, in one line."""
        if self.name == TOO_EXACT:
            return (
                f"logits {self.error:.1e} times closer to the reference than {self.detail} can be: not computed in it"
            )
        if self.name == COUNTED:
            return f"the device counted {self.detail}"
        if self.name == HELD:
            return f"the {self.detail} on the device is not what was shipped"
        if self.name in (APART, REDUCED):
            return self.detail
        return f"{self.name} {self.detail} off by {self.error:.1e} (allowed {self.tolerance:.0e})"


@dataclass(frozen=True)
class Proof:
    """That one target, in one environment, on one machine, did the reference's work, or did not.

    ``key`` says what it holds for; ``id`` is its hash. ``problem`` is why there are no quantities, the
    probe itself having failed, and ``problem_status`` what a record would call that. ``placement``: how many operations
    of a training step ran on each device; empty on processors, and where the framework runs a step as one program.

    A proof at a batch size (``sized``) has that, the number of ``steps`` that were trained for it, and the ``dataset``
    whose images they were; ``notes`` say what was done otherwise than usual, or could not be shown, a line each. Of a
    plan it has the first batch size, and all in their order as ``batch_plan``: ``64>128``.
    """

    id: str
    target: str
    model: str
    optimizer: str
    precision: str
    key: dict[str, Any]
    quantities: tuple[Quantity, ...] = ()
    problem: str = ""
    problem_status: str = ""
    created: str = ""
    reference: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, int] = field(default_factory=dict, metadata=LATER)
    batch_size: int = field(default=0, metadata=LATER)
    steps: int = field(default=0, metadata=LATER)
    dataset: str = field(default="", metadata=LATER)
    notes: tuple[str, ...] = field(default=(), metadata=LATER)
    batch_plan: str = field(default="", metadata=LATER)

    @property
    def passed(self) -> bool:
        """Whether there are quantities and each is within its tolerance."""
        return not self.problem and bool(self.quantities) and all(quantity.passed for quantity in self.quantities)

    @property
    def largest_error(self) -> float | None:
        """The largest relative error of what was computed; None where nothing was. Counts and shares are no errors."""
        errors = [one.error for one in self.quantities if one.name in COMPUTED]
        return max(errors, default=None)

    @property
    def closest(self) -> Quantity | None:
        """Of its quantities that which came closest to its tolerance, or went farthest beyond."""
        return max(self.quantities, key=lambda quantity: quantity.share, default=None)

    @property
    def reason(self) -> str:
        """Why it failed, in one line; empty if it passed."""
        if self.problem:
            return self.problem
        return "; ".join(quantity.fault for quantity in self.quantities if not quantity.passed)


def key_of(
    target: Target, model: ModelSpec, optimizer: OptimizerSpec, precision: str, **circumstances: Any
) -> dict[str, Any]:
    """What a proof depends on: the target but not its processors, the mathematics, and the circumstances given."""
    return {
        "parity_version": PARITY_VERSION,
        "backend": target.backend,
        "accelerator": target.accelerator,
        "mode": target.mode,
        "input": target.input,
        "device": target.device,
        "matmul_precision": target.matmul_precision,
        "environment": target.environment,
        "settings": target.settings,
        **({} if target.steps_per_call == 1 else {"steps_per_call": target.steps_per_call}),
        **({"options": target.all_options} if target.all_options else {}),
        **({"microbatch": target.microbatch} if target.microbatch else {}),
        **({} if target.devices == 1 else {"devices": target.devices}),
        "model": digest(model),
        "optimizer": digest(optimizer),
        "precision": precision,
        **circumstances,
    }


def compare_ties(
    reference: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], precision: str
) -> tuple[Quantity, ...]:
    """The quantity of a ties probe: the error of the kernel's gradient."""
    group = _named(reference, "gradient/01_conv2d/kernel")
    return (_worst("tied maxima", group, reference, found, tolerances(precision)["gradients"], precision),)


def compare_training(
    reference: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    initial: Mapping[str, NDArray[np.float32]],
    precision: str,
) -> tuple[Quantity, ...]:
    """The quantities of a training probe; the arrays are named as ``messages.Probe`` says.

    Raises Unsupported for a precision that has no tolerances.
    """
    tolerance = tolerances(precision)
    groups = {name: {name: reference[name]} for name in ("logits", "loss", "losses", "evaluation_logits")}
    groups["gradients"] = _named(reference, "gradient/")
    groups["parameters"] = {
        f"parameter/{name}": reference[f"parameter/{name}"] - array for name, array in initial.items()
    }
    groups["statistics"] = _named(reference, "statistic/")
    groups["test_loss"] = {"test_loss": reference["test_loss"]}
    groups["test_accuracy"] = {"test_accuracy": np.ones(())}
    quantities: list[Quantity] = []
    for name, allowed in tolerance.items():
        if groups.get(name):
            quantities.append(_worst(name, groups[name], reference, found, allowed, precision))
        elif name in SCALES:
            quantities.append(_scale_of(name, groups[SCALES[name]], reference, found, allowed))
        elif name == TOO_EXACT:
            error = next(quantity.error for quantity in quantities if quantity.name == "logits")
            detail = COMPUTE_DTYPES[precision]
            quantities.append(Quantity(name, too_exact(error, precision), allowed, detail))
    return tuple(quantities)


def compare_calls(
    single: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    initial: Mapping[str, NDArray[np.float32]],
    steps_per_call: int,
    precision: str,
) -> tuple[Quantity, ...]:
    """The quantities of a probe of several steps per call, ``found``, against the same probe step by step."""
    exact = {name: array.astype(np.float64) for name, array in single.items()}
    moved = {f"parameter/{name}": exact[f"parameter/{name}"] - array for name, array in initial.items()}
    groups = {"losses": {"losses": exact["losses"]}, "parameters": moved, "statistics": _named(exact, "statistic/")}
    return tuple(
        replace(
            _worst(name, group, exact, found, tolerances(precision)[name], precision),
            name=f"{name}, {steps_per_call} steps per call",
        )
        for name, group in groups.items()
        if group
    )


def compare_dropout(
    rate: float, precision: str, masks: NDArray[Any], evaluation: NDArray[Any], losses: NDArray[Any]
) -> tuple[Quantity, ...]:
    """The quantities of a dropout probe.

    ``masks`` (repeats, examples, units): training logits of ones; ``evaluation`` (examples, units):
    evaluation logits; ``losses`` (steps,): of one batch, the learning rate being zero. Each quantity is an error
    with its bound: values other than 0 and 1 / (1 - rate); the kept share's distance from 1 - rate in all, by
    unit and by example (binomial standard deviations, allowing for how many are looked at); how many examples,
    passes or steps share a mask.
    """
    keep = 1.0 - rate
    kept = masks != 0
    value_error = float(np.max(np.abs(masks[kept] * keep - 1.0))) if kept.any() else math.inf
    flat = kept.reshape(-1, kept.shape[-1])
    by_example = kept.mean(axis=2).reshape(-1)
    label = f"rate {rate:g}"
    return (
        Quantity("dropout scale", value_error, tolerances(precision)["dropout scale"], label),
        Quantity("dropout share", abs(float(kept.mean()) - keep), binomial_bound(keep, kept.size, 1), label),
        Quantity(
            "dropout by unit",
            float(np.max(np.abs(flat.mean(axis=0) - keep))),
            binomial_bound(keep, flat.shape[0], flat.shape[1]),
            label,
        ),
        Quantity(
            "dropout by example",
            float(np.max(np.abs(by_example - keep))),
            binomial_bound(keep, kept.shape[2], by_example.size),
            label,
        ),
        Quantity("dropout repeats", float(len(flat) - len(np.unique(flat, axis=0))), 0.0, label),
        Quantity("dropout in evaluation", float(np.max(np.abs(evaluation - 1.0))), 1e-5, label),
        Quantity("dropout same step", float(len(losses) - len(np.unique(losses))), 0.0, label),
    )


def _named(reference: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in reference.items() if name.startswith(prefix)}


def _worst(
    name: str,
    scales: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    tolerance: float,
    precision: str,
) -> Quantity:
    """The array of a group with the largest error, relative to the size of its scale."""
    sizes = {key: size(array, precision) for key, array in scales.items()}
    largest = max(sizes.values())
    worst = Quantity(name, -1.0, tolerance)
    for key, own in sizes.items():
        detail = key.partition("/")[2]
        if key not in found or found[key].shape != reference[key].shape:
            return Quantity(name, math.inf, tolerance, f"{detail or key} missing or of another shape")
        error = size(found[key].astype(np.float64) - reference[key], precision) / (scale(own, largest) or 1.0)
        if math.isnan(error):
            return Quantity(name, math.nan, tolerance, detail)
        if error > worst.error:
            worst = Quantity(name, error, tolerance, detail)
    return worst


def _scale_of(
    name: str,
    scales: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    found: Mapping[str, NDArray[Any]],
    tolerance: float,
) -> Quantity:
    """The error of a group's length along the reference's; ``scales`` are the arrays less where they began."""
    if any(key not in found or found[key].shape != reference[key].shape for key in scales):
        return Quantity(name, math.inf, tolerance, "an array is missing or of another shape")
    began = {key: reference[key] - array for key, array in scales.items()}
    moved = [found[key].astype(np.float64) - began[key] for key in scales]
    return Quantity(name, scale_error(list(scales.values()), moved), tolerance)


def binomial_bound(share: float, trials: int, looks: int) -> float:
    """Distance that the farthest of ``looks`` shares of ``trials`` leaves as seldom as one leaves DROPOUT_SIGMAS.

    Normal approximation; a union bound adds sqrt(2 ln looks) standard deviations at most.
    """
    return (DROPOUT_SIGMAS + math.sqrt(2 * math.log(looks))) * math.sqrt(share * (1 - share) / trials)
