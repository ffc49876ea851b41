"""Which line of a log tells why its process ended, on logs that were met."""

from __future__ import annotations

import pytest

from harness.workers.last_words import telling

ABSL_BEFORE = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
ABSL_INFO = "I0000 00:00:1795962379.663189   31711 port.cc:153] oneDNN custom operations are on."
ABSL_WARNING = (
    "W0000 00:00:1795962379.663189   31711 cpu_allocator_impl.cc:82] Allocation of 4 exceeds 10% of free memory."
)
ABSL_ERROR = "E0000 00:00:1795962379.663189   31711 cuda_executor.cc:1] failed to allocate 2.0GiB"
ABSL_FATAL = "F0000 00:00:1795962379.663189   31711 dml_util.cc:9] Check failed: SUCCEEDED(hr)"
REGISTERED = (
    "E0000 00:00:1795962379.663189   31711 cuda_dnn.cc:8579] Unable to register cuDNN factory: Attempting to register "
    "factory for plugin cuDNN when one has already been registered"
)
TF_INFO = "2026-11-29 14:12:59.006968: I tensorflow/core/platform/cpu_feature_guard.cc:227] This TensorFlow binary ..."
TF_WARNING = "2026-11-29 14:12:59.006968: W tensorflow/core/framework/op.cc:1] Something is deprecated"
TF_ERROR = "2026-11-29 14:12:59.006968: E tensorflow/core/common_runtime/pool.cc:7] The pool is empty"
CONTINUED = (
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the ... flags."
)
XLA = "2026-11-29 14:12:59.006968: I external/local_xla/xla/service/service.cc:168] XLA service 0x7f initialized"
OURS = "CPython 3.11.7: /cache/environments/b829c424/bin/python"
WARNED = ["/site-packages/keras/layer.py:93: UserWarning: Do not pass an argument", "  warnings.warn("]
LOGGED = ["INFO:jax._src.xla_bridge:Unable to initialize backend", "[INFO] ready", "DEBUG:root:x", "INFO 2026 fine"]
TRACE = ["*** Check failure stack trace: ***", "    @     0x7f8b1c000000  absl::LogMessage::Fail()", "#0 0x7f raise"]
CHATTER = [ABSL_BEFORE, ABSL_INFO, TF_INFO, CONTINUED, XLA, OURS, *LOGGED, REGISTERED]


@pytest.mark.parametrize("chatter", [*CHATTER, ABSL_WARNING, TF_WARNING, *WARNED, *TRACE])
@pytest.mark.parametrize("telling_line", ["about to fall", ABSL_ERROR, TF_ERROR, ABSL_FATAL, "ValueError: no"])
def test_chatter_is_not_taken_for_the_reason_that_stands_before_it(chatter: str, telling_line: str) -> None:
    assert telling([telling_line, chatter, "", "  "]) == telling_line
    assert telling([chatter, telling_line]) == telling_line


@pytest.mark.parametrize("chatter", [*CHATTER, *TRACE])
def test_who_only_chatted_had_no_last_words(chatter: str) -> None:
    assert telling([chatter]) == ""


def test_a_warning_is_told_where_nothing_else_is() -> None:
    assert telling([ABSL_WARNING, ABSL_INFO]) == ABSL_WARNING
    assert telling([*WARNED, ABSL_INFO]) == WARNED[0]


@pytest.mark.parametrize(
    "error",
    [
        ABSL_FATAL,
        "Check failed: the device is gone",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "OSError: [Errno 28] No space left on device",
        "jaxlib._jax.XlaRuntimeError: INTERNAL: it fell over",
        "slurmstepd: error: Detected 1 oom_kill event",
        "KeyboardInterrupt",
    ],
)
def test_an_error_is_told_before_what_was_merely_printed_after_it(error: str) -> None:
    assert telling(["Epoch 1/2", error, "  1/10 [==>........] - ETA: 3s"]) == error


def test_the_last_of_several_plain_lines_is_told() -> None:
    assert telling(["the fake framework greets you", " about to fall "]) == "about to fall"
    assert telling([]) == ""


def test_a_traceback_is_told_by_its_error() -> None:
    lines = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "    fall()", "OSError: gone"]
    assert telling([*lines, *WARNED, "Exception ignored in: <function Pool.__del__ at 0x7f>"]) == "OSError: gone"
