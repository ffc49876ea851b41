"""What comes with the program under a name: models, targets and presets, each a TOML file that is called so."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".toml"
MODELS, TARGETS, SWEEPS = (Path(__file__).parent / "builtin" / name for name in ("models", "targets", "sweeps"))


def files(folder: Path) -> dict[str, Path]:
    """Names, in alphabetical order, and their files. ``folder``: MODELS, TARGETS or SWEEPS."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem)}
