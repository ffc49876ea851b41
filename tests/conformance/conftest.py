"""One set of worker hosts for the whole suite: each framework is imported once, every cell is a fork of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.cell import Target
from harness.measure import session
from harness.plan import targets
from harness.proof.verifier import Verifier
from harness.workers import Launch, Worker
from harness.workers.hosts import Hosts

TIMEOUT = 600.0

LONG = {
    "test_parity.py": "-tuned",
    "test_training_at_its_size.py": "-tuned|:xla|:fit|untrained-jax",
    "test_every_backend.py": "-tuned",
    "test_absent_devices.py": "-tuned",
}
"""File -> the tests that take long there, by what stands in their ids."""

LONG_ELSEWHERE = "jax-|-tuned|:xla|:fit"
"""XLA compiles several times as long as graphs are traced, and ``fit`` takes the way of another mode's mathematics.
So what runs unasked proves the same work in all of them, at its size too, and the rest in TensorFlow's graphs."""


class Bench:
    """The hosts and a verifier over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.definitions = targets.definitions() | _untrained()
        self.hosts: Hosts
        self.hosts, self.bundle = session.open_hosts(self.definitions, {}, folder / "scratch", folder / "logs", TIMEOUT)
        proofs = folder / "proofs"
        proofs.mkdir()
        code = {"code": self.bundle.sha256}
        self.verifier = Verifier(proofs, folder / "probes", self.reference, code, TIMEOUT)

    def target(self, label: str) -> Target:
        """The resolved target of ``name:mode``."""
        return targets.resolve(label, self.definitions)

    def worker(self, label: str) -> Worker:
        """The live worker of ``name:mode``; builds its environment at the first need."""
        return self.hosts.worker(self.target(label))

    def planted(self, folder: Path, backend: str, fork: bool = True) -> Worker:
        """A worker of a backend in this folder of tests, in the interpreter of the tests."""
        return Worker(
            Launch(
                python=Path(sys.executable),
                backend=backend,
                bundle=self.bundle,
                env={"OPENBLAS_NUM_THREADS": "1"},
                scratch=folder / "scratch",
                log=folder / "worker.log",
                fork=fork,
                extra_path=(Path(__file__).parent,),
            )
        )

    def reference(self) -> tuple[Target, Worker]:
        """The oracle and its worker."""
        return self.target(session.REFERENCE), self.worker(session.REFERENCE)


def _untrained() -> dict[str, targets.TargetDefinition]:
    """The targets of modules with planted faults: those of real backends, with another class."""
    known, here = targets.definitions(), Path(__file__).parent
    return {
        f"{kind}-{name}": replace(known[real], name=f"{kind}-{name}", backend=f"{kind}_backends:{backend}", path=here)
        for kind in ("untrained", "split")
        for name, real, backend in (("jax", "jax-cpu", "OnJax"), ("tensorflow", "tensorflow-cpu", "OnTensorFlow"))
    }


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    created = Bench(tmp_path_factory.mktemp("conformance"))
    try:
        yield created
    finally:
        created.hosts.stop()


def paired(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Every name and every other at least once, in as few pairs as that takes."""
    count = max(len(names), len(others))
    return [(names[number % len(names)], others[number % len(others)]) for number in range(count)]


def every_lane() -> list[str]:
    """Every mode of every built-in target on the processor, the reference apart; of a tuned one the first."""
    return [
        f"{definition.name}:{mode}"
        for definition in targets.definitions().values()
        if definition.name != session.REFERENCE and definition.accelerator == "cpu"
        for mode in (definition.modes[:1] if definition.tuned else definition.modes)
    ]


WHOLE = ("tensorflow-cpu:graph", "tensorflow210-cpu:graph", "jax-cpu:jit")
"""One lane of each framework in each version: what it does with every case the other lanes show with one."""


def spread(cases: Sequence[tuple[Any, ...]], shift: int = 0) -> list[Any]:
    """(lane, *case): every case for the lanes of WHOLE, one for each of the others, which take turns."""
    found = []
    for number, lane in enumerate(every_lane(), shift):
        found += [(lane, *case) for case in (cases if lane in WHOLE else [cases[number % len(cases)]])]
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            _, _, parameters = item.name.partition("[")
            if re.search(LONG.get(item.path.name, LONG_ELSEWHERE), parameters):
                item.add_marker(pytest.mark.long)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for a ``lane`` every lane, grouped so that a host is used while it is warm."""
    if "lane" in metafunc.fixturenames:
        metafunc.parametrize("lane", every_lane(), scope="session")
