"""What all tests share: nothing that a shell may export of its terminal, and libraries that are compiled once."""

import os
import sys

for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):  # test processes that run side by side are told a width, too
    os.environ.pop(name, None)

# Else each of the hundreds of commands that tests start would compile every library that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
