"""What a target asks of a backend beyond its defaults is refused in a line where the backend does not declare it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from backends.protocol import Capabilities
from backends.serving import require_devices, require_offered, require_trainable
from harness.core import knobs
from harness.core.cell import Cell, Dataset, Inputs
from harness.core.errors import Unsupported
from harness.core.training import OPTIONS, OptimizerSpec, TrainingSpec
from tests.unit.records import JAX, MODEL

OLD = {
    "accelerators": ("cpu",),
    "modes": ("jit",),
    "inputs": {"jit": ("resident", "host")},
    "precisions": ("float32",),
    "layers": ("dense",),
    "optimizers": ("sgd",),
    "can_fork": True,
    "refusals": {},
}
"""All that there was to declare at first."""

KNOB = knobs.Knob("speed", ("usual", "high"), "how fast")


class Backend:
    name = "mine"

    def __init__(self, able: Any) -> None:
        self._able = able

    def capabilities(self) -> Any:
        return self._able


class Older:
    """As a backend brings it that has a class of its own from before there was more to declare."""

    def __init__(self) -> None:
        vars(self).update(OLD)


def required(able: Any, **asked: Any) -> None:
    require_offered(Backend(able), replace(JAX, **asked))  # type: ignore[arg-type]


@pytest.mark.parametrize("able", [Capabilities(**OLD), Older(), None])
def test_a_target_that_asks_for_nothing_is_every_backends(able: Any) -> None:
    required(able)


@pytest.mark.parametrize("able", [Capabilities(**OLD), Older()])
def test_a_backend_that_says_nothing_of_loops_has_none(able: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        required(able, steps_per_call=8)
    assert str(caught.value) == (
        "mine has no steps_per_call=8 in mode 'jit' with input 'resident': its adapter offers one step per call"
    )


def test_a_loop_is_offered_by_mode_and_input_and_refused_with_the_reason() -> None:
    able = Capabilities(**OLD, loops={"jit": ("resident",)})
    required(able, steps_per_call=8)
    with pytest.raises(Unsupported, match="with input 'host'"):
        required(able, steps_per_call=8, input="host")
    why = Capabilities(**{**OLD, "refusals": {"steps_per_call in jit": "no loops here"}})
    with pytest.raises(Unsupported, match="no loops here"):
        required(why, steps_per_call=2)


@pytest.mark.parametrize("place", ["options", "defined_options"])
def test_an_option_must_be_a_knob_and_one_of_its_values(place: str) -> None:
    able = Capabilities(**OLD, knobs=(KNOB,))
    required(able, **{place: (("speed", "high"),)})
    with pytest.raises(Unsupported, match="speed: found 'low', allowed: usual, high"):
        required(able, **{place: (("speed", "low"),)})
    with pytest.raises(Unsupported, match="unknown key 'sped'; allowed: speed"):
        required(able, **{place: (("sped", "high"),)})
    with pytest.raises(Unsupported, match="allowed: none"):
        required(Older(), **{place: (("speed", "high"),)})


def test_every_knob_has_a_value_asked_for_or_not() -> None:
    assert knobs.chosen({}, (KNOB,)) == {"speed": "usual"}
    assert knobs.chosen({"speed": "high"}, (KNOB,)) == {"speed": "high"}


def test_what_is_asked_beside_the_name_counts_more_than_the_definition() -> None:
    target = replace(JAX, defined_options=(("a", "1"), ("b", "1")), options=(("b", "2"),))
    assert target.all_options == {"a": "1", "b": "2"}


def test_the_later_declarations_are_the_only_ones_with_defaults() -> None:
    assert {field.name for field in fields(Capabilities)} - OLD.keys() == {
        "loops",
        "knobs",
        "options",
        "plans",
        "microbatches",
        "devices",
    }


@pytest.mark.parametrize(
    ("declared", "refusals", "reason"),
    [
        ((), {}, "mine cannot train with l2_weight_decay in mode 'jit': its adapter does not declare it"),
        ((), {"l2_weight_decay": "slow"}, "mine cannot train with l2_weight_decay in mode 'jit': slow"),
        (
            OPTIONS,
            {"l2_weight_decay in jit": "not here"},
            "mine cannot train with l2_weight_decay in mode 'jit': not here",
        ),
        (OPTIONS, {"l2_weight_decay in fit": "not there"}, ""),
        (
            OPTIONS,
            {"l2_weight_decay on cpu": "no kernel"},
            "mine cannot train with l2_weight_decay in mode 'jit': no kernel",
        ),
    ],
)
def test_what_a_training_asks_for_is_refused_where_it_is_not_declared(
    declared: tuple[str, ...], refusals: dict[str, str], reason: str
) -> None:
    optimizer = OptimizerSpec("sgd", weight_decay=0.1, weight_decay_form="l2")
    cell = Cell(MODEL, TrainingSpec(4, optimizer=optimizer), Dataset("d", "", 8, 8, (4, 4, 1), 3), Inputs("", ""), JAX)
    backend = Backend(Capabilities(**{**OLD, "options": declared, "refusals": refusals}))  # type: ignore[arg-type]
    if not reason:
        require_trainable(backend, cell)  # type: ignore[arg-type]
        return
    with pytest.raises(Unsupported) as caught:
        require_trainable(backend, cell)  # type: ignore[arg-type]
    assert str(caught.value) == reason
    plain = replace(cell, training=TrainingSpec(4))
    require_trainable(backend, plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "asked", "reason"),
    [
        ({}, {}, "its adapter trains on one"),
        ({"devices": ("jit",)}, {}, ""),
        ({"devices": ("jit",), "refusals": {"devices on cpu": "no cable"}}, {}, "no cable"),
        ({"refusals": {"devices in jit": "no mesh"}}, {}, "no mesh"),
        ({"devices": ("jit",), "refusals": {"devices with steps_per_call in jit": "no loop"}}, {}, ""),
        (
            {"devices": ("jit",), "refusals": {"devices with steps_per_call in jit": "no loop"}},
            {"steps_per_call": 2},
            "no loop",
        ),
        ({"devices": ("jit",)}, {"devices": 3}, "batch size 4 cannot be split into 3 equal parts, one for each device"),
    ],
)
def test_several_devices_are_refused_where_they_are_not_declared(
    declared: dict[str, Any], asked: dict[str, Any], reason: str
) -> None:
    backend = Backend(Capabilities(**{**OLD, **declared}))
    target = replace(JAX, **{"devices": 2, **asked})
    cell = Cell(MODEL, TrainingSpec(4), Dataset("d", "", 8, 8, (4, 4, 1), 3), Inputs("", ""), target)
    if not reason:
        require_devices(backend, cell)  # type: ignore[arg-type]
        return
    with pytest.raises(Unsupported) as caught:
        require_devices(backend, cell)  # type: ignore[arg-type]
    assert str(caught.value) == f"mine has no devices={target.devices} in mode 'jit': {reason}"
    require_devices(Backend(None), replace(cell, target=JAX))  # type: ignore[arg-type]
