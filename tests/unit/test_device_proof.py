"""What a target's device facts prove, and what they give away."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.cell import Target
from harness.core.messages import HostReady, Opened, Operation, Placed
from harness.machine import nvidia
from harness.proof import device as device_proof
from harness.proof import device_facts

TENSORFLOW_CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
TENSORFLOW_GPU = "/job:localhost/replica:0/task:0/device:GPU:0"


def target(accelerator: str) -> Target:
    return Target("some", "some", accelerator, "graph", "resident", "python:some")


def facts(parameters: list[str], loss: list[str], **others: Any) -> dict[str, Any]:
    return {"parameters_on": parameters, "loss_on": loss, **others}


@pytest.mark.parametrize(
    ("accelerator", "found"),
    [
        ("cpu", facts([TENSORFLOW_CPU], [TENSORFLOW_CPU])),
        ("cpu", facts(["TFRT_CPU_0"], ["TFRT_CPU_0"], accelerators=["cpu"])),
        ("cpu", facts(["somewhere:0"], ["somewhere:0"])),
        ("cpu", {}),
        ("cuda", facts([TENSORFLOW_GPU], [TENSORFLOW_GPU])),
        ("cuda", facts(["cuda:0"], ["cuda:0"], accelerators=["cuda"])),
        ("directml", facts([TENSORFLOW_GPU], [TENSORFLOW_GPU])),
        ("tpu", facts(["TPU_0"], ["TPU_0"])),
    ],
)
def test_facts_that_fit(accelerator: str, found: dict[str, Any]) -> None:
    assert device_proof.closing_problem(target(accelerator), found, trained=True) == ""


@pytest.mark.parametrize(
    ("accelerator", "found", "said"),
    [
        ("cuda", facts([TENSORFLOW_CPU], [TENSORFLOW_CPU]), "the parameters live on /job"),
        ("cuda", facts([TENSORFLOW_GPU, TENSORFLOW_CPU], [TENSORFLOW_GPU]), "the parameters live on /job"),
        ("cuda", facts([TENSORFLOW_GPU], [TENSORFLOW_CPU]), "the loss lives on /job"),
        ("cuda", facts(["cuda:0"], ["cuda:0"], accelerators=["cpu"]), "parameters and loss live on cpu"),
        ("cuda", facts([TENSORFLOW_GPU], []), "does not say where the loss lives"),
        ("cuda", facts([], []), "does not say where the parameters live"),
        ("cuda", {}, "does not say where the parameters live"),
        ("directml", facts([TENSORFLOW_CPU], [TENSORFLOW_CPU]), "the parameters live on /job"),
        ("cpu", facts([TENSORFLOW_GPU], [TENSORFLOW_GPU]), "asked for cpu, but the parameters live on /job"),
        ("cpu", facts(["cuda:0"], []), "the parameters live on cuda:0"),
    ],
)
def test_facts_that_do_not_fit(accelerator: str, found: dict[str, Any], said: str) -> None:
    problem = device_proof.closing_problem(target(accelerator), found, trained=True)
    assert problem.startswith(f"asked for {accelerator}, but ")
    assert said in problem


def test_a_cell_that_has_not_trained_need_have_no_loss() -> None:
    assert device_proof.closing_problem(target("cuda"), facts(["cuda:0"], []), trained=False) == ""


@pytest.mark.parametrize(
    ("accelerator", "found", "said"),
    [
        ("cuda", {"accelerator": "cpu"}, "the backend woke cpu"),
        ("cuda", {"accelerator": "cuda", "driver_lists_process": False}, "the driver does not list the worker"),
        ("directml", {"accelerator": "directml", "adapter": ""}, "names no adapter"),
    ],
)
def test_a_device_that_was_not_woken(accelerator: str, found: dict[str, Any], said: str) -> None:
    assert said in device_proof.opening_problem(target(accelerator), found)


@pytest.mark.parametrize(
    ("accelerator", "found"),
    [
        ("cpu", {}),
        ("cpu", {"accelerator": "cpu"}),
        ("cuda", {"accelerator": "cuda"}),
        ("cuda", {"accelerator": "cuda", "driver_lists_process": True}),
        ("directml", {"accelerator": "directml", "adapter": "Some GPU"}),
        ("directml", {"accelerator": "directml"}),
    ],
)
def test_what_a_witness_cannot_tell_is_no_problem(accelerator: str, found: dict[str, Any]) -> None:
    assert device_proof.opening_problem(target(accelerator), found) == ""


def test_the_adapter_is_the_one_that_the_log_named_last() -> None:
    log = (
        "I tensorflow/c/logging.cc:34] DirectML device enumeration: found 2 compatible adapters.\n"
        "I tensorflow/c/logging.cc:34] DirectML: creating device on adapter 1 (Some GPU (TM) 7)\n"
    )
    assert device_proof.adapter_in(log) == "Some GPU (TM) 7"
    assert device_proof.adapter_in("DirectML device enumeration: found 0 compatible adapters.") == ""


def test_an_operation_with_the_networks_numbers_on_the_processor_is_a_fallback() -> None:
    placed = Placed(
        tells=True,
        ran=[
            Operation("Conv2D", ["T=float"], 2, "GPU:0"),
            Operation("RandomUniform", ["T=int32", "dtype=float"], 2, "CPU:0"),
            Operation("Cast", ["DstT=half", "SrcT=int64"], 1, "CPU:0"),
            Operation("_FusedMatMul", ["T=bfloat16"], 1, "CPU:0"),
        ],
    )
    found = device_proof.fallbacks(target("directml"), placed)
    assert [operation.name for operation in found] == ["RandomUniform", "Cast", "_FusedMatMul"]
    assert device_proof.named(found[:1]) == "RandomUniform (T=int32, dtype=float) on CPU:0"
    assert device_proof.fallbacks(target("cpu"), placed) == []
    assert device_proof.summary(placed) == {"CPU:0": 4, "GPU:0": 2}


def test_what_belongs_in_host_memory_is_no_fallback() -> None:
    placed = Placed(
        tells=True,
        ran=[
            Operation("IteratorGetNext", ["output_types=float+int64"], 1, "CPU:0"),
            Operation("_Send", ["T=float"], 2, "CPU:0"),
            Operation("Const", ["dtype=float"], 3, "CPU:0"),
            Operation("AddV2", ["T=int64"], 1, "CPU:0"),
            Operation("NoOp", [], 1, "CPU:0"),
        ],
    )
    assert device_proof.fallbacks(target("cuda"), placed) == []


def test_a_long_list_of_operations_is_cut() -> None:
    operations = [Operation(f"Op{number}", [], 1) for number in range(9)]
    assert device_proof.named(operations) == "Op0; Op1; Op2; Op3; Op4; and 4 more"


@pytest.mark.parametrize(
    ("peak", "dedicated", "beyond"), [(9, 8, True), (8, 8, False), (None, 8, None), (9, None, None)]
)
def test_a_peak_beyond_the_devices_own_memory_is_marked(
    peak: int | None, dedicated: int | None, beyond: bool | None
) -> None:
    found = {"peak_device_memory_bytes": peak, "dedicated_memory_bytes": dedicated}
    assert device_proof.beyond_dedicated(found) is beyond


@pytest.mark.parametrize(("adapter", "told"), [("Some GPU", {"dedicated_memory_bytes": 8}), ("Another GPU", {})])
def test_an_adapters_own_memory_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, adapter: str, told: dict[str, int]
) -> None:
    monkeypatch.setattr(nvidia, "devices", lambda: (nvidia.Device(0, "Some GPU", "GPU-1", 8, None, None, None, None),))
    log = f"DirectML: creating device on adapter 0 ({adapter})"
    assert device_facts.facts(target("directml"), 42, log, {}) == {"adapter": adapter, **told}


class TestTheDriver:
    """What it lists is asked for once the process is known to be one of ours."""

    @pytest.fixture(autouse=True)
    def one_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvidia, "index_of", lambda number, variables, found: 0)
        monkeypatch.setattr(device_facts, "_is_ours", lambda pid: pid == 42)
        monkeypatch.setattr(device_facts.system, "wsl_version", lambda: None)

    @pytest.mark.parametrize(("listed", "told"), [((7, 42), True), ((7,), False), ((), False)])
    def test_tells_whether_the_worker_computes_there(
        self, monkeypatch: pytest.MonkeyPatch, listed: tuple[int, ...], told: bool
    ) -> None:
        monkeypatch.setattr(nvidia, "processes", lambda index: listed)
        assert device_facts.facts(target("cuda"), 42, "", {}) == {"driver_lists_process": told}

    @pytest.mark.parametrize(("listed", "pid"), [(None, 42), ((7,), 8)])
    def test_says_nothing_where_processes_cannot_be_told_apart(
        self, monkeypatch: pytest.MonkeyPatch, listed: tuple[int, ...] | None, pid: int
    ) -> None:
        monkeypatch.setattr(nvidia, "processes", lambda index: listed)
        assert device_facts.facts(target("cuda"), pid, "", {}) == {}

    def test_says_nothing_under_wsl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvidia, "processes", lambda index: ())
        monkeypatch.setattr(device_facts.system, "wsl_version", lambda: 2)
        assert device_facts.facts(target("cuda"), 42, "", {}) == {}


@pytest.mark.parametrize(("own", "told"), [("Some GPU", "Some GPU"), ("", ""), (None, "")])
def test_a_backend_may_name_its_adapter_itself(own: str | None, told: str) -> None:
    class Quiet:
        ready = HostReady(1, 0.0, True, {}, {})

        def said(self) -> str:
            return "nothing of the kind"

    opened = Opened(42, 0.0, 0.0, 0.0, {} if own is None else {"adapter": own})
    found = device_facts.device_facts(target("directml"), Quiet(), opened)  # type: ignore[arg-type]
    assert found["adapter"] == told
