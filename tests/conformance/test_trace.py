"""``harness cell trace`` on cells of a real run of both frameworks, and what it refuses."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness import cli
from harness.runs import folder as run_folder

Caller = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.long  # each starts from a run of both frameworks
LABELS = ("jax-cpu:jit", "tensorflow-cpu:graph", "reference:numpy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> run_folder.Run:
    """A small run of a cell in each framework and in the reference, which has no profiler."""
    folder = tmp_path_factory.mktemp("traced") / "run"
    model = harness.Model([harness.Conv2D(2, (3, 3)), harness.Flatten(), harness.Dense(10)], name="tiny")
    sweep = harness.Sweep(
        "traced", model=model, target=list(LABELS), batch_size=16, train_examples=320, test_examples=50
    )
    harness.sweep(sweep, out=folder)
    return run_folder.Run.open(folder)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    def trace(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "cell", "trace", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(str(ended.value.code)), told.out, told.err

    return trace


def cell_of(run: run_folder.Run, label: str) -> str:
    return next(cell_id for cell_id, cell in run.cells.items() if cell.target.label == label)


@pytest.mark.parametrize("label", LABELS[:2])
def test_a_recorded_cell_is_profiled_and_its_operations_named(run: run_folder.Run, call: Caller, label: str) -> None:
    cell = cell_of(run, label)
    status, out, _ = call(str(run.folder), cell[:8], "--steps", "3", "--json")
    told = json.loads(out)
    assert (status, told["cell"], told["steps"]) == (0, cell, 3)
    assert 5 <= len(told["operations"]) <= 10
    assert all(one["count"] and one["seconds"] > 0 for one in told["operations"])
    folder = Path(told["folder"])
    assert folder == run.folder / "traces" / cell
    assert len(list(folder.glob("plugins/profile/*/*.xplane.pb"))) == 1
    events = json.loads(gzip.decompress(Path(told["perfetto"]).read_bytes()))["traceEvents"]
    assert {one["name"] for one in told["operations"]} <= {event["name"] for event in events}
    # A second one would mix with it.
    status, out, err = call(str(run.folder), cell)
    assert (status, out) == (2, "")
    assert err.endswith(": is there already; remove it, or name another folder with --out\n")
    status, out, _ = call(str(run.folder), cell, "--out", str(run.folder.parent / f"again-{cell}"))
    assert status == 0
    assert ": the costliest operations\n" in out
    assert "tensorboard --logdir" in out


def test_a_framework_without_a_profiler_is_refused_in_one_line(run: run_folder.Run, call: Caller) -> None:
    status, out, err = call(str(run.folder), cell_of(run, "reference:numpy"))
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "harness: reference:numpy: the backend reference has no profiler"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("zz",), "cell 'zz': this run has no such cell"),
        (("", "--steps", "0"), "--steps: found '0', allowed: a whole number from 1 to 1000"),
        (("", "--steps", "18"), "--steps: found 18, allowed for this cell, which trains 20: up to 17"),
    ],
)
def test_what_is_asked_wrongly_gets_one_line(
    run: run_folder.Run, call: Caller, arguments: tuple[str, ...], said: str
) -> None:
    cell, *rest = arguments
    status, out, err = call(str(run.folder), cell or cell_of(run, LABELS[0]), *rest)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_target_that_is_no_more_is_told(run: run_folder.Run, call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.actions.cell.own_file.target_definitions", dict)
    status, _, err = call(str(run.folder), cell_of(run, LABELS[0]), "--out", "elsewhere")
    assert status == 2
    assert "target 'jax-cpu' is not defined here as it was when the run was planned" in err
