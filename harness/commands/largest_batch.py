"""``harness largest-batch``."""

from __future__ import annotations

from typing import Any

import click

from harness.commands import completing, flags, printing


@click.command("largest-batch")
@flags.targets_argument
@flags.one_option(
    "--model", "-m", names_of=completing.models, default="mnist-cnn", metavar="NAME|FILE", help="The model to train."
)
@flags.dataset_option("Its images; no batch is larger than they are many.", default="digits")
@flags.one_option(
    "--optimizer", names_of=completing.optimizers, default="momentum", metavar="NAME", help="How to train."
)
@flags.compute_precision_option
@click.option(
    "--memory",
    metavar="SIZE",
    help="What a worker on processors may take of main memory, such as 4GiB; needed for those.",
)
@flags.data_dir_option
@flags.json_option
@flags.timeout_option
@flags.fork_option
def largest_batch(names: tuple[str, ...], json: bool, **asked: Any) -> int:
    """Find the largest batch size that each target trains within its memory.

    Sizes are doubled until one does not fit, then the gap is halved until it is narrow. Each is tried on a fresh
    process: one training step and one evaluation. On a processor a worker that takes more than --memory is ended.
    A target may say @microbatch=M: it computes the gradient of a batch from parts of M examples.

    \b
    Example:
      harness largest-batch jax-cpu tensorflow-cpu:graph --memory 4GiB
      harness largest-batch jax-cpu jax-cpu@microbatch=32 --memory 2GB
      harness largest-batch tensorflow-directml:graph --model lenet5 --dataset mnist
    """
    from harness.actions.largest_batch import largest_batch

    found = largest_batch(names, **asked)
    printing.show(found, json)
    return 0 if found.is_whole else 1
