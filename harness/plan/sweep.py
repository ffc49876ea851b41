"""Sweeps: what a person wrote (a preset, a TOML file, flags) to a checked ``Sweep``, and that to cells.

    name = "mine"
    model = "mnist-cnn"                       # or a file that ends in .toml, relative to this one
    target = ["tensorflow-cpu", "jax-cpu"]    # name[:mode][@key=value]
    dataset = "digits"                        # mnist, digits, or a file that ends in .npz
    batch_size = [32, { 0 = 64, 2 = 128 }]    # fixed, or a plan: the batch size from each of these epochs on
    cpus = [1, 2]                             # processors per worker; all if not given
    steps_per_call = [1, 8]                   # training steps in one call of the framework; 1 if not given
    [training]
    learning_rate = [0.01, 0.1]

Axes take one value or a list: model, target, cpus, steps_per_call, batch_size, epochs, seed, optimizer, learning_rate,
precision. A sweep has one cell for each combination of them; each number of cpus, or of steps per call, makes of each
target one of its own. Presets are the files in ``harness/plan/builtin/sweeps/``. Every mistake is a ``UsageError`` of
one line that names file and key, or the flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from harness import wording
from harness.core.cell import PLAN_AND_STEPS_PER_CALL, Cell, Dataset, Inputs, Target
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.training import OPTIMIZERS, PRECISIONS, SCALINGS, LearningRate, OptimizerSpec, TrainingSpec
from harness.plan import batch_rules, shipped, tomlfile
from harness.plan.batch_rules import RULES
from harness.plan.plan import INTERLEAVES

FOLDER = shipped.SWEEPS
SUFFIX = shipped.SUFFIX
DATASETS = ("mnist", "digits")
DATASET_SUFFIX = ".npz"
LARGEST_SEED = 2**31 - 1
"""Frameworks take seeds as signed 32-bit integers."""

LARGEST_COUNT = 2**31 - 1
LARGEST_EPOCHS = 10_000
"""The order of examples in every epoch is drawn beforehand and held in memory."""

PATH_KEYS = ("model", "dataset")
TEXT_KEYS = ("name", "description", "target", "optimizer", "scaling", "precision", "interleave")
"""Keys whose flags are texts, and those whose texts may be files; all others are numbers, separated by commas."""

TARGET_AXES = ("cpus", "steps_per_call")
"""Axes of targets: each value makes of each target one of its own."""

FLAGS = {"precision": "--compute-precision"}
"""Keys whose flags have another name: ``harness compare --precision`` is that of its interval."""

V = TypeVar("V")


def _one_of(allowed: tuple[str, ...], others: str = "") -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed and not (others and value.endswith(others)):
            extra = f", or a file that ends in {others}" if others else ""
            raise ValueError(f"{', '.join(allowed)}{extra}{wording.nearest(value, allowed)}")
        return value

    return AfterValidator(check)


def _at_most(largest: int) -> AfterValidator:
    def check(value: int) -> int:
        if value > largest:
            raise ValueError(f"a whole number from 1 to {largest}")
        return value

    return AfterValidator(check)


_LISTED = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
_AXIS = Field(min_length=1)
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")]
Count = Annotated[int, Field(ge=1), _at_most(LARGEST_COUNT)]
Epochs = Annotated[int, Field(ge=1), _at_most(LARGEST_EPOCHS)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


BatchSize = int | tuple[tuple[int, int], ...]
"""A fixed batch size, or a plan: (first epoch, batch size) of each piece, the first of epoch 0."""

_A_SIZE = "a whole number of 1 or more"
_A_PLAN = f"{_A_SIZE}, or the batch size from each of some epochs on, epoch 0 among them: {{ 0 = 64, 2 = 128 }}"


def _batch_size(value: object) -> BatchSize:
    """As written: in a table the epochs are texts in TOML and numbers in Python; ``0:64,2:128`` is what a flag has."""
    if isinstance(value, str) and ":" in value:
        value = dict(map(_piece, value.split(",")))
    if not isinstance(value, Mapping):
        return _size(value, _A_SIZE)
    epochs = [int(epoch) if str(epoch).isdecimal() else -1 for epoch in value]
    if 0 not in epochs or -1 in epochs or len(set(epochs)) < len(epochs):
        raise ValueError(_A_PLAN)
    pieces = sorted(zip(epochs, (_size(size, _A_PLAN) for size in value.values()), strict=True))
    return pieces[0][1] if len(pieces) == 1 else tuple(pieces)


def _piece(text: str) -> tuple[str, int | float | str]:
    epoch, _, size = text.partition(":")
    return epoch.strip(), _number(size)


def _size(value: object, allowed: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(allowed)
    if value > LARGEST_COUNT:
        raise ValueError(f"a whole number from 1 to {LARGEST_COUNT}")
    return value


_Size = Annotated[Any, BeforeValidator(_batch_size), WithJsonSchema({"type": "integer", "minimum": 1})]


class TrainingForm(BaseModel):
    """The table ``[training]``; defaults are those of the contract."""

    model_config = STRICT
    optimizer: Annotated[list[Annotated[str, _one_of(OPTIMIZERS)]], _LISTED, _AXIS] = [OptimizerSpec().name]
    learning_rate: Annotated[list[Positive], _LISTED, _AXIS] = [LearningRate().base]
    momentum: Fraction = OptimizerSpec().momentum
    beta_1: Fraction = OptimizerSpec().beta_1
    beta_2: Fraction = OptimizerSpec().beta_2
    epsilon: Positive = OptimizerSpec().epsilon
    drop_epochs: Annotated[list[Count], _LISTED] = list(LearningRate().drop_epochs)
    drop_factor: Positive = LearningRate().factor
    scaling: Annotated[str, _one_of(SCALINGS)] = LearningRate().scaling
    base_batch_size: Count = LearningRate().base_batch_size
    batch_rule: Annotated[str, _one_of(RULES)] = RULES[0]
    precision: Annotated[list[Annotated[str, _one_of(PRECISIONS)]], _LISTED, _AXIS] = [PRECISIONS[0]]


class SweepForm(BaseModel):
    """A sweep file."""

    model_config = STRICT
    name: Name
    description: str = ""
    model: Annotated[list[Text], _LISTED, _AXIS]
    target: Annotated[list[Text], _LISTED, _AXIS]
    dataset: Annotated[str, _one_of(DATASETS, DATASET_SUFFIX)]
    batch_size: Annotated[list[_Size], _LISTED, _AXIS]
    cpus: Annotated[list[Count], _LISTED, _AXIS] = []
    steps_per_call: Annotated[list[Count], _LISTED, _AXIS] = []
    epochs: Annotated[list[Epochs], _LISTED, _AXIS] = [1]
    seed: Annotated[list[Seed], _LISTED, _AXIS] = [0]
    train_examples: Count | None = None
    test_examples: Count | None = None
    interleave: Annotated[str, _one_of(INTERLEAVES)] = INTERLEAVES[0]
    training: TrainingForm = TrainingForm()
    targets: dict[str, dict[str, Any]] = {}
    slurm: dict[str, Any] = {}
    ray: dict[str, Any] = {}


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. Models and the dataset are names, or absolute paths of files; TARGET_AXES are in ``targets``.

    ``own_targets`` are the tables ``[targets.NAME]`` as written, ``launchers`` those of ``[slurm]`` and ``[ray]``.
    ``source`` is the preset or file as the person named it; ``base`` the folder that its relative paths refer to.
    ``flags`` maps dotted keys that came from the command line to their flags.
    """

    name: str
    description: str
    models: tuple[str, ...]
    targets: tuple[str, ...]
    dataset: str
    batch_sizes: tuple[BatchSize, ...]
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]
    train_examples: int | None
    test_examples: int | None
    optimizers: tuple[OptimizerSpec, ...]
    learning_rates: tuple[LearningRate, ...]
    precisions: tuple[str, ...]
    interleave: str
    own_targets: dict[str, Any]
    launchers: dict[str, dict[str, Any]]
    source: str
    base: Path
    flags: dict[str, str] = field(default_factory=dict)
    batch_rule: str = RULES[0]

    def where(self, key: str) -> str:
        """How an error should name a key: its flag, or the file and the key."""
        return _where(key, self.source, self.flags)

    def asked_by(self, key: str) -> str:
        """What gave a key its value where the person's flags did not: the preset, or the file."""
        if key in self.flags:
            return ""
        return f"the preset {self.source!r}" if self.source in presets() else self.source


@dataclass(frozen=True)
class SweepDefinition:
    """A sweep as Python writes it: ``tables`` are the keys of a sweep file; those of ``[training]`` may stand beside
    the others. ``models`` are those of its models that are objects, by name.
    """

    tables: Mapping[str, Any]
    models: Mapping[str, ModelSpec] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What errors call it."""
        return f"the sweep {self.tables.get('name', '')!r}"


@dataclass(frozen=True)
class Planned:
    """A cell of a sweep; ``skip`` says why it will not run, empty if it will."""

    cell: Cell
    skip: str


def presets() -> dict[str, str]:
    """Names of the built-in sweeps, in alphabetical order, and their descriptions."""
    return {name: str(tomlfile.read(path)["description"]) for name, path in shipped.files(FOLDER).items()}


def load(asked: str | SweepDefinition, overrides: Mapping[str, Any]) -> Sweep:
    """Read a preset or a file that ends in ``.toml``, or take a definition, with the flags' values in place of its own.

    ``overrides`` maps keys (those of ``[training]`` too) to what a flag gave: a value, numbers
    separated by commas, or several of these; None and empty sequences are flags not given. Raises UsageError.
    """
    if isinstance(asked, SweepDefinition):
        source, base, data = asked.source, Path.cwd(), _nested(asked.tables)
    else:
        path = _path(asked)
        source, base, data = asked, path.parent.absolute(), tomlfile.read(path)
    training = data.setdefault("training", {})
    flags: dict[str, str] = {}
    for key, value in overrides.items():
        if value is None or (isinstance(value, (list, tuple)) and not value):
            continue
        nested = key in TrainingForm.model_fields
        if not nested or isinstance(training, dict):
            (training if nested else data)[key] = _from_flag(key, value)
            flags[f"training.{key}" if nested else key] = FLAGS.get(key, f"--{key.replace('_', '-')}")
    form = tomlfile.validate(SweepForm, data, source, flags=flags)
    return _sweep(form, source, base, flags)


def expand(
    sweep: Sweep,
    models: Sequence[ModelSpec],
    targets: Sequence[Target],
    dataset: Dataset,
    inputs: Callable[[ModelSpec, int, int], Inputs],
) -> list[Planned]:
    """Return the sweep's cells, each once.

    ``models`` and ``targets`` are what the sweep's names stand for; ``inputs`` gives the digests for
    (model, seed, epochs) and is called once for each. Cells that differ only in target are neighbours, in the order of
    ``targets``; among the rest the batch size rises, of a plan its first. Raises UsageError if a model does not fit the
    dataset.
    """
    planned: list[Planned] = []
    sizes = sorted(set(sweep.batch_sizes), key=pieces_of)
    for model in _once(models):
        require_fit(sweep.where("model"), model, dataset)
        for epochs, seed in product(_once(sweep.epochs), _once(sweep.seeds)):
            drawn = inputs(model, seed, epochs)
            axes = _once(sweep.precisions), _once(sweep.optimizers), _once(sweep.learning_rates), sizes
            for training in _once(_training(sweep, epochs, seed, *values) for values in product(*axes)):
                for target in _once(targets):
                    cell = Cell(model, training, dataset, drawn, target)
                    planned.append(Planned(cell, _reason_to_skip(cell)))
    return planned


def _training(
    sweep: Sweep,
    epochs: int,
    seed: int,
    precision: str,
    optimizer: OptimizerSpec,
    rate: LearningRate,
    size: BatchSize,
) -> TrainingSpec:
    pieces, rate = batch_rules.planned(sweep.batch_rule, size, rate) if isinstance(size, int) else (size, rate)
    (_, first), *changes = pieces
    return TrainingSpec(first, epochs, optimizer, rate, seed, precision, batch_changes=tuple(changes))


def pieces_of(size: BatchSize) -> tuple[tuple[int, int], ...]:
    """(first epoch, batch size) of each piece of a plan; a fixed size is one piece."""
    return ((0, size),) if isinstance(size, int) else size


def _nested(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables as a file has them, their tuples as lists, with a table of training of their own."""
    listed = {key: list(value) if isinstance(value, (tuple, range)) else value for key, value in tables.items()}
    of_training = {key: listed.pop(key) for key in list(listed) if key in TrainingForm.model_fields}
    training = listed.get("training", {})
    if of_training and isinstance(training, Mapping):
        listed["training"] = {**training, **of_training}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in listed.items()}


def _where(key: str, source: str, flags: Mapping[str, str]) -> str:
    return flags.get(key, f"{source}: key {key}")


def _path(source: str) -> Path:
    if source.endswith(SUFFIX):
        return Path(source)
    if source in presets():
        return FOLDER / f"{source}{SUFFIX}"
    hint = wording.nearest(source, presets())
    raise UsageError(
        f"no preset is called {source!r}{hint}; allowed: {', '.join(presets())}, or a file that ends in {SUFFIX}"
    )


def _from_flag(key: str, value: Any) -> Any:
    """A flag's value or values as TOML would have it; a path refers to the current folder."""
    parts: list[Any] = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(item, str):
            parts.append(item)
        elif key in PATH_KEYS:
            parts.append(_absolute(item, Path.cwd()))
        elif key in TEXT_KEYS or (key == "batch_size" and ":" in item):
            parts.append(item)
        else:
            parts.extend(_number(part) for part in item.split(","))
    return parts[0] if len(parts) == 1 else parts


def _number(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _absolute(name_or_file: str, base: Path) -> str:
    is_file = name_or_file.endswith((SUFFIX, DATASET_SUFFIX))
    return str(base / name_or_file) if is_file else name_or_file


def _sweep(form: SweepForm, source: str, base: Path, flags: dict[str, str]) -> Sweep:
    training = form.training
    _require_rule(form, _where("training.batch_rule", source, flags))
    return Sweep(
        name=form.name,
        description=form.description,
        models=_once(_absolute(model, base) for model in form.model),
        targets=_targets(form, source, flags),
        dataset=_absolute(form.dataset, base),
        batch_sizes=_once(form.batch_size),
        epochs=_once(form.epochs),
        seeds=_once(form.seed),
        train_examples=form.train_examples,
        test_examples=form.test_examples,
        optimizers=_once(_optimizer(name, training) for name in training.optimizer),
        learning_rates=_once(_learning_rate(rate, training) for rate in training.learning_rate),
        precisions=_once(training.precision),
        interleave=form.interleave,
        own_targets=form.targets,
        launchers={"slurm": form.slurm, "ray": form.ray},
        source=source,
        base=base,
        flags=flags,
        batch_rule=training.batch_rule,
    )


def _require_rule(form: SweepForm, where: str) -> None:
    """Raise UsageError for a rule of batch sizes that has nothing to go by, or that is not alone."""
    training = form.training
    if training.batch_rule == RULES[0]:
        return
    found = f"{where}: found {training.batch_rule!r}"
    if not training.drop_epochs or training.drop_factor >= 1:
        raise UsageError(f"{found} without drop_epochs and a drop_factor below 1, which say where batches grow")
    if training.scaling != "none":
        raise UsageError(f"{found} beside scaling {training.scaling!r}, allowed: 'none', as the rule sets the rate")
    if any(not isinstance(size, int) for size in form.batch_size):
        raise UsageError(f"{found} beside a plan in batch_size, allowed: the batch sizes that it starts from")


def _targets(form: SweepForm, source: str, flags: Mapping[str, str]) -> tuple[str, ...]:
    """The targets' texts; with an axis of TARGET_AXES one of each for every value of it."""
    texts = _once(form.target)
    for key in TARGET_AXES:
        numbers: list[int] = getattr(form, key)
        for text in form.target if numbers else ():
            if any(option.startswith(f"{key}=") for option in text.split("@")[1:]):
                raise UsageError(
                    f"{_where(key, source, flags)}: found {wording.shown(numbers)} beside the target {text!r}, "
                    f"allowed: numbers here or @{key}= in targets, not both"
                )
        texts = _once(f"{text.strip()}@{key}={count}" for text in texts for count in numbers) if numbers else texts
    return texts


def _optimizer(name: str, training: TrainingForm) -> OptimizerSpec:
    """Constants that the optimizer ignores keep their defaults, so that equal work has equal ids."""
    if name in ("momentum", "nesterov"):
        return OptimizerSpec(name, momentum=training.momentum)
    if name == "adam":
        return OptimizerSpec(name, beta_1=training.beta_1, beta_2=training.beta_2, epsilon=training.epsilon)
    return OptimizerSpec(name)


def _learning_rate(base: float, training: TrainingForm) -> LearningRate:
    """As for the optimizer: what has no effect keeps its default."""
    unused = LearningRate()
    drops = tuple(sorted(set(training.drop_epochs)))
    return LearningRate(
        base=base,
        drop_epochs=drops,
        factor=training.drop_factor if drops else unused.factor,
        scaling=training.scaling,
        base_batch_size=unused.base_batch_size if training.scaling == "none" else training.base_batch_size,
    )


def _once(values: Iterable[V]) -> tuple[V, ...]:
    """The values in order, without repetitions."""
    return tuple(dict.fromkeys(values))


def known_dataset(where: str, name: str) -> str:
    """The name of a built-in dataset, or of a file of one; ``where`` names the flag. Raises UsageError."""
    if name not in DATASETS and not name.endswith(DATASET_SUFFIX):
        allowed = f"{', '.join(DATASETS)}, or a file that ends in {DATASET_SUFFIX}"
        raise UsageError(f"{where}: found {name!r}{wording.nearest(name, DATASETS)}, allowed: {allowed}")
    return name


def require_fit(where: str, model: ModelSpec, dataset: Dataset) -> None:
    """Raise UsageError, which begins with ``where``, unless a model takes the dataset's images and classes."""
    if model.input_shape != dataset.image_shape:
        taken, given = ("x".join(map(str, shape)) for shape in (model.input_shape, dataset.image_shape))
        raise UsageError(f"{where}: {model.name!r} takes images of {taken}, but those of {dataset.name!r} are {given}")
    if model.classes != dataset.classes:
        raise UsageError(
            f"{where}: {model.name!r} ends in {model.classes} values, "
            f"but {dataset.name!r} has {dataset.classes} classes"
        )


def _reason_to_skip(cell: Cell) -> str:
    training, dataset, target = cell.training, cell.dataset, cell.target
    largest, steps = max(training.batch_sizes), min(training.epoch_steps(dataset.train_examples))
    if steps == 0:
        return f"batch size {largest} is larger than the {dataset.train_examples} training examples"
    if training.batch_changes and target.steps_per_call > 1:
        return PLAN_AND_STEPS_PER_CALL
    if steps < target.steps_per_call:
        return wording.call_too_long(target.steps_per_call, steps, largest)
    return cell.why_no_microbatch
