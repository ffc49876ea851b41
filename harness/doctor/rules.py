"""What keeps each target from working on this machine, and what harms measurements here: facts in, findings out.

Nothing here looks at anything: ``harness.doctor.inspection`` gathers the facts, so each rule can be tested with made-up
ones. A finding is one line for a person, with the command or the link that mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness import shells
from harness.doctor.requirements import OLDEST_DRIVERS, cuda_of, has_jax_plugin, system_libraries, wanted_packages
from harness.paths import OTHER_CACHE
from harness.wording import megabytes, plural, processors

State = Literal["ready", "buildable", "not on this platform", "no device", "broken"]
Severity = Literal["problem", "warning", "note"]

APART = 0.03
"""Warn above: how much neighbouring 2 ms of an empty loop differ. On a machine of one's own it is below 1 %."""

STOLEN = 0.02
"""Warn above: share of the processors' time that a virtual machine's host gave to others."""

THROTTLED = 0.02
"""Warn above: share of the time for which a quota held the empty loop back."""

SWAPPED = 0.01
"""Warn above: swap in use, as share of the memory."""

LOADED = 0.25
"""Warn above: load average of a minute, as share of the usable processors, but not below LOADED_LEAST."""

LOADED_LEAST = 0.5
FREE_BYTES = 2 * 1024**3
"""Warn below: a worker with a framework takes about 1 GiB, and a comparison has several at once."""

ENVIRONMENT_BYTES = 2e9
"""Warn below: room on the cache's disk. What an environment with a framework for the processor takes at most."""

GIBIBYTE = 1024**3

THROTTLING = ("powersave", "conservative", "userspace")
"""Governors under which the processor may stay below its clock rate while it works."""

SELF_SCALING = ("intel_pstate", "amd-pstate-epp")
"""Drivers whose governor ``powersave`` does not hold the clock down, but lets it follow the load."""

VISIBLE = {
    "cuda": "see that nvidia-smi lists the GPU and that CUDA_VISIBLE_DEVICES does not hide it",
    "directml": "see that dxdiag on Windows lists the GPU and that DML_VISIBLE_DEVICES does not hide it",
}
"""What to look at if a device is not found though everything is there that it needs."""

LIFT_QUOTA = "lift or raise the quota (docker run --cpus, limits.cpu of Kubernetes, CPUQuota of systemd)"
RAISE_LIMIT = "raise the container's limit (docker run --memory, limits.memory of Kubernetes, MemoryMax of systemd)"
NVIDIA_DRIVER = "https://www.nvidia.com/drivers"
WSL_GUIDE = "https://learn.microsoft.com/windows/wsl/install"
WSL_CUDA_GUIDE = "https://docs.nvidia.com/cuda/wsl-user-guide"
DIRECTML_GUIDE = "https://learn.microsoft.com/windows/ai/directml/gpu-tensorflow-wsl"


@dataclass(frozen=True)
class Finding:
    """One line: ``about`` is a target's name or a part of the machine; ``remedy`` a command, a link, or what to do."""

    about: str
    severity: Severity
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVIDIA's driver lists it; ``processes`` are those that compute there now."""

    index: int
    name: str
    memory_bytes: int | None
    processes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How evenly an empty loop ran: ``apart`` is the robust spread of neighbouring blocks' log-ratio.

    ``stolen``: share of the processors' time given to others by the host of a virtual machine; ``throttled``: share of
    the time for which a quota held the loop, or what else it counts, back. None: not told.
    """

    block_seconds: float
    apart: float
    stolen: float | None
    throttled: float | None = None

    @property
    def is_throttled(self) -> bool:
        """Whether a quota made it uneven."""
        return self.throttled is not None and self.throttled > THROTTLED


@dataclass(frozen=True)
class Cache:
    """The user's cache: what it holds, and what is free on its disk (None: the system does not say), in bytes."""

    folder: str
    bytes: int
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True)
class Machine:
    """The machine's facts. ``processor`` and ``load`` as in ``harness.machine.facts``.

    ``scaling``: the driver that sets the clock rate. ``wsl``: 1, 2, or None outside it. ``uv``: why it cannot be run,
    or empty. ``driver``: the version of NVIDIA's. ``directml``: what DirectML needs here and does not find.
    """

    processor: Mapping[str, Any]
    load: Mapping[str, Any]
    pace: Pace
    platform: str
    scaling: str | None = None
    wsl: int | None = None
    uv: str = ""
    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    directml: tuple[str, ...] = ()
    cache: Cache | None = None


@dataclass(frozen=True)
class Examined:
    """One target's facts. ``environment`` and ``detail`` as in ``harness.workers.environments``.

    Besides those states there is ``no uv``: not built, and uv is not to be had.
    ``interpreter``: a person's own, or empty. ``folder``: where an environment of the harness's is or will be.
    ``packages``: name -> version, installed, or to be installed. ``cuda_build``: TensorFlow's word, None if it gives
    none. ``missing``: libraries of the system that the target needs and that cannot be loaded, with the reason.
    ``hidden``: why this process's variables show the target no device, or empty. ``shown``: how many devices they show,
    None where they hide none.
    """

    name: str
    backend: str
    accelerator: str
    environment: str
    detail: str = ""
    interpreter: str = ""
    source: str = ""
    folder: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    cuda_build: bool | None = None
    missing: tuple[str, ...] = ()
    hidden: str = ""
    shown: int | None = None


@dataclass(frozen=True)
class Trial:
    """What came of starting the target's worker and training one step: facts about the device, or why not.

    ``status`` is that of a record: ``ok``, ``wrong_device``, ``crashed`` and so on.
    """

    status: str
    reason: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """A target's state and its findings, the decisive one first."""

    target: str
    state: State
    findings: tuple[Finding, ...]
    trial: Trial | None = None


def devices_seen(target: Examined, machine: Machine) -> int | None:
    """How many devices of its kind a target can use; None where nothing here can tell.

    Of a processor 1, whatever logical ones can be made of it.
    """
    if target.accelerator == "cpu":
        return 1
    if target.accelerator != "cuda":
        return None
    count = len(machine.gpus)
    return count if target.shown is None else min(count, target.shown)


Complaint = tuple[State, Finding]


def diagnose(target: Examined, machine: Machine, trial: Trial | None = None) -> Diagnosis:
    """Say what state a target is in, and why. A trial that went well outweighs all that was inferred."""
    if target.environment == "unavailable":
        return Diagnosis(target.name, "not on this platform", (Finding(target.name, "note", target.detail),))
    complaints = [*_environment(target, machine), *_device(target, machine), *_contents(target, machine)]
    if trial is not None and trial.status == "ok":
        doubts = [Finding(one.about, "warning", one.text, one.remedy) for _, one in complaints]
        return Diagnosis(target.name, "ready", tuple(doubts), trial)
    if trial is not None:
        complaints = [_failed(target, trial, mended=bool(complaints)), *complaints]
    if complaints:
        return Diagnosis(target.name, complaints[0][0], tuple(finding for _, finding in complaints), trial)
    if target.environment == "buildable":
        text = f"its environment is not built yet ({target.detail})"
        return Diagnosis(target.name, "buildable", (Finding(target.name, "note", text, _sync(target)),))
    return Diagnosis(target.name, "ready", ())


def machine_findings(machine: Machine) -> tuple[Finding, ...]:
    """What about the machine harms measurements, or keeps targets from working."""
    return (
        *_system(machine),
        *_processor(machine),
        *_quota(machine),
        *_memory(machine),
        *_cache(machine),
        *_business(machine),
        *_gpus(machine),
    )


def _environment(target: Examined, machine: Machine) -> Iterator[Complaint]:
    if target.environment == "no python":
        yield "broken", Finding(target.name, "problem", *_split(target.detail))
    if target.environment == "no uv":
        text = "its environment is not built yet, and uv, which builds it, cannot be run"
        yield "broken", Finding(target.name, "problem", text, _split(machine.uv)[1])
    if target.environment == "broken":
        remedy = _sync(target)
        if target.interpreter:
            remedy = f"correct python in [targets.{target.name}] of {target.source}"
        yield "broken", Finding(target.name, "problem", target.detail, remedy)


def _device(target: Examined, machine: Machine) -> Iterator[Complaint]:
    """What is missing of the device itself."""

    def missing(text: str, remedy: str) -> Complaint:
        return "no device", Finding(target.name, "problem", text, remedy)

    if target.hidden:
        yield missing(target.hidden, "unset the variable, or name in it the devices to show")
    if target.accelerator not in ("cuda", "directml"):
        return
    if machine.wsl == 1:
        yield missing("WSL1 gives no access to a GPU", "in PowerShell: wsl --set-version DISTRIBUTION 2")
    elif target.accelerator == "cuda":
        yield from _nvidia(target, machine, missing)
    elif machine.platform == "linux" and machine.wsl is None:
        yield missing(
            "on Linux, DirectML works only inside WSL2, and this system is not WSL2",
            "run it on Windows or in WSL2, or use tensorflow-cuda or tensorflow210-cpu here",
        )
    elif machine.directml:
        where = "in WSL2" if machine.wsl else "on Windows"
        remedy = "install the GPU maker's current driver on Windows (DirectX 12)"
        if machine.wsl:
            remedy += f", then in PowerShell: wsl --update; see {DIRECTML_GUIDE}"
        yield missing(f"no DirectML adapter {where}: missing {', '.join(machine.directml)}", remedy)


def _nvidia(target: Examined, machine: Machine, missing: Callable[[str, str], Complaint]) -> Iterator[Complaint]:
    install = f"where there is an NVIDIA GPU, install it: {NVIDIA_DRIVER}"
    if machine.wsl:
        install = f"install it on Windows, not in WSL: {WSL_CUDA_GUIDE}"
    oldest = OLDEST_DRIVERS.get(cuda_of(target.packages) or 0)
    if machine.driver is None:
        yield missing("no NVIDIA driver answers", install)
    elif oldest is not None and _first_number(machine.driver) < oldest:
        yield missing(
            f"NVIDIA driver {machine.driver} is too old: CUDA {cuda_of(target.packages)} needs {oldest} or later",
            install.replace("install it", "install a newer one"),
        )
    elif not machine.gpus:
        yield missing(
            f"NVIDIA driver {machine.driver} lists no GPU", "show the GPU to this system or container; see nvidia-smi"
        )


def _contents(target: Examined, machine: Machine) -> Iterator[Complaint]:
    """What is missing beside the device: libraries of the system, packages of the interpreter."""

    def broken(text: str, remedy: str) -> Complaint:
        return "broken", Finding(target.name, "problem", text, remedy)

    for toolkit in system_libraries(target.backend, target.accelerator, target.packages, machine.platform):
        absent = [name for name in toolkit.files if name in target.missing]
        if absent:
            text = f"{toolkit.name} cannot be loaded: {', '.join(absent)}"
            yield broken(text, toolkit.remedy(machine.platform))
    if not target.packages:
        return
    install = _reinstall(target)
    if target.interpreter:
        wanted = wanted_packages(target.backend, target.accelerator, target.packages, machine.platform)
        install = f"{shells.joined([target.interpreter])} -m pip install {wanted}"
    if target.backend == "tensorflow_keras" and target.accelerator == "cuda" and target.cuda_build is False:
        yield broken("its TensorFlow is a build without CUDA", install)
    if target.backend == "jax_flax" and target.accelerator == "cuda" and not has_jax_plugin(target.packages):
        yield broken("its JAX has no CUDA plugin", install)
    if target.backend == "tensorflow_keras" and target.accelerator == "directml":
        version = target.packages.get("tensorflow-cpu", "none")
        if "tensorflow-directml-plugin" not in target.packages:
            yield broken("tensorflow-directml-plugin is not installed there", install)
        elif not version.startswith("2.10."):
            yield broken(f"DirectML's plugin loads into tensorflow-cpu 2.10 only (found {version})", install)


def _failed(target: Examined, trial: Trial, mended: bool) -> Complaint:
    """``mended``: whether other findings say what to do."""
    if trial.status == "wrong_device":
        remedy = "" if mended else VISIBLE.get(target.accelerator, "")
        return "no device", Finding(target.name, "problem", trial.reason, remedy)
    remedy = f"mend the packages of {target.interpreter}" if target.interpreter else _reinstall(target)
    return "broken", Finding(target.name, "problem", f"its worker failed ({trial.status}): {trial.reason}", remedy)


def _system(machine: Machine) -> Iterator[Finding]:
    if machine.wsl == 1:
        yield Finding(
            "system",
            "warning",
            "this is WSL1, which shows no GPU and slows every system call",
            f"in PowerShell: wsl --set-version DISTRIBUTION 2; see {WSL_GUIDE}",
        )
    if machine.uv:
        yield Finding("uv", "problem", *_split(machine.uv))


def _processor(machine: Machine) -> Iterator[Finding]:
    governor = machine.processor.get("governor")
    if not governor or governor == "performance":
        return
    held_down = governor in THROTTLING and not (governor == "powersave" and machine.scaling in SELF_SCALING)
    text = f"the governor {governor} " + (
        "holds its clock rate down"
        if held_down
        else "lets its clock rate follow the load, so that it changes meanwhile"
    )
    yield Finding(
        "processor", "warning" if held_down else "note", text, "sudo cpupower frequency-set --governor performance"
    )


def _quota(machine: Machine) -> Iterator[Finding]:
    """What a container gives of the processors that it shows."""
    quota, cores = machine.processor.get("processor_quota"), _cores(machine)
    if quota is None or quota >= cores:
        if machine.pace.is_throttled:
            text = (
                f"a quota that cannot be seen from here held work back for {_share(machine.pace.throttled)} of the time"
            )
            yield Finding("quota", "warning", text, LIFT_QUOTA)
        return
    text = f"a container's quota gives {processors(quota)} of the {plural(cores, 'logical core')} that it shows"
    text += ": frameworks start threads for all of them, and are then held back until the quota's next period"
    whole = f", or give targets as many as there are: TARGET@cpus={int(quota)}" if quota >= 1 else ""
    yield Finding("quota", "warning", text, f"{LIFT_QUOTA}{whole}")


def _cores(machine: Machine) -> int:
    return machine.processor.get("usable_cores") or machine.processor.get("logical_cores") or 1


def _share(share: float | None) -> str:
    return f"{100 * (share or 0.0):.0f} %"


def _memory(machine: Machine) -> Iterator[Finding]:
    total, swap = machine.processor.get("memory_bytes") or 0, machine.load.get("swap_used_bytes") or 0
    available = machine.load.get("available_memory_bytes")
    if total and swap > SWAPPED * total:
        text = (
            f"{swap / GIBIBYTE:.1f} GiB of swap is in use: parts of a worker's memory may be on the disk, which is slow"
        )
        yield Finding("memory", "warning", text, "end programs that are not needed, then sign out or restart")
    if available is not None and available < FREE_BYTES:
        text = f"{available / GIBIBYTE:.1f} GiB is available: several targets may not fit side by side"
        is_limited = machine.processor.get("memory_limit_bytes") is not None
        more = RAISE_LIMIT if is_limited else "end programs that are not needed"
        yield Finding("memory", "warning", text, f"{more}, or compare smaller batches")


def _cache(machine: Machine) -> Iterator[Finding]:
    cache = machine.cache
    if cache is None:
        return
    if not cache.writable:
        text = f"{cache.folder} cannot be written: what is built or found out is not kept for later runs"
        yield Finding("cache", "warning", text, OTHER_CACHE)
    elif cache.free_bytes is not None and cache.free_bytes < ENVIRONMENT_BYTES:
        text = f"{megabytes(cache.free_bytes)} is free on its disk: an environment may not fit"
        yield Finding("cache", "warning", text, f"harness cache clear --unused; or {OTHER_CACHE}")


def _business(machine: Machine) -> Iterator[Finding]:
    """What else runs here, or beside a virtual machine."""
    pace, load = machine.pace, machine.load.get("load_1min") or 0.0
    cores = _cores(machine)
    quiet = "end other programs, or measure at a quieter time or on a machine of your own"
    if load > max(LOADED * cores, LOADED_LEAST):
        yield Finding(
            "load",
            "warning",
            f"other programs are at work here: the load average is {load:.1f} on {plural(cores, 'core')}",
            quiet,
        )
    if pace.apart > APART:
        text = (
            f"the machine is noisy: from one {1000 * pace.block_seconds:.1f} ms to the next, the speed of an empty "
            f"loop differs by {100 * pace.apart:.1f} % (more than {100 * APART:.0f} % harms measurements)"
        )
        if pace.is_throttled:
            text += f"; a quota held it back for {_share(pace.throttled)} of the time"
        yield Finding("pace", "warning", text, LIFT_QUOTA if pace.is_throttled else quiet)
    if pace.stolen is not None and pace.stolen > STOLEN:
        text = f"this virtual machine's host took {100 * pace.stolen:.0f} % of its processors' time meanwhile"
        yield Finding("pace", "warning", text, "use a dedicated host or instance, or measure at a quieter time")


def _gpus(machine: Machine) -> Iterator[Finding]:
    for gpu in machine.gpus:
        if gpu.processes:
            remedy = "end them"
            if len(machine.gpus) > 1:
                remedy += ", or choose another GPU: TARGET@device=N"
            yield Finding(
                f"GPU {gpu.index}", "warning", f"other processes compute on it: {', '.join(gpu.processes)}", remedy
            )


def _sync(target: Examined) -> str:
    return f"harness targets sync {target.name}"


def _reinstall(target: Examined) -> str:
    return f"remove {target.folder}, then: {_sync(target)}"


def _split(text: str) -> tuple[str, str]:
    """A line of the form "what is wrong: what to do" in two."""
    wrong, _, remedy = text.partition(": ")
    return wrong, remedy


def _first_number(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0
