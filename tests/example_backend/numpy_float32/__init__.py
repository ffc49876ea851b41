"""An example of a third-party backend for the harness: plain NumPy in float32.

``adapter`` speaks the protocol, ``layers`` is the "framework". It has no batch normalisation and no average pools, and
says so in its capabilities: a gap that is declared is no fault.
"""

from __future__ import annotations

from numpy_float32.adapter import NumpyFloat32

__all__ = ["NumpyFloat32"]
