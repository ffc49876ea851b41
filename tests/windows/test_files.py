"""Files that others hold, long paths, shares, blanks, line ends and code pages."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import outputs
from harness.core import codec
from harness.core.errors import HarnessError
from harness.core.system import files as system_files
from harness.refusals import unwritable
from tests.command import HARNESS
from tests.process.small_sweep import PATIENCE, Sweeper, count

HELD = 0.5
"""Seconds, as a virus scanner takes."""


def held_for(path: Path, seconds: float) -> threading.Thread:
    """Have somebody read ``path`` for a while, as Python and most programs do: nobody else may replace it."""
    stream = path.open("rb")

    def let_go() -> None:
        threading.Event().wait(seconds)
        stream.close()

    thread = threading.Thread(target=let_go)
    thread.start()
    return thread


def replaced(path: Path) -> None:
    codec.write_atomically(path, "new")


def removed(path: Path) -> None:
    system_files.patiently(path.unlink)


def moved(path: Path) -> None:
    system_files.replace(path, path.with_name("moved"))


def renamed_with_its_folder(path: Path) -> None:
    system_files.replace(path.parent, path.parent.with_name("elsewhere"))


def put_out(path: Path) -> None:
    outputs.write(path, "new")


@pytest.mark.parametrize("action", [replaced, removed, moved, renamed_with_its_folder, put_out])
def test_a_file_that_another_program_holds_is_waited_for(tmp_path: Path, action: Callable[[Path], None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "file"
    path.write_text("old", encoding="ascii")
    holder = held_for(path, HELD)
    try:
        action(path)
    finally:
        holder.join()
    assert not path.exists() or path.read_text(encoding="ascii") == "new"
    assert [place.name for place in tmp_path.rglob("*.tmp")] == []


def test_one_that_is_held_for_good_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_files, "HELD_SECONDS", 0.2)
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="ascii")
    with path.open("rb"), pytest.raises(HarnessError) as refused:
        outputs.write(path, "new")
    assert str(refused.value) == f"{path}: another program has it open; close it there and run the command again"
    assert [place.name for place in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text(encoding="ascii") == "old"


def test_a_file_that_may_only_be_read_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="ascii")
    path.chmod(0o444)
    with pytest.raises(PermissionError) as refused:
        codec.write_atomically(path, "new")
    assert not isinstance(refused.value, system_files.HeldElsewhere)
    assert "is not writable" in str(unwritable(path, refused.value))
    path.chmod(0o666)


@pytest.mark.parametrize(
    "place",
    ["two words/and (more) & 100 %", "größe", "/".join(["d" * 90] * 3)],
    ids=["blanks and signs", "not ASCII", "beyond 260 characters"],
)
def test_a_sweep_ends_well_wherever_its_folder_is(sweeper: Sweeper, place: str) -> None:
    out = sweeper.folder / place
    command = sweeper.command("--interleave", "cell", target="scripted,reference", batch_sizes=(8,))
    command[command.index("--out") + 1] = str(out)
    done = sweeper.finished(command, PATIENCE)
    assert done.returncode == 0, done.stderr
    reported = sweeper.harness("report", str(out), "--format", "csv", "--html", str(out / "page.html"))
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.count(",ok") == 2


@pytest.mark.parametrize("form", [r"\\?\{}", r"\\localhost\{drive}$\{rest}"], ids=["verbatim", "share"])
def test_a_run_may_lie_on_a_share(sweeper: Sweeper, form: str) -> None:
    own = sweeper.folder / "run"
    drive, rest = own.drive.rstrip(":"), str(own.relative_to(own.anchor))
    out = form.format(own, drive=drive, rest=rest)
    if not os.path.isdir(os.path.dirname(out)):
        pytest.skip("Wine has no shares of its drives")
    command = sweeper.command(target="scripted", batch_sizes=(8,))
    command[command.index("--out") + 1] = out
    done = sweeper.finished(command, PATIENCE)
    assert done.returncode == 0, done.stderr
    assert count(sweeper.statuses()) == {"ok": 1}


def test_what_a_person_wrote_in_notepad_is_read(sweeper: Sweeper) -> None:
    """Line ends of two characters, and the mark of UTF-8 that Notepad puts before all."""
    command = sweeper.command(batch_sizes=(8,))
    for name in ("model.toml", "small.toml"):
        path = sweeper.folder / name
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    done = sweeper.finished(command, PATIENCE)
    assert done.returncode == 0, done.stderr
    assert all(b"\r" not in content for content in sweeper.record_bytes().values())


@pytest.mark.parametrize("page", [437, 1252, 65001])
def test_tables_and_errors_are_printed_in_every_code_page(sweeper: Sweeper, page: int) -> None:
    assert sweeper.run(batch_sizes=(8,)).returncode == 0
    script = sweeper.folder / "shown.cmd"
    lines = [f"@chcp {page} >nul", f'@"{HARNESS}" report run', f'@"{HARNESS}" report größe-→-模型']
    script.write_bytes("\r\n".join(lines).encode("utf-8"))
    done = subprocess.run(
        ["cmd.exe", "/d", "/c", str(script)],
        cwd=sweeper.folder,
        env={**sweeper.environment(), "PYTHONLEGACYWINDOWSSTDIO": "1"},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert b"scripted:numpy" in done.stdout, done.stderr
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert b"there is no such run folder" in done.stderr
