"""What a runner says where the operating system refuses something while cells run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import cli
from harness.cache import room
from harness.core import system
from harness.core.errors import StoreError
from harness.core.system import files as system_files
from harness.measure.runner import Runner
from harness.refusals import unwritable
from tests.unit.records import JAX, cell


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("GetProcessTimes: counters are off"), "the system refused what was asked of it (GetProcess"),
        (OSError(errno.ESRCH, "No such process"), "the system refused what was asked of it (No such process)"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "a file cannot be written (Input/output error)"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: cannot be used (Permission denied)"),
    ],
)
def test_only_what_is_about_a_file_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, said: str
) -> None:
    run: Any = SimpleNamespace(
        folder=tmp_path, scratch_folder=tmp_path, plan=SimpleNamespace(interleave="none"), statuses=dict
    )
    nothing: Any = None
    runner = Runner(run, nothing, nothing, tmp_path, 1.0, nothing)

    def refused(cells: object) -> None:
        raise error

    monkeypatch.setattr(runner, "_run_heat", refused)
    monkeypatch.setattr(room, "shortage", lambda folder: "")
    with pytest.raises(StoreError) as caught:
        runner.run([cell(16, JAX)])
    assert str(caught.value).startswith(f"{tmp_path}: {said}")
    assert "the same command resumes" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("counters are off"), "the system refused what was asked of it (counters are off)"),
        (OSError(errno.ENOSPC, "No space left"), "output cannot be written (No space left)"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "the current folder is gone (No such file)"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: cannot be used (Permission denied)"),
    ],
)
def test_the_command_line_takes_a_refusal_for_one_of_output_only_if_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def refused(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", refused)
    monkeypatch.setattr(cli, "_prepare_streams", lambda: None)
    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (1, f"harness: {said}\n")


def as_windows_says(code: int) -> OSError:
    """Codes of winerror.h stand beside those of POSIX there."""
    error = PermissionError(errno.EACCES, "in use", "/x/y")
    error.winerror = code  # type: ignore[attr-defined]
    return error


def test_a_file_that_another_program_holds_is_tried_again_until_it_lets_go() -> None:
    held = [as_windows_says(32), as_windows_says(33)]

    def read() -> str:
        if held:
            raise held.pop()
        return "content"

    assert system.patiently(read) == "content"


def test_one_that_never_lets_go_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_files, "HELD_SECONDS", 0.05)

    def refuse() -> None:
        raise as_windows_says(32)

    with pytest.raises(system.HeldElsewhere) as refused:
        system.patiently(refuse)
    said = str(unwritable(Path("/x/y"), refused.value))
    assert said == "/x/y: another program has it open; close it there and run the command again"


@pytest.mark.parametrize(
    "error", [as_windows_says(5), PermissionError(errno.EACCES, "no", "/x/y"), FileNotFoundError()]
)
def test_other_refusals_are_not_waited_for(error: OSError) -> None:
    tries = []

    def refuse() -> None:
        tries.append(error)
        raise error

    with pytest.raises(OSError) as refused:  # noqa: PT011  # the very one
        system.patiently(refuse)
    assert refused.value is error
    assert len(tries) == 1
