"""The command line: wiring only. Flags in, an exit status out; the work is in ``harness.commands``.

Exit status: 0 success, 2 a wrong call, 1 everything else. Commands import what they need when they
run, so ``harness --help`` stays quick.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import Any, TextIO, cast

import click

from harness.cli.clusters import cancel, status, wait
from harness.cli.listing import cache, data, models, sweeps, targets
from harness.cli.measuring import compare, doctor, heat, limits, noise_scale, sweep, verify
from harness.cli.reading import cell, merge, recommend, report
from harness.commands import foreign
from harness.commands.flags import CONTEXT
from harness.core.errors import HarnessError, UsageError
from harness.refusals import refused

SIZES = ("COLUMNS", "LINES")
"""Variables that say how large the screen is."""

SIZE = re.compile(r"0*[1-9][0-9]{0,4}")


@click.group(context_settings=CONTEXT)
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


for _command in (
    sweep,
    compare,
    recommend,
    report,
    merge,
    status,
    wait,
    cancel,
    heat,
    verify,
    doctor,
    limits,
    noise_scale,
    cell,
    models,
    targets,
    data,
    cache,
    sweeps,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the ``harness`` command: every deliberate error is one line on standard error."""
    _import_nothing_from_here()
    _prepare_streams()
    _prepare_sizes()
    try:
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
        said = foreign.blame(error, os.environ)
        if not said:
            raise
        status = _fail(said)
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
