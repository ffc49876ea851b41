"""Ctrl-C for another process, as its console would send it. Argument: the process's number.

Ctrl-Break is not here: under Wine it ends every program at once, whatever handler that has set.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

CTRL_C = 0


def press_ctrl_c(process: subprocess.Popen[Any]) -> None:
    """In a process of its own, since it leaves its console for the other's."""
    subprocess.run([sys.executable, __file__, str(process.pid)], check=True, timeout=60)


def main(number: str) -> None:
    kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.FreeConsole()
    attached = kernel.AttachConsole(int(number)) and kernel.SetConsoleCtrlHandler(None, True)
    if not attached or not kernel.GenerateConsoleCtrlEvent(CTRL_C, 0):
        raise ctypes.WinError(ctypes.get_last_error())


if __name__ == "__main__":
    main(*sys.argv[1:])
