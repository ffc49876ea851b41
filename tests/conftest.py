"""What all tests share: no terminal's width."""

import os

os.environ.pop("COLUMNS", None)  # a shell may export it, and test processes that run side by side are told one
