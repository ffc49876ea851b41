"""``harness explain`` finds a planted slow part and gives it its share; what it cannot explain it says in a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import harness
from harness import cli
from harness.actions.explain import SETS
from harness.actions.shown import RunStopped
from harness.core.errors import StoreError, UsageError
from harness.measure import explaining, part_rounds
from harness.runs import folder as run_folder

from .slow_backends import SLEEP_SECONDS

MODEL = """
name = "tiny"
input_shape = [28, 28, 1]

[[layers]]
kind = "conv2d"
filters = 2
kernel = [3, 3]
strides = [3, 3]
activation = "relu"

[[layers]]
kind = "max_pool"
pool = [2, 2]

[[layers]]
kind = "flatten"

[[layers]]
kind = "dense"
units = 10
"""
PLANTED = ("Plain", "SlowPool", "WrongPool", "Untold")
KEYWORDS = {"batch_size": 4, "model": "tiny.toml", "budget": "10m"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder with a small model and targets; sets are as short as they may be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explaining, "ROUNDS_SECONDS", 0.0)
    Path("tiny.toml").write_text(MODEL, encoding="utf-8")
    here = json.dumps(str(Path(__file__).parent))
    table = '[targets.{}]\nbackend = "slow_backends:{}"\npython = {}\nmodes = ["numpy"]\npath = {}\n'
    tables = [table.format(name.lower(), name, json.dumps(sys.executable), here) for name in PLANTED]
    Path("harness.toml").write_text("".join(tables), encoding="utf-8")
    return tmp_path


def test_a_planted_slow_part_is_found_and_given_its_share() -> None:
    result = harness.explain("plain", "slowpool", **KEYWORDS, out="run")  # type: ignore[arg-type]
    assert result.problems == ()
    [one] = result.explanations
    assert (one.verdict, one.sets) == ("slower", SETS)
    assert one.rounds >= SETS * part_rounds.FEWEST_ROUNDS
    assert [row.label for row in one.costliest][:1] == ["max_pool 02 backward"]
    pool = one.costliest[0]
    assert pool.lane.seconds >= 0.9 * SLEEP_SECONDS
    assert pool.difference.seconds >= 0.9 * SLEEP_SECONDS
    assert pool.share is not None
    assert 0.5 < pool.share < 1.5
    assert one.checked is not None
    assert one.checked <= 1
    assert "max_pool 02 backward is" in str(result).splitlines()[0]
    assert sorted(path.name for path in Path("run", "figures").iterdir()) == ["explained-4.png", "explained-4.svg"]
    assert "max_pool 02 backward is" in Path("run", "explained.html").read_text(encoding="utf-8")
    assert len(list(Path("run", "parts").iterdir())) == len(list(Path("run", "records").iterdir())) == 3 * SETS
    # What is there already is shown, and not measured again.
    before = {path: path.stat().st_mtime_ns for path in Path("run", "parts").iterdir()}
    again = harness.explain("plain", "slowpool", **KEYWORDS, out="run")  # type: ignore[arg-type]
    assert again.explanations == result.explanations
    assert {path: path.stat().st_mtime_ns for path in Path("run", "parts").iterdir()} == before
    assert again.plain()["explanations"][0]["rows"][0]["name"] == "dispatch"
    assert again.table.height == len(one.rows) + 2


@pytest.mark.long
def test_a_stopped_explanation_shows_what_it_has_and_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = part_rounds.PartRounds.take
    calls: list[int] = []

    def stopped(self: part_rounds.PartRounds, seconds: float) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        taken(self, seconds)

    monkeypatch.setattr(part_rounds.PartRounds, "take", stopped)
    with pytest.raises(RunStopped, match=r"this resumes: harness\.explain") as stop:
        harness.explain("plain", "slowpool", **KEYWORDS, out="run")  # type: ignore[arg-type]
    assert [one.sets for one in stop.value.result.explanations] == [2]
    kept = run_folder.Run.open(Path("run"))
    assert sorted(kept.statuses().values()) == ["interrupted"] * 3 + ["ok"] * 6
    result = harness.explain("plain", "slowpool", **KEYWORDS, out="run")  # type: ignore[arg-type]
    assert [one.sets for one in result.explanations] == [SETS]
    assert len(calls) == 1 + SETS


def test_a_spent_budget_leaves_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def later() -> float:
        clock[0] += 30.0
        return clock[0]

    monkeypatch.setattr("harness.actions.explain.time.monotonic", later)
    result = harness.explain("plain", "slowpool", **{**KEYWORDS, "budget": "200s"}, out="run")  # type: ignore[arg-type]
    assert 1 <= result.explanations[0].sets < SETS
    statuses = run_folder.Run.open(Path("run")).statuses().values()
    assert set(statuses) == {"ok", "skipped"}


def test_a_part_that_does_other_work_does_not_count() -> None:
    result = harness.explain("plain", "wrongpool", **KEYWORDS)  # type: ignore[arg-type]
    assert result.explanations == ()
    [problem] = result.problems
    assert "wrongpool:numpy: parity failed: part of a step: 02_max_pool forward, output" in problem
    assert "off by 1.0e-02 (allowed 1e-05)" in problem
    assert not result.is_whole


def test_a_backend_without_parts_gets_one_line() -> None:
    result = harness.explain("plain", "untold", **KEYWORDS)  # type: ignore[arg-type]
    assert result.problems == (
        "At batch size 4: untold:numpy: unsupported: the backend untold cannot run the parts of a step on their own",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plain"], "Missing argument 'B'"),
        (["plain", "slowpol"], "did you mean 'slowpool'?"),
        (["plain", "slowpool", "--batch-size", "0"], "--batch-size: found '0', allowed: a whole number from 1"),
        (["plain", "slowpool", "--batch-size", "900000"], "--batch-size: found 900000, but digits has "),
        (["plain", "slowpool", "--model", "mnist-cn"], "did you mean 'mnist-cnn'?"),
        (["plain", "slowpool", "--optimizer", "adan"], "did you mean 'adam'?"),
        (["plain", "slowpool", "--compute-precision", "float64"], "allowed: float32, mixed_bfloat16, mixed_float16"),
        (["plain", "slowpool", "--budget", "soon"], "--budget: found 'soon', allowed: a time from 1s"),
        (["plain", "slowpool", "--clock", "cpu"], "--clock: found 'cpu', allowed: wall, processor"),
        (["plain", "slowpool", "--dataset", "letters"], "--dataset: found 'letters'"),
    ],
)
def test_what_is_asked_wrongly_gets_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "explain", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_another_explanation_s_folder_is_left_alone() -> None:
    harness.explain("plain", "untold", **KEYWORDS, out="run")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="holds the run of another plan"):
        harness.explain("plain", "wrongpool", **KEYWORDS, out="run")  # type: ignore[arg-type]


def test_python_refuses_what_the_command_refuses() -> None:
    with pytest.raises(UsageError, match="--batch-size: found 'many'"):
        harness.explain("plain", "slowpool", batch_size="many")
