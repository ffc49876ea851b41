"""The real MNIST files, on machines that have them, as mirrors give them: four files with ``.gz``."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from harness.plan.datasets import DATA_VARIABLE, mnist

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"
FOLDERS = [*(Path(name).expanduser() for name in [os.environ.get(DATA_VARIABLE)] if name), SHARED]
"""Where to look, in this order. Read before any test changes the variable."""


def copy_to(folder: Path) -> Path:
    """Put them into the new ``folder``, where a test may damage them. Skips the test where there are none."""
    source = next((place for place in FOLDERS if not mnist.missing(place)), None)
    if source is None:
        pytest.skip(f"the real MNIST files are not in {' nor in '.join(map(str, FOLDERS))}")
    folder.mkdir()
    for file in mnist.FILES:
        path, copy = mnist._candidates(source, file)[0], folder / f"{file.name}.gz"
        if path.suffix == ".gz":
            shutil.copyfile(path, copy)
        else:
            copy.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))
    return folder
