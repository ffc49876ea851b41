"""``harness cache``: what is kept in the user's cache, and clearing it of what is not used any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import workers
from harness.actions.shown import Shown
from harness.cache import room
from harness.core.errors import HarnessError, UsageError
from harness.doctor import cache
from harness.doctor.cache import KINDS, Current, Entry
from harness.paths import CACHE_VARIABLE, DATASETS, ENVIRONMENTS, cache_place
from harness.plan import datasets, own_file
from harness.report.printed import new_table, print_table, say
from harness.report.view import charts_file
from harness.wording import megabytes, nearest, plural

IN_USE = "in use by a running harness"


@dataclass(frozen=True, repr=False)
class CacheListing(Shown):
    """What is kept in the cache. ``free``: bytes free on its disk, None where that is not told."""

    base: Path
    entries: tuple[Entry, ...]
    free: int | None

    def plain(self) -> dict[str, Any]:
        """Folder, variable, free_bytes, entries."""
        return {**_place(self.base, self.free), "entries": [_plain(entry) for entry in self.entries]}

    def print_to(self, console: Console) -> None:
        """What is there by kind; environments and datasets one by one."""
        if self.entries:
            _print(self.entries, console)
        free = "" if self.free is None else f"; {megabytes(self.free)} free on its disk"
        say(console, f"{self.base}: {_sum(self.entries)}{free}")
        unused = [entry for entry in self.entries if entry.unused]
        if unused:
            say(console, f"Not used any more: {_sum(unused)}; remove it: harness cache clear --unused")
        say(console, f"The environment variable {CACHE_VARIABLE} names another folder for it.")


@dataclass(frozen=True, repr=False)
class Cleared(Shown):
    """What was removed from the cache, and why the rest was left."""

    base: Path
    gone: tuple[Entry, ...]
    left: dict[Entry, str]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left but what a running harness uses."""
        return all(reason == IN_USE for reason in self.left.values())

    def plain(self) -> dict[str, Any]:
        """Folder, removed, left."""
        left = [{**_plain(entry), "reason": reason} for entry, reason in self.left.items()]
        return {"folder": str(self.base), "removed": [_plain(entry) for entry in self.gone], "left": left}

    def print_to(self, console: Console) -> None:
        """How much was removed."""
        say(console, f"Removed: {_sum(self.gone)}")

    @property
    def problems(self) -> list[str]:
        """A line for each entry that was left."""
        return [f"left: {entry.path.relative_to(self.base)}: {reason}" for entry, reason in self.left.items()]


def show_cache() -> CacheListing:
    """What is there. Raises HarnessError where the cache cannot be read."""
    base = _base()
    return CacheListing(base, tuple(cache.look(base, _current())), room.free_bytes(base))


def clear_cache(kinds: Sequence[str], unused: bool, agreed: Callable[[str], bool]) -> Cleared | None:
    """Remove entries of some kinds, only those not used any more if ``unused``; None where ``agreed`` says no.

    ``agreed`` is asked a question. Raises UsageError where nothing is named.
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
    if wanted and not agreed(f"Remove {_sum(wanted)} from {base}?"):
        return None
    left = {entry: reason for entry in wanted if (reason := _removed(base, entry))}
    return Cleared(base, tuple(entry for entry in wanted if entry not in left), left)


def _removed(base: Path, entry: Entry) -> str:
    """Remove one; why it is left, or empty."""
    try:
        return "" if cache.remove(base, entry) else IN_USE
    except OSError as error:
        return error.strerror or str(error)


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


def _print(found: Iterable[Entry], console: Console) -> None:
    numbers = ("entries", "size")
    table = new_table("kind", "what", *numbers, "last use", "not used any more", numbers=numbers, prose=("what",))
    for (kind, title, unused), group in groupby(sorted(found, key=_order), key=_row):
        entries = list(group)
        last = _local(max(entry.last_used for entry in entries))
        table.add_row(kind, title, f"{len(entries):,}", megabytes(_bytes(entries)), f"{last:%Y-%m-%d}", unused)
    print_table(table, console)


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
        "last_used": _local(entry.last_used).isoformat(timespec="seconds"),
        "unused": entry.unused or None,
    }


def _local(seconds: float) -> datetime:
    """A file's time in the zone of the machine. By way of UTC: Windows knows no naive times about 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone()
