"""What a shell completes: names of models, presets, targets and what training may use, and run folders.

A person waits for it at every TAB: names are those of files, nothing heavy is imported, and what cannot be read
completes nothing. Shells ask as click has it; ``_HARNESS_COMPLETE=bash_source harness`` prints what makes bash do so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from harness.core.errors import HarnessError

Items = list[CompletionItem]
Completer = Callable[[click.Context, click.Parameter, str], Items]
Names = Callable[[], Iterable[str]]


def one_of(*sources: Names) -> Completer:
    """Completes one name; a file where none begins so."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
        return _items(_beginning(incomplete, sources)) or [CompletionItem(incomplete, type="file")]

    return complete


def several_of(*sources: Names) -> Completer:
    """Completes the last of several names with those that are not before it; a file where none begins so."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
        before, comma, last = incomplete.rpartition(",")
        there = before.split(",")
        found = [f"{before}{comma}{name}" for name in _beginning(last, sources) if name not in there]
        return _items(found) or [CompletionItem(incomplete, type="file")]

    return complete


def run_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Completes a run folder; any folder where no run begins so."""
    return _items(_runs(incomplete)) or [CompletionItem(incomplete, type="dir")]


def targets_or_run_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Completes what ``harness compare`` takes."""
    found = [*_beginning(incomplete, [targets]), *_runs(incomplete)]
    return _items(found) or [CompletionItem(incomplete, type="dir")]


def models() -> Iterable[str]:
    """Names of the built-in models."""
    from harness.plan import shipped

    return shipped.files(shipped.MODELS)


def presets() -> Iterable[str]:
    """Names of the built-in sweeps."""
    from harness.plan import shipped

    return shipped.files(shipped.SWEEPS)


def targets() -> Iterable[str]:
    """Names of the built-in targets, and of those in ``harness.toml``."""
    from pathlib import Path

    from harness.paths import OWN_FILE
    from harness.plan import shipped, tomlfile

    found = [*shipped.files(shipped.TARGETS)]
    with suppress(HarnessError, AttributeError):  # a file that is none, or ``targets`` that is no table
        found += tomlfile.read(Path(OWN_FILE)).get("targets", {}).keys()
    return found


def optimizers() -> Iterable[str]:
    """Names of the optimizers."""
    from harness.core.training import OPTIMIZERS

    return OPTIMIZERS


def precisions() -> Iterable[str]:
    """Names of the precisions that training may compute in."""
    from harness.core.training import PRECISIONS

    return PRECISIONS


def _items(values: Iterable[str]) -> Items:
    return [CompletionItem(value) for value in values]


def _beginning(text: str, sources: Iterable[Names]) -> list[str]:
    return [name for source in sources for name in source() if name.startswith(text)]


def _runs(incomplete: str) -> list[str]:
    """Run folders whose path begins so: in the folder that is named, and in that where runs go unasked."""
    from harness.paths import RUNS_FOLDER

    folder, _ = os.path.split(incomplete)
    places = [folder] if folder else ["", RUNS_FOLDER]
    found = [path for place in places for path in _runs_in(place)]
    return [path for path in found if path.startswith(incomplete)]


def _runs_in(folder: str) -> Iterator[str]:
    from harness.paths import PLAN_FILE

    with suppress(OSError), os.scandir(os.path.expanduser(folder) or ".") as entries:
        for name in sorted(entry.name for entry in entries if os.path.isfile(os.path.join(entry.path, PLAN_FILE))):
            yield os.path.join(folder, name)
