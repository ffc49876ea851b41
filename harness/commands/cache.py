"""``harness cache``: what is kept in the user's cache, and clearing it of what is not used any more."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import workers
from harness.cache import room
from harness.commands import printing
from harness.core.errors import HarnessError, UsageError
from harness.doctor import cache
from harness.doctor.cache import KINDS, Current, Entry
from harness.paths import CACHE_VARIABLE, DATASETS, ENVIRONMENTS, cache_place
from harness.plan import datasets, own_file
from harness.report.view import charts_file
from harness.wording import megabytes, nearest, plural

IN_USE = "in use by a running harness"


def show(json: bool) -> int:
    """Print what is there by kind; environments and datasets one by one."""
    base = _base()
    found = cache.look(base, _current())
    free = room.free_bytes(base)
    if json:
        printing.write_json({**_place(base, free), "entries": [_plain(entry) for entry in found]})
        return 0
    if found:
        _print(found)
    console = printing.standard_output()
    printing.say(console, f"{base}: {_sum(found)}" + ("" if free is None else f"; {megabytes(free)} free on its disk"))
    unused = [entry for entry in found if entry.unused]
    if unused:
        printing.say(console, f"Not used any more: {_sum(unused)}; remove it: harness cache clear --unused")
    printing.say(console, f"The environment variable {CACHE_VARIABLE} names another folder for it.")
    return 0


def clear(kinds: Sequence[str], unused: bool, yes: bool, json: bool) -> int:
    """Remove entries of some kinds, only those not used any more if ``unused``. Exit status 1 if one could not be.

    Raises UsageError where nothing is named, or where nobody can be asked and ``yes`` was not said.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"cache clear: found {kind!r}{nearest(kind, KINDS)}, allowed: {', '.join(KINDS)}")
    if not kinds and not unused:
        raise UsageError(f"cache clear: name what to remove: --unused, or kinds: {', '.join(KINDS)}")
    base = _base()
    wanted = [
        entry
        for entry in cache.look(base, _current())
        if entry.kind in (kinds or KINDS) and (entry.unused or not unused)
    ]
    if wanted and not yes and not _agreed(f"Remove {_sum(wanted)} from {base}?"):
        printing.say(printing.standard_error(), "nothing is removed")
        return 1
    kept = {entry: reason for entry in wanted if (reason := _removed(base, entry))}
    gone = [entry for entry in wanted if entry not in kept]
    if json:
        left = [{**_plain(entry), "reason": reason} for entry, reason in kept.items()]
        printing.write_json({"folder": str(base), "removed": [_plain(entry) for entry in gone], "left": left})
    else:
        printing.say(printing.standard_output(), f"Removed: {_sum(gone)}")
        for entry, reason in kept.items():
            printing.say(printing.standard_error(), f"left: {entry.path.relative_to(base)}: {reason}")
    return 1 if any(reason != IN_USE for reason in kept.values()) else 0


def _removed(base: Path, entry: Entry) -> str:
    """Remove one; why it is left, or empty."""
    try:
        return "" if cache.remove(base, entry) else IN_USE
    except OSError as error:
        return error.strerror or str(error)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("cache clear: nobody can be asked here; say --yes to remove without being asked")
    import click

    return click.confirm(question, err=True)


def _base() -> Path:
    try:
        return cache_place()
    except OSError as error:
        raise HarnessError(f"the cache folder cannot be used: {error.filename} ({error.strerror})") from error


def _current() -> Current:
    identities: dict[str, tuple[str, ...]] = {}
    for name, definition in own_file.target_definitions().items():
        identities[definition.environment] = (*identities.get(definition.environment, ()), name)
    return Current(workers.code_sha256(), charts_file(), datasets.built_in_keys(), identities)


def _print(found: Iterable[Entry]) -> None:
    numbers = ("entries", "size")
    table = printing.new_table(
        "kind", "what", *numbers, "last use", "not used any more", numbers=numbers, prose=("what",)
    )
    for (kind, title, unused), group in groupby(sorted(found, key=_order), key=_row):
        entries = list(group)
        last = datetime.fromtimestamp(max(entry.last_used for entry in entries))
        table.add_row(kind, title, f"{len(entries):,}", megabytes(_bytes(entries)), f"{last:%Y-%m-%d}", unused)
    printing.print_table(table)


def _row(entry: Entry) -> tuple[str, str, str]:
    """What entries have in common that are shown as one row; large ones have rows of their own."""
    alone = entry.kind in (ENVIRONMENTS, DATASETS, cache.OTHER)
    return entry.kind, (entry.title or entry.path.name) if alone else "", entry.unused


def _order(entry: Entry) -> tuple[int, str, str]:
    kind, title, unused = _row(entry)
    return [*KINDS, cache.OTHER].index(kind), title, unused


def _bytes(entries: Iterable[Entry]) -> int:
    return sum(entry.bytes for entry in entries)


def _sum(entries: Sequence[Entry]) -> str:
    many = f"{len(entries):,} entries" if len(entries) != 1 else plural(1, "entry")
    return f"{many}, {megabytes(_bytes(entries))}"


def _place(base: Path, free: int | None) -> dict[str, Any]:
    return {"folder": str(base), "variable": CACHE_VARIABLE, "free_bytes": free}


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "path": str(entry.path),
        "title": entry.title,
        "bytes": entry.bytes,
        "last_used": datetime.fromtimestamp(entry.last_used).astimezone().isoformat(timespec="seconds"),
        "unused": entry.unused or None,
    }
