"""``harness targets support``: the support table, asked of the adapters in their own environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.core import codec
from harness.core.errors import CellError
from harness.doctor import support
from harness.measure import session
from harness.plan import own_file, targets
from harness.workers import START_SECONDS


@dataclass(frozen=True, repr=False)
class SupportTable(Shown):
    """What each target offers; ``is_whole``: every adapter answered."""

    rows: tuple[support.SupportRow, ...]
    is_whole: bool

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        return support.markdown(self.rows)

    def print_to(self, console: Console) -> None:
        """The table as Markdown."""
        console.print(self.markdown, end="", soft_wrap=True)

    def plain(self) -> list[Any]:
        """A dict for each row."""
        return [codec.to_json(row) for row in self.rows]


def ask_support() -> SupportTable:
    """Start a host for each adapter and environment, and ask what it offers."""
    definitions = own_file.target_definitions()
    wanted = [targets.resolve(name, definitions) for name in sorted(set(support.declarers(definitions).values()))]
    problems = session.build_environments(definitions, wanted, NEWS)
    declarations: dict[str, support.Capabilities | str] = {}
    hosts = session.temporary_hosts(definitions, problems, "support", START_SECONDS, keeping=NEWS.keeping)
    with hosts as (pool, _, _):
        for target in wanted:
            try:
                declarations[target.name] = pool.worker(target).ready.capabilities
            except CellError as error:
                declarations[target.name] = str(error)
                tell(f"warning: target {target.name} says nothing: {error}")
    is_whole = not any(isinstance(declared, str) for declared in declarations.values())
    return SupportTable(tuple(support.rows(definitions, declarations)), is_whole)
