"""``harness data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.group(invoke_without_command=True)
@flags.data_dir_option
@flags.json_option
@click.pass_context
def data(context: click.Context, data_dir: Path | None, json: bool) -> int:
    """List the datasets and whether they are at hand.

    \b
    Example:
      harness data prepare mnist
    """
    if context.invoked_subcommand is None:
        from harness.actions import listing

        printing.show(listing.list_datasets(data_dir), json)
    return 0


@data.command("prepare")
@click.argument("source", metavar="NAME|FILE.npz")
@flags.data_dir_option
def data_prepare(source: str, data_dir: Path | None) -> int:
    """Download, make or check one dataset, and print its hash.

    It goes to the cache in your home folder, or where the environment variable HARNESS_CACHE_DIR says.

    \b
    Example:
      harness data prepare mnist --data-dir ~/mnist
    """
    from harness.actions import listing

    printing.show(listing.prepare_data(source, data_dir))
    return 0
