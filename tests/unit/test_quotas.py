"""Quotas of containers, read from made-up folders: both versions of control groups, alone, mixed, and in namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.system.quotas import memory_left, memory_limit, processor_quota, throttled_seconds

V2 = "30 24 0:26 {top} {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 24 0:27 {top} {place} rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct"
OTHER = "33 24 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"
UNIFIED, OLD = "/sys/fs/cgroup", "/sys/fs/cgroup/cpu,cpuacct"


class System:
    """A root folder that is filled with what a kernel would tell."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def process(self, groups: str, *mounts: str) -> None:
        self.put("/proc/self/cgroup", groups)
        self.put("/proc/self/mountinfo", "\n".join([OTHER, *mounts]) + "\n")

    def new(self, group: str, quota: str, throttled: int = 0) -> None:
        """A group of version 2; ``throttled`` in microseconds."""
        self.put(f"{group}/cpu.max", f"{quota} 100000\n")
        self.put(f"{group}/cpu.stat", f"usage_usec 5\nnr_periods 9\nnr_throttled 2\nthrottled_usec {throttled}\n")

    def old(self, group: str, quota: int, throttled: int = 0, period: int = 100000) -> None:
        """A group of version 1; ``throttled`` in nanoseconds."""
        self.put(f"{group}/cpu.cfs_quota_us", f"{quota}\n")
        self.put(f"{group}/cpu.cfs_period_us", f"{period}\n")
        self.put(f"{group}/cpu.stat", f"nr_periods 9\nnr_throttled 2\nthrottled_time {throttled}\n")


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_version_2_gives_quota_and_throttled_time(system: System) -> None:
    system.process("0::/a\n", V2.format(top="/", place=UNIFIED))
    system.new(f"{UNIFIED}/a", "30000", throttled=2_500_000)
    assert processor_quota(system.root) == 0.3
    assert throttled_seconds(system.root) == {str(system.root / "sys/fs/cgroup/a"): 2.5}


@pytest.mark.parametrize(("quotas", "found"), [(("max", "50000", "200000"), 0.5), (("150000", "max", "max"), 1.5)])
def test_the_tightest_group_around_counts(system: System, quotas: tuple[str, str, str], found: float) -> None:
    system.process("0::/a/b/c\n", V2.format(top="/", place=UNIFIED))
    for group, quota in zip(("a/b/c", "a/b", "a"), quotas, strict=True):
        system.new(f"{UNIFIED}/{group}", quota)
    system.new(f"{UNIFIED}/a/b/sibling", "1000")
    assert processor_quota(system.root) == found
    assert len(throttled_seconds(system.root)) == 3


def test_version_1_gives_quota_and_throttled_time(system: System) -> None:
    system.process("4:cpu,cpuacct:/a/b\n3:memory:/m\n0::/\n", V1.format(top="/", place=OLD))
    system.old(f"{OLD}/a/b", -1, throttled=7)
    system.old(f"{OLD}/a", 60000, throttled=1_500_000_000, period=50000)
    system.old(OLD, -1)
    assert processor_quota(system.root) == 1.2
    assert max(throttled_seconds(system.root).values()) == 1.5


def test_of_both_versions_side_by_side_the_one_with_processors_tells(system: System) -> None:
    """Systems that keep version 1 for its controllers mount version 2 beside it, without them."""
    system.process("4:cpu,cpuacct:/a\n0::/a\n", V1.format(top="/", place=OLD), V2.format(top="/", place=f"{UNIFIED}/u"))
    system.put(f"{UNIFIED}/u/a/cgroup.procs", "1\n")
    system.old(f"{OLD}/a", 30000)
    assert processor_quota(system.root) == 0.3


def test_a_container_sees_its_own_part_of_the_tree(system: System) -> None:
    """Without a namespace: its path is the host's, and what is mounted begins at that."""
    system.process("4:cpu,cpuacct:/docker/abc/job\n", V1.format(top="/docker/abc", place=OLD))
    system.old(OLD, 30000, throttled=9)
    system.old(f"{OLD}/job", -1)
    assert processor_quota(system.root) == 0.3


def test_in_a_namespace_the_top_is_the_containers_own_group(system: System) -> None:
    system.process("0::/\n", V2.format(top="/", place=UNIFIED))
    system.new(UNIFIED, "30000")
    assert processor_quota(system.root) == 0.3


def test_what_is_mounted_from_above_a_namespace_is_around_it(system: System) -> None:
    system.process("0::/\n", V2.format(top="/..", place=UNIFIED))
    system.new(UNIFIED, "50000")
    assert processor_quota(system.root) == 0.5


def test_a_path_that_is_not_there_leaves_the_groups_above_it(system: System) -> None:
    system.process("0::/docker/abc\n", V2.format(top="/", place=UNIFIED))
    system.new(UNIFIED, "30000")
    assert processor_quota(system.root) == 0.3


@pytest.mark.parametrize("group", ["/../other", "/elsewhere"])
def test_a_group_that_is_not_below_what_is_mounted_tells_nothing(system: System, group: str) -> None:
    system.process(f"0::{group}\n", V2.format(top="/docker", place=UNIFIED))
    system.new(UNIFIED, "30000")
    assert processor_quota(system.root) is None
    assert throttled_seconds(system.root) == {}


def test_folders_with_blanks_are_found(system: System) -> None:
    system.process("0::/a b:c\n", V2.format(top="/", place=r"/my\040groups"))
    system.new("/my groups/a b:c", "30000")
    assert processor_quota(system.root) == 0.3


@pytest.mark.parametrize("text", ["", "max 100000", "nonsense", "30000", "30000 0", "-1 100000"])
def test_no_quota_and_nonsense_are_no_quota(system: System, text: str) -> None:
    system.process("0::/a\n", V2.format(top="/", place=UNIFIED))
    system.put(f"{UNIFIED}/a/cpu.max", text)
    system.put(f"{UNIFIED}/a/cpu.stat", "usage_usec 5\n")
    assert processor_quota(system.root) is None
    assert throttled_seconds(system.root) == {}


def test_where_the_kernel_tells_nothing_there_is_none(tmp_path: Path) -> None:
    assert processor_quota(tmp_path) is None
    assert throttled_seconds(tmp_path) == {}


GIB = 2**30
V1_MEMORY = "32 24 0:28 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


def test_version_2_gives_the_limit_of_memory_and_what_is_left(system: System) -> None:
    system.process("0::/a/b\n", V2.format(top="/", place=UNIFIED))
    for group, limit, used in (("a/b", "max", GIB), ("a", str(4 * GIB), 3 * GIB)):
        system.put(f"{UNIFIED}/{group}/memory.max", limit)
        system.put(f"{UNIFIED}/{group}/memory.current", str(used))
        system.put(f"{UNIFIED}/{group}/memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert memory_limit(system.root) == 4 * GIB
    assert memory_left(system.root) == 3 * GIB // 2


def test_version_1_gives_the_limit_of_memory_and_what_is_left(system: System) -> None:
    system.process("9:memory:/m\n4:cpu,cpuacct:/c\n", V1_MEMORY.format(top="/"))
    folder = "/sys/fs/cgroup/memory"
    system.put(f"{folder}/memory.limit_in_bytes", "9223372036854771712\n")
    system.put(f"{folder}/m/memory.limit_in_bytes", f"{GIB}\n")
    system.put(f"{folder}/m/memory.usage_in_bytes", f"{2 * GIB}\n")
    assert (memory_limit(system.root), memory_left(system.root)) == (GIB, 0)


def test_without_a_limit_of_memory_there_is_none(system: System) -> None:
    system.process("9:memory:/m\n", V1_MEMORY.format(top="/"))
    system.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(system.root) is memory_left(system.root) is None
