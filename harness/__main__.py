"""``python -m harness``: the command line, where the command ``harness`` is not on PATH."""

import sys

if __name__ == "__main__":
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]  # the present folder, where a queue.py of a person's may lie

    from harness.cli import main

    main()
