"""The questions of ``harness checkup``: each is a command that exists, and what fails is an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from harness import cli
from harness.actions import checkup
from harness.core.errors import HarnessError, UsageError
from harness.plan import own_file

NAMES = ("tensorflow210-cuda", "tensorflow-directml:graph")


def commands() -> list[list[str]]:
    """The words of every command that it runs for two targets."""
    asks: list[Any] = [ask for _, ask in checkup._questions(NAMES, Path("folder"))]
    return [ask.args[0] for ask in asks if ask.func is checkup._command]


def test_every_command_that_it_runs_is_one() -> None:
    for words in commands():
        context = click.Context(cli.cli, info_name="harness", **cli.CONTEXT)
        name, command, rest = cli.cli.resolve_command(context, list(words))
        assert command is not None
        with command.make_context(name, rest, parent=context) as made:
            assert made.params
    assert [words[0] for words in commands()].count("verify") == 2 * len(NAMES)
    assert [words[:3] for words in commands()][-1] == ["compare", *NAMES]


def test_a_machine_with_a_gpu_asks_of_its_accelerators_and_of_tensorflow_2_10() -> None:
    definitions = own_file.target_definitions()
    chosen = checkup._usual(definitions)
    assert "tensorflow210-cpu" in chosen
    assert {definitions[name].accelerator for name in chosen} == {"cpu", "cuda", "directml"}


def test_what_fails_hangs_or_dies_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter(
        [
            subprocess.CompletedProcess([], 0, '{"ready": true}', "told"),
            subprocess.CompletedProcess([], 1, "no JSON", "harness: no"),
            subprocess.TimeoutExpired([], 1.0, b"half", None),
        ]
    )

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        found = next(outcomes)
        if isinstance(found, Exception):
            raise found
        return found

    asked = [("first", ["doctor"]), ("second", ["verify"]), ("third", ["limits"])]

    def questions(names: object, folder: object) -> Any:
        yield from ((question, partial(checkup._command, words)) for question, words in asked)
        yield "fourth", partial(checkup._facts, lambda: None)
        yield "fifth", partial(checkup._facts, lambda: {"ok": False})
        yield "sixth", partial(checkup._facts, lambda: 1 // 0)

    monkeypatch.setattr(checkup.subprocess, "run", run)
    monkeypatch.setattr(checkup, "_questions", questions)
    file = tmp_path / "answers.json"
    found = checkup.check_up(file, ["reference"])
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [answer["status"] for answer in kept["answers"]] == [
        "ok",
        "failed",
        "too long",
        "not here",
        "failed",
        "failed",
    ]
    assert kept["answers"][0]["output"] == {"ready": True}
    assert kept["answers"][1]["said"] == "harness: no"
    assert kept["answers"][2]["output"] == "half"
    assert kept["answers"][5]["said"] == "integer division or modulo by zero"
    assert "second" in str(found)
    assert str(file) in " ".join(str(found).split())


def test_a_file_that_cannot_be_written_and_a_target_that_is_none_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="there is no folder"):
        checkup.check_up(tmp_path / "nowhere" / "answers.json", ["reference"])
    with pytest.raises(UsageError, match="no target is called 'nope'"):
        checkup.check_up(tmp_path / "answers.json", ["nope"])


def test_words_come_through_the_shell_that_is_here() -> None:
    found = checkup._through("cmd")
    if sys.platform == "win32":
        assert found is not None
        assert found["ok"], found
    else:
        assert found is None
