"""Define a CNN once, train it identically in several frameworks, and time it honestly.

>>> import harness
>>> result = harness.sweep("quick", batch_size=[16, 64])
>>> harness.recommend(result.folder)

What the commands do, functions do: ``sweep``, ``compare``, ``explain``, ``tune``, ``verify``, ``doctor``, ``report``,
``recommend``, ``study``, ``history``, ``largest_batch``, with the flags' names as keywords. ``load`` gives a table of a
run, ``Model`` and ``Sweep`` are what files say, as objects. Each is imported when it is first used; ``import harness``
loads nothing else.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.actions.compare import compare as compare
    from harness.actions.doctor import doctor as doctor
    from harness.actions.explain import explain as explain
    from harness.actions.history import history as history
    from harness.actions.largest_batch import largest_batch as largest_batch
    from harness.actions.objects import Model as Model
    from harness.actions.objects import Sweep as Sweep
    from harness.actions.recommend import recommend as recommend
    from harness.actions.report import report as report
    from harness.actions.shown import RunStopped as RunStopped
    from harness.actions.study import study as study
    from harness.actions.sweep import sweep as sweep
    from harness.actions.tune import tune as tune
    from harness.actions.verify import verify as verify
    from harness.analysis.reading import load as load
    from harness.core.model import Activation as Activation
    from harness.core.model import AveragePool as AveragePool
    from harness.core.model import BatchNorm as BatchNorm
    from harness.core.model import Conv2D as Conv2D
    from harness.core.model import Dense as Dense
    from harness.core.model import Dropout as Dropout
    from harness.core.model import Flatten as Flatten
    from harness.core.model import GlobalAveragePool as GlobalAveragePool
    from harness.core.model import MaxPool as MaxPool

__version__ = "0.1.0"

_PLACES = {
    "sweep": "harness.actions.sweep",
    "compare": "harness.actions.compare",
    "explain": "harness.actions.explain",
    "verify": "harness.actions.verify",
    "tune": "harness.actions.tune",
    "doctor": "harness.actions.doctor",
    "largest_batch": "harness.actions.largest_batch",
    "load": "harness.analysis.reading",
    "report": "harness.actions.report",
    "recommend": "harness.actions.recommend",
    "study": "harness.actions.study",
    "history": "harness.actions.history",
    "RunStopped": "harness.actions.shown",
    "Model": "harness.actions.objects",
    "Sweep": "harness.actions.objects",
    **dict.fromkeys(
        (
            "Conv2D",
            "MaxPool",
            "AveragePool",
            "GlobalAveragePool",
            "BatchNorm",
            "Activation",
            "Flatten",
            "Dropout",
            "Dense",
        ),
        "harness.core.model",
    ),
}
"""What Python offers -> the module that has it."""

__all__ = [*_PLACES, "__version__"]  # all of them are texts


class _Package(ModuleType):
    """This package. ``harness.report`` and ``harness.doctor`` are functions here, and folders for whoever imports them.

    Importing a folder would set it as an attribute in the function's place.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
