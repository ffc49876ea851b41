"""The command line: which commands there are, and how they end. Each stands in ``harness.commands``, with its flags.

Exit status: 0 success, 2 a wrong call, 1 everything else. A command is imported when it is asked for, and what it
needs when it runs, so ``harness --help`` stays quick.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, TextIO, cast

import click

from harness.actions import said
from harness.core.errors import HarnessError, UsageError
from harness.refusals import refused

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMANDS = {
    "sweep": "Train over batch sizes and targets.",
    "compare": "Say which target trains faster, and if that is noise.",
    "explain": "Say why one target's step takes longer, part by part.",
    "recommend": "Say what to use on the machine of a run, and why.",
    "report": "Show a run's table, or make its page, pictures, rows.",
    "history": "Show the runs in a folder over time, and changes.",
    "study": "Answer the study's claims, one by one, from runs.",
    "merge": "Unite run folders that hold parts of one plan.",
    "status": "Say how far a run is.",
    "wait": "Follow a run to its end, then show it.",
    "cancel": "End a run's jobs under Slurm.",
    "heat": "Run heats of a run folder, as launchers do.",
    "verify": "Prove that targets do the reference's work.",
    "doctor": "Say what works on this machine, and what mends the rest.",
    "checkup": "Try all that only this machine can tell, in a file.",
    "limits": "Measure what the device of each target can do at most.",
    "largest-batch": "Find the largest batch size that fits in memory.",
    "tune": "Find settings with which targets train faster here.",
    "noise-scale": "Measure up to which batch size steps scale.",
    "batch-plan": "Decide once how the batch size is to change.",
    "cell": "Take one cell out of a run, or look into it.",
    "models": "List the built-in models, or show one.",
    "targets": "List the targets, or build their environments.",
    "data": "List the datasets, or make one ready.",
    "cache": "List what is kept in the cache, or clear it.",
    "sweeps": "List the presets of 'harness sweep'.",
}
"""Name -> what it does, in a line that a narrow terminal holds. The modules have these names too."""

SIZES = ("COLUMNS", "LINES")
"""Variables that say how large the screen is."""

SIZE = re.compile(r"0*[1-9][0-9]{0,4}")


class _Commands(Mapping[str, click.Command]):
    """The commands, each imported when it is taken."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        word = name.replace("-", "_")
        command = cast(click.Command, getattr(import_module(f"harness.commands.{word}"), word))
        # A command keeps the help option of its first context, which need not be one below the group's.
        command.context_settings = {**CONTEXT, **command.context_settings}
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Harness(click.Group):
    """Lists its commands without importing them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("dict[str, click.Command]", _Commands())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Harness, context_settings=CONTEXT)
@click.version_option(package_name="backend-harness", prog_name="harness")
def cli() -> None:
    """Train one CNN identically in TensorFlow and in JAX, time it over batch sizes, and prove that both did the same.

    \b
    Example:
      harness sweep                                  the preset "quick": TensorFlow and JAX, three batch sizes
      harness sweep quick --batch-size 16,64 --plan  what would run, and for how long
      harness recommend harness-runs/quick-...       what to use on this machine, and why

    Environments (some 2 GB), datasets and proofs are kept in a cache in your home folder; the environment variable
    HARNESS_CACHE_DIR names another place for it, and 'harness cache' shows and clears it.
    """


def main() -> None:
    """Entry point of the ``harness`` command: every deliberate error is one line on standard error."""
    atexit.register(gc.freeze)  # as a process ends nobody need look through all that it holds: a tenth of --help
    _import_nothing_from_here()
    _prepare_streams()
    _prepare_sizes()
    try:
        with said.typed():
            status = cli.main(prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = UsageError.exit_status
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        status = _fail(f"{error.format_message()}{hint}", UsageError.exit_status)
    except click.ClickException as error:
        status = _fail(error.format_message())
    except HarnessError as error:
        status = _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        status = _fail("stopped")
    except MemoryError:
        status = _fail("memory ran out; ask for fewer examples, epochs or cells at once")
    except ImportError as error:
        from harness.commands import foreign

        status = _fail(foreign.sentence(error, os.environ))
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has gone, as in `harness --help | head`; click has made an exit of it.
        _drop_output()
        status = 0
    except OSError as error:
        # The current folder is the only thing that Python looks for without naming it.
        is_gone = isinstance(error, FileNotFoundError) and error.filename is None
        what = "the current folder is gone" if is_gone else refused(error, "output cannot be written")
        status = _fail(f"{what} ({error.strerror or error})")
        _drop_output()
    except Exception as error:
        from harness.commands import foreign

        blame = foreign.blame(error, os.environ)
        if not blame:
            raise
        status = _fail(blame)
    sys.exit(status)


def _import_nothing_from_here() -> None:
    """Take the present folder off the path where it is there by an empty entry of PYTHONPATH.

    Such a one is left by ``PYTHONPATH=$PYTHONPATH:/lib``, and a queue.py of a person's would come before Python's.
    """
    path = os.environ.get("PYTHONPATH", "")
    entries = path.split(os.pathsep) if path else []  # an empty variable adds no folder, as an unset one
    with contextlib.suppress(OSError):  # the present folder is gone
        here = os.getcwd()
        if "" in entries and here not in entries and here in sys.path:
            sys.path.remove(here)


def _prepare_streams() -> None:
    """Give the process the streams that it was started without; let it print whatever a file may be called.

    What a console cannot show becomes '?', and bytes that are no UTF-8 stay as they are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the process ends
    sys.stderr = cast(TextIO, _Unheard(sys.stderr))
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


def _prepare_sizes() -> None:
    """A screen of no columns, or of none that is a number, counts as one whose size is not given."""
    for name in SIZES:
        if name in os.environ and not SIZE.fullmatch(os.environ[name]):
            del os.environ[name]


class _Unheard:
    """Standard error whose reader may go, as a terminal that is closed: what is being measured does not end with it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _drop_output() -> None:
    from harness.outputs import drop_output

    drop_output(sys.stdout)


def _fail(message: str, status: int = HarnessError.exit_status) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"harness: {' '.join(message.split())}", err=True)
    return status
