"""``harness merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import completing, flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, type=flags.AnyPath(), shell_complete=completing.run_folders
)
@click.option(
    "--out",
    "-o",
    type=flags.Folder(),
    required=True,
    shell_complete=completing.run_folders,
    metavar="RUN",
    help="Where all of it goes: a new folder, or a run of the same plan, to which it is added.",
)
@flags.json_option
def merge(runs: tuple[Path, ...], out: Path, json: bool) -> int:
    """Unite run folders that hold parts of one plan, and list what is missing.

    Each cell counts once, from whichever folder has its record. What was interrupted gives way and stays as an earlier
    attempt. Different records of one cell, and folders of different plans, are refused before anything is written.
    The folders may come from other systems; they are not changed. Merging again adds what is new.

    \b
    Example:
      harness merge shard-1 shard-2 shard-3 --out whole
      harness merge from-the-laptop --out harness-runs/study-20261123-101500
    """
    from harness.actions.merge import merge as unite

    printing.show(unite(runs, out), json)
    return 0
