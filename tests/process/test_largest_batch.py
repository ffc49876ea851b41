"""``harness largest-batch`` on real workers: lack of memory, limits that are passed, and what fails otherwise."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.process.small_sweep import PATIENCE, Sweeper

OWN = ("--model", "model.toml", "--dataset", "small.npz", "--optimizer", "sgd")
TRAINING_IMAGES = 64


def largest(sweeper: Sweeper, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sweeper.harness("largest-batch", *OWN, *arguments, patience=PATIENCE)


def tried(done: subprocess.CompletedProcess[str]) -> tuple[dict[str, Any], dict[int, bool]]:
    (found,) = json.loads(done.stdout)
    return found, {one["batch_size"]: one["fits"] for one in found["attempts"]}


@pytest.mark.parametrize("fork", ["--fork", "--no-fork"])
def test_sizes_are_doubled_then_halved_to_the_largest_that_fits(sweeper: Sweeper, fork: str) -> None:
    sweeper.script(*((size, "train", 1, "framework error") for size in range(45, TRAINING_IMAGES + 1)))
    done = largest(sweeper, "scripted", "--memory", "1GB", fork, "--json")
    assert done.returncode == 0, done.stderr
    found, sizes = tried(done)
    assert sizes == {32: True, 64: False, 48: False, 40: True, 44: True, 46: False, 45: False}
    assert found["largest"] == 44
    assert found["attempts"][1]["reason"] == "fake device memory: cannot allocate 3 bytes"
    assert "scripted:numpy, batch size 64: does not fit" in done.stderr


def test_where_all_images_fit_that_is_said(sweeper: Sweeper) -> None:
    done = largest(sweeper, "scripted", "--memory", "1GB")
    assert done.returncode == 0, done.stderr
    assert "all 64 images of small fit in one batch: memory sets no limit here." in done.stdout


def test_a_target_in_microbatches_is_searched_as_one_of_its_own(sweeper: Sweeper) -> None:
    sweeper.script((64, "train", 1, "framework error"))
    (sweeper.folder / "normed.toml").write_text(
        'name = "normed"\ninput_shape = [4, 4, 1]\n'
        'layers = [{ kind = "flatten" }, { kind = "batch_norm" }, { kind = "dense", units = 3 }]\n'
    )
    done = largest(sweeper, "scripted@microbatch=8", "--memory", "1GB", "--json")
    assert done.returncode == 0, done.stderr
    found, sizes = tried(done)
    assert (found["target"], found["largest"]) == ("scripted:numpy@microbatch=8", 63)
    assert sizes[32]
    assert not sizes[64]
    refused = largest(sweeper, "scripted@microbatch=8", "--memory", "1GB", "--model", "normed.toml")
    assert refused.returncode == 1
    said = " ".join(refused.stdout.split())
    assert "FAILED: unsupported: microbatches cannot train batch normalisation" in said
    (sweeper.folder / "harness.toml").unlink()
    swept = sweeper.run("--memory", "1GB", target="scripted@microbatch=8", batch_sizes=("16..max",))
    assert swept.returncode == 0, swept.stderr
    assert sweeper.statuses() == {("scripted", 16): "ok", ("scripted", 32): "ok"}


@pytest.mark.parametrize("fork", ["--fork", "--no-fork"])
def test_a_worker_that_takes_more_than_it_may_is_ended(sweeper: Sweeper, fork: str) -> None:
    sweeper.script(*((size, "evaluate", 2, "take memory:400") for size in range(33, TRAINING_IMAGES + 1)))
    done = largest(sweeper, "scripted", "--memory", "300MB", fork, "--json")
    assert done.returncode == 0, done.stderr
    found, _ = tried(done)
    assert found["largest"] == 32
    too_large = [one for one in found["attempts"] if not one["fits"]]
    assert {one["reason"] for one in too_large} == {"it took more memory than it may"}
    assert all(one["memory_bytes"] > 300e6 for one in too_large)
    assert all(0 < one["memory_bytes"] <= 300e6 for one in found["attempts"] if one["fits"])


def test_what_is_no_lack_of_memory_ends_the_search_and_is_told(sweeper: Sweeper) -> None:
    sweeper.script((64, "train", 1, "segfault"))
    done = largest(sweeper, "scripted", "--memory", "1GB")
    assert done.returncode == 1
    assert "32 fits; the search ended early: crashed: worker" in done.stdout.replace("\n", " ")


def test_a_sweep_up_to_what_memory_holds_searches_once(sweeper: Sweeper) -> None:
    sweeper.script(*((size, "train", 1, "framework error") for size in range(45, TRAINING_IMAGES + 1)))
    targets = "scripted,reference"
    planned = sweeper.run("--memory", "1GB", "--plan", target=targets, batch_sizes=("8..max",))
    assert planned.returncode == 2
    assert "how much memory holds is not known yet" in planned.stderr
    done = sweeper.run("--memory", "1GB", target=targets, batch_sizes=("8..max",))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not fit") == 4
    records = sweeper.records()
    assert {size for _, size in records} == {8, 16, 32, 64}
    assert records["scripted", 32].status == records["reference", 64].status == "ok"
    told = records["scripted", 64]
    assert (told.status, told.reason) == ("skipped", "batch size 64 is more than memory holds there: 39 at most")
    again = sweeper.run("--memory", "1GB", target=targets, batch_sizes=("8..max",))
    assert (again.returncode, again.stderr.count("fit")) == (0, 0)
