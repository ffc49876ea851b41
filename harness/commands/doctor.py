"""``harness doctor``."""

from __future__ import annotations

import click

import harness
from harness.commands import flags, printing


@click.command()
@flags.targets_argument
@click.option("--quick", is_flag=True, help="Start no worker: judge named targets by what can be seen from outside.")
@flags.json_option
def doctor(names: tuple[str, ...], quick: bool, json: bool) -> int:
    """Say what this machine has, which targets work on it, and what mends those that do not.

    A target is ready, buildable, not on this platform, without its device, or broken. Those that are named are tried
    as well: their worker trains one step on their device. Exit status 1 if one of them is not ready.

    \b
    Example:
      harness doctor                     the machine and every target, in a few seconds
      harness doctor jax-cuda@device=1   whether this target trains on that GPU
    """
    found = harness.doctor(*names, quick=quick)
    printing.show(found, json)
    return 1 if names and not found.is_ready else 0
