"""Backend names to classes, without importing any of them: name -> ``module:Class``.

Other distributions add theirs through the entry-point group ``harness.backends``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

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
        raise Unsupported(f"no backend is called {name!r}; known: {', '.join(sorted(names()))}")
    module, _, attribute = place.partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend
