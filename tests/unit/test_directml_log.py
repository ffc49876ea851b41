"""The words that are expected of DirectML's plugin, held against a log that it wrote.

``tests/golden/directml.log``: of a worker that trained lenet5 by TensorFlow 2.10.0 and plugin 0.4.0.dev230202 on
Windows Python 3.10 under Wine, as it wrote it; two lines that name folders are left out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core import device_failures
from harness.proof.device import adapter_in
from harness.workers import last_words

LOG = (Path(__file__).parents[1] / "golden" / "directml.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_adapter_is_read_from_it(end: str) -> None:
    assert adapter_in(LOG.replace("\n", end)) == "llvmpipe (LLVM 19.1.7, 256 bits)"


def test_a_log_that_ends_before_a_device_was_made_names_none() -> None:
    before, found, _ = LOG.partition("DirectML: creating device")
    assert found
    assert "DirectML device enumeration: found 1 compatible adapters." in before
    assert adapter_in(before) == ""


def test_nothing_of_a_log_without_a_failure_is_taken_for_one() -> None:
    assert device_failures.meaning(LOG) is None
    assert last_words.telling(LOG.splitlines()) == ""


def test_a_failure_after_it_is_what_is_told() -> None:
    died = "2026-11-29 20:25:10.0: F tensorflow/c/logging.cc:43] HRESULT failed with 0x887a0005: the device was removed"
    assert device_failures.meaning(f"{LOG}{died}\n") is not None
    assert last_words.telling([*LOG.splitlines(), died]) == died
