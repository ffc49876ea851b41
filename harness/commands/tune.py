"""``harness tune``."""

from __future__ import annotations

from typing import Any

import click

from harness.commands import flags, printing


@click.command()
@flags.targets_argument
@flags.heats_options("32 and 128, which count together,")
@click.option(
    "--precision", default="0.02", show_default=True, metavar="X", help="Wanted half width of the winner's interval."
)
@click.option("--budget", default="20m", show_default=True, metavar="TIME", help="Most time a target: 90s, 10m, 1h.")
@flags.data_dir_option
@flags.out_option("Run folder; a search that is there already is resumed.")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def tune(names: tuple[str, ...], json: bool, **asked: Any) -> int:
    """Find settings with which targets train faster on this machine, and show by how much.

    Whatever a target's backend can do in more than one way, to the same result, is tried in turns with the target as
    it is: modes, input forms, steps per call, processors, its own options, environment variables. What gains is
    tried together; the best is then measured afresh, in several fresh processes, since the best of many trials is
    too good by chance. What comes out is a target for harness.toml, or "nothing better found".

    \b
    Example:
      harness tune jax-cpu --batch-size 32,128
      harness tune tensorflow-cpu jax-cpu --model lenet5 --budget 5m
    """
    from harness.actions.tune import tune

    found = printing.show_until_stopped(lambda: tune(*names, **asked), json)
    return 0 if found is not None and found.is_whole else 1
