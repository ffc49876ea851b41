"""What the system offers to graphics libraries: WSL, and DirectX 12, which DirectML rests on."""

from __future__ import annotations

import ctypes
import sys
import uuid
from pathlib import Path
from typing import Any

_WSL_DEVICE = Path("/dev/dxg")
_WSL_FOLDER = Path("/usr/lib/wsl/lib")
_WSL_LIBRARIES = ("libdxcore.so", "libd3d12.so", "libd3d12core.so")
_D3D12 = "d3d12.dll"
_D3D12_DEVICE = uuid.UUID("189819f1-1db6-4b57-be54-1821339b85f7")
"""IID_ID3D12Device of d3d12.h."""

_FEATURE_LEVEL = 0xB000
"""D3D_FEATURE_LEVEL_11_0: the least that DirectML takes."""


def wsl_version() -> int | None:
    """1 or 2 in the Windows Subsystem for Linux; None elsewhere."""
    try:
        return wsl_of(Path("/proc/version").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def wsl_of(kernel: str) -> int | None:
    """The version of WSL that a kernel's description tells of.

    WSL1 calls its kernel ``4.4.0-19041-Microsoft``; WSL2's is called ``5.15.90.1-microsoft-standard-WSL2``, or by
    whoever compiled another.
    """
    if "microsoft" not in kernel.lower():
        return None
    return 1 if "-Microsoft" in kernel else 2


def missing_for_directml() -> tuple[str, ...]:
    """What DirectML needs of the system and does not find, by name; empty where there is an adapter for it.

    On Windows the default adapter is asked whether it would give a device, without making one. In WSL2 the paravirtual
    GPU and the libraries that Windows shares are looked for. Elsewhere all of those are missing.
    """
    if sys.platform == "win32":
        return _missing_on_windows()
    needed = (_WSL_DEVICE, *(_WSL_FOLDER / name for name in _WSL_LIBRARIES))
    return tuple(str(path) for path in needed if not path.exists())


def _missing_on_windows() -> tuple[str, ...]:
    try:
        library: Any = ctypes.CDLL(_D3D12)
        interface = (ctypes.c_ubyte * 16)(*_D3D12_DEVICE.bytes_le)
        # With nowhere to put a device it answers whether there could be one: negative is a failure.
        status = library.D3D12CreateDevice(None, _FEATURE_LEVEL, ctypes.byref(interface), None)
    except (OSError, AttributeError):
        return (_D3D12,)
    return () if status >= 0 else ("an adapter with DirectX 12",)
