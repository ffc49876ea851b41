"""``harness cache``: what it lists, what it calls of no use, and what it never removes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import cli, workers
from harness.cache import in_use
from harness.doctor import cache as doctor_cache
from harness.plan import datasets, targets
from harness.report.view import charts_file
from harness.workers import environments
from tests.unit.links import link

OLD = "old-code"
HOLDS = """
import sys
from pathlib import Path
from harness.cache import in_use
in_use.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with entries of every kind, in use and not."""
    base = tmp_path / "cache"
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(base))
    monkeypatch.chdir(tmp_path)
    code = workers.code_sha256()
    known = targets.built_in()["reference"].environment
    for identity in (known, "lock:0123456789abcdef-py3.11"):
        fill(base / "environments" / f"{environments.name_of(identity)}-linux-x86_64" / "lib.py", 1000)
    fill(base / "environments" / "tmp-01234567-abc" / "lib.py", 10)
    for key in ("digits-0", *datasets.built_in_keys(), "own-abc"):
        fill(base / "datasets" / key / "train_images.npy", 500)
        (base / "datasets" / key / "dataset.json").write_text(json.dumps({"name": key.partition("-")[0]}))
    for kind in ("proofs", "limits"):
        for name in (code, OLD):
            fill(base / kind / f"{name[:16]}.json", 0)
            (base / kind / f"{name[:16]}.json").write_text(json.dumps({"key": {"code": name}}))
    fill(base / "bundles" / code[:16] / "a.py", 20)
    fill(base / "bundles" / OLD / "a.py", 20)
    fill(base / "pages" / charts_file(), 30)
    fill(base / "pages" / "charts-0.js", 30)
    fill(base / "speeds.json", 5)
    fill(base / "notes.txt", 5)
    return base


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "cache", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code)), *capsys.readouterr()

    return run


def fill(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def names(base: Path) -> set[str]:
    """What is in the cache, two levels deep, apart from locks."""
    found = [path.relative_to(base).as_posix() for path in (*base.glob("*"), *base.glob("*/*"))]
    return {name for name in found if not name.endswith(".lock")}


@contextmanager
def held(entry: Path) -> Iterator[None]:
    """Another process uses an entry meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(entry)], stdin=-1, stdout=-1, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.close()


UNUSED = {
    "environments/0123456789abcdef-py3.11-linux-x86_64",
    "environments/tmp-01234567-abc",
    "datasets/digits-0",
    f"proofs/{OLD}.json",
    f"limits/{OLD}.json",
    f"bundles/{OLD}",
    "pages/charts-0.js",
}


def test_every_entry_is_listed_with_its_kind_size_last_use_and_why_it_is_of_no_use(cache: Path, call: Call) -> None:
    os.utime(cache / "pages" / "charts-0.js", (86400 * 366, 86400 * 366))
    status, out, _ = call("--json")
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    assert (found["folder"], found["variable"]) == (str(cache), "HARNESS_CACHE_DIR")
    entries = {Path(entry["path"]).relative_to(cache).as_posix(): entry for entry in found["entries"]}
    assert {name for name, entry in entries.items() if entry["unused"]} == UNUSED
    assert entries["datasets/digits-0"]["bytes"] > 500
    assert entries["pages/charts-0.js"]["last_used"].startswith("1971-01-0")
    assert entries["notes.txt"]["kind"] == "other"
    reference = entries[
        f"environments/{environments.name_of(targets.built_in()['reference'].environment)}-linux-x86_64"
    ]
    assert reference["title"] == "reference"

    status, out, _ = call()
    assert status == 0
    assert "HARNESS_CACHE_DIR" in out
    assert f"Not used any more: {len(UNUSED)} entries" in out
    assert "of other code than the present" in out


def test_clearing_what_is_unused_leaves_all_the_rest(cache: Path, call: Call) -> None:
    before = names(cache)
    status, out, err = call("clear", "--unused", "--yes")
    assert (status, err) == (0, "")
    assert out.startswith(f"Removed: {len(UNUSED)} entries")
    assert before - names(cache) == UNUSED
    assert call("clear", "--unused")[:2] == (0, "Removed: 0 entries, 0.0 MB\n")


def test_clearing_by_kind_removes_that_kind_only(cache: Path, call: Call) -> None:
    before = names(cache)
    status, out, _ = call("clear", "proofs", "speeds", "--yes", "--json")
    assert status == 0
    assert {entry["kind"] for entry in json.loads(out)["removed"]} == {"proofs", "speeds"}
    gone = before - names(cache)
    assert gone == {name for name in before if name.startswith("proofs/")} | {"speeds.json"}


def test_what_another_process_uses_or_makes_is_left(cache: Path, call: Call) -> None:
    used = cache / "environments" / "0123456789abcdef-py3.11-linux-x86_64"
    with held(used), held(cache / "datasets" / "mnist"):
        status, _, err = call("clear", "environments", "datasets", "--yes")
    assert status == 0
    assert f"left: {Path('environments', used.name)}: in use by a running harness" in err
    assert f"left: {Path('datasets', 'mnist')}: in use" in err
    assert used.is_dir()
    assert {path.name for path in (cache / "datasets").iterdir() if path.suffix != ".lock"} == {"mnist"}
    assert call("clear", "environments", "--yes")[0] == 0
    assert not used.exists()

    from filelock import FileLock

    with FileLock(cache / "datasets" / ".mnist.lock"):
        assert f"left: {Path('datasets', 'mnist')}: in use" in call("clear", "datasets", "--yes")[2]


def test_an_entry_that_is_taken_into_use_while_it_is_removed_comes_back(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, answers = cache / "datasets" / "mnist", [False, True]
    monkeypatch.setattr(in_use, "is_used", lambda path: answers.pop(0))
    assert not in_use.remove(entry)
    assert (entry / "dataset.json").is_file()
    assert not list(entry.parent.glob(f"*{in_use.REMOVED}"))


def test_a_process_that_died_leaves_nothing_in_use(cache: Path) -> None:
    entry = cache / "datasets" / "mnist"
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(entry)], stdin=-1, stdout=-1, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert in_use.is_used(entry)
        process.kill()
    assert not in_use.is_used(entry)
    assert not list(entry.parent.glob(f"*{in_use.MARK}"))


def test_links_are_not_followed_out_of_the_cache(cache: Path, call: Call, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside / "inner" / "precious", 100)
    link(cache / "datasets" / "digits-00", outside)
    link(cache / "datasets" / "digits-0" / "link", outside)
    (cache / "limits").rename(tmp_path / "limits")
    link(cache / "limits", tmp_path / "limits")
    assert doctor_cache.size(cache / "datasets" / "digits-0") < 800
    status, _, err = call("clear", "datasets", "limits", "--yes")
    assert status == 1
    assert "is a link, which is not followed" in err
    assert not (cache / "datasets" / "digits-00").is_symlink()
    assert (outside / "inner" / "precious").is_file()
    assert len(list((tmp_path / "limits").glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clear"], "name what to remove: --unused, or kinds: environments"),
        (["clear", "proof", "--yes"], "found 'proof' (did you mean 'proofs'?), allowed: environments, "),
        (["clear", "--unused"], "nobody can be asked here; say --yes"),
        (["clear", "other", "--yes"], "found 'other'"),
    ],
)
def test_nothing_is_removed_unless_it_is_named_and_agreed_to(
    cache: Path, call: Call, arguments: list[str], said: str
) -> None:
    before = names(cache)
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert names(cache) == before


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
def test_a_person_is_asked(cache: Path, call: Call, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = names(cache)
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    found, _, err = call("clear", "--unused")
    assert found == status
    assert "Remove 7 entries" in err
    assert (names(cache) == before) == bool(status)


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(tmp_path: Path, call: Call, monkeypatch: Any) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "none"))
    assert call("--json")[0] == 0
    assert "0 entries" in call()[1]
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))
    status, _, err = call()
    assert status == 1
    assert "a file is in the way" in err
