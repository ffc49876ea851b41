"""``harness checkup``: everything that only this machine can tell, tried one after the other, in one file to send back.

For machines that nobody of the project has: one with Windows and a GPU, above all. Each question is a command of the
harness, run as a person would, in a process of its own: what hangs or dies costs its own answer alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import harness
from harness import outputs, shells
from harness.actions import values
from harness.actions.progress import tell
from harness.actions.shown import Shown
from harness.core import system
from harness.core.record import now
from harness.core.told import asked
from harness.machine.windows_gpus import GpuCounters
from harness.plan import own_file, targets
from harness.report.printed import new_table, print_table, say

LONGEST_OUTPUT = 100_000
"""Characters of what a command said, from its end."""

SECONDS, LONG_SECONDS = 900.0, 3600.0
"""How long a question may take; the longer one where environments are built or much is proven."""

KILL_AFTER, GONE_WITHIN = 20.0, 60.0
"""Seconds until the sweep is killed that is to leave no process, and within which all of its must be gone."""

MARK = "HARNESS_CHECKUP"
"""A variable by which processes are found that a question started."""

ODD_WORDS = ("two words", "a'b", "100 %", "x & y", "-a.b", "C:\\end of folder\\")
"""What must come through a shell as it is."""

ECHO = "import json, sys; print(json.dumps(sys.argv[1:]))"

SMALL = ("--dataset", "digits", "--epochs", "1", "--train-examples", "1024", "--test-examples", "256")


@dataclass(frozen=True)
class CheckupAnswer:
    """What came of a question. ``status``: ok, failed, too long, not here. ``said``: standard error of a command."""

    question: str
    status: str
    seconds: float
    command: str = ""
    output: Any = ""
    said: str = ""


@dataclass(frozen=True, repr=False)
class Checkup(Shown):
    """All answers, as they are in the file."""

    file: Path
    targets: tuple[str, ...]
    answers: tuple[CheckupAnswer, ...] = field(default=())

    def plain(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "harness": harness.__version__,
            "made": now(),
            "targets": list(self.targets),
            "answers": [asdict(answer) for answer in self.answers],
        }

    def print_to(self, console: Console) -> None:
        """A line for each question, and where the file is."""
        table = new_table("question", "answer", "seconds", numbers=("seconds",), prose=("question",))
        for answer in self.answers:
            table.add_row(answer.question, answer.status, f"{answer.seconds:.0f}")
        print_table(table, console)
        say(console, f"All of it is in {self.file}. It names the machine's hardware, system and paths; send it back.")


def check_up(file: Path, names: Iterable[str] = ()) -> Checkup:
    """Ask everything of the targets named, else of those of this machine's accelerators, and write ``file``.

    Raises HarnessError where the file cannot be written, before anything is tried.
    """
    definitions = own_file.target_definitions()
    chosen = tuple(dict.fromkeys(values.texts(names))) or _usual(definitions)
    for name in chosen:
        targets.resolve(name, definitions)
    answers: list[CheckupAnswer] = []
    _write(Checkup(file, chosen))
    with tempfile.TemporaryDirectory(prefix="harness-checkup-", ignore_cleanup_errors=True) as folder:
        for number, (question, ask) in enumerate(_questions(chosen, Path(folder)), start=1):
            tell(f"{number}: {question}")
            answers.append(ask(question))
            _write(Checkup(file, chosen, tuple(answers)))  # what is known so far outlives whatever comes
    return Checkup(file, chosen, tuple(answers))


def _usual(definitions: Any) -> tuple[str, ...]:
    """Targets that can exist here and compute on an accelerator, and TensorFlow 2.10 beside them."""
    here = [one for one in definitions.values() if not one.unavailable_here]
    return tuple(one.name for one in here if one.accelerator != "cpu" or one.name == "tensorflow210-cpu")


def _write(found: Checkup) -> None:
    outputs.write(found.file, json.dumps(found.plain(), indent=1, default=str) + "\n")


def _questions(names: Sequence[str], folder: Path) -> Iterator[tuple[str, Callable[[str], CheckupAnswer]]]:
    """Each question in words, and what answers it."""
    every, first = ",".join(names), names[0] if names else ""
    yield "what this machine is", partial(_command, ["doctor", "--quick", "--json"])
    yield "which GPU counters the system has", partial(_facts, _counters)
    yield "how the console writes", partial(_facts, _console)
    for shell in ("cmd", "powershell"):
        yield f"whether commands come through {shell} as they are", partial(_facts, partial(_through, shell))
    yield "whether environments are built", partial(_command, ["targets", "sync", *names], seconds=LONG_SECONDS)
    yield "whether each target trains on its device", partial(_command, ["doctor", *names, "--json"])
    for name in names:
        proof = ["verify", "--target", name, "--json"]
        yield f"whether {name} does the reference's work", partial(_command, proof, seconds=LONG_SECONDS)
        half = [*proof, "--compute-precision", "mixed_float16", "--optimizer", "momentum"]
        yield f"whether {name} does it in mixed_float16", partial(_command, half, seconds=LONG_SECONDS)
    yield "what the devices can do at most", partial(_command, ["limits", *names, "--json"])
    small = ["sweep", "--target", every, "--batch-size", "32,512", *SMALL, "--out"]
    yield "whether a sweep runs", partial(_command, [*small, str(folder / "a sweep"), "--json"], seconds=LONG_SECONDS)
    deep = folder.joinpath(*["d" * 90] * 3)
    one = ["sweep", "--target", first, "--batch-size", "32", *SMALL, "--out"]
    yield "whether paths beyond 260 characters do", partial(_command, [*one, str(deep), "--json"])
    killed = [*one, str(folder / "killed")]
    yield "whether a killed sweep leaves no process", partial(_facts, partial(_killed, killed))
    yield "whether it resumes", partial(_command, [*killed, "--json"])
    for name in names[1:]:
        rivals = ["compare", first, name, "--batch-size", "32,128", "--budget", "5m"]
        out = ["--out", str(folder / f"compare {name}"), "--json"]
        yield f"how {name} compares with {first}", partial(_command, [*rivals, *out], seconds=LONG_SECONDS)


def _command(words: Sequence[str], question: str, seconds: float = SECONDS) -> CheckupAnswer:
    """A command of the harness, with what it said; its standard output as JSON where it is."""
    start = time.monotonic()
    command = [sys.executable, "-m", "harness", *words]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            timeout=seconds,
        )
        status, output, said = "failed" if done.returncode else "ok", done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        status, output, said = "too long", _text(error.stdout), _text(error.stderr)
    try:
        found: Any = json.loads(output)
    except ValueError:
        found = output[-LONGEST_OUTPUT:]
    shown = shells.joined(["harness", *words])
    return CheckupAnswer(question, status, time.monotonic() - start, shown, found, said[-LONGEST_OUTPUT:])


def _text(output: str | bytes | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def _facts(tell_facts: Callable[[], Any], question: str) -> CheckupAnswer:
    """What this process finds out itself: None where there is nothing of the kind, ``ok`` false where it is wrong."""
    start = time.monotonic()
    found, why = asked(tell_facts)
    if why:
        status = "failed"
    elif found is None:
        status = "not here"
    else:
        status = "ok" if found.get("ok", True) else "failed"
    return CheckupAnswer(question, status, time.monotonic() - start, output=found, said=why)


def _counters() -> dict[str, Any] | None:
    counters = GpuCounters()
    if not counters.available:
        return None
    time.sleep(1.0)  # rates are over the time since they were opened
    return {"reading": counters.reading(), "energy": system.package_energies()}


def _console() -> dict[str, Any]:
    names = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONLEGACYWINDOWSSTDIO", "TERM", "WT_SESSION", "CHCP")
    return {
        "shell": shells.in_use(),
        "terminal": sys.stderr.isatty(),
        "encoding": sys.stderr.encoding,
        "variables": {name: os.environ[name] for name in names if name in os.environ},
    }


def _through(shell: str) -> dict[str, Any] | None:
    """Whether a program that a command names, as it is printed for ``shell``, gets the words that were meant."""
    command = shells.joined([sys.executable, "-c", ECHO, *ODD_WORDS], shell)
    call = f'cmd.exe /d /s /c "{command}"' if shell == "cmd" else "powershell.exe -NoProfile -Command -"
    try:
        done = subprocess.run(call, input=f"{command}\n", capture_output=True, encoding="utf-8", timeout=60)
    except OSError:
        return None
    try:
        got = json.loads(done.stdout)
    except ValueError:
        got = done.stdout + done.stderr
    return {"ok": got == list(ODD_WORDS), "command": command, "got": got}


def _killed(words: Sequence[str]) -> dict[str, Any]:
    """Kill a sweep while it runs, and look for what is left of it."""
    import psutil

    mark = f"{os.getpid()}-{time.time_ns()}"
    nowhere = subprocess.DEVNULL
    command, variables = [sys.executable, "-m", "harness", *words], {**os.environ, MARK: mark}
    with subprocess.Popen(command, env=variables, stdin=nowhere, stdout=nowhere, stderr=nowhere) as process:
        time.sleep(KILL_AFTER)
        started = len(_marked(psutil, mark))
        process.kill()
    deadline = time.monotonic() + GONE_WITHIN
    while (left := _marked(psutil, mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return {"ok": not left, "started": started, "left": left}


def _marked(psutil: Any, mark: str) -> list[str]:
    """Command lines of the processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        variables, _ = asked(process.environ)
        if variables and variables.get(MARK) == mark:
            found.append(" ".join(asked(process.cmdline)[0] or ()))
    return found
