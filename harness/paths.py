"""Where the harness keeps what it makes: one function per place, one environment variable per exception."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

OWN_FILE = "harness.toml"
"""In the present folder: a person's own targets, and what to ask of their cluster."""

RUNS_FOLDER = "harness-runs"
"""In the present folder: where runs go that are given no folder."""

PLAN_FILE = "plan.json"
"""Makes a folder a run folder."""

CACHE_VARIABLE = "HARNESS_CACHE_DIR"


def cache_folder(*parts: str) -> Path:
    """The user's cache for environments, datasets and proofs (``HARNESS_CACHE_DIR`` overrides it), created."""
    chosen = os.environ.get(CACHE_VARIABLE)
    base = Path(chosen).absolute() if chosen else user_cache_path("backend-harness", appauthor=False)
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
