"""Targets: backend + accelerator + environment, under a name. Built-in ones are TOML files in ``targets/``.

A person adds targets as ``[targets.NAME]`` tables of a sweep file or of ``harness.toml``, with the same keys.
There ``python`` may also be an interpreter (a path, or a command on the PATH), which then stands instead
of a lock file, and ``like = "tensorflow-cpu"`` takes every key that the table does not give from another target.

A target that is ``tuned`` stands for its framework at its best: its variables and ``[options]`` are chosen for speed,
and ``[reasons]`` says of each why. The table ``[options]`` asks for what the backend does in more than one way
(``harness.core.knobs``).

``resolve`` turns what a person writes, ``name:mode@key=value``, into the ``Target`` of a cell.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness import wording
from harness.core import knobs, system
from harness.core.cell import ID_LENGTH, INPUTS, MODES, Target
from harness.core.codec import digest
from harness.core.errors import UsageError, WrongDevice
from harness.core.variables import ONLY_DEVICE, shown_devices
from harness.plan import shipped, tomlfile

FOLDER = shipped.TARGETS
DEVICE = "{device}"
"""As a variable's value: the number of the target's device."""

PLATFORMS = ("linux", "windows", "macos")
MATMUL_PRECISIONS = ("highest", "tf32")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGITS = re.compile(r"[0-9.]+")


@dataclass(frozen=True)
class TargetDefinition:
    """One target as defined, before a mode is chosen.

    Either ``lock`` (a requirements file with hashes, for this platform) with ``python_version``, or
    ``interpreter`` (absolute, links not followed: a virtual environment is found by the link's place).
    ``modes`` has the default first. ``env`` are the worker's environment variables, where the value ``{device}``
    stands for the device's number. ``unavailable`` maps a platform, or a platform and architecture such as
    ``macos-x86_64``, to the sentence that a person gets there. ``path`` is put on the worker's import path,
    for a ``backend`` of the form ``module:Class`` that no package has installed. ``device``,
    ``matmul_precision``, ``input`` (empty: the mode's first), ``steps_per_call`` and ``cpus`` hold where a person who
    names the target gives no others. ``options``: what is asked of the backend in place of its
    defaults. ``reasons``: of a variable or an option the line that says why it is set. ``tuned``: it stands for the
    framework at its best.
    """

    name: str
    description: str
    backend: str
    accelerator: str
    python_version: str
    lock: Path | None
    interpreter: str | None
    modes: tuple[str, ...]
    platforms: tuple[str, ...]
    env: dict[str, str]
    unavailable: dict[str, str]
    source: str
    path: Path | None = None
    device: int = 0
    matmul_precision: str = MATMUL_PRECISIONS[0]
    input: str = ""
    steps_per_call: int = 1
    cpus: int = 0
    options: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    tuned: bool = False

    @cached_property
    def environment(self) -> str:
        """Identity of interpreter and packages, as it stands in every cell. Raises UsageError: unreadable lock file."""
        if self.interpreter is not None:
            return f"python:{self.interpreter}"
        if self.lock is None:
            return f"lock:none-py{self.python_version}"
        try:
            content = self.lock.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.source}: lock file {self.lock} cannot be read ({error.strerror})") from None
        # A checkout on Windows may have changed the line ends; the packages are the same.
        packages = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
        return f"lock:{packages[:16]}-py{self.python_version}"

    @cached_property
    def settings(self) -> str:
        """Digest of what else the worker is given, variables and code of one's own; empty if that is nothing."""
        if not self.env and self.path is None:
            return ""
        return digest([dict(sorted(self.env.items())), self.backend, _code_digest(self.path, self.backend)])[:ID_LENGTH]

    @property
    def knobs(self) -> tuple[knobs.Knob, ...]:
        """Those that its backend is known to have; of a backend of one's own nothing is known here."""
        return knobs.OF_BACKENDS.get(self.backend, ())

    @property
    def defined_options(self) -> tuple[tuple[str, str], ...]:
        """Its options but for those that are the default anyway, as they stand in every cell."""
        defaults = {knob.name: knob.default for knob in self.knobs}
        return tuple(sorted((key, value) for key, value in self.options.items() if value != defaults.get(key)))

    @property
    def unavailable_here(self) -> str:
        """Why this target cannot exist on this platform; empty if it can."""
        here = system.platform_name()
        exact = f"{here}-{system.machine_name()}"
        if exact in self.unavailable or here in self.unavailable:
            return self.unavailable.get(exact) or self.unavailable[here]
        if here not in self.platforms:
            return f"{self.name} exists on {', '.join(self.platforms)} only"
        if self.interpreter is None and self.lock is None:
            return f"{self.name} has no lock file for {here}"
        return ""

    def variables(
        self, device: int = 0, inherited: Mapping[str, str] | None = None, devices: int = 1
    ) -> dict[str, str]:
        """The worker's environment variables for device number ``device``, or so many ``devices`` from it on.

        Where ``inherited`` (the harness's own variables) shows some devices only, as a scheduler's job does by
        ``CUDA_VISIBLE_DEVICES=2,3``, the target's devices count among those; ``CUDA_VISIBLE_DEVICES=`` shows none.
        Raises WrongDevice beyond them.
        """
        found = {}
        for key, value in self.env.items():
            if value != DEVICE:
                found[key] = value.replace(DEVICE, str(device))
                continue
            said = (inherited or {}).get(key)
            shown = shown_devices(key, said)
            last = device + devices - 1
            if shown is not None and last >= len(shown):
                count = f"{len(shown)}" if shown else "none"
                raise WrongDevice(f"asked for device {last}, but {key} shows {count} ({said!r}; devices count from 0)")
            wanted = range(device, device + devices)
            found[key] = ",".join(str(one) if shown is None else shown[one] for one in wanted)
            found[ONLY_DEVICE] = str(device)
        return found


def _member(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{', '.join(allowed)}{wording.nearest(text, allowed)}")
        return text

    return check


def _platform_key(text: str) -> str:
    if text.partition("-")[0] not in PLATFORMS:
        raise ValueError(f"as key one of {', '.join(PLATFORMS)}, or one with an architecture, such as macos-x86_64")
    return text


def _python(text: str) -> str:
    if _DIGITS.fullmatch(text) and not _is_version(text):
        raise ValueError("a Python version from '3.10' on, without a patch number, or the path of an interpreter")
    return text


def _is_version(text: str) -> bool:
    major, dot, minor = text.partition(".")
    return major == "3" and dot == "." and minor.isdecimal() and int(minor) >= 10


Text = Annotated[str, Field(min_length=1)]
Platform = Annotated[str, AfterValidator(_member(PLATFORMS))]
Mode = Annotated[str, AfterValidator(_member(MODES))]
MatmulPrecision = Annotated[str, AfterValidator(_member(MATMUL_PRECISIONS))]
InputName = Annotated[str, AfterValidator(_member(INPUTS))]
PlatformKey = Annotated[str, AfterValidator(_platform_key)]


class _Table(BaseModel):
    """The keys of a target in TOML."""

    model_config = ConfigDict(extra="forbid", strict=True)

    backend: Text
    python: Annotated[Text, AfterValidator(_python)] = Field(
        description="a Python version such as '3.11', or the path of an interpreter"
    )
    modes: list[Mode] = Field(min_length=1)
    accelerator: Text = "cpu"
    description: str = ""
    lock: Text | dict[Platform, Text] | None = Field(
        default=None, description="the path of a lock file, or a table of platform and path"
    )
    platforms: list[Platform] = Field(default=list(PLATFORMS), min_length=1)
    env: dict[str, str] = {}
    unavailable: dict[PlatformKey, Text] = {}
    path: Text | None = Field(default=None, description="the folder of a backend of your own")
    device: int = Field(default=0, ge=0)
    matmul_precision: MatmulPrecision = MATMUL_PRECISIONS[0]
    input: InputName = ""
    steps_per_call: int = Field(default=1, ge=1)
    cpus: int = Field(default=0, ge=0)
    options: dict[str, str] = {}
    reasons: dict[str, Text] = {}
    tuned: bool = False
    like: str | None = None


def built_in() -> dict[str, TargetDefinition]:
    """The targets that come with the harness, by name."""
    return {name: _definition(name, table, name, "") for name, table in _built_in_tables().items()}


def definitions(
    own: Mapping[str, Any] | None = None, source: str = "", *, before: Sequence[tuple[Mapping[str, Any], str]] = ()
) -> dict[str, TargetDefinition]:
    """Built-in targets plus a person's own.

    ``own`` holds the tables under ``targets`` of the file ``source``, whose folder relative paths start from;
    ``before`` those of files to read first. A table may be ``like`` a built-in target or one above it. Raises
    UsageError naming file and key.
    """
    tables = _built_in_tables()
    found = built_in()
    for more, file in (*before, (own or {}, source)):
        _add(more, file, tables, found)
    return found


def _add(
    own: Mapping[str, Any], source: str, tables: dict[str, dict[str, Any]], found: dict[str, TargetDefinition]
) -> None:
    """Check the tables of one file and add them."""
    file = source or "targets"
    folder = Path(source).absolute().parent if source else Path.cwd()
    for name, table in own.items():
        within = f"targets.{name}"
        if not isinstance(table, Mapping):
            raise UsageError(f"{file}: key {within}: found {wording.shown(table)}, allowed: a table")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{file}: target name {name!r}: allowed are letters, digits, '.', '_' and '-'")
        if name in found:
            known = "is built in" if found[name].source == name else f"stands in {found[name].source} already"
            raise UsageError(f"{file}: key {within}: {name!r} {known}; choose another name, with like = {name!r}")
        tables[name] = _inherit(_anchored(table, folder), tables, file, within)
        found[name] = _definition(name, tables[name], file, within)


def resolve(text: str, definitions: Mapping[str, TargetDefinition]) -> Target:
    """Turn ``name``, ``name:mode`` or ``name:mode@key=value@...`` into a cell's target.

    Keys: ``cpus``, ``device``, ``input``, ``matmul_precision``, ``steps_per_call``, ``microbatch``, ``devices``, and
    the backend's knobs, which of a backend of one's own are those that the definition gives a value. The mode defaults
    to the definition's first, the input to ``resident``; Keras's ``fit`` always takes its batches from the host.
    Raises UsageError with what is allowed and the nearest valid name.
    """
    where = f"target {text!r}"
    head, *options = text.strip().split("@")
    name, colon, mode = head.partition(":")
    if name not in definitions:
        hint = wording.nearest(name, definitions)
        inside = "" if text.strip() == name else f"{where}: "
        raise UsageError(f"{inside}no target is called {name!r}{hint}; known: {', '.join(definitions)}")
    definition = definitions[name]
    mode = _one_of(mode, definition.modes, where, "mode") if colon else definition.modes[0]
    readers: dict[str, Callable[[str], Any]] = {
        "cpus": lambda value: _count(value, where, "cpus"),
        "device": lambda value: _count(value, where, "device"),
        "input": lambda value: _one_of(value, INPUTS, where, "input"),
        "matmul_precision": lambda value: _one_of(value, MATMUL_PRECISIONS, where, "matmul_precision"),
        "steps_per_call": lambda value: _count(value, where, "steps_per_call", least=1),
        "microbatch": lambda value: _count(value, where, "microbatch", least=1),
        "devices": lambda value: _count(value, where, "devices", least=1),
    }
    readers |= {knob.name: _knob_reader(knob, where) for knob in definition.knobs}
    readers |= {name: str for name in definition.options if name not in readers}
    chosen: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"{where}: found {option!r} after '@', allowed: key=value with key {', '.join(readers)}")
        if key not in readers:
            raise UsageError(
                f"{where}: unknown key {key!r}{wording.nearest(key, readers)}; allowed: {', '.join(readers)}"
            )
        if key in chosen:
            raise UsageError(f"{where}: key {key!r} is given twice")
        chosen[key] = readers[key](value)
    if mode == "fit" and chosen.get("input") == "resident":
        raise UsageError(f"{where}: mode 'fit' takes its batches from the host, so only input=host is allowed")
    chosen.setdefault("device", definition.device)
    chosen.setdefault("steps_per_call", definition.steps_per_call)
    chosen.setdefault("cpus", definition.cpus)
    chosen.setdefault("matmul_precision", definition.matmul_precision)
    if definition.accelerator == "cpu" and chosen["device"]:
        raise UsageError(
            f"{where}: a CPU target has the one device 0 (the key cpus says how many processors it may use)"
        )
    if definition.accelerator == "cpu" and chosen["matmul_precision"] == "tf32":
        raise UsageError(f"{where}: tf32 exists on GPUs only; on a CPU target matmul_precision is 'highest'")
    chosen.setdefault("input", "host" if mode == "fit" else definition.input or INPUTS[0])
    unasked = {**{knob.name: knob.default for knob in definition.knobs}, **definition.options}
    given = {key: chosen.pop(key) for key in list(chosen) if key in unasked}
    asked = {key: value for key, value in given.items() if value != unasked[key]}
    return Target(
        name=name,
        backend=definition.backend,
        accelerator=definition.accelerator,
        mode=mode,
        environment=definition.environment,
        settings=definition.settings,
        defined_options=definition.defined_options,
        options=tuple(sorted(asked.items())),
        tuned=definition.tuned,
        **chosen,
    )


def _code_digest(folder: Path | None, backend: str) -> str:
    """SHA-256 of the modules in a backend's own folder, and of the package that it is."""
    if folder is None:
        return ""
    package = backend.partition(":")[0].partition(".")[0]
    total = hashlib.sha256()
    files = {*folder.glob("*.py"), *(folder / package).rglob("*.py")}
    for file in sorted(file for file in files if file.is_file()):
        content = file.read_bytes()
        total.update(f"{file.relative_to(folder).as_posix()}:{len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _one_of(value: str, allowed: tuple[str, ...], where: str, key: str) -> str:
    if value not in allowed:
        hint = wording.nearest(value, allowed)
        raise UsageError(f"{where}: {key} {value!r} does not exist here{hint}; allowed: {', '.join(allowed)}")
    return value


def _count(value: str, where: str, key: str, least: int = 0) -> int:
    if not (value.isascii() and value.isdecimal() and int(value) >= least):
        raise UsageError(f"{where}: {key}: found {value!r}, allowed: a whole number of {least} or more")
    return int(value)


def _knob_reader(knob: knobs.Knob, where: str) -> Callable[[str], str]:
    return lambda value: _one_of(value, knob.values, where, knob.name)


def _built_in_tables() -> dict[str, dict[str, Any]]:
    files = shipped.files(FOLDER)
    tables = {name: _anchored(tomlfile.read(path), FOLDER / "locks") for name, path in files.items()}
    return {name: _inherit(table, tables, str(files[name]), "") for name, table in tables.items()}


def anchored(own: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A person's tables as the file ``file`` has them, with every path made absolute, so that they mean the same
    wherever they are read."""
    folder = file.absolute().parent
    return {name: _anchored(table, folder) if isinstance(table, Mapping) else table for name, table in own.items()}


def _anchored(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table with its paths made absolute, so that another file's table can be like it."""
    result = dict(table)
    lock, python, path = table.get("lock"), table.get("python"), table.get("path")
    if isinstance(path, str) and path:
        result["path"] = str(folder / os.path.expanduser(path))
    if isinstance(lock, str):
        result["lock"] = str(folder / lock)
    elif isinstance(lock, Mapping):
        result["lock"] = {key: str(folder / path) if isinstance(path, str) else path for key, path in lock.items()}
    if isinstance(python, str) and python and not _DIGITS.fullmatch(python):
        expanded = os.path.expanduser(python)
        on_path = shutil.which(expanded) if os.path.basename(expanded) == expanded else None
        result["python"] = os.path.abspath(on_path or folder / expanded)
    return result


def _inherit(own: dict[str, Any], tables: Mapping[str, dict[str, Any]], file: str, within: str) -> dict[str, Any]:
    """The table, with the keys that it does not give taken from the one that ``like`` names."""
    like = own.get("like")
    if not isinstance(like, str):
        return own
    if like not in tables:
        raise UsageError(
            f"{file}: key {within}.like: found {like!r}{wording.nearest(like, tables)}, allowed: {', '.join(tables)}"
        )
    merged = {**tables[like], **own}
    reasons = dict(tables[like].get("reasons", {}))
    for key in ("env", "options"):
        if isinstance(own.get(key), Mapping):
            merged[key] = {**tables[like].get(key, {}), **own[key]}
            # What is set otherwise has other reasons.
            reasons = {name: why for name, why in reasons.items() if name not in own[key]}
    if isinstance(own.get("reasons", {}), Mapping):
        merged["reasons"] = {**reasons, **own.get("reasons", {})}
    if "lock" in own and "python" not in own and not _DIGITS.fullmatch(merged["python"]):
        raise UsageError(f"{file}: missing key 'python' in [{within}]: a lock file needs a version, such as '3.11'")
    if "python" in own and not _DIGITS.fullmatch(str(own["python"])):
        # Where a person has an interpreter, our packages and the platforms they exist for say nothing.
        for key in {"lock", "platforms", "unavailable"} - own.keys():
            merged.pop(key, None)
    return merged


def _definition(name: str, raw: Mapping[str, Any], file: str, within: str) -> TargetDefinition:
    table = tomlfile.validate(_Table, raw, file, within)
    own_interpreter = not _is_version(table.python)
    if own_interpreter and table.lock is not None:
        raise UsageError(f"{file}: key {within}.lock: only allowed where python is a version, found {table.python!r}")
    if not own_interpreter and table.lock is None:
        raise UsageError(f"{file}: missing key 'lock' in [{within}]: python = {table.python!r} needs a lock file")
    known = knobs.OF_BACKENDS.get(table.backend)
    for key, value in table.options.items():
        why = "" if known is None else knobs.problem(key, value, known)
        if why:
            raise UsageError(f"{file}: table {within or 'targets'}.options: {why}{_nearest_knob(key, known or ())}")
    unset = sorted(table.reasons.keys() - table.options.keys() - table.env.keys())
    if unset:
        set_here = ", ".join((*table.env, *table.options)) or "none"
        raise UsageError(f"{file}: table {within or 'targets'}.reasons: found {unset[0]!r}, allowed: {set_here}")
    lock = table.lock.get(system.platform_name()) if isinstance(table.lock, dict) else table.lock
    return TargetDefinition(
        name=name,
        description=table.description,
        backend=table.backend,
        accelerator=table.accelerator,
        python_version="" if own_interpreter else table.python,
        lock=None if lock is None else Path(lock),
        interpreter=table.python if own_interpreter else None,
        modes=tuple(table.modes),
        platforms=tuple(table.platforms),
        env=table.env,
        unavailable=table.unavailable,
        source=file,
        path=None if table.path is None else Path(table.path),
        device=table.device,
        matmul_precision=table.matmul_precision,
        input=table.input,
        steps_per_call=table.steps_per_call,
        cpus=table.cpus,
        options=table.options,
        reasons=table.reasons,
        tuned=table.tuned,
    )


def _nearest_knob(name: str, known: Sequence[knobs.Knob]) -> str:
    return wording.nearest(name, [knob.name for knob in known])
