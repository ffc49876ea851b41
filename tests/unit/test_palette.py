from __future__ import annotations

from itertools import combinations

import pytest

from harness.report import palette

SCHEMES = {"light": palette.LIGHT, "dark": palette.DARK}


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marks_stand_out_from_the_paper(scheme: str) -> None:
    paper = palette.SCHEMES[scheme]["paper"]
    assert all(contrast(colour, paper) >= 3 for colour in SCHEMES[scheme])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ground", ["paper", "raised"])
@pytest.mark.parametrize("text", ["ink", "muted", "accent", "good", "bad"])
def test_text_is_readable(scheme: str, ground: str, text: str) -> None:
    assert contrast(palette.SCHEMES[scheme][text], palette.SCHEMES[scheme][ground]) >= 4.5


def test_no_two_of_as_many_targets_as_there_are_combinations_look_alike() -> None:
    count = len(palette.LIGHT) * len(palette.MARKS)
    looks = palette.looks(f"target-{number:03}" for number in range(count))
    assert len({(look.colour, look.mark) for look in looks.values()}) == count
    assert all(one.mark != other.mark for one, other in combinations(list(looks.values())[: len(palette.MARKS)], 2))


def test_a_look_follows_from_the_names_alone() -> None:
    assert palette.looks(["b", "a", "a"]) == palette.looks(["a", "b"])
