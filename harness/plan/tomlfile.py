"""TOML files that people write: read them, check them, and say in one line what is wrong.

``read`` gives plain values; ``validate`` turns them into a pydantic model. Every error is a ``UsageError``
of one line that names the file, the key, what was found and what is allowed. What is allowed is
taken from the model's own JSON schema, so it cannot drift from what is checked; a field's
``description`` replaces that text where better words exist.

Importing this module is cheap: the TOML parser and pydantic are imported when they are first used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.core.errors import UsageError
from harness.wording import _closest, shown

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    T = TypeVar("T", bound=BaseModel)

Location = tuple[str | int, ...]


def read(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises UsageError: missing or unreadable file, not UTF-8, not TOML (with its line)."""
    parser = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        # Editors on Windows put a byte order mark first, which TOML does not know.
        content: dict[str, Any] = parser.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{path}: not TOML: nested too deeply") from None
    return content


def validate(
    cls: type[T], data: Mapping[str, Any], file: str, within: str = "", flags: Mapping[str, str] | None = None
) -> T:
    """Check ``data`` against the pydantic model ``cls`` and build it.

    ``file`` opens the error's line; ``within`` is the dotted key of the table that ``data`` is, empty for
    the whole file. ``flags`` maps dotted keys that came from the command line to their flags, which then
    stand in the error instead of file and key. Raises UsageError for the first mistake, unknown
    keys before others: a misspelt key is often why another is missing.
    """
    from pydantic import ValidationError

    try:
        return cls.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    raise UsageError(_sentence(first, cls.model_json_schema(by_alias=True), data, file, within, flags or {}))


def _sentence(
    problem: ErrorDetails,
    schema: dict[str, Any],
    data: Mapping[str, Any],
    file: str,
    within: str,
    flags: Mapping[str, str],
) -> str:
    location, definitions = problem["loc"], schema.get("$defs", {})
    missing, unknown = problem["type"] == "missing", problem["type"] == "extra_forbidden"
    path, found, place = _walk(location[:-1] if missing or unknown else location, data, schema)
    table = _dotted((*((within,) if within else ()), *path))
    # A list that is too short misses a number, not a key: then the list itself is what was found.
    if (missing or unknown) and isinstance(location[-1], str):
        return _key_sentence(location[-1], missing, place, definitions, file, f" in [{table}]" if table else "")
    allowed = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else _allowed(place, definitions)
    if problem["type"] == "finite_number" and "description" not in place:
        allowed = f"{allowed} (finite)"
    subject = flags.get(_dotted(tuple(part for part in path if isinstance(part, str))))
    subject = subject or (f"{file}: key {table}" if table else file)
    return f"{subject}: found {shown(found)}, allowed: {allowed}"


def _key_sentence(
    key: str, missing: bool, place: dict[str, Any], definitions: dict[str, Any], file: str, inside: str
) -> str:
    properties = place.get("properties", {})
    if missing:
        return f"{file}: missing key {key!r}{inside}, allowed: {_allowed(properties.get(key, {}), definitions)}"
    close = _closest(key, properties)
    hint = f"did you mean {close!r}? " if close else ""
    return f"{file}: unknown key {key!r}{inside}; {hint}allowed: {', '.join(properties)}"


def _walk(location: Location, data: Any, schema: dict[str, Any]) -> tuple[Location, Any, dict[str, Any]]:
    """Follow a pydantic location through the data and the schema at once.

    Parts that are not in the data (the index of a scalar that was wrapped into a list, the name of a
    union's branch) are left out of the path. Returns the path, the value there, and its schema.
    """
    definitions = schema.get("$defs", {})
    path: list[str | int] = []
    for part in location:
        schema = _resolved(schema, definitions)
        if isinstance(part, int):
            schema = schema.get("items", schema)
        else:
            schema = schema.get("properties", {}).get(part) or _table_of(schema) or schema
        if isinstance(data, Mapping) and part in data:
            path.append(part)
            data = data[str(part)]
        elif isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    return tuple(path), data, _resolved(schema, definitions)


def _table_of(schema: dict[str, Any]) -> dict[str, Any] | None:
    items = schema.get("additionalProperties")
    return items if isinstance(items, dict) else None


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference; see through an optional field, since TOML has no null."""
    # pydantic before 2.9 wraps a reference that has a default into allOf.
    wrapped = schema.get("anyOf") or schema.get("allOf") or []
    branches = [branch for branch in wrapped if branch.get("type") != "null"]
    if len(branches) == 1:
        schema = {**schema, **branches[0]}
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return {**target, **({"description": schema["description"]} if "description" in schema else {})}
    return schema


def _dotted(path: Location) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text


def _allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in words."""
    schema = _resolved(schema, definitions)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return "a table"
    if "description" in schema:
        return str(schema["description"])
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_allowed(branch, definitions) for branch in schema["anyOf"] if branch.get("type") != "null")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "array":
        count = "at least one " if schema.get("minItems") else ""
        return f"a list of {count}({_allowed(schema.get('items', {}), definitions)})"
    simple = {"string": "a text that is not empty" if schema.get("minLength") else "a text", "boolean": "true or false"}
    return simple.get(str(kind), "another value")


def _bounds(schema: dict[str, Any]) -> str:
    lowest, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    highest, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    if lowest is not None and highest is not None:
        return f" from {lowest} to {highest}"
    if lowest is not None and below is not None:
        return f" of at least {lowest} and less than {below}"
    parts = [f"of {lowest} or more"] if lowest is not None else []
    parts += [f"greater than {above}"] if above is not None else []
    parts += [f"of at most {highest}"] if highest is not None else []
    parts += [f"less than {below}"] if below is not None else []
    return f" {' and '.join(parts)}" if parts else ""


def _bound(schema: dict[str, Any], key: str) -> int | float | None:
    """A bound, whole numbers as such: whether the schema has 0 or 0.0 depends on pydantic's version."""
    bound: int | float | None = schema.get(key)
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
