"""A backend that trains softmax regression in NumPy and misbehaves as the cell's target tells it to.

``Target.environment`` holds a script: a JSON list of [place, call, action], as in ``[["train", 2, "segfault"]]``: at
the second call of ``train``, end with a segmentation fault. Places: initialise, session, train, synchronise,
evaluate, gradients, device, close. The variable ``FAKE_LOAD`` holds an action for ``load``, ``FAKE_FORK=no``
forbids forking.
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np

from backends.protocol import Arrays, Capabilities, Gradients
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, OutOfMemory, Unsupported

SLOW_SECONDS = 0.3
STEP_SECONDS = 0.004
ACCESS_VIOLATION = 0xC0000005


class FakeFrameworkError(Exception):
    """What this framework raises when its device is out of memory."""


class FakeBackend:
    name = "fake"

    def __init__(self) -> None:
        self._script: list[Any] = []
        self._calls: Counter[str] = Counter()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            accelerators=("cpu",),
            modes=("numpy",),
            inputs={"numpy": ("resident",)},
            precisions=("float32",),
            layers=("flatten", "dense"),
            optimizers=("sgd",),
            can_fork=os.environ.get("FAKE_FORK") != "no",
            refusals={"conv2d": "not needed here"},
        )

    def load(self) -> None:
        print("the fake framework greets you")
        os.system("echo a native library says hello")
        perform(os.environ.get("FAKE_LOAD", "nothing"))

    def versions(self) -> dict[str, str]:
        return {"fake": "1.0", "numpy": np.__version__}

    def initialise(self, target: Target) -> dict[str, Any]:
        self._script = json.loads(target.environment) if target.environment.startswith("[") else []
        self._calls.clear()
        self.reach("initialise")
        return {"device": "fake:0", "home": os.path.expanduser("~"), "cwd": os.getcwd()}

    def session(self, cell: Cell, arrays: Arrays) -> FakeSession:
        self.reach("session")
        return FakeSession(self, cell, arrays)

    def translate(self, error: BaseException) -> CellError | None:
        return OutOfMemory(f"fake device memory: {error}") if isinstance(error, FakeFrameworkError) else None

    def reach(self, place: str) -> None:
        """Do what the script says for this call of ``place``."""
        self._calls[place] += 1
        for where, call, action in self._script:
            if where == place and call == self._calls[place]:
                perform(action)


class FakeSession:
    """Softmax regression by plain SGD."""

    def __init__(self, backend: FakeBackend, cell: Cell, arrays: Arrays) -> None:
        self._reach = backend.reach
        self._cell = cell
        self._arrays = arrays
        (self._name,) = arrays.parameters
        self._kernel = np.array(arrays.parameters[self._name], np.float64)
        self._order = arrays.order.reshape(-1, arrays.order.shape[-1])
        self._step = 0
        self._losses: list[float] = []

    def train(self, steps: int) -> None:
        self._reach("train")
        for _ in range(steps):
            batch = self._order[self._step]
            found = self.gradients(self._arrays.train_images[batch], self._arrays.train_labels[batch])
            self._kernel -= self._cell.training.learning_rate.base * found.gradients[self._name]
            self._losses.append(found.loss)
            self._step += 1

    def synchronise(self) -> None:
        self._reach("synchronise")

    def losses(self) -> list[float]:
        losses, self._losses = self._losses, []
        return losses

    def evaluate(self, first_batch_only: bool = False) -> tuple[float, float]:
        self._reach("evaluate")
        count = 1 if first_batch_only else len(self._arrays.test_labels)
        labels = self._arrays.test_labels[:count]
        logits = self.forward(self._arrays.test_images[:count], training=False)
        return _loss(logits, labels)[0], float(np.mean(logits.argmax(axis=1) == labels))

    def gradients(self, images: Any, labels: Any) -> Gradients:
        self._reach("gradients")
        logits = self.forward(images, training=True)
        loss, slope = _loss(logits, labels)
        return Gradients(logits, loss, {self._name: images.reshape(len(images), -1).T @ slope})

    def forward(self, images: Any, training: bool) -> Any:
        return images.reshape(len(images), -1).astype(np.float64) @ self._kernel

    def parameters(self) -> dict[str, Any]:
        return {self._name: self._kernel}

    def statistics(self) -> dict[str, Any]:
        return {}

    def device(self) -> dict[str, Any]:
        self._reach("device")
        return {"parameters": "fake:0"}

    def close(self) -> None:
        self._reach("close")


def _loss(logits: Any, labels: Any) -> tuple[float, Any]:
    """Mean softmax cross-entropy and its gradient by the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    slope = np.exp(log_shares)
    slope[rows, labels] -= 1
    return float(-log_shares[rows, labels].mean()), slope / len(labels)


def perform(action: str) -> None:
    """Misbehave."""
    name, _, argument = action.partition(":")
    if name == "nothing":
        return
    if name == "exit":
        os._exit(int(argument))
    elif name == "sys.exit":
        sys.exit(int(argument))
    elif name == "segfault":
        print("about to fall", flush=True)
        fall()
    elif name == "abort":
        os.write(2, b"Check failed: the device is gone\n")
        os.abort()
    elif name == "abort saying":
        os.write(2, f"{argument}\n".encode())
        os.abort()
    elif name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "hang":
        time.sleep(1000)
    elif name == "hang in native code":
        # Either keeps the interpreter's lock: no Python code runs any more.
        ctypes.PyDLL("kernel32").Sleep(1_000_000) if sys.platform == "win32" else ctypes.PyDLL(None).sleep(1000)
    elif name == "work on":
        threading.Thread(target=work_on, args=(float(argument),), daemon=True).start()
    elif name == "slow":
        time.sleep(SLOW_SECONDS)
    elif name == "print":
        print("garbage from Python", flush=True)
        os.write(1, b'{"kind":"block"} from native code\n\x00\xff')
        subprocess.run(["echo", "garbage from a process"], check=True)
    elif name == "say":
        say(argument.encode() + b"\n")
    elif name == "say half":
        say(argument.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "say much":
        say(b"x" * int(argument) + b"\n")
    elif name == "flood":
        while True:
            say(b"garbage\n" * 1000)
    elif name == "close the pipe":
        for descriptor in pipes():
            os.close(descriptor)
    elif name == "memory error":
        raise MemoryError
    elif name == "framework error":
        raise FakeFrameworkError("cannot allocate\n3 bytes")
    elif name == "unsupported":
        raise Unsupported("the fake cannot do this")
    elif name == "type error":
        raise TypeError("something\nin two lines")
    elif name == "interrupt":
        raise KeyboardInterrupt
    elif name == "take memory":
        held = bytearray(int(argument) * 2**20)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(SLOW_SECONDS)
    elif name == "allocate":
        _allocate_in_cgroup(argument)
    elif name == "start a process":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    elif name == "write files":
        write_files()
    else:
        raise ValueError(f"the fake does not know {action!r}")


def fall() -> None:
    """Touch memory that is nobody's. On Windows ctypes would make a Python error of it."""
    if sys.platform == "win32":
        faulthandler._raise_exception(ACCESS_VIOLATION)  # type: ignore[attr-defined]
    ctypes.string_at(0)


def work_on(seconds: float) -> None:
    """Keep a processor busy for so many seconds of its time, as a framework's own threads do: beside Python."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10_000)


def pipes() -> list[int]:
    """The descriptors of the protocol: what is a pipe and is none of the first three."""
    found = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    return [number for number in found if os.path.exists(f"/proc/self/fd/{number}") and _is_pipe(number)]


def _is_pipe(number: int) -> bool:
    return stat.S_ISFIFO(os.fstat(number).st_mode)


def say(data: bytes) -> None:
    """Write to the harness behind the worker's back."""
    for number in pipes():
        with open(f"/proc/self/fdinfo/{number}") as stream:
            flags = int(stream.read().split("flags:")[1].split()[0], 8)
        if flags & os.O_ACCMODE == os.O_WRONLY:
            while data:
                data = data[os.write(number, data) :]


def write_files() -> None:
    """Write wherever a framework may think of."""
    import tempfile

    with tempfile.NamedTemporaryFile(delete=False) as stream:
        stream.write(b"temporary")
    for folder in ("~/.cache", "~/.keras", os.environ["XDG_CACHE_HOME"], os.environ["KERAS_HOME"], "."):
        place = os.path.expanduser(folder)
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "written_by_fake"), "w") as stream:
            stream.write("fake")


def _allocate_in_cgroup(folder: str) -> None:
    """Join the control group and take memory until the kernel ends it."""
    with open(os.path.join(folder, "cgroup.procs"), "w") as stream:
        stream.write(str(os.getpid()))
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1024) * 4096))
