"""Sweeps: what a person wrote (a preset, a TOML file, flags) to a checked ``Sweep``, and that to cells.

    name = "mine"
    model = "mnist-cnn"                       # or a file that ends in .toml, relative to this one
    target = ["tensorflow-cpu", "jax-cpu"]    # name[:mode][@key=value]
    dataset = "digits"                        # mnist, digits, or a file that ends in .npz
    batch_size = [32, { 0 = 64, 2 = 128 }]    # fixed, or a plan: the batch size from each of these epochs on
                                              # { 0 = 64, step300 = 128 }: from each of these steps on
                                              # 32..4096 doubles from 32 on; 32..max, as far as memory holds
    memory = "4GiB"                           # with that: what a worker on processors may take
    until_accuracy = 0.98                     # in place of epochs: train until a test accuracy, for max_epochs at most
    max_epochs = 20
    evaluate_every = 100                      # steps between evaluations, beside those after each epoch
    cpus = [1, 2]                             # processors per worker; all if not given
    batch_size_per_device = [32]              # in place of batch_size: that of each device, times their number
    steps_per_call = [1, 8]                   # training steps in one call of the framework; 1 if not given
    devices = [1, 2]                          # devices that split each batch; 1 if not given
    [training]
    learning_rate = [0.01, 0.1]

Axes take one value or a list: model, target, cpus, steps_per_call, batch_size, epochs, seed, optimizer, learning_rate,
precision. A sweep has one cell for each combination of them; each number of cpus, or of steps per call, makes of each
target one of its own. ``learning_rate = { 32 = 0.01, 512 = 0.08 }`` goes with the batch size instead. Presets are the
files in ``harness/plan/builtin/sweeps/``. Every mistake is a ``UsageError`` of one line that names file and key, or the
flag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from harness import wording
from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.training import (
    DECAYS,
    EPOCH,
    OPTIMIZERS,
    PRECISIONS,
    SCALINGS,
    STEP,
    WEIGHT_DECAY_FORMS,
    LearningRate,
    OptimizerSpec,
    TrainingSpec,
)
from harness.plan import batch_rules, shipped, tomlfile, trainable
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
TEXT_KEYS = (
    *("name", "description", "target", "optimizer", "scaling", "precision", "interleave"),
    *("decay", "weight_decay_form"),
)
"""Keys whose flags are texts, and those whose texts may be files; all others are numbers, separated by commas."""

TARGET_AXES = ("cpus", "steps_per_call", "devices")
"""Axes of targets: each value makes of each target one of its own."""

RATE_KEY = "learning_rate"
"""The key that may also be a table: batch size -> rate."""

FLAGS = {"precision": "--compute-precision"}
"""Keys whose flags have another name: ``harness compare --precision`` is that of its interval."""

FIND = "find"
"""In place of a learning rate: one that is searched for, for each work and batch size."""

TO_FIND = 0.0
"""The base of a rate that is still to be found; no other is zero."""

SizeOf = tuple[ModelSpec, OptimizerSpec, str, int]
RateOf = Callable[[ModelSpec, OptimizerSpec, str, int], float]
"""Gives the rate that was found for a model, optimizer, precision and batch size."""

SizeHeld = Callable[[Cell], int | None]

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
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class BySteps:
    """A plan of batch sizes whose pieces begin at steps: (first step, batch size) of each, the first of step 0."""

    pieces: tuple[tuple[int, int], ...]


BatchSize = int | tuple[tuple[int, int], ...] | BySteps
"""A fixed batch size, or a plan: (first epoch, batch size) of each piece, the first of epoch 0; or one by steps."""

_A_SIZE = "a whole number of 1 or more"
_A_PLAN = (
    f"{_A_SIZE}, or the batch size from each of some epochs on, epoch 0 among them: {{ 0 = 64, 2 = 128 }}; or of some "
    "steps: { 0 = 64, step300 = 128 }"
)
_START = re.compile(r"(step)? ?(\d+)")


@dataclass(frozen=True)
class UpToMemory:
    """``FIRST..max``: batch sizes that double from the first on, as far as memory holds them."""

    first: int


_RANGE = re.compile(r"([1-9]\d*) *\.\. *([1-9]\d*|max)")


def doubled(first: int, last: int) -> list[int]:
    """The first, its double, and so on, up to the last, which is among them."""
    found = [first]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return found


def _unrolled(value: object) -> list[object]:
    """The list of batch sizes, a range in it as what it stands for."""
    found: list[object] = []
    for item in value if isinstance(value, list) else [value]:
        ends = _RANGE.fullmatch(item.strip()) if isinstance(item, str) else None
        if ends is None:
            found.append(item)
        elif ends[2] == "max":
            found.append(UpToMemory(_size(int(ends[1]), _A_SIZE)))
        elif int(ends[1]) > int(ends[2]):
            raise ValueError(f"{_A_SIZE}, or from a smaller one to a larger: {ends[2]}..{ends[1]}")
        else:
            found += doubled(int(ends[1]), _size(int(ends[2]), _A_SIZE))
    return found


def _batch_size(value: object) -> BatchSize | UpToMemory:
    """As written: in a table the epochs are texts in TOML and numbers in Python; ``0:64,2:128`` is what a flag has.

    A step is written ``step300``.
    """
    if isinstance(value, UpToMemory):
        return value
    if isinstance(value, str) and ":" in value:
        value = dict(map(_piece, value.split(",")))
    if not isinstance(value, Mapping):
        return _size(value, _A_SIZE)
    found = [_START.fullmatch(str(start).strip()) for start in value]
    units, starts = {one and one[1] for one in found if one and int(one[2])}, [one and int(one[2]) for one in found]
    if 0 not in starts or None in starts or len(set(starts)) < len(starts) or len(units) > 1:
        raise ValueError(_A_PLAN)
    sizes = [_size(size, _A_PLAN) for size in value.values()]
    pieces = tuple(sorted((start, size) for start, size in zip(starts, sizes, strict=True) if start is not None))
    if len(pieces) == 1:
        return pieces[0][1]
    return BySteps(pieces) if STEP in units else pieces


def _piece(text: str) -> tuple[str, int | float | str]:
    start, _, size = text.partition(":")
    return start.strip(), _number(size)


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
    warmup_steps: Annotated[int, Field(ge=0), _at_most(LARGEST_COUNT)] = LearningRate().warmup_steps
    warmup_epochs: Annotated[int, Field(ge=0), _at_most(LARGEST_EPOCHS)] = LearningRate().warmup_epochs
    decay: Annotated[str, _one_of(DECAYS)] = LearningRate().decay
    decay_power: Positive = LearningRate().decay_power
    decay_to: Fraction = LearningRate().decay_to
    weight_decay: NotNegative = OptimizerSpec().weight_decay
    weight_decay_form: Annotated[str, _one_of(WEIGHT_DECAY_FORMS)] = OptimizerSpec().weight_decay_form
    clip_norm: NotNegative = OptimizerSpec().clip_norm
    label_smoothing: Fraction = 0.0
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
    batch_size: Annotated[list[_Size], BeforeValidator(_unrolled), _AXIS]
    batch_size_per_device: Annotated[list[Count], _LISTED] = []
    memory: Text | None = None
    cpus: Annotated[list[Count], _LISTED, _AXIS] = []
    steps_per_call: Annotated[list[Count], _LISTED, _AXIS] = []
    devices: Annotated[list[Count], _LISTED, _AXIS] = []
    epochs: Annotated[list[Epochs], _LISTED, _AXIS] = [1]
    until_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    max_epochs: Epochs | None = None
    evaluate_every: Count | None = None
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
    ``flags`` maps dotted keys that came from the command line to their flags. ``rates_by_size``: a rate for each batch
    size, in rising order, in place of ``learning_rates``, which are then empty. ``finds_rates``: whether one of
    ``learning_rates`` stands for one that is to be found (TO_FIND). ``up_to_memory``: where not 0, the first of further
    batch sizes that double as far as memory holds them; ``memory``: what of it may be taken. ``per_device``: where not
    empty, each target has those batch sizes times its devices alone, of which ``batch_sizes`` are all.
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
    rates_by_size: tuple[tuple[int, LearningRate], ...] = ()
    label_smoothing: float = 0.0
    finds_rates: bool = False
    until_accuracy: float = 0.0
    evaluate_every: int = 0
    up_to_memory: int = 0
    memory: str = ""
    batch_rule: str = RULES[0]
    per_device: tuple[int, ...] = ()

    def rates_and_sizes(self) -> list[tuple[LearningRate, BatchSize]]:
        """Each rate with each batch size, which rises; or each batch size with the rate that goes with it."""
        sizes = sorted(set(self.batch_sizes), key=rising)
        if self.rates_by_size:
            by_size = dict(self.rates_by_size)
            return [(by_size[pieces_of(size)[0][1]], size) for size in sizes]
        return list(product(_once(self.learning_rates), sizes))

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
    written = training.get(RATE_KEY) if isinstance(training, dict) else None
    by_size = written if isinstance(written, Mapping) else None
    listed = written if isinstance(written, list) else [written]
    finds, numbers = FIND in listed, [rate for rate in listed if rate != FIND]
    if by_size is not None or finds:
        rest = {RATE_KEY: numbers} if finds and numbers else {}
        data["training"] = {**{key: value for key, value in training.items() if key != RATE_KEY}, **rest}
    _require_one_kind_of_size(data, source, flags)
    form = tomlfile.validate(SweepForm, data, source, flags=flags)
    _check_schedule(form.training, source, flags)
    found = _sweep(form, source, base, flags)
    if (finds or by_size is not None) and form.training.scaling != "none":
        raise UsageError(
            f"{found.where('training.scaling')}: found {form.training.scaling!r} beside a learning rate for each batch "
            "size, allowed: none"
        )
    if finds:
        to_find = replace(_learning_rate(form.training.learning_rate[0], form.training), base=TO_FIND)
        return replace(found, finds_rates=True, learning_rates=(*(found.learning_rates if numbers else ()), to_find))
    if by_size is not None and found.up_to_memory:
        where = found.where(f"training.{RATE_KEY}")
        raise UsageError(f"{where}: found a rate for each batch size beside sizes up to memory, allowed: one for all")
    return found if by_size is None else _with_rates(found, by_size, form.training)


def expand(
    sweep: Sweep,
    models: Sequence[ModelSpec],
    targets: Sequence[Target],
    dataset: Dataset,
    inputs: Callable[[ModelSpec, int, int], Inputs],
    found: RateOf | None = None,
    held: SizeHeld = lambda cell: None,
) -> list[Planned]:
    """Return the sweep's cells, each once, with the rates that were ``found`` where there are such.

    ``held``: the largest batch size that memory holds of a cell's work on its target; None where that is not asked for.

    ``models`` and ``targets`` are what the sweep's names stand for; ``inputs`` gives the digests for
    (model, seed, epochs) and is called once for each. Cells that differ only in target are neighbours, in the order of
    ``targets``; among the rest the batch size rises, of a plan its first. Raises UsageError if a model does not fit the
    dataset.
    """
    planned: list[Planned] = []
    for model in _once(models):
        require_fit(sweep.where("model"), model, dataset)
        for epochs, seed in product(_once(sweep.epochs), _once(sweep.seeds)):
            drawn = inputs(model, seed, epochs)
            axes = _once(sweep.precisions), _once(sweep.optimizers), sweep.rates_and_sizes()
            asked = (training_of(sweep, epochs, seed, *values) for values in product(*axes))
            for training in _once(one.reached(dataset.train_examples) for one in asked):
                if found is not None and training.learning_rate.base == TO_FIND:
                    base = found(model, training.optimizer, training.precision, training.batch_size)
                    training = replace(training, learning_rate=replace(training.learning_rate, base=base))
                for target in _once(targets):
                    if sweep.per_device and training.batch_size not in {
                        size * target.devices for size in sweep.per_device
                    }:
                        continue
                    cell = Cell(model, training, dataset, drawn, target)
                    planned.append(Planned(cell, trainable.why_not(cell) or _too_large(cell, held(cell))))
    return planned


def smallest(
    sweep: Sweep,
    models: Sequence[ModelSpec],
    targets: Sequence[Target],
    dataset: Dataset,
    inputs: Callable[[ModelSpec, int, int], Inputs],
) -> list[Cell]:
    """A cell of one epoch and batch size one for each of what decides how much of it memory holds.

    Raises UsageError if a model does not fit the dataset.
    """
    found = []
    for model in _once(models):
        require_fit(sweep.where("model"), model, dataset)
        drawn = inputs(model, sweep.seeds[0], 1)
        for precision, optimizer, target in product(_once(sweep.precisions), _once(sweep.optimizers), _once(targets)):
            training = TrainingSpec(1, 1, optimizer, seed=sweep.seeds[0], precision=precision)
            found.append(Cell(model, training, dataset, drawn, target))
    return found


def with_sizes_up_to(sweep: Sweep, most: int) -> Sweep:
    """The sweep with the sizes that double from ``up_to_memory`` on, none above ``most`` but the first."""
    sizes = [sweep.up_to_memory]
    while 2 * sizes[-1] <= most:
        sizes.append(2 * sizes[-1])
    return replace(sweep, batch_sizes=_once((*sweep.batch_sizes, *sizes)))


def training_of(
    sweep: Sweep,
    epochs: int,
    seed: int,
    precision: str,
    optimizer: OptimizerSpec,
    rate_and_size: tuple[LearningRate, BatchSize],
) -> TrainingSpec:
    """The training of one combination of a sweep's axes."""
    rate, size = rate_and_size
    pieces = pieces_of(size)
    if isinstance(size, int):
        pieces, rate = batch_rules.planned(sweep.batch_rule, size, rate)
    (_, first), *changes = pieces
    return TrainingSpec(
        first,
        epochs,
        optimizer,
        rate,
        seed,
        precision,
        sweep.label_smoothing,
        batch_changes=tuple(changes),
        batch_changes_by=STEP if isinstance(size, BySteps) else EPOCH,
        until_accuracy=sweep.until_accuracy,
        evaluate_every=sweep.evaluate_every,
    )


def pieces_of(size: BatchSize) -> tuple[tuple[int, int], ...]:
    """(first epoch, or step, batch size) of each piece of a plan; a fixed size is one piece."""
    if isinstance(size, BySteps):
        return size.pieces
    return ((0, size),) if isinstance(size, int) else size


def rising(size: BatchSize) -> tuple[tuple[tuple[int, int], ...], bool]:
    """What sorts batch sizes and plans by their first size."""
    return pieces_of(size), isinstance(size, BySteps)


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
    if key == RATE_KEY and isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], Mapping):
        return value[0]
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
    if key == RATE_KEY and parts and all(isinstance(part, str) and ":" in part for part in parts):
        rates = {size: _number(rate) for size, _, rate in (part.partition(":") for part in parts)}
        if len(rates) == len(parts):
            return rates
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
        batch_sizes=_sizes_of_all_devices(form)
        or _once(size for size in form.batch_size if not isinstance(size, UpToMemory)),
        per_device=_once(form.batch_size_per_device),
        up_to_memory=min((size.first for size in form.batch_size if isinstance(size, UpToMemory)), default=0),
        memory=form.memory or "",
        epochs=_epochs(form, source, flags),
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
        label_smoothing=training.label_smoothing,
        until_accuracy=form.until_accuracy or 0.0,
        evaluate_every=form.evaluate_every or 0,
        batch_rule=training.batch_rule,
    )


_DEVICES = re.compile(r"@devices=([0-9]+)(?:@|$)")


def _require_one_kind_of_size(data: dict[str, Any], source: str, flags: Mapping[str, str]) -> None:
    """Batch sizes of all devices together or of each: the latter by a flag take the place of the former in a file.

    ``data`` is given what is checked in place of the former. Raises UsageError where both are said together.
    """
    key = "batch_size_per_device"
    if key not in data:
        return
    if "batch_size" in data and ("batch_size" in flags) == (key in flags):
        raise UsageError(f"{_where(key, source, flags)}: found beside batch_size, allowed: one of the two")
    if key in flags or "batch_size" not in data:
        data["batch_size"] = 1
    else:
        del data[key]


def _sizes_of_all_devices(form: SweepForm) -> tuple[int, ...]:
    """Each batch size of a device times each number of devices that a target has; none where none is asked for."""
    asked = [_DEVICES.search(text) for text in form.target]
    counts = form.devices or [int(found[1]) if found else 1 for found in asked]
    return _once(size * count for size in form.batch_size_per_device for count in counts)


def _epochs(form: SweepForm, source: str, flags: Mapping[str, str]) -> tuple[int, ...]:
    """Numbers of epochs; where an accuracy may end the training, the most that it may take."""
    if form.until_accuracy is None:
        if form.max_epochs is not None:
            raise UsageError(f"{_where('max_epochs', source, flags)}: only with until_accuracy; epochs says how many")
        return _once(form.epochs)
    if form.max_epochs is None:
        where = _where("until_accuracy", source, flags)
        raise UsageError(f"{where}: found no max_epochs, which says when training that does not get there ends")
    if "epochs" in flags:
        raise UsageError(f"{flags['epochs']}: found beside until_accuracy, allowed: max_epochs alone")
    return (form.max_epochs,)


def _with_rates(sweep: Sweep, by_size: Mapping[Any, Any], training: TrainingForm) -> Sweep:
    """The sweep with a rate for each batch size, a plan with that of its first.

    Raises UsageError, where one has none or is not in the sweep.
    """
    where = sweep.where(f"training.{RATE_KEY}")
    sizes = sorted({pieces_of(size)[0][1] for size in sweep.batch_sizes})
    named = {str(size): size for size in sizes}
    rates: dict[int, LearningRate] = {}
    for key, rate in by_size.items():
        size = named.get(str(key).strip())
        if size is None:
            raise UsageError(
                f"{where}: found a rate for batch size {key}, allowed: those of the sweep ({', '.join(named)})"
            )
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise UsageError(f"{where}: found {wording.shown(rate)} for {size}, allowed: a number greater than 0")
        rates[size] = _learning_rate(float(rate), training)
    for size in sizes:
        if size not in rates:
            raise UsageError(f"{where}: no rate for batch size {size}, allowed: one for each of {', '.join(named)}")
    return replace(sweep, learning_rates=(), rates_by_size=tuple(sorted(rates.items())))


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
    if not all(isinstance(size, (int, UpToMemory)) for size in form.batch_size):
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


def _check_schedule(training: TrainingForm, source: str, flags: Mapping[str, str]) -> None:
    """Raise UsageError for parts of a schedule that do not go together."""
    for key, other in (("warmup_steps", "warmup_epochs"), ("decay", "drop_epochs")):
        values = getattr(training, key), getattr(training, other)
        if values[0] != TrainingForm.model_fields[key].default and values[1]:
            raise UsageError(
                f"{_where(f'training.{key}', source, flags)}: found {wording.shown(values[0])} beside {other}, "
                "allowed: one of the two"
            )


def _optimizer(name: str, training: TrainingForm) -> OptimizerSpec:
    """Constants that the optimizer ignores keep their defaults, so that equal work has equal ids."""
    unused = OptimizerSpec()
    spec = replace(
        unused,
        name=name,
        weight_decay=training.weight_decay,
        weight_decay_form=training.weight_decay_form if training.weight_decay else unused.weight_decay_form,
        clip_norm=training.clip_norm,
    )
    if name in ("momentum", "nesterov"):
        return replace(spec, momentum=training.momentum)
    if name == "adam":
        return replace(spec, beta_1=training.beta_1, beta_2=training.beta_2, epsilon=training.epsilon)
    return spec


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
        warmup_steps=training.warmup_steps,
        warmup_epochs=training.warmup_epochs,
        decay=training.decay,
        decay_power=training.decay_power if training.decay == "polynomial" else unused.decay_power,
        decay_to=training.decay_to if training.decay != "none" else unused.decay_to,
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


def _too_large(cell: Cell, held: int | None) -> str:
    largest = max(cell.training.batch_sizes)
    if held is None or largest <= held:
        return ""
    return f"batch size {largest} is more than memory holds there: {held} at most"
