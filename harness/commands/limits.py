"""``harness limits``."""

from __future__ import annotations

import click

from harness.commands import flags, printing


@click.command()
@flags.targets_argument
@flags.json_option
@flags.timeout_option
@flags.fork_option
def limits(names: tuple[str, ...], json: bool, timeout: float, fork: bool) -> int:
    """Measure what the device of each target can do at most: products of matrices, and passing over memory.

    Sweeps measure it once for each target and keep it, as this command does; records tell it, and reports say
    what share of it training reached. A name without a mode stands for all its modes.

    \b
    Example:
      harness limits jax-cpu tensorflow-cpu:graph
    """
    from harness.actions.limits import measure_limits

    found = measure_limits(names, timeout=timeout, fork=fork)
    printing.show(found, json)
    return 0 if found.is_whole else 1
