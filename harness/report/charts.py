"""All figures of a run: of each work those that there is data for, and of the others why not.

In: ``harness.analysis.Analysis``. Out: ``Gallery``. A page and its pictures show the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report import figures_of_learning as learning
from harness.report import figures_of_speed as speed
from harness.report import other_load
from harness.report.figure import Absent, Figure, Maker
from harness.report.works import Work, works

if TYPE_CHECKING:
    from harness.analysis import Analysis
    from harness.analysis.reading import NoiseScale, RateSearch

MAKERS: tuple[Maker, ...] = (
    speed.training_time,
    learning.accuracy,
    speed.throughput,
    learning.time_to_accuracy,
    learning.steps_to_accuracy,
    learning.learning_by_epoch,
    learning.learning_by_time,
    speed.step_time,
    speed.step_residuals,
    speed.what_a_step_waits_for,
    speed.speed_up,
    speed.startup,
    speed.limit_share,
    speed.energy,
    learning.noise_scale,
    learning.learning_rates,
    learning.beside_one_rate,
)
"""In the order in which they are shown: the study's own two first."""


@dataclass(frozen=True)
class Gallery:
    """The figures of one work, and those that it has no data for."""

    work: Work
    figures: tuple[Figure, ...]
    absent: tuple[Absent, ...]


def galleries(found: Analysis, noise: Sequence[NoiseScale] = (), rates: Sequence[RateSearch] = ()) -> Iterator[Gallery]:
    """The figures of every work of a run, each made when it is taken."""
    for work in works(found, noise, rates):
        made = [maker(work) for maker in MAKERS]
        figures = tuple(one.of(work) for one in made if isinstance(one, Figure))
        yield Gallery(work, figures, tuple(one for one in made if isinstance(one, Absent)))


def figures(found: Analysis, noise: Sequence[NoiseScale] = (), rates: Sequence[RateSearch] = ()) -> list[Figure]:
    """The figures of all works and of other load, each with a name of its own."""
    return [
        *(figure for gallery in galleries(found, noise, rates) for figure in gallery.figures),
        *of_other_load(found),
    ]


def of_other_load(found: Analysis) -> list[Figure]:
    """Throughput against other load, of each machine that had some."""
    return other_load.figures(found.blame, found.other_load, sorted(found.cells["target"].unique()))
