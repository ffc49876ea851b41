"""The page of a sweep that is under way, served: it follows, and leaves its reader where he is."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver.support.select import Select

from harness.report import page
from tests.browser.conftest import Opener
from tests.unit.made_up_runs import SIZES, run, view


class Server:
    """Serves one page and its version, which a test may change."""

    def __init__(self) -> None:
        self.version, self.html = "", ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, text = ("text/plain", outer.version) if self.path == "/version" else ("text/html", outer.html)
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def test_a_served_page_follows_its_sweep_and_keeps_what_its_reader_chose(opened: Opener, server: Server) -> None:
    def publish(sizes: int) -> None:
        made = view(run(sizes=SIZES[:sizes], seeds=(0,)), planned=30, version=str(sizes), bundle=opened.bundle)
        server.version, server.html = str(sizes), page.render(dataclasses.replace(made, version=str(sizes)))

    reader = opened.reader
    publish(3)
    reader.open(server.address)
    assert "18 of 30 cells done" in reader.one("header").text
    reader.click(reader.all(".target")[0])
    Select(reader.one("#choose-accuracy")).select_by_index(1)
    reader.click(reader.all("#headline thead button")[3])
    reader.click(reader.one("#throughput summary"))
    chosen = reader.one("#choose-accuracy").get_property("value")
    title = reader.one("#time-to-accuracy h4").text
    reader.run("document.querySelectorAll('.target')[2].focus({preventScroll: true})")  # else a smooth scroll runs on
    reader.run("window.scrollTo({top: 900, behavior: 'instant'})")
    place = "return document.getElementById('accuracy').getBoundingClientRect().top"
    before = reader.run(place)
    assert reader.run("return window.scrollY") == 900

    publish(5)
    reader.wait(lambda: "30 cells" in reader.one("#news").text, "the news")
    assert "30 cells" in reader.one("header").text
    assert len(reader.column(0)) == 30
    assert reader.all(".target")[0].get_attribute("aria-pressed") == "false"
    assert len(set(reader.marks("training-time"))) == 2
    assert reader.one("#choose-accuracy").get_property("value") == chosen
    assert reader.one("#time-to-accuracy h4").text == title
    values = [float(text.replace(",", "")) for text in reader.column(3)]
    assert values == sorted(values)
    assert reader.one("#throughput details").get_attribute("open")
    assert abs(reader.run(place) - before) < 5
    assert reader.driver.switch_to.active_element == reader.all(".target")[2]

    server.stop()
    reader.wait(lambda: "No longer following" in reader.one("#news").text, "the end")
    assert all("ERR_CONNECTION_REFUSED" in line for line in reader.complaints())
