"""Every rule of ``harness doctor`` on made-up facts, both ways; and the looking itself on this machine."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EnvironmentBuildError
from harness.core.system.graphics import wsl_of
from harness.doctor import inspection, requirements
from harness.doctor.rules import (
    Cache,
    Examined,
    Finding,
    Gpu,
    Machine,
    Pace,
    Trial,
    devices_seen,
    diagnose,
    machine_findings,
)
from harness.machine import nvidia
from harness.plan import targets
from harness.workers import interpreters

GIB = 1024**3
QUIET = Machine(
    processor={"memory_bytes": 16 * GIB, "usable_cores": 8, "logical_cores": 8, "governor": "performance"},
    load={"load_1min": 0.2, "available_memory_bytes": 12 * GIB, "swap_used_bytes": 0},
    pace=Pace(block_seconds=0.002, apart=0.005, stolen=0.0),
    platform="linux",
    driver="550.54.15",
    gpus=(Gpu(0, "GPU A", 8 * GIB),),
)
"""Nothing is wrong with it."""

PIP_CUDA = {"tensorflow": "2.21.0", "nvidia-cuda-runtime-cu12": "12.9.79"}
JAX_CUDA = {"jax": "0.10.2", "jax-cuda12-plugin": "0.10.2"}
TENSORFLOW_210 = {"tensorflow": "2.10.1"}
DIRECTML = {"tensorflow-cpu": "2.10.0", "tensorflow-directml-plugin": "0.4.0.dev230202"}


def cuda(**facts: Any) -> Examined:
    return Examined(
        **{
            "name": "c",
            "backend": "tensorflow_keras",
            "accelerator": "cuda",
            "environment": "ready",
            "packages": PIP_CUDA,
            **facts,
        }
    )


def directml(**facts: Any) -> Examined:
    return cuda(**{"name": "d", "accelerator": "directml", "packages": DIRECTML, **facts})


def about(found: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.severity}: {finding.about}: {finding.text} -> {finding.remedy}" for finding in found]


def machine(**changes: Any) -> Machine:
    """The quiet machine, with keys of ``processor`` and ``load``, or fields, changed."""
    processor = {
        key: changes.pop(key)
        for key in ("governor", "memory_bytes", "memory_limit_bytes", "processor_quota")
        if key in changes
    }
    load = {key: changes.pop(key) for key in QUIET.load if key in changes}
    return replace(QUIET, processor={**QUIET.processor, **processor}, load={**QUIET.load, **load}, **changes)


# The machine


def test_a_quiet_machine_has_no_findings() -> None:
    assert machine_findings(QUIET) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"governor": "powersave"},
            ["warning: processor: the governor powersave holds its clock rate down", "cpupower"],
        ),
        ({"governor": "powersave", "scaling": "acpi-cpufreq"}, ["warning: processor: ", "holds its clock rate down"]),
        ({"governor": "powersave", "scaling": "intel_pstate"}, ["note: processor: ", "follow the load"]),
        ({"governor": "schedutil"}, ["note: processor: the governor schedutil", "follow the load"]),
        ({"swap_used_bytes": GIB}, ["warning: memory: 1.0 GiB of swap is in use"]),
        ({"available_memory_bytes": GIB}, ["warning: memory: 1.0 GiB is available"]),
        (
            {"available_memory_bytes": GIB, "memory_limit_bytes": 2 * GIB},
            ["warning: memory: 1.0 GiB is available", "raise the container's limit (docker run --memory"],
        ),
        ({"load_1min": 3.0}, ["warning: load: ", "the load average is 3.0 on 8 cores"]),
        (
            {"pace": Pace(0.002, 0.05, None)},
            ["warning: pace: the machine is noisy: from one 2.0 ms to the next", "5.0 %"],
        ),
        ({"pace": Pace(0.002, 0.005, 0.1)}, ["warning: pace: this virtual machine's host took 10 %"]),
        (
            {"processor_quota": 0.3},
            [
                "warning: quota: a container's quota gives 0.3 of a processor of the 8 logical cores",
                "docker run --cpus",
            ],
        ),
        ({"processor_quota": 2.5}, ["quota gives 2.5 processors of the 8", "TARGET@cpus=2"]),
        (
            {"pace": Pace(0.002, 0.005, None, 0.5)},
            ["warning: quota: a quota that cannot be seen from here held work back for 50 % of the time", "docker run"],
        ),
        ({"wsl": 1}, ["warning: system: this is WSL1", "wsl --set-version"]),
        ({"cache": Cache("/c", 0, 10**12, False)}, ["warning: cache: /c cannot be written", "HARNESS_CACHE_DIR"]),
        ({"cache": Cache("/c", 0, 10**8, True)}, ["warning: cache: 100 MB is free", "harness cache clear --unused"]),
        ({"uv": "uv is missing: install it with `pip install uv`"}, ["problem: uv: uv is missing -> install it with"]),
        (
            {"gpus": (Gpu(0, "A", None, ("python (71)", "game (72)")),)},
            ["warning: GPU 0: other processes compute on it: python (71), game (72) -> end them"],
        ),
    ],
)
def test_what_harms_measurements_is_one_finding_with_its_remedy(changes: dict[str, Any], words: list[str]) -> None:
    (found,) = about(machine_findings(machine(**changes)))
    for word in words:
        assert word in found
    assert not found.endswith("-> ")
    assert "\n" not in found


@pytest.mark.parametrize(
    "changes",
    [
        {"governor": None},
        {"swap_used_bytes": GIB // 10},
        {"load_1min": 2.0},
        {"pace": Pace(0.002, 0.029, 0.019, 0.019)},
        {"processor_quota": 8.0},
        {"load_1min": None, "swap_used_bytes": None, "available_memory_bytes": None, "memory_bytes": None},
        {"wsl": 2},
        {"driver": None, "gpus": ()},
    ],
)
def test_what_is_within_bounds_is_no_finding(changes: dict[str, Any]) -> None:
    assert machine_findings(machine(**changes)) == ()


def test_unevenness_that_a_quota_makes_is_not_put_down_to_other_programs() -> None:
    held_back = machine(processor_quota=0.3, pace=Pace(0.002, 0.4, None, 0.7))
    found = about(machine_findings(held_back))
    assert len(found) == 2
    assert "held it back for 70 % of the time" in found[1]
    assert not any("end other programs" in line for line in found)


def test_one_core_that_is_half_busy_is_not_called_busy() -> None:
    one = {**QUIET.processor, "usable_cores": 1}
    assert machine_findings(replace(machine(load_1min=0.5), processor=one)) == ()
    assert machine_findings(replace(machine(load_1min=0.6), processor=one)) != ()


def test_another_gpu_is_offered_where_there_is_one() -> None:
    busy = machine(gpus=(Gpu(0, "A", None, ("python (71)",)), Gpu(1, "B", None)))
    assert "@device=N" in machine_findings(busy)[0].remedy


# Environments


@pytest.mark.parametrize(
    ("environment", "detail", "state", "words"),
    [
        ("ready", "", "ready", []),
        ("buildable", "built on first use", "buildable", ["note: c: ", "-> harness targets sync c"]),
        ("unavailable", "use WSL2", "not on this platform", ["note: c: use WSL2"]),
        ("broken", "incomplete", "broken", ["problem: c: incomplete -> harness targets sync c"]),
        (
            "no python",
            interpreters.how_to_get("3.10"),
            "broken",
            ["problem: c: Python 3.10 is not on this machine -> install it (`uv python install 3.10`"],
        ),
    ],
)
def test_an_environment_s_state_is_the_target_s(environment: str, detail: str, state: str, words: list[str]) -> None:
    found = diagnose(cuda(environment=environment, detail=detail), QUIET)
    assert found.state == state
    assert len(found.findings) == bool(words)
    for word in words:
        assert word in about(found.findings)[0]


def test_a_broken_interpreter_of_one_s_own_is_mended_where_it_is_named() -> None:
    found = diagnose(
        cuda(environment="broken", detail="there is no interpreter /x", interpreter="/x", source="harness.toml"), QUIET
    )
    assert found.state == "broken"
    assert found.findings[0].remedy == "correct python in [targets.c] of harness.toml"


def test_without_uv_only_what_is_built_is_ready() -> None:
    without = replace(QUIET, uv="uv, which builds environments, is missing: install it with `pip install uv`")
    found = diagnose(cuda(environment="no uv"), without)
    assert found.state == "broken"
    assert found.findings[0].remedy == "install it with `pip install uv`"
    assert diagnose(cuda(), without).state == "ready"


# Devices


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        (cuda(), {"driver": None, "gpus": ()}, ["no NVIDIA driver answers", "https://www.nvidia.com/drivers"]),
        (cuda(), {"driver": None, "gpus": (), "wsl": 2}, ["no NVIDIA driver", "on Windows, not in WSL"]),
        (cuda(), {"gpus": ()}, ["NVIDIA driver 550.54.15 lists no GPU", "nvidia-smi"]),
        (cuda(), {"driver": "470.199"}, ["470.199 is too old: CUDA 12 needs 525 or later", "a newer one"]),
        (cuda(packages={"nvidia-cuda-runtime": "13.0.4"}), {}, ["550.54.15 is too old: CUDA 13 needs 580 or later"]),
        (cuda(backend="jax_flax", packages=JAX_CUDA), {"driver": "524.9"}, ["CUDA 12 needs 525"]),
        (cuda(packages=TENSORFLOW_210), {"driver": "440.1"}, ["CUDA 11 needs 450"]),
        (cuda(), {"wsl": 1}, ["WSL1 gives no access to a GPU", "wsl --set-version"]),
        (directml(), {}, ["on Linux, DirectML works only inside WSL2"]),
        (directml(), {"wsl": 1}, ["WSL1 gives no access"]),
        (directml(), {"wsl": 2, "directml": ("/dev/dxg",)}, ["in WSL2: missing /dev/dxg", "wsl --update"]),
        (
            directml(),
            {"platform": "windows", "directml": ("an adapter with DirectX 12",)},
            ["on Windows: missing an adapter with DirectX 12", "driver"],
        ),
    ],
)
@pytest.mark.parametrize("environment", ["ready", "buildable"])
def test_a_device_that_is_not_there_is_told_with_what_mends_it(
    target: Examined, changes: dict[str, Any], words: list[str], environment: str
) -> None:
    found = diagnose(replace(target, environment=environment), machine(**changes))
    assert found.state == "no device"
    for word in words:
        assert word in about(found.findings)[0]


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (cuda(), {"driver": "525.60.13"}),
        (cuda(packages={"nvidia-cuda-runtime": "13.0.4"}), {"driver": "580.10"}),
        (cuda(packages={"tensorflow": "2.15.0"}), {"driver": "1.0"}),
        (cuda(accelerator="cpu"), {"driver": None, "gpus": (), "wsl": 1}),
        (directml(), {"wsl": 2}),
        (directml(), {"platform": "windows"}),
    ],
)
def test_a_target_whose_device_is_there_is_ready(target: Examined, changes: dict[str, Any]) -> None:
    assert diagnose(target, machine(**changes)).state == "ready"


# Libraries and packages


@pytest.mark.parametrize("platform", ["windows", "linux"])
def test_missing_libraries_of_the_system_are_named_one_by_one(platform: str) -> None:
    toolkits = requirements.system_libraries("tensorflow_keras", "cuda", TENSORFLOW_210, platform)
    every = tuple(file for toolkit in toolkits for file in toolkit.files)
    assert len(every) == 8
    found = diagnose(cuda(packages=TENSORFLOW_210, missing=every), machine(platform=platform))
    assert found.state == "broken"
    toolkit, cudnn = about(found.findings)
    assert all(file in toolkit for file in every[:-1])
    assert every[-1] in cudnn
    assert "https://developer.nvidia.com/cuda-11.2" in toolkit
    assert "cudnn" in cudnn.partition("->")[2]
    assert ("PATH" if platform == "windows" else "LD_LIBRARY_PATH") in toolkit
    one = diagnose(cuda(packages=TENSORFLOW_210, missing=every[1:2]), machine(platform=platform))
    assert [finding.text for finding in one.findings] == [f"CUDA 11.2 cannot be loaded: {every[1]}"]


def test_libraries_are_asked_of_no_system_for_packages_that_bring_them() -> None:
    assert requirements.system_libraries("tensorflow_keras", "cuda", PIP_CUDA, "linux") == ()
    assert requirements.system_libraries("tensorflow_keras", "cpu", TENSORFLOW_210, "linux") == ()
    assert requirements.system_libraries("jax_flax", "cuda", TENSORFLOW_210, "linux") == ()
    assert diagnose(cuda(packages=TENSORFLOW_210), QUIET).state == "ready"


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        (cuda(cuda_build=False), {}, ["build without CUDA", '/py -m pip install "tensorflow[and-cuda]"']),
        (cuda(cuda_build=False, packages={"tensorflow-cpu": "2.10.1"}), {}, ['"tensorflow==2.10.*" "numpy<2"']),
        (cuda(cuda_build=False, packages={"tensorflow": "2.15.0"}), {"platform": "windows"}, ["tensorflow==2.10.*"]),
        (cuda(backend="jax_flax", packages={"jax": "0.10.2"}), {}, ["no CUDA plugin", '"jax[cuda12]"']),
        (directml(packages={"tensorflow-cpu": "2.10.0"}), {"wsl": 2}, ["plugin is not installed", "directml-plugin"]),
        (
            directml(packages={**DIRECTML, "tensorflow-cpu": "2.15.0"}),
            {"wsl": 2},
            ["tensorflow-cpu 2.10 only (found 2.15.0)", "tensorflow-cpu==2.10.0"],
        ),
    ],
)
def test_an_interpreter_without_the_right_packages_is_broken(
    target: Examined, changes: dict[str, Any], words: list[str]
) -> None:
    found = diagnose(replace(target, interpreter="/py"), machine(**changes))
    assert found.state == "broken"
    for word in words:
        assert word in about(found.findings)[0]


def test_an_environment_of_the_harness_with_the_wrong_build_is_built_again() -> None:
    found = diagnose(cuda(cuda_build=False, folder="/cache/e"), QUIET)
    assert (found.state, found.findings[0].remedy) == ("broken", "remove /cache/e, then: harness targets sync c")


def test_the_right_packages_are_no_finding() -> None:
    assert diagnose(cuda(cuda_build=True, interpreter="/py"), QUIET).findings == ()
    assert diagnose(cuda(backend="jax_flax", packages=JAX_CUDA, interpreter="/py"), QUIET).findings == ()
    assert diagnose(directml(interpreter="/py"), machine(wsl=2)).findings == ()


@pytest.mark.skipif(sys.platform == "win32", reason="a variable that is set to nothing is not set there")
def test_a_device_that_variables_hide_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = inspection.look_at_target(targets.built_in()["jax-cuda"]).hidden
    assert hidden.startswith("asked for device 0, but CUDA_VISIBLE_DEVICES shows none (''")
    found = diagnose(cuda(hidden=hidden), QUIET)
    assert found.state == "no device"
    assert about(found.findings) == [f"problem: c: {hidden} -> unset the variable, or name in it the devices to show"]


# Trials


def test_a_trial_that_went_well_outweighs_what_was_inferred() -> None:
    absent = machine(driver=None, gpus=())
    assert diagnose(cuda(), absent).state == "no device"
    found = diagnose(cuda(), absent, Trial("ok"))
    assert found.state == "ready"
    assert [finding.severity for finding in found.findings] == ["warning"]


@pytest.mark.parametrize(("status", "state"), [("wrong_device", "no device"), ("crashed", "broken")])
def test_a_trial_that_failed_outweighs_that_nothing_seemed_wrong(status: str, state: str) -> None:
    found = diagnose(cuda(), QUIET, Trial(status, "JAX found none"))
    assert found.state == state
    assert "JAX found none" in found.findings[0].text
    assert found.findings[0].remedy


# Looking


@pytest.mark.parametrize(
    ("kernel", "version"),
    [
        ("Linux version 6.8.0-41-generic (buildd@lcy02) (gcc 13.2.0) #41-Ubuntu SMP", None),
        ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0)", 1),
        ("Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host) (gcc 9.3.0)", 2),
        ("Linux version 4.19.104-microsoft-standard (oe-user@oe-host)", 2),
    ],
)
def test_the_kernel_tells_which_wsl_it_is(kernel: str, version: int | None) -> None:
    assert wsl_of(kernel) == version


def test_the_built_in_targets_need_the_cuda_that_their_lock_files_bring() -> None:
    found = {}
    for name, definition in targets.built_in().items():
        assert definition.lock is not None
        packages = requirements.locked_packages(definition.lock.read_text(encoding="utf-8"))
        assert packages["numpy"]
        found[name] = requirements.cuda_of(packages)
    assert {name: major for name, major in found.items() if major} == {
        "jax-cuda": 12,
        "tensorflow-cuda": 12,
        "tensorflow210-cuda": 11,
    }


def test_the_pace_is_measured_in_the_time_allowed() -> None:
    pace = inspection.measure_pace(0.1)
    assert pace.block_seconds > 0
    assert 0 <= pace.apart < math.inf
    assert pace.stolen is None or 0 <= pace.stolen <= 1


def test_gpus_are_told_with_whoever_computes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = 2**22 + 1  # beyond the largest process id of Linux
    listed = [nvidia.Device(index, f"GPU {index}", f"GPU-{index}", 8 * GIB, None, None, None, None) for index in (0, 1)]
    monkeypatch.setattr(inspection, "PACE_SECONDS", 0.01)
    monkeypatch.setattr(nvidia, "driver_version", lambda: "550.54.15")
    monkeypatch.setattr(nvidia, "devices", lambda: tuple(listed))
    monkeypatch.setattr(nvidia, "processes", lambda index: (os.getpid(), nobody) if index == 0 else None)
    found = inspection.look_at_machine()
    assert found.driver == "550.54.15"
    assert [(one.index, one.name, one.memory_bytes) for one in found.gpus] == [
        (0, "GPU 0", 8 * GIB),
        (1, "GPU 1", 8 * GIB),
    ]
    mine, gone = found.gpus[0].processes
    assert mine.endswith(f" ({os.getpid()})")
    assert gone == str(nobody)
    assert found.gpus[1].processes == ()


def own(tmp_path: Path, **table: Any) -> Examined:
    table = {
        "python": sys.executable,
        "backend": "tensorflow_keras",
        "accelerator": "cuda",
        "modes": ["graph"],
        **table,
    }
    definition = targets.definitions({"mine": table}, str(tmp_path / "harness.toml"))["mine"]
    return inspection.look_at_target(definition)


def test_an_interpreter_is_asked_for_its_packages_and_tensorflow_for_its_build(tmp_path: Path) -> None:
    """With a TensorFlow that is a file and no more: what is read is read without importing it."""
    place = tmp_path / "site"
    build = place / "tensorflow" / "python" / "platform" / "build_info.py"
    build.parent.mkdir(parents=True)
    (place / "tensorflow" / "__init__.py").write_text("raise SystemExit('imported')")
    build.write_text("build_info = dict([('is_cuda_build', False), ('is_rocm_build', False)])")
    (place / "TensorFlow-2.10.1.dist-info").mkdir()
    (place / "TensorFlow-2.10.1.dist-info" / "METADATA").write_text("Name: TensorFlow\nVersion: 2.10.1\n")
    found = own(tmp_path, env={"PYTHONPATH": str(place)})
    assert found.environment == "ready"
    assert found.packages["tensorflow"] == "2.10.1"
    assert found.packages["numpy"]
    assert found.cuda_build is False
    assert set(found.missing) <= {
        file
        for platform in ("linux", "windows")
        for toolkit in requirements.system_libraries("tensorflow_keras", "cuda", TENSORFLOW_210, platform)
        for file in toolkit.files
    }


def test_a_library_is_missing_where_it_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolkit = requirements.Toolkit("T", ("libno-such-thing.so.7",), "https://link")
    monkeypatch.setattr(requirements, "system_libraries", lambda *facts: (toolkit,))
    assert own(tmp_path).missing == ("libno-such-thing.so.7",)


def test_the_cache_is_looked_at_without_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    empty = inspection.look_at_cache()
    assert (empty.folder, empty.bytes, empty.writable) == (str(tmp_path / "cache"), 0, True)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file").write_bytes(b"x" * 1234)
    assert inspection.look_at_cache().bytes == 1234


def test_a_missing_uv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise EnvironmentBuildError("uv, which builds environments, is missing: install it with `pip install uv`")

    monkeypatch.setattr(interpreters, "uv_binary", absent)
    monkeypatch.setattr(inspection, "uv_binary", absent)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    assert inspection.look_at_target(targets.built_in()["reference"]).environment == "no uv"


@pytest.mark.parametrize(("shown", "seen"), [(None, 2), (1, 1), (0, 0), (3, 2)])
def test_a_target_sees_those_devices_that_are_there_and_shown(shown: int | None, seen: int) -> None:
    machine = replace(QUIET, gpus=(Gpu(0, "A", None), Gpu(1, "B", None)))
    assert devices_seen(cuda(shown=shown), machine) == seen
    assert devices_seen(replace(cuda(), accelerator="cpu"), machine) == 1
    assert devices_seen(replace(cuda(), accelerator="directml"), machine) is None
    assert devices_seen(replace(cuda(), accelerator="tpu"), machine) is None
