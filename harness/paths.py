"""Where the harness keeps what it makes: one function per place, one environment variable per exception."""

from __future__ import annotations

import errno
import os
from pathlib import Path

OWN_FILE = "harness.toml"
"""In the present folder: a person's own targets, and what to ask of their cluster."""

RUNS_FOLDER = "harness-runs"
"""In the present folder: where runs go that are given no folder."""

PLAN_FILE = "plan.json"
"""Makes a folder a run folder."""

CACHE_VARIABLE = "HARNESS_CACHE_DIR"
ENVIRONMENTS, DATASETS, BUNDLES, PROOFS, LIMITS, PAGES, LEARNING_RATES, LARGEST_BATCHES = (
    "environments",
    "datasets",
    "bundles",
    "proofs",
    "limits",
    "pages",
    "learning-rates",
    "largest-batches",
)
"""Folders of the cache."""

SPEEDS_FILE = "speeds.json"
"""In the cache: how fast cells of earlier runs were."""

OTHER_CACHE = f"the environment variable {CACHE_VARIABLE} names another folder for it"
"""What an error says where the cache lacks space or permission."""


def from_here(place: Path) -> str:
    """``place`` as a person in the present folder writes it: relative where it lies below, else as it is."""
    try:
        near = str(place.absolute().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(place)
    return os.path.join(os.curdir, near) if near.startswith("-") else near


def cache_place(*parts: str) -> Path:
    """A place in the user's cache of environments, datasets and proofs, whether or not anything is there yet.

    ``HARNESS_CACHE_DIR`` says where the cache is, else the system's custom does. Raises NotADirectoryError where a
    file is in the way, which is a wrong setting, not a cache that cannot be written.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    base = Path(chosen).absolute() if chosen else _usual_cache()
    existing = next((place for place in (base, *base.parents) if os.path.lexists(place)), base)
    if os.path.exists(existing) and not os.path.isdir(existing):
        raise NotADirectoryError(errno.ENOTDIR, f"a file is in the way; {OTHER_CACHE}", str(base))
    return base.joinpath(*parts)


def _usual_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("backend-harness", appauthor=False)


def cache_folder(*parts: str) -> Path:
    """As ``cache_place``, and the folder is made. Raises OSError."""
    folder = cache_place(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
