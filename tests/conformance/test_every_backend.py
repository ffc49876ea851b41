"""No backend of the project's own goes unproven."""

from __future__ import annotations

from backends import registry
from harness.measure.session import REFERENCE
from harness.plan import targets

from .conftest import every_lane


def test_every_built_in_backend_has_a_lane_or_is_the_reference() -> None:
    definitions = targets.definitions()
    reached = {targets.resolve(lane, definitions).backend for lane in every_lane()}
    assert reached | {definitions[REFERENCE].backend} == registry.BUILT_IN.keys()


def test_every_mode_of_every_built_in_backend_has_a_lane() -> None:
    definitions = targets.definitions()
    lanes = {(target.backend, target.mode) for target in (targets.resolve(lane, definitions) for lane in every_lane())}
    oracle = definitions[REFERENCE].backend
    offered = {
        (name, mode)
        for name in registry.BUILT_IN
        if name != oracle
        for mode in registry.create(name).capabilities().modes
    }
    assert lanes == offered
