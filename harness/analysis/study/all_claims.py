"""All claims of the study, of the systems that runs were made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.explaining import BackwardShare
from harness.analysis.study import (
    backward_pass,
    batch_and_accuracy,
    batch_and_time,
    best_settings,
    devices,
    shared_systems,
    ways_of_training,
)
from harness.analysis.study.answers import UNTOLD, ClaimAnswer
from harness.analysis.systems import System


def answers(
    systems: Sequence[System], shares: Mapping[str, Sequence[BackwardShare]], accuracy: float | None = None
) -> list[ClaimAnswer]:
    """The answers in the order of the claims, of each claim by system.

    ``shares``: system -> what the parts of its steps took, where they were taken apart. ``accuracy``: the one looked
    at, a share of one, None for the usual one.
    """
    made = []
    for one in systems:
        gains = batch_and_time.answers(one)
        made += gains or [_untold(1, one)]
        made += devices.answers(one)
        made += batch_and_accuracy.falls(one) or [_untold(3, one)]
        made += batch_and_accuracy.recovers(one) or [_untold(4, one)]
        made += shared_systems.answers(one, gains)
        made += backward_pass.answers(one, shares.get(one.name, ()))
        made += ways_of_training.answers(one, accuracy)
    made += best_settings.answers(systems)
    return sorted(made, key=lambda one: (one.number, one.part))


def _untold(number: int, system: System) -> ClaimAnswer:
    """Of a system on which nothing was trained that a claim is about."""
    tell = "harness sweep study --batch-size 16,64,256,1024 --epochs 1,5 --seed 0,1,2"
    return ClaimAnswer(number, "", system.name, "", UNTOLD, "Nothing was trained for this here.", would_tell=tell)
