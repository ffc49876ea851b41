"""``harness sweeps``."""

from __future__ import annotations

import click

from harness.commands import flags, printing


@click.command()
@flags.json_option
def sweeps(json: bool) -> int:
    """List the presets of 'harness sweep'.

    \b
    Example:
      harness sweeps
    """
    from harness.actions import listing

    printing.show(listing.list_sweeps(), json)
    return 0
