"""``harness models``, ``harness targets``, ``harness data``: what there is to choose from, and getting it ready."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness.commands import printing
from harness.core.codec import to_json
from harness.core.errors import UsageError
from harness.core.model import Layer, ModelSpec
from harness.plan import datasets, models, own_file, sweep, targets
from harness.plan.datasets.extent import extent
from harness.plan.sweep import DATASETS
from harness.plan.targets import TargetDefinition
from harness.wording import nearest
from harness.workers import environments


def list_models(json: bool) -> int:
    """Print the built-in models with their size."""
    specs = [models.load(name) for name in models.names()]
    if json:
        printing.write_json([_model_facts(spec) for spec in specs])
        return 0
    numbers = ("layers", "parameters", "training\nMFLOP/image", "activations\nKiB/image")
    table = printing.new_table("model", "input", *numbers, numbers=numbers)
    for spec in specs:
        table.add_row(
            spec.name,
            _shape(spec.input_shape),
            str(len(spec.layers)),
            f"{spec.parameter_count:,}",
            f"{spec.training_flops / 1e6:.1f}",
            f"{spec.activation_bytes / 1024:.0f}",
        )
    printing.print_table(table)
    return 0


def show_model(name_or_file: str, json: bool) -> int:
    """Print one model layer by layer."""
    spec = models.load(name_or_file)
    if json:
        printing.write_json({**_model_facts(spec), "specification": to_json(spec)})
        return 0
    numbers = ("para-\nmeters", "forward\nkFLOP", "training\nkFLOP", "output\nKiB")
    title = f"{spec.name}: input {_shape(spec.input_shape)}, costs per image"
    table = printing.new_table(
        "layer", "settings", "output", *numbers, numbers=numbers, prose=("settings",), title=title
    )
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
    printing.print_table(table)
    return 0


def list_sweeps(json: bool) -> int:
    """Print the presets of ``harness sweep``."""
    presets = sweep.presets()
    if json:
        printing.write_json(presets)
        return 0
    table = printing.new_table("preset", "what it does", prose=("what it does",))
    for preset, description in presets.items():
        table.add_row(preset, description)
    printing.print_table(table)
    return 0


def list_targets(json: bool) -> int:
    """Print every target and the state of its environment."""
    found = [(definition, environments.inspect(definition)) for definition in own_file.target_definitions().values()]
    if json:
        printing.write_json(
            [
                {
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
                for definition, environment in found
            ]
        )
        return 0
    headings = ("target", "backend", "accelerator", "python", "modes", "state")
    table = printing.new_table(*headings, prose=("modes", "state"))
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
    printing.print_table(table)
    return 0


def sync_targets(names: Sequence[str]) -> int:
    """Build the environments of the named targets, or of all on the processor. Exit status 1 if one cannot be built.

    Those for GPUs are gigabytes, and of no use on most machines: they are built when they are named.
    """
    definitions = own_file.target_definitions()
    on_processor = [definition for definition in definitions.values() if definition.accelerator == "cpu"]
    wanted = [_definition(name, definitions) for name in names] or on_processor
    console = printing.standard_error()
    resolved = [targets.resolve(definition.name, definitions) for definition in wanted]
    problems = printing.build_environments(definitions, resolved, console)
    for definition in wanted:
        if definition.name not in problems:
            printing.say(printing.standard_output(), f"{definition.name}: ready")
    return 1 if problems else 0


def list_datasets(data_dir: Path | None, json: bool) -> int:
    """Print the datasets and whether they are at hand."""
    found = [datasets.describe(name, data_dir) for name in DATASETS]
    if json:
        printing.write_json([to_json(description) for description in found])
        return 0
    numbers = ("classes", "training", "test")
    table = printing.new_table("dataset", "images", *numbers, "state", numbers=numbers, prose=("state",))
    for description in found:
        table.add_row(
            description.name,
            _shape(description.image_shape or ()),
            str(description.classes),
            f"{description.train_examples:,}",
            f"{description.test_examples:,}",
            f"{description.state}: {description.reason}" if description.reason else description.state,
        )
    printing.print_table(table)
    return 0


def prepare_data(source: str, data_dir: Path | None) -> int:
    """Fetch or make one dataset, and say where it is and what its hash is."""
    if source not in DATASETS and not source.endswith(".npz"):
        raise UsageError(
            f"no dataset is called {source!r}{nearest(source, DATASETS)}; allowed: {', '.join(DATASETS)}, or a file "
            "that ends in .npz"
        )
    prepared = printing.prepare_dataset(source, data_dir, printing.standard_error())
    dataset, images = prepared.dataset, extent(prepared.folder)
    printing.say(
        printing.standard_output(),
        f"{dataset.name}: {dataset.train_examples:,} training and {dataset.test_examples:,} test images of "
        f"{_shape(dataset.image_shape)}, {images.words}, {dataset.classes} classes, sha256 {dataset.sha256}",
    )
    if images.doubt:
        printing.say(printing.standard_error(), f"warning: {dataset.name}: {images.doubt}")
    return 0


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
