"""What frameworks need of a machine beside their own packages: NVIDIA's driver and libraries of the system.

Which those are follows from the packages. A framework that brings CUDA along needs a driver that is new enough for
it; TensorFlow 2.10 needs CUDA 11.2 and cuDNN 8.1 installed by the person as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""CUDA's major version -> first number of the oldest NVIDIA driver that runs it (CUDA release notes, table "CUDA
Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility")."""

CUDA_LINK = "https://developer.nvidia.com/cuda-11.2.2-download-archive"
CUDNN_LINK = "https://developer.nvidia.com/rdp/cudnn-archive"

_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu\d+)?")
_JAX_PLUGIN = re.compile(r"jax-cuda(\d+)-plugin")
_LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_WANTED = {
    ("tensorflow_keras", "cuda"): '"tensorflow[and-cuda]"',
    ("tensorflow_keras", "directml"): '"tensorflow-cpu==2.10.0" "tensorflow-directml-plugin" "numpy<2"',
    ("jax_flax", "cuda"): '"jax[cuda12]"',
}


@dataclass(frozen=True)
class Toolkit:
    """Libraries that are installed together: their file names, and where they are to be had."""

    name: str
    files: tuple[str, ...]
    link: str

    def remedy(self, platform: str) -> str:
        """How to get them, and how to let them be found."""
        place = "its bin folder on PATH" if platform == "windows" else "its lib64 folder on LD_LIBRARY_PATH"
        return f"install it and put {place}: {self.link}"


_TENSORFLOW_210 = {
    "windows": (
        Toolkit(
            "CUDA 11.2",
            (
                "cudart64_110.dll",
                "cublas64_11.dll",
                "cublasLt64_11.dll",
                "cufft64_10.dll",
                "curand64_10.dll",
                "cusolver64_11.dll",
                "cusparse64_11.dll",
            ),
            CUDA_LINK,
        ),
        Toolkit("cuDNN 8.1", ("cudnn64_8.dll",), CUDNN_LINK),
    ),
    "linux": (
        Toolkit(
            "CUDA 11.2",
            (
                "libcudart.so.11.0",
                "libcublas.so.11",
                "libcublasLt.so.11",
                "libcufft.so.10",
                "libcurand.so.10",
                "libcusolver.so.11",
                "libcusparse.so.11",
            ),
            CUDA_LINK,
        ),
        Toolkit("cuDNN 8.1", ("libcudnn.so.8",), CUDNN_LINK),
    ),
}


def locked_packages(lock: str) -> dict[str, str]:
    """Name -> version of everything that a requirements file pins, whatever the platform."""
    return {normalised(name): version for name, version in _LOCKED.findall(lock)}


def normalised(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def cuda_of(packages: Mapping[str, str]) -> int | None:
    """The major version of the CUDA that these packages bring or ask of the system; None if they tell of none."""
    for name, version in packages.items():
        if plugin := _JAX_PLUGIN.fullmatch(name):
            return int(plugin.group(1))
        if _RUNTIME.fullmatch(name):
            return int(version.partition(".")[0])
    return 11 if _is_tensorflow_210(packages) else None


def has_jax_plugin(packages: Mapping[str, str]) -> bool:
    """Whether JAX's part for CUDA is among the packages."""
    return any(_JAX_PLUGIN.fullmatch(name) for name in packages)


def system_libraries(backend: str, accelerator: str, packages: Mapping[str, str], platform: str) -> tuple[Toolkit, ...]:
    """What must be installed in the system for these packages to use the accelerator; nothing where it comes along."""
    if (backend, accelerator) != ("tensorflow_keras", "cuda") or not _is_tensorflow_210(packages):
        return ()
    return _TENSORFLOW_210.get(platform, ())


def wanted_packages(backend: str, accelerator: str, packages: Mapping[str, str], platform: str) -> str:
    """What to give ``pip install`` for the accelerator, for a backend of the harness's own; empty for another."""
    is_210 = packages.get("tensorflow-cpu", "").startswith("2.10.")
    if (backend, accelerator) == ("tensorflow_keras", "cuda") and (is_210 or platform == "windows"):
        return '"tensorflow==2.10.*" "numpy<2"'
    return _WANTED.get((backend, accelerator), "")


def _is_tensorflow_210(packages: Mapping[str, str]) -> bool:
    return packages.get("tensorflow", "").startswith("2.10.")
