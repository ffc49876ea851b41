"""``harness batch-plan``."""

from __future__ import annotations

from typing import Any

import click

from harness.commands import completing, flags, printing


@click.command("batch-plan")
@click.argument("source", metavar="SWEEP")
@click.argument("rule", metavar="RULE")
@click.option(
    "--target",
    "-t",
    shell_complete=completing.one_of(completing.targets),
    metavar="NAME[:MODE][@KEY=VALUE]",
    help="Where to decide; the sweep's first target if not given.",
)
@click.option("--smallest", default="16", show_default=True, metavar="N", help="No batch size is smaller.")
@click.option("--largest", default="1024", show_default=True, metavar="N", help="None is larger.")
@click.option("--batches", default="16", show_default=True, metavar="K", help="Gradients that a decision goes by.")
@click.option("--decide-every", metavar="N", help="Decide after every N training steps, not after each epoch.")
@flags.data_dir_option
@flags.json_option
@flags.timeout_option
@flags.fork_option
def batch_plan(source: str, rule: str, json: bool, **asked: Any) -> int:
    """Decide a plan of batch sizes once, from the gradients at the end of each epoch, or after every N steps.

    SWEEP is a preset or a file with one fixed batch size, with which training begins. RULE is cabs (rate times the
    variance of single examples' gradients over the loss) or noise-scale (that variance over the squared gradient).
    Sizes are the first times powers of two. The plan that is printed goes into a sweep: every target replays it.

    \b
    Example:
      harness batch-plan mine.toml noise-scale --target jax-cpu --largest 512
    """
    from harness.actions.batch_plan import batch_plan

    found = batch_plan(source, rule, **asked)
    printing.show(found, json)
    return 0 if found.is_whole else 1
