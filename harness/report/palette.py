"""Targets to colours and marks: the same target looks the same in every figure, on the page and in pictures.

A look is a colour and a mark by the target's place among all targets of a run, sorted by name. There are seven colours
and eight marks, so 56 targets differ in one or the other. Colours keep a contrast of 3:1 to the paper of their scheme
and stay apart for the three kinds of colour blindness (hues after Okabe and Ito, "Color Universal Design", 2008); marks
tell targets apart without any colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LIGHT = ("#0066a8", "#d55e00", "#00785a", "#c05a94", "#6b4c00", "#2f9bd6", "#222222")
DARK = ("#4aa3e0", "#ff8a3d", "#2fc49a", "#f09fcb", "#e8d44d", "#a9def9", "#f2f2f2")
VARIABLES = tuple(f"var(--target-{number})" for number in range(len(LIGHT)))
"""What stands in the page's figures, so that its style sheet chooses between LIGHT and DARK."""

PHASES_LIGHT = ("#232b36", "#4f5b69", "#7d8996", "#a9b3bf", "#d3d9e0")
PHASES_DARK = ("#f2f4f7", "#c3cbd5", "#939eab", "#667180", "#424b57")
PHASE_VARIABLES = tuple(f"var(--phase-{number})" for number in range(len(PHASES_LIGHT)))
"""Greys of phases, which are not targets."""

MARKS = (
    "M-.9,0A.9,.9,0,1,1,.9,0A.9,.9,0,1,1,-.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.8H-1Z",
    "M0,-1.1L1.1,0L0,1.1L-1.1,0Z",
    "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "M0,1L1,-.8H-1Z",
    "M1,0L-.8,1V-1Z",
    "M0,-1.1L.32,-.36L1.1,-.34L.5,.16L.7,.95L0,.5L-.7,.95L-.5,.16L-1.1,-.34L-.32,-.36Z",
)
"""Circle, square, triangle, diamond, cross, triangle down, triangle right, star: SVG paths about the origin, one unit
in each direction."""

SCHEMES = {
    "light": {
        "paper": "#ffffff",
        "raised": "#f6f7f9",
        "ink": "#1b1f24",
        "muted": "#57606a",
        "line": "#d8dde3",
        "accent": "#0b5fa5",
        "good": "#1a6b3c",
        "bad": "#b42318",
    },
    "dark": {
        "paper": "#14171b",
        "raised": "#1c2127",
        "ink": "#e9ecef",
        "muted": "#a3adb8",
        "line": "#343b44",
        "accent": "#84bdf0",
        "good": "#6fcf97",
        "bad": "#ff8f85",
    },
}
"""Colours that are no target's: of the page by these names as variables, of pictures those of "light"."""


@dataclass(frozen=True)
class Look:
    """``colour``: as the page writes it, a variable of its style sheet. ``mark``: an SVG path (see MARKS)."""

    colour: str
    mark: str


def looks(targets: Iterable[str]) -> dict[str, Look]:
    """The look of each target of a run, in the order of their names."""
    ordered = sorted(set(targets))
    return {
        target: Look(VARIABLES[number % len(VARIABLES)], MARKS[number % len(MARKS)])
        for number, target in enumerate(ordered)
    }


def style_variables(scheme: str) -> str:
    """Declarations of a scheme's colours as CSS variables."""
    targets, phases = (LIGHT, PHASES_LIGHT) if scheme == "light" else (DARK, PHASES_DARK)
    named = {
        **SCHEMES[scheme],
        **{f"target-{number}": colour for number, colour in enumerate(targets)},
        **{f"phase-{number}": colour for number, colour in enumerate(phases)},
    }
    return "".join(f"--{name}:{colour};" for name, colour in named.items())
