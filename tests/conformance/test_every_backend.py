"""No backend of the project's own goes unproven."""

from __future__ import annotations

import pytest

from backends import registry
from harness.measure.session import REFERENCE
from harness.plan import targets
from harness.workers import environments, flags

from .conftest import Bench, every_lane


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


@pytest.mark.parametrize("target", ["tensorflow-cpu", "jax-cpu"])
def test_flags_that_a_framework_does_not_know_are_told_before_a_run(bench: Bench, target: str) -> None:
    definition = bench.definitions[target]
    python = environments.ensure(definition)
    known = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}
    assert flags.refused(python, definition.backend, {**definition.env, **known}) == ""
    odd = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false --xla_odd=1"}
    told = flags.refused(python, definition.backend, {**definition.env, **odd})
    assert told == "its framework does not know --xla_odd=1 in XLA_FLAGS"
