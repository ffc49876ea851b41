"""Environments: the interpreter in which a target's worker runs, built on first use and kept.

In: a target's definition. Out: the path of a Python that has NumPy and one framework. A definition with
a lock file gets a virtual environment of its own in the user's cache, made by uv with every package's
hash checked; a definition with an interpreter gets that interpreter, checked.

An environment appears under its name by one rename, when it is complete and has imported NumPy. So a build
that was killed, or failed, leaves at most a folder ``tmp-*`` that the next build removes. A file lock per
environment lets several processes ask at once: one builds, the others wait.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TextIO

from filelock import FileLock, Timeout

from harness import network, shells
from harness.cache import in_use, room
from harness.cache.keeping import mark_used
from harness.core import system
from harness.core.codec import read_json, write_json
from harness.core.errors import ContractError, EnvironmentBuildError
from harness.paths import ENVIRONMENTS, OTHER_CACHE, cache_place
from harness.refusals import lacks_room_or_permission
from harness.wording import megabytes
from harness.workers.interpreters import clean_variables, downloadable, find_python, how_to_get, problem_of, uv_binary

State = Literal["ready", "buildable", "broken", "no python", "unavailable"]
Progress = Callable[[str], None]

SCARCE_BYTES = 1e9
NEEDED = "an environment takes up to 2 GB on a processor, up to 8 GB with CUDA"

MARKER = "harness-environment.json"
UNFINISHED = "tmp-"
"""How the folder of a build begins."""

TOLD = ("Downloading", "Downloaded", "Resolved", "Prepared", "Installed", "Bytecode")
"""How uv's lines begin that a person waiting wants to see; the log has all."""

_OF_A_PATH = re.compile(r"(?:os error|WinError) (?:3|206)\b|(?:path|file ?name)\b.* too long", re.IGNORECASE)
"""How Windows says that a path cannot be: ERROR_PATH_NOT_FOUND, ERROR_FILENAME_EXCED_RANGE, in uv's and Python's words.
"""

LONGEST_REASON = 400
"""Characters of uv's words in an error."""

_UNREACHED = re.compile(r"[Ff]ailed to (fetch|download)|error sending request")
"""In uv's words that something on the network could not be had."""


class Definition(Protocol):
    """What this module needs to know of a target."""

    @property
    def name(self) -> str:
        """The target's name, for messages."""

    @property
    def python_version(self) -> str:
        """Such as ``3.11``; used with ``lock``."""

    @property
    def lock(self) -> Path | None:
        """Requirements file with hashes."""

    @property
    def interpreter(self) -> str | None:
        """Absolute path of an interpreter that is used as it is."""

    @property
    def environment(self) -> str:
        """Identity: ``lock:HASH-pyVERSION`` or ``python:PATH``."""

    @property
    def unavailable_here(self) -> str:
        """Why the target cannot exist on this platform; empty if it can."""


@dataclass(frozen=True)
class Environment:
    """State of a target's environment.

    ``python`` is where its interpreter is or will be; ``folder`` is None for an interpreter of the
    person's own. ``detail`` is one line: what is missing, or what will happen on first use.
    """

    identity: str
    folder: Path | None
    python: Path
    state: State
    detail: str


@dataclass(frozen=True)
class _Marker:
    """Written last into a built environment."""

    identity: str
    base_python: str


def inspect(definition: Definition) -> Environment:
    """Say what state a target's environment is in. Builds nothing, downloads nothing.

    Raises EnvironmentBuildError: the cache folder cannot be used; UsageError: the lock file cannot be read.
    """
    identity = definition.environment
    if definition.interpreter is not None:
        python = Path(definition.interpreter)
        problem = problem_of(python)
        return Environment(identity, None, python, "broken" if problem else "ready", problem)
    folder = _root() / _key(identity)
    python = system.python_of_environment(folder)

    def found(state: State, detail: str = "") -> Environment:
        return Environment(identity, folder, python, state, detail)

    if definition.unavailable_here:
        return found("unavailable", definition.unavailable_here)
    if _is_ready(folder, identity):
        return found("ready")
    if folder.exists():
        return found("broken", "incomplete, or its base Python has gone; it is rebuilt on first use")
    version = definition.python_version
    if find_python(version) is not None:
        return found("buildable", "built on first use")
    if downloadable(version):
        return found("buildable", f"built on first use, when uv downloads Python {version}")
    return found("no python", how_to_get(version))


def ensure(definition: Definition, progress: Progress = lambda line: None) -> Path:
    """Return the target's interpreter, building its environment if it is not there yet.

    ``progress`` gets one line at a time, without line end. Raises EnvironmentBuildError with one line that
    says what failed, and where the log is.
    """
    name = definition.name
    if definition.interpreter is not None:
        python = Path(definition.interpreter)
        problem = problem_of(python)
        if problem:
            raise EnvironmentBuildError(f"target {name!r}: {problem}")
        return python
    if definition.unavailable_here or definition.lock is None:
        raise EnvironmentBuildError(f"target {name!r}: {definition.unavailable_here or 'it has no lock file'}")
    identity = definition.environment
    folder = _root() / _key(identity)
    in_use.hold(folder)
    if _is_ready(folder, identity):
        mark_used(folder / MARKER)
        return system.python_of_environment(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_of(folder))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"{name}: waiting for another process that builds this environment")
            lock.acquire()
        try:
            if not _is_ready(folder, identity):
                _build(definition, definition.lock, folder, progress)
        finally:
            lock.release()
    except OSError as error:
        hint = _room(folder.parent) if lacks_room_or_permission(error) else ""
        raise EnvironmentBuildError(
            f"target {name!r}: environment could not be built in {folder.parent} ({error}){hint}"
        ) from error
    return system.python_of_environment(folder)


def _build(definition: Definition, lock: Path, folder: Path, progress: Progress) -> None:
    """Make the environment beside its place, prove it, and move it there. Called with the file lock held."""
    name, version, root = definition.name, definition.python_version, folder.parent
    started = time.monotonic()
    # Short names: on Windows a package's deepest files come close to the longest path allowed.
    prefix = f"{UNFINISHED}{folder.name[:8]}-"
    _remove(folder, *root.glob(f"{prefix}*"))
    temporary = root / f"{prefix}{secrets.token_hex(3)}"
    python = system.python_of_environment(temporary)
    base = find_python(version)
    log = folder.with_name(f"{folder.name}.log")
    progress(f"{name}: building its environment (first use only) with Python {version}")
    try:
        with log.open("w", encoding="utf-8") as stream:
            make = [
                "venv",
                "--relocatable",
                "--no-project",
                "--python",
                str(base or f"cpython@{version}"),
                str(temporary),
            ]
            status, output = _run_uv(make, root, stream, name, progress)
            if status and base is None:
                raise EnvironmentBuildError(f"target {name!r}: {how_to_get(version)} ({_essence(output)}; log: {log})")
            if not status:
                fill = [
                    "pip",
                    "install",
                    "--python",
                    str(python),
                    "--require-hashes",
                    "--no-build",
                    "--compile-bytecode",
                ]
                status, output = _run_uv([*fill, "--requirement", str(lock)], root, stream, name, progress)
            problem = _essence(output) if status else problem_of(python)
            if problem:
                problem += _path_limit(output) + _scarce(root)
                raise EnvironmentBuildError(f"target {name!r}: environment could not be built: {problem}; log: {log}")
        write_json(temporary / MARKER, _Marker(definition.environment, str(base or "")))
        system.replace(temporary, folder)
    finally:
        # Once more, for what the orphan of a killed build may have added meanwhile.
        _remove(*root.glob(f"{prefix}*"))
    progress(f"{name}: environment ready after {time.monotonic() - started:.0f} s")


def _run_uv(arguments: list[str], folder: Path, log: TextIO, name: str, progress: Progress) -> tuple[int, list[str]]:
    """Run uv; its output goes to the log, its progress to ``progress``. Returns exit status and lines."""
    log.write(f"$ {shells.joined(['uv', *arguments])}\n")
    log.flush()
    lines: list[str] = []
    with subprocess.Popen(
        [uv_binary(), "--color", "never", *arguments],
        cwd=folder,
        env={**clean_variables(), **network.for_uv()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines.append(line.rstrip())
                if line.strip().startswith(TOLD):
                    progress(f"{name}: {line.strip()}")
        except BaseException:
            process.kill()
            raise
    return process.returncode, lines


def _essence(output: list[str]) -> str:
    """uv's own words for what went wrong, on one line."""
    lines = [line.strip(" \t×│├╰─▶") for line in output]
    starts = [index for index, line in enumerate(output) if line.lstrip().startswith(("error:", "×"))]
    said = [line for line in lines[starts[0] if starts else -3 :] if line]
    text = "; ".join(line.removeprefix("error: ") for line in said) or "uv ended without a word"
    text = text.replace(":; ", ": ")
    return f"{text if len(text) <= LONGEST_REASON else f'{text[:LONGEST_REASON]}...'}{_network(text)}"


def _network(said: str) -> str:
    """Where uv could not reach something: the settings that may be to blame, which it does not name."""
    if not _UNREACHED.search(said):
        return ""
    settings = "; ".join(network.in_use()) or "none is set"
    untrusted = "peer certificate" in said and not network.certificates_setting()
    advice = f"; {network.certificate_advice()}" if untrusted else ""
    return f" (settings of the network: {settings}{advice})"


def _path_limit(output: list[str]) -> str:
    """A hint where a path failed: TensorFlow has files whose paths are longer than Windows takes untold."""
    if not any(_OF_A_PATH.search(line) for line in output) or system.long_paths_allowed():
        return ""
    return " (Windows is limited to paths of 260 characters here: set LongPathsEnabled, see its 'Maximum Path Length')"


def _scarce(folder: Path) -> str:
    """A third reason that there may be, where little is left of the disk when uv fails."""
    free = room.free_bytes(folder)
    return _room(folder) if free is not None and free < SCARCE_BYTES else ""


def _room(folder: Path) -> str:
    """What is free there, and what would be needed elsewhere."""
    free = room.free_bytes(folder)
    said = "" if free is None else f"; {megabytes(free)} is free there, and {NEEDED}"
    return f"{said}; {OTHER_CACHE}"


def lock_of(folder: Path) -> Path:
    """The lock that is held while an environment is built."""
    return folder.with_name(f"{folder.name}.lock")


def _root() -> Path:
    try:
        return cache_place(ENVIRONMENTS)
    except OSError as error:
        raise EnvironmentBuildError(f"the cache folder cannot be used: {error.filename} ({error.strerror})") from error


def _key(identity: str) -> str:
    """An environment's folder: packages and Python from the identity, and the platform they are for."""
    return f"{name_of(identity)}-{system.platform_name()}-{system.machine_name()}"


def name_of(identity: str) -> str:
    """How the folder of an environment begins; the platform that it is for follows."""
    return identity.removeprefix("lock:")


def _is_ready(folder: Path, identity: str) -> bool:
    try:
        marker = read_json(folder / MARKER, _Marker)
    except ContractError:
        return False
    return marker.identity == identity and system.python_of_environment(folder).exists()


def _remove(*folders: Path) -> None:
    for folder in folders:
        system.remove_folder(folder)
