"""``harness explain``."""

from __future__ import annotations

from typing import Any

import click

import harness
from harness.commands import completing, flags, printing

side = completing.one_of(completing.targets)


@click.command()
@click.argument("base", metavar="A", shell_complete=side)
@click.argument("target", metavar="B", shell_complete=side)
@flags.heats_options("32 and 128")
@click.option(
    "--clock",
    default="wall",
    show_default=True,
    metavar="wall|processor",
    help="Time as it passes, or what processors worked, which others' work disturbs less.",
)
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="Most time for all: 90s, 10m, 1h.")
@flags.data_dir_option
@flags.out_option("Run folder; an explanation that is there already is resumed.")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def explain(base: str, target: str, json: bool, **asked: Any) -> int:
    """Say why a training step of B takes longer than one of A, part by part.

    Each layer is run on its own, forward and backward, with the numbers of a real step; so are the optimizer, the loss,
    picking a batch, and an empty call. A, B and a second copy of A take turns part by part, in several fresh processes
    each. Every part's values are checked against the reference's. What the parts do not add up to is shown as such.

    \b
    Example:
      harness explain tensorflow-cpu jax-cpu --batch-size 32,128
      harness explain tensorflow-cpu:graph tensorflow-cpu:xla --model lenet5 --budget 5m
    """
    found = printing.show_until_stopped(lambda: harness.explain(base, target, **asked), json)
    return 0 if found is not None and found.is_whole else 1
