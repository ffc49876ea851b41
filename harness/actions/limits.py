"""``harness limits``: what each target's device can do at most, measured now and kept for later runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from harness.actions import values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.core import codec
from harness.core.errors import CellError
from harness.measure import session
from harness.measure.device_limits import Limits
from harness.plan import own_file
from harness.report.printed import new_table, print_table, say


@dataclass(frozen=True, repr=False)
class LimitsReport(Shown):
    """The limits of each target; of one that could not be measured its problem."""

    limits: tuple[Limits, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all could be measured."""
        return not any(one.problem for one in self.limits)

    def plain(self) -> list[Any]:
        """A dict for each target."""
        return [codec.to_json(one) for one in self.limits]

    def print_to(self, console: Console) -> None:
        """A row for each target, then what failed."""
        numbers = ("GFLOP/s", "at size", "GB/s", "arrays of MB")
        title = "Largest rates: products of two square matrices; adding one array to another in place"
        table = new_table("target", *numbers, "type", numbers=numbers, title=title)
        for one in self.limits:
            table.add_row(one.target, *_figures(one))
        print_table(table, console)
        for one in self.limits:
            if one.problem:
                say(console, f"FAILED {one.target}: {one.problem}")


def measure_limits(target: str | Iterable[str] = (), *, timeout: float = 900.0, fork: bool = True) -> LimitsReport:
    """Measure afresh and keep; no targets means those that ``harness verify`` takes. Raises UsageError."""
    definitions = own_file.target_definitions()
    wanted = session.every_mode(values.texts(target), definitions)
    problems = session.build_environments(definitions, wanted, NEWS)
    found: list[Limits] = []
    hosts = session.temporary_hosts(definitions, problems, "limits", timeout, fork, NEWS.keeping)
    with hosts as (pool, bundle, place):
        limiter = session.open_limiter(bundle.sha256, place, timeout, NEWS.keeping)
        for one in wanted:
            try:
                found.append(limiter.limits(one, partial(pool.worker, one), fresh=True))
            except CellError as error:
                found.append(Limits("", one.label, {}, problem=str(error)))
            tell(f"{one.label}: {found[-1].problem or 'measured'}")
    return LimitsReport(tuple(found))


def _figures(one: Limits) -> tuple[str, str, str, str, str]:
    if one.product_flops_per_second is None or one.memory_bytes_per_second is None:
        return "", "", "", "", "FAILED"
    return (
        f"{one.product_flops_per_second / 1e9:,.1f}",
        f"{one.product_size:,}",
        f"{one.memory_bytes_per_second / 1e9:,.1f}",
        f"{one.array_bytes / 1e6:,.0f}",
        one.dtype,
    )
