"""Runs over time: a change that was planted is found where it is, and noise between runs is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import analysis
from harness.analysis import history
from harness.analysis.history import Course
from harness.analysis.systems import GivenRun
from harness.core.errors import UsageError
from harness.report import history as shown
from harness.runs import finding
from harness.runs.folder import Run
from tests.unit.planted_runs import MACHINE, planted
from tests.unit.records import JAX, TENSORFLOW, plan


def runs(logs: Sequence[float], **changes: object) -> list[GivenRun]:
    """A run a day, each of one cell with that log seconds of a step."""
    return [
        GivenRun(
            f"run-{day}",
            "",
            analysis.collect(
                [planted(32, pace=math.exp(value), started=f"2026-11-{day + 1:02}T10:00:00+00:00", **changes)]  # type: ignore[arg-type]
            ),
        )
        for day, value in enumerate(logs)
    ]


def noise(count: int, spread: float, seed: int = 0) -> list[float]:
    return [float(value) for value in spread * np.random.default_rng(seed).normal(size=count)]


def only(found: Sequence[Course]) -> Course:
    (one,) = found
    return one


def test_a_slowdown_is_found_on_the_day_it_came() -> None:
    logs = [value + (0.15 if day >= 8 else 0.0) for day, value in enumerate(noise(14, 0.02))]
    one = only(history.courses(runs(logs)))
    (change,) = one.changes
    assert one.visits[change.visit].run == "run-8"
    ratio, low, high = change.speed.ratios()
    assert low < ratio < high < 1
    assert ratio == pytest.approx(math.exp(-0.15), abs=0.03)
    assert one.noise == pytest.approx(0.02, abs=0.012)


def test_a_change_within_the_noise_between_runs_is_not_shown() -> None:
    logs = [value + (0.02 if day >= 8 else 0.0) for day, value in enumerate(noise(14, 0.05))]
    one = only(history.courses(runs(logs)))
    assert one.changes == ()
    assert one.noise == pytest.approx(0.05, abs=0.03)


def test_two_changes_are_both_found() -> None:
    levels = [0.0] * 6 + [0.3] * 6 + [0.1] * 6
    logs = [level + value for level, value in zip(levels, noise(18, 0.02), strict=True)]
    assert [change.visit for change in only(history.courses(runs(logs))).changes] == [6, 12]


def test_few_runs_tell_of_no_change() -> None:
    assert only(history.courses(runs([0.0, 0.0, 0.5, 0.5, 0.5]))).changes == ()
    assert history.courses(runs([0.0])) == []


def test_runs_without_a_change_rarely_show_one() -> None:
    """In at most 5 % of histories, here of 12 runs each; three standard errors more are allowed for."""
    usual = only(history.courses(runs(noise(12, 0.05))))
    alarms, draws = 0, 300
    for seed in range(draws):
        visits = tuple(
            dataclasses.replace(visit, images_per_second=math.exp(value))
            for visit, value in zip(usual.visits, noise(12, 0.05, seed), strict=True)
        )
        alarms += any(change.p_adjusted < 0.05 for change in history._proposed(visits))
    assert alarms / draws <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


def test_machines_targets_and_works_have_courses_of_their_own() -> None:
    given = [
        *runs([0.0, 0.1]),
        *runs([0.0, 0.2], target=TENSORFLOW),
        *runs([0.0, 0.3], machine={**MACHINE, "id": "m2"}),
        *runs([0.0], seed=1),
    ]
    found = history.courses(given)
    assert [(one.target, len(one.visits)) for one in found] == [
        (JAX.label, 2),
        (TENSORFLOW.label, 2),
        (JAX.label, 2),
    ]
    assert len({one.system for one in found}) == 2


def test_the_page_and_the_table_show_each_run() -> None:
    logs = [value + (0.15 if day >= 8 else 0.0) for day, value in enumerate(noise(14, 0.02))]
    found = history.courses(runs(logs))
    page = shown.page(found, "nightly")
    assert "1 work done in several runs: 1 changed speed, 0 did not." in page
    assert "2026-11-09T10:00: 0.8" in page
    assert page.count("<svg") == 1
    frame = shown.frame(found)
    assert frame.height == 14
    assert frame.filter(frame["changed"])["run"].to_list() == ["run-8"]


def test_run_folders_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    record = planted(32)
    for name in ("b/one", "a"):
        Run.create(tmp_path / "runs" / name, plan([record.cell])).save(record)
    assert [path.name for path in finding.below(tmp_path / "runs")] == ["a", "one"]
    assert finding.below(tmp_path / "runs" / "a") == [tmp_path / "runs" / "a"]
    found = harness.history(tmp_path / "runs", html=tmp_path / "page.html")
    assert "1 work done in several runs" in str(found)
    assert found.plain()[0]["runs"][0]["processes"] == 1
    assert (tmp_path / "page.html").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no run folder in it"):
        harness.history(tmp_path / "empty")
    with pytest.raises(UsageError, match="there is no such folder"):
        harness.history(tmp_path / "nowhere")
