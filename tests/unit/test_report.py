from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import polars as pl
import pytest
from rich.console import Console

from harness import analysis, cli, shells
from harness.actions.progress import outcome
from harness.core.errors import HarnessError, UsageError
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.record import Epoch, Record
from harness.export import files
from harness.report import terminal
from harness.report.figure import Absent, Figure
from harness.report.figures_of_speed import limit_share
from harness.report.headline import figure
from harness.report.works import works
from tests.unit.records import JAX, TENSORFLOW, cell, failed, record

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "run-schema-1"


def printed(
    records: list[Record],
    width: int = 100,
    planned: int | None = None,
    folder: Path = Path("/runs/my run"),
    **changes: int,
) -> str:
    frame = analysis.summary(records)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.print_summary(
        frame,
        console,
        folder,
        agreement=analysis.agreement(frame),
        planned=frame.height if planned is None else planned,
        **changes,
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def pair(size: int, **training: int) -> list[Record]:
    return [record(cell(size, target, **training)) for target in (JAX, TENSORFLOW)]


def read_terminal(descriptor: int) -> bytes:
    """The next part, empty at the end, which Linux reports as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


class TestTerminal:
    def test_shows_every_figure_of_a_cell_in_its_row(self) -> None:
        made = record(cell(32), epochs=(Epoch(0, 0.1, 0.1, 0.5, 0.1), Epoch(1, 0.1, 0.1, 0.98765, 0.1)))
        (row,) = [line.split() for line in printed([made]).splitlines() if line.startswith("jax-cpu:jit")]
        assert row == ["jax-cpu:jit", "32", "3,200", "0.100", "1.50", "98.77", "500", "ok"]

    def test_says_once_what_all_rows_share(self) -> None:
        lines = printed(pair(32) + pair(64)).splitlines()
        assert lines[0] == "tiny, digits (320 examples), 2 epochs, momentum at learning rate 0.01, seed 0"
        assert sum("momentum" in line for line in lines) == 1

    def test_heads_groups_with_what_differs(self) -> None:
        lines = printed(pair(32, epochs=1, seed=1) + pair(32, epochs=5, seed=1)).splitlines()
        assert lines[0] == "tiny, digits (320 examples), momentum at learning rate 0.01, seed 1"
        headings = [index for index, line in enumerate(lines) if line.strip() in ("1 epoch", "5 epochs")]
        assert [lines[index + 1].split()[0] for index in headings] == ["jax-cpu:jit", "jax-cpu:jit"]

    def test_holds_training_against_the_limits_and_tells_energy_where_they_are_known(self) -> None:
        limit = {"product_flops_per_second": 500e9, "memory_bytes_per_second": 9e9}
        power = {"gpu": {"energy_joules_per_image": 0.0125}, "host": {"energy_joules_per_image": None}}
        wide = ModelSpec("wide", (4, 4, 1), (Flatten(), Dense(20_000), Dense(3)))
        slow, fast = (record(cell(size, JAX, model=wide), limit=limit, power=power) for size in (32, 64))
        rate = 3200 * slow.cell.model.training_flops / 1e9
        text = " ".join(printed([slow, fast, record(cell(32, TENSORFLOW))], width=200).split())
        assert (
            f"jax-cpu:jit trains at {figure(rate)} to {figure(2 * rate)} GFLOP/s (billions of operations per second), "
            f"which is {figure(rate / 5)} to {figure(rate / 2.5)} % of the 500 GFLOP/s that matrix products reach "
            "there."
        ) in text
        assert "jax-cpu:jit takes 12.5 mJ of energy of the GPU per image." in text
        assert text.count("trains at") == text.count("mJ of energy") == 1

    @pytest.mark.parametrize(("over", "is_limit"), [(1.04, True), (1.06, False)])
    def test_a_limit_that_training_goes_beyond_is_none_and_is_to_be_measured_again(
        self, over: float, is_limit: bool
    ) -> None:
        made = [cell(size, JAX) for size in (32, 64)]
        most = 6400 * made[1].model.training_flops / over
        limit = {"product_flops_per_second": most, "memory_bytes_per_second": 9e9}
        records = [record(one, limit=limit) for one in made]
        text = " ".join(printed(records, width=200).split())
        again = "measure it again: harness limits jax-cpu:jit."
        assert (again in text) == (not is_limit)
        assert ("that matrix products reach there" in text) == is_limit
        (work,) = works(analysis.analyse(analysis.collect(records)))
        figure_of_it = limit_share(work)
        assert isinstance(figure_of_it, Figure if is_limit else Absent)
        assert isinstance(figure_of_it, Figure) or figure_of_it.why.endswith(again.removesuffix("."))

    @pytest.mark.parametrize("width", [80, 100, 160])
    def test_stays_within_the_terminal_and_breaks_no_number(self, width: int) -> None:
        records = [*pair(32), *pair(4096, epochs=1), failed(cell(64), "out_of_memory", "killed (signal 9)")]
        text = printed(records, width)
        table = text.split("Run folder:")[0]
        assert max(map(len, table.splitlines())) <= width
        assert table.count("3,200") == 2
        assert "tensorflow-cpu:graph" in table

    def test_what_diverged_is_not_plain_ok(self) -> None:
        lost = record(cell(64), epochs=(Epoch(0, math.nan, 0.2, 0.9, 0.2),))
        text = printed([record(cell(32)), lost])
        assert [line.split()[-1] for line in text.splitlines() if line.startswith("jax-cpu:jit")] == ["ok", "diverged"]
        assert "1 cell diverged (the loss became infinite or not a number): jax-cpu:jit at batch size 64." in text
        assert outcome(lost).startswith("diverged, trained in ")

    def test_lists_what_failed_with_its_reason_alike_ones_together(self) -> None:
        crashed = [failed(cell(size), "crashed", "ended by signal 11") for size in (1, 2, 3, 4, 5)]
        lines = printed([*crashed, failed(cell(6), "skipped", "batch size 5 ran out of memory")]).splitlines()
        text = " ".join(line.strip() for line in lines)
        assert (
            "crashed: jax-cpu:jit at batch size 1, jax-cpu:jit at batch size 2, jax-cpu:jit at batch size 3, 2 more: "
            "ended by signal 11" in text
        )
        assert "skipped: jax-cpu:jit at batch size 6: batch size 5 ran out of memory" in text

    def test_gives_the_largest_difference_in_accuracy(self) -> None:
        first, second = pair(32, epochs=1)
        reached = [
            dataclasses.replace(made, epochs=(Epoch(0, 0.1, 0.1, accuracy, 0.1),))
            for made, accuracy in ((first, 0.98), (second, 0.9831))
        ]
        text = " ".join(printed(reached).split())
        assert "at most 0.31 percentage points of test accuracy apart" in text
        assert "jax-cpu:jit 98.00 %, tensorflow-cpu:graph 98.31 %" in text

    def test_says_what_a_reader_should_know_before_trusting_it(self) -> None:
        text = printed([record(cell(32), proof=""), record(cell(64))], planned=5, unreadable=1)
        assert "1 cell is not proven to do the same work as the reference." in text
        assert "2 of 5 cells have not run here yet; the same command runs what is missing" in text
        assert "1 record cannot be read, so it is not in the table." in text

    def test_times_of_a_target_that_failed_parity_are_not_in_it(self) -> None:
        text = printed([record(cell(32), "parity_failed", reason="gradient/kernel: 0.1 beyond 0.0001")])
        assert "3,200" not in text
        assert "gradient/kernel" in text

    def test_ends_with_the_command_that_shows_it_again(self) -> None:
        folder = str(Path("/runs/my run"))
        assert printed(pair(32)).splitlines()[-2:] == [
            f"Run folder: {folder}",
            f"Show this again: harness report {shells.quoted(folder)}",
        ]

    def test_names_a_folder_below_the_present_one_as_a_person_there_writes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert printed(pair(32), folder=tmp_path / "runs" / "one").splitlines()[-2:] == [
            "Run folder: runs/one".replace("/", os.sep),
            f"Show this again: harness report {shells.quoted(os.path.join('runs', 'one'))}",
        ]
        assert printed(pair(32), folder=tmp_path).splitlines()[-2] == "Run folder: ."
        assert printed(pair(32), folder=tmp_path.parent).splitlines()[-2] == f"Run folder: {tmp_path.parent}"
        near_a_flag = printed(pair(32), folder=tmp_path / "-o")
        assert near_a_flag.splitlines()[-2] == f"Run folder: {os.path.join('.', '-o')}"

    def test_reasons_are_text_not_markup(self) -> None:
        assert "see [red]log[/red] [/]" in printed([failed(cell(), "crashed", "see [red]log[/red] [/]")])

    def test_of_no_records_is_no_table(self) -> None:
        (first, *_) = printed([], planned=3).splitlines()
        assert first.startswith("3 of 3 cells have not run here yet; the same command runs what is missing (")

    def test_long_or_narrow_it_is_plain_lines_with_the_same_cells(self) -> None:
        records = [made for size in range(1, terminal.LONGEST_RICH_TABLE) for made in pair(size, epochs=1 + size % 2)]
        few, many = records[:4], records
        wide, narrow = printed(few), printed(few, width=terminal.NARROWEST_RICH_TABLE - 1)
        cells = [line.split() for line in wide.splitlines() if ":jit" in line or ":graph" in line]
        assert [line.split() for line in narrow.splitlines() if line.endswith(" ok")] == cells[:4]
        rows = [line for line in printed(many).splitlines() if line.startswith(("jax", "tensorflow"))]
        assert len(rows) == len(many)
        assert len({line.index("ok") for line in rows}) == 1


class TestConsole:
    CODE = (
        "import sys; from pathlib import Path; from harness import analysis; from harness.runs.folder import Run;"
        "from harness.report import terminal;"
        "frame = analysis.summary(Run.open(Path(sys.argv[1])).records());"
        "terminal.print_summary(frame, terminal.console_for(sys.stdout), Path('run'),"
        " agreement=analysis.agreement(frame), planned=frame.height)"
    )

    def run(self, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, str(GOLDEN)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8")

    def test_in_a_pipe_it_is_plain_and_nothing_is_folded(self) -> None:
        text = self.run()
        assert "\x1b" not in text
        assert "mine:xla@device=1@matmul_precision=tf32" in text

    @pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
    @pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
    def test_on_a_terminal_it_is_coloured_unless_no_color_is_set(
        self, environment: dict[str, str], coloured: bool
    ) -> None:
        import pty

        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(GOLDEN)],
            cwd=REPOSITORY,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
            stdout=theirs,
        ):
            os.close(theirs)
            text = b"".join(iter(lambda: read_terminal(ours), b""))
        os.close(ours)
        assert b"Show this again" in text
        assert bool(re.search(rb"\x1b\[(\d+;)*3[0-7]m", text)) == coloured

    def test_where_the_console_knows_ascii_only_it_is_ascii(self) -> None:
        text = self.run(PYTHONIOENCODING="ascii:backslashreplace")
        assert text.isascii()
        assert "jax-cpu:jit" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_figures_have_about_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


class TestExports:
    def frame(self) -> pl.DataFrame:
        diverged = record(cell(64, epochs=1), epochs=(Epoch(0, math.inf, math.nan, 0.1, 0.1),))
        return analysis.summary([*pair(32), diverged, failed(cell(128), "crashed", 'a "quoted", | odd\nreason')])

    def exported(self, format: str) -> bytes:
        stream = io.BytesIO()
        files.export(self.frame(), format, stream)
        return stream.getvalue()

    def test_csv_comes_back_whole(self) -> None:
        frame = self.frame()
        again = pl.read_csv(self.exported("csv"), schema=frame.schema)
        assert again.with_columns(pl.col(pl.String).fill_null("")).equals(frame, null_equal=True)

    def test_parquet_comes_back_whole(self) -> None:
        assert pl.read_parquet(self.exported("parquet")).equals(self.frame(), null_equal=True)

    def test_json_is_one_object_a_row_with_non_finite_numbers_as_text(self) -> None:
        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        rows = json.loads(self.exported("json"), parse_constant=refuse)
        assert [row["cell_id"] for row in rows] == self.frame()["cell_id"].to_list()
        assert [row["images_per_second"] is None for row in rows] == [row["status"] == "crashed" for row in rows]
        (diverged,) = [row for row in rows if row["batch_size"] == 64]
        assert (diverged["final_train_loss"], diverged["final_test_loss"]) == ("Infinity", "NaN")

    def test_markdown_is_the_headline_table(self) -> None:
        lines = self.exported("markdown").decode().splitlines()
        rows = [line for line in lines if line.startswith("| ")]
        assert {line.count("|") for line in rows} == {9}
        assert "| jax-cpu:jit | 32 | 3,200 | 0.100 | 1.50 | 90.00 | 500 | ok |" in rows

    def test_writes_a_file(self, tmp_path: Path) -> None:
        files.export(self.frame(), "csv", tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").read_bytes() == self.exported("csv")

    def test_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(HarnessError, match="there is no folder"):
            files.export(self.frame(), "csv", tmp_path / "missing" / "rows.csv")

    def test_unknown_format_names_those_allowed(self) -> None:
        with pytest.raises(UsageError, match="allowed: csv, json, parquet, markdown"):
            files.export(self.frame(), "xlsx", io.BytesIO())

    def test_the_command_line_offers_every_format(self) -> None:
        # Written out there: whoever asks for help must not wait for what writes the formats.
        (option,) = (parameter for parameter in cli.cli.commands["report"].params if parameter.name == "format")
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == files.FORMATS
