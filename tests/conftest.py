"""What all tests share: their environment, processes side by side, and which tests wait to be asked for.

``pytest`` runs folders in two processes; ``-n`` chooses another number, ``-n 0`` has one. ``tests/sharing.py`` says
which tests stay together. Tests marked ``long`` run with ``--long``, with ``-m long``, and where they are named.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from tests.sharing import group_of, place_of

for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):  # test processes that run side by side are told a width, too
    os.environ.pop(name, None)

# Else each of the hundreds of commands that tests start would compile every library that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

PROCESSES = 2
LEFT_OUT = pytest.StashKey[int]()
"""How many long tests wait to be asked for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose what the person has not: how many processes, before pytest-xdist starts them."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    options = config.option
    if options.numprocesses is None and options.dist == "no" and not options.usepdb and _has_folder(config):
        options.numprocesses = PROCESSES
    if options.numprocesses and options.dist == "no":
        options.dist = "loadgroup"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What hands the tests out: ``loadgroup``, by the groups of ``tests/sharing.py`` where a test names none."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class Groups(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            named = str(super()._split_scope(nodeid))
            return group_of(nodeid) if named == nodeid else named

    config.option.loadscopereorder = False  # the order of ``place_of`` stays
    return Groups(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long groups first, each in one piece; long tests only where they are asked for."""
    groups = {group: number for number, group in enumerate(dict.fromkeys(group_of(item.nodeid) for item in items))}
    items.sort(key=lambda item: (*place_of(item.nodeid), groups[group_of(item.nodeid)]))
    waiting = [item for item in items if item.get_closest_marker("long")]
    if waiting and not _asks_for_long(config):
        items[:] = [item for item in items if item not in set(waiting)]
        config.hook.pytest_deselected(items=waiting)
        config.stash[LEFT_OUT] = len(waiting)
        if hasattr(config, "workeroutput"):
            config.workeroutput["left out"] = len(waiting)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Where tests were handed out, the processes that collected them say what they left out."""
    if "left out" in getattr(node, "workeroutput", {}):
        node.config.stash[LEFT_OUT] = node.workeroutput["left out"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} long tests left out; with them: uv run pytest --long")


def _has_folder(config: pytest.Config) -> bool:
    """Whether whole folders are to be run: for a file the second process costs more than it brings."""
    return any((config.invocation_params.dir / arg).is_dir() for arg in config.args)


def _asks_for_long(config: pytest.Config) -> bool:
    named = any("::" in arg for arg in config.args)
    return named or config.getoption("long") or "long" in config.getoption("markexpr")
