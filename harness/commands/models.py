"""``harness models``."""

from __future__ import annotations

import click

from harness.commands import completing, flags, printing


@click.group(invoke_without_command=True)
@flags.json_option
@click.pass_context
def models(context: click.Context, json: bool) -> int:
    """List the built-in models, or show one layer by layer.

    \b
    Example:
      harness models show mnist-cnn
    """
    if context.invoked_subcommand is None:
        from harness.actions import listing

        printing.show(listing.list_models(), json)
    return 0


@models.command("show")
@click.argument("model", metavar="NAME|FILE.toml", shell_complete=completing.one_of(completing.models))
@flags.json_option
def models_show(model: str, json: bool) -> int:
    """Print a model's layers, shapes, parameters and costs.

    \b
    Example:
      harness models show my-network.toml
    """
    from harness.actions import listing

    printing.show(listing.show_model(model), json)
    return 0
