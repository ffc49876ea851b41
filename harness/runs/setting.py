"""``RUN/setting.json``: what else than the frozen plan the heats of a run need, so that any process can run one.

It names places of this machine and of those that share its disks, so it is no part of a run's identity: another
machine's folder of the same plan has its own, and each sweep that works in the folder writes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import refusals
from harness.core import codec
from harness.core.errors import StoreError, UsageError
from harness.plan.datasets.extent import Extent
from harness.runs import files
from harness.runs.folder import Run

if TYPE_CHECKING:
    from harness.plan.targets import TargetDefinition

SETTING_FILE = "setting.json"


@dataclass(frozen=True)
class Tables:
    """A person's own targets from one file, its relative paths made absolute."""

    file: str
    targets: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """``dataset``: its name or the absolute path of a file; ``data_dir``: where MNIST's files are, empty if not said.

    ``timeout``: longest wait for one answer of a worker, in seconds; ``fork``: one forked process per cell. ``images``:
    the range of the dataset's pixels, None where it was not kept.
    """

    dataset: str
    data_dir: str
    targets: tuple[Tables, ...]
    timeout: float
    fork: bool
    images: Extent | None = field(default=None, metadata=codec.LATER)

    def definitions(self) -> dict[str, TargetDefinition]:
        """The targets as they were when the setting was written. Raises UsageError."""
        from harness.plan import targets

        return targets.definitions(before=[(one.targets, one.file) for one in self.targets])


def write(run: Run, setting: Setting) -> None:
    """Keep a setting in a run folder. Raises StoreError."""
    path = run.folder / SETTING_FILE
    try:
        codec.write_json(path, setting)
    except OSError as error:
        raise refusals.unwritable(path, error) from error


def read(run: Run) -> Setting:
    """The setting of a run folder. Raises UsageError where none was written here, StoreError for a damaged one."""
    path = run.folder / SETTING_FILE
    if not path.is_file():
        raise UsageError(
            f"{run.folder}: has no {SETTING_FILE}, so its heats cannot be run one by one; "
            "the sweep that planned it writes one: repeat its command with --out"
        )
    return files.read(path, Setting)


def require_planned(run: Run, definitions: dict[str, TargetDefinition]) -> None:
    """Raise StoreError unless each planned target still has its interpreter, packages, variables, code and options."""
    for target in dict.fromkeys(cell.target for cell in run.plan.cells):
        now = definitions.get(target.name)
        planned = (target.environment, target.settings, target.defined_options)
        if now is None or (now.environment, now.settings, now.defined_options) != planned:
            raise StoreError(
                f"{run.folder}: the target {target.label} is no longer what this run was planned with "
                "(its environment, variables, code or options); plan it again in another folder"
            )


def tables(own: dict[str, Any], file: Path) -> Tables:
    """A file's targets, ready to be kept."""
    from harness.plan import targets

    return Tables(str(file.absolute()), targets.anchored(own, file))
