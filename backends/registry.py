"""Backend names to classes, without importing any of them: name -> ``module:Class``.

Other distributions add theirs through the entry-point group ``harness.backends``. They are looked for where the worker
runs: in the target's own interpreter, and in the folder of its ``path``. ``docs/backends.md`` is for their authors.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from backends.protocol import Backend
from harness.core.errors import Unsupported

ENTRY_POINT_GROUP = "harness.backends"

BUILT_IN = {
    "reference": "backends.reference:ReferenceBackend",
    "tensorflow_keras": "backends.tensorflow_keras:TensorFlowBackend",
    "jax_flax": "backends.jax_flax:JaxBackend",
}


def names() -> dict[str, str]:
    """Every known backend; the project's own win over entry points of the same name."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**found, **BUILT_IN}


def create(name: str) -> Backend:
    """Instantiate a backend by its name, or by ``module:Class``. Raises Unsupported if there is none."""
    place = name if ":" in name else names().get(name)
    if place is None:
        raise Unsupported(
            f"no backend is called {name!r} in this target's interpreter; known there: {', '.join(sorted(names()))}"
        )
    backend: Backend = EntryPoint(name, place, ENTRY_POINT_GROUP).load()()
    return backend
