"""The command line: wiring only. Flags in, an exit status out; the work is in ``harness.commands``.

Exit status: 0 success, 2 a wrong call, 1 everything else. Commands import what they need when they
run, so ``harness --help`` stays quick.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

import click

from harness.cli.clusters import cancel, status, wait
from harness.cli.listing import data, models, sweeps, targets
from harness.cli.measuring import compare, doctor, heat, limits, noise_scale, sweep, verify
from harness.cli.options import CONTEXT
from harness.cli.reading import cell, merge, recommend, report
from harness.core.errors import HarnessError, UsageError
from harness.runfiles import refused


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="backend-harness", prog_name="harness")
def cli() -> None:
    """Train one CNN identically in TensorFlow and in JAX, time it over batch sizes, and prove that both did the same.

    \b
    Example:
      harness sweep                                  the preset "quick": TensorFlow and JAX, three batch sizes
      harness sweep quick --batch-size 16,64 --plan  what would run, and for how long
      harness recommend harness-runs/quick-...       what to use on this machine, and why
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
    sweeps,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the ``harness`` command: every deliberate error is one line on standard error."""
    _prepare_streams()
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
    sys.exit(status)


def _prepare_streams() -> None:
    """Give the process the streams that it was started without; let it print whatever a file may be called.

    What a console cannot show becomes '?', and bytes that are no UTF-8 stay as they are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


def _drop_output() -> None:
    from harness.report.terminal import drop_output

    drop_output(sys.stdout)


def _fail(message: str, status: int = HarnessError.exit_status) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"harness: {' '.join(message.split())}", err=True)
    return status
