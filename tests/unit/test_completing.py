"""What a shell completes, asked as the shells ask it: in a process, by the variables of click's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.training import OPTIMIZERS, PRECISIONS
from harness.plan import models, sweep, targets
from tests.command import HARNESS
from tests.unit.test_layers_of_imports import HEAVY


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs, an own target and files."""
    monkeypatch.chdir(tmp_path)
    for run in ("harness-runs/quick-1", "harness-runs/study-2", "mine", "deep/inner"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "plan.json").touch()
    (tmp_path / "harness-runs" / "no-run").mkdir()
    (tmp_path / "harness.toml").write_text("[targets.my-gpu]\nlike = 'jax-cuda'\n")
    return tmp_path


def ask(shell: str, line: str) -> list[str]:
    """What the shell is told for a line whose last word, which may be empty, is to be completed."""
    words = line.split(" ")
    position = words[-1] if shell == "fish" else str(len(words) - 1)
    variables = {"_HARNESS_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": position}
    done = subprocess.run([HARNESS], env={**os.environ, **variables}, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def completed(line: str) -> list[str]:
    """The plain words among what bash is told."""
    return [text.partition(",")[2] for text in ask("bash", line) if text.startswith("plain,")]


def test_each_shell_is_told_in_its_own_form() -> None:
    assert ask("bash", "harness sweep qu") == ["plain,quick"]
    assert ask("zsh", "harness sweep qu") == ["plain", "quick", "_"]
    assert ask("fish", "harness sweep qu") == ["plain,quick"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_a_script(shell: str) -> None:
    variables = {"_HARNESS_COMPLETE": f"{shell}_source"}
    done = subprocess.run([HARNESS], env={**os.environ, **variables}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0
    assert f"_HARNESS_COMPLETE={shell}_complete" in done.stdout


def test_names_are_those_that_there_are() -> None:
    assert completed("harness sweep ") == list(sweep.presets())
    assert completed("harness models show ") == models.names()
    assert completed("harness sweep --model ") == models.names()
    assert completed("harness compare --model ") == models.names()
    known = [*targets.built_in(), "my-gpu"]
    for command in ("sweep -t", "sweep --target", "verify --target", "noise-scale --target", "targets sync", "limits"):
        assert completed(f"harness {command} ") == known, command
    for command in ("explain", "explain jax-cpu"):
        assert completed(f"harness {command} ") == known, command
    assert completed("harness explain jax-cpu tensorflow-cpu --model ") == models.names()
    assert completed("harness doctor jax-cpu jax") == ["jax-cpu", "jax-cpu-tuned", "jax-cuda"]
    assert completed("harness sweep --optimizer ") == list(OPTIMIZERS)
    assert completed("harness verify --compute-precision ") == list(PRECISIONS)


def test_the_last_of_several_names_is_completed_with_those_that_are_not_there() -> None:
    assert completed("harness sweep -t reference,jax-c") == [
        f"reference,{name}" for name in ("jax-cpu", "jax-cpu-tuned", "jax-cuda")
    ]
    assert completed("harness sweep -t jax-cpu,jax-c") == ["jax-cpu,jax-cpu-tuned", "jax-cpu,jax-cuda"]


RUNS = ["mine", "harness-runs/quick-1", "harness-runs/study-2"]


def test_run_folders_are_found_here_and_where_runs_go() -> None:
    commands = (
        "report",
        "recommend",
        "status",
        "wait",
        "cancel",
        "heat",
        "noise-scale",
        "cell export",
        "cell trace",
        "merge mine",
    )
    for command in commands:
        assert completed(f"harness {command} ") == RUNS, command
    assert completed("harness merge mine --out ") == RUNS
    assert completed("harness report harness-runs/s") == ["harness-runs/study-2"]
    assert completed("harness report deep/") == ["deep/inner"]
    assert completed("harness compare m") == ["my-gpu", "mine"]


def test_other_folders_and_files_are_left_to_the_shell() -> None:
    assert ask("bash", "harness report de") == ["dir,de"]
    assert ask("bash", "harness report gone/x") == ["dir,gone/x"]
    assert ask("bash", "harness models show my-net") == ["file,my-net"]
    assert ask("bash", "harness report mine --html pa") == ["file,pa"]
    assert ask("bash", "harness report mine --png pi") == ["dir,pi"]
    assert ask("bash", "harness sweep --out ru") == ["dir,ru"]


@pytest.mark.parametrize("content", ["targets = 3", "[targets", "other = 1"])
def test_a_file_of_own_targets_that_is_wrong_is_passed_over(home: Path, content: str) -> None:
    (home / "harness.toml").write_text(content)
    assert completed("harness limits ") == [*targets.built_in()]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, json; from harness.cli import cli\n"
        "from click.shell_completion import BashComplete\n"
        "for line in ('harness sweep -t ', 'harness sweep ', 'harness report ', 'harness sweep --optimizer '):\n"
        "    words = line.split(' ')[1:]\n"
        "    assert BashComplete(cli, {}, 'harness', 'X').get_completions(words[:-1], words[-1])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in json.loads(done.stdout)}.isdisjoint(HEAVY)
