"""Several runs side by side: each machine of theirs is a system of its own, and never pooled with another.

In: of each run its folder, the name that a person gave it, and what was collected of it. Out: ``System``, one for each
machine, and what several of them did in common: the same work, by ``work_id``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from harness.analysis import machines, other_load
from harness.analysis.collected import Collected
from harness.analysis.machines import Facts
from harness.analysis.pace import timed
from harness.analysis.tables import COUNTED, WORK, Row, rows_of
from harness.core.errors import UsageError
from harness.wording import machine_name, machine_words

SEPARATOR = ": "
"""Between a system and a target in the name of a series."""

_FRAMES = ("cells", "epochs", "disturbances", "plans")
"""Of ``Collected``: all that have cell ids."""


@dataclass(frozen=True)
class GivenRun:
    """A run as it comes in: its folder, the name a person gave it (empty without one), and its rows.

    ``within``: the folder of several runs that was named in its place; empty if it was named itself.
    """

    folder: str
    name: str
    collected: Collected
    within: str = ""

    @property
    def given(self) -> str:
        """The folder that was named."""
        return self.within or self.folder


@dataclass(frozen=True)
class System:
    """One machine, and the runs on it, whose folders are ``runs``; ``facts``: the machine's part of a record.

    ``collected`` has its cells only. Those of its second run and of later ones have ids with a number before them, as
    the same cell may have been run twice.
    """

    name: str
    machine: str
    facts: Facts
    runs: tuple[str, ...]
    collected: Collected

    @property
    def targets(self) -> list[str]:
        """Those that trained something here, sorted."""
        return sorted(self.collected.cells.filter(pl.col("steps") > 0)["target"].unique())

    @property
    def noise_floor(self) -> tuple[float, str] | None:
        """What the same program differs by here, as a share, and how that is known (``other_load.noise_floor``)."""
        cells = self.collected.fixed().cells
        return other_load.noise_floor(timed(cells), other_load.turns(cells))


def systems(runs: Sequence[GivenRun]) -> list[System]:
    """The systems of several runs, in the order in which they first appear.

    Runs without a name on one machine are one system, as are runs of the same name. A machine is told by its id, its
    processor and its GPU: copies of one image of a virtual machine have the same id. Raises UsageError where one name
    is given to runs of different machines.
    """
    found: dict[tuple[str, str], list[tuple[GivenRun, str, Collected]]] = {}
    for number, run in enumerate(runs):
        own = _numbered(run.collected, number)
        cells = machines.of_the_only_one(own.cells)
        for machine in machines.names(cells) or {"": ""}:
            key = (run.name, f"{machine} {machine_words(run.collected.machines.get(machine, {}))}")
            part = _of(replace(own, cells=cells), pl.col("machine") == machine)
            found.setdefault(key, []).append((run, machine, part))
    _require_one_machine_each(list(found))
    names = _names([members[0] for members in found.values()])
    return [_system(name, members) for name, members in zip(names, found.values(), strict=True)]


def shared_works(found: Sequence[System]) -> set[str]:
    """The ids of the works that more than one system trained to the end, or measured the pace of."""
    trained = pl.col("status").is_in(COUNTED)
    counts = Counter(work for one in found for work in one.collected.cells.filter(trained)["work_id"].unique())
    return {work for work, count in counts.items() if count > 1}


def in_common(found: Sequence[System]) -> Collected:
    """What several systems did in common: the same work. In place of a target stands a series, ``series``.

    The machine is left empty, as the series names it, so one table of ``harness.analysis`` has a row for each of them.
    """
    wanted = pl.col("work_id").is_in(list(shared_works(found)))
    parts = [_of(one.collected, wanted, _relabelled(one)) for one in found]
    return Collected(**_united(parts), machines={})


def without_runs(one: System, numbers: Collection[int]) -> System:
    """A system without the cells of some of its runs, by their places among all that were given."""
    ids = [cell_id for cell_id in one.collected.cells["cell_id"] if run_number(cell_id) not in numbers]
    return replace(one, collected=_of(one.collected, pl.col("cell_id").is_in(ids)))


def telling_cells(one: System) -> dict[str, str]:
    """Target -> the cell of it that tells what it is, by the id that its record has: one that was trained, if any."""
    found: dict[str, str] = {}
    rows = rows_of(one.collected.cells)
    for row in [*(row for row in rows if row["status"] in COUNTED), *rows]:
        found.setdefault(str(row["target"]), str(row["cell_id"]).rpartition("-")[2])
    return found


def series(system: str, target: str) -> str:
    """What a target on a system is called."""
    return f"{system}{SEPARATOR}{target}"


def all_rows(found: Sequence[System]) -> pl.DataFrame:
    """The cells of all systems, with columns ``system`` and ``runs`` before the others."""
    frames = [
        one.collected.cells.select(
            pl.lit(one.name).alias("system"), pl.lit(", ".join(one.runs)).alias("runs"), pl.all()
        )
        for one in found
    ]
    return pl.concat(frames)


def _relabelled(one: System) -> list[pl.Expr]:
    return [pl.format("{}{}", pl.lit(f"{one.name}{SEPARATOR}"), "target").alias("target"), pl.lit("").alias("machine")]


def _numbered(collected: Collected, number: int) -> Collected:
    """With ids of its own: the same cell may stand in several runs."""
    if not number:
        return collected
    own = pl.format("{}-{}", pl.lit(str(number + 1)), "cell_id").alias("cell_id")
    frames: dict[str, Any] = {name: getattr(collected, name).with_columns(own) for name in _FRAMES}
    return replace(collected, **frames)


def _united(parts: Sequence[Collected]) -> dict[str, pl.DataFrame]:
    return {name: pl.concat([getattr(part, name) for part in parts]) for name in _FRAMES}


def run_number(cell_id: str) -> int:
    """Which of several runs a cell of a system is of, from 0, as its id says."""
    number, dash, _ = cell_id.rpartition("-")
    return int(number) - 1 if dash else 0


def _of(collected: Collected, wanted: pl.Expr, changed: Sequence[pl.Expr] = ()) -> Collected:
    cells = collected.cells.filter(wanted).with_columns(*changed)
    own = pl.col("cell_id").is_in(cells["cell_id"].implode())
    frames: dict[str, Any] = {name: getattr(collected, name).filter(own) for name in _FRAMES[1:]}
    return replace(collected, cells=cells, **frames)


def _system(name: str, members: Sequence[tuple[GivenRun, str, Collected]]) -> System:
    run, machine, _ = members[0]
    facts = run.collected.machines.get(machine, {})
    parts = [part for _, _, part in members]
    return System(
        name=name,
        machine=machine,
        facts=facts,
        runs=tuple(dict.fromkeys(one.folder for one, _, _ in members)),
        collected=Collected(**_united(parts), machines={machine: facts} if machine else {}),
    )


def _require_one_machine_each(keys: Sequence[tuple[str, str]]) -> None:
    counts = Counter(name for name, _ in keys if name)
    for name, count in counts.items():
        if count > 1:
            raise UsageError(f"--name: {name!r} stands for {count} different machines, allowed: one machine a name")


def _names(first: Sequence[tuple[GivenRun, str, Collected]]) -> list[str]:
    """What each system is called: as the person said, else by the folder that was named, with its machine where several
    are in there.

    Of folders of the same name as many parents as tell them apart.
    """
    folders = [Path(run.given).resolve() for run, _, _ in first]
    several = Counter(run.given for run, _, _ in first)
    made = []
    for (run, machine, part), folder in zip(first, folders, strict=True):
        name = run.name or _shortest(folder, [other for other in folders if other != folder])
        if several[run.given] > 1:
            name += f" {machine_name(machine, part.cells['node'].drop_nulls().sort(descending=True)[0])}"
        made.append(name)
    repeated = {name for name, count in Counter(made).items() if count > 1}
    return [f"{name} ({number})" if name in repeated else name for number, name in enumerate(made, start=1)]


def _shortest(folder: Path, others: Sequence[Path]) -> str:
    parts = folder.parts
    for length in range(1, len(parts)):
        name = "/".join(parts[-length:])
        if not any("/".join(other.parts[-length:]) == name for other in others):
            return name
    return str(folder)


def differing_works(found: Sequence[System]) -> list[tuple[str, dict[str, Any]]]:
    """What each system trained, a row for each kind of work: the system's name, and what tells works apart.

    Keys: those of WORK but the machine, and lists of ``batch_sizes``,
    ``epochs`` and ``seeds``; ``shared``: of its works those that another system did too.
    """
    common = shared_works(found)
    rows = []
    for one in found:
        names = [name for name in WORK if name != "machine"]
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows_of(one.collected.cells):
            if row["status"] in COUNTED:
                groups.setdefault(tuple(row[name] for name in names), []).append(row)
        for key, members in groups.items():
            told = dict(zip(names, key, strict=True))
            for column, plural in (("batch_size", "batch_sizes"), ("epochs", "epochs"), ("seed", "seeds")):
                told[plural] = sorted({row[column] for row in members})
            works = {row["work_id"] for row in members}
            told |= {"works": len(works), "shared": len(works & common)}
            rows.append((one.name, told))
    return rows
