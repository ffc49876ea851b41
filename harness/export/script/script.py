"""The script of a cell: the template of its framework, filled with what the plan and the record say.

Whatever comes from a file is written as a literal or as harmless words, so no name can become code.
"""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.training import OPTIMIZERS, PRECISIONS
from harness.export.script import jax_lines, tensorflow_lines
from harness.export.script.known import Known, has_keras_2
from harness.export.script.nearness import nearness
from harness.export.script.source import literal, plain
from harness.wording import plural

if TYPE_CHECKING:
    import jinja2

EXPORTABLE = {"tensorflow_keras": "TensorFlow", "jax_flax": "JAX"}
"""Backend -> framework."""

_OFFERED: dict[str, dict[str, tuple[str, ...]]] = {
    "tensorflow_keras": {"mode": ("graph", "xla", "fit"), "accelerator": ("cpu", "cuda", "directml")},
    "jax_flax": {"mode": ("jit",), "accelerator": ("cpu", "cuda")},
}
_MATMUL = {"highest": "highest", "tf32": "tensorfloat32"}
"""matmul_precision -> JAX's name of it."""


EVALUATION_BATCH = 500
"""Images of an evaluation step, as in every backend (``backends.protocol``)."""

WIDTH = 118
"""Columns of a script's docstring."""


def script(cell: Cell, known: Known, file_name: str, harness_version: str, images_are_bytes: bool) -> str:
    """Source of the script of ``cell``, to be kept as ``file_name`` beside an ``.npz`` of the same name.

    ``images_are_bytes``: the dataset's images are uint8, which training divides by 255. Raises UsageError: a backend
    that has no template, a cell without one whole batch, or a plan that names what does not exist.
    """
    require(cell)
    values = _common(cell, known, file_name, harness_version, images_are_bytes)
    if cell.target.backend == "jax_flax":
        return _filled("jax.py.j2", values | _jax(cell))
    return _filled("tensorflow.py.j2", values | _tensorflow(cell, has_keras_2(cell, known.packages)))


def require(cell: Cell) -> None:
    """Raise UsageError, as ``script`` does, for a cell that cannot be exported."""
    where, backend = f"cell {cell.cell_id}", cell.target.backend
    if backend not in EXPORTABLE:
        raise UsageError(
            f"{where}: backend {backend!r} cannot be exported as a script; "
            f"allowed: {', '.join(f'{name} ({framework})' for name, framework in EXPORTABLE.items())}"
        )
    if not min(cell.epoch_steps):
        raise UsageError(
            f"{where}: its batch size {max(cell.training.batch_sizes)} is more than the {cell.dataset.train_examples} "
            "training examples, so it has no step that a script could train"
        )
    target, training = cell.target, cell.training
    if target.steps_per_call > 1 or target.microbatch or target.devices > 1 or target.all_options:
        asked = [f"steps_per_call={target.steps_per_call}"] if target.steps_per_call > 1 else []
        asked += [f"microbatch={target.microbatch}"] if target.microbatch else []
        asked += [f"devices={target.devices}"] if target.devices > 1 else []
        asked += [f"{name}={value}" for name, value in target.all_options.items()]
        raise UsageError(
            f"{where}: {', '.join(asked)} cannot be exported: a script has one step per call, in its framework's own "
            "form; the cell of the target without them does the same work"
        )
    if training.until_accuracy or training.evaluate_every:
        raise UsageError(
            f"{where}: training until an accuracy cannot be exported: a script trains whole epochs and evaluates after "
            "each; a cell of as many epochs can be"
        )
    if training.options:
        raise UsageError(
            f"{where}: {training.method} cannot be exported: scripts have no {', '.join(training.options)} yet; "
            "a cell without them can be"
        )
    if training.batch_changes and target.mode == "fit":
        raise UsageError(f"{where}: fit trains no plan of batch sizes, so neither does a script of it")
    for key, value, allowed in (
        ("mode", target.mode, _OFFERED[backend]["mode"]),
        ("accelerator", target.accelerator, _OFFERED[backend]["accelerator"]),
        ("matmul_precision", target.matmul_precision, tuple(_MATMUL)),
        ("optimizer", training.optimizer.name, OPTIMIZERS),
        ("precision", training.precision, PRECISIONS),
    ):
        if value not in allowed:
            raise UsageError(f"{where}: {key} {value!r} cannot be exported; allowed: {', '.join(allowed)}")


def _common(cell: Cell, known: Known, file_name: str, version: str, images_are_bytes: bool) -> dict[str, Any]:
    training, target = cell.training, cell.target
    variables = dict(known.variables)
    if target.backend == "jax_flax" and target.accelerator == "cuda":
        variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    images = 'arrays[f"{part}_images"].astype(np.float32)'
    return {
        "title": _title(cell),
        "about": _about(cell, known, version),
        "nearness": textwrap.fill(nearness(cell, known), WIDTH),
        "file_name": plain(file_name),
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "steps": cell.steps_per_epoch,
        "plan": [
            literal([*own]) for own in training.epoch_sizes(cell.dataset.train_examples) if training.batch_changes
        ],
        "variables": literal(variables) if variables else "",
        "cpus": target.cpus,
        "recorded": bool(known.epochs),
        "finished": len(known.epochs),
        "pace": None if known.images_per_second is None else f"{known.images_per_second:,.0f}",
        "images": f"{images} / 255" if images_are_bytes else images,
        "test_examples": cell.dataset.test_examples,
        "padding": -cell.dataset.test_examples % EVALUATION_BATCH,
        "resident": target.input == "resident",
        "loss_scale": "" if training.loss_scale == 1.0 else literal(training.loss_scale),
    }


def _tensorflow(cell: Cell, keras_2: bool) -> dict[str, Any]:
    target = cell.target
    dialect = tensorflow_lines.Dialect(keras_2, target.mode == "fit")
    layers = list(tensorflow_lines.layers(cell, dialect))
    return {
        "keras": 2 if keras_2 else 3,
        "fit": dialect.fit,
        "compiled": target.mode == "xla",
        "gpu": None if target.accelerator == "cpu" else target.device,
        "tf32": target.matmul_precision == "tf32",
        "policy": "" if cell.training.precision == "float32" else literal(cell.training.precision),
        "input_shape": literal(cell.model.input_shape),
        "layers": layers,
        "fused": any(line.startswith(tensorflow_lines.FUSED_NORMALIZATION) for line in layers),
        "counted": any(line.startswith(tensorflow_lines.COUNTED_DROPOUT) for line in layers),
        "learning_rate": tensorflow_lines.learning_rate(cell),
        "optimizer": tensorflow_lines.optimizer(cell, dialect),
    }


def _jax(cell: Cell) -> dict[str, Any]:
    target, training = cell.target, cell.training
    return {
        "accelerator": literal(target.accelerator),
        "dropout": jax_lines.has_dropout(cell),
        "normalization": jax_lines.normalization(cell),
        "normalized": jax_lines.is_normalized(cell),
        "training_argument": jax_lines.has_phases(cell),
        "train_call": jax_lines.applied(cell, training=True),
        "evaluate_call": jax_lines.applied(cell, training=False),
        "gpu": target.device if target.accelerator == "cuda" else None,
        "matmul_precision": literal(_MATMUL[target.matmul_precision]),
        "layers": list(jax_lines.layers(cell)),
        "seed": training.seed,
        "adam": jax_lines.adam(cell) if training.optimizer.name == "adam" else "",
        "folded": training.optimizer.name in ("momentum", "nesterov"),
        "learning_rate": jax_lines.learning_rate(cell),
        "optimizer": jax_lines.optimizer(cell),
    }


def _title(cell: Cell) -> str:
    training = cell.training
    what = f"{plain(cell.model.name)} on {plain(cell.dataset.name)} in plain {EXPORTABLE[cell.target.backend]}"
    how = f"batch size {training.batch_plan or training.batch_size}, {training.optimizer.name}, {training.precision}"
    return f"Train {what}: {how}, {plural(training.epochs, 'epoch')}."


def _about(cell: Cell, known: Known, version: str) -> str:
    masks = ", dropout masks" if jax_lines.has_dropout(cell) else ""
    said = [
        f"The work of the target {plain(cell.target.label)} in cell {cell.cell_id} of harness {plain(version)},",
        f"without the harness: the same initial parameters, order of examples{masks} and mathematics, from the",
        "arrays in the .npz beside this file.",
    ]
    if known.status != "ok":
        said.append(f"There is no finished record of it: {plain(known.status or 'it was not run')}.")
    if known.packages:
        packages = ", ".join(f"{plain(name)} {plain(found)}" for name, found in known.packages.items())
        said.append(f"Packages there: {packages}.")
    if known.machine:
        said.append(f"Machine there: {plain(known.machine)}.")
    return textwrap.fill(" ".join(said), WIDTH)


def _filled(name: str, values: dict[str, Any]) -> str:
    return str(_templates().get_template(name).render(values))


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # what comes in is source already
    )
