"""Commands as each shell wants them, and which shell is in use."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from harness import shells
from harness.core import system
from harness.shells import CMD, POSIX, POWERSHELL, joined

RUN = ["harness", "report", r"C:\runs\r2"]


@pytest.fixture
def fresh() -> Iterator[None]:
    shells.in_use.cache_clear()
    yield
    shells.in_use.cache_clear()


@pytest.mark.parametrize(
    ("words", "posix", "cmd", "powershell"),
    [
        (RUN, r"harness report 'C:\runs\r2'", r"harness report C:\runs\r2", r"harness report C:\runs\r2"),
        (
            ["harness", "report", "C:\\my runs\\"],
            "harness report 'C:\\my runs\\'",
            'harness report "C:\\my runs\\\\"',
            "harness report 'C:\\my runs\\'",
        ),
        (
            [r"C:\my env\python.exe", "a.py"],
            r"'C:\my env\python.exe' a.py",
            r'"C:\my env\python.exe" a.py',
            r"& 'C:\my env\python.exe' a.py",
        ),
        (["harness", "it's"], "harness 'it'\"'\"'s'", "harness it's", "harness 'it''s'"),
        (["harness", "a&b"], "harness 'a&b'", 'harness "a&b"', "harness 'a&b'"),
        (["harness", "$x", "16,32"], "harness '$x' 16,32", "harness $x 16,32", "harness '$x' '16,32'"),
        (["harness", ""], "harness ''", 'harness ""', "harness ''"),
        (
            ["harness", "jax-cpu:jit@cpus=2", "--out=r-2"],
            "harness jax-cpu:jit@cpus=2 --out=r-2",
            "harness jax-cpu:jit@cpus=2 --out=r-2",
            "harness jax-cpu:jit@cpus=2 --out=r-2",
        ),
        (["harness", "~", "@a", "-a.b"], "harness '~' @a -a.b", "harness ~ @a -a.b", "harness '~' '@a' '-a.b'"),
    ],
)
def test_each_shell_gets_a_command_as_it_takes_it(words: list[str], posix: str, cmd: str, powershell: str) -> None:
    assert (joined(words, POSIX), joined(words, CMD), joined(words, POWERSHELL)) == (posix, cmd, powershell)


@pytest.mark.skipif(sys.platform == "win32", reason="runs a POSIX shell")
def test_a_posix_shell_gives_the_words_back() -> None:
    words = ["printf", r"%s\n", "it's", "a b", "$x", 'say "so"', "C:\\runs\\", "&"]
    done = subprocess.run(["sh", "-c", joined(words, POSIX)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == words[2:]
    assert shlex.split(joined(words, POSIX)) == words


def c_library_words(line: str) -> list[str]:
    """A command line as Microsoft's C library takes it apart: backslashes count before a double quote only."""
    words, word, inside, place = [], "", False, 0
    while place < len(line):
        slashes = len(line[place:]) - len(line[place:].lstrip("\\"))
        after = line[place + slashes : place + slashes + 1]
        if slashes and after == '"':
            word += "\\" * (slashes // 2) + ('"' if slashes % 2 else "")
            place += slashes + slashes % 2
        elif slashes:
            word += "\\" * slashes
            place += slashes
        elif after == '"':
            inside, place = not inside, place + 1
        elif after == " " and not inside:
            words, word, place = [*words, word], "", place + 1
        else:
            word, place = word + after, place + 1
    return [*words, word]


def test_a_windows_program_that_cmd_starts_gets_the_words_back() -> None:
    words = ["harness", "it's", "a b", "C:\\my runs\\", "a&b", "x|y\\", "(1)", 'say "so"', "50%"]
    assert c_library_words(joined(words, CMD)) == words


@pytest.mark.parametrize(
    ("ancestors", "platform", "shell"),
    [
        (["harness.exe", "powershell.exe", "explorer.exe"], "windows", POWERSHELL),
        (["uv.exe", "cmd.exe", "powershell.exe"], "windows", CMD),
        (["PWSH.EXE"], "windows", POWERSHELL),
        (["harness.exe", "bash.exe", "mintty.exe"], "windows", POSIX),
        (["explorer.exe"], "windows", CMD),
        ([], "windows", CMD),
        (["-zsh", "login"], "macos", POSIX),
        (["pwsh", "bash"], "linux", POWERSHELL),
        (["systemd"], "linux", POSIX),
    ],
)
def test_the_nearest_shell_is_the_one_in_use(
    fresh: None, monkeypatch: pytest.MonkeyPatch, ancestors: list[str], platform: str, shell: str
) -> None:
    class Ancestor:
        def __init__(self, name: str) -> None:
            self.name = lambda: name

    monkeypatch.setattr(psutil.Process, "parents", lambda self: [Ancestor(name) for name in ancestors])
    monkeypatch.setattr(system, "platform_name", lambda: platform)
    assert shells.in_use() == shell


def test_where_processes_cannot_be_looked_at_the_systems_usual_shell_is_taken(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(self: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "parents", hidden)
    monkeypatch.setattr(system, "platform_name", lambda: "windows")
    assert shells.in_use() == CMD
