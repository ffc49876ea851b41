"""Everything that differs between operating systems, in one package. Standard library only; imports everywhere.

What a system cannot do is stated by each function: some do nothing there, some return None, some raise. No other
module asks which system it runs on, reads a folder of the kernel's, or calls what one system alone has.

    names       what systems, interpreters and ends of processes are called
    groups      a process and all that it starts, ended together: sessions on POSIX, job objects on Windows
    forking     one child per cell, and ends of processes that must not wait for anybody (POSIX)
    processors  which processors this process may use
    quotas      how much of their time, and of memory, a container gives, and what it has held back
    counters    what this process and machine have used
    hardware    what the machine is
    graphics    WSL, and what DirectML needs
    energy      what the processors have used of it
    files       folders synced to the disk, long paths, whose a file is, who holds it, what /dev/stdout stands for
    windows     what the others call on Windows
"""

from __future__ import annotations

from harness.core.system.counters import (
    out_of_memory_kills,
    peak_memory_bytes,
    preemptions,
    processor_seconds,
    stolen_seconds,
    suspended_seconds,
    thread_count,
    thread_names,
    threads_at_work,
)
from harness.core.system.energy import has_own_process_ids, package_energies
from harness.core.system.files import (
    HeldElsewhere,
    is_locked,
    is_too_long,
    keep_access,
    long_path,
    long_paths_allowed,
    open_descriptor,
    patiently,
    remove_folder,
    replace,
    starting_place,
    sync_folder,
)
from harness.core.system.forking import (
    ChildExit,
    accept_cancel,
    can_fork,
    cancel_child,
    die_with_parent,
    ending_signals,
    exit_now,
    hung_up,
    run_in_child,
    terminate_main_thread,
)
from harness.core.system.graphics import missing_for_directml, wsl_version
from harness.core.system.groups import end_group, start_group, wait_for_group
from harness.core.system.hardware import (
    boost,
    governor,
    governor_driver,
    machine_identity,
    processor_name,
    simultaneous_threads,
)
from harness.core.system.names import (
    exit_description,
    machine_name,
    platform_name,
    python_of_environment,
    python_of_installation,
    signal_name,
)
from harness.core.system.processors import usable_processors, use_processors, yield_to_others
from harness.core.system.quotas import memory_left, memory_limit, processor_quota, throttled_seconds

__all__ = [
    "ChildExit",
    "HeldElsewhere",
    "accept_cancel",
    "boost",
    "can_fork",
    "cancel_child",
    "die_with_parent",
    "end_group",
    "ending_signals",
    "exit_description",
    "exit_now",
    "governor",
    "governor_driver",
    "has_own_process_ids",
    "hung_up",
    "is_locked",
    "is_too_long",
    "keep_access",
    "long_path",
    "long_paths_allowed",
    "machine_identity",
    "machine_name",
    "memory_left",
    "memory_limit",
    "missing_for_directml",
    "open_descriptor",
    "out_of_memory_kills",
    "package_energies",
    "patiently",
    "peak_memory_bytes",
    "platform_name",
    "preemptions",
    "processor_name",
    "processor_quota",
    "processor_seconds",
    "python_of_environment",
    "python_of_installation",
    "remove_folder",
    "replace",
    "run_in_child",
    "signal_name",
    "simultaneous_threads",
    "start_group",
    "starting_place",
    "stolen_seconds",
    "suspended_seconds",
    "sync_folder",
    "terminate_main_thread",
    "thread_count",
    "thread_names",
    "threads_at_work",
    "throttled_seconds",
    "usable_processors",
    "use_processors",
    "wait_for_group",
    "wsl_version",
    "yield_to_others",
]
