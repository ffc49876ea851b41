"""``harness.verify``: prove that targets do the reference's work, for every model and optimizer asked for.

And that the clock tells the time of the work, once for each target. This is the conformance suite of backends, the
project's own and those of others. What a backend declares not to have, and refuses, is no fault: it is listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.actions import values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.actions.values import Place
from harness.core import codec
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.codec import LATER
from harness.core.errors import CellError, UsageError
from harness.core.model import ModelSpec
from harness.core.training import OPTIMIZERS, PLANS, PRECISIONS, OptimizerSpec, TrainingSpec
from harness.doctor import support
from harness.measure import session
from harness.measure.schedule import rehearsal
from harness.plan import models, own_file, trainable
from harness.plan.datasets import Prepared
from harness.plan.prepare import prepare_dataset
from harness.plan.sweep import (
    BatchSize,
    BySteps,
    Sweep,
    SweepDefinition,
    known_dataset,
    load,
    pieces_of,
    require_fit,
    rising,
    training_of,
)
from harness.proof import synchrony
from harness.proof.parity import Proof, Quantity
from harness.proof.synchrony import Synchronisation
from harness.proof.verifier import Verifier
from harness.report.printed import new_table, print_table, say
from harness.report.same_work import error_text
from harness.wording import plural
from harness.workers import Worker

if TYPE_CHECKING:
    import polars as pl

TIMED_MODEL = "mnist-cnn"
"""Whose steps show that time is told truly, where it is among the models asked for; else the first of them."""

OVERRIDDEN = {"name": "verify", "model": "mnist-cnn", "target": "reference", "dataset": "digits", "batch_size": 1}
"""A sweep, of which only the training counts: so flags mean here what they mean in ``harness sweep``."""

DROPOUT = "dropout"
"""Quantities whose names begin so are several checks of one thing, shown as the worst of them."""


@dataclass(frozen=True)
class Gap:
    """A combination that a backend refuses, as it declares, or that is none: ``reason`` says what is not had, and why.

    ``batch_size``: where only that, or that plan, is refused; else empty.
    """

    target: str
    model: str
    optimizer: str
    reason: str
    batch_size: str = field(default="", metadata=LATER)

    @property
    def line(self) -> str:
        """All of it."""
        at = f" at {self.batch_size}" if self.batch_size else ""
        return f"{self.target}{at}, {self.model}, {self.optimizer}: {self.reason}"


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """Proofs, what is not offered, and whether the clock tells the time of the work, of each target.

    ``unproven``: targets of which nothing that was asked for is offered. ``extras``: what all training had beside its
    optimizer, in words.
    """

    proofs: tuple[Proof, ...]
    gaps: tuple[Gap, ...]
    synchrony: tuple[Synchronisation, ...]
    unproven: tuple[str, ...]
    extras: str = ""

    @property
    def passed(self) -> bool:
        """Whether all is proven."""
        outcomes: list[Proof | Synchronisation] = [*self.proofs, *self.synchrony]
        return all(outcome.passed for outcome in outcomes) and not self.unproven

    @property
    def table(self) -> pl.DataFrame:
        """A row for each quantity of each proof: its largest error, its tolerance, and where that was."""
        import polars as pl

        rows = [
            {
                "target": proof.target,
                "model": proof.model,
                "optimizer": proof.optimizer,
                "precision": proof.precision,
                "batch_size": proof.batch_size or None,
                "batch_plan": proof.batch_plan,
                "steps": proof.steps or None,
                "quantity": quantity.name,
                "error": quantity.error,
                "tolerance": quantity.tolerance,
                "passed": quantity.passed,
                "detail": quantity.detail,
            }
            for proof in self.proofs
            for quantity in proof.quantities
        ]
        counts = {"batch_size": pl.Int64, "steps": pl.Int64}
        return pl.DataFrame(rows, schema_overrides=counts if rows else None, infer_schema_length=None)

    def print_to(self, console: Console) -> None:
        """The largest errors, what failed, what is not offered, and the clock."""
        if self.extras:
            say(console, f"All training has {self.extras}.")
        _print(self.proofs, console)
        _print_gaps(self.gaps, console)
        _print_synchrony(self.synchrony, console)

    def plain(self) -> dict[str, Any]:
        """Proofs, not_offered, synchrony."""
        listed = [codec.to_json(gap) for gap in self.gaps]
        return {"proofs": _plain(self.proofs), "not_offered": listed, "synchrony": _plain(self.synchrony)}


def verify(
    *,
    target: str | Iterable[str] = (),
    model: str | ModelSpec | Iterable[str | ModelSpec] = (),
    optimizer: str | Iterable[str] = (),
    compute_precision: str | Iterable[str] = (),
    batch_size: int | str | Mapping[int, int] | Iterable[int | str | Mapping[int, int]] = (),
    dataset: Place = "digits",
    data_dir: Place | None = None,
    scaling: str | None = None,
    warmup_steps: int | str | None = None,
    warmup_epochs: int | str | None = None,
    decay: str | None = None,
    decay_power: float | str | None = None,
    decay_to: float | str | None = None,
    weight_decay: float | str | None = None,
    weight_decay_form: str | None = None,
    clip_norm: float | str | None = None,
    label_smoothing: float | str | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> Verification:
    """Prove that targets compute what the float64 reference computes, on this machine; the proofs are kept.

    Args:
        target: NAME[:MODE]; a name without a mode stands for all its modes; tensorflow-cpu and jax-cpu if not given.
        model: names of built-in models, files that end in .toml, ``harness.Model`` objects; all built in if not given.
        optimizer: all if not given.
        compute_precision: float32 if not given.
        batch_size: also train at these batch sizes on a dataset's images, through the calls that are timed, and have
            the reference do the steps again. A plan of them, as "0:32,2:128" or {0: 32, 2: 128}, too.
        dataset: whose images: "mnist", "digits", or a file that ends in .npz.
        data_dir: a folder with the four MNIST files.
        scaling, warmup_steps, warmup_epochs, decay, decay_power, decay_to: how the rate changes. The proofs have rates,
            and lengths, of their own: it is the kind of schedule that is proven.
        weight_decay, weight_decay_form, clip_norm, label_smoothing: what becomes of the loss and its gradient; whether
            there is weight decay or clipping is what is proven, with values of the proofs' own.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for a name that is none. What cannot be proven is in the result.
    """
    given = locals()
    wait = values.timeout(timeout)
    definitions = own_file.target_definitions()
    wanted = session.every_mode(values.texts(target), definitions)
    specs = [models.load(one) if isinstance(one, str) else one for one in values.models(model) or models.names()]
    for name in values.texts(optimizer):
        values.optimizer(name)
    precisions = [values.compute_precision(name) for name in values.texts(compute_precision) or PRECISIONS[:1]]
    asked = load(
        SweepDefinition(OVERRIDDEN),
        {
            "optimizer": values.texts(optimizer) or OPTIMIZERS,
            "batch_size": values.several(batch_size),
            **{key: values.plain(given[key]) for key in values.TRAINING_FLAGS},
        },
    )
    sizes = _sizes(asked)
    images = _images(str(values.plain(dataset)), values.place(data_dir), specs, sizes) if sizes else None
    problems = session.build_environments(definitions, wanted, NEWS)
    definitions = session.with_reference(definitions, NEWS)
    timed = next((spec for spec in specs if spec.name == TIMED_MODEL), specs[0])
    proofs: list[Proof] = []
    gaps: list[Gap] = []
    synchronised: list[Synchronisation] = []
    hosts = session.temporary_hosts(definitions, problems, "verify", wait, fork, NEWS.keeping)
    with hosts as (pool, bundle, place):
        verifier = session.open_verifier(definitions, pool, bundle.sha256, place, wait, NEWS.keeping)
        for one in wanted:
            give = partial(pool.worker, one)
            for spec, rule, precision in product(specs, asked.optimizers, precisions):
                training = _at(asked, 1, rule, precision)
                names = one.label, spec.name, rule.name
                try:
                    proof = verifier.proof(one, spec, rule, precision, give, fresh=True, like=training)
                except CellError as error:
                    proof = Proof("", *names, precision, {}, (), str(error), error.status)
                if proof.problem_status == "unsupported" and (why := _declared(one, spec, training, give)):
                    gaps.append(Gap(*names, why))
                    tell(gaps[-1].line)
                    continue
                proofs.append(proof)
                tell(f"{_lane(proof)}, {proof.model}, {proof.optimizer}: {_verdict(proof)}")
                for size in sizes if images is not None and proof.passed else ():
                    assert images is not None
                    training = _at(asked, size, rule, precision)
                    found = _at_size(verifier, Cell(spec, training, images.dataset, Inputs("", ""), one), images, give)
                    if isinstance(found, Gap):
                        gaps.append(found)
                        tell(found.line)
                        continue
                    proofs.append(found)
                    tell(f"{_lane(found)}, {found.model}, {found.optimizer}: {_verdict(found)}")
            synchronised.append(synchrony.check(one, timed, give, place / "synchrony", wait))
            tell(f"{one.label}, synchronisation: {synchronised[-1].verdict}")
    proven = {proof.target for proof in proofs}
    unproven = tuple(one.label for one in wanted if one.label not in proven)
    extras = _at(asked, 1, asked.optimizers[0], PRECISIONS[0]).extras
    return Verification(tuple(proofs), tuple(gaps), tuple(synchronised), unproven, extras)


def _sizes(asked: Sweep) -> list[BatchSize]:
    """The batch sizes and plans that the flag names, in order; none where it was not given. Raises UsageError."""
    if asked.up_to_memory:
        raise UsageError(f"--batch-size: found {asked.up_to_memory}..max, allowed: sizes, ranges with an end, plans")
    return sorted(asked.batch_sizes, key=rising) if "batch_size" in asked.flags else []


def _at(asked: Sweep, size: BatchSize, rule: OptimizerSpec, precision: str) -> TrainingSpec:
    """The training that is proven: long enough for every piece of a plan."""
    epochs = 1 if isinstance(size, BySteps) else 1 + pieces_of(size)[-1][0]
    return training_of(asked, epochs, 0, precision, rule, (asked.learning_rates[0], size))


def _images(source: str, data_dir: Path | None, specs: Sequence[ModelSpec], sizes: Sequence[BatchSize]) -> Prepared:
    """The dataset, which models and batch sizes must fit. Raises UsageError."""
    prepared = prepare_dataset(known_dataset("--dataset", source), data_dir, NEWS)
    for spec in specs:
        require_fit("--model", spec, prepared.dataset)
    most, largest = prepared.dataset.train_examples, max(size for one in sizes for _, size in pieces_of(one))
    if largest > most:
        raise UsageError(f"--batch-size: found {largest}, but {prepared.dataset.name} has {most} images")
    return prepared


def _at_size(verifier: Verifier, cell: Cell, images: Prepared, give: Callable[[], Worker]) -> Proof | Gap:
    """The proof at a batch size, or of a plan, of what is proven with few images already."""
    training = cell.training
    names = cell.target.label, cell.model.name, training.optimizer.name
    refused = trainable.why_not(cell)
    if not refused:
        try:
            found = verifier.at_size.proof(cell, images.folder, rehearsal, give, fresh=True)
        except CellError as error:
            problem = Proof("", *names, training.precision, {}, (), str(error), error.status)
            found = replace(problem, batch_size=training.batch_size, batch_plan=training.batch_plan)
        if found.problem_status != "unsupported":
            return found
        refused = _declared(cell.target, cell.model, training, give)
        if not refused:
            return found
    return Gap(*names, refused, training.batch_plan or f"{training.batch_size:,}")


def _declared(target: Target, model: ModelSpec, training: TrainingSpec, give: Callable[[], Worker]) -> str:
    """What is not offered of a training, as the backend's capabilities declare it; empty if they promise all of it."""
    try:
        able = give().ready.capabilities
    except CellError:
        return ""
    needed = {layer.kind: "layers" for layer in model.layers}
    needed |= {training.optimizer.name: "optimizers", training.precision: "precisions"}
    needed |= dict.fromkeys(training.options, "options")
    found = {
        thing: support.refusal(able, kind, thing, target.accelerator, target.mode, training.precision)
        for thing, kind in needed.items()
    }
    if training.batch_changes:
        found[PLANS] = support.no_plans(able, target.mode)
    if target.microbatch:
        whole = Cell(model, training, Dataset("", "", 0, 0, model.input_shape, model.classes), Inputs("", ""), target)
        found["microbatch"] = support.no_microbatches(able, target.mode) or whole.why_no_microbatch
    missing = ", ".join(f"{thing} ({why})" for thing, why in found.items() if why)
    return f"not offered: {missing}" if missing else ""


def _plain(outcomes: Sequence[Proof | Synchronisation]) -> list[dict[str, Any]]:
    return [{"passed": outcome.passed, "reason": outcome.reason, **codec.to_json(outcome)} for outcome in outcomes]


def _lane(proof: Proof) -> str:
    """The target, the precision where it is not the usual one, and the batch size of a proof at one."""
    lane = proof.target if proof.precision == PRECISIONS[0] else f"{proof.target} {proof.precision}"
    return f"{lane} at {proof.batch_plan or format(proof.batch_size, ',')}" if proof.batch_size else lane


def _verdict(proof: Proof) -> str:
    if not proof.passed:
        return f"FAILED: {proof.reason}"
    if not proof.batch_size:
        return "passed"
    return f"proven: {plural(proof.steps, 'step')}, largest error {error_text(proof.largest_error)}"


def _print(proofs: Sequence[Proof], console: Console) -> None:
    """Per lane and quantity the largest error of all its proofs, against its tolerance; then what failed."""
    title = "Largest error against the float64 reference"
    headings = ("target", "quantity", "largest", "allowed", "where", "")
    table = new_table(*headings, numbers=("largest", "allowed"), prose=("where",), title=title)
    for lane in dict.fromkeys(_lane(proof) for proof in proofs):
        worst: dict[str, tuple[Quantity, Proof]] = {}
        for proof in proofs:
            for quantity in proof.quantities if _lane(proof) == lane else ():
                group = quantity.name.partition(" ")[0] if quantity.name.startswith(DROPOUT) else quantity.name
                if group not in worst or _badness(quantity) > _badness(worst[group][0]):
                    worst[group] = (quantity, proof)
        if not worst:
            table.add_row(lane, "nothing measured", *[""] * (len(headings) - 3), "FAILED")
        for index, (group, (quantity, proof)) in enumerate(worst.items()):
            which = quantity.name.removeprefix(DROPOUT).strip() if group == DROPOUT else ""
            table.add_row(
                lane if index == 0 else "",
                group.replace("_", " "),
                f"{quantity.error:.1e}",
                f"{quantity.tolerance:.1e}",
                ", ".join(part for part in (proof.model, proof.optimizer, which, quantity.detail) if part),
                "ok" if quantity.passed else "FAILED",
            )
        table.add_section()
    if proofs:
        print_table(table, console)
    for proof in proofs:
        if not proof.passed:
            say(console, f"FAILED {_lane(proof)}, {proof.model}, {proof.optimizer}: {proof.reason}")
        for note in proof.notes:
            say(console, f"{_lane(proof)}, {proof.model}, {proof.optimizer}: {note}")
    passed = sum(proof.passed for proof in proofs)
    say(console, f"{passed} of {len(proofs)} proofs passed.")


def _print_gaps(gaps: Sequence[Gap], console: Console) -> None:
    for gap in gaps:
        say(console, gap.line)


def _print_synchrony(outcomes: Sequence[Synchronisation], console: Console) -> None:
    """Per lane what was measured of its clock, then what failed."""
    say(console, "")
    numbers = ("ms per step", "intercept", "block late", "control late", "control takes")
    title = "Synchronisation: share of the work that came after the end of a block, and of an unsynchronised control"
    table = new_table("target", *numbers, "", numbers=numbers, title=title)
    for outcome in outcomes:
        cells = [""] * len(numbers)
        if (found := outcome.figures) is not None:
            shares = (found.intercept, found.outstanding, found.control_outstanding, found.control_time)
            cells = [f"{1000 * found.step_seconds:.2f}", *(f"{100 * share:.1f} %" for share in shares)]
        table.add_row(outcome.target, *cells, _short(outcome))
    print_table(table, console)
    for outcome in outcomes:
        if not outcome.passed:
            say(console, f"FAILED {outcome.target}, synchronisation: {outcome.reason}")


def _short(outcome: Synchronisation) -> str:
    if outcome.figures is None or not outcome.passed:
        return "FAILED"
    if outcome.figures.control_caught:
        return "control caught"
    return "nothing to catch" if outcome.figures.nothing_to_catch else "caught in part"


def _badness(quantity: Quantity) -> tuple[bool, float]:
    """What sorts failures, NaN among them, above all others."""
    return not quantity.passed, math.inf if math.isnan(quantity.share) else quantity.share
