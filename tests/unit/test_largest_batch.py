"""The search for the largest batch size, on machines whose memory is made up, and the ceiling on a real process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.actions.largest_batch import LargestBatches
from harness.core.errors import UsageError
from harness.measure.largest_batch import NARROW, Attempt, Ceiling, LargestBatch, search

GROWING = """
import sys
held = []
while True:
    held.append(bytearray(2**20))
    held[-1][::4096] = b"x" * 256
    sys.stdout.write("x")
    sys.stdout.flush()
    if len(held) == int(sys.argv[1]):
        sys.stdin.read()
"""


@given(st.integers(0, 200_000), st.integers(1, 100_000), st.integers(1, 64))
def test_the_search_ends_close_below_what_fits(truth: int, most: int, start: int) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= truth

    found = search(fits, most, start)
    within = min(truth, most)
    assert found <= within
    assert within - found < max(found // NARROW, 1)
    assert all(1 <= size <= most for size in asked)
    assert len(asked) == len(set(asked)) <= 2 * 17 + 6
    assert found == 0 or found in asked


def test_a_process_that_takes_more_than_it_may_is_ended_and_others_are_not() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROWING, "4000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as greedy:
        with Ceiling(greedy.pid, 150 * 2**20) as ceiling:
            greedy.wait(timeout=120)
        assert 150 * 2**20 < ceiling.exceeded_by < 2**30
    with subprocess.Popen(
        [sys.executable, "-c", GROWING, "10"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as modest:
        assert modest.stdout is not None
        assert modest.stdin is not None
        with Ceiling(modest.pid, 2**30) as ceiling:
            assert modest.stdout.read(10) == b"x" * 10
        assert ceiling.exceeded_by == 0
        assert modest.poll() is None
        modest.kill()


def found(*attempts: Attempt, problem: str = "") -> LargestBatches:
    one = LargestBatch("t:m", "lenet5", "sgd", "float32", "digits", 1000, 10**9, attempts, problem)
    return LargestBatches((one,))


@pytest.mark.parametrize(
    ("result", "says", "is_whole"),
    [
        (
            found(Attempt(32, True, 1.0, 5 * 10**8), Attempt(64, False, 1.0, 2 * 10**9, reason="it took more")),
            "t:m: 32 fits, 64 does not; with a margin of 10%, train with 28 at most.",
            True,
        ),
        (found(Attempt(1000, True, 1.0)), "all 1,000 images of digits fit in one batch", True),
        (found(Attempt(1, False, 1.0, reason="no room")), "not even batch size 1 fits: no room", False),
        (found(problem="crashed: gone"), "FAILED: crashed: gone", False),
        (
            found(Attempt(32, True, 1.0), problem="timeout: slow"),
            "32 fits; the search ended early: timeout: slow",
            False,
        ),
    ],
)
def test_what_was_found_is_said_in_words(result: LargestBatches, says: str, is_whole: bool) -> None:
    assert says in str(result)
    assert result.is_whole is is_whole
    assert len(result.table) == len(result.found[0].attempts)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({}, "trains in main memory, which others need too: say how much of it a worker may take with --memory"),
        ({"memory": "much"}, "--memory: found 'much', allowed: a size such as 4GiB"),
        ({"memory": "900TB"}, "90% of the main memory that is free now"),
        ({"memory": "1GB", "names": "tensorflow-cuda"}, "--memory: only for targets on processors"),
        ({"memory": "1GB", "model": "nope"}, "no model is called 'nope'"),
        ({"memory": "1GB", "dataset": "nope"}, "--dataset: found 'nope'"),
        ({"memory": "1GB", "names": "nope"}, "no target is called 'nope'"),
    ],
)
def test_mistakes_are_one_line(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        harness.largest_batch(**keywords)
    assert "\n" not in str(refused.value)
