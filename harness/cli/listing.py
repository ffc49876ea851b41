"""Commands that list what there is to choose from, and get it ready: models, targets, data, sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.commands import completing
from harness.commands.flags import data_dir_option, json_option

if TYPE_CHECKING:
    from pathlib import Path


@click.group(invoke_without_command=True)
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
@click.argument("model", metavar="NAME|FILE.toml", shell_complete=completing.one_of(completing.models))
@json_option
def models_show(model: str, json: bool) -> int:
    """Print a model's layers, shapes, parameters and costs.

    \b
    Example:
      harness models show my-network.toml
    """
    from harness.commands import listing

    return listing.show_model(model, json)


@click.group(invoke_without_command=True)
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
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.one_of(completing.targets))
def targets_sync(names: tuple[str, ...]) -> int:
    """Build the environments of the named targets, or of all that compute on the processor.

    They go to the cache in your home folder, or where the environment variable HARNESS_CACHE_DIR says.

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


@click.group(invoke_without_command=True)
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

    It goes to the cache in your home folder, or where the environment variable HARNESS_CACHE_DIR says.

    \b
    Example:
      harness data prepare mnist --data-dir ~/mnist
    """
    from harness.commands import listing

    return listing.prepare_data(source, data_dir)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def cache(context: click.Context, json: bool) -> int:
    """List what is kept in the cache: environments, datasets, proofs; with sizes, last use, and what is of no use now.

    It is in your home folder, or where the environment variable HARNESS_CACHE_DIR says.

    \b
    Example:
      harness cache
      harness cache clear --unused
    """
    if context.invoked_subcommand is not None:
        return 0
    from harness.commands import cache as command

    return command.show(json)


@cache.command("clear")
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--unused", is_flag=True, help="Only what no target, dataset or code of now uses.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
def cache_clear(kinds: tuple[str, ...], unused: bool, yes: bool, json: bool) -> int:
    """Remove what is not used any more, or all of some kinds: environments, datasets, proofs, limits, bundles, ...

    What a running harness uses stays, and links that lead out of the cache are not followed. What is removed is built,
    made or found out anew when it is needed.

    \b
    Example:
      harness cache clear --unused
      harness cache clear environments datasets --yes
    """
    from harness.commands import cache as command

    return command.clear(kinds, unused, yes, json)


@click.command()
@json_option
def sweeps(json: bool) -> int:
    """List the presets of 'harness sweep'.

    \b
    Example:
      harness sweeps
    """
    from harness.commands import listing

    return listing.list_sweeps(json)
