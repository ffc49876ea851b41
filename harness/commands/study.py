"""``harness study``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import harness
from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@flags.runs_argument
@flags.names_option
@flags.axis("--claim", metavar="N,...", help="Claims, from 1 to 8; all if not given.")
@flags.accuracy_option
@click.option(
    "--html",
    type=flags.File(),
    metavar="FILE",
    help="Write the page: one file that opens anywhere, offline; - for standard output.",
)
@flags.json_option
def study(runs: tuple[Path, ...], json: bool, **asked: Any) -> int:
    """Answer the study's claims from runs: which hold on your systems, which do not, and what would tell of the rest.

    Runs may be sweeps, comparisons and explanations, of any plans, machines and times, or folders of them. Each machine
    is a system of its own. A verdict is given only where an interval shows it; otherwise the answer names the command
    that would tell.

    \b
    Claims:
      1  a larger batch cuts training time; where that stops
      2  the GPU beats the processor at each batch size; by how much
      3  accuracy falls with the batch size at equal epochs
      4  more epochs recover it; how many
      5  on a shared system the gain vanishes, and other users' load is the reason
      6  the backward pass bounds small batches; what of it is dispatch
      7  asynchronous against synchronous training; a growing batch against a fixed one
      8  the best batch size differs from system to system

    \b
    Example:
      harness study harness-runs/desktop harness-runs/cluster --html study.html
      harness study desktop cluster --name desktop=desktop --claim 1,5
    """
    found = harness.study(*runs, **asked)
    if json or asked["html"] is None:
        printing.show(found, json)
    return 1 if found.unreadable else 0
