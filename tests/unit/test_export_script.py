"""Scripts of cells: short, plain, of this one cell, and harmless whatever the names in the run are."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.cell import Cell, Target
from harness.core.errors import UsageError
from harness.core.model import AveragePool, BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec
from harness.core.training import OPTIMIZERS, PRECISIONS, LearningRate, OptimizerSpec, TrainingSpec
from harness.export.script import EXPORTABLE, Known, known, script
from harness.export.script.source import literal, plain
from harness.plan import models
from tests.unit import records
from tests.unit.builders import reference_target, small_cell, small_model

LONGEST = 150
"""Lines that a script may have, and one more."""

EPOCHS = tuple(records.Epoch(epoch, 2.0, 1.5, 0.5, 0.1) for epoch in range(3))
VERSIONS = {"tensorflow_keras": ("3.15.1", "2.10.0"), "jax_flax": ("",)}
PACKAGES = {
    "tensorflow_keras": {"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0", "numpy": "2.4.6"},
    "jax_flax": {"jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8", "optax": "0.2.8", "numpy": "2.4.6"},
}
MACHINE = "NVIDIA GeForce RTX 2080 Ti, AMD EPYC 9B14 96-Core Processor, 16 processors"
TARGETS = [
    Target("tensorflow-cpu", "tensorflow_keras", "cpu", "graph", "resident", "e"),
    Target("tensorflow-cpu", "tensorflow_keras", "cpu", "graph", "host", "e", cpus=2),
    Target("tensorflow-cpu", "tensorflow_keras", "cpu", "xla", "resident", "e"),
    Target("tensorflow-cpu", "tensorflow_keras", "cpu", "fit", "host", "e"),
    Target("tensorflow-cuda", "tensorflow_keras", "cuda", "graph", "resident", "e", device=1, matmul_precision="tf32"),
    Target("jax-cpu", "jax_flax", "cpu", "jit", "resident", "e"),
    Target("jax-cpu", "jax_flax", "cpu", "jit", "host", "e", cpus=1),
    Target("jax-cuda", "jax_flax", "cuda", "jit", "resident", "e", device=1, matmul_precision="tf32"),
]
JAX, GRAPH, FIT = TARGETS[5], TARGETS[0], TARGETS[3]
FRAMEWORKS = {"tensorflow_keras": {"tensorflow"}, "jax_flax": {"jax", "flax", "optax"}}
HOSTILE = '"""\nimport os; os.remove("x")\n\'\'\'\\ {{ 7 }} {% raise %} # \u202e\x00'


def cell_of(target: Target, model: ModelSpec | None = None, train_examples: int = 100, **training: object) -> Cell:
    spec = dataclasses.replace(TrainingSpec(batch_size=32, epochs=3), **training)
    return small_cell(model or models.load("lenet5"), spec, train_examples, 70, target)


def source_of(cell: Cell, keras: str = "3.15.1", **facts: object) -> str:
    packages = {"keras": keras, **PACKAGES[cell.target.backend]}
    told = {"packages": packages, "status": "ok", "epochs": EPOCHS, "images_per_second": 1234.5, **facts}
    return script(cell, Known(**told), "cell.py", "0.1.0", images_are_bytes=True)  # type: ignore[arg-type]


@cache
def every_script() -> list[tuple[str, Cell, str]]:
    """Every built-in model, optimizer, target and precision, each with a rate that drops, and what it is called."""
    found = []
    for name, optimizer, precision, (number, target) in product(
        models.names(), OPTIMIZERS, PRECISIONS, enumerate(TARGETS)
    ):
        rate = LearningRate(drop_epochs=(1, 2))
        spec = OptimizerSpec(optimizer)
        cell = cell_of(target, models.load(name), optimizer=spec, precision=precision, learning_rate=rate)
        for keras in VERSIONS[target.backend]:
            variables = {"XLA_FLAGS": "--xla_dump_to='a b'"} if target.cpus else {}
            source = source_of(cell, keras, variables=variables, machine=MACHINE)
            found.append((f"{name}-{optimizer}-{precision}-{number}-{keras[:1]}", cell, source))
    for number, target in enumerate(TARGETS):
        if target.mode != "fit":
            cell = cell_of(target, batch_changes=((1, 16), (2, 32)))
            found.append((f"plan-{number}", cell, source_of(cell)))
    return found


def test_every_script_is_short_parses_and_imports_numpy_and_its_framework_only() -> None:
    count = 0
    for called, cell, source in every_script():
        count += 1
        assert len(source.splitlines()) < LONGEST, f"{called}: {len(source.splitlines())} lines"
        imported = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert not node.level
                imported.add(node.module.partition(".")[0])
        assert imported - set(sys.stdlib_module_names) == {"numpy", *FRAMEWORKS[cell.target.backend]}, called
    assert count == len(models.names()) * len(OPTIMIZERS) * len(PRECISIONS) * (5 * 2 + 3) + 7


def test_every_script_is_formatted_and_free_of_unused_and_undefined_names(tmp_path: Path) -> None:
    for called, _, source in every_script():
        (tmp_path / f"{called}.py").write_text(source, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--no-cache", "--line-length", "120", "--target-version", "py310", str(tmp_path)]
    assert len(list(tmp_path.iterdir())) == len(every_script())
    for command in (["check", "--select", "E,F,W,I,UP,SIM,PIE", "--quiet"], ["format", "--diff", "--quiet"]):
        done = subprocess.run([*ruff, *command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[:2000] + done.stderr[:2000]


def test_a_script_has_the_cell_s_own_layers_and_nothing_of_others() -> None:
    model = small_model(
        Conv2D(5, (4, 4), strides=(2, 1), padding="same", activation="relu"),
        MaxPool((3, 2), strides=(2, 2), padding="same"),
        AveragePool((2, 2), strides=(1, 1), padding="same"),
        BatchNorm(momentum=0.7, epsilon=1e-2),
        Flatten(),
        Dropout(0.4),
        Dense(3, bias=False),
        input_shape=(11, 9, 2),
    )
    source = source_of(cell_of(GRAPH, model, seed=7))
    for line in (
        'layers.Conv2D(5, 4, strides=(2, 1), padding="same", activation="relu"),',
        'layers.MaxPooling2D((3, 2), strides=2, padding="same"),',
        'layers.AveragePooling2D(2, strides=1, padding="same"),',
        "FusedBatchNormalization(momentum=0.7, epsilon=0.01),",
        "layers.Dropout(0.4, seed=12),",
        "layers.Dense(3, use_bias=False),",
    ):
        assert f"        {line}\n" in source
    flax = source_of(cell_of(JAX, model, seed=7))
    for line in (
        'x = nn.relu(nn.Conv(5, (4, 4), strides=(2, 1), padding="SAME", name="01_conv2d")(x))',
        'x = nn.max_pool(x, (3, 2), strides=(2, 2), padding="SAME")',
        'x = nn.avg_pool(x, (2, 2), strides=(1, 1), padding="SAME", count_include_pad=False)',
        'x = norm(momentum=0.7, epsilon=0.01, name="04_batch_norm")(x)',
        'x = nn.Dropout(0.4, deterministic=not training, name="06_dropout")(x)',
        'return nn.Dense(3, use_bias=False, name="07_dense")(x)',
    ):
        assert f"        {line}\n" in flax
    plainer = source_of(cell_of(GRAPH)) + source_of(cell_of(JAX))
    for absent in ("Dropout", "dropout_key", "atch_stats", "BatchNorm", "POLICY", "adam", "scaled", "os.environ"):
        assert absent not in plainer


@pytest.mark.parametrize(
    ("optimizer", "keras", "flax"),
    [
        ("sgd", "SGD(learning_rate)", "optimizer = optax.scale_by_learning_rate(learning_rate)"),
        ("momentum", "SGD(learning_rate, momentum=0.8)", "optax.trace(decay=0.8))"),
        ("nesterov", "SGD(learning_rate, momentum=0.8, nesterov=True)", "optax.trace(decay=0.8, nesterov=True))"),
        ("adam", "Adam(learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-07)", "optax.chain(scale_by_adam(), optax"),
    ],
)
def test_a_script_has_the_cell_s_optimizer(optimizer: str, keras: str, flax: str) -> None:
    spec = OptimizerSpec(optimizer, momentum=0.8)
    assert f"optimizer = tf.keras.optimizers.{keras}\n" in source_of(cell_of(GRAPH, optimizer=spec))
    assert f"optimizer = tf.keras.optimizers.legacy.{keras}\n" in source_of(cell_of(GRAPH, optimizer=spec), "2.10.0")
    assert flax in source_of(cell_of(JAX, optimizer=spec))


def test_a_rate_that_drops_is_a_schedule_in_steps_and_a_constant_one_a_number() -> None:
    drops = LearningRate(base=0.1, drop_epochs=(1, 2), factor=0.5)
    keras, flax = (source_of(cell_of(target, learning_rate=drops)) for target in (GRAPH, JAX))
    rates = "rates = [0.1, 0.05, 0.025]\nlearning_rate = "
    assert f"{rates}tf.keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], rates)\n" in keras
    schedules = "[optax.constant_schedule(rate) for rate in rates]"
    assert f"{rates}optax.join_schedules({schedules}, boundaries=[3, 6])\n" in flax
    for target in (GRAPH, JAX):
        assert "learning_rate = 0.01\n" in source_of(cell_of(target))


def test_a_loss_is_scaled_where_the_precision_has_a_scale() -> None:
    for target, scaled in ((GRAPH, "loss * 1024.0"), (JAX, "loss * 1024.0"), (FIT, "loss_scale_factor=1024.0")):
        assert scaled in source_of(cell_of(target, precision="mixed_float16"))
        assert "1024" not in source_of(cell_of(target, precision="mixed_bfloat16"))
    assert "LossScaleOptimizer(" in source_of(cell_of(FIT, precision="mixed_float16"), "2.10.0")


def test_a_script_takes_the_device_that_the_target_names() -> None:
    assert 'set_visible_devices([], "GPU")' in source_of(cell_of(GRAPH))
    cuda = source_of(cell_of(TARGETS[4]))
    assert 'list_physical_devices("GPU")[1]' in cuda
    assert "enable_tensor_float_32_execution(True)" in cuda
    jax = source_of(cell_of(TARGETS[7]))
    assert 'os.environ.update({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})' in jax
    assert 'jax.config.update("jax_cuda_visible_devices", "1")' in jax
    assert 'jax.config.update("jax_default_matmul_precision", "tensorfloat32")' in jax
    assert "os.sched_setaffinity(0, " in source_of(cell_of(TARGETS[1]))


@pytest.mark.parametrize("target", [GRAPH, FIT, JAX], ids=lambda target: target.label)
def test_names_become_no_code(target: Target) -> None:
    tame, wild = cell_of(target), cell_of(dataclasses.replace(target, name=HOSTILE))
    wild = dataclasses.replace(
        wild,
        model=dataclasses.replace(wild.model, name=HOSTILE),
        dataset=dataclasses.replace(wild.dataset, name=HOSTILE),
    )
    facts = {"status": HOSTILE, "machine": HOSTILE, "variables": {HOSTILE: HOSTILE}}
    written = script(wild, Known(packages={"keras": "3.0", HOSTILE: HOSTILE}, **facts), HOSTILE, HOSTILE, True)  # type: ignore[arg-type]
    trees = [
        ast.parse(text) for text in (written, source_of(tame, variables={"A": "B"}, epochs=(), images_per_second=None))
    ]
    codes = []
    for tree in trees:
        assert isinstance(tree.body[0], ast.Expr)
        codes.append(ast.dump(ast.Module(tree.body[1:], [])))
    variables = [ast.dump(ast.parse(literal(pair)).body[0].value) for pair in ({HOSTILE: HOSTILE}, {"A": "B"})]  # type: ignore[attr-defined]
    assert codes[0].replace(variables[0], variables[1]) == codes[1]
    assert not set("\u202e\x00") & set(written)


def test_a_cell_without_a_record_has_nothing_to_compare_with() -> None:
    for target in (GRAPH, FIT, JAX):
        source = script(cell_of(target), Known(packages={"keras": "3.1"}), "cell.py", "0.1.0", True)
        assert "recorded" not in source.partition('"""\n\nimport')[2]
        assert "There is no finished record of it: it was not run." in " ".join(source.split())


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (cell_of(reference_target()), "backend 'reference' cannot be exported as a script; allowed: tensorflow_keras"),
        (cell_of(dataclasses.replace(GRAPH, backend="own:Backend")), "backend 'own:Backend' cannot be exported"),
        (cell_of(GRAPH, train_examples=31), "batch size 32 is more than the 31 training examples"),
        (
            cell_of(GRAPH, optimizer=OptimizerSpec("lion")),
            "optimizer 'lion' cannot be exported; allowed: sgd, momentum",
        ),
        (
            cell_of(JAX, optimizer=OptimizerSpec("sgd", weight_decay=0.1)),
            "sgd with weight decay 0.1 cannot be exported: scripts have no decoupled_weight_decay yet",
        ),
        (cell_of(dataclasses.replace(JAX, mode="graph")), "mode 'graph' cannot be exported; allowed: jit"),
        (
            cell_of(dataclasses.replace(JAX, accelerator="tpu")),
            "accelerator 'tpu' cannot be exported; allowed: cpu, cuda",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_with_what_can(cell: Cell, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        script(cell, Known(), "cell.py", "0.1.0", True)
    assert str(refused.value).startswith(f"cell {cell.cell_id}: ")
    assert says in str(refused.value)


def test_every_backend_of_the_project_s_own_but_the_oracle_can_be_exported() -> None:
    from backends import registry

    assert EXPORTABLE.keys() == registry.BUILT_IN.keys() - {"reference"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_a_literal_reads_back_as_the_value(value: object) -> None:
    numpy = type("np", (), {"inf": float("inf")})
    assert eval(literal(value), {"np": numpy}) == value


@given(st.text())
def test_plain_words_are_one_line_that_ends_no_string(text: str) -> None:
    words = plain(text)
    assert len(words.splitlines()) <= 1
    assert not set(words) & set("\"'\\{}#\n\r")
    assert len(words) <= 83


def test_a_record_tells_losses_pace_packages_and_variables() -> None:
    of = records.cell(target=records.JAX)
    worker = {
        "packages": {"jax": "0.10.2", "numpy": "2.4.6", "other": "1"},
        "variables": {
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "0",
            "XLA_FLAGS": "--x",
            "CUDA_VISIBLE_DEVICES": "-1",
        },
        "device": {"processors": [0, 1]},
    }
    record = records.record(of, worker=worker, machine={"processor": "EPYC"})
    found = known(of, record)
    assert found == Known(
        "ok", record.epochs, 3200.0, {"jax": "0.10.2", "numpy": "2.4.6"}, {"XLA_FLAGS": "--x"}, "EPYC, 2 logical cores"
    )
    assert not known(of, dataclasses.replace(record, status="wrong_device")).epochs


def test_where_a_record_tells_no_packages_another_of_its_environment_does_and_else_the_lock_file() -> None:
    of = records.cell(target=records.TENSORFLOW)
    other = records.record(records.cell(64, target=records.TENSORFLOW), worker={"packages": {"keras": "2.10.0"}})
    foreign = records.record(records.cell(64, target=records.JAX), worker={"packages": {"jax": "0.10"}})
    skipped = records.failed(of, "skipped", "a smaller batch ran out of memory")
    assert known(of, skipped, [foreign, other]).packages == {"keras": "2.10.0"}
    lock = (
        "jax==0.10.2 \\\n    --hash=sha256:00\nkeras==3.15.1 ; python_version > '3.10' \\\n  --hash=x\nnumpy==2.4.6\n"
    )
    assert known(of, None, [foreign], lock) == Known(packages={"keras": "3.15.1", "jax": "0.10.2", "numpy": "2.4.6"})
    assert known(of, skipped).status == "skipped"


def test_directml_has_keras_2_even_where_no_version_is_known() -> None:
    target = dataclasses.replace(GRAPH, accelerator="directml")
    source = script(cell_of(target, models.load("mnist-cnn")), Known(), "cell.py", "0.1.0", True)
    assert "class CountedDropout(" in source
    assert 'startswith("2.")' in source
