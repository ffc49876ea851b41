"""Work that other processes of this Python share: whole tasks of a function, which must be quick to say and to answer.

A helper is given its function by name, and tasks one after the other; tasks and answers are pickled. It sees the
modules that this process sees. One that cannot be started, or ends before its time, is done without.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_PROGRAM = "import sys; sys.path[:] = {path!r}; from harness.runs import helpers; helpers.serve({module!r}, {name!r})"
_GONE = (OSError, EOFError, pickle.PickleError)


def shared(function: Callable[[Task], Answer], tasks: Sequence[Task], helpers: int) -> Iterator[tuple[int, Answer]]:
    """The number of each task and the function's answer to it, given here or by one of so many helpers, in any order.

    ``function`` is one of a module's. What is done with an answer meanwhile keeps no helper waiting.
    """
    waiting, answered = deque(enumerate(tasks)), deque[tuple[int, Answer]]()
    left = dict(enumerate(tasks))
    threads = [Thread(target=_have_helped, args=(function, waiting, answered)) for _ in range(helpers)]
    for thread in threads:
        thread.start()
    try:
        while waiting or answered:
            with suppress(IndexError):  # a helper took the last one
                number, task = waiting.popleft()
                answered.append((number, function(task)))
            while answered:
                number, answer = answered.popleft()
                del left[number]
                yield number, answer
    finally:
        waiting.clear()
        for thread in threads:
            thread.join()
    for number, answer in answered:
        del left[number]
        yield number, answer
    for number, task in left.items():  # whose helper is gone
        yield number, function(task)


def serve(module: str, name: str) -> None:
    """Be a helper: answer on standard output what standard input asks, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks is interrupted, too, and ends the input
    function = getattr(import_module(module), name)
    with suppress(*_GONE):
        while True:
            pickle.dump(function(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _have_helped(
    function: Callable[..., Any], waiting: deque[tuple[int, Any]], answered: deque[tuple[int, Any]]
) -> None:
    """Start a helper and have it do the last of the tasks that wait, until none does or it is gone."""
    program = _PROGRAM.format(path=sys.path, module=function.__module__, name=function.__qualname__)
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with (
        suppress(IndexError, *_GONE),
        subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=nothing) as helper,
    ):
        assert helper.stdin is not None
        assert helper.stdout is not None
        while True:
            number, task = waiting.pop()
            pickle.dump(task, helper.stdin)
            helper.stdin.flush()
            answered.append((number, pickle.load(helper.stdout)))
