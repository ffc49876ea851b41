"""What a target can be asked to do otherwise, as data, and the targets that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends import registry
from harness.core import codec
from harness.plan import targets, tomlfile, variants
from harness.plan.variants import Variant

DEFINITIONS = targets.built_in()


def able(name: str) -> dict[str, Any]:
    """As a worker tells it."""
    found: dict[str, Any] = codec.to_json(registry.create(DEFINITIONS[name].backend).capabilities())
    return found


def singles(text: str, processors: int = 4) -> list[str]:
    target = targets.resolve(text, DEFINITIONS)
    return [str(one) for one in variants.single(target, DEFINITIONS[target.name], able(target.name), processors)]


def test_every_single_change_of_a_target_is_offered() -> None:
    assert singles("jax-cpu") == [
        "pool_gradient=first_maximum",
        "convolution_gradient=canonical",
        "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=",
        "steps_per_call=8",
        "steps_per_call=32",
        "input=host",
        "cpus=2",
    ]
    assert {"TF_ENABLE_ONEDNN_OPTS=1", "mode=xla", "mode=fit", "steps_per_call=8"} <= set(singles("tensorflow-cpu"))


def test_what_a_target_does_already_is_no_change() -> None:
    found = singles("jax-cpu:jit@steps_per_call=8@pool_gradient=first_maximum@input=host@cpus=1")
    assert "steps_per_call=8" not in found
    assert "pool_gradient=select_and_scatter" in found
    assert "loop=unrolled" in found
    assert "input=resident" in found
    assert not [one for one in found if one.startswith("cpus=")]
    assert not [one for one in singles("jax-cpu", processors=1) if one.startswith("cpus=")]
    assert singles("reference", processors=1) == []


def test_unions_have_the_best_first_and_one_value_for_each_key() -> None:
    found = [Variant.of(one) for one in ({"a": "1"}, {"b": "2"}, {"a": "3"}, {"C": "4"})]
    unions = [dict(one.changes) for one in variants.combined(found, 3)]
    assert unions == [{"a": "1", "b": "2"}, {"a": "1", "b": "2", "C": "4"}]
    assert variants.combined(found[:1], 3) == variants.combined([], 3) == ()


@pytest.mark.parametrize(
    ("base", "changes", "label"),
    [
        ("jax-cpu", {"steps_per_call": "8", "input": "host"}, "jax-cpu:jit@input=host@steps_per_call=8"),
        ("jax-cpu", {"pool_gradient": "first_maximum"}, "jax-cpu:jit@pool_gradient=first_maximum"),
        ("tensorflow-cpu@cpus=2", {"mode": "xla"}, "tensorflow-cpu:xla@cpus=2"),
        ("tensorflow-cpu:fit", {"mode": "graph"}, "tensorflow-cpu:graph"),
        ("tensorflow-cpu", {"mode": "fit"}, "tensorflow-cpu:fit"),
        ("tensorflow-cpu", {"TF_ENABLE_ONEDNN_OPTS": "1"}, "trial:graph"),
    ],
)
def test_a_setting_becomes_a_target(base: str, changes: dict[str, str], label: str) -> None:
    target = targets.resolve(base, DEFINITIONS)
    definition, made = variants.realised(Variant.of(changes), target, DEFINITIONS, "trial")
    assert made.label == label
    variables = {key: value for key, value in changes.items() if key.isupper()}
    assert variables.items() <= definition.env.items()
    assert (definition.name == "trial") == bool(variables)
    assert made.environment == target.environment


def test_knobs_that_only_a_running_backend_tells_of_go_into_a_definition() -> None:
    target = targets.resolve("reference", DEFINITIONS)
    definition, made = variants.realised(Variant.of({"speed": "high"}), target, DEFINITIONS, "trial")
    assert definition.options == {"speed": "high"}
    assert dict(made.defined_options) == {"speed": "high"}


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("jax-cpu", {"steps_per_call": "8", "pool_gradient": "first_maximum", "XLA_FLAGS": "--x="}),
        ("tensorflow-cpu", {"TF_ENABLE_ONEDNN_OPTS": "1", "input": "host", "cpus": "1", "mode": "xla"}),
    ],
)
def test_a_setting_as_toml_is_a_target_that_does_the_same(base: str, changes: dict[str, str], tmp_path: Path) -> None:
    target = targets.resolve(base, DEFINITIONS)
    text = variants.as_toml("here", Variant.of(changes), target, ["found on a Sunday"])
    (tmp_path / "harness.toml").write_text(text)
    tables = tomlfile.read(tmp_path / "harness.toml")["targets"]
    assert "# found on a Sunday" in text
    definitions = targets.definitions(tables, "harness.toml")
    made = targets.resolve("here", definitions)
    _, meant = variants.realised(Variant.of(changes), target, DEFINITIONS, "here")
    same = ("mode", "input", "steps_per_call", "cpus", "settings", "environment", "all_options")
    assert {key: getattr(made, key) for key in same} == {key: getattr(meant, key) for key in same}
    assert made.tuned
