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
@click.option(
    "--fail-if-slower",
    metavar="SHARE",
    help="Exit with 3 if another side is shown to be slower than the first by more than this share, such as 3%; with 0 "
    "if that is excluded; with 4 if it cannot be told in the budget.",
)
@click.option(
    "--fail-if-different", metavar="SHARE", help="Likewise if one is shown to be slower or faster by more than this."
)
@flags.folder(
    "--baseline", help="An earlier run folder, or a folder of several: hold the run that is named against it."
)
@flags.data_dir_option
@flags.out_option("Run folder; a comparison that is there already is resumed.")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def compare(sides: tuple[str, ...], json: bool, **asked: Any) -> int:
    """Say which target trains faster, by how much, and whether that can be told from noise.

    A, B, ... are targets, as in 'harness sweep --target': NAME[:MODE][@KEY=VALUE]. Each is compared with the first.
    They take turns in short blocks, in several fresh processes each, beside a second copy of the first target,
    which shows how large a difference means nothing. A and B may also be two run folders, or A one beside --baseline.

    With --fail-if-slower SHARE or --fail-if-different SHARE the exit status is the answer, by the comparison's own
    interval: 3 where it lies wholly beyond the share (several batch sizes and targets are corrected together), 0 where
    all of them lie wholly within, and so does the noise floor, 4 otherwise. If the true difference is the share itself,
    3 and 0 come with a probability of at most 2.5 % each. Sides that are not comparable: 1.

    \b
    Example:
      harness compare tensorflow-cpu jax-cpu --batch-size 32,128
      harness compare tensorflow-cpu:graph tensorflow-cpu:xla --precision 0.01 --budget 5m
      harness compare jax-cpu@cpus=1 jax-cpu@cpus=2
      harness compare before after --fail-if-slower 3%
      harness compare harness-runs/today --baseline harness-runs --fail-if-slower 10%
    """
    found = printing.show_until_stopped(lambda: harness.compare(*sides, **asked), json)
    return 1 if found is None else found.exit_status
