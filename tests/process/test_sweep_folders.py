"""Run folders that are in use, of another plan, not writable or full: one clear line, and nothing finished is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.process.disks import mounted, read_only
from tests.process.small_sweep import Sweeper, count, made_cache, stop, wait_for

LANES = "scripted,reference"


def the_error(errors: str) -> str:
    """The one line that says why the command failed."""
    (line,) = (line for line in errors.splitlines() if line.startswith("harness: "))
    return line


def test_of_two_sweeps_in_one_folder_the_second_says_who_is_there(sweeper: Sweeper) -> None:
    sweeper.script((4, "train", 3, f"touch:{sweeper.folder / 'reached'}"), (4, "train", 3, "hang"))
    with sweeper.running() as first:
        wait_for(sweeper.folder / "reached", first)
        second = subprocess.run(
            sweeper.command(), cwd=sweeper.folder, env=sweeper.environment(), capture_output=True, text=True
        )
        assert second.returncode == 1
        folder = sweeper.folder / "run"
        assert the_error(second.stderr).startswith(f"harness: another harness (process {first.pid} on ")
        assert second.stderr.rstrip().endswith(f"is running in {folder}")
        assert second.stdout == ""
        assert first.poll() is None
        stop(first, signal.SIGINT)
    assert sweeper.statuses() == {("scripted", 4): "interrupted"}
    sweeper.script()
    assert sweeper.run().returncode == 0
    assert count(sweeper.statuses()) == {"ok": 3}


def test_a_folder_of_another_plan_is_refused_and_left_as_it_is(sweeper: Sweeper) -> None:
    sweeper.run(batch_sizes=[4])
    before = sweeper.record_bytes()
    done = sweeper.run(batch_sizes=[4, 8])
    assert done.returncode == 1
    error = the_error(done.stderr)
    assert "holds the run of another plan" in error
    assert "batch size 4 there, 4, 8 asked for" in error
    assert sweeper.record_bytes() == before


def test_a_damaged_record_is_named_with_the_way_out_of_it(sweeper: Sweeper) -> None:
    sweeper.run(batch_sizes=[4, 8])
    damaged = next(iter(sweeper.kept.records_folder.glob("*.json")))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    done = sweeper.run(batch_sizes=[4, 8])
    assert done.returncode == 1
    assert the_error(done.stderr).startswith(f"harness: {damaged}: damaged")
    assert the_error(done.stderr).endswith("; remove it, and its cell is run again")
    damaged.unlink()
    assert sweeper.run(batch_sizes=[4, 8]).returncode == 0
    assert count(sweeper.statuses()) == {"ok": 2}


def test_a_folder_that_is_not_writable_is_one_clear_error(sweeper: Sweeper) -> None:
    sweeper.run(batch_sizes=[4])
    before = sweeper.record_bytes()
    run = sweeper.folder / "run"
    with read_only(run):
        done = sweeper.run(batch_sizes=[4])
    assert done.returncode == 1
    assert f"{run}" in the_error(done.stderr)
    assert "is not writable" in the_error(done.stderr)
    assert sweeper.record_bytes() == before
    assert sweeper.run(batch_sizes=[4]).returncode == 0


@pytest.mark.parametrize(("room_at_first", "gets_somewhere"), [(40_000, False), (170_000, True)])
def test_a_full_disk_stops_the_sweep_and_resuming_after_freeing_completes_it(
    sweeper: Sweeper, room_at_first: int, gets_somewhere: bool
) -> None:
    with mounted(sweeper.folder / "run", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as disk:
        filler = sweeper.folder / "run" / "logs" / "filler"
        filler.parent.mkdir()
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"x" * (free - room_at_first))
        sizes = range(2, 34)
        done = sweeper.run(target=LANES, batch_sizes=sizes)
        assert done.returncode == 1
        error = the_error(done.stderr)
        assert str(disk) in error
        assert "the disk is full" in error
        finished = sweeper.record_bytes()
        assert len(finished) < 2 * len(sizes)
        assert bool(finished) == gets_somewhere
        assert set(sweeper.statuses().values()) <= {"ok"}

        filler.unlink()
        assert sweeper.run(target=LANES, batch_sizes=sizes).returncode == 0
        assert count(sweeper.statuses()) == {"ok": 64}
        after = sweeper.record_bytes()
        assert {name: after[name] for name in finished} == finished


def test_a_cache_that_cannot_be_made_is_one_clear_error(sweeper: Sweeper) -> None:
    file = sweeper.folder / "file"
    file.touch()
    sweeper.cache = file / "cache"
    done = sweeper.run()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(sweeper.cache) in the_error(done.stderr)


@contextmanager
def unwritable_cache(how: str, cache: Path) -> Iterator[None]:
    """The cache is on a disk that may only be read, or one that is full; the environments are elsewhere."""
    if how == "read-only":
        made_cache(cache)
        with mounted(cache, "--bind", "-o", "ro", str(cache)):
            yield
        return
    with mounted(cache, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        made_cache(cache)
        with suppress(OSError):
            (cache / "filler").write_bytes(b"x" * 100_000)
        yield


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_a_cache_that_cannot_be_written_costs_one_warning_and_nothing_else(sweeper: Sweeper, how: str) -> None:
    sweeper.cache = sweeper.folder.parent / "cache"
    with unwritable_cache(how, sweeper.cache):
        done = sweeper.run(target=LANES)
        assert done.returncode == 0, done.stderr
        assert count(sweeper.statuses()) == {"ok": 6}
        (line,) = (line for line in done.stderr.splitlines() if "warning" in line)
        assert line.startswith(f"warning: the cache cannot be written ({sweeper.cache}")
        assert "HARNESS_CACHE_DIR names another folder" in line
        assert "report.html" in done.stdout
        again = sweeper.harness("report", "run")
        assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize("megabytes", [1, 6, 12])
def test_a_disk_too_small_is_named_with_what_is_needed_and_free_before_work_begins(
    sweeper: Sweeper, megabytes: int
) -> None:
    with mounted(sweeper.folder / "run", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs") as disk:
        examples = ("--train-examples", "256", "--test-examples", "200", "--epochs", "1", "--batch-size", "16")
        done = sweeper.harness("sweep", "--target", "reference", *examples, "--out", "run")
        assert done.returncode == 1
        error = the_error(done.stderr)
        assert error.startswith(f"harness: {disk}")
        assert "the disk is full" in error
        assert "needs at least" in error
        assert "is free" in error
        assert "last words" not in error
        assert sweeper.records() == {}


def test_sweeps_of_one_second_each_get_a_folder_of_their_own(sweeper: Sweeper) -> None:
    command = [part for part in sweeper.command(batch_sizes=[4]) if part not in ("--out", "run")]
    started = [
        subprocess.Popen(
            command, cwd=sweeper.folder, env=sweeper.environment(), stdout=-3, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    assert len(list((sweeper.folder / "harness-runs").glob("small-*"))) == 4
