"""``harness verify``."""

from __future__ import annotations

from typing import Any

import click

import harness
from harness.commands import flags, printing


@click.command()
@flags.targets_option("NAME[:MODE],...", "Targets; a name without a mode stands for all its modes.")
@flags.models_option("Models; all built-in ones if not given.")
@flags.optimizers_option("Optimizers; all if not given.")
@flags.precisions_option
@flags.batch_sizes_option("Also train at these batch sizes, or plans of them, as it is timed, and check every step.")
@flags.training_options
@flags.dataset_option("Images for --batch-size: mnist, digits, or a .npz file.", default="digits")
@flags.data_dir_option
@flags.json_option
@flags.timeout_option
@flags.fork_option
def verify(json: bool, **asked: Any) -> int:
    """Prove that targets compute what the float64 reference computes, on this machine.

    Compares logits, loss, every gradient, and the parameters after several steps, and dropout by its
    statistics; prints the largest error of each. With --batch-size it also trains real images at those
    sizes, through the very calls that are timed, and has the reference do each step again. Exit status 1
    if one is beyond its tolerance. This is the conformance suite of backends, the built-in ones and your
    own: see docs/backends.md.

    \b
    Example:
      harness verify --target jax-cpu --model lenet5
      harness verify --target jax-cpu --compute-precision mixed_bfloat16
      harness verify --target jax-cpu --model mnist-cnn --optimizer momentum --batch-size 32,512
      harness verify --target jax-cpu --model lenet5 --optimizer adam --weight-decay 0.01 --batch-size 0:32,1:128
    """
    found = harness.verify(**asked)
    printing.show(found, json)
    for label in found.unproven:
        printing.tell(f"FAILED {label}: nothing of what was asked for is offered, so nothing is proven")
    return 0 if found.passed else 1
