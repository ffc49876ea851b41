"""Models as people write them: a TOML file, or the name of a built-in one, to a checked ``ModelSpec``.

    name = "mnist-cnn"
    input_shape = [28, 28, 1]      # height, width, channels
    [[layers]]
    kind = "conv2d"
    filters = 32
    kernel = [4, 4]                # or 4

The keys of each layer are the fields of its dataclass in ``harness.core.model``, with the same defaults.
Built-in models are the files in ``harness/plan/builtin/models/``. Every mistake is a ``UsageError`` of one line that
names the file, the layer by number and kind, and the key.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from harness import wording
from harness.core.errors import ModelError, UsageError
from harness.core.model import LAYERS, Layer, ModelSpec
from harness.plan import shipped, tomlfile

SUFFIX = shipped.SUFFIX


def _pair(value: Any) -> Any:
    """A scalar stands for both axes."""
    return (value, value) if type(value) is int else _fixed(value)


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Pair = Annotated[
    tuple[int, int],
    BeforeValidator(_pair),
    Field(description="a whole number, or a pair of them such as [4, 4]"),
]
ImageShape = Annotated[
    tuple[int, int, int],
    BeforeValidator(_fixed),
    Field(description="three whole numbers: [height, width, channels]"),
]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ModelForm(BaseModel):
    """A model file; the layers are checked one by one, each by the form of its kind."""

    model_config = STRICT
    name: Annotated[str, Field(min_length=1)]
    input_shape: ImageShape
    layers: Annotated[list[dict[str, Any]], Field(description="tables headed [[layers]], at least one", min_length=1)]


def built_in() -> dict[str, Path]:
    """Names of the built-in models, in alphabetical order, and their files."""
    return shipped.files(shipped.MODELS)


def names() -> list[str]:
    """Names of the built-in models, in alphabetical order."""
    return list(built_in())


def load(name_or_file: str) -> ModelSpec:
    """Return a built-in model, or the one in a file (anything that ends in ``.toml``).

    Raises UsageError for unknown names, missing or damaged files and wrong keys, and its subclass
    ModelError for layers that do not fit together.
    """
    if name_or_file.endswith(SUFFIX):
        return _from_file(Path(name_or_file))
    path = built_in().get(name_or_file)
    if path is None:
        hint = wording.nearest(name_or_file, names())
        raise UsageError(
            f"no model is called {name_or_file!r}{hint}; allowed: {', '.join(names())}, or a file that ends in {SUFFIX}"
        )
    return _from_file(path)


def build(layers: Sequence[Layer], input_shape: Sequence[int], name: str) -> ModelSpec:
    """A model of layers that are objects, checked as one in a file is; a whole number stands for a pair of them.

    ``input_shape``: height, width, channels of an image. Raises UsageError, ModelError.
    """
    return _checked({"name": name, "input_shape": list(input_shape), "layers": _tables(layers)}, f"model {name!r}")


def _tables(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    wrong = [layer for layer in layers if not isinstance(layer, tuple(LAYERS.values()))]
    if wrong:
        allowed = ", ".join(cls.__name__ for cls in LAYERS.values())
        raise UsageError(f"layers: found {wording.shown(wrong[0])}, allowed: {allowed}")
    return [{"kind": layer.kind, **_given(layer)} for layer in layers]


def _given(layer: Layer) -> dict[str, Any]:
    """What a layer was given beyond its defaults, as a file would say it."""
    fields = {field.name: (getattr(layer, field.name), field.default) for field in dataclasses.fields(layer)}
    given = {key: value for key, (value, default) in fields.items() if value != default}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _from_file(path: Path) -> ModelSpec:
    return _checked(tomlfile.read(path), str(path))


def _checked(tables: dict[str, Any], where: str) -> ModelSpec:
    form = tomlfile.validate(ModelForm, tables, where)
    layers = tuple(_layer(table, f"{where}: layer {number}") for number, table in enumerate(form.layers, start=1))
    model = ModelSpec(name=form.name, input_shape=form.input_shape, layers=layers)
    try:
        _ = model.traced
    except ModelError as error:
        raise ModelError(f"{where}: {error.where}", error.problem) from None
    return model


def _layer(table: dict[str, Any], where: str) -> Any:
    """One ``[[layers]]`` table to its dataclass."""
    if "kind" not in table:
        raise UsageError(f"{where}: missing key 'kind', allowed: {', '.join(LAYERS)}")
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in LAYERS:
        hint = wording.nearest(str(kind), LAYERS)
        raise UsageError(f"{where}: key kind: found {wording.shown(kind)}, allowed: {', '.join(LAYERS)}{hint}")
    keys = {key: value for key, value in table.items() if key != "kind"}
    form = tomlfile.validate(_form(kind), keys, f"{where} ({kind})")
    return LAYERS[kind](**{key: getattr(form, key) for key in type(form).model_fields})


@cache
def _form(kind: str) -> type[BaseModel]:
    """The pydantic model of a layer's table, made from its dataclass: same keys, types and defaults."""
    cls = LAYERS[kind]
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        is_pair = tuple[int, int] in (hints[field.name], *typing.get_args(hints[field.name]))
        default = ... if field.default is dataclasses.MISSING else field.default
        fields[field.name] = (Pair if is_pair else hints[field.name], default)
    form: type[BaseModel] = create_model(cls.__name__, __config__=STRICT, **fields)
    return form
