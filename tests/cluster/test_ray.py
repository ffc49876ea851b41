"""Sweeps on a real Ray cluster of two nodes, and whatever happens to tasks: each cell is recorded exactly once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.runs import folder as run_folder
from tests.cluster.ray_nodes import RayNodes
from tests.cluster.two_nodes import each_once, until
from tests.command import HARNESS
from tests.process.small_sweep import Sweeper, stop

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: uv sync --extra ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters of several nodes are for Linux"),
]

PATIENCE = 600.0
WORKER_PATHS = """
import sys
sys.path.pop(0)
import json
from harness.cluster.ray import tasks
cluster = tasks.connect(sys.argv[1])
def path():
    import sys
    return sys.path
print(json.dumps(cluster._ray.get(cluster._ray.remote(path).remote())))
cluster.close()
"""
"""Prints where the workers of a cluster look for modules, having connected to it as the harness does."""

IMPATIENT = """
from harness.cluster.ray import following
following.LOOK_SECONDS, following.NODE_PATIENCE = 0.5, 4.0
from harness.cli import main
main()
"""
"""The harness, giving up nodes that are gone sooner."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = RayNodes(Path(folder), uuid.uuid4().hex)
        try:
            yield made
        finally:
            made.down()


@pytest.fixture
def sweeper(nodes: RayNodes, tmp_path: Path, cluster_cache: Path) -> Iterator[Sweeper]:
    """A small sweep; afterwards no process is left of it, and both nodes are there."""
    made = Sweeper(tmp_path / "work", cluster_cache, uuid.uuid4().hex, elsewhere=True)
    yield made
    until(lambda: nodes.heats(made.folder) == [], "the heats to end")
    for number in {1, 2} - nodes.ids.keys():
        nodes.start(number)


def on_ray(nodes: RayNodes, *flags: str) -> list[str]:
    return ["--launcher", "ray", "--ray", f"address={nodes.address}", *flags]


def reached(sweeper: Sweeper) -> Path:
    return sweeper.folder / "reached"


def hang_at(sweeper: Sweeper, batch_size: int = 8) -> None:
    """The cell of that batch size says that it trains, and then never ends."""
    sweeper.script((batch_size, "train", 2, f"touch:{reached(sweeper)}"), (batch_size, "train", 3, "hang"))


def node_of_heat(nodes: RayNodes, sweeper: Sweeper) -> int:
    (heat,) = nodes.heats(sweeper.folder)
    id = heat.environ()["HARNESS_RAY_NODE"]
    return next(number for number, other in nodes.ids.items() if other == id)


def by_size(sweeper: Sweeper) -> dict[int, str]:
    each_once(sweeper.kept)
    return {size: status for (_, size), status in sweeper.statuses().items()}


def test_both_nodes_leave_what_a_local_run_leaves(sweeper: Sweeper, nodes: RayNodes) -> None:
    seeds = ("--seed", "0,1")
    done = sweeper.run(*on_ray(nodes), *seeds, patience=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "[6/6]" in done.stderr
    assert (sweeper.folder / "run" / "report.html").exists()
    local = sweeper.finished([*sweeper.command(*seeds), "--out", "local"], PATIENCE)
    assert local.returncode == 0, local.stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    assert each_once(sweeper.kept) == each_once(run_folder.Run.open(sweeper.folder / "local"))
    by_seed = {(record.cell.training.seed, nodes.number_of(record.log)) for record in sweeper.kept.records()}
    assert len(by_seed) == 2, "a replicate's batch sizes are measured on one machine"
    assert {node for _, node in by_seed} == {1, 2}
    again = sweeper.run(*on_ray(nodes), *seeds, patience=PATIENCE)
    assert again.returncode == 0, again.stderr


def test_a_persons_own_files_where_a_sweep_is_started_are_not_imported(sweeper: Sweeper, nodes: RayNodes) -> None:
    for name in ("harness", "queue", "numpy", "json", "socket", "subprocess", "time", "setproctitle", "psutil"):
        (sweeper.folder / f"{name}.py").write_text(f"open({str(sweeper.folder / 'imported')!r}, 'a').write({name!r})\n")
    done = sweeper.run(*on_ray(nodes), patience=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert set(each_once(sweeper.kept).values()) == {"ok"}
    assert not (sweeper.folder / "imported").exists()
    paths = subprocess.run(
        [sys.executable, "-c", WORKER_PATHS, nodes.address],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(paths.stdout) != []
    assert str(sweeper.folder) not in json.loads(paths.stdout)


@pytest.mark.long
def test_a_node_that_dies_in_mid_heat_costs_nothing_but_time(sweeper: Sweeper, nodes: RayNodes) -> None:
    hang_at(sweeper)
    with sweeper.running(*on_ray(nodes, "--json")) as process:
        until(reached(sweeper).exists, "the heat to train")
        assert "1 of 3 cells recorded (1 ok); process" in ask(sweeper, "status", "run")
        assert "end that with Ctrl-C there" in ask(sweeper, "cancel", "run")
        node = node_of_heat(nodes, sweeper)
        first = nodes.ids[node]
        sweeper.script()
        nodes.kill(node)
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "node died" in errors
    assert "attempt 2 of 4 begins" in errors
    assert json.loads(output)
    assert by_size(sweeper) == {4: "ok", 8: "ok", 16: "ok"}
    logs = {size: record.log for (_, size), record in sweeper.records().items()}
    assert f"ray-{first[:8]}-" in logs[4]
    assert nodes.number_of(logs[8]) == nodes.number_of(logs[16]) == 3 - node


@pytest.mark.long
def test_where_no_retry_is_left_cells_say_so_and_the_same_command_runs_them(sweeper: Sweeper, nodes: RayNodes) -> None:
    hang_at(sweeper)
    with sweeper.running(*on_ray(nodes, "--ray", "retries=0")) as process:
        until(reached(sweeper).exists, "the heat to train")
        nodes.kill(node_of_heat(nodes, sweeper))
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    assert by_size(sweeper) == {4: "ok", 8: "interrupted", 16: "interrupted"}
    reasons = {size: record.reason for (_, size), record in sweeper.records().items()}
    assert reasons[16].startswith("Ray task of heats 0, 1, 2: node died (")
    # One heat a task; the process of one is killed, as the kernel does where memory runs out.
    reached(sweeper).unlink()
    with sweeper.running(*on_ray(nodes, "--ray", "retries=0", "--ray", "heats-per-task=1")) as process:
        until(reached(sweeper).exists, "the heat to train")
        for heat in nodes.heats(sweeper.folder):
            heat.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert by_size(sweeper) == {4: "ok", 8: "crashed", 16: "ok"}
    reason = {size: record.reason for (_, size), record in sweeper.records().items()}[8]
    assert reason.startswith("Ray task of heat 1: ended with signal 9 on node ")
    sweeper.script()
    done = sweeper.run(*on_ray(nodes), "--retry", "failed", patience=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert by_size(sweeper) == {4: "ok", 8: "ok", 16: "ok"}


@pytest.mark.long
def test_where_no_node_is_left_cells_say_so(sweeper: Sweeper, nodes: RayNodes) -> None:
    hang_at(sweeper)
    command = sweeper.command(*on_ray(nodes, "--ray", "scripted.first=1"))
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *command[1:]],
        cwd=sweeper.folder,
        env=sweeper.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(reached(sweeper).exists, "the heat to train")
    assert node_of_heat(nodes, sweeper) == 1
    nodes.kill(1)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    assert by_size(sweeper) == {4: "ok", 8: "interrupted", 16: "interrupted"}
    reasons = {size: record.reason for (_, size), record in sweeper.records().items()}
    assert reasons[16] == "Ray task of heats 0, 1, 2 after 2 attempts: no live node has first=1, CPU=2 any more"


def test_ctrl_c_stops_the_heats_and_leaves_a_run_that_resumes(sweeper: Sweeper, nodes: RayNodes) -> None:
    hang_at(sweeper)
    with sweeper.running(*on_ray(nodes)) as process:
        until(reached(sweeper).exists, "the heat to train")
        time.sleep(0.2)
        status, _, errors = stop(process, signal.SIGINT)
    assert status == 1
    assert "stopped; this resumes: " in errors
    assert nodes.heats(sweeper.folder) == []
    assert {size: status for (_, size), status in sweeper.statuses().items()} == {4: "ok", 8: "interrupted"}
    assert sweeper.records()["scripted", 8].blocks.seconds, "what was measured until then is kept"


def test_a_driver_that_is_killed_takes_its_heats_along(sweeper: Sweeper, nodes: RayNodes) -> None:
    hang_at(sweeper)
    with sweeper.running(*on_ray(nodes)) as process:
        until(reached(sweeper).exists, "the heat to train")
        process.kill()
        until(lambda: nodes.heats(sweeper.folder) == [], "the heats to end")


def test_what_the_cluster_cannot_do_is_one_line(sweeper: Sweeper, nodes: RayNodes) -> None:
    done = sweeper.run(*on_ray(nodes, "--ray", "num_cpus=64"))
    assert done.returncode == 1
    assert (
        "harness: Ray: no live node has CPU=64; there are 1 node with no processors; 1 node with CPU=2, first=1"
        in done.stderr
    )
    refused = sweeper.run("--launcher", "ray", "--ray", "address=127.0.0.1:9", "--out", "other")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("harness: Ray cluster at 127.0.0.1:9: its head does not answer")
    assert not (sweeper.folder / "other").exists()


def ask(sweeper: Sweeper, *command: str) -> str:
    """What a command prints beside the sweep."""
    done = subprocess.run(
        [HARNESS, *command], cwd=sweeper.folder, env=sweeper.environment(), capture_output=True, text=True
    )
    return done.stdout
