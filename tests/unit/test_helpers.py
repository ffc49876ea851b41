"""Work that other processes share: every task is answered once, whatever becomes of the helpers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from harness.runs import helpers

TASKS = list(range(20))


def process_of(task: int) -> tuple[int, int]:
    return os.getpid(), task * task


def only_here(task: str) -> str:
    """Ends a helper at once; ``task`` names the process that asks."""
    if str(os.getpid()) != task:
        os._exit(3)
    return task


def failing(task: int) -> int:
    raise ValueError(f"task {task}")


def answers(function: object, tasks: list[object], count: int) -> list[object]:
    found = dict(helpers.shared(function, tasks, count))  # type: ignore[arg-type,var-annotated]
    return [found[number] for number in range(len(tasks))]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_task_is_answered_once(count: int) -> None:
    found = list(helpers.shared(process_of, TASKS, count))
    assert sorted(number for number, _ in found) == TASKS
    assert all(square == number * number for number, (_, square) in found)


def test_a_helper_answers_while_answers_are_used() -> None:
    processes = set()
    for _, (process, _) in helpers.shared(process_of, TASKS * 500, 1):
        processes.add(process)
        if len(processes) > 1:
            break
        time.sleep(0.01)
    assert len(processes) == 2


def test_a_helper_that_ends_is_done_without() -> None:
    own = str(os.getpid())
    assert answers(only_here, [own] * 5, 2) == [own] * 5


def test_one_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert [square for _, square in answers(process_of, [1, 2, 3], 1)] == [1, 4, 9]  # type: ignore[misc,has-type]


def test_what_goes_wrong_here_is_raised_and_no_helper_stays() -> None:
    with pytest.raises(ValueError, match="task 0"):
        list(helpers.shared(failing, TASKS, 1))
