"""What Python offers: the flags as keywords, objects for files, results that show themselves, light to import."""

from __future__ import annotations

import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import harness
from harness import cli
from harness.actions import sweep as sweep_action
from harness.commands import printing
from harness.core.errors import HarnessError, ModelError, UsageError
from harness.plan import models
from harness.runs.folder import Run
from tests.unit.test_layers_of_imports import HEAVY, loaded_by, tops

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
FUNCTIONS = ("sweep", "compare", "verify", "doctor", "report", "recommend", "study", "history", "largest_batch", "tune")
FOR_THE_SCREEN = {"json", "format"}
"""Flags that say how a result is printed: a result has methods for that."""

MNIST_CNN = (
    harness.Conv2D(32, (4, 4), activation="relu"),
    harness.MaxPool((2, 2)),
    harness.Conv2D(64, (4, 4), activation="relu"),
    harness.MaxPool((2, 2)),
    harness.Flatten(),
    harness.Dropout(0.25),
    harness.Dense(500, activation="relu"),
    harness.Dropout(0.5),
    harness.Dense(10),
)


def printed(*words: str) -> str:
    return CliRunner().invoke(cli.cli, words).stdout


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = loaded_by("harness")
    assert tops(loaded).isdisjoint(HEAVY | {"click"})
    assert {name for name in loaded if name.startswith("harness.")} == set()


def test_options_may_come_as_a_dict() -> None:
    whole = harness.sweep("quick", plan=True)
    part = harness.sweep("quick", only={"batch_size": [32, 128]}, plan=True)
    assert 0 < len(part.part) < len(whole.part)
    assert part.part == harness.sweep("quick", only="batch_size=32,128", plan=True).part


def test_a_model_takes_numbers_of_numpy() -> None:
    made = harness.Model(
        [harness.Conv2D(np.int64(8), np.array([3, 3])), harness.Flatten(), harness.Dense(np.int64(10))]
    )  # type: ignore[arg-type]
    assert made == harness.Model([harness.Conv2D(8, (3, 3)), harness.Flatten(), harness.Dense(10)])


def test_everything_offered_is_there_and_says_what_it_is() -> None:
    for name in harness.__all__:
        assert name in dir(harness)
        assert inspect.getdoc(getattr(harness, name)), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keywords_are_the_names_of_the_flags(name: str) -> None:
    command = cli.cli.commands[name.replace("_", "-")]
    assert isinstance(command, click.Command)
    flags = {parameter.name for parameter in command.params} - FOR_THE_SCREEN
    keywords = set(inspect.signature(getattr(harness, name)).parameters)
    if "further" in keywords:  # one by its name, as ever, and more of them
        keywords = keywords - {"run", "further"} | {"runs"}
    assert keywords == flags


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keywords_have_the_defaults_of_the_flags(name: str) -> None:
    keywords = inspect.signature(getattr(harness, name)).parameters
    command = cli.cli.commands[name.replace("_", "-")]
    given = ["run"] if {"run", "runs", "folder"} & keywords.keys() else []
    for flag, value in command.make_context(name, given).params.items():
        if flag not in {*FOR_THE_SCREEN, "run", "runs", "folder", "sides", "names"}:
            assert str(value or None) == str(keywords[flag].default or None), flag


def test_what_is_offered_stays_so_when_folders_of_the_same_name_are_imported() -> None:
    code = (
        "import harness, harness.report.view, harness.doctor.rules\n"
        "from harness.report import view\nfrom harness.doctor import rules\n"
        "assert callable(harness.report) and callable(harness.doctor) and view and rules\n"
        f"assert harness.report({str(GOLDEN)!r}).cells.height and callable(harness.report)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nope"):
        _ = harness.nope


class TestModels:
    def test_a_model_of_objects_is_the_one_of_the_file(self) -> None:
        built_in = models.load("mnist-cnn")
        made = harness.Model(MNIST_CNN, name="mine")
        assert (made.layers, made.input_shape) == (built_in.layers, built_in.input_shape)

    def test_a_whole_number_stands_for_a_pair_as_in_a_file(self) -> None:
        layers: list[Any] = [harness.Conv2D(2, 3), harness.Flatten(), harness.Dense(3)]  # type: ignore[arg-type]
        made = harness.Model(layers, input_shape=(4, 4, 1))
        assert made.layers[0] == harness.Conv2D(2, (3, 3))

    @pytest.mark.parametrize(
        ("layers", "says"),
        [
            ([harness.Dense(10)], r"model 'mine': layer 1 \(dense\).* flat input"),
            ([harness.Flatten(), harness.Dense(0)], r"model 'mine': layer 2 \(dense\), units: must be 1 or more"),
            ([harness.Flatten(), harness.Dense("ten")], r"layer 2 \(dense\): key units: found 'ten'"),  # type: ignore[arg-type]
            (["flatten"], "layers: found 'flatten', allowed: Conv2D, MaxPool"),
            ([], r"model 'mine': key layers: found \[\]"),
        ],
    )
    def test_a_wrong_layer_is_named(self, layers: list[Any], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            harness.Model(layers, name="mine")

    def test_layers_that_do_not_fit_together_are_a_model_error(self) -> None:
        with pytest.raises(ModelError):
            harness.Model([harness.Conv2D(1, (99, 99)), harness.Flatten(), harness.Dense(2)])

    def test_the_name_of_a_built_in_model_is_refused(self) -> None:
        with pytest.raises(UsageError, match="lenet5"):
            harness.Model(MNIST_CNN, name="lenet5")


class TestSweeps:
    def test_a_sweep_of_objects_has_the_cells_of_the_file(self, tmp_path: Path) -> None:
        model = 'name = "m"\ninput_shape = [28, 28, 1]\nlayers = [{ kind = "flatten" }, { kind = "dense", units = 10 }]'
        (tmp_path / "model.toml").write_text(model)
        (tmp_path / "s.toml").write_text(
            'name = "s"\nmodel = "model.toml"\ntarget = "reference"\ndataset = "digits"\nbatch_size = [32, 64]\n'
            "seed = [0, 1]\n[training]\nlearning_rate = 0.05\n"
        )
        layers = [harness.Flatten(), harness.Dense(10)]
        made = harness.Sweep(
            "s",
            model=harness.Model(layers, name="m"),
            target="reference",
            batch_size=(32, 64),
            seed=[0, 1],
            learning_rate=0.05,
        )
        of_objects = harness.sweep(made, plan=True).cells
        of_the_file = harness.sweep(str(tmp_path / "s.toml"), plan=True).cells
        assert of_objects.height == 4
        assert of_objects["cell_id"].to_list() == of_the_file["cell_id"].to_list()

    def test_keywords_replace_keys_and_take_objects(self) -> None:
        own = harness.Model([harness.Flatten(), harness.Dense(10)], name="tiny")
        planned = harness.sweep("quick", target="reference", model=["lenet5", own], batch_size=64, epochs=1, plan=True)
        assert planned.cells.select("model", "batch_size").rows() == [("lenet5", 64), ("tiny", 64)]
        assert planned.seconds > 0
        assert "tiny" in str(planned)

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ({"batch_sizes": 3}, "the sweep 's': unknown key 'batch_sizes'; did you mean 'batch_size'"),
            ({"learning_rate": -1.0}, "the sweep 's': key training.learning_rate: found -1.0"),
            ({"dataset": "digit"}, "the sweep 's': key dataset: found 'digit'"),
        ],
    )
    def test_a_wrong_key_is_named(self, keys: dict[str, Any], says: str) -> None:
        with pytest.raises(UsageError, match=re.escape(says)):
            harness.Sweep("s", target="reference", batch_size=8, **keys)


class TestResults:
    def test_a_report_prints_itself_as_the_command_does(self) -> None:
        found = harness.report(GOLDEN)
        assert str(found) == repr(found) == printed("report", str(GOLDEN)).rstrip("\n")
        assert found.cells.height == harness.load(GOLDEN).height
        assert found.table("pace").equals(harness.load(GOLDEN, "pace"))

    def test_a_recommendation_prints_itself_as_the_command_does(self) -> None:
        found = harness.recommend(GOLDEN)
        assert str(found) == printed("recommend", str(GOLDEN)).rstrip("\n")
        assert found.sentence.splitlines()[0] in str(found)
        assert found.time_to_accuracy.equals(harness.load(GOLDEN, "time_to_accuracy"))

    def test_a_comparison_of_stored_runs_prints_itself_as_the_command_does(self) -> None:
        found = harness.compare(GOLDEN, GOLDEN)
        assert str(found) == printed("compare", str(GOLDEN), str(GOLDEN)).rstrip("\n")
        assert found.folder is None
        assert found.is_comparable
        assert found.table.height == len(found.comparisons) == len(found.plain()["comparisons"])
        assert set(found.table["verdict"]) == {"no difference found", "not comparable"}

    def test_what_a_doctor_says_without_starting_a_worker_is_a_table_too(self) -> None:
        found = harness.doctor("reference", quick=True)
        assert found.table["target"].to_list() == ["reference"]
        assert found.states.keys() == {"reference"}
        assert found.plain()["targets"][0]["trial"] is None
        assert "reference" in str(found)

    def test_a_notebook_gets_html_with_figures_and_loads_nothing_for_it(self) -> None:
        found = harness.report(GOLDEN)
        html = found._repr_html_()
        assert "<pre" in html
        assert html.count("<svg") == min(len(found.figures), 4) > 0
        assert not re.search(r"<script|<link|<img|@import|url\(", html)
        names = set(re.findall(r"https?://[^\"' <]+", html)) - {"http://www.w3.org/2000/svg"}
        assert {name for name in names if not name.startswith("http://www.w3.org/")} == set()

    def test_figures_are_whole_specifications(self) -> None:
        found = harness.report(GOLDEN).figures
        assert found
        for name, figure in found.items():
            assert figure.spec["title"] == {"text": figure.title}, name
            assert "values" in json.dumps(figure.spec) or "datasets" in figure.spec, name
            assert figure._repr_svg_().startswith("<svg"), name

    def test_the_home_folder_may_be_named_by_its_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(tmp_path))
        harness.report(GOLDEN, html="~/page.html")
        assert (tmp_path / "page.html").is_file()

    def test_files_are_made_where_they_are_asked_for(self, tmp_path: Path) -> None:
        harness.report(GOLDEN, html=tmp_path / "page.html", svg=tmp_path / "pictures")
        assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
        assert list((tmp_path / "pictures").glob("*.svg"))


SIZES: tuple[Callable[[], Any], ...] = (
    lambda: np.array([8, 16]),
    lambda: [np.int64(8), np.int64(16)],
    lambda: (2**power for power in (3, 4)),
    lambda: {8: "small", 16: "large"}.keys(),
    lambda: ("8", "16"),
)


@pytest.mark.parametrize("sizes", SIZES)
def test_several_values_may_come_in_whatever_holds_them(sizes: Callable[[], Any]) -> None:
    by_keyword = harness.sweep("quick", target="reference", batch_size=sizes(), plan=True)
    assert "batch 8," in str(by_keyword)
    assert "batch 16," in str(by_keyword)
    assert "batch_size=[" in by_keyword.plan.command


def test_objects_take_what_keywords_take() -> None:
    sweep = harness.Sweep("sizes", target="reference", batch_size=np.array([8, 16]), seed=range(2))
    assert len(harness.sweep(sweep, learning_rate=np.float64(0.5), plan=True).cells) == 4


def test_files_may_be_paths(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\ntarget = "reference"\nmodel = "lenet5"\ndataset = "digits"\nbatch_size = 8\n')
    assert "lenet5" in str(harness.sweep(file, dataset="digits", plan=True))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: harness.sweep("quik"), "no preset is called 'quik'"),
        (lambda: harness.sweep("quick", batch_size=0), "--batch-size: found 0"),
        (lambda: harness.sweep("quick", launcher="slrum"), "--launcher: found 'slrum'"),
        (lambda: harness.sweep("quick", retry="all"), "--retry: found 'all', allowed: failed"),
        (lambda: harness.compare("jax-cpu"), "two or more targets"),
        (lambda: harness.compare("jax-cpu", "reference", budget="soon"), "--budget: found 'soon'"),
        (lambda: harness.verify(target="nope"), "no target is called 'nope'"),
        (lambda: harness.doctor("nope"), "no target is called 'nope'"),
        (lambda: harness.report("nope"), "there is no such run folder"),
        (lambda: harness.recommend(GOLDEN, accuracy=98), "for 98 % write 0.98"),
        (lambda: harness.report(GOLDEN, accuracy=[0.9]), "--accuracy: found '[0.9]'"),  # type: ignore[arg-type]
        (lambda: harness.sweep("quick", out=""), "a path cannot be empty"),
        (lambda: harness.report(""), "a path cannot be empty"),
        (lambda: harness.recommend(""), "a path cannot be empty"),
        (lambda: harness.compare("", ""), "a path cannot be empty"),
        (lambda: harness.sweep("quick", timeout=-1.0), "--timeout: found '-1.0', allowed: a number of seconds from 1"),
        (lambda: harness.compare("reference", "reference", timeout=math.inf), "--timeout: found 'inf'"),
        (lambda: harness.verify(target="reference", timeout=math.nan), "--timeout: found 'nan'"),
        (lambda: harness.load(GOLDEN, "cell"), "table: found 'cell'"),
        (lambda: harness.load(""), "a path cannot be empty"),
        (lambda: harness.sweep(5), "sweep: found 5, allowed: a text"),  # type: ignore[call-overload]
        (lambda: harness.sweep("quick", shard=(1, 2)), "--shard: found [1, 2], allowed: a text"),  # type: ignore[call-overload]
        (lambda: harness.sweep("quick", data_dir=5), "a path: found 5"),  # type: ignore[call-overload]
        (lambda: harness.sweep(shard=(1, 2)), "--shard: found [1, 2], allowed: a text"),  # type: ignore[call-overload]
        (lambda: harness.sweep(slurm={"a": {"b": 1}}, launcher="slurm"), "--slurm: found {b = 1} for a, allowed: a"),
        (lambda: harness.sweep(ray={"num_cpus": None}, launcher="ray"), "--ray: found None for num_cpus, allowed: a"),
        (lambda: harness.sweep(decay={"a": 1}), "--decay: found {a = 1}, allowed: a text"),  # type: ignore[call-overload]
        (lambda: harness.compare("jax-cpu", "reference", model=5), "--model: found 5, allowed: a text"),  # type: ignore[arg-type]
        (lambda: harness.tune(5), "tune: found 5, allowed: a text"),  # type: ignore[arg-type]
        (lambda: harness.Model(input_shape=5), "input_shape: found 5, allowed: height, width, channels"),  # type: ignore[arg-type]
        (lambda: harness.Model(), "model 'own-model': key layers: found []"),
        (lambda: harness.Model([harness.Dense(3)], name=["x"]), "model: name: found ['x'], allowed: a text"),  # type: ignore[arg-type]
        (lambda: harness.load(5), "a path: found 5, allowed: a text or a pathlib.Path"),  # type: ignore[arg-type]
        (lambda: harness.load(".", {"a": 1}), "table: found {a = 1}, allowed: cells, epochs"),  # type: ignore[arg-type]
        (lambda: harness.report(".", mlflow=5), "--mlflow: found 5, allowed: a text"),  # type: ignore[arg-type]
        (lambda: harness.verify(model=5), "--model: found 5, allowed: names"),  # type: ignore[arg-type]
        (lambda: harness.compare("jax-cpu", "reference", model=5), "--model: found 5"),  # type: ignore[arg-type]
        (lambda: harness.compare("jax-cpu", "reference", dataset=5), "--dataset: found 5"),  # type: ignore[arg-type]
        (lambda: harness.compare("jax-cpu", "reference", optimizer=5), "--optimizer: found 5"),  # type: ignore[arg-type]
        (lambda: harness.Model(5), "layers: found 5, allowed: several layers"),  # type: ignore[arg-type]
        (lambda: harness.Model([], input_shape=5), "input_shape: found 5, allowed: height"),  # type: ignore[arg-type]
        (lambda: harness.report(GOLDEN).table("cell"), "table: found 'cell'"),
    ],
)
def test_every_mistake_is_an_exception_of_the_harness(call: Any, says: str) -> None:
    with pytest.raises(HarnessError, match=re.escape(says)):
        call()


def test_rows_of_a_run_that_was_complete_come_with_what_is_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(GOLDEN, folder)
    damaged = min((folder / "records").glob("*.json"))
    damaged.write_text(damaged.read_text()[:-100])
    monkeypatch.setattr(sweep_action, "LONGEST_TABLE_UNASKED", 0)
    printing.show_run(sweep_action.SweepResult(Run.open(folder), was_complete=True), json=True)
    assert f"{damaged.name}: damaged" in capsys.readouterr().err
