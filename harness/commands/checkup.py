"""``harness checkup``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.commands import flags, printing


@click.command()
@click.argument("file", type=flags.AnyPath(), metavar="FILE")
@flags.targets_argument
def checkup(file: Path, names: tuple[str, ...]) -> int:
    """Try all that only this machine can tell, and write it into FILE, to send to whoever asked for it.

    Without targets it takes those of this machine's GPUs, and TensorFlow 2.10 on the processor. It builds their
    environments, proves them, trains and compares them: an hour or two. What fails is an answer too, so the exit
    status is 0 once the file is written.

    \b
    Example:
      harness checkup checkup.json
      harness checkup checkup.json tensorflow-directml tensorflow210-cuda
    """
    from harness.actions.checkup import check_up

    printing.show(check_up(file, names))
    return 0
