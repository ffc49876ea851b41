"""A backend that is not the project's: installed from its own package, found by name, and held to the same proof.

The example package is installed into a virtual environment of its own, as its author's user would do it; no file of
the project knows of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.core import system
from harness.measure.session import REFERENCE
from harness.plan import targets
from harness.workers import interpreters
from tests.command import HARNESS

EXAMPLE = Path(__file__).parents[1] / "example_backend"

SMALL = """
name = "small"
input_shape = [28, 28, 1]
layers = [
  { kind = "conv2d", filters = 4, kernel = [4, 4], activation = "relu" },
  { kind = "max_pool", pool = [2, 2] },
  { kind = "flatten" },
  { kind = "dropout", rate = 0.5 },
  { kind = "dense", units = 10 },
]
"""
"""Small: the check of the clock trains hundreds of steps, and the example is plain NumPy."""

TABLE = """
[targets.{name}]
backend = {backend}
python = {python}
modes = ["numpy"]
"""


def uv(*arguments: str) -> None:
    done = subprocess.run(
        [interpreters.uv_binary(), *arguments],
        env=interpreters.clean_variables(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder: an environment with the example in it, and a harness.toml that names its interpreter."""
    made = tmp_path_factory.mktemp("third-party")
    definition = targets.definitions()[REFERENCE]
    assert definition.lock is not None
    python = system.python_of_environment(made / "venv")
    source = shutil.copytree(EXAMPLE, made / "source", ignore=shutil.ignore_patterns("__pycache__"))
    uv("venv", "--no-project", "--python", definition.python_version, str(made / "venv"))
    uv("pip", "install", "--python", str(python), "--require-hashes", "--requirement", str(definition.lock))
    uv("pip", "install", "--python", str(python), "--no-deps", str(source))
    shutil.rmtree(source)  # what runs is what was installed
    tables = [
        ("example", "numpy_float32", python),
        ("faulty", "faulty_example:KernelTransposed", python),
        ("elsewhere", "numpy_float32", Path(sys.executable)),
    ]
    (made / "harness.toml").write_text(
        "".join(
            TABLE.format(name=name, backend=json.dumps(backend), python=json.dumps(str(interpreter)))
            + (f"path = {json.dumps(str(Path(__file__).parent))}\n" if name == "faulty" else "")
            for name, backend, interpreter in tables
        ),
        encoding="utf-8",
    )
    (made / "small.toml").write_text(SMALL, encoding="utf-8")
    return made


def verify(folder: Path, *flags: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit status and what ``harness verify --json`` says."""
    done = subprocess.run([HARNESS, "verify", "--json", *flags], cwd=folder, capture_output=True, encoding="utf-8")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_an_installed_backend_is_found_by_its_name_and_proven(folder: Path) -> None:
    status, outcome = verify(folder, "--target", "example", "--model", "small.toml", "--model", "deep-bn")
    proofs = {proof["optimizer"]: proof for proof in outcome["proofs"]}
    assert [proof["reason"] for proof in proofs.values() if not proof["passed"]] == []
    assert [clock["reason"] for clock in outcome["synchrony"] if not clock["passed"]] == []
    assert status == 0
    assert proofs.keys() == {"sgd", "momentum", "nesterov", "adam"}
    assert {proof["model"] for proof in proofs.values()} == {"small"}
    packages = proofs["sgd"]["key"]["packages"]
    assert packages["numpy-float32-backend"] == "1.0"
    # What it declares not to have is listed, with its reason, and is no fault.
    gaps = outcome["not_offered"]
    assert {gap["model"] for gap in gaps} == {"deep-bn"}
    assert "batch_norm (left out to keep the example short)" in gaps[0]["reason"]


def test_nothing_proven_is_no_success(folder: Path) -> None:
    status, outcome = verify(folder, "--target", "example", "--model", "deep-bn", "--optimizer", "sgd")
    assert (status, outcome["proofs"], len(outcome["not_offered"])) == (1, [], 1)


def test_a_mistake_in_such_a_backend_is_found(folder: Path) -> None:
    status, outcome = verify(folder, "--target", "faulty", "--model", "small.toml", "--optimizer", "sgd")
    [proof] = outcome["proofs"]
    assert status == 1
    assert not proof["problem"], proof["problem"]
    wrong = {quantity["name"] for quantity in proof["quantities"] if quantity["error"] > quantity["tolerance"]}
    assert "logits" in wrong


def test_an_interpreter_without_the_package_says_which_backends_it_has(folder: Path) -> None:
    status, outcome = verify(folder, "--target", "elsewhere", "--model", "small.toml", "--optimizer", "sgd")
    [proof] = outcome["proofs"]
    assert status == 1
    assert proof["problem"] == (
        "no backend is called 'numpy_float32' in this target's interpreter; "
        "known there: jax_flax, reference, tensorflow_keras"
    )
