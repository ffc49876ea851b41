"""``harness cache``: what is kept in the user's cache, and clearing it of what is not used any more."""

from __future__ import annotations

import sys

import click

from harness.commands import flags, printing
from harness.core.errors import UsageError


@click.group(invoke_without_command=True)
@flags.json_option
@click.pass_context
def cache(context: click.Context, json: bool) -> int:
    """List what is kept in the cache, with sizes and last use, and what is of no use now.

    It holds environments, datasets and proofs. It is in your home folder, or where the environment variable
    HARNESS_CACHE_DIR says.

    \b
    Example:
      harness cache
      harness cache clear --unused
    """
    if context.invoked_subcommand is None:
        from harness.actions.cached import show_cache

        printing.show(show_cache(), json)
    return 0


@cache.command("clear")
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--unused", is_flag=True, help="Only what no target, dataset or code of now uses.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@flags.json_option
def cache_clear(kinds: tuple[str, ...], unused: bool, yes: bool, json: bool) -> int:
    """Remove what is not used any more, or all of some kinds: environments, datasets, proofs, limits, bundles, ...

    What a running harness uses stays, and links that lead out of the cache are not followed. What is removed is built,
    made or found out anew when it is needed.

    \b
    Example:
      harness cache clear --unused
      harness cache clear environments datasets --yes
    """
    from harness.actions.cached import clear_cache

    cleared = clear_cache(kinds, unused, lambda question: yes or _agreed(question))
    if cleared is None:
        printing.tell("nothing is removed")
        return 1
    printing.show(cleared, json)
    if not json:
        for problem in cleared.problems:
            printing.tell(problem)
    return 0 if cleared.is_whole else 1


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("cache clear: nobody can be asked here; say --yes to remove without being asked")
    return click.confirm(question, err=True)
