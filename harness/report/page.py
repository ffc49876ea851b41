"""The answer as one self-contained page: everything that a run found, in a single file that opens anywhere.

In: ``PageView``, plain values and frames. Out: HTML. It asks the network for nothing, and its policy forbids that to
anything that it contains: scripts run only if they are the ones written here, known by their hashes. What comes from
records is escaped in the template, and in the data as well, where it is JSON that no script evaluates.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis import statement
from harness.core.record import Record
from harness.report import (
    charts,
    devices,
    fairness,
    fixed_and_growing,
    other_load,
    palette,
    same_work,
    tables,
    vega,
    works,
)
from harness.report.charts import Gallery
from harness.report.figure import Figure
from harness.report.headline import diverged, not_readable, not_run, unproven
from harness.report.machines import NOT_POOLED, machines, nothing_shared
from harness.report.tables import Table
from harness.report.templates import resource, template
from harness.wording import machine_words, plural

if TYPE_CHECKING:
    from harness.analysis import Analysis
    from harness.analysis.reading import NoiseScale, Proof, RateSearch

MOST_FIGURE_BYTES = 1_400_000
"""Of figures and their tables: with the scripts, and a table of ten thousand rows, a page stays under 3 MB."""

STATIC_ROWS = 200
"""Rows of the headline table that stand in the page itself; a script adds the rest as it is asked to."""

MOST_ANSWERS = 30
FEW_ANSWERS = 3
"""Of more than these the evidence is folded away, so that one sees the answers."""

_MARKUP_OF_A_CELL = 26
MOST_UNREADABLE = 50


@dataclass(frozen=True)
class Answer:
    """What to use for one work: ``heading`` is empty where there is one only, ``sentence`` the answer itself."""

    heading: str
    sentence: str
    evidence: tuple[str, ...] = ()
    measure_next: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageView:
    """Everything that a page is made of.

    ``name`` of the run, ``command`` that made it, ``created`` when, ``folder`` where. ``planned``: cells of its plan.
    ``unreadable`` and ``unreadable_proofs``: a line for every record and proof that could not be read. ``lanes``: a
    record of each target. ``bundle``: the script of Vega, Vega-Lite and Vega-Embed. ``version``: what a page that is
    served says of its state, which it then asks for again and again; empty for a file. ``images``: what the dataset's
    pixels are, ``doubt`` what is unusual about them; empty where that is not known, or nothing is.
    """

    found: Analysis
    name: str
    command: str
    created: str
    harness_version: str
    folder: str
    planned: int
    answers: tuple[Answer, ...]
    bundle: str
    lanes: tuple[Record, ...] = ()
    proofs: tuple[Proof, ...] = ()
    unreadable_proofs: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    noise: tuple[NoiseScale, ...] = ()
    rates: tuple[RateSearch, ...] = ()
    version: str = ""
    images: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class _Section:
    """One work as the page shows it: its figures with their tables, further tables, and what is not shown and why."""

    number: int
    heading: str
    figures: tuple[tuple[Figure, Table], ...]
    tables: tuple[Table, ...]
    absent: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        held = [table for _, table in self.figures] + list(self.tables)
        cells = sum(len(cell) + _MARKUP_OF_A_CELL for table in held for row in table.rows for cell in row)
        return cells + sum(len(_json(figure.spec)) for figure, _ in self.figures)


def render(view: PageView) -> str:
    """The page."""
    galleries = enumerate(charts.galleries(view.found, view.noise, view.rates))
    sections = _within_bounds(_section(number, gallery) for number, gallery in galleries)
    dropped = works.count(view.found) - len(sections)
    cells = view.found.cells
    headline = tables.headline(cells)
    scripts = {"bundle": _line_ends(view.bundle), "script": _line_ends(resource("page.js"))}
    looks = palette.looks(cells["target"])
    several = machines(cells, view.found.side_by_side, view.found.machines)
    loads = [
        (figure, tables.table(figure.frame, figure.columns, figure.words.title))
        for figure in charts.of_other_load(view.found)
    ]
    return template("page.html.j2").render(
        view=view,
        policy=_policy(list(scripts.values()), bool(view.version)),
        style=_style(),
        **scripts,
        sections=sections,
        state=_state(view),
        lacking=_lacking(view, dropped),
        machines=several,
        not_pooled=NOT_POOLED,
        nothing_shared="" if several is None else nothing_shared(several),
        blames=[
            (other_load.answer(one), other_load.evidence(one), other_load.disturbances(one, view.found.other_load))
            for one in view.found.blame
        ],
        loads=loads,
        headline=headline,
        static_rows=STATIC_ROWS,
        failures=tables.failures(cells),
        looks=[(target, look) for target, look in looks.items()],
        differences=fairness.differences(view.lanes),
        manifests=fairness.manifests(view.lanes),
        proofs=fairness.proofs(view.proofs, view.unreadable_proofs),
        statement=" ".join(
            (
                statement.of_targets(lane.cell.target for lane in view.lanes),
                *devices.sentences(cells, view.found.device_scaling, view.found.device_time),
            )
        ).strip(),
        method=[*fairness.method(view.lanes), *same_work.sentences(cells)],
        again=_again(view),
        most_answers=MOST_ANSWERS,
        few_answers=FEW_ANSWERS,
        most_unreadable=MOST_UNREADABLE,
        accuracies=_accuracies(sections),
        accuracy=round(100 * view.found.accuracy, 6),
        data=_data(
            [*(figure for section in sections for figure, _ in section.figures), *(one for one, _ in loads)], headline
        ),
        plural=plural,
    )


def _section(number: int, gallery: Gallery) -> _Section:
    work = gallery.work
    growing, reached = fixed_and_growing.rows(work.plans_to_accuracy, work.accuracy)
    further = [
        tables.table(
            work.ratios,
            ("batch_size", "target", "base", "speed_ratio", "heats"),
            "Each target compared with the fastest one",
        ),
        tables.table(work.step_model, _MODEL, "The time of a step as a fixed overhead plus a time per image"),
        tables.table(
            work.dispatch, _DISPATCH, "The time of a step as dispatch shared by a call's steps, overhead, and images"
        ),
        tables.table(
            work.device_time,
            _DEVICE_TIME,
            "The time of a step on several devices as overhead, a device's own images, and adding up over devices",
            {"pays_from_measured": "never"},
        ),
        tables.table(
            work.beside_one_rate,
            _BESIDE_ONE_RATE,
            "Accuracy at a learning rate for each batch size, and at one rate for all",
        ),
        tables.table(
            work.recovery,
            _RECOVERY,
            "Accuracy that larger batches lose, and how many epochs win it back",
            {"epochs_to_recover": "not reached"},
        ),
        tables.table(work.plans, _PLANS, "Plans of batch sizes: how fast each of their sizes is trained"),
        tables.table(
            growing,
            _PLANS_TO_ACCURACY,
            f"Fixed and growing batches to {reached}, and how many times what the quickest fixed one takes",
            dict.fromkeys(("steps", "images", "seconds"), "not reached"),
        ),
        tables.table(work.catch_up, _CATCH_UP, "When a target that starts later has caught up", {"steps": "never"}),
    ]
    return _Section(
        number,
        work.heading,
        tuple((figure, tables.table(figure.frame, figure.columns, figure.words.title)) for figure in gallery.figures),
        tuple(table for table in further if table.rows),
        tuple(f"{absent.title}: {absent.why}." for absent in gallery.absent),
        work.left_out,
    )


_MODEL = (
    "target",
    "overhead_seconds",
    "seconds_per_image",
    "half_overhead_batch",
    "ninety_percent_batch",
    "peak_images_per_second",
    "largest_residual",
    "reason",
)
_DISPATCH = (
    "target",
    "calls",
    "points",
    "dispatch_seconds",
    "overhead_seconds",
    "seconds_per_image",
    "largest_residual",
    "reason",
)
_DEVICE_TIME = (
    "target",
    "devices_measured",
    "logical",
    "points",
    "overhead_seconds",
    "seconds_per_image",
    "reduction_seconds",
    "largest_residual",
    "pays_from",
    "pays_from_measured",
    "reason",
)
_RECOVERY = (
    "target",
    "batch_size",
    "accuracy",
    "base_batch_size",
    "base_epochs",
    "base_accuracy",
    "lost_points",
    "epochs_to_recover",
    "most_epochs",
)
_BESIDE_ONE_RATE = (
    "target",
    "epochs",
    "batch_size",
    "seeds",
    "accuracy",
    "one_rate",
    "accuracy_at_one_rate",
    "base_batch_size",
    "lost_points",
    "brought_back_points",
)
_PLANS = (
    "batch_plan",
    "epochs",
    "target",
    "batch_size",
    "images_per_second",
    "processes",
    "compile_seconds",
    "accuracy",
)
_PLANS_TO_ACCURACY = (
    "target",
    "batch_plan",
    "seconds",
    "seconds_ratio",
    "against_fixed",
    "steps",
    "images",
    "steps_ratio",
    "images_ratio",
    "reached",
    "seeds",
    "highest_accuracy",
    "at_most",
)
_CATCH_UP = (
    "batch_size",
    "target",
    "other",
    "startup_difference_seconds",
    "seconds_per_step",
    "other_seconds_per_step",
    "steps",
    "images",
)


def _within_bounds(sections: Iterable[_Section]) -> list[_Section]:
    """As many works as fit a page, the first in any case; no more than the next one is made."""
    kept: list[_Section] = []
    room = MOST_FIGURE_BYTES
    for section in sections:
        room -= section.size
        if kept and room < 0:
            break
        kept.append(section)
    return kept


def _state(view: PageView) -> str:
    """How many cells there are of those planned, and how they ended."""
    cells = view.found.cells
    well = cells.filter(cells["status"] == "ok").height
    done = cells.height + len(view.unreadable)
    said = f"{done:,} of {plural(view.planned, 'cell')} done" if done < view.planned else plural(view.planned, "cell")
    well_said = f"{said}, {well:,} ended well" if well < cells.height else said
    broken = cells["diverged"].sum()
    return f"{well_said}, {broken:,} diverged" if broken else well_said


def _lacking(view: PageView, dropped: int) -> list[str]:
    """What a reader must know before trusting the page."""
    cells = view.found.cells
    said = []
    if cells.is_empty():
        said.append("No cell has been run, so there is nothing to show yet.")
    said.append(not_run(cells, view.planned, len(view.unreadable)))
    if view.unreadable:
        said.append(not_readable(len(view.unreadable), "on this page"))
    if view.doubt:
        said.append(f"About the dataset: {view.doubt}.")
    said += [diverged(cells), unproven(cells), same_work.not_at_size(cells)]
    if dropped:
        said.append(f"The figures of {plural(dropped, 'more work')} would not fit this page; the table has all cells.")
    return [sentence for sentence in said if sentence]


def _again(view: PageView) -> list[tuple[str, str]]:
    """What it takes to run it again, name and value."""
    known = view.found.machines.values() or [lane.machine for lane in view.lanes if lane.machine]
    environments = {lane.cell.target.name: lane.cell.target.environment for lane in view.lanes}
    codes = dict.fromkeys(str(lane.worker["code"]) for lane in view.lanes if lane.worker.get("code"))
    return [
        ("command", view.command),
        ("harness", view.harness_version),
        ("planned", view.created),
        ("run folder", view.folder),
        *([("images", view.images)] if view.images else []),
        *(("machine", words) for words in dict.fromkeys(machine_words(facts, whole=True) for facts in known)),
        *((f"environment of {name}", identity) for name, identity in environments.items()),
        *(("code in the worker", code) for code in codes),
    ]


def _accuracies(sections: Sequence[_Section]) -> list[float]:
    held = {accuracy for section in sections for figure, _ in section.figures for accuracy in figure.by_accuracy}
    return sorted(held, reverse=True)


def _data(figures: Sequence[Figure], headline: Table) -> str:
    """What the page's script reads. ``table``: by column, its different texts and the index of each row's."""
    columns = []
    for place in range(len(headline.headers)):
        texts = [row[place] for row in headline.rows]
        different = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        columns.append({"texts": list(different), "rows": [different[text] for text in texts]})
    drawn = {
        figure.name: {
            "spec": figure.spec,
            "words": [[accuracy, words.title, words.alternative] for accuracy, words in figure.by_accuracy.items()],
        }
        for figure in figures
    }
    return _json({"config": vega.page_config(), "figures": drawn, "table": columns})


def _json(value: Any) -> str:
    """JSON that no HTML parser mistakes for markup."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str], live: bool) -> str:
    """No network, and no script but these."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    connect = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )


def _style() -> str:
    light, dark = (palette.style_variables(scheme) for scheme in ("light", "dark"))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{resource('page.css')}"


def _line_ends(text: str) -> str:
    """As an HTML parser reads it: a script's hash must be of that."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
