"""What records say of their heats, in every form that files have it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.core import codec
from harness.core.errors import ContractError
from harness.core.record import HeatFacts, Record
from harness.runs import record_file
from harness.runs.folder import Run
from tests.unit.records import cell, record

ROOT = Path(__file__).resolve().parents[2]
STORED = sorted(
    plan.parent for place in ("tests/golden", "benchmarks/results") for plan in ROOT.glob(f"{place}/**/plan.json")
)
"""Runs of all versions so far that the project brings along."""

OLDEST = {
    "interleave": "block",
    "cells": ["a", "b"],
    "fallback": "",
    "rounds": 3,
    "dropped": {"1": "the machine was suspended for 9.0 s"},
    "block_steps": 8,
    "settle_steps": 1,
    "measured_seconds": None,
    "idle_share": 0.25,
}
"""The first form."""

TOLD = {
    "opened_together": True,
    "other_processors": 0.5,
    "stolen_processors": 0.0,
    "throttled_processors": 0.125,
    "load_untold": "the counters are off",
}
"""What came later."""


def loaded(**heat: Any) -> Record:
    """A record whose file had these facts of its heat."""
    return codec.from_json(Record, {**codec.to_json(record(cell())), **heat})


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_stored_records_are_written_again_to_the_same_bytes(folder: Path) -> None:
    for kept in Run.open(folder).records():
        assert record_file.encode(kept) == (folder / "records" / f"{kept.cell_id}.json").read_bytes()


def test_stored_records_have_heats_in_several_forms() -> None:
    records = [json.loads(path.read_bytes()) for folder in STORED for path in folder.glob("records/*.json")]
    forms = {tuple(one.get("heat", ())) for one in records}
    facts = (*OLDEST, *TOLD)
    assert {(), facts[: facts.index("opened_together") + 1], facts[: facts.index("stolen_processors") + 1]} <= forms
    assert all(form == facts[: len(form)] for form in forms)


@pytest.mark.parametrize("heat", [{}, {"heat": {}}], ids=["no heat", "an empty one"])
def test_a_record_without_facts_of_a_heat_says_nothing_of_it(heat: dict[str, Any]) -> None:
    found = loaded(**heat)
    assert found.heat == HeatFacts()
    assert found.heat.interleave == ""
    assert "heat" not in codec.to_json(found)


@pytest.mark.parametrize("later", range(len(TOLD) + 1))
def test_facts_that_came_later_may_be_missing(later: int) -> None:
    told = dict([*TOLD.items()][:later])
    found = loaded(heat={**OLDEST, **told}).heat
    assert (found.interleave, found.cells, found.rounds, found.idle_share) == ("block", ("a", "b"), 3, 0.25)
    assert found.dropped == OLDEST["dropped"]
    untold = HeatFacts()
    assert [getattr(found, name) for name in TOLD] == [told.get(name, getattr(untold, name)) for name in TOLD]


def test_a_heat_is_written_with_the_keys_that_it_always_had() -> None:
    full = codec.to_json(loaded(heat={**OLDEST, **TOLD}))["heat"]
    assert full == {**OLDEST, **TOLD}
    assert list(full) == [field.name for field in dataclasses.fields(HeatFacts)]


@pytest.mark.parametrize(
    ("heat", "said"),
    [
        ({"rounds": "three"}, "Record.heat.rounds: expected an integer, found 'three'"),
        ({"colour": "red"}, "Record.heat: unknown key 'colour'"),
        (None, "Record.heat: expected an object (HeatFacts), found None"),
    ],
)
def test_a_damaged_heat_is_said_to_be_one(heat: Any, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        loaded(heat=heat)
    assert str(caught.value) == said
