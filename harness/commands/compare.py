"""``harness compare``."""

from __future__ import annotations

from typing import Any

import click

import harness
from harness.commands import completing, flags, printing


@click.command()
@click.argument("sides", nargs=-1, metavar="A B [C]...", shell_complete=completing.targets_or_run_folders)
@flags.batch_sizes_option("Batch sizes; 32, 128 and 512 if not given.")
@flags.one_option(
    "--model", "-m", names_of=completing.models, default="mnist-cnn", metavar="NAME|FILE", help="The model."
)
@flags.dataset_option("The dataset.", default="digits")
@flags.one_option(
    "--optimizer", names_of=completing.optimizers, default="momentum", metavar="NAME", help="The optimizer."
)
@flags.compute_precision_option
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
    from harness.actions.shown import RunStopped

    try:
        result = harness.compare(*sides, **asked)
    except RunStopped as stop:
        printing.show(stop.result, json)
        printing.tell(f"stopped; what was measured until then is above; this resumes: {stop.how_to_resume}")
        return 1
    printing.show(result, json)
    return 0 if result.is_comparable else 1
