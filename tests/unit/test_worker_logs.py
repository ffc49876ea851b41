"""Which line of a worker's log is told of one that died."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.workers.worker import last_line

ACCESS_VIOLATION = """Windows fatal exception: access violation

Thread 0x00000a2c (most recent call first):
  File "C:\\Python310\\lib\\threading.py", line 320 in wait

Current thread 0x00001f18 (most recent call first):
  File "C:\\run\\backends\\worker.py", line 91 in main
  File "C:\\Python310\\lib\\runpy.py", line 86 in _run_code
  File "C:\\Python310\\lib\\runpy.py", line 196 in _run_module_as_main
"""
SEGMENTATION_FAULT = """Fatal Python error: Segmentation fault

Current thread 0x00007f1c3c5c2740 (most recent call first):
  File "/run/backends/worker.py", line 91 in main
  <no Python frame>

Current thread's C stack trace (most recent call first):
  Binary file "/usr/bin/python3.14", at _Py_DumpStack+0x4f [0x5b1c2f]

Extension modules: numpy._core._multiarray_umath, tensorflow.python.framework.fast_tensor_util (total: 2)
"""


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("all is well\nabout to fall\n" + ACCESS_VIOLATION, "about to fall"),
        ("all is well\nabout to fall\n" + SEGMENTATION_FAULT, "about to fall"),
        (ACCESS_VIOLATION, "Windows fatal exception: access violation"),
        (SEGMENTATION_FAULT, "Fatal Python error: Segmentation fault"),
        ("begin\n" + ACCESS_VIOLATION + "the plugin took care of it\n", "the plugin took care of it"),
        (ACCESS_VIOLATION + ACCESS_VIOLATION + SEGMENTATION_FAULT, "Fatal Python error: Segmentation fault"),
        ("all is well\n  indented\n", "indented"),
        ("", ""),
    ],
)
def test_the_interpreters_dump_of_a_fatal_error_is_not_what_the_worker_said(
    tmp_path: Path, log: str, told: str
) -> None:
    file = tmp_path / "worker.log"
    file.write_text(log, encoding="utf-8")
    assert last_line(file, 0) == told
