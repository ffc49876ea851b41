"""A real Slurm of two nodes on this machine, for all tests here; without its programs they skip and say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.two_nodes import ClusterSweeper, TwoNodes
from tests.process.processes import wait_until_none
from tests.process.small_sweep import made_cache

LOCAL_SLURM = Path(__file__).resolve().with_name("slurm_local.sh")


def why_not() -> str:
    """Why there can be no Slurm here; empty if there can."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons takes root"


@pytest.fixture(scope="session")
def slurm() -> Iterator[TwoNodes]:
    reason = why_not()
    if reason:
        pytest.skip(f"Slurm: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        nodes = TwoNodes(LOCAL_SLURM, Path(folder))
        nodes.up()
        try:
            yield nodes
        finally:
            nodes.down()


@pytest.fixture(scope="session")
def cluster_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def sweeper(slurm: TwoNodes, tmp_path: Path, cluster_cache: Path) -> Iterator[ClusterSweeper]:
    """A small sweep; afterwards no job and no process is left of it."""
    made = ClusterSweeper(tmp_path / "work", cluster_cache, uuid.uuid4().hex, elsewhere=True, nodes=slurm)
    yield made
    subprocess.run(["scancel", "--user=root"], env=slurm.environment(), check=False, capture_output=True)
    slurm.wait_idle()
    assert wait_until_none(made.mark) == []
