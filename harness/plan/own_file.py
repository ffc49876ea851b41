"""A person's own ``harness.toml``: targets, and what to ask of a cluster, in the folder where they work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.paths import OWN_FILE
from harness.plan import targets, tomlfile
from harness.plan.targets import TargetDefinition

OWN_TABLES = ("targets", "slurm", "ray")


def target_definitions(own: Mapping[str, Any] | None = None, source: str = "") -> dict[str, TargetDefinition]:
    """Built-in targets, those of ``harness.toml`` in the present folder, and those of a sweep file."""
    file = Path(OWN_FILE)
    before = [(own_table("targets"), str(file))] if file.exists() else []
    return targets.definitions(own, source, before=before)


def own_table(name: str) -> dict[str, Any]:
    """One of the tables of ``harness.toml`` in the present folder, empty where there is none. Raises UsageError."""
    file = Path(OWN_FILE)
    content = tomlfile.read(file) if file.exists() else {}
    wrong = [key for key, value in sorted(content.items()) if key not in OWN_TABLES or not isinstance(value, dict)]
    if wrong:
        raise UsageError(f"{file}: unknown key {wrong[0]!r}; allowed: tables named [targets.NAME], [slurm], [ray]")
    found: dict[str, Any] = content.get(name, {})
    return found
