"""``harness sweep``."""

from __future__ import annotations

from typing import Any

import click

import harness
from harness.commands import completing, flags, printing


@click.command()
@click.argument(
    "source", default="quick", metavar="[PRESET|FILE.toml]", shell_complete=completing.one_of(completing.presets)
)
@flags.targets_option("NAME[:MODE][@KEY=VALUE],...", "Targets: see 'harness targets'.")
@flags.batch_sizes_option("Batch sizes; 32..512 doubles, 32..max as far as memory holds.")
@flags.axis(
    "--batch-size-per-device", metavar="N,...", help="In place of batch sizes: that of each device, times their number."
)
@click.option("--memory", metavar="SIZE", help="With 32..max: what a worker on processors may take, such as 4GiB.")
@flags.axis("--cpus", metavar="N,...", help="Processors per worker, each a target of its own.")
@flags.axis(
    "--steps-per-call", metavar="N,...", help="Training steps in one call of the framework, each a target of its own."
)
@flags.axis("--devices", metavar="N,...", help="Devices that split each batch, each number a target of its own.")
@flags.axis("--epochs", "-e", metavar="N,...", help="Numbers of epochs, each a training run of its own.")
@click.option("--until-accuracy", metavar="SHARE", help="Train until this test accuracy, such as 0.98.")
@click.option("--max-epochs", metavar="N", help="With that: the most epochs that training may take.")
@click.option("--evaluate-every", metavar="N", help="Evaluate after every N training steps, too.")
@flags.models_option("Models: see 'harness models'.")
@flags.dataset_option("mnist, digits, or a file of your own.")
@flags.axis("--seed", metavar="N,...", help="Seeds of initial parameters, order and dropout.")
@flags.optimizers_option("sgd, momentum, nesterov, adam.")
@flags.axis(
    "--learning-rate",
    metavar="X,...|N:X,...|find",
    help="Learning rates; 32:0.01,512:0.08 is one for each batch size, find searches for them.",
)
@flags.precisions_option
@flags.training_options
@click.option("--train-examples", metavar="N", help="Use only the first N training images.")
@click.option("--test-examples", metavar="N", help="Use only the first N test images.")
@click.option(
    "--interleave",
    metavar="HOW",
    help="How cells of equal work take turns: block (short blocks, the default), cell (whole), none.",
)
@flags.data_dir_option
@flags.out_option("Run folder; a run that is there already is resumed.")
@click.option("--plan", is_flag=True, help="Print the cells and an estimate of the time; run nothing.")
@click.option(
    "--live", is_flag=True, help="Serve the run's page on this machine while it goes; the address is printed."
)
@click.option(
    "--retry", type=click.Choice(["failed"]), help="Run failed cells of the run folder again; earlier records are kept."
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "slurm", "ray"]),
    default="local",
    show_default=True,
    help="Where heats run: here, as jobs of Slurm's (returns at once), as tasks of a Ray cluster.",
)
@click.option(
    "--slurm",
    multiple=True,
    metavar="[TARGET.]KEY=VALUE",
    help="An option of sbatch, for all targets or one; also setup=SHELL, heats-per-task=N, concurrent=N.",
)
@click.option(
    "--ray",
    multiple=True,
    metavar="[TARGET.]KEY=VALUE",
    help="address, num_cpus, num_gpus, memory or a custom resource, for all targets or one; also retries=N, "
    "heats-per-task=N.",
)
@click.option("--shard", metavar="K/N", help="Run only part K of N of the plan's heats; see 'harness merge'.")
@click.option("--only", multiple=True, metavar="KEY=VALUE,...", help="Run only cells of this target, batch_size, ...")
@flags.json_option
@flags.timeout_option
@flags.fork_option
def sweep(json: bool, plan: bool, **asked: Any) -> int:
    """Train over batch sizes and targets, and print what each cost and reached.

    Without an argument it runs the preset "quick". Ctrl-C leaves a run that the same command with --out resumes.

    \b
    Example:
      harness sweep study --dataset mnist --batch-size 64 --epochs 3 --data-dir ~/mnist
      harness sweep study --launcher slurm --slurm partition=batch --slurm time=1:00:00
      harness sweep study --launcher ray --ray address=10.0.0.1:6379
      harness sweep study --shard 1/2 --out part-1
    """
    if plan:
        printing.show(harness.sweep(plan=True, **asked), json)
        return 0
    from harness.actions.shown import RunStopped

    try:
        result = harness.sweep(**asked)
    except RunStopped as stop:
        result = stop.result
        printing.show_run(result, json)
        printing.tell(str(stop))
        return 1
    printing.show_run(result, json)
    return 1 if result.submitted is None and result.has_failed else 0
