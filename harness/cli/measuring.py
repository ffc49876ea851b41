"""Commands that run workers: sweep, compare, verify, doctor, limits, noise-scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands import completing
from harness.commands.flags import (
    axis,
    data_dir_option,
    folder,
    fork_option,
    json_option,
    precisions_option,
    run_argument,
    timeout_option,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument(
    "source", default="quick", metavar="[PRESET|FILE.toml]", shell_complete=completing.one_of(completing.presets)
)
@axis(
    "--target",
    "-t",
    metavar="NAME[:MODE][@KEY=VALUE],...",
    help="Targets: see 'harness targets'.",
    complete=completing.several_of(completing.targets),
)
@axis("--batch-size", "-b", metavar="N,...", help="Batch sizes.")
@axis("--cpus", metavar="N,...", help="Processors per worker, each a target of its own.")
@axis("--epochs", "-e", metavar="N,...", help="Numbers of epochs, each a training run of its own.")
@axis(
    "--model",
    "-m",
    metavar="NAME|FILE,...",
    help="Models: see 'harness models'.",
    complete=completing.several_of(completing.models),
)
@click.option("--dataset", "-d", metavar="NAME|FILE.npz", help="mnist, digits, or a file of your own.")
@axis("--seed", metavar="N,...", help="Seeds of initial parameters, order and dropout.")
@axis(
    "--optimizer",
    metavar="NAME,...",
    help="sgd, momentum, nesterov, adam.",
    complete=completing.several_of(completing.optimizers),
)
@axis("--learning-rate", metavar="X,...", help="Learning rates.")
@precisions_option
@click.option("--scaling", metavar="RULE", help="How the rate follows the batch size: none, linear, sqrt.")
@click.option("--train-examples", metavar="N", help="Use only the first N training images.")
@click.option("--test-examples", metavar="N", help="Use only the first N test images.")
@click.option(
    "--interleave",
    metavar="HOW",
    help="How cells of equal work take turns: block (short blocks, the default), cell (whole), none.",
)
@data_dir_option
@folder("--out", "-o", help="Run folder; a run that is there already is resumed.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the cells and an estimate of the time; run nothing.")
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
@json_option
@timeout_option
@fork_option
def sweep(
    source: str,
    out: Path | None,
    data_dir: Path | None,
    plan_only: bool,
    live: bool,
    retry: str | None,
    launcher: str,
    slurm: tuple[str, ...],
    ray: tuple[str, ...],
    shard: str | None,
    only: tuple[str, ...],
    json: bool,
    timeout: float,
    fork: bool,
    **overrides: Any,
) -> int:
    """Train over batch sizes and targets, and print what each cost and reached.

    Without an argument it runs the preset "quick". Ctrl-C leaves a run that the same command with --out resumes.

    \b
    Example:
      harness sweep study --dataset mnist --batch-size 64 --epochs 3 --data-dir ~/mnist
      harness sweep study --launcher slurm --slurm partition=batch --slurm time=1:00:00
      harness sweep study --launcher ray --ray address=10.0.0.1:6379
      harness sweep study --shard 1/2 --out part-1
    """
    from harness.commands import sweep as command

    return command.run(
        command.Request(
            source=source,
            overrides=overrides,
            out=out,
            data_dir=data_dir,
            plan_only=plan_only,
            json=json,
            live=live,
            retry=retry is not None,
            timeout=timeout,
            fork=fork,
            launcher=launcher,
            slurm=slurm,
            ray=ray,
            shard=shard,
            only=only,
        )
    )


@click.command()
@run_argument
@click.argument("numbers", nargs=-1, required=True, metavar="HEAT...")
def heat(run: Path, numbers: tuple[str, ...]) -> int:
    """Run heats of a run folder, by their numbers in its plan: what launchers start on their machines.

    Cells that have their record are not run again, so a heat may be started twice, on any machine that sees the folder.

    \b
    Example:
      harness heat harness-runs/quick-20261123-101500 0
    """
    from harness.commands import heat as command

    return command.run(run, numbers)


@click.command()
@click.argument("sides", nargs=-1, metavar="A B [C]...", shell_complete=completing.targets_or_run_folders)
@axis("--batch-size", "-b", metavar="N,...", help="Batch sizes; 32, 128 and 512 if not given.")
@click.option(
    "--model",
    "-m",
    default="mnist-cnn",
    show_default=True,
    shell_complete=completing.one_of(completing.models),
    metavar="NAME|FILE",
    help="The model.",
)
@click.option("--dataset", "-d", default="digits", show_default=True, metavar="NAME|FILE.npz", help="The dataset.")
@click.option(
    "--optimizer",
    default="momentum",
    show_default=True,
    shell_complete=completing.one_of(completing.optimizers),
    metavar="NAME",
    help="The optimizer.",
)
@click.option(
    "--compute-precision",
    shell_complete=completing.one_of(completing.precisions),
    default="float32",
    show_default=True,
    metavar="NAME",
    help="float32, mixed_bfloat16, mixed_float16.",
)
@click.option(
    "--precision", default="0.02", show_default=True, metavar="X", help="Wanted half width of the ratio's interval."
)
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="Most time for all: 90s, 10m, 1h.")
@data_dir_option
@folder("--out", "-o", help="Run folder; a comparison that is there already is resumed.")
@json_option
@timeout_option
@fork_option
def compare(
    sides: tuple[str, ...],
    batch_size: tuple[str, ...],
    model: str,
    dataset: str,
    optimizer: str,
    compute_precision: str,
    precision: str,
    budget: str,
    out: Path | None,
    data_dir: Path | None,
    json: bool,
    timeout: float,
    fork: bool,
) -> int:
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
    from harness.commands import compare as command

    return command.run(
        command.Request(
            sides=sides,
            batch_sizes=batch_size,
            model=model,
            dataset=dataset,
            optimizer=optimizer,
            compute_precision=compute_precision,
            precision=precision,
            budget=budget,
            out=out,
            data_dir=data_dir,
            json=json,
            timeout=timeout,
            fork=fork,
        )
    )


@click.command()
@axis(
    "--target",
    "-t",
    metavar="NAME[:MODE],...",
    help="Targets; a name without a mode stands for all its modes.",
    complete=completing.several_of(completing.targets),
)
@axis(
    "--model",
    "-m",
    metavar="NAME|FILE,...",
    help="Models; all built-in ones if not given.",
    complete=completing.several_of(completing.models),
)
@axis(
    "--optimizer",
    metavar="NAME,...",
    help="Optimizers; all if not given.",
    complete=completing.several_of(completing.optimizers),
)
@precisions_option
@json_option
@timeout_option
@fork_option
def verify(
    target: tuple[str, ...],
    model: tuple[str, ...],
    optimizer: tuple[str, ...],
    precision: tuple[str, ...],
    json: bool,
    timeout: float,
    fork: bool,
) -> int:
    """Prove that targets compute what the float64 reference computes, on this machine.

    Compares logits, loss, every gradient, and the parameters after several steps, and dropout by its
    statistics; prints the largest error of each. Exit status 1 if one is beyond its tolerance. This is the
    conformance suite of backends, the built-in ones and your own: see docs/backends.md.

    \b
    Example:
      harness verify --target jax-cpu --model lenet5
      harness verify --target jax-cpu --compute-precision mixed_bfloat16
    """
    from harness.commands import verify as command

    return command.run(
        command.Request(
            targets=target,
            models=model,
            optimizers=optimizer,
            precisions=precision,
            json=json,
            timeout=timeout,
            fork=fork,
        )
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...", shell_complete=completing.one_of(completing.targets))
@click.option("--quick", is_flag=True, help="Start no worker: judge named targets by what can be seen from outside.")
@json_option
def doctor(names: tuple[str, ...], quick: bool, json: bool) -> int:
    """Say what this machine has, which targets work on it, and what mends those that do not.

    A target is ready, buildable, not on this platform, without its device, or broken. Those that are named are tried
    as well: their worker trains one step on their device. Exit status 1 if one of them is not ready.

    \b
    Example:
      harness doctor                     the machine and every target, in a few seconds
      harness doctor jax-cuda@device=1   whether this target trains on that GPU
    """
    from harness.commands import doctor as command

    return command.run(command.Request(names=names, quick=quick, json=json))


@click.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...", shell_complete=completing.one_of(completing.targets))
@json_option
@timeout_option
@fork_option
def limits(names: tuple[str, ...], json: bool, timeout: float, fork: bool) -> int:
    """Measure what the device of each target can do at most: products of matrices, and passing over memory.

    Sweeps measure it once for each target and keep it, as this command does; records tell it, and reports say
    what share of it training reached. A name without a mode stands for all its modes.

    \b
    Example:
      harness limits jax-cpu tensorflow-cpu:graph
    """
    from harness.commands import limits as command

    return command.run(command.Request(targets=names, json=json, timeout=timeout, fork=fork))


@click.command("noise-scale")
@run_argument
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
@axis(
    "--steps",
    metavar="N,...",
    help="Training steps after which to measure; 0 and the ends of the first and the last epoch if not given.",
)
@click.option("--dataset", "-d", metavar="NAME|FILE.npz", help="The run's dataset; needed for a file of your own.")
@data_dir_option
@json_option
@timeout_option
@fork_option
def noise_scale(**asked: Any) -> int:
    """Measure the gradient noise scale of a run's work: about the batch size up to which steps scale.

    At each point the gradients of several batches tell how much single examples differ and how large their mean is.
    It can double or halve within a few steps, so one point stands for itself only; --steps takes many. What is
    measured is kept in the run folder and found again. It takes a fork and a compilation for each batch.

    \b
    Example:
      harness noise-scale harness-runs/quick-20261123-101500
      harness noise-scale harness-runs/quick-20261123-101500 --target reference --steps 0,100 --batches 64
    """
    from harness.commands import noise_scale as command

    return command.run(command.Request(**asked))
