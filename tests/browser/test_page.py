"""The page in a real browser: it draws, and its reader's mouse, keyboard, screen and paper all work."""

from __future__ import annotations

import base64
import dataclasses
from itertools import pairwise

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from harness.core.model import Dense, Flatten, ModelSpec
from harness.report import palette
from harness.report.page import Answer, PageView
from tests.browser.conftest import Opener
from tests.browser.reader import NARROW, PHONE, WIDE, Reader
from tests.unit.made_up_runs import NASTY, SIZES, TARGETS, run, view, whole
from tests.unit.records import JAX, TENSORFLOW, cell, failed


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))})"


def answered() -> PageView:
    """A run whose answer is as long as a real one's."""
    sentence = (
        "On this machine (AMD EPYC, 2 logical cores) use tensorflow-cpu:graph at batch size 16. It trains to 97 % test "
        "accuracy in 43.9 s (95 % interval: 32.9 to 58.6), plus 0.644 s to compile. The next best is "
        "tensorflow-cpu:graph at batch size 32, with 44.6 s; these measurements cannot tell which of the two is better."
    )
    reasons = tuple(f"Reason {number}: {sentence}" for number in range(5))
    return dataclasses.replace(whole(), answers=(Answer("", sentence, reasons, ("--seed 0,1,2,3,4: more of them",)),))


def targets_shown(reader: Reader, figure: str = "training-time") -> int:
    return len(set(reader.marks(figure)))


class TestOpening:
    def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(self, opened: Opener) -> None:
        reader = opened(whole())
        assert reader.requests() == []
        charts = reader.all(".chart")
        assert len(charts) >= 9
        for chart in charts:
            assert reader.run("return arguments[0].querySelectorAll('svg .role-mark path').length", chart) > 0
        assert len(reader.marks("training-time")) == len(TARGETS) * len(SIZES)

    def test_its_policy_stops_what_asks_all_the_same(self, opened: Opener) -> None:
        reader = opened(whole())
        script = "return fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'refused')"
        assert reader.run(script) == "refused"
        reader.run(
            "const one = document.createElement('script'); one.textContent = 'window.ran = 1';document.body.append(one)"
        )
        assert reader.run("return window.ran") is None
        refusals = reader.complaints()
        assert refusals
        assert all("Content Security Policy" in line or "Fetch API cannot load" in line for line in refusals)

    def test_names_from_records_are_shown_as_text(self, opened: Opener) -> None:
        model = ModelSpec(NASTY, (4, 4, 1), (Flatten(), Dense(3)))
        nasty = dataclasses.replace(JAX, name=f"jax{NASTY}")
        reader = opened(run((nasty, TENSORFLOW), seeds=(0,), model=model), name=NASTY)
        assert reader.one("h1").text == NASTY
        assert reader.run("return document.querySelectorAll('main script:not([type]), .chart script').length") == 0
        assert NASTY in reader.one("#training-time .chart svg").get_property("textContent")
        button = reader.all(".target")[0]
        assert NASTY in button.text
        reader.click(button)
        reader.wait(lambda: targets_shown(reader) == 1, "the target hidden")

    def test_a_mark_tells_its_values(self, opened: Opener) -> None:
        nasty = dataclasses.replace(JAX, name=f"jax{NASTY}")
        reader = opened(run((nasty,), seeds=(0,)))
        reader.click(reader.all("#training-time .mark-symbol.role-mark path")[0])
        reader.wait(lambda: reader.all("#vg-tooltip-element.visible"), "a tooltip")
        text = reader.one("#vg-tooltip-element").text
        assert NASTY in text
        assert "batch size" in text
        assert not reader.all("#vg-tooltip-element script")


class TestChoosing:
    def test_a_target_is_hidden_in_all_figures_and_shown_again(self, opened: Opener) -> None:
        reader = opened(whole())
        button = reader.all(".target")[1]
        for shown, pressed in ((2, "false"), (3, "true")):
            reader.click(button)
            for figure in ("training-time", "throughput", "time-to-accuracy"):
                reader.wait(lambda figure=figure, shown=shown: targets_shown(reader, figure) == shown, figure)
            assert button.get_attribute("aria-pressed") == pressed

    def test_the_keyboard_hides_a_target(self, opened: Opener) -> None:
        reader = opened(whole())
        reader.tab_to(reader.all(".target")[0])
        reader.press(Keys.SPACE)
        reader.wait(lambda: targets_shown(reader) == 2, "the target hidden")
        assert "hidden" in reader.one("#news").text

    def test_a_figures_own_legend_does_the_same(self, opened: Opener) -> None:
        reader = opened(whole())
        reader.click(reader.all("#training-time .role-legend-symbol path")[0])
        reader.wait(lambda: targets_shown(reader, "throughput") == 2, "the target hidden elsewhere")
        assert [one.get_attribute("aria-pressed") for one in reader.all(".target")] == ["false", "true", "true"]

    def test_another_accuracy_changes_figure_title_words_and_table(self, opened: Opener) -> None:
        reader = opened(whole())
        choice = Select(reader.one("#choose-accuracy"))
        before = reader.one("#time-to-accuracy .chart").get_attribute("aria-label")
        lowest = choice.options[-1].text
        choice.select_by_index(len(choice.options) - 1)
        reader.wait(lambda: lowest in reader.one("#time-to-accuracy h4").text, "another title")
        assert lowest in reader.one("#steps-to-accuracy h4").text
        assert reader.one("#time-to-accuracy .chart").get_attribute("aria-label") != before
        rows = reader.texts("#time-to-accuracy tbody tr:not([hidden])", 0)
        assert {f"{float(text):g} %" for text in rows} == {lowest}

    def test_another_work_shows_its_own_figures(self, opened: Opener) -> None:
        models = [ModelSpec(name, (4, 4, 1), (Flatten(), Dense(3))) for name in ("one", "two")]
        reader = opened([made for model in models for made in run(seeds=(0,), model=model)])
        assert [one.is_displayed() for one in reader.all(".work")] == [True, False] * 2
        Select(reader.one("#choose-work")).select_by_index(1)
        reader.wait(lambda: reader.marks("training-time-two"), "the other's figures")
        assert [one.is_displayed() for one in reader.all(".work")] == [False, True] * 2


class TestTheTable:
    def test_a_heading_sorts_up_then_down_then_not(self, opened: Opener) -> None:
        reader = opened(whole())
        assert reader.run("return document.querySelectorAll('#headline thead th')[3].textContent") == "images per s"
        as_it_was = reader.column(3)
        values = sorted(float(text.replace(",", "")) for text in as_it_was)
        for order, expected in (("ascending", values), ("descending", values[::-1])):
            reader.click(reader.all("#headline thead button")[3])
            assert [float(text.replace(",", "")) for text in reader.column(3)] == expected
            assert reader.all("#headline thead th")[3].get_attribute("aria-sort") == order
        reader.click(reader.all("#headline thead button")[3])
        assert reader.column(3) == as_it_was
        assert reader.all("#headline thead th")[3].get_attribute("aria-sort") is None

    def test_the_keyboard_sorts(self, opened: Opener) -> None:
        reader = opened(whole())
        reader.tab_to(reader.all("#headline thead button")[2])
        reader.press(Keys.ENTER)
        assert reader.column(2) == sorted(reader.column(2), key=int)

    def test_what_is_absent_comes_last_either_way(self, opened: Opener) -> None:
        reader = opened([*run(seeds=(0,), epochs=(1,)), failed(cell(8), "crashed", "ended by signal 11")])
        for _ in range(2):
            reader.click(reader.all("#headline thead button")[3])
            assert reader.column(3)[-1] == "-"

    def test_the_skip_link_comes_first_and_leads_to_the_answer(self, opened: Opener) -> None:
        reader = opened(whole())
        reader.press(Keys.TAB)
        assert reader.driver.switch_to.active_element.text == "Skip to the answer"
        reader.press(Keys.ENTER)
        assert reader.driver.switch_to.active_element.get_attribute("id") == "main"


class TestScreensAndPaper:
    def test_both_colour_schemes_and_the_change_between_them(self, opened: Opener) -> None:
        reader = opened(whole())
        for scheme, colours in (("light", palette.LIGHT), ("dark", palette.DARK), ("light", palette.LIGHT)):
            reader.prefers(scheme)
            paper = reader.run("return getComputedStyle(document.body).backgroundColor")
            assert paper == rgb(palette.SCHEMES[scheme]["paper"])
            assert set(reader.marks("training-time")) == {rgb(colour) for colour in colours[: len(TARGETS)]}
            label = reader.run("return getComputedStyle(document.querySelector('.role-axis-label text')).fill")
            assert label == rgb(palette.SCHEMES[scheme]["muted"])

    @pytest.mark.parametrize("long", [False, True])
    def test_a_phone_scrolls_up_and_down_only(self, opened: Opener, long: bool) -> None:
        opened.reader.screen(PHONE)
        named = [dataclasses.replace(one, device=1, cpus=2) for one in TARGETS] if long else TARGETS
        made = run(named, seeds=(0,))
        word = "an-exceedingly-long-name-without-a-place-to-break-it-anywhere-at-all" if long else "short"
        reader = opened(made, name=word)
        assert reader.run("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]
        assert reader.run("return document.querySelector('#headline').parentElement.scrollWidth") > 320
        for chart in reader.all(".chart svg"):
            assert chart.rect["width"] <= 330

    @pytest.mark.parametrize("size", WIDE)
    def test_wide_the_answer_and_the_main_figure_are_in_the_first_view_side_by_side(
        self, opened: Opener, size: tuple[int, int]
    ) -> None:
        opened.reader.screen(size)
        reader = opened(answered())
        answer, figure = reader.one("p.answer").rect, reader.one("#training-time .chart svg").rect
        for one in (answer, figure):
            assert one["y"] >= 0
            assert one["y"] + one["height"] <= size[1]
        assert answer["x"] + answer["width"] <= figure["x"]
        assert reader.marks("training-time")

    @pytest.mark.parametrize("size", WIDE)
    def test_wide_figures_stand_in_two_columns_that_fill_the_page(self, opened: Opener, size: tuple[int, int]) -> None:
        opened.reader.screen(size)
        reader = opened(answered())
        boxes = [one.rect for one in reader.all("#controls ~ .work figure")]
        left, right = sorted({box["x"] for box in boxes})
        assert [box["x"] for box in boxes[:4]] == [left, right, left, right]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        assert boxes[0]["width"] == boxes[1]["width"]
        main = reader.one("main").rect
        assert boxes[0]["width"] + boxes[1]["width"] > 0.9 * main["width"]
        for figure in reader.all("#controls ~ .work figure"):
            chart = figure.find_element("css selector", ".chart svg")
            assert chart.rect["width"] <= figure.rect["width"]

    @pytest.mark.parametrize("size", [*NARROW, PHONE])
    def test_narrow_everything_stands_in_one_column_the_answer_first(
        self, opened: Opener, size: tuple[int, int]
    ) -> None:
        opened.reader.screen(size)
        reader = opened(answered())
        boxes = [one.rect for one in reader.all("figure") if one.is_displayed()]
        assert len({box["x"] for box in boxes}) == 1
        assert all(one["y"] + one["height"] <= other["y"] for one, other in pairwise(boxes))
        answer = reader.one("p.answer").rect
        assert answer["y"] < size[1]
        assert answer["y"] + answer["height"] <= boxes[0]["y"]

    @pytest.mark.parametrize("size", [*WIDE, *NARROW, PHONE])
    def test_no_screen_scrolls_sideways(self, opened: Opener, size: tuple[int, int]) -> None:
        opened.reader.screen(size)
        named = [dataclasses.replace(one, device=1, cpus=2) for one in TARGETS]
        lost = failed(cell(4096), "crashed", f"ended by signal 11; see logs/{'x' * 90}.log")
        reader = opened([*run(named, seeds=(0, 1)), lost], proofs=whole().proofs)
        whole_width, shown = reader.run(
            "const { scrollWidth, clientWidth } = document.documentElement; return [scrollWidth, clientWidth]"
        )
        assert whole_width == shown

    @pytest.mark.parametrize("size", WIDE)
    def test_wide_without_a_figure_the_answer_stands_alone(self, opened: Opener, size: tuple[int, int]) -> None:
        opened.reader.screen(size)
        reader = opened([failed(cell(size), "crashed", "ended by signal 11") for size in (16, 32)])
        assert reader.run("return getComputedStyle(document.querySelector('.first')).display") == "block"

    def test_paper_is_light_shows_the_marks_and_opens_what_is_folded(self, opened: Opener) -> None:
        reader = opened(whole())
        reader.prefers("dark", media="print")
        assert reader.run("return getComputedStyle(document.body).color") == rgb(palette.SCHEMES["light"]["ink"])
        marks = reader.run(
            "return Array.from(document.querySelectorAll('#training-time .mark-symbol.role-mark path'))"
            ".map((path) => path.getAttribute('d'))"
        )
        assert len(set(marks)) == len(TARGETS)
        assert not reader.one("nav").is_displayed()
        folded = "document.querySelectorAll('details:not([open])').length"
        reader.run(f"window.folded = null; addEventListener('beforeprint', () => {{ window.folded = {folded}; }})")
        paper = reader.driver.execute_cdp_cmd("Page.printToPDF", {})
        assert base64.b64decode(paper["data"]).startswith(b"%PDF")
        assert reader.run("return window.folded") == 0
        assert reader.run(f"return {folded}") > 5


class TestBadDays:
    def test_failures_only(self, opened: Opener) -> None:
        reader = opened([failed(cell(size), "crashed", "ended by signal 11") for size in (16, 32)])
        assert "ended by signal 11" in reader.one("main").text
        assert len(reader.column(0)) == 2

    def test_an_empty_run(self, opened: Opener) -> None:
        reader = opened(view([]), planned=4)
        assert "No cell has been run" in reader.one("main").text

    def test_ten_thousand_cells(self, opened: Opener) -> None:
        targets = [dataclasses.replace(JAX, device=number) for number in range(5)]
        models = [ModelSpec(f"model-{number}", (4, 4, 1), (Flatten(), Dense(3))) for number in range(5)]
        made = [
            one for model in models for one in run(targets, range(8, 88), (1,), range(5), examples=880, model=model)
        ]
        assert len(made) == 10_000
        reader = opened(made)
        assert reader.run("return document.documentElement.outerHTML.length") < 3_000_000
        assert "200 of 10,000 rows." in reader.one("#rows-shown").text
        reader.click(reader.one("#more"))
        assert len(reader.column(0)) == 700
        reader.click(reader.all("#headline thead button")[2])
        assert set(reader.column(2)) == {str(size) for size in range(8, 14)}
