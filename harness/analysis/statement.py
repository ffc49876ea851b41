"""Which question targets answer: what a person gets who installs a framework, or what the framework can do at its best.

Targets go in, words come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.core.cell import Target, label_and_devices

AS_INSTALLED, AT_ITS_BEST, AS_SET = "as installed", "at its best", "with options set by hand"
AS_ITS_OWNER_SET = "as its owner set it"

PLAIN_SETTINGS = frozenset(
    {
        "",
        "4b48459547effdf0",
        "52c2fd94e7ea0d74",
        "5415b36e34072878",
        "a5de78a6c14c893e",
        "dcc67b66d2c93a5e",
        "ff8300dfdc7e01ac",
    }
)
"""``Target.settings`` of the built-in targets that are not tuned, of earlier versions too: what only chooses a device
and keeps frameworks from taking all of its memory. A record tells no more of a definition than that."""


LOGICAL = (
    "They are logical devices that share the same processors: they show that training on several devices is right, and "
    "their speed means nothing"
)
"""Why nothing is said of how fast several devices of a processor are."""


def shares_processors(accelerator: str, label: str) -> bool:
    """Whether a target is one of several logical devices: no verdict, headline or recommendation is made of those."""
    return accelerator == "cpu" and label_and_devices(label)[1] > 1


def of_logical(labels: Iterable[str]) -> str:
    """That nothing is said of the speed of these targets, in a sentence; empty for none."""
    named = ", ".join(sorted(set(labels)))
    return f"{named}: {LOGICAL[0].lower()}{LOGICAL[1:]}, so no verdict is given of it." if named else ""


def of(target: Target) -> str:
    """One of the four words. What variables in a definition of one's own are for is not known: its owner knows."""
    if target.tuned:
        return AT_ITS_BEST
    if target.settings not in PLAIN_SETTINGS:
        return AS_ITS_OWNER_SET
    return AS_SET if target.all_options else AS_INSTALLED


def sentence(kinds: Mapping[str, str]) -> str:
    """What numbers of several targets say; ``kinds``: label -> its word. Empty where nothing is known."""
    words = set(kinds.values())
    if words == {AS_INSTALLED}:
        return "As installed: this is what each framework gives unasked, not what it can do at its best."
    if words == {AT_ITS_BEST}:
        return "At its best: each framework has settings chosen for speed ('harness targets show NAME' lists them)."
    if words == {AS_ITS_OWNER_SET}:
        return "As their owner set them: these targets have variables or code of their own, for speed or not."
    told = ", ".join(f"{label} {word}" for label, word in kinds.items())
    return f"Not all of one kind: {told} ('harness targets show NAME' lists settings)." if told else ""


def of_targets(targets: Iterable[Target]) -> str:
    """``sentence`` of targets, each once."""
    return sentence({target.label: of(target) for target in targets})
