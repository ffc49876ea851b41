"""A sweep's page, written at its end and served while it runs, and what reads a run folder: recommend, report, load."""

from __future__ import annotations

import http.client
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.core.errors import StoreError, UsageError
from tests.process.processes import children_with, wait_until_none
from tests.process.small_sweep import PATIENCE, Sweeper, stop, wait_for


def page_of(sweeper: Sweeper) -> str:
    return (sweeper.folder / "run" / "report.html").read_text(encoding="utf-8")


def get(address: str, path: str = "", host: str | None = None) -> tuple[int, str]:
    """Status and text of one request to the live page."""
    request = urllib.request.Request(address + path, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


class TestOfAFinishedSweep:
    def test_it_leaves_its_page_and_says_where(self, sweeper: Sweeper) -> None:
        done = sweeper.run(target="scripted,reference")
        assert done.returncode == 0, done.stderr
        assert f"Its page: {Path('run', 'report.html')}\n" in done.stdout
        page = page_of(sweeper)
        assert "scripted:numpy" in page
        assert "reference:numpy" in page
        assert '<meta name="harness-live"' not in page

    def test_with_json_only_the_rows_go_to_standard_output(self, sweeper: Sweeper) -> None:
        done = sweeper.run("--json", batch_sizes=[8])
        assert [row["batch_size"] for row in json.loads(done.stdout)] == [8]
        assert "Its page: " in done.stderr

    def test_a_page_that_cannot_be_written_costs_a_warning_and_nothing_else(self, sweeper: Sweeper) -> None:
        sweeper.run(batch_sizes=[8])
        page = sweeper.folder / "run" / "report.html"
        page.unlink()
        page.mkdir()
        next((sweeper.folder / "run" / "records").glob("*.json")).unlink()
        done = sweeper.run(batch_sizes=[8])
        assert done.returncode == 0
        assert "warning: no page: " in done.stderr
        assert "Its page" not in done.stdout
        assert sweeper.statuses() == {("scripted", 8): "ok"}

    def test_of_failures_only_there_is_a_page_that_says_so(self, sweeper: Sweeper) -> None:
        sweeper.script((8, "session", 1, "exit:3"))
        assert sweeper.run(batch_sizes=[8]).returncode == 1
        assert "worker exited with status 3 during open" in page_of(sweeper)
        advice = sweeper.harness("recommend", "run")
        assert advice.returncode == 1
        assert "There is no answer: no cell was timed." in advice.stdout

    def test_everything_that_reads_it(self, sweeper: Sweeper) -> None:
        assert sweeper.run("--epochs", "1,4", target="scripted,reference").returncode == 0
        made = sweeper.harness("report", "run", "--html", "page.html", "--png", "png", "--svg", "svg")
        assert (made.returncode, made.stdout) == (0, ""), made.stderr
        assert "<h1" in (sweeper.folder / "page.html").read_text(encoding="utf-8")
        pictures = {path.stem for path in (sweeper.folder / "png").glob("*.png")}
        assert {"training-time", "accuracy", "throughput"} <= pictures
        assert pictures == {path.stem for path in (sweeper.folder / "svg").glob("*.svg")}
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in (sweeper.folder / "png").iterdir())

        words = sweeper.harness("recommend", "run", "--accuracy", "0.2")
        assert words.returncode == 0
        assert "use " in words.stdout
        assert " to 20 %" in words.stdout
        plain = json.loads(sweeper.harness("recommend", "run", "--accuracy", "0.2", "--json").stdout)
        assert plain["advice"][0]["goal"] == "accuracy"
        assert plain["advice"][0]["sentence"] in " ".join(words.stdout.split())

        cells = harness.load(sweeper.folder / "run")
        assert cells.height == 12
        assert harness.load(str(sweeper.folder / "run"), "epochs").height == 6 * 1 + 6 * 4
        with pytest.raises(UsageError, match=r"found 'cell' .did you mean 'cells'"):
            harness.load(sweeper.folder / "run", "cell")
        with pytest.raises(UsageError, match="no such run folder"):
            harness.load(sweeper.folder / "nothing")
        record = next((sweeper.folder / "run" / "records").glob("*.json"))
        record.write_text("{")
        with pytest.raises(StoreError, match="damaged"):
            harness.load(sweeper.folder / "run")
        torn = sweeper.harness("report", "run", "--html", "torn.html")
        assert torn.returncode == 1
        assert "1 record cannot be read" in (sweeper.folder / "torn.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["recommend", "run", "--accuracy", "98"], "for 98 % write 0.98"),
            (["recommend", "run", "--accuracy", "most"], "allowed: a share of one"),
            (["recommend", "nowhere"], "there is no such run folder"),
            (["report", "nowhere", "--html", "x.html"], "there is no such run folder"),
        ],
    )
    def test_a_wrong_call_gets_one_line(
        self, sweeper: Sweeper, refused: Callable[..., str], arguments: list[str], said: str
    ) -> None:
        sweeper.folder.joinpath("run").mkdir()
        assert said in refused(sweeper, *arguments)

    def test_a_page_where_none_can_be_written_is_one_line(self, sweeper: Sweeper) -> None:
        assert sweeper.run(batch_sizes=[8]).returncode == 0
        done = sweeper.harness("report", "run", "--html", str(Path("no", "such", "folder", "page.html")))
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "there is no folder" in done.stderr


class TestLive:
    def address(self, sweeper: Sweeper, process: object) -> str:
        for line in process.stderr:  # type: ignore[attr-defined]
            name, _, address = line.strip().partition("live page: ")
            if not name and address:
                return str(address)
        raise AssertionError("no address was printed")

    def hang(self, sweeper: Sweeper) -> None:
        sweeper.script((8, "train", 3, f"touch:{sweeper.folder / 'reached'}"), (8, "train", 3, "hang"))

    def test_the_page_is_served_to_this_machine_follows_the_records_and_ends_with_the_sweep(
        self, sweeper: Sweeper
    ) -> None:
        self.hang(sweeper)
        with sweeper.running("--live", "--interleave", "cell") as process:
            address = self.address(sweeper, process)
            assert address.startswith("http://127.0.0.1:")
            wait_for(sweeper.folder / "reached", process)
            eventually(lambda: get(address, "version")[1].startswith("1-"), "the first record in the page")
            status, page = get(address)
            assert (status, '<meta name="harness-live"' in page, "1 of 3 cells done" in page) == (200, True, True)
            assert get(address, "plan.json")[0] == 404
            assert get(address, host="a.page.elsewhere:80")[0] == 403
            assert stop(process, signal.SIGINT)[0] == 1
            assert wait_until_none(sweeper.mark) == []
        with pytest.raises((urllib.error.URLError, http.client.HTTPException)):
            get(address)

    def test_killing_the_server_harms_nothing(self, sweeper: Sweeper) -> None:
        self.hang(sweeper)
        with sweeper.running("--live", "--interleave", "cell", "--timeout", "5") as process:
            address = self.address(sweeper, process)
            wait_for(sweeper.folder / "reached", process)
            (server,) = children_with(process.pid, "harness.report.live")
            server.kill()
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert sweeper.statuses() == {("scripted", 4): "ok", ("scripted", 8): "timeout", ("scripted", 16): "ok"}
        with pytest.raises((urllib.error.URLError, http.client.HTTPException)):
            get(address)

    def test_it_ends_when_the_sweep_is_killed(self, sweeper: Sweeper) -> None:
        self.hang(sweeper)
        with sweeper.running("--live", "--interleave", "cell") as process:
            self.address(sweeper, process)
            wait_for(sweeper.folder / "reached", process)
            process.kill()
            process.wait()
            assert wait_until_none(sweeper.mark) == []
