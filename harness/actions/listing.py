"""``harness models``, ``targets``, ``data``, ``sweeps``: what there is to choose from, and getting it ready."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.actions.progress import NEWS, tell
from harness.actions.shown import Lines, Listed, Shown
from harness.analysis import statement
from harness.core.codec import to_json
from harness.core.errors import UsageError
from harness.core.model import Layer, ModelSpec
from harness.measure import session
from harness.plan import datasets, models, own_file, sweep, targets
from harness.plan.datasets.extent import extent
from harness.plan.prepare import prepare_dataset
from harness.plan.sweep import DATASETS
from harness.plan.targets import TargetDefinition
from harness.report.printed import new_table, print_table, say
from harness.wording import nearest
from harness.workers import environments


@dataclass(frozen=True, repr=False)
class TargetShown(Shown):
    """What a target is: its settings with their reasons, and its backend's knobs."""

    definition: TargetDefinition
    environment: environments.Environment

    @property
    def statement(self) -> str:
        """Which question its numbers answer."""
        return statement.of(targets.resolve(self.definition.name, {self.definition.name: self.definition}))

    @property
    def settings(self) -> list[dict[str, str]]:
        """Each variable and each option that it sets, with the reason, empty where none is given."""
        given = {**self.definition.env, **self.definition.options}
        kinds = {**dict.fromkeys(self.definition.env, "variable"), **dict.fromkeys(self.definition.options, "option")}
        reasons = self.definition.reasons
        return [
            {"name": name, "value": value, "kind": kinds[name], "reason": reasons.get(name, "")}
            for name, value in given.items()
        ]

    def print_to(self, console: Console) -> None:
        """A few lines, then both tables."""
        definition = self.definition
        say(console, f"{definition.name}: {definition.description or 'no description'}")
        say(console, f"Its numbers say what its framework does {self.statement}.")
        versions = f"Python {definition.python_version}" if definition.python_version else str(definition.interpreter)
        where = f"{definition.backend} on {definition.accelerator}, {versions}, modes {', '.join(definition.modes)}"
        say(console, f"{where}; environment {self.environment.state}")
        say(console, "")
        if self.settings:
            table = new_table("setting", "value", "why", prose=("why",), title="What it sets")
            for one in self.settings:
                table.add_row(one["name"], one["value"], one["reason"])
            print_table(table, console)
        else:
            say(console, "It sets nothing.")
        if definition.knobs:
            say(console, "")
            table = new_table("option", "here", "values", "what it is", prose=("values", "what it is"), title=_KNOBS)
            for knob in definition.knobs:
                here = definition.options.get(knob.name, knob.default)
                table.add_row(knob.name, here, ", ".join(knob.values), knob.meaning)
            print_table(table, console)

    def plain(self) -> dict[str, Any]:
        """The facts of the list, and settings and knobs."""
        definition = self.definition
        known = [
            {**to_json(knob), "here": definition.options.get(knob.name, knob.default)} for knob in definition.knobs
        ]
        facts = _target_facts(definition, self.environment)
        return {**facts, "statement": self.statement, "settings": self.settings, "options": known}


_KNOBS = "What else it can be asked for: NAME@OPTION=VALUE, or in [options] of a target of your own"


def list_models() -> Listed:
    """The built-in models with their size."""
    specs = [models.load(name) for name in models.names()]
    numbers = ("layers", "parameters", "training\nMFLOP/image", "activations\nKiB/image")
    table = new_table("model", "input", *numbers, numbers=numbers)
    for spec in specs:
        table.add_row(
            spec.name,
            _shape(spec.input_shape),
            str(len(spec.layers)),
            f"{spec.parameter_count:,}",
            f"{spec.training_flops / 1e6:.1f}",
            f"{spec.activation_bytes / 1024:.0f}",
        )
    return Listed(table, [_model_facts(spec) for spec in specs])


def show_model(name_or_file: str) -> Listed:
    """One model layer by layer. Raises UsageError."""
    spec = models.load(name_or_file)
    numbers = ("para-\nmeters", "forward\nkFLOP", "training\nkFLOP", "output\nKiB")
    title = f"{spec.name}: input {_shape(spec.input_shape)}, costs per image"
    table = new_table("layer", "settings", "output", *numbers, numbers=numbers, prose=("settings",), title=title)
    for trace in spec.traced:
        table.add_row(
            trace.name,
            _settings(trace.layer),
            _shape(trace.output_shape),
            f"{trace.parameter_count:,}",
            f"{trace.forward_flops / 1e3:,.1f}",
            f"{trace.training_flops / 1e3:,.1f}",
            f"{trace.activation_bytes / 1024:,.1f}",
        )
    table.add_section()
    table.add_row(
        "total",
        "",
        "",
        f"{spec.parameter_count:,}",
        f"{spec.forward_flops / 1e3:,.1f}",
        f"{spec.training_flops / 1e3:,.1f}",
        f"{spec.activation_bytes / 1024:,.1f}",
    )
    return Listed(table, {**_model_facts(spec), "specification": to_json(spec)})


def list_sweeps() -> Listed:
    """The presets of ``harness sweep``."""
    presets = sweep.presets()
    table = new_table("preset", "what it does", prose=("what it does",))
    for preset, description in presets.items():
        table.add_row(preset, description)
    return Listed(table, presets)


def list_targets() -> Listed:
    """Every target and the state of its environment."""
    found = [(definition, environments.inspect(definition)) for definition in own_file.target_definitions().values()]
    headings = ("target", "backend", "accelerator", "python", "modes", "state")
    table = new_table(*headings, prose=("modes", "state"))
    for definition, environment in found:
        detail = f": {environment.detail}" if environment.detail and environment.state != "ready" else ""
        table.add_row(
            definition.name,
            definition.backend,
            definition.accelerator,
            definition.python_version,
            ", ".join(definition.modes),
            f"{environment.state}{detail}",
        )
    return Listed(table, [_target_facts(definition, environment) for definition, environment in found])


def show_target(name: str) -> TargetShown:
    """One target: what it sets and why, and its backend's knobs. Raises UsageError."""
    definition = _definition(name, own_file.target_definitions())
    return TargetShown(definition, environments.inspect(definition))


def sync_targets(names: Sequence[str]) -> tuple[Lines, bool]:
    """Build the environments of the named targets, or of all on the processor. Also whether all could be built.

    Those for GPUs are gigabytes, and of no use on most machines: they are built when they are named.
    """
    definitions = own_file.target_definitions()
    on_processor = [definition for definition in definitions.values() if definition.accelerator == "cpu"]
    wanted = [_definition(name, definitions) for name in names] or on_processor
    resolved = [targets.resolve(definition.name, definitions) for definition in wanted]
    problems = session.build_environments(definitions, resolved, NEWS)
    ready = (definition.name for definition in wanted if definition.name not in problems)
    return Lines(tuple(f"{name}: ready" for name in ready)), not problems


def list_datasets(data_dir: Path | None) -> Listed:
    """The datasets and whether they are at hand."""
    found = [datasets.describe(name, data_dir) for name in DATASETS]
    numbers = ("classes", "training", "test")
    table = new_table("dataset", "images", *numbers, "state", numbers=numbers, prose=("state",))
    for description in found:
        table.add_row(
            description.name,
            _shape(description.image_shape or ()),
            str(description.classes),
            f"{description.train_examples:,}",
            f"{description.test_examples:,}",
            f"{description.state}: {description.reason}" if description.reason else description.state,
        )
    return Listed(table, [to_json(description) for description in found])


def prepare_data(source: str, data_dir: Path | None) -> Lines:
    """Fetch or make one dataset, and say where it is and what its hash is. Raises UsageError, DatasetError."""
    if source not in DATASETS and not source.endswith(".npz"):
        raise UsageError(
            f"no dataset is called {source!r}{nearest(source, DATASETS)}; allowed: {', '.join(DATASETS)}, or a file "
            "that ends in .npz"
        )
    prepared = prepare_dataset(source, data_dir, NEWS)
    dataset, images = prepared.dataset, extent(prepared.folder)
    if images.doubt:
        tell(f"warning: {dataset.name}: {images.doubt}")
    said = (
        f"{dataset.name}: {dataset.train_examples:,} training and {dataset.test_examples:,} test images of "
        f"{_shape(dataset.image_shape)}, {images.words}, {dataset.classes} classes, sha256 {dataset.sha256}"
    )
    return Lines((said,))


def _target_facts(definition: TargetDefinition, environment: environments.Environment) -> dict[str, object]:
    return {
        "name": definition.name,
        "description": definition.description,
        "backend": definition.backend,
        "accelerator": definition.accelerator,
        "python": definition.python_version,
        "modes": list(definition.modes),
        "state": environment.state,
        "detail": environment.detail,
        "environment": environment.identity,
    }


def _definition(name: str, definitions: dict[str, TargetDefinition]) -> TargetDefinition:
    if name not in definitions:
        raise UsageError(f"no target is called {name!r}{nearest(name, definitions)}; allowed: {', '.join(definitions)}")
    return definitions[name]


def _model_facts(spec: ModelSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "input_shape": list(spec.input_shape),
        "layers": len(spec.layers),
        "parameters": spec.parameter_count,
        "forward_flops_per_image": spec.forward_flops,
        "training_flops_per_image": spec.training_flops,
        "activation_bytes_per_image": spec.activation_bytes,
    }


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _settings(layer: Layer) -> str:
    """What a layer was given beyond its defaults."""
    given = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    defaults = {field.name: field.default for field in dataclasses.fields(layer)}
    return ", ".join(_setting(key, value) for key, value in given.items() if value != defaults[key])


def _setting(key: str, value: object) -> str:
    if isinstance(value, bool):
        return key if value else f"no {key}"
    if isinstance(value, str):
        return value
    return f"{key} {_shape(value) if isinstance(value, tuple) else value}"
