"""The support table: what a declaration means for each target, mode and precision, and how it is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.model import LAYERS
from harness.core.training import OPTIMIZERS, OPTIONS
from harness.doctor import support
from harness.doctor.support import (
    ONE_SIZE,
    ONE_STEP,
    UNEXPLAINED,
    WHOLE_BATCHES,
    SupportRow,
    declarers,
    markdown,
    refusal,
    rows,
)
from harness.plan import targets
from harness.plan.targets import TargetDefinition

ABLE: dict[str, Any] = {
    "accelerators": ["cpu", "directml"],
    "modes": ["graph", "xla"],
    "inputs": {"graph": ["resident", "host"], "xla": ["host"]},
    "precisions": ["float32", "mixed_bfloat16"],
    "layers": [name for name in LAYERS if name != "batch_norm"],
    "optimizers": list(OPTIMIZERS),
    "loops": {"graph": ["resident"]},
    "options": [name for name in OPTIONS if name != "clip_norm"],
    "plans": ["graph", "xla"],
    "microbatches": ["graph"],
    "devices": ["graph", "xla"],
    "refusals": {
        "batch_norm": "no moments",
        "mixed_float16": "slow",
        "mixed_bfloat16 on directml": "no kernels",
        "xla on directml": "no compiler",
        "adam in xla": "no fusion",
        "dense in mixed_bfloat16": "no product",
        "xla with input resident": "no room",
        "steps_per_call in xla": "no loops",
        "clip_norm": "no norms",
        "l2_weight_decay in xla": "no sums",
        "microbatch in xla": "whole ones",
        "devices in xla": "no meshes",
        "devices on directml": "one adapter",
    },
}


def definition(name: str, accelerator: str = "cpu", python: str = "3.11", **changes: Any) -> TargetDefinition:
    made = TargetDefinition(
        name, name, "b", accelerator, python, Path("lock"), None, ("graph", "xla"), ("linux",), {}, {}, "file"
    )
    return replace(made, **changes)


def row(target: str, mode: str, able: Any = ABLE) -> SupportRow:
    defined = {name: definition(name, name) for name in ("cpu", "directml", "cuda")}
    found = {(one.target, one.mode): one for one in rows(defined, {"cpu": able})}
    return found[target, mode]


def test_lists_say_what_is_offered_and_refusals_why_the_rest_is_not() -> None:
    found = row("cpu", "graph")
    assert found.precisions == {"float32": "", "mixed_bfloat16": "", "mixed_float16": "slow"}
    assert {name: why for name, why in found.layers["float32"].items() if why} == {"batch_norm": "no moments"}
    assert set(found.optimizers.values()) == set(found.inputs.values()) == {""}
    assert refusal({"layers": []}, "layers", "dense", "cpu") == UNEXPLAINED


def test_refusals_narrow_by_mode_precision_and_accelerator() -> None:
    assert row("cpu", "xla").optimizers["adam"] == "no fusion"
    assert row("cpu", "xla").inputs == {"resident": "no room", "host": ""}
    assert row("cpu", "graph").layers["mixed_bfloat16"]["dense"] == "no product"
    assert row("cpu", "graph").layers["float32"]["dense"] == ""
    assert row("directml", "graph").precisions["mixed_bfloat16"] == "no kernels"
    assert set(row("directml", "graph").layers["mixed_bfloat16"].values()) == {"no kernels"}


def test_a_mode_or_accelerator_that_is_not_offered_leaves_nothing() -> None:
    for found, why in ((row("directml", "xla"), "no compiler"), (row("cuda", "graph"), UNEXPLAINED)):
        for reasons in (found.precisions, *found.layers.values(), found.inputs, found.optimizers):
            assert set(reasons.values()) == {why}


def test_what_does_not_answer_is_not_guessed() -> None:
    found = row("cpu", "graph", able="worker exited with status 3")
    assert set(found.precisions.values()) == set(found.inputs.values()) == {"worker exited with status 3"}


def test_gpu_targets_are_declared_in_the_cpu_environment_of_their_python() -> None:
    named = {
        one.name: one
        for one in (
            definition("new"),
            definition("old", python="3.10"),
            definition("old-gpu", "cuda", "3.10"),
            definition("other-gpu", "cuda", "3.12"),
            definition("own-gpu", "cuda", "", lock=None, interpreter="/opt/python"),
            definition("alone", "cuda", backend="another"),
        )
    }
    assert declarers(named) == {
        "new": "new",
        "old": "old",
        "old-gpu": "old",
        "other-gpu": "new",
        "own-gpu": "own-gpu",
        "alone": "alone",
    }


def test_every_built_in_target_is_declared_on_the_cpu() -> None:
    built_in = targets.built_in()
    assert {built_in[name].accelerator for name in declarers(built_in).values()} == {"cpu"}


def test_the_table_says_every_reason_once_below_it() -> None:
    defined = {name: definition(name, name) for name in ("cpu", "directml")}
    one, mixed = "all but batch_norm (1)", "all but batch_norm, dense (1, 2)"
    lines = markdown(rows(defined, {"cpu": ABLE})).splitlines()
    whole = f"| {one} | {mixed} | no (3) | resident, host | all | all but clip_norm (4) | any number but host (5) |"
    assert lines[:6] == [
        (
            "| target | mode | float32 | mixed_bfloat16 | mixed_float16 | input | optimizers | options "
            "| steps per call | plans | parts | devices |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| cpu | graph {whole} yes | yes | any number |",
        (
            f"| cpu | xla | {one} | {mixed} | no (3) | host (6) | all but adam (7) | "
            "all but l2_weight_decay, clip_norm (8, 4) | no (9) | yes | no (10) | no (11) |"
        ),
        f"| directml | graph {whole.replace(mixed, 'no (12)')} yes | yes | no (13) |",
        f"| directml | xla{' | no (14)' * 10} |",
    ]
    assert "directml in cpu's" in lines[7]
    assert lines[9:] == [
        "1. no moments",
        "2. no product",
        "3. slow",
        "4. no norms",
        f"5. {ONE_STEP}",
        "6. no room",
        "7. no fusion",
        "8. no sums",
        "9. no loops",
        "10. whole ones",
        "11. no meshes",
        "12. no kernels",
        "13. one adapter",
        "14. no compiler",
    ]


def test_what_a_backend_says_nothing_of_is_not_offered() -> None:
    older = {key: value for key, value in ABLE.items() if key not in ("options", "plans", "microbatches")}
    found = row("cpu", "graph", older)
    assert (found.plans, found.microbatches) == (ONE_SIZE, WHOLE_BATCHES)
    assert found.options["label_smoothing"] == UNEXPLAINED


@pytest.mark.parametrize("able", [ABLE, "it is broken"])
def test_rows_hold_every_name_there_is(able: Any) -> None:
    for found in rows({"cpu": definition("cpu")}, {"cpu": able}):
        assert tuple(found.layers["float32"]) == tuple(LAYERS)
        assert tuple(found.optimizers) == OPTIMIZERS
    assert support.markdown(rows({"cpu": definition("cpu")}, {"cpu": able})).endswith("\n")
