from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.record import Record
from harness.proof.parity import Proof, Quantity
from harness.report import page
from harness.report.page import Answer, PageView
from tests.unit.made_up_runs import NASTY, SIZES, TARGETS, run, trained, view, whole
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record


class Page(HTMLParser):
    """What a page says: its visible text, its elements with their attributes, and the data of its script."""

    VOID = ("meta", "link", "br", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def meta(self, name: str) -> str | None:
        found = [one for one in self.all("meta") if name in (one.get("name"), one.get("http-equiv"))]
        return found[0]["content"] if found else None


def shown(records: list[Record], **changes: Any) -> Page:
    return Page(page.render(view(records, **changes)))


@pytest.fixture(scope="module")
def full() -> Page:
    return Page(page.render(whole()))


class TestWhole:
    def test_says_the_answer_first(self, full: Page) -> None:
        assert full.text.index("Use jax-cpu:jit with batch size 64.") < full.text.index("Figures")
        assert "Shown by three seeds." in full.text
        assert "More seeds." in full.text

    def test_says_which_question_its_numbers_answer(self, full: Page) -> None:
        assert full.text.index("As installed: ") < full.text.index("Figures")
        tuned = dataclasses.replace(JAX, tuned=True)
        cells = [record(cell(target=tuned))]
        assert "At its best: " in shown(cells).text

    def test_closes_every_element_and_has_one_main_heading(self, full: Page) -> None:
        assert not full.open
        assert len(full.all("h1")) == 1
        levels = [int(tag[1]) for tag, _ in full.elements if re.fullmatch("h[1-6]", tag)]
        assert all(later <= earlier + 2 for earlier, later in pairwise(levels))

    def test_every_identity_is_used_once_and_every_label_points_to_one(self, full: Page) -> None:
        names = [one["id"] for _, one in full.elements if "id" in one]
        assert len(names) == len(set(names))
        links = [one["href"] for one in full.all("a")]
        labels = [f"#{one['aria-labelledby']}" for _, one in full.elements if "aria-labelledby" in one]
        assert {link for link in [*links, *labels] if link} <= {f"#{name}" for name in names}

    def test_asks_the_network_for_nothing_and_may_not(self, full: Page) -> None:
        for tag, attributes in full.elements:
            for name in ("src", "href", "action", "srcset", "data"):
                value = attributes.get(name)
                assert not value or value.startswith(("#", "data:")), f"{tag} {name}={value}"
        policy = full.meta("Content-Security-Policy")
        assert policy
        assert "default-src 'none'" in policy
        assert "connect-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe-inline'" not in policy

    def test_every_figure_has_a_text_alternative_with_values_and_its_data_as_a_table(self, full: Page) -> None:
        figures = [one for one in full.all("div") if one.get("role") == "img"]
        assert [one["data-figure"] for one in figures] == list(full.data["figures"])
        for one in figures:
            assert re.search(r"jax-cpu:jit:? .*\d", str(one["aria-label"])), one
        assert len(full.all("figure")) == len(figures) == len(full.all("figcaption"))
        assert full.text.count("Its data as a table") == len(figures)

    def test_the_studys_two_figures_come_first(self, full: Page) -> None:
        assert list(full.data["figures"])[:2] == ["training-time", "accuracy"]

    def test_one_button_for_each_target(self, full: Page) -> None:
        targets = [one["data-target"] for one in full.all("button") if "data-target" in one]
        assert targets == sorted(target.label for target in TARGETS)

    def test_the_table_has_all_cells_in_the_page_and_in_the_data(self, full: Page) -> None:
        count = len(whole().found.cells)
        assert [len(column["rows"]) for column in full.data["table"]] == [count] * 9
        assert f"{count} rows." in full.text
        assert full.text.count("3 epochs, seed 2") >= len(TARGETS) * len(SIZES)

    def test_offers_the_accuracies_that_there_are_times_for(self, full: Page) -> None:
        offered = [float(str(one["value"])) for one in full.all("option")]
        words = full.data["figures"]["time-to-accuracy"]["words"]
        assert offered == sorted(offered, reverse=True) == [one[0] for one in words]
        (selected,) = [float(str(one["value"])) for one in full.all("option") if "selected" in one]
        assert math.isclose(selected, 100 * whole().found.accuracy)

    def test_says_how_it_was_measured_and_how_to_run_it_again(self, full: Page) -> None:
        assert "took turns in short blocks" in full.text
        assert "true synchronisation" in full.text
        for text in ("harness sweep test.toml", "1" * 64, "2" * 64, "c0de", "A processor, 2 logical cores, 8.0 GB"):
            assert text in full.text

    def test_tells_what_differs_between_targets_and_what_is_proven(self, full: Page) -> None:
        assert "What differs between the targets" in full.text
        assert "yes, and asked for" in full.text
        assert "The largest error of each target against the float64 reference" in full.text

    def test_is_the_same_again(self) -> None:
        assert page.render(whole()) == page.render(whole())


class TestBadDays:
    def test_a_run_without_a_cell(self) -> None:
        empty = shown([], planned=6, answers=(), proofs=())
        assert "No cell has been run" in empty.text
        assert "6 of 6 cells have not run here yet" in empty.text
        assert "There is no answer yet" in empty.text
        assert empty.data["figures"] == {}

    def test_failures_only(self) -> None:
        lost = shown([failed(cell(size), "crashed", "ended by signal 11") for size in (16, 32)], answers=())
        assert "ended by signal 11" in lost.text
        assert "jax-cpu:jit at batch size 16, jax-cpu:jit at batch size 32" in lost.text
        assert lost.data["figures"] == {}
        assert "no training was timed" in lost.text

    def test_one_cell(self) -> None:
        lone = shown([trained(32, JAX)])
        assert "Training time: seconds per epoch against batch size: only one batch size was measured" in lone.text
        assert "learning-by-epoch" in lone.data["figures"]
        assert "There is one target only" in lone.text

    def test_one_epoch_has_no_learning_curve(self) -> None:
        short = shown(run(epochs=(1,)))
        assert "training took one epoch only, which makes no curve" in short.text

    def test_losses_and_accuracies_that_are_not_finite(self) -> None:
        records = []
        for made in run(seeds=(0,), epochs=(3,)):
            lost = tuple(dataclasses.replace(one, test_loss=math.nan, train_loss=math.inf) for one in made.epochs)
            records.append(dataclasses.replace(made, epochs=lost))
        ruined = page.render(view(records))
        told = Page(ruined).text
        assert "diverged." in told
        assert "diverged (the loss became infinite or not a number)" in told
        assert told.count("These diverged: ") >= 3  # under the figures
        assert not re.search(r"\b(NaN|Infinity|nan|inf)\b", ruined.split('id="data">')[1].split("</script>")[0])

    def test_no_accuracy_at_all(self) -> None:
        blind = shown([dataclasses.replace(made, epochs=()) for made in run(seeds=(0,))])
        assert "training-time" in blind.data["figures"]
        assert "accuracy" not in blind.data["figures"]
        assert (
            "Accuracy: test accuracy in percent against batch size: no training finished all its epochs" in blind.text
        )

    def test_what_is_missing_unreadable_or_unproven_is_said(self) -> None:
        made = [trained(32, JAX), dataclasses.replace(trained(64, JAX), proof="")]
        said = shown(made, planned=9, unreadable=("records/1.json: damaged",), proofs=())
        assert "6 of 9 cells have not run here yet" in said.text
        assert "records/1.json: damaged" in said.text
        assert "1 cell is not proven to do the same work as the reference." in said.text
        assert "This run has no parity proofs" in said.text

    def test_a_failed_proof_comes_first_with_its_reason(self) -> None:
        proofs = (
            Proof("1", "a", "m", "sgd", "float32", {}, (Quantity("loss", 1e-7, 1e-5),)),
            Proof("2", "z", "m", "sgd", "float32", {}, (Quantity("loss", 1e-2, 1e-5),)),
        )
        text = shown([trained(32, JAX)], proofs=proofs).text
        assert text.index("FAILED") < text.index("passed")
        assert "loss off by 1.0e-02" in text

    def test_a_proof_that_cannot_be_read_comes_first_with_what_is_wrong_with_it(self) -> None:
        text = shown([trained(32, JAX)], unreadable_proofs=("proofs/1.json: damaged",)).text
        assert text.index("proofs/1.json: damaged") < text.index("passed")


class TestTexts:
    def test_names_from_records_are_text_everywhere(self) -> None:
        model = ModelSpec(NASTY, (4, 4, 1), (Flatten(), Dense(3)))
        nasty = dataclasses.replace(JAX, name=f"jax{NASTY}")
        lost = failed(cell(4096, nasty, model=model), "crashed", f"{NASTY}</script>")
        made = [*run((nasty, TENSORFLOW), seeds=(0,), model=model), lost]
        answer = Answer(NASTY, NASTY, (NASTY,), (NASTY,))
        html = page.render(view(made, name=NASTY, command=NASTY, folder=NASTY, answers=(answer,), unreadable=(NASTY,)))
        assert NASTY not in html
        assert "<script>alert" not in html
        read = Page(html)
        assert NASTY in read.text
        assert any(NASTY in text for column in read.data["table"] for text in column["texts"])
        assert len(read.all("script")) == 3

    def test_no_text_of_a_record_is_part_of_an_expression(self) -> None:
        nasty = dataclasses.replace(JAX, name="jax'+alert(1)+'")
        figures = shown(run((nasty, TENSORFLOW), seeds=(0,))).data["figures"]

        def expressions(part: Any) -> list[str]:
            if isinstance(part, dict):
                own = [str(part[key]) for key in ("filter", "expr", "signal", "calculate", "test") if key in part]
                return own + [found for value in part.values() for found in expressions(value)]
            return [found for value in part for found in expressions(value)] if isinstance(part, list) else []

        found = expressions(figures)
        assert found
        assert not [one for one in found if "alert" in one]


class TestMany:
    def test_works_have_sections_of_their_own_and_figures_names_of_their_own(self) -> None:
        models = [ModelSpec(name, (4, 4, 1), (Flatten(), Dense(3))) for name in ("one", "two!", "two?")]
        several = shown([made for model in models for made in run(seeds=(0,), model=model)])
        names = list(several.data["figures"])
        assert {"training-time-one", "training-time-two-2", "training-time-two-3"} <= set(names)
        assert len(names) == len(set(names))
        numbers = [one["data-work"] for one in several.all("div") if "data-work" in one]
        assert numbers == ["0", "1", "2"] * 2  # the main figures beside the answer, then all others

    def test_a_page_of_many_works_stays_small_and_says_what_it_leaves_out(self) -> None:
        models = [ModelSpec(f"model-{number}", (4, 4, 1), (Flatten(), Dense(3))) for number in range(30)]
        html = page.render(view([made for model in models for made in run(seeds=(0,), model=model)]))
        assert len(html.encode()) < 2_000_000
        left_out = re.search(r"The figures of (\d+) more works would not fit this page", html)
        assert left_out is not None
        assert len(set(re.findall(r'data-work="(\d+)"', html))) + int(left_out[1]) == len(models)

    def test_crowds_of_targets_and_sizes_are_thinned_in_figures_not_in_the_table(self) -> None:
        targets = [dataclasses.replace(JAX, device=number) for number in range(20)]
        made = run(targets, sizes=range(8, 168, 8), epochs=(1,), seeds=(0,), examples=800)
        crowd = shown(made)
        assert "the figures show the 16 fastest of 20 targets" in crowd.text
        assert "the figures show 10 of 20 batch sizes" in crowd.text
        assert len(crowd.data["table"][0]["rows"]) == len(made)
        assert "The first 200 of 400 rows" in crowd.text
        assert {row["batch_size"] for row in crowd.data["figures"]["training-time"]["spec"]["data"]["values"]} >= {
            8,
            160,
        }


class TestLive:
    def test_a_served_page_knows_its_version_and_may_ask_its_server(self) -> None:
        served = Page(page.render(dataclasses.replace(whole(), version="7", planned=999)))
        assert served.meta("harness-live") == "7"
        assert "connect-src 'self'" in str(served.meta("Content-Security-Policy"))
        (main,) = served.all("main")
        assert main["data-state"] == "90 of 999 cells done"

    def test_a_file_follows_nothing(self, full: Page) -> None:
        assert full.meta("harness-live") is None


def test_a_view_needs_no_more_than_what_every_run_has() -> None:
    assert PageView(whole().found, "n", "c", "", "0", "f", 0, (), "").lanes == ()
