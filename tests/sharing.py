"""Which tests run in one process where several processes share them.

A group of tests runs in one process, one after the other. Usually a group is a file. Tests of one framework are a
group over all files of their folder, since each process that has one of them imports the framework; tests of clusters
are one group, since a machine holds one local cluster at a time.
"""

from __future__ import annotations

import re

ONE_AT_A_TIME = ("tests/cluster/",)
"""Folders that are one group each."""

BY_FRAMEWORK = ("tests/conformance/",)
"""Folders whose tests say in their parameters which target they start."""

TARGET = re.compile(r"\[(?:.*-)?((?:tensorflow|jax)[a-z0-9]*-(?:cpu|cuda|directml))(?![a-z0-9])")

FIRST = ("tests/conformance/", "tests/cluster/", "tests/process/", "tests/browser/")
"""Folders in the order of how long their groups take: the short ones then fill up what time is left."""


def group_of(test: str) -> str:
    """The group of a test, from its id as pytest prints it."""
    file, _, name = test.partition("::")
    alone = next((folder for folder in ONE_AT_A_TIME if file.startswith(folder)), None)
    if alone is not None:
        return alone
    target = TARGET.search(name) if file.startswith(BY_FRAMEWORK) else None
    return target[1] if target else file


def place_of(test: str) -> tuple[int, bool]:
    """What to sort tests by, so that long groups begin first."""
    group = group_of(test)
    folder = next((number for number, folder in enumerate(FIRST) if test.startswith(folder)), len(FIRST))
    return folder, group == test.partition("::")[0]
