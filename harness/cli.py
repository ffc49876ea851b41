"""The command line: wiring only. Flags in, an exit status out; the work is in ``harness.commands``.

Exit status: 0 success, 2 a wrong call, 1 everything else. Commands import what they need when they
run, so ``harness --help`` stays quick.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from harness.core.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
LONGEST_TIMEOUT = 1_000_000


class Values(click.ParamType):  # type: ignore[type-arg]
    """Values separated by commas; the flag may also be repeated."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split, dropping blanks around the commas."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class AnyPath(click.ParamType):  # type: ignore[type-arg]
    """A ``Path``. click's own type would need pathlib at import, which is a tenth of what ``harness --help`` takes."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make the path; whether there is anything is the command's affair."""
        from pathlib import Path

        if not value:
            self.fail("a path cannot be empty")
        return Path(value)


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A time to wait. Endless ones are refused: they hide a hang, and no clock takes them."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number, exponents allowed."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 1 <= number <= LONGEST_TIMEOUT:
            self.fail(f"found {value!r}, allowed: a number of seconds from 1 to {LONGEST_TIMEOUT:,}")
        return number


def _joined(ctx: click.Context, param: click.Parameter, values: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(part for value in values for part in value)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _axis(*names: str, metavar: str, help: str) -> Decorator:
    return click.option(*names, type=Values(), multiple=True, callback=_joined, metavar=metavar, help=help)


def _folder(*names: str, help: str) -> Decorator:
    return click.option(*names, type=AnyPath(), metavar="FOLDER", help=help)


data_dir_option = _folder(
    "--data-dir", help="Folder with the four MNIST files (also: environment variable HARNESS_DATA_DIR)."
)
json_option = click.option("--json", is_flag=True, help="Print JSON for a program.")
timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for one answer of a worker: a compilation, a block of steps.",
)
fork_option = click.option(
    "--fork/--no-fork", default=True, help="Fork one process per cell (where possible), or start each afresh."
)


_accuracy_option = click.option(
    "--accuracy",
    metavar="SHARE",
    help="Test accuracy that matters, such as 0.98; if not given 0.98, or the highest of a few that is reached.",
)
_precisions = _axis(
    "--compute-precision",
    "precision",
    metavar="NAME,...",
    help="float32, mixed_bfloat16, mixed_float16; float32 if not given.",
)


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="backend-harness", prog_name="harness")
def cli() -> None:
    """Train one CNN identically in TensorFlow and in JAX, time it over batch sizes, and prove that both did the same.

    \b
    Example:
      harness sweep                                  the preset "quick": TensorFlow and JAX, three batch sizes
      harness sweep quick --batch-size 16,64 --plan  what would run, and for how long
      harness report harness-runs/quick-...          the table again
    """


@cli.command()
@click.argument("source", default="quick", metavar="[PRESET|FILE.toml]")
@_axis("--target", "-t", metavar="NAME[:MODE][@KEY=VALUE],...", help="Targets: see 'harness targets'.")
@_axis("--batch-size", "-b", metavar="N,...", help="Batch sizes.")
@_axis("--cpus", metavar="N,...", help="Processors per worker, each a target of its own.")
@_axis("--epochs", "-e", metavar="N,...", help="Numbers of epochs, each a training run of its own.")
@_axis("--model", "-m", metavar="NAME|FILE,...", help="Models: see 'harness models'.")
@click.option("--dataset", "-d", metavar="NAME|FILE.npz", help="mnist, digits, or a file of your own.")
@_axis("--seed", metavar="N,...", help="Seeds of initial parameters, order and dropout.")
@_axis("--optimizer", metavar="NAME,...", help="sgd, momentum, nesterov, adam.")
@_axis("--learning-rate", metavar="X,...", help="Learning rates.")
@_precisions
@click.option("--scaling", metavar="RULE", help="How the rate follows the batch size: none, linear, sqrt.")
@click.option("--train-examples", metavar="N", help="Use only the first N training images.")
@click.option("--test-examples", metavar="N", help="Use only the first N test images.")
@click.option(
    "--interleave",
    metavar="HOW",
    help="How cells of equal work take turns: block (short blocks, the default), cell (whole), none.",
)
@data_dir_option
@_folder("--out", "-o", help="Run folder; a run that is there already is resumed.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the cells and an estimate of the time; run nothing.")
@click.option(
    "--live", is_flag=True, help="Serve the run's page on this machine while it goes; the address is printed."
)
@click.option(
    "--retry", type=click.Choice(["failed"]), help="Run failed cells of the run folder again; earlier records are kept."
)
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
        )
    )


@cli.command()
@click.argument("sides", nargs=-1, metavar="A B [C]...")
@_axis("--batch-size", "-b", metavar="N,...", help="Batch sizes; 32, 128 and 512 if not given.")
@click.option("--model", "-m", default="mnist-cnn", show_default=True, metavar="NAME|FILE", help="The model.")
@click.option("--dataset", "-d", default="digits", show_default=True, metavar="NAME|FILE.npz", help="The dataset.")
@click.option("--optimizer", default="momentum", show_default=True, metavar="NAME", help="The optimizer.")
@click.option(
    "--compute-precision",
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
@_folder("--out", "-o", help="Run folder; a comparison that is there already is resumed.")
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


@cli.command()
@_axis("--target", "-t", metavar="NAME[:MODE],...", help="Targets; a name without a mode stands for all its modes.")
@_axis("--model", "-m", metavar="NAME|FILE,...", help="Models; all built-in ones if not given.")
@_axis("--optimizer", metavar="NAME,...", help="Optimizers; all if not given.")
@_precisions
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


@cli.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...")
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


@cli.command()
@click.argument("names", nargs=-1, metavar="[TARGET]...")
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


@cli.command("noise-scale")
@click.argument("run", type=AnyPath())
@click.option(
    "--target", "-t", metavar="NAME[:MODE][@KEY=VALUE]", help="Where to measure; the run's first target if not given."
)
@click.option(
    "--batches", default="32", show_default=True, metavar="K", help="Batches at each point: more narrow the interval."
)
@_axis(
    "--steps",
    metavar="N,...",
    help="Training steps after which to measure; 0 and the ends of the first and the last epoch if not given.",
)
@click.option("--dataset", "-d", metavar="NAME|FILE.npz", help="The run's dataset; needed for a file of your own.")
@data_dir_option
@json_option
@timeout_option
@fork_option
def noise_scale(
    run: Path,
    target: str | None,
    batches: str,
    steps: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    json: bool,
    timeout: float,
    fork: bool,
) -> int:
    """Measure the gradient noise scale of a run's work: about the batch size up to which steps scale.

    At each point the gradients of several batches tell how much single examples differ and how large their mean is.
    What is measured is kept in the run folder and found again. Takes a fork and a compilation for each batch.

    \b
    Example:
      harness noise-scale harness-runs/quick-20261123-101500
      harness noise-scale harness-runs/quick-20261123-101500 --target reference --steps 0,100 --batches 64
    """
    from harness.commands import noise_scale as command

    return command.run(
        command.Request(
            run=run,
            target=target,
            batches=batches,
            steps=steps,
            dataset=dataset,
            data_dir=data_dir,
            json=json,
            timeout=timeout,
            fork=fork,
        )
    )


@cli.command()
@click.argument("run", type=AnyPath())
@click.option(
    "--format",
    type=click.Choice(["csv", "json", "parquet", "markdown"]),
    help="Rows for a program, on standard output.",
)
@_accuracy_option
@click.option("--html", type=AnyPath(), metavar="FILE", help="Write the page: one file that opens anywhere, offline.")
@_folder("--png", help="Write every figure as PNG into this folder.")
@_folder("--svg", help="Write every figure as SVG into this folder.")
@_folder("--tensorboard", help="Write event files for TensorBoard (extra: tensorboard).")
@click.option("--mlflow", metavar="URI", help="Log to MLflow: a folder, sqlite:///FILE or http://... (extra: mlflow).")
def report(run: Path, **asked: Any) -> int:
    """Show the table of a run folder again, or make its page, pictures, or rows for a program.

    \b
    Example:
      harness report harness-runs/quick-20261123-101500 --html quick.html
      harness report harness-runs/quick-20261123-101500 --format csv > quick.csv
    """
    from harness.commands import report as command

    return command.run(command.Request(run=run, **asked))


@cli.group()
def cell() -> None:
    """Take one cell out of a run.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a
    """


@cell.command("export")
@click.argument("run", type=AnyPath())
@click.argument("cell_id", metavar="CELL")
@click.option(
    "--out",
    "-o",
    type=AnyPath(),
    metavar="FILE.py",
    help="The script; its arrays go into FILE.npz. cell-ID.py if not given.",
)
def cell_export(run: Path, cell_id: str, out: Path | None) -> int:
    """Write a cell as a standalone script in plain TensorFlow or JAX, with its arrays beside it.

    The script needs NumPy and the framework alone. It trains the cell from the same arrays and prints its losses beside
    the recorded ones. CELL is the id of a cell, or as much of its beginning as no other of the run has.

    \b
    Example:
      harness cell export harness-runs/quick-20261123-101500 3f2a --out lenet.py
    """
    from harness.commands import cell as command

    return command.export(run, cell_id, out)


@cli.command()
@click.argument("run", type=AnyPath())
@_accuracy_option
@json_option
def recommend(run: Path, accuracy: str | None, json: bool) -> int:
    """Say which target and batch size to use on the machine of a run, on what evidence, and what to measure next.

    Best is what reaches a test accuracy in the least training time. Where no target reaches it, what trains fastest.

    \b
    Example:
      harness recommend harness-runs/study-20261123-101500 --accuracy 0.98
    """
    from harness.commands import recommend as command

    return command.run(run, accuracy, json)


@cli.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, json: bool) -> int:
    """List the built-in models, or show one layer by layer.

    \b
    Example:
      harness models show mnist-cnn
    """
    if context.invoked_subcommand is not None:
        return 0
    from harness.commands import listing

    return listing.list_models(json)


@models.command("show")
@click.argument("model", metavar="NAME|FILE.toml")
@json_option
def models_show(model: str, json: bool) -> int:
    """Print a model's layers, shapes, parameters and costs.

    \b
    Example:
      harness models show my-network.toml
    """
    from harness.commands import listing

    return listing.show_model(model, json)


@cli.group(invoke_without_command=True)
@json_option
@click.pass_context
def targets(context: click.Context, json: bool) -> int:
    """List the targets and the state of their environments.

    \b
    Example:
      harness targets sync tensorflow-cpu
    """
    if context.invoked_subcommand is not None:
        return 0
    from harness.commands import listing

    return listing.list_targets(json)


@targets.command("sync")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def targets_sync(names: tuple[str, ...]) -> int:
    """Build the environments of the named targets, or of all that compute on the processor.

    \b
    Example:
      harness targets sync jax-cpu
    """
    from harness.commands import listing

    return listing.sync_targets(names)


@targets.command("support")
@json_option
def targets_support(json: bool) -> int:
    """Print which layers, precisions, inputs and optimizers each target offers in each mode, as Markdown.

    The adapters say so themselves, in the environments of the CPU targets, which are built if need be. For a GPU
    target the same adapter is asked about that accelerator, so the table is the same on every machine.

    \b
    Example:
      harness targets support
    """
    from harness.commands import support

    return support.run(json)


@cli.group(invoke_without_command=True)
@data_dir_option
@json_option
@click.pass_context
def data(context: click.Context, data_dir: Path | None, json: bool) -> int:
    """List the datasets and whether they are at hand.

    \b
    Example:
      harness data prepare mnist
    """
    if context.invoked_subcommand is not None:
        return 0
    from harness.commands import listing

    return listing.list_datasets(data_dir, json)


@data.command("prepare")
@click.argument("source", metavar="NAME|FILE.npz")
@data_dir_option
def data_prepare(source: str, data_dir: Path | None) -> int:
    """Download, make or check one dataset, and print its hash.

    \b
    Example:
      harness data prepare mnist --data-dir ~/mnist
    """
    from harness.commands import listing

    return listing.prepare_data(source, data_dir)


@cli.command()
@json_option
def sweeps(json: bool) -> int:
    """List the presets of 'harness sweep'.

    \b
    Example:
      harness sweeps
    """
    from harness.commands import listing

    return listing.list_sweeps(json)


def main() -> None:
    """Entry point of the ``harness`` command: every deliberate error is one line on standard error."""
    _prepare_streams()
    try:
        status = cli.main(prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = UsageError.exit_status
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        status = _fail(f"{error.format_message()}{hint}", UsageError.exit_status)
    except click.ClickException as error:
        status = _fail(error.format_message())
    except HarnessError as error:
        status = _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        status = _fail("stopped")
    except MemoryError:
        status = _fail("memory ran out; ask for fewer examples, epochs or cells at once")
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has gone, as in `harness --help | head`; click has made an exit of it.
        _drop_output()
        status = 0
    except OSError as error:
        # The current folder is the only thing that Python looks for without naming it.
        unnamed = "the current folder is gone" if isinstance(error, FileNotFoundError) else "output cannot be written"
        what = unnamed if error.filename is None else f"{error.filename}: cannot be used"
        status = _fail(f"{what} ({error.strerror or error})")
        _drop_output()
    sys.exit(status)


def _prepare_streams() -> None:
    """Give the process the streams that it was started without; let it print whatever a file may be called.

    What a console cannot show becomes '?', and bytes that are no UTF-8 stay as they are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


def _drop_output() -> None:
    from harness.report.terminal import drop_output

    drop_output(sys.stdout)


def _fail(message: str, status: int = HarnessError.exit_status) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"harness: {' '.join(message.split())}", err=True)
    return status
