"""What differs between operating systems stands in ``harness.core.system``: read from the code, and tried without it.

The first half reads syntax trees. The second imports every module in a process that has nothing of POSIX's own, and
that calls itself Windows, and takes the ways that Windows takes.
"""

from __future__ import annotations

import ast
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest

from harness.core.errors import Unsupported
from harness.core.system import files as system_files
from harness.core.system import windows

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ROOT / "harness" / "core" / "system"

ONE_SYSTEMS_OWN: dict[str, str] = {
    "sys": "platform getwindowsversion",
    "os": "name uname fork forkpty kill killpg wait wait3 wait4 waitid waitpid WNOHANG nice "
    "getuid geteuid getgid getegid getgroups setuid setgid getpgid setpgid getpgrp getsid setsid "
    "sched_getaffinity sched_setaffinity sched_yield getloadavg sysconf statvfs fstatvfs "
    "chown lchown chroot mkfifo mknod pipe2 openpty ttyname ctermid posix_spawn posix_fadvise posix_fallocate "
    "pread pwrite readv writev sendfile fdatasync sync set_blocking get_blocking O_NONBLOCK O_CLOEXEC O_DIRECTORY "
    "startfile add_dll_directory",
    "signal": "SIGKILL SIGUSR1 SIGUSR2 SIGCHLD SIGHUP SIGQUIT SIGALRM SIGSTOP SIGCONT SIGPIPE CTRL_C_EVENT "
    "CTRL_BREAK_EVENT alarm setitimer pause pthread_sigmask pthread_kill sigwait sigtimedwait set_wakeup_fd",
    "select": "select poll epoll kqueue",
    "socket": "AF_UNIX",
    "subprocess": "STARTUPINFO CREATE_NEW_PROCESS_GROUP CREATE_NO_WINDOW DETACHED_PROCESS",
    "ctypes": "WinDLL windll WinError get_last_error",
}
"""Names that some system lacks, or that ask which one this is; ``os.kill`` means something else on Windows."""

MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "posix"} | {
    "msvcrt",
    "winreg",
    "_winapi",
    "winsound",
}
KEYWORDS = {"preexec_fn", "pass_fds", "start_new_session", "process_group", "creationflags", "startupinfo"}
FOLDERS = ("/proc/", "/sys/", "/dev/", "/etc/", "/var/")


def sources() -> list[Path]:
    found = [path for folder in ("harness", "backends") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if SYSTEM not in path.parents]


def names_of_one_system(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that only ``harness.core.system`` may use."""
    banned = {module: set(names.split()) for module, names in ONE_SYSTEMS_OWN.items()}
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in banned.get(node.value.id, ()):
                yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            wrong = banned.get(node.module or "", set()) & {alias.name for alias in node.names}
            yield from ((node.lineno, f"{node.module}.{name}") for name in sorted(wrong))
            if (node.module or "").partition(".")[0] in MODULES:
                yield node.lineno, str(node.module)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, f"{word.arg}=") for word in node.keywords if word.arg in KEYWORDS)
        elif isinstance(node, ast.Compare):
            if "platform.system" in ast.unparse(node):
                yield node.lineno, "platform.system"
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            yield from ((node.lineno, text) for text in [node.value] if str(text).startswith(FOLDERS))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os\nos.fork()", ["os.fork"]),
        ("from os import path, killpg", ["os.killpg"]),
        ("from fcntl import flock", ["fcntl"]),
        ("import resource", ["resource"]),
        ("subprocess.Popen(x, start_new_session=True)", ["start_new_session="]),
        ("if platform.system() == 'Windows': pass", ["platform.system"]),
        ("'''/proc/stat'''\nopen('/proc/stat')", ["/proc/stat"]),
        ("sys.platform == 'linux'", ["sys.platform"]),
        ("os.getpid(); os.replace(a, b); signal.SIGTERM; os.devnull", []),
    ],
)
def test_the_reading_finds_what_it_looks_for(code: str, found: list[str]) -> None:
    assert [name for _, name in names_of_one_system(ast.parse(code))] == found


def test_nothing_that_some_system_lacks_is_used_outside_the_system_package() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources()
        for line, name in names_of_one_system(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(sources()) > 80
    assert not found, "\n" + "\n".join(found)


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Windows has another default."""
    texts = {"read_text", "write_text"}
    found = []
    for path in sources() + sorted(SYSTEM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {word.arg for word in node.keywords}
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_plain_open = isinstance(node.func, ast.Name) and called == "open"
            mode = next((c.value for c in node.args[1:2] if isinstance(c, ast.Constant)), "r")
            binary = "b" in str(mode) or "devnull" in ast.unparse(node)
            as_text = "text" in given or "universal_newlines" in given
            if (called in texts or (is_plain_open and not binary) or as_text) and "encoding" not in given:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:80]}")
    assert not found, "\n" + "\n".join(found)


WITHOUT_POSIX = """
import ctypes, importlib, os, pathlib, pkgutil, select, signal, socket, subprocess, sys, tempfile
sys.path.insert(0, {root!r})
# Other people's libraries look at the system as well; they are at hand before it changes.
import click, filelock, httpx, numpy, platformdirs, polars, psutil, pydantic, rich.console, rich.progress, scipy.stats
import rich.table, rich.live, uv, httpcore, socksio
import asyncio, concurrent.futures, multiprocessing.connection, unittest.mock

for name in {modules!r}:
    sys.modules[name] = None
for module, names in {names!r}.items():
    for name in names.split():
        if module != "sys" and name not in ("name", "kill", "waitpid", "select") and hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.platform = "win32"
imported = []
for package in ("harness", "backends"):
    for found in pkgutil.walk_packages([str(pathlib.Path({root!r}, package))], package + "."):
        imported.append(importlib.import_module(found.name).__name__)
{rest}
print(len(imported))
"""
POSIX_MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog")


def without_posix(rest: str) -> subprocess.CompletedProcess[str]:
    """A process that imports all modules with nothing of POSIX's own, then does ``rest``."""
    code = WITHOUT_POSIX.format(root=str(ROOT), modules=POSIX_MODULES, names=ONE_SYSTEMS_OWN, rest=rest)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, encoding="utf-8")


def test_every_module_imports_where_there_is_nothing_of_posix() -> None:
    done = without_posix("")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere it stands in for Windows, which is behind it here")
def test_the_ways_that_windows_takes_use_nothing_of_posix() -> None:
    """Whatever needs no call of Windows itself runs to its end; what does fails there, and not on a missing name."""
    rest = """
from harness.core import codec, system
from pathlib import Path
assert (system.platform_name(), system.can_fork()) == ("windows", False)
assert system.preemptions() is system.stolen_seconds() is system.out_of_memory_kills() is None
assert system.hung_up(0) is False
system.die_with_parent(1); system.accept_cancel(); system.cancel_child(1)
system.processor_seconds(); system.suspended_seconds()
with tempfile.TemporaryDirectory() as folder:
    codec.write_atomically(Path(folder, "file"), "text")
    assert Path(folder, "file").read_bytes() == b"text"
    (Path(folder) / "deep").mkdir()
try:
    system.run_in_child(lambda: 0, 0)
except Exception as error:
    assert type(error).__name__ == "Unsupported", error
for call in (system.peak_memory_bytes, system.usable_processors, system.long_paths_allowed):
    try:
        call()
    except (AttributeError, ImportError) as error:  # ctypes.WinDLL, winreg: there is no Windows behind it
        assert "WinDLL" in str(error) or "winreg" in str(error), error
    else:
        raise AssertionError(call)
"""
    done = without_posix(rest)
    assert done.returncode == 0, done.stderr


# What is Windows' own, as far as it can be told elsewhere


def test_structures_have_the_layout_that_windows_documents() -> None:
    assert ctypes.sizeof(ctypes.c_void_p) == 8, "the figures are those of 64-bit Windows"
    assert ctypes.sizeof(windows.ExtendedLimits) == 144
    assert windows.ExtendedLimits.LimitFlags.offset == 16
    assert windows.ExtendedLimits.IoInfo.offset == 64
    assert windows.ExtendedLimits.ProcessMemoryLimit.offset == 112
    assert ctypes.sizeof(windows.MemoryCounters) == 72
    assert windows.MemoryCounters.PeakWorkingSetSize.offset == 8


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"C:\runs\a", r"\\?\C:\runs\a"),
        (r"\\server\share\a", r"\\?\UNC\server\share\a"),
        (r"\\?\C:\runs\a", r"\\?\C:\runs\a"),
        (r"\\.\pipe\a", r"\\.\pipe\a"),
    ],
)
def test_a_path_of_any_length_has_its_verbatim_form(path: str, expected: str) -> None:
    assert windows.verbatim(path) == expected
    assert PureWindowsPath(expected).name == "a"


@pytest.mark.skipif(sys.platform == "win32", reason="there it does something")
def test_elsewhere_paths_stay_and_windows_calls_say_so(tmp_path: Path) -> None:
    assert system_files.long_path(tmp_path) is tmp_path
    assert system_files.long_paths_allowed()
    with pytest.raises(Unsupported, match="only Windows can do this"):
        windows.peak_memory_bytes()
    with pytest.raises(Unsupported, match="only Windows can do this"):
        windows.Job.around(1)
