"""The command that tests call as a person does."""

from __future__ import annotations

import shutil
import sysconfig

HARNESS = shutil.which("harness", path=sysconfig.get_path("scripts")) or "harness"
