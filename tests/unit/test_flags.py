"""Flags that a framework does not know are told in one line, whatever it prints beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.workers import flags

ABORTED = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
F1130 00:23:11.028312   25544 parse_flags_from_env.cc:234] Unknown flag{s} in XLA_FLAGS: {flags}
"""
UNREADABLE = """E1130 command_line_flags.cc:93] Couldn't interpret value maybe for flag xla_cpu_enable_fast_math.
F1130 parse_flags_from_env.cc:220] Check failed: tsl::Flags::Parse(&env_argv->argc) Flag parsing failed.
usage: --xla_cpu_enable_fast_math=maybe
"""


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (ABORTED.format(s="", flags="--xla_odd=1"), "its framework does not know --xla_odd=1 in XLA_FLAGS"),
        (ABORTED.format(s="s", flags="--xla_odd --b=2"), "its framework does not know --xla_odd --b=2 in XLA_FLAGS"),
        (UNREADABLE, "its framework cannot read the value 'maybe' of xla_cpu_enable_fast_math"),
        ("Segmentation fault", ""),
    ],
)
def test_what_is_wrong_is_told_in_a_line(output: str, why: str) -> None:
    assert flags.told(output) == why


def test_a_framework_is_asked_only_where_a_target_gives_it_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable)
    words = "import os, sys; sys.exit('Unknown flag in XLA_FLAGS: ' + os.environ['XLA_FLAGS'])"
    monkeypatch.setitem(flags.COMPILES, "jax_flax", words)
    assert flags.refused(python, "jax_flax", {"XLA_FLAGS": "--odd"}).endswith("does not know --odd in XLA_FLAGS")
    assert flags.refused(python, "jax_flax", {"JAX_PLATFORMS": "cpu"}) == ""
    assert flags.refused(python, "module:Class", {"XLA_FLAGS": "--odd"}) == ""
    assert flags.refused(Path("/nonexistent/python"), "jax_flax", {"XLA_FLAGS": "--odd"}) == ""
