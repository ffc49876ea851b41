"""What several commands take: types of values, and options that read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from harness.commands import completing
from harness.commands.completing import Completer, Items

if TYPE_CHECKING:
    from pathlib import Path

DASH = "-"


class Values(click.ParamType):  # type: ignore[type-arg]
    """Values separated by commas; the flag may also be repeated."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split, dropping blanks around the commas."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class BatchSizes(Values):
    """As ``Values``, but commas within a plan do not separate: ``32,0:64,2:128`` is 32 and a plan of two sizes."""

    name = "batch sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split, but not before a piece of a plan that is not its first."""
        if not isinstance(value, str):
            return value
        found: list[str] = []
        for part in value.split(","):
            start, colon, _ = part.partition(":")
            if colon and found and ":" in found[-1] and start.strip() not in ("0", "step0"):
                found[-1] += f",{part.strip()}"
            else:
                found.append(part.strip())
        return tuple(found)


class AnyPath(click.ParamType):  # type: ignore[type-arg]
    """A ``Path``. click's own type would need pathlib at import, which is a tenth of what ``harness --help`` takes."""

    name = "path"
    completed = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make the path; whether there is anything is the command's affair."""
        from pathlib import Path

        if not value:
            self.fail("a path cannot be empty")
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """Leave it to the shell."""
        return [CompletionItem(incomplete, type=self.completed)]


class File(AnyPath):
    """A file that is written: ``-`` stays that, which is standard output, and ``./-`` is a file of that name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make the path, which alone would forget the ``./``."""
        path = super().convert(value, param, ctx)
        return path.absolute() if str(path) == DASH != value else path


class Folder(AnyPath):
    """A folder. Standard output, as ``-``, is none; ``./-`` is a folder of that name."""

    completed = "dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make the path."""
        if value == DASH:
            self.fail(f"found {DASH!r}, standard output, allowed: a folder (./{DASH} for one of that name)")
        return super().convert(value, param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A time to wait, as functions take it too."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number, exponents allowed."""
        if isinstance(value, float):  # the default, at every TAB too, where nothing heavy is imported
            return value
        from harness.actions import values

        number = values.number(value)
        if not values.is_timeout(number):
            self.fail(f"found {value!r}, allowed: {values.TIMEOUTS}")
        return number


def _joined(ctx: click.Context, param: click.Parameter, values: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(part for value in values for part in value)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def axis(
    *names: str, metavar: str, help: str, complete: Completer | None = None, type: Values | None = None
) -> Decorator:
    """An option of several values."""
    return click.option(
        *names,
        type=type or Values(),
        multiple=True,
        callback=_joined,
        metavar=metavar,
        help=help,
        shell_complete=complete,
    )


def folder(*names: str, help: str) -> Decorator:
    """An option that names a folder."""
    return click.option(*names, type=Folder(), metavar="FOLDER", help=help)


def targets_option(metavar: str, help: str) -> Decorator:
    """--target, of several."""
    return axis("--target", "-t", metavar=metavar, help=help, complete=completing.several_of(completing.targets))


def models_option(help: str) -> Decorator:
    """--model, of several."""
    several = completing.several_of(completing.models)
    return axis("--model", "-m", metavar="NAME|FILE,...", help=help, complete=several)


def optimizers_option(help: str) -> Decorator:
    """--optimizer, of several."""
    return axis("--optimizer", metavar="NAME,...", help=help, complete=completing.several_of(completing.optimizers))


def one_option(*names: str, names_of: completing.Names, default: str, metavar: str, help: str) -> Decorator:
    """An option of one name, with its default shown."""
    return click.option(
        *names,
        default=default,
        show_default=True,
        shell_complete=completing.one_of(names_of),
        metavar=metavar,
        help=help,
    )


def batch_sizes_option(help: str) -> Decorator:
    """--batch-size, of several."""
    return axis("--batch-size", "-b", metavar="N,...", help=help, type=BatchSizes())


def dataset_option(help: str, default: str | None = None) -> Decorator:
    """--dataset."""
    return click.option(
        "--dataset", "-d", default=default, show_default=default is not None, metavar="NAME|FILE.npz", help=help
    )


def out_option(help: str) -> Decorator:
    """--out, a run folder."""
    return folder("--out", "-o", help=help)


targets_argument = click.argument(
    "names", nargs=-1, metavar="[TARGET]...", shell_complete=completing.one_of(completing.targets)
)
data_dir_option = folder(
    "--data-dir", help="Folder with the four MNIST files (also: environment variable HARNESS_DATA_DIR)."
)
run_argument = click.argument("run", type=AnyPath(), shell_complete=completing.run_folders)
runs_argument = click.argument(
    "runs", nargs=-1, required=True, type=AnyPath(), metavar="RUN...", shell_complete=completing.run_folders
)
names_option = click.option(
    "--name",
    multiple=True,
    metavar="NAME=RUN",
    help="Of several runs, what the system of one is called, such as desktop=harness-runs/study; may be repeated.",
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
accuracy_option = click.option(
    "--accuracy",
    metavar="SHARE",
    help="Test accuracy that matters, such as 0.98; if not given 0.98, or the highest of a few that is reached.",
)
html_option = click.option(
    "--html",
    type=File(),
    metavar="FILE",
    help="Write the page: one file that opens anywhere, offline; - for standard output.",
)
compute_precision_option = one_option(
    "--compute-precision",
    names_of=completing.precisions,
    default="float32",
    metavar="NAME",
    help="float32, mixed_bfloat16, mixed_float16.",
)
precisions_option = axis(
    "--compute-precision",
    metavar="NAME,...",
    help="float32, mixed_bfloat16, mixed_float16; float32 if not given.",
    complete=completing.several_of(completing.precisions),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the rate changes, and what becomes of the loss and its gradient."""
    options = (
        click.option("--scaling", metavar="RULE", help="How the rate follows the batch size: none, linear, sqrt."),
        click.option("--warmup-steps", metavar="N", help="Steps over which the rate grows to the whole one."),
        click.option("--warmup-epochs", metavar="N", help="The same in epochs."),
        click.option("--decay", metavar="RULE", help="How the rate falls after that: none, cosine, polynomial."),
        click.option("--decay-power", metavar="X", help="The power of polynomial decay; 1 is linear."),
        click.option("--decay-to", metavar="SHARE", help="The share of the rate at which decay ends."),
        click.option("--weight-decay", metavar="X", help="Weight decay of kernels."),
        click.option("--weight-decay-form", metavar="FORM", help="decoupled (as AdamW), or l2, a term of the loss."),
        click.option("--clip-norm", metavar="X", help="Clip gradients by their norm, all together."),
        click.option(
            "--label-smoothing", metavar="SHARE", help="The share of a label that all classes have in equal parts."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def heats_options(usual: str) -> Decorator:
    """What is trained in heats: batch sizes, ``usual`` where none is named, of one model, dataset and optimizer."""
    options = (
        batch_sizes_option(f"Batch sizes; {usual} if not given."),
        one_option(
            "--model", "-m", names_of=completing.models, default="mnist-cnn", metavar="NAME|FILE", help="The model."
        ),
        dataset_option("The dataset.", default="digits"),
        one_option(
            "--optimizer", names_of=completing.optimizers, default="momentum", metavar="NAME", help="The optimizer."
        ),
        compute_precision_option,
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
