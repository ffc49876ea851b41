"""``harness limits``: what each target's device can do at most, measured now and kept for later runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from harness.commands import printing, running
from harness.core import codec
from harness.core.errors import CellError
from harness.measure.device_limits import Limits
from harness.plan import own_file


@dataclass(frozen=True)
class Request:
    """The flags of ``harness limits``; no targets means those that ``harness verify`` takes."""

    targets: Sequence[str]
    json: bool
    timeout: float
    fork: bool


def run(request: Request) -> int:
    """Measure afresh, print and store. Exit status 1 if one could not be measured."""
    definitions = own_file.target_definitions()
    wanted = running.every_mode(request.targets, definitions)
    console = printing.standard_error()
    problems = printing.build_environments(definitions, wanted, console)
    found: list[Limits] = []
    with running.temporary_hosts(definitions, problems, "limits", request.timeout, request.fork) as (
        pool,
        bundle,
        place,
    ):
        limiter = running.open_limiter(bundle.sha256, place, request.timeout)
        for target in wanted:
            try:
                found.append(limiter.limits(target, partial(pool.worker, target), fresh=True))
            except CellError as error:
                found.append(Limits("", target.label, {}, problem=str(error)))
            printing.say(console, f"{target.label}: {found[-1].problem or 'measured'}")
    if request.json:
        printing.write_json([codec.to_json(limits) for limits in found])
    else:
        _print(found)
    return 1 if any(limits.problem for limits in found) else 0


def _print(found: Sequence[Limits]) -> None:
    numbers = ("GFLOP/s", "at size", "GB/s", "arrays of MB")
    title = "Largest rates: products of two square matrices; adding one array to another in place"
    table = printing.new_table("target", *numbers, "type", numbers=numbers, title=title)
    for limits in found:
        if limits.product_flops_per_second is None or limits.memory_bytes_per_second is None:
            table.add_row(limits.target, *[""] * len(numbers), "FAILED")
            continue
        table.add_row(
            limits.target,
            f"{limits.product_flops_per_second / 1e9:,.1f}",
            f"{limits.product_size:,}",
            f"{limits.memory_bytes_per_second / 1e9:,.1f}",
            f"{limits.array_bytes / 1e6:,.0f}",
            limits.dtype,
        )
    printing.print_table(table)
    for limits in found:
        if limits.problem:
            printing.say(printing.standard_output(), f"FAILED {limits.target}: {limits.problem}")
