"""Ctrl-C and Ctrl-Break for another process, as its console would send them. Arguments: its number, the event's."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

CTRL_C, CTRL_BREAK = 0, 1


def press(process: subprocess.Popen[Any], event: int) -> None:
    """In a process of its own, since it leaves its console for the other's."""
    subprocess.run([sys.executable, __file__, str(process.pid), str(event)], check=True, timeout=60)


def main(number: str, event: str) -> None:
    kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.FreeConsole()
    done = kernel.AttachConsole(int(number)) and kernel.SetConsoleCtrlHandler(None, True)
    if event == str(CTRL_BREAK):  # cannot be ignored: whoever sends it ends by it, too
        kernel.GenerateConsoleCtrlEvent(CTRL_BREAK, int(number))
        return
    if not done or not kernel.GenerateConsoleCtrlEvent(int(event), 0):
        raise ctypes.WinError(ctypes.get_last_error())


if __name__ == "__main__":
    main(*sys.argv[1:])
