"""``harness noise-scale``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands import completing, flags, printing

if TYPE_CHECKING:
    from pathlib import Path


@click.command("noise-scale")
@flags.run_argument
@click.option(
    "--target",
    "-t",
    shell_complete=completing.one_of(completing.targets),
    metavar="NAME[:MODE][@KEY=VALUE]",
    help="Where to measure; the run's first target if not given.",
)
@click.option(
    "--batches", default="32", show_default=True, metavar="K", help="Batches at each point: more narrow the interval."
)
@flags.axis(
    "--steps",
    metavar="N,...",
    help="Training steps after which to measure; 0 and the ends of the first and the last epoch if not given.",
)
@flags.dataset_option("The run's dataset; needed for a file of your own.")
@flags.data_dir_option
@flags.json_option
@flags.timeout_option
@flags.fork_option
def noise_scale(run: Path, json: bool, **asked: Any) -> int:
    """Measure the gradient noise scale of a run's work: about the batch size up to which steps scale.

    At each point the gradients of several batches tell how much single examples differ and how large their mean is.
    It can double or halve within a few steps, so one point stands for itself only; --steps takes many. What is
    measured is kept in the run folder and found again. It takes a fork and a compilation for each batch.

    \b
    Example:
      harness noise-scale harness-runs/quick-20261123-101500
      harness noise-scale harness-runs/quick-20261123-101500 --target reference --steps 0,100 --batches 64
    """
    from harness.actions.noise_scale import measure_noise_scale

    found = measure_noise_scale(run, **asked)
    printing.show(found, json)
    return 0 if found.is_whole else 1
