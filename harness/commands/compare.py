"""``harness compare``."""

from __future__ import annotations

from typing import Any

import click

import harness
from harness.commands import completing, flags, printing


@click.command()
@click.argument("sides", nargs=-1, metavar="A B [C]...", shell_complete=completing.targets_or_run_folders)
@flags.heats_options("32, 128 and 512")
@click.option(
    "--precision", default="0.02", show_default=True, metavar="X", help="Wanted half width of the ratio's interval."
)
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="Most time for all: 90s, 10m, 1h.")
@flags.data_dir_option
@flags.out_option("Run folder; a comparison that is there already is resumed.")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def compare(sides: tuple[str, ...], json: bool, **asked: Any) -> int:
    """Say which target trains faster, by how much, and whether that can be told from noise.

    A, B, ... are targets, as in 'harness sweep --target': NAME[:MODE][@KEY=VALUE]. Each is compared with the first.
    They take turns in short blocks, in several fresh processes each, beside a second copy of the first target,
    which shows how large a difference means nothing. A and B may also be two run folders.

    \b
    Example:
      harness compare tensorflow-cpu jax-cpu --batch-size 32,128
      harness compare tensorflow-cpu:graph tensorflow-cpu:xla --precision 0.01 --budget 5m
      harness compare jax-cpu@cpus=1 jax-cpu@cpus=2
    """
    found = printing.show_until_stopped(lambda: harness.compare(*sides, **asked), json)
    return 0 if found is not None and found.is_comparable else 1
