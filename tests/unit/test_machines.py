"""Records of several machines: nothing is pooled over them, each has its answer, and their paces stand side by side."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import analysis
from harness.analysis import machines
from harness.core.record import Record
from harness.report import page, terminal
from harness.report.advice import heading, sentence
from harness.report.headline import caption_and_groups
from harness.report.machines import NOT_POOLED
from harness.report.machines import machines as side_by_side
from harness.wording import machine_name, machine_words
from tests.unit.made_up_runs import view
from tests.unit.planted_runs import climbing, planted
from tests.unit.records import JAX, TENSORFLOW, cell, failed

FAST = {
    "id": "aaaaaaaaaaaa",
    "processor": "A processor",
    "usable_cores": 8,
    "memory_bytes": 16_000_000_000,
    "system": "Linux",
    "gpu": {"name": "A GPU", "driver": "550.1"},
    "slurm": {"job": "12", "task": 3, "node": "n1", "partition": "main", "exclusive": True, "other_jobs": 0},
}
SLOW = {"id": "bbbbbbbbbbbb", "processor": "B processor", "logical_cores": 1}
FACTORS = {"aaaaaaaaaaaa": 1.0, "bbbbbbbbbbbb": 4.0}


def of_both(**changes: Any) -> Iterator[Record]:
    """Two targets at two batch sizes on a fast machine, and on another one a batch size less, at a quarter of the pace.

    On the fast one a larger batch and JAX are better, on the slow one it is the other target.
    """
    for facts, sizes, seeds in ((FAST, (32, 64), (0, 1)), (SLOW, (32,), (2, 3))):
        for size in sizes:
            for seed in seeds:
                for target in (JAX, TENSORFLOW):
                    worse = 1.2 if (target is JAX) == (facts is SLOW) else 1.0
                    pace = 0.01 * worse * FACTORS[str(facts["id"])] * (1 + 0.001 * seed)
                    yield planted(
                        size, target, seed=seed, pace=pace, accuracies=climbing(2.0, 0.9), machine=facts, **changes
                    )


@pytest.fixture(scope="module")
def found() -> analysis.Analysis:
    return analysis.analyse(analysis.collect(of_both()))


class TestNothingIsPooled:
    def test_pace_has_a_row_for_each_machine(self, found: analysis.Analysis) -> None:
        rows = {(row["machine"], row["target"], row["batch_size"]): row for row in found.pace.to_dicts()}
        assert len(rows) == 6
        assert all(row["processes"] == 2 for row in rows.values())
        fast, slow = (rows[str(one["id"]), JAX.label, 32]["images_per_second"] for one in (FAST, SLOW))
        assert fast / slow == pytest.approx(4 * 1.2, rel=0.01)

    @pytest.mark.parametrize("table", ["ratios", "accuracy_by_size", "time_to_accuracy", "startup", "step_model"])
    def test_nor_has_any_other_table_a_row_of_both(self, found: analysis.Analysis, table: str) -> None:
        frame = getattr(found, table)
        assert set(frame["machine"]) == {FAST["id"], SLOW["id"]}
        if "seeds" in frame.columns:
            assert set(frame["seeds"]) == {2}

    def test_seeds_of_one_machine_are_no_seeds_of_another(self, found: analysis.Analysis) -> None:
        assert {one.seeds for one in found.advice} == {(0, 1), (2, 3)}

    def test_targets_on_two_machines_have_no_ratio_and_do_not_agree_or_disagree(self) -> None:
        apart = [planted(32, JAX, machine=FAST), planted(32, TENSORFLOW, machine=SLOW)]
        of_two = analysis.analyse(analysis.collect(apart))
        assert of_two.ratios.is_empty()
        assert of_two.agreement.is_empty()
        together = [planted(32, JAX, machine=FAST), planted(32, TENSORFLOW, machine=FAST)]
        assert analysis.analyse(analysis.collect(together)).agreement.height == 1


class TestAnswers:
    def test_there_is_one_for_each_machine(self, found: analysis.Analysis) -> None:
        fast, slow = found.advice
        assert sentence(fast).startswith(
            "On n1 (aaaaaaaaaaaa) (A processor, 8 logical cores, A GPU) use jax-cpu:jit at batch size 64. "
        )
        assert sentence(slow).startswith(
            "On machine bbbbbbbbbbbb (B processor, 1 logical core) use tensorflow-cpu:graph at batch size 32. "
        )
        assert heading(fast).startswith("n1 (aaaaaaaaaaaa), tiny, digits")

    def test_of_one_machine_it_is_not_named(self) -> None:
        (only,) = analysis.analyse(analysis.collect([planted(32, machine=FAST)])).advice
        assert (only.label, heading(only).startswith("tiny, ")) == ("", True)
        assert "aaaaaaaaaaaa" not in sentence(only)


class TestCellsThatNeverRan:
    SKIPPED = failed(cell(512), "skipped", "a smaller batch size of this target already ran out of memory")

    def test_belong_to_the_only_machine(self) -> None:
        record = planted(32, machine=FAST)
        skipped = failed(planted(512).cell, "skipped", "too large")
        cells = analysis.summary([skipped, record])
        assert cells.select("machine", "node").unique().rows() == [("aaaaaaaaaaaa", "n1")]
        assert len(analysis.analyse(analysis.collect([skipped, record])).advice) == 1

    def test_of_several_machines_belong_to_none_and_have_no_answer_of_their_own(self) -> None:
        collected = analysis.collect([*of_both(), self.SKIPPED])
        both = analysis.analyse(collected)
        assert set(both.cells["machine"]) == {"", FAST["id"], SLOW["id"]}
        assert machines.several(both.cells)
        assert len(both.advice) == 2
        _, groups = caption_and_groups(both.cells)
        assert sum(group.heading.startswith("no machine known") for group in groups) == 1

    def test_what_was_trained_on_a_machine_not_known_is_no_known_machine_s(self) -> None:
        cells = analysis.summary([planted(32, machine=FAST), planted(32, seed=1, machine={})])
        assert set(cells["machine"]) == {"", "aaaaaaaaaaaa"}
        assert machines.names(cells) == {"": "no machine known", "aaaaaaaaaaaa": "n1 (aaaaaaaaaaaa)"}

    def test_a_run_without_a_machine_has_one_answer(self) -> None:
        run = analysis.analyse(analysis.collect([failed(cell(32), "crashed", "no"), self.SKIPPED]))
        assert [(one.machine, one.label) for one in run.advice] == [("", "")]
        assert machines.names(run.cells) == {}


class TestSideBySide:
    def test_are_the_places_that_several_machines_trained(self, found: analysis.Analysis) -> None:
        rows = found.side_by_side.select("target", "batch_size", "machine", "processes").rows()
        assert rows == [
            (JAX.label, 32, "aaaaaaaaaaaa", 2),
            (JAX.label, 32, "bbbbbbbbbbbb", 2),
            (TENSORFLOW.label, 32, "aaaaaaaaaaaa", 2),
            (TENSORFLOW.label, 32, "bbbbbbbbbbbb", 2),
        ]

    def test_of_one_machine_there_is_nothing(self) -> None:
        assert analysis.analyse(analysis.collect([planted(32), planted(64)])).side_by_side.is_empty()


class TestWords:
    def test_of_what_a_machine_is(self) -> None:
        assert machine_words(FAST) == "A processor, 8 logical cores, A GPU"
        assert machine_words(FAST, whole=True) == (
            "A processor, 8 logical cores, 16.0 GB, A GPU (driver 550.1), Linux, node n1 of partition main"
        )
        assert machine_words(SLOW, whole=True) == "B processor, 1 logical core"
        assert machine_words({}) == "processor not known"

    def test_of_what_it_is_called(self) -> None:
        assert [machine_name("a", "n1"), machine_name("a"), machine_name("")] == [
            "n1 (a)",
            "machine a",
            "no machine known",
        ]

    def test_facts_with_a_gpu_are_kept(self) -> None:
        without = {name: value for name, value in FAST.items() if name != "gpu"}
        records = [dataclasses.replace(planted(32, seed=n), machine=facts) for n, facts in enumerate((without, FAST))]
        assert analysis.collect(records).machines == {"aaaaaaaaaaaa": FAST}
        assert analysis.collect(reversed(records)).machines == {"aaaaaaaaaaaa": FAST}


class TestOnThePage:
    def test_several_stand_side_by_side(self) -> None:
        html = page.render(view(list(of_both())))
        assert NOT_POOLED in html
        assert "A GPU (driver 550.1), Linux, node n1 of partition main" in html
        rows = re.findall(
            r"<tr><th scope=row>jax-cpu:jit</th><td class=\"number\">(\d+)</td>(.*?)</tr>",
            html.split('id="machines"')[1],
        )
        assert [(size, cells.count("<td")) for size, cells in rows][:1] == [("32", 2)]
        assert '<option value="1">machine bbbbbbbbbbbb</option>' in html

    def test_one_is_not_spoken_of(self) -> None:
        html = page.render(view([one for one in of_both() if one.machine is FAST]))
        assert NOT_POOLED not in html
        assert "n1 (aaaaaaaaaaaa)" not in html


class TestAtATerminal:
    def printed(self, records: Iterable[Record]) -> str:
        outline = analysis.outline(analysis.collect(records))
        console = Console(file=io.StringIO(), width=120, highlight=False)
        terminal.print_summary(
            outline.cells,
            console,
            Path("run"),
            agreement=outline.agreement,
            planned=outline.cells.height,
            machines=side_by_side(outline.cells, outline.side_by_side, outline.machines),
        )
        assert isinstance(console.file, io.StringIO)
        return " ".join(console.file.getvalue().split())

    def test_several_stand_side_by_side(self) -> None:
        text = self.printed(of_both())
        assert NOT_POOLED in text
        assert "target batch size n1 (aaaaaaaaaaaa) machine bbbbbbbbbbbb" in text
        assert re.search(r"jax-cpu:jit 32 [\d,]+ \([\d,]+ to [\d,]+\) [\d,.]+ \([\d,.]+ to [\d,.]+\)", text)
        assert "n1 (aaaaaaaaaaaa), seed 0" in text

    def test_that_share_nothing_it_is_said(self) -> None:
        apart = [planted(32, machine=FAST), planted(64, machine=SLOW)]
        assert "No target was trained at one batch size on two of these machines." in self.printed(apart)

    def test_one_is_not_spoken_of(self) -> None:
        text = self.printed([planted(32, machine=FAST)])
        assert NOT_POOLED not in text
        assert "aaaaaaaaaaaa" not in text

    def test_more_machines_than_columns_are_counted(self) -> None:
        many = [planted(32, seed=n, machine={"id": f"m{n:02}"}) for n in range(9)]
        assert "of what several machines trained; 3 more machines not shown" in self.printed(many)
