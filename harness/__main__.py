"""``python -m harness``: the command line, where the command ``harness`` is not on PATH."""

from harness.cli import main

if __name__ == "__main__":
    main()
