"""README and the pages of ``docs/``: links lead somewhere, commands and flags exist, and each has its place.

What is asked of the pages is a function that lists what is wrong; each is shown a page with the fault as well. Outputs
of commands that read only what the project brings along are made again: where one has changed, paste the new one.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import typing
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import CliRunner

from harness.analysis import index, journal
from harness.cli import CONTEXT, cli
from harness.cluster.slurm import options, submissions
from harness.core.cell import Cell
from harness.core.errors import UsageError
from harness.core.model import LAYERS
from harness.core.record import STATUSES, Blocks, Epoch, HeatFacts, Phases, Record
from harness.plan import models, sweep, targets, tomlfile
from harness.proof.parity import Proof
from harness.runs import folder as run_folder
from harness.runs import locks, noise_scales, part_times, setting
from tests.unit.markdown import Page

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = tuple(map(Page.read, (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))))
DOCS = tuple(page for page in PAGES if page.path.parent == ROOT / "docs")
RUN_FOLDER = next(page for page in DOCS if page.path.stem == "run-folder")
ARCHITECTURE = next(page for page in DOCS if page.path.stem == "architecture")
RESULTS = ROOT / "benchmarks" / "results"

MOST_BYTES = 10_000
"""A README is read in minutes."""

LONG_SENTENCE = 60
"""Characters. Shorter ones, such as the cells of a table, may say the same in two places."""

WIDTH = 100
"""Of the terminal that outputs are shown as on."""

PROMPT = re.compile(r"^(?:\w*\$ )?(?:pip install uv && )?(?:uv run )?")
OTHER_PROGRAMS = ("pip ", "python ", "sbatch ", "tensorboard ", "uv ")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
LEFT_OUT = re.compile(r"  \[.*\]")
SHELL = ("|", ">", "&&")
NO_SHELL = ("python", "toml")
OURS = re.compile(r"(?:harness|backends|tests|benchmarks|docs)/[\w./*-]+")
EVERYWHERE = {"--help", "--version"}
AS_MARKDOWN: dict[str, typing.Any] = {
    "tbl_formatting": "ASCII_MARKDOWN",
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
    "float_precision": 1,
}
"""How data frames are shown in the docs."""

Commands = dict[tuple[str, ...], click.Command]


def commands() -> Commands:
    """Every command that does something, by its words."""
    found: Commands = {}

    def visit(command: click.Command, words: tuple[str, ...]) -> None:
        context = click.Context(command, info_name=" ".join(words), **CONTEXT)
        names = command.list_commands(context) if isinstance(command, click.Group) else []
        if words and (not names or command.params or getattr(command, "invoke_without_command", False)):
            found[words] = command
        for name in names:
            child = command.get_command(context, name)  # type: ignore[attr-defined]
            visit(child, (*words, name))

    visit(cli, ())
    return found


COMMANDS = commands()


def flags(command: click.Command) -> list[list[str]]:
    """Names of each flag that ``--help`` shows, but for those that all have."""
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    named = [[name for name in (*one.opts, *one.secondary_opts) if name.startswith("--")] for one in options]
    return [names for names in named if not EVERYWHERE.intersection(names)]


ALL_FLAGS = {name for command in COMMANDS.values() for names in flags(command) for name in names} | EVERYWHERE


# Links


def dead_links(pages: Sequence[Page]) -> list[str]:
    known = {page.path: page for page in pages}
    return [f"{page.path.name}: {link}" for page in pages for link in page.links if _is_dead(page, link, known)]


def _is_dead(page: Page, link: str, known: Mapping[Path, Page]) -> bool:
    if re.match(r"https?://", link):
        return False
    place, _, anchor = link.partition("#")
    path = (page.path.parent / place).resolve() if place else page.path
    if path != page.path and not path.exists():
        return True
    return bool(anchor) and anchor not in (known.get(path) or Page.read(path)).anchors


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    assert dead_links(PAGES) == []


@pytest.mark.parametrize("link", ["docs/nowhere.md", "docs/sweeps.md#nowhere", "#nowhere", "../../elsewhere.md"])
def test_a_link_to_nowhere_is_found(link: str) -> None:
    page = Page(README, f"# A heading, and `more`\n[here](#a-heading-and-more), [there]({link}), [out](https://x.org)")
    assert dead_links([page]) == [f"README.md: {link}"]


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in Page.read(README).links}
    assert [page.path.name for page in DOCS if page.path not in linked] == []


# Commands


def calls(page: Page) -> Iterator[str]:
    """Each ``harness ...`` that a person might type, without the word harness itself."""
    for block in page.blocks:
        if block.language not in NO_SHELL:
            yield from _after_harness(PROMPT.sub("", line) for line in block.lines)
    yield from _after_harness(PROMPT.sub("", span) for span in page.spans)


def _after_harness(lines: Iterable[str]) -> Iterator[str]:
    return (line.removeprefix("harness ") for line in lines if line.startswith("harness "))


def wrong_calls(page: Page) -> list[str]:
    found = []
    for call in calls(page):
        words = takewhile(lambda word: word not in SHELL, shlex.split(call, comments=True))
        problem = _problem(cli, "harness", list(words))
        if problem:
            found.append(f"{page.path.name}: harness {call}: {problem}")
    return found


def _problem(command: click.Command, name: str, words: list[str]) -> str:
    context = click.Context(command, info_name=name, **CONTEXT)
    try:
        _, rest, _ = command.make_parser(context).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    if not isinstance(command, click.Group) or not rest:
        return ""
    child = command.get_command(context, rest[0])
    return f"no command {rest[0]!r}" if child is None else _problem(child, rest[0], rest[1:])


def test_every_command_in_the_pages_exists_with_its_flags() -> None:
    assert [wrong for page in PAGES for wrong in wrong_calls(page)] == []
    assert sum(1 for page in PAGES for _ in calls(page)) > 100


@pytest.mark.parametrize(
    "call", ["swep", "sweep --batchsize 3", "targets nope", "compare a b --launcher slurm", "data prepare x --json"]
)
@pytest.mark.parametrize("form", ["```\n$ uv run harness {}\n```", "first `harness {}`, then `harness sweeps`"])
def test_a_command_or_flag_that_does_not_exist_is_found(call: str, form: str) -> None:
    (found,) = wrong_calls(Page(README, form.format(call)))
    assert call in found


def unknown_words(page: Page) -> list[str]:
    """What outputs and prose name: ``harness WORD`` without such a command, ``--flag`` that no command has."""
    found = [word for span in page.spans if span.startswith("--") for word in FLAG.findall(span)[:1]]
    for block in page.blocks:
        if block.language in NO_SHELL:
            continue
        ours = [line for line in block.lines if not PROMPT.sub("", line).startswith(OTHER_PROGRAMS)]
        found += [flag for line in ours for flag in FLAG.findall(line)]
        names = {words[0] for words in COMMANDS}
        wrong = (
            name for line in ours for name in re.findall(r"(?<![\w-])harness ([a-z-]+)", line) if name not in names
        )
        found += [f"harness {name}" for name in wrong]
    return [word for word in found if word not in ALL_FLAGS]


def test_every_command_and_flag_that_an_output_or_a_sentence_names_exists() -> None:
    assert {page.path.name: unknown for page in PAGES if (unknown := unknown_words(page))} == {}


def test_a_command_or_flag_that_only_an_output_or_a_sentence_names_is_found() -> None:
    page = Page(README, "With `--epoch 3`.\n```\n$ uv sync --extra ray\nuse harness swep, and --batchsize 3\n```\n")
    assert unknown_words(page) == ["--epoch", "--batchsize", "harness swep"]


def unplaced(tree: Commands, pages: Sequence[Page]) -> list[str]:
    """Commands that no page names, and flags that no page names which names their command."""
    found = []
    for words, command in tree.items():
        name = " ".join(("harness", *words))
        theirs = "\n".join(page.text for page in pages if re.search(rf"{name}(?![\w-])", page.text))
        found += [] if theirs else [name]
        missing = [names[0] for names in flags(command) if theirs and not set(names) & set(FLAG.findall(theirs))]
        found += [f"{name} {flag}" for flag in missing]
    return found


def test_every_command_and_every_flag_has_its_place_in_the_docs() -> None:
    assert unplaced(COMMANDS, DOCS) == []


def test_a_command_or_flag_without_a_place_is_found() -> None:
    page = Page(README, "`harness cell export RUN CELL`, and `harness sweeps --json`, but `harness models-and-more`")
    tree = {words: COMMANDS[words] for words in [("cell", "export"), ("sweeps",), ("models",)]}
    assert unplaced(tree, [page]) == ["harness cell export --out", "harness models"]


# Outputs


def made_here(page: Page) -> Iterator[tuple[list[str], list[str]]]:
    """Words and shown lines of each command whose output depends on nothing but what the project brings along."""
    for block in page.blocks:
        starts = [index for index, line in enumerate(block.lines) if line.startswith("$ ")]
        for start, end in pairwise([*starts, len(block.lines)]):
            for call in _after_harness([PROMPT.sub("", block.lines[start])]):
                words = shlex.split(call, comments=True)
                stored = words[0] in ("recommend", "report", "status", "study") and "benchmarks/results/" in call
                if stored or words[0] in ("models", "sweeps"):
                    yield words, [line.rstrip() for line in block.lines[start + 1 : end]]


def is_shown(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines are those that were printed, where a line in brackets may stand for any number of them."""
    pattern = "".join(".*" if LEFT_OUT.fullmatch(line) else re.escape(f"{line}\n") for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed), re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.name))
def test_outputs_are_what_the_command_beside_them_prints(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words, shown in made_here(page):
        result = CliRunner().invoke(cli, words, env={"COLUMNS": str(WIDTH)})
        assert result.exit_code == 0, result.output
        printed = [line.rstrip() for line in result.stdout.rstrip().splitlines()]
        while shown and not shown[-1]:
            shown.pop()
        assert is_shown(shown, printed), f"harness {' '.join(words)} prints now\n" + "\n".join(printed)


def test_an_output_that_is_not_printed_any_more_is_found() -> None:
    page = Page(README, "```\n$ harness sweeps\na\n  [more]\nd\n$ harness doctor\nx\n```")
    ((words, shown),) = made_here(page)
    assert words == ["sweeps"]
    assert is_shown(shown, ["a", "b", "c", "d"])
    assert is_shown(shown, ["a", "d"])
    assert not is_shown(shown, ["a", "b", "c"])
    assert not is_shown(shown, ["a", "b", "c", "d", "e"])


def said_and_given(code: str) -> Iterator[tuple[str, str]]:
    """Run Python; of each expression with comments below it the comments, and its value as Markdown."""
    lines, names = code.splitlines(), {}  # type: tuple[list[str], dict[str, object]]
    for statement in ast.parse(code).body:
        if not isinstance(statement, ast.Expr):
            exec(ast.unparse(statement), names)
            continue
        value = eval(ast.unparse(statement), names)
        below = takewhile(lambda line: line.startswith("# "), lines[statement.end_lineno :])
        with pl.Config(**AS_MARKDOWN):
            yield "\n".join(line.removeprefix("# ") for line in below), str(value)


def test_python_in_the_docs_gives_what_stands_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = ["\n".join(block.lines) for page in PAGES for block in page.blocks if block.language == "python"]
    results = [result for one in code for result in said_and_given(one)]
    assert results
    assert [said for said, _ in results] == [given for _, given in results]


def test_python_that_gives_something_else_is_found() -> None:
    assert list(said_and_given("a = 1\na + 1\n# 3\n\na\n# 1")) == [("3", "2"), ("1", "1")]


def test_toml_in_the_docs_is_taken_as_what_it_is_meant_to_be(tmp_path: Path) -> None:
    read = 0
    for page in PAGES:
        for block in page.blocks:
            if block.language == "toml":
                read += 1
                path = tmp_path / f"{page.path.stem}-{block.line}.toml"
                path.write_text("\n".join(block.lines), encoding="utf-8")
                take_toml(path)
    assert read > 4


def take_toml(path: Path) -> None:
    """Raises UsageError unless a harness takes the file: a sweep, a model, or tables of ``harness.toml``."""
    tables = tomlfile.read(path)
    if "batch_size" in tables:
        sweep.load(str(path), {})
    elif "layers" in tables:
        models.load(str(path))
    elif "targets" in tables:
        targets.definitions(before=[(tables["targets"], str(path))])
    elif "slurm" in tables:
        known = targets.definitions()
        named = tuple(targets.resolve(name, known) for name in tables["slurm"].get("targets", ()))
        options.resolve(named, [(tables["slurm"], str(path))], [])
    else:
        assert tables.keys() == {"project"}, path


@pytest.mark.parametrize("text", ["batch_size = 0", "layers = []", "[targets.a]\nlik = 'x'", "[slurm]\narray = '3'"])
def test_toml_that_no_harness_takes_is_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        take_toml(path)


# Words


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= MOST_BYTES


def test_the_readme_has_both_set_up_commands_on_lines_of_their_own() -> None:
    lines = [line for block in Page.read(README).blocks for line in block.lines]
    assert {"pip install uv && uv run harness sweep", "pip install uv && uv run pytest"} <= set(lines)


def said_twice(pages: Sequence[Page]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for page in pages:
        for sentence in page.sentences:
            if len(sentence) > LONG_SENTENCE:
                places[sentence].append(page.path.name)
    return {sentence: where for sentence, where in places.items() if len(where) > 1}


def test_no_sentence_stands_in_two_places() -> None:
    assert said_twice(PAGES) == {}


def test_a_sentence_in_two_places_is_found() -> None:
    long = "This sentence is long enough that it should stand in one place and not in several."
    first = Page(README, f"# One\nBefore. {long} After.\n")
    second = Page(Path("two.md"), f"| a | b |\n| --- | {long.replace('one', '[one](x.md)')} |\n\n```\n{long}\n```\n")
    assert said_twice([first, second]) == {long: ["README.md", "two.md"]}


# The layout


def test_every_folder_of_the_harness_has_its_line_in_the_architecture_and_no_other() -> None:
    folders = {f"{path.parent.name}/" for path in (ROOT / "harness").glob("*/__init__.py")}
    assert set(ARCHITECTURE.section("The folders").first_column) == folders


def missing_paths(page: Page) -> list[str]:
    """Files and folders of ours that a page names and that are not there; ``*`` stands for any ending."""
    named = {span for span in page.spans if OURS.fullmatch(span)}
    if page.path == ARCHITECTURE.path:  # there paths are those below harness/
        below = {f"harness/{span}" for span in page.spans if re.fullmatch(r"\w+/[\w./]*", span)}
        named |= {span for span in below if not (ROOT / span.removeprefix("harness/")).exists()}
    return sorted(span for span in named if not list(ROOT.glob(span.rstrip("/"))))


def test_every_path_named_in_the_docs_is_there() -> None:
    assert {page.path.name: missing for page in PAGES if (missing := missing_paths(page))} == {}


def test_a_path_that_is_not_there_is_found() -> None:
    page = Page(README, "`harness/nothing.py`, `backends/reference*.py`, `tests/unit` and `results/mine`")
    assert missing_paths(page) == ["harness/nothing.py"]


# The run folder


def names_of(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def names_below(cls: type) -> set[str]:
    """Fields of a dataclass and of those that its fields hold."""
    found = names_of(cls)
    for hint in typing.get_type_hints(cls).values():
        for one in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(one):
                found |= names_below(typing.cast(type, one))
    return found


def words_in(page: Page) -> set[str]:
    """Words in its code spans."""
    return {word for span in page.spans for word in re.split(r"[^\w-]+", span)}


TABLES: dict[str, Iterable[str]] = {
    "Statuses": STATUSES,
    **{
        heading: names_of(cls)
        for heading, cls in {
            "A record": Record,
            "phases": Phases,
            "blocks": Blocks,
            "epochs": Epoch,
            "heat": HeatFacts,
        }.items()
    },
}
"""Heading -> what the first column of its table names, and nothing else."""


def undescribed(page: Page) -> list[str]:
    """What the page of the run folder lacks, or says of what is not there."""
    sections = {heading: set(page.section(heading).first_column) for heading in TABLES}
    found = [f"{heading}: {name}" for heading, names in TABLES.items() for name in sections[heading] ^ set(names)]
    files = {part for one in page.section("Files").first_column for part in (one, one.partition("/")[0])}
    found += [f"Files: {name}" for name in FILES if name not in files]
    for heading, names in {**parts_of_records(), **stored_facts()}.items():
        found += [f"{heading}: {name}" for name in sorted(names - words_in(page.section(heading)))]
    return found


FILES = (
    *run_folder.FOLDERS,
    noise_scales.FOLDER,
    part_times.FOLDER,
    locks.CLAIMS_FOLDER,
    submissions.FOLDER,
    run_folder.PLAN_FILE,
    setting.SETTING_FILE,
    locks.LOCK_FILE,
    locks.HOLDER_FILE,
    index.INDEX_FILE,
    journal.FOLDER,
)
"""Files and folders of a run."""


def parts_of_records() -> dict[str, set[str]]:
    """Heading -> the fields of what it describes, at any depth."""
    layers = {name for layer in LAYERS.values() for name in names_of(layer)}
    return {"cell": names_below(Cell) | layers, "A proof": names_below(Proof)}


@cache
def stored_facts() -> dict[str, set[str]]:
    """Heading -> the keys that this part has in the records and plans that the project brings along."""
    found: dict[str, set[str]] = defaultdict(set)

    def collect(heading: str, value: object, depth: int) -> None:
        if isinstance(value, dict):
            found[heading] |= value.keys() - {"schema_version"}
            for part in value.values() if depth else ():
                collect(heading, part, depth - 1)

    for path in sorted(RESULTS.glob("**/records/*.json"))[::7]:
        record = json.loads(path.read_bytes())
        collect("worker", record["worker"].pop("device", {}), 0)
        for part, depth in {"worker": 0, "machine": 1, "power": 1, "limit": 0}.items():
            collect(part, record.get(part), depth)
    for path in RESULTS.glob("**/plan.json"):
        collect("The plan", json.loads(path.read_bytes()), 0)
    return found


def test_every_file_status_and_field_of_a_run_is_described() -> None:
    assert undescribed(RUN_FOLDER) == []
    assert stored_facts().keys() == {"worker", "machine", "power", "limit", "The plan"}


@pytest.mark.parametrize(
    "name",
    [
        "wrong_device",
        "work_id",
        "initialise_device",
        "preempted",
        "test_loss",
        "opened_together",
        "base_batch_size",
        "strides",
        "problem_status",
        "driver_lists_process",
        "usable_cores",
        "throttle_reasons",
        "array_bytes",
        "skips",
        "setting.json",
    ],
)
def test_what_is_not_described_is_found(name: str) -> None:
    page = Page(RUN_FOLDER.path, re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", "other", RUN_FOLDER.text))
    assert any(found.endswith(f": {name}") for found in undescribed(page))
