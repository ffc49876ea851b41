"""``harness targets``."""

from __future__ import annotations

import click

from harness.commands import completing, flags, printing


@click.group(invoke_without_command=True)
@flags.json_option
@click.pass_context
def targets(context: click.Context, json: bool) -> int:
    """List the targets and the state of their environments.

    \b
    Example:
      harness targets sync tensorflow-cpu
    """
    if context.invoked_subcommand is None:
        from harness.actions import listing

        printing.show(listing.list_targets(), json)
    return 0


@targets.command("show")
@click.argument("name", metavar="NAME", shell_complete=completing.one_of(completing.targets))
@flags.json_option
def targets_show(name: str, json: bool) -> int:
    """Print what a target sets, each with its reason, and what else it could be asked for.

    \b
    Example:
      harness targets show jax-cpu-tuned
    """
    from harness.actions import listing

    printing.show(listing.show_target(name), json)
    return 0


@targets.command("sync")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.one_of(completing.targets))
def targets_sync(names: tuple[str, ...]) -> int:
    """Build the environments of the named targets, or of all that compute on the processor.

    They go to the cache in your home folder, or where the environment variable HARNESS_CACHE_DIR says.

    \b
    Example:
      harness targets sync jax-cpu
    """
    from harness.actions import listing

    told, is_whole = listing.sync_targets(names)
    printing.show(told)
    return 0 if is_whole else 1


@targets.command("support")
@flags.json_option
def targets_support(json: bool) -> int:
    """Print which layers, precisions, inputs and optimizers each target offers in each mode, as Markdown.

    The adapters say so themselves, in the environments of the CPU targets, which are built if need be. For a GPU
    target the same adapter is asked about that accelerator, so the table is the same on every machine.

    \b
    Example:
      harness targets support
    """
    from harness.actions.support import ask_support

    found = ask_support()
    printing.show(found, json)
    return 0 if found.is_whole else 1
