"""What psutil asks of Windows and Wine does not tell: performance counters, times of interrupts. Put at its end."""

import ctypes

from psutil import _ntuples as named


def cpu_times():
    idle, kernel, user = (ctypes.c_uint64() for _ in range(3))
    ctypes.windll.kernel32.GetSystemTimes(*map(ctypes.byref, (idle, kernel, user)))
    return named.scputimes(user.value / 1e7, (kernel.value - idle.value) / 1e7, idle.value / 1e7, 0.0, 0.0)


def getloadavg():
    return (0.0, 0.0, 0.0)


def swap_memory():
    return named.sswap(0, 0, 0, 0, 0, 0)
