"""Every command that trains prints on a console that cannot show every character: the rest becomes '?', never an error.

Such consoles are pipes and old terminals on Windows, whose code page knows 256 characters; one case goes without
forks, as all does there.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.command import HARNESS
from tests.process.processes import wait_until_none
from tests.process.small_sweep import Sweeper

ODD = "größe-→-模型"


def run(sweeper: Sweeper, encoding: str, *arguments: str) -> bytes:
    """Standard output of a command that must end well."""
    done = subprocess.run(
        [HARNESS, *arguments],
        cwd=sweeper.folder,
        env={**sweeper.environment(), "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=600,
    )
    errors = done.stderr.decode(encoding)
    assert done.returncode == 0, errors
    assert "Traceback" not in errors
    assert wait_until_none(sweeper.mark) == []
    return done.stdout


@pytest.mark.parametrize(
    ("encoding", "fork"), [("ascii", "--fork"), pytest.param("cp1252", "--no-fork", marks=pytest.mark.long)]
)
def test_commands_that_train_print_on_any_console(sweeper: Sweeper, encoding: str, fork: str) -> None:
    model = (sweeper.folder / "model.toml").read_text(encoding="utf-8").replace('"small"', f'"{ODD}"')
    (sweeper.folder / "model.toml").write_text(model, encoding="utf-8")
    shown = ODD.encode(encoding, "replace")
    sweep = sweeper.command(fork, batch_sizes=(8,))[1:]
    assert shown in run(sweeper, encoding, *sweep)
    (sweeper.folder / "harness.toml").write_text(sweeper.tables(), encoding="utf-8")
    assert shown in run(sweeper, encoding, "report", "run")
    assert ODD.encode() in run(sweeper, encoding, "report", "run", "--format", "csv"), "a file, and so UTF-8"
    assert shown in run(sweeper, encoding, "models", "show", "model.toml")
    flags = ["--model", "model.toml", "--optimizer", "sgd", fork]
    assert shown in run(sweeper, encoding, "verify", "--target", "scripted", *flags)
    flags = [
        "--model",
        "model.toml",
        "--dataset",
        "small.npz",
        "--batch-size",
        "8",
        "--budget",
        "20s",
        "--precision",
        "0.5",
        fork,
    ]
    assert shown in run(sweeper, encoding, "compare", "scripted", "scripted", *flags)
