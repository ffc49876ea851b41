"""Outputs that a person named go where the person pointed: files, links, fifos, devices, standard output.

Mostly of ``harness report``, as a shell runs it. What goes wrong is one line, and what was there before stays.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cli, outputs
from harness.core import codec
from harness.core.errors import HarnessError
from tests.command import HARNESS
from tests.unit import records
from tests.unit.devices import device
from tests.unit.links import link

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no fifos, devices and links for everybody there")


class Reader:
    """Reads a fifo to its end."""

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo)
        self._found: list[bytes] = []
        self._thread = threading.Thread(target=lambda: self._found.append(fifo.read_bytes()), daemon=True)
        self._thread.start()

    def content(self) -> bytes:
        self._thread.join(60)
        return self._found[0]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


Caller = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Caller:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(str(ended.value.code)), out, err

    return run


def temporary_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


# Where it goes


@posix
def test_a_link_stays_and_its_target_is_written(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "real").write_text("old")
    (home / "latest").symlink_to("elsewhere/real")
    (home / "latest-of-all").symlink_to("latest")
    outputs.write(Path("latest-of-all"), "new")
    assert (home / "latest").is_symlink()
    assert (home / "latest-of-all").is_symlink()
    assert (home / "elsewhere" / "real").read_text() == "new"


@posix
def test_a_link_to_nothing_yet_makes_its_target(home: Path) -> None:
    (home / "latest").symlink_to("real")
    outputs.write(Path("latest"), "new")
    assert (home / "latest").is_symlink()
    assert (home / "real").read_text() == "new"


@posix
def test_a_fifo_stays_and_its_reader_gets_everything(home: Path) -> None:
    reader = Reader(home / "fifo")
    content = os.urandom(300_000)  # more than a pipe holds
    outputs.write(Path("fifo"), content)
    assert reader.content() == content
    assert stat.S_ISFIFO((home / "fifo").stat().st_mode)


def test_a_device_stays_a_device(home: Path) -> None:
    null = device(home, "null")
    outputs.write(null, "gone")
    assert null.is_char_device()


@posix
def test_an_open_descriptor_is_written_where_it_stands(home: Path) -> None:
    with open(home / "log", "wb") as stream:
        stream.write(b"before, ")
        stream.flush()
        outputs.write(Path(f"/dev/fd/{stream.fileno()}"), "content")
        stream.write(b", after")
    assert (home / "log").read_text() == "before, content, after"


@posix
def test_standard_output_has_several_names(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (home / "screen").symlink_to("/dev/stdout")
    assert outputs.is_standard_output(Path("/dev/stdout"))  # and not written: a faulty writer would replace it
    for name in ("-", "/dev/fd/1", "screen"):
        assert outputs.is_standard_output(Path(name))
        outputs.write(Path(name), f"to {name}\n")
    assert capfd.readouterr().out == "to -\nto /dev/fd/1\nto screen\n"
    assert not outputs.is_standard_output(home / "-")
    assert not outputs.is_standard_output(Path("/dev/stderr"))


# What was there


@posix
def test_a_file_keeps_its_mode(home: Path) -> None:
    for mode in (0o600, 0o664, 0o755):
        (home / "file").write_text("old")
        (home / "file").chmod(mode)
        outputs.write(Path("file"), "new")
        assert stat.S_IMODE((home / "file").stat().st_mode) == mode
        assert (home / "file").read_text() == "new"


def test_a_file_is_whole_or_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HarnessError, match=r"^file: cannot be written, the disk is full"):
        outputs.write(Path("file"), "new")
    assert (home / "file").read_text() == "old"
    assert temporary_files(home) == []


def test_a_file_that_is_write_protected_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("old")
    opened = os.open

    def refused(path: Any, flags: int, *rest: Any, **named: Any) -> int:  # to root nothing is protected
        if Path(path).name == "file" and flags & os.O_WRONLY:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(HarnessError, match=r"^file: is not writable \(Read-only file system\)"):
        outputs.write(Path("file"), "new")
    assert (home / "file").read_text() == "old"


@posix
def test_a_name_as_long_as_the_file_system_takes_is_written(home: Path) -> None:
    name = "n" * os.pathconf(home, "PC_NAME_MAX")
    outputs.write(Path(name), "new")
    codec.write_atomically(home / name, "again")
    assert (home / name).read_text() == "again"


# What goes wrong


def test_what_cannot_be_a_file_is_named(home: Path) -> None:
    (home / "folder").mkdir()
    (home / "file").write_text("old")
    for place, says in (
        ("folder", "folder: is a folder; name a file in it"),
        ("gone/file", f"gone/file: there is no folder {home.resolve() / 'gone'}"),
        ("file/inside", "file/inside: a file is in the way where a folder must be; choose another folder"),
    ):
        with pytest.raises(HarnessError) as raised:
            outputs.write(Path(place), "new")
        assert str(raised.value) == str(Path(place)) + says[len(place) :]
    assert (home / "file").read_text() == "old"


@posix
def test_links_in_a_circle_are_named_and_stay(home: Path) -> None:
    (home / "one").symlink_to("two")
    (home / "two").symlink_to("one")
    with pytest.raises(HarnessError, match=r"^one: cannot be written \(Too many levels of symbolic links\)$"):
        outputs.write(Path("one"), "new")
    assert (home / "one").is_symlink()


@posix
def test_a_reader_that_leaves_is_named(home: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(HarnessError, match=rf"^/dev/fd/{writer}: its reader went away before all of it was written$"):
        outputs.write(Path(f"/dev/fd/{writer}"), "new")
    os.close(writer)


def test_a_full_device_is_named(home: Path) -> None:
    device(home, "full")
    with pytest.raises(HarnessError, match=r"^full: cannot be written, the disk is full"):
        outputs.write(Path("full"), "new")


# Folders


@posix
def test_a_folder_is_made_where_a_link_points_to(home: Path) -> None:
    (home / "runs").symlink_to("large-disk/runs")
    outputs.make_folder(Path("runs"))
    outputs.make_folder(Path("runs"))
    assert (home / "runs").is_symlink()
    assert (home / "large-disk" / "runs").is_dir()


@posix
def test_a_run_may_be_where_a_link_points_to(home: Path) -> None:
    from harness.runs import folder as run_folder

    (home / "run").symlink_to("large-disk/run")
    run_folder.Run.create(home / "run", records.plan([records.cell()]))
    assert (home / "large-disk" / "run" / "plan.json").is_file()


def test_a_folder_where_something_else_is_is_named(home: Path) -> None:
    (home / "file").write_text("old")
    with pytest.raises(HarnessError, match=r"^file: a file is in the way where a folder must be"):
        outputs.make_folder(Path("file"))


# As commands


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (("sweep", "--out", "-"), "--out"),
        (("compare", "reference", "reference", "--out", "-"), "--out"),
        (("merge", str(GOLDEN), "--out", "-"), "--out"),
        (("report", str(GOLDEN), "--png", "-"), "--png"),
        (("report", str(GOLDEN), "--svg", "-"), "--svg"),
        (("report", str(GOLDEN), "--tensorboard", "-"), "--tensorboard"),
        (("report", str(GOLDEN), "--mlflow", "-"), "--mlflow"),
    ],
)
def test_a_folder_cannot_be_standard_output(call: Caller, home: Path, arguments: tuple[str, ...], folder: str) -> None:
    status, out, err = call(*arguments)
    assert (status, out, err.splitlines()[-1].count("standard output, allowed: a folder")) == (2, "", 1)
    assert folder in err
    assert not (home / "-").exists()


@posix
def test_pictures_go_through_links_in_their_folder(call: Caller, home: Path) -> None:
    (home / "pictures").symlink_to("new/pictures")
    assert call("report", str(GOLDEN), "--svg", "pictures")[0] == 0
    picture, *_ = sorted((home / "new" / "pictures").iterdir())
    content = picture.read_bytes()
    picture.unlink()
    picture.symlink_to(home / "latest.svg")
    assert call("report", str(GOLDEN), "--svg", "pictures")[0] == 0
    assert picture.is_symlink()
    assert (home / "latest.svg").read_bytes() == content


def test_the_page_on_standard_output_is_alone_there(call: Caller, home: Path) -> None:
    status, out, err = call("report", str(GOLDEN), "--html", "-")
    assert status == 0
    assert out.startswith("<!doctype html>")
    assert out.rstrip().endswith("</html>")
    assert err == "page: -\n"
    assert not (home / "-").exists()
    assert call("report", str(GOLDEN), "--html", "./-")[:2] == (0, "")
    assert (home / "-").read_text(encoding="utf-8") == out


def test_two_outputs_on_standard_output_are_a_wrong_call(call: Caller) -> None:
    status, out, err = call("report", str(GOLDEN), "--html", "-", "--format", "csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--html and --format both go to standard output" in err


@posix
def test_the_page_goes_into_a_process_substitution(home: Path) -> None:
    command = f"'{HARNESS}' report '{GOLDEN}' --html >(wc -c > counted); wait $!; cat counted"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert int(done.stdout) > 100_000
    assert done.stderr.startswith("page: /dev/fd/")
    assert temporary_files(home) == []


@posix
def test_the_page_goes_to_the_end_of_a_file_that_the_shell_opened(home: Path) -> None:
    (home / "log").write_text("before\n")
    command = f"'{HARNESS}' report '{GOLDEN}' --html /dev/fd/1 >> log"  # whose folder takes no other file
    subprocess.run(["bash", "-c", command], check=True, timeout=600, capture_output=True)
    assert (home / "log").read_text(encoding="utf-8").startswith("before\n<!doctype html>")


@posix
def test_a_reader_of_the_page_that_leaves_ends_the_command_quietly(home: Path) -> None:
    command = f"set -o pipefail; '{HARNESS}' report '{GOLDEN}' --html - | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "<!doctype ", "page: -\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_page_on_a_standard_output_that_is_full_is_one_line(home: Path) -> None:
    command = f"'{HARNESS}' report '{GOLDEN}' --html - > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (1, "harness: output cannot be written (No space left on device)\n")


def test_rows_go_where_a_link_points_to(home: Path) -> None:
    import polars as pl

    from harness.export import files

    link(home / "latest.csv", "rows.csv")
    files.export(pl.DataFrame({"a": [1]}), "csv", Path("latest.csv"))
    assert (home / "latest.csv").is_symlink()
    assert (home / "rows.csv").read_text() == "a\n1\n"
