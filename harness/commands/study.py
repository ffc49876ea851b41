"""``harness study``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import harness
from harness.commands import completing, flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("runs", nargs=-1, type=flags.AnyPath(), metavar="[RUN]...", shell_complete=completing.run_folders)
@flags.names_option
@flags.axis("--claim", metavar="N,...", help="Claims, from 1 to 8; all if not given.")
@flags.accuracy_option
@flags.html_option
@click.option("--run", is_flag=True, help="Run the study's own sweeps first, and answer from them too.")
@flags.axis("--part", metavar="NAME,...", help="With --run: time, accuracy, batch; all if not given.")
@click.option("--plan", is_flag=True, help="With --run: say what would run, and for how long; run nothing.")
@flags.targets_option("NAME,...", "With --run: targets in place of the presets' own.")
@flags.data_dir_option
@flags.out_option("With --run: the folder of their run folders; what is there already is resumed.")
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
      harness study --run --plan
      harness study --run --part time --out study --html study.html
    """
    try:
        found = harness.study(*runs, **asked)
    except harness.RunStopped as stop:
        printing.tell(f"stopped; this resumes: {stop.how_to_resume}")
        return 1
    if json or asked["html"] is None or asked["plan"]:
        printing.show(found, json)
    return 0 if found.is_whole else 1
