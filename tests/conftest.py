"""What all tests share: nothing that a shell may export of its terminal."""

import os

for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):  # test processes that run side by side are told a width, too
    os.environ.pop(name, None)
