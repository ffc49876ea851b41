"""The headline table as text: which columns it has, their units, and how each value is written.

Goes in: the frame of ``analysis.summary``. Comes out: a caption for what all rows share, and the rows in
groups, each headed by what is special to it. Terminal and Markdown print the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from harness import shells
from harness.core.training import SCALINGS
from harness.wording import machine_name, plural

if TYPE_CHECKING:
    import polars as pl

ABSENT = "-"

DIVERGED = "diverged (the loss became infinite or not a number)"
_NAMED = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: its header of one or two lines, unit included, and the text of its value in a row of the frame."""

    header: str
    text: Callable[[Row], str]
    numeric: bool = True


@dataclass(frozen=True)
class Group:
    """Rows that share machine, model, dataset, epochs, optimizer, precision and seed.

    ``heading`` is empty for the only one, and names a machine only where there are several.
    """

    heading: str
    rows: list[Row]


def figure(value: float | None) -> str:
    """About three significant digits, thousands set apart."""
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return str(value)
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def is_no_limit(shares: Iterable[float]) -> bool:
    """Whether training went beyond its device's limit by more than LIMIT_MARGIN; ``shares`` of it, of one."""
    from harness.analysis.pace import LIMIT_MARGIN

    return max(shares, default=0.0) > 1 + LIMIT_MARGIN


def beyond_limit(target: str) -> str:
    """What that says of the limit, in a sentence."""
    return (
        f"That is more than the limit kept for its device, which was measured while the machine was busier and so is "
        f"none; measure it again: harness limits {shells.quoted(target)}."
    )


def percent(share: float | None) -> str:
    """A share of one in percent, two decimals, without the sign."""
    return ABSENT if share is None else f"{100 * share:.2f}"


def said_percent(accuracy: float) -> str:
    """An accuracy as a person says it: 98 %, 97.5 %."""
    return f"{100 * accuracy:.6g} %"


def target_text(row: Row) -> str:
    """The target's label, with the repeat where there is one."""
    return f"{row['target']} (repeat {row['repeat']})" if row["repeat"] else str(row["target"])


def size_text(row: Row) -> str:
    """The batch size, or the plan of them: ``64>128@2``, 128 from epoch 2 on, counted from 0."""
    return str(row["batch_plan"] or row["batch_size"])


def status_text(row: Row) -> str:
    """How a cell ended, in words; one that was trained to its end, or as far as it came, may have diverged."""
    status = str(row["status"]).replace("_", " ")
    if not row["diverged"]:
        return status
    return "diverged" if status == "ok" else f"{status}, diverged"


COLUMNS = (
    Column("target", target_text, numeric=False),
    Column("batch\nsize", size_text),
    Column("images\nper s", lambda row: figure(row["images_per_second"])),
    Column("s per\nepoch", lambda row: figure(row["seconds_per_epoch"])),
    Column("compile\ns", lambda row: figure(row["compile_seconds"])),
    Column("final\nacc. %", lambda row: percent(row["final_accuracy"])),
    Column("memory\nMB", lambda row: _megabytes(row["peak_memory_bytes"])),
    Column("status", status_text, numeric=False),
)
"""Memory: the worker process's largest resident set, in 10^6 bytes. Accuracy: on the test set, after the last epoch."""

TRAITS: dict[str, Callable[[Row], str]] = {
    "machine": lambda row: machine_name(row["machine"], row["node"]),
    "model": lambda row: str(row["model"]),
    "dataset": lambda row: f"{row['dataset']} ({row['train_examples']:,} examples)",
    "epochs": lambda row: plural(row["epochs"], "epoch"),
    "optimizer": lambda row: f"{row['optimizer']} at {_rate(row['learning_rate'], row['scaling'])}",
    "precision": lambda row: str(row["precision"]),
    "seed": lambda row: f"seed {row['seed']}",
}
"""What a group of rows shares, each trait as a person says it."""


def works_apart(works: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each work has that others have not; empty for the only one. ``works``: rows of WORK and ``node``."""
    names = ("machine", "model", "dataset", "optimizer", "precision")
    texts = [{name: TRAITS[name](dict(work)) for name in names} for work in works]
    special = [name for name in names if len({text[name] for text in texts}) > 1]
    return [", ".join(text[name] for name in special) for text in texts]


def caption_and_groups(frame: pl.DataFrame) -> tuple[str, list[Group]]:
    """What all rows share, in one line, and the rows grouped by the rest, in the frame's order."""
    from harness.analysis.tables import rows_of

    rows = rows_of(frame)
    kinds = {_kind(row): row for row in rows}
    texts = {kind: {name: text(row) for name, text in TRAITS.items()} for kind, row in kinds.items()}
    shared = {name for name in TRAITS if len({own[name] for own in texts.values()}) == 1}
    caption = _told(texts[_kind(rows[0])], shared - {"machine"}) if rows else ""
    headings = {kind: _told(own, TRAITS.keys() - shared) for kind, own in texts.items()}
    groups = groupby(rows, key=lambda row: headings[_kind(row)])
    return caption, [Group(heading, list(members)) for heading, members in groups]


def unproven(frame: pl.DataFrame) -> str:
    """That there are cells without a proof, in a sentence; empty if there are none."""
    count = frame.filter((frame["status"] == "ok") & (frame["proof"] == "")).height
    return not_proven(count) if count else ""


def not_proven(count: int) -> str:
    """That so many cells have no proof, in a sentence."""
    is_not = "is" if count == 1 else "are"
    return f"{plural(count, 'cell')} {is_not} not proven to do the same work as the reference."


def diverged(frame: pl.DataFrame) -> str:
    """Which cells diverged and what that means, in a sentence; empty if none did."""
    rows = frame.filter(frame["diverged"]).to_dicts()
    if not rows:
        return ""
    named = dict.fromkeys(f"{target_text(row)} at batch size {size_text(row)}" for row in rows)
    more = [f"{len(named) - _NAMED:,} more"] if len(named) > _NAMED else []
    return (
        f"{plural(len(rows), 'cell')} {DIVERGED}: {', '.join([*list(named)[:_NAMED], *more])}. Such training counts "
        "for its speed, but for no accuracy, and is not recommended."
    )


def not_run(frame: pl.DataFrame, planned: int, unreadable: int) -> str:
    """That planned cells have no record, readable or not, in a sentence; empty if all have."""
    missing = planned - frame.height - unreadable
    if missing <= 0:
        return ""
    runs = "has" if missing == 1 else "have"
    return (
        f"{missing:,} of {plural(planned, 'cell')} {runs} not run here yet; the same command runs what is missing "
        "(with --shard or --only, its own part of that)."
    )


def not_readable(count: int, place: str) -> str:
    """That so many records cannot be read, so that they are not in ``place``, in a sentence; empty if all can."""
    if not count:
        return ""
    reads = "cannot be read, so it is" if count == 1 else "cannot be read, so they are"
    return f"{plural(count, 'record')} {reads} not {place}."


_kind: Callable[[Row], tuple[Any, ...]] = itemgetter(
    "machine",
    "node",
    "model",
    "dataset",
    "train_examples",
    "epochs",
    "optimizer",
    "learning_rate",
    "scaling",
    "precision",
    "seed",
)
"""All that TRAITS look at."""


def _told(texts: Mapping[str, str], names: Collection[str]) -> str:
    """Those traits; the usual precision goes without saying."""
    return ", ".join(text for name, text in texts.items() if name in names and text != "float32")


def _rate(base: float, scaling: str) -> str:
    if scaling == "none":
        return f"learning rate {base:g}"
    if scaling in SCALINGS:
        return f"learning rate {base:g} ({scaling} scaling)"
    return f"a learning rate for each batch size ({scaling})"


def _megabytes(size: int | None) -> str:
    return ABSENT if size is None else f"{size / 1e6:,.0f}"
