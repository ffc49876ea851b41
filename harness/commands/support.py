"""``harness targets support``: the support table, asked of the adapters in their own environments."""

from __future__ import annotations

import sys

from harness import outputs
from harness.commands import printing, running
from harness.core import codec
from harness.core.errors import CellError
from harness.doctor import support
from harness.plan import own_file, targets
from harness.workers import START_SECONDS


def run(json: bool) -> int:
    """Start a host for each adapter and environment, and print what they declare. Status 1 if one does not answer."""
    definitions = own_file.target_definitions()
    wanted = [targets.resolve(name, definitions) for name in sorted(set(support.declarers(definitions).values()))]
    console = printing.standard_error()
    problems = printing.build_environments(definitions, wanted, console)
    declarations: dict[str, support.Capabilities | str] = {}
    with running.temporary_hosts(definitions, problems, "support", START_SECONDS) as (pool, _, _):
        for target in wanted:
            try:
                declarations[target.name] = pool.worker(target).ready.capabilities
            except CellError as error:
                declarations[target.name] = str(error)
                printing.say(console, f"warning: target {target.name} says nothing: {error}")
    found = support.rows(definitions, declarations)
    if json:
        printing.write_json([codec.to_json(row) for row in found])
    else:
        with outputs.reader_may_leave():
            sys.stdout.write(support.markdown(found))
    return 1 if any(isinstance(declared, str) for declared in declarations.values()) else 0
