"""Sweeps: what files and flags mean, what a wrong one is told, and how a sweep becomes cells."""

from __future__ import annotations

import dataclasses
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.cell import Cell, Dataset, Inputs, Target
from harness.core.codec import digest
from harness.core.errors import UsageError
from harness.core.model import Dense, Flatten, ModelSpec
from harness.core.training import LearningRate, OptimizerSpec
from harness.plan import datasets, models, sweep
from harness.plan.sweep import Planned, Sweep
from tests.unit.strategies import no_deadline

HEAD = 'name = "mine"\nmodel = "mnist-cnn"\ntarget = "jax-cpu"\ndataset = "digits"\nbatch_size = 32\n'
DIGITS = Dataset("digits", "ab" * 32, 4096, 2000, (28, 28, 1), 10)


def load(folder: Path, text: str, **overrides: Any) -> Sweep:
    path = folder / "s.toml"
    path.write_text(text, encoding="utf-8")
    return sweep.load(str(path), overrides)


def without(key: str) -> str:
    return "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(key))


def target(name: str) -> Target:
    return Target(name, "reference", "cpu", "numpy", "resident", "here")


def digests(model: ModelSpec, seed: int, epochs: int) -> Inputs:
    return Inputs(digest([model.name, seed]), digest([seed, epochs]))


def cells_of(planned: list[Planned]) -> list[Cell]:
    return [item.cell for item in planned]


# What a file means


def test_presets_are_listed_with_their_descriptions_and_all_load() -> None:
    listed = sweep.presets()
    assert list(listed) == ["batch", "quick", "study", "study-accuracy", "study-batch", "study-time"]
    for name, description in listed.items():
        loaded = sweep.load(name, {})
        assert (loaded.name, loaded.description) == (name, description)
        assert set(loaded.targets) <= {"tensorflow-cpu", "jax-cpu"}
        assert all(models.load(model) for model in loaded.models)


def test_datasets_that_a_sweep_may_name_are_those_there_are() -> None:
    assert sweep.DATASETS == datasets.BUILT_IN


def test_quick_is_small_and_study_is_the_published_one() -> None:
    quick, study = sweep.load("quick", {}), sweep.load("study", {})
    assert (quick.dataset, quick.batch_sizes, quick.epochs) == ("digits", (32, 128, 512), (2,))
    assert (quick.train_examples, quick.test_examples) == (4096, 2000)
    assert (study.dataset, study.epochs) == ("mnist", (1, 5, 10))
    assert study.batch_sizes == (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    assert study.train_examples is None


def test_what_a_file_leaves_out_has_the_contract_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD)
    assert loaded.optimizers == (OptimizerSpec(),)
    assert loaded.learning_rates == (LearningRate(),)
    assert (loaded.epochs, loaded.seeds, loaded.precisions) == ((1,), (0,), ("float32",))
    assert loaded.own_targets == {}
    assert loaded.base == tmp_path


def test_scalars_and_lists_mean_the_same_and_repetitions_count_once(tmp_path: Path) -> None:
    scalar = load(tmp_path, HEAD)
    listed = load(tmp_path, HEAD.replace("= 32", "= [32, 32]").replace('"jax-cpu"', '["jax-cpu", "jax-cpu"]'))
    assert listed == scalar


def test_training_table_reaches_every_constant(tmp_path: Path) -> None:
    table = (
        '[training]\noptimizer = ["sgd", "nesterov", "adam"]\nlearning_rate = [0.1, 1]\nmomentum = 0.5\nbeta_1 = 0.8\n'
        "beta_2 = 0.9\nepsilon = 1e-3\ndrop_epochs = [4, 2]\ndrop_factor = 0.5\nscaling = 'sqrt'\n"
        "base_batch_size = 64\nprecision = 'mixed_bfloat16'\n"
    )
    loaded = load(tmp_path, HEAD + table)
    assert loaded.optimizers == (
        OptimizerSpec("sgd"),
        OptimizerSpec("nesterov", momentum=0.5),
        OptimizerSpec("adam", beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    )
    assert loaded.learning_rates == (
        LearningRate(0.1, (2, 4), 0.5, "sqrt", 64),
        LearningRate(1.0, (2, 4), 0.5, "sqrt", 64),
    )
    assert loaded.precisions == ("mixed_bfloat16",)


def test_what_goes_with_an_optimizer_reaches_the_training(tmp_path: Path) -> None:
    table = (
        "[training]\noptimizer = ['momentum', 'adam']\nwarmup_epochs = 2\ndecay = 'polynomial'\ndecay_power = 2\n"
        "decay_to = 0.1\nweight_decay = 5e-4\nweight_decay_form = 'l2'\nclip_norm = 1\nlabel_smoothing = 0.1\n"
    )
    loaded = load(tmp_path, HEAD + table)
    decayed: Any = {"weight_decay": 5e-4, "weight_decay_form": "l2", "clip_norm": 1.0}
    assert loaded.optimizers == (OptimizerSpec("momentum", **decayed), OptimizerSpec("adam", **decayed))
    rule = LearningRate(warmup_epochs=2, decay="polynomial", decay_power=2.0, decay_to=0.1)
    assert loaded.learning_rates == (rule,)
    assert {
        cell.training.label_smoothing
        for cell in cells_of(sweep.expand(loaded, MODELS[:1], [target("a")], DIGITS, digests))
    } == {0.1}
    flags = load(tmp_path, HEAD, weight_decay="5e-4", decay="cosine", warmup_steps="7", label_smoothing=0.2)
    assert flags.optimizers == (OptimizerSpec(weight_decay=5e-4),)
    assert flags.learning_rates == (LearningRate(warmup_steps=7, decay="cosine"),)
    idle = "[training]\ndecay_power = 3\ndecay_to = 0.5\nweight_decay_form = 'l2'\n"
    assert load(tmp_path, HEAD + idle) == load(tmp_path, HEAD)


def test_constants_without_effect_do_not_change_the_work(tmp_path: Path) -> None:
    table = "[training]\noptimizer = 'sgd'\nmomentum = 0.5\nepsilon = 1e-3\ndrop_factor = 0.5\nbase_batch_size = 64\n"
    plain = load(tmp_path, HEAD + "[training]\noptimizer = 'sgd'\n")
    assert load(tmp_path, HEAD + table) == plain


def test_training_until_an_accuracy_is_other_work_of_as_many_epochs_as_it_may_take(tmp_path: Path) -> None:
    plain = load(tmp_path, HEAD, epochs="7")
    until = load(tmp_path, HEAD + "until_accuracy = 0.9\nmax_epochs = 7")
    often = load(tmp_path, HEAD + "epochs = [1, 5]", until_accuracy="0.9", max_epochs="7", evaluate_every="10")
    (kept, ended, finer) = (
        cells_of(sweep.expand(one, [models.load("mnist-cnn")], [target("a")], DIGITS, digests))
        for one in (plain, until, often)
    )
    assert [cell.training.epochs for cell in (*kept, *ended, *finer)] == [7, 7, 7]
    assert (ended[0].training.until_accuracy, finer[0].training.evaluate_every) == (0.9, 10)
    assert len({cell.work_id for cell in (*kept, *ended, *finer)}) == 3
    with pytest.raises(UsageError, match="--epochs: found beside until_accuracy, allowed: max_epochs alone"):
        load(tmp_path, HEAD + "until_accuracy = 0.9\nmax_epochs = 7", epochs="3")


def test_files_are_relative_to_the_sweep_file_and_names_stay_names(tmp_path: Path) -> None:
    text = HEAD.replace('"mnist-cnn"', '["lenet5", "own/m.toml"]').replace('"digits"', '"data.npz"')
    loaded = load(tmp_path, text)
    assert loaded.models == ("lenet5", str(tmp_path / "own" / "m.toml"))
    assert loaded.dataset == str(tmp_path / "data.npz")


def test_each_number_of_processors_makes_a_target_of_its_own(tmp_path: Path) -> None:
    text = HEAD.replace('"jax-cpu"', '["a", "b:xla@input=host", "a"]')
    expected = ("a@cpus=1", "a@cpus=2", "b:xla@input=host@cpus=1", "b:xla@input=host@cpus=2")
    assert load(tmp_path, text + "cpus = [1, 2, 1]\n").targets == expected
    assert load(tmp_path, text, cpus=("1,2",)).targets == expected
    assert load(tmp_path, text + "cpus = 4\n").targets == ("a@cpus=4", "b:xla@input=host@cpus=4")
    assert load(tmp_path, text + "cpus = 4\n", cpus=("1", "2"), target=(" a ",)).targets == ("a@cpus=1", "a@cpus=2")
    both = load(tmp_path, text + "cpus = 4\nsteps_per_call = [1, 8]\n", target=("a",)).targets
    assert both == ("a@cpus=4@steps_per_call=1", "a@cpus=4@steps_per_call=8")
    split = load(tmp_path, text + "devices = [1, 2]\n", target=("a",)).targets
    assert split == ("a@devices=1", "a@devices=2")
    flags = load(tmp_path, text, target=("a",), steps_per_call=("1,8", "32")).targets
    assert flags == tuple(f"a@steps_per_call={count}" for count in (1, 8, 32))


def test_own_targets_are_handed_on_untouched(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD + "[targets.mine]\npython = 'p'\nanything = [1, 2]\n")
    assert loaded.own_targets == {"mine": {"python": "p", "anything": [1, 2]}}


# What flags mean


def test_flags_replace_the_values_of_the_file(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        HEAD,
        batch_size=("8,16", "64"),
        epochs="3",
        seed=[7, 8],
        target=("a:graph", "b"),
        train_examples="100",
        learning_rate="0.5,1e-3",
        optimizer="adam",
    )
    assert loaded.batch_sizes == (8, 16, 64)
    assert (loaded.epochs, loaded.seeds, loaded.targets) == ((3,), (7, 8), ("a:graph", "b"))
    assert loaded.train_examples == 100
    assert loaded.learning_rates == (LearningRate(0.5), LearningRate(0.001))
    assert loaded.optimizers == (OptimizerSpec("adam"),)


def test_a_rate_for_each_batch_size_is_that_rate_written_plainly(tmp_path: Path) -> None:
    text = HEAD.replace("= 32", "= [512, 32]")
    wanted = load(tmp_path, text + "[training]\nlearning_rate = { 32 = 0.01, 512 = 0.08 }\n")
    assert wanted.rates_by_size == ((32, LearningRate(0.01)), (512, LearningRate(0.08)))
    for rates in ("32:0.01,512:0.08", ("512:0.08", "32:0.01"), ({32: 0.01, 512: 0.08},)):
        assert load(tmp_path, text, learning_rate=rates).rates_by_size == wanted.rates_by_size
    cells = cells_of(sweep.expand(wanted, MODELS[:1], [target("a"), target("b")], DIGITS, digests))
    plain = [
        cell
        for size, rate in (("32", "0.01"), ("512", "0.08"))
        for cell in cells_of(
            sweep.expand(
                load(tmp_path, text, batch_size=size, learning_rate=rate),
                MODELS[:1],
                [target("a"), target("b")],
                DIGITS,
                digests,
            )
        )
    ]
    assert [cell.cell_id for cell in cells] == [cell.cell_id for cell in plain]


@pytest.mark.parametrize(
    ("rates", "others", "expected"),
    [
        ("32:0.01", {}, "--learning-rate: no rate for batch size 512, allowed: one for each of 32, 512"),
        (
            "32:0.01,64:1,512:1",
            {},
            "--learning-rate: found a rate for batch size 64, allowed: those of the sweep (32, 512)",
        ),
        ("32:0.01,512:fast", {}, "--learning-rate: found 'fast' for 512, allowed: a number greater than 0"),
        ("32:0.01,512:-1", {}, "--learning-rate: found -1 for 512, allowed: a number greater than 0"),
        ("32:0.01,0.08", {}, "--learning-rate: found '32:0.01', allowed: a number greater than 0"),
        ("32:0.01,32:0.08", {}, "--learning-rate: found '32:0.01', allowed: a number greater than 0"),
        (
            "32:0.01,512:1",
            {"scaling": "linear"},
            "--scaling: found 'linear' beside a learning rate for each batch size, allowed: none",
        ),
    ],
)
def test_rates_by_batch_size_that_do_not_fit_the_sweep_are_told(
    rates: str, others: dict[str, str], expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        sweep.load("quick", {"batch_size": "32,512", "learning_rate": rates, **others})
    assert str(caught.value) == expected


def test_flags_not_given_change_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD, batch_size=None, target=(), model=[], learning_rate=None) == load(tmp_path, HEAD)


def test_files_in_flags_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load(tmp_path, HEAD, model="m.toml", dataset="d.npz")
    assert loaded.models == (str(tmp_path / "elsewhere" / "m.toml"),)
    assert loaded.dataset == str(tmp_path / "elsewhere" / "d.npz")


def test_flag_can_give_what_a_file_lacks(tmp_path: Path) -> None:
    assert load(tmp_path, without("batch_size"), batch_size="8").batch_sizes == (8,)


def test_where_names_the_flag_or_the_file_and_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD, model="lenet5")
    assert loaded.where("model") == "--model"
    assert loaded.where("target") == f"{tmp_path / 's.toml'}: key target"


# What is told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (without("name"), "missing key 'name', allowed: letters, digits, '.', '_' and '-'"),
        (without("model"), "missing key 'model', allowed: a list of at least one (a text that is not empty)"),
        (
            without("batch_size"),
            "missing key 'batch_size', allowed: a list of at least one (a whole number of 1 or more)",
        ),
        (HEAD + "batchsize = 3", "unknown key 'batchsize'; did you mean 'batch_size'? allowed: name, "),
        (HEAD.replace("mine", "a/b"), "key name: found 'a/b', allowed: letters, digits, '.', '_' and '-'"),
        (HEAD.replace("mine", "x\\n"), r"key name: found 'x\n', allowed: letters"),
        (HEAD.replace("mine", ".."), "key name: found '..', allowed: letters"),
        (HEAD.replace('"mnist-cnn"', "3"), "key model: found 3, allowed: a text that is not empty"),
        (HEAD.replace('"mnist-cnn"', "[]"), "key model: found [], allowed: a list of at least one (a text"),
        (HEAD.replace('"jax-cpu"', '["a", 2]'), "key target[1]: found 2, allowed: a text that is not empty"),
        (
            HEAD.replace('"digits"', '"digit"'),
            "key dataset: found 'digit', allowed: mnist, digits, or a file that ends in .npz (did you mean 'digits'?)",
        ),
        (HEAD.replace("= 32", "= 'many'"), "key batch_size: found 'many', allowed: a whole number of 1 or more"),
        (HEAD.replace("= 32", "= [32, 0]"), "key batch_size[1]: found 0, allowed: a whole number of 1 or more"),
        (HEAD.replace("= 32", "= 32.0"), "key batch_size: found 32.0, allowed: a whole number of 1 or more"),
        (HEAD + "cpus = [1, 0]", "key cpus[1]: found 0, allowed: a whole number of 1 or more"),
        (HEAD + "cpus = []", "key cpus: found [], allowed: a list of at least one (a whole number of 1 or more)"),
        (
            HEAD.replace('"jax-cpu"', '"a@steps_per_call=2"') + "steps_per_call = 8",
            "key steps_per_call: found [8] beside the target 'a@steps_per_call=2'",
        ),
        (
            HEAD.replace('"jax-cpu"', '["b", "a@cpus=2"]') + "cpus = [1, 2]",
            "key cpus: found [1, 2] beside the target 'a@cpus=2', allowed: numbers here or @cpus= in targets, not both",
        ),
        (
            HEAD + "[training]\nwarmup_steps = 5\nwarmup_epochs = 1",
            "key training.warmup_steps: found 5 beside warmup_epochs, allowed: one of the two",
        ),
        (
            HEAD + "[training]\ndecay = 'cosine'\ndrop_epochs = [1]",
            "key training.decay: found 'cosine' beside drop_epochs, allowed: one of the two",
        ),
        (
            HEAD + "until_accuracy = 0.9",
            "key until_accuracy: found no max_epochs, which says when training that does not get there ends",
        ),
        (
            HEAD.replace("= 32", "= '64..32'"),
            "key batch_size: found '64..32', allowed: a whole number of 1 or more, or from a smaller one to a larger",
        ),
        (HEAD + "max_epochs = 3", "key max_epochs: only with until_accuracy; epochs says how many"),
        (
            HEAD + "until_accuracy = 98",
            "key until_accuracy: found 98, allowed: a number greater than 0 and of at most 1",
        ),
        (HEAD + "epochs = true", "key epochs: found true, allowed: a whole number of 1 or more"),
        (HEAD + "epochs = -1", "key epochs: found -1, allowed: a whole number of 1 or more"),
        (HEAD + "seed = 2147483648", "key seed: found 2147483648, allowed: a whole number from 0 to 2147483647"),
        (HEAD + "train_examples = 0", "key train_examples: found 0, allowed: a whole number of 1 or more"),
        (HEAD + "test_examples = [1, 2]", "key test_examples: found [1, 2], allowed: a whole number of 1 or more"),
        (HEAD + "training = 3", "key training: found 3, allowed: a table"),
        (
            HEAD + "[training]\nlearningrate = 3",
            "unknown key 'learningrate' in [training]; did you mean 'learning_rate'? allowed: optimizer, ",
        ),
        (
            HEAD + "[training]\noptimizer = 'adamw'",
            "key training.optimizer: found 'adamw', allowed: sgd, momentum, nesterov, adam (did you mean 'adam'?)",
        ),
        (
            HEAD + "[training]\nlearning_rate = [0.1, 0]",
            "key training.learning_rate[1]: found 0, allowed: a number greater than 0",
        ),
        (
            HEAD + "[training]\nlearning_rate = nan",
            "key training.learning_rate: found nan, allowed: a number greater than 0",
        ),
        (
            HEAD + "[training]\nmomentum = 1",
            "key training.momentum: found 1, allowed: a number of at least 0 and less than 1",
        ),
        (
            HEAD + "[training]\ndrop_epochs = 0",
            "key training.drop_epochs: found 0, allowed: a whole number of 1",
        ),
        (HEAD + "[training]\nscaling = 'log'", "key training.scaling: found 'log', allowed: none, linear, sqrt"),
        (
            HEAD + "[training]\nprecision = 'bfloat16'",
            (
                "key training.precision: found 'bfloat16', allowed: float32, mixed_bfloat16, mixed_float16 "
                "(did you mean 'mixed_bfloat16'?)"
            ),
        ),
        (HEAD + "targets = ['jax-cpu']", "key targets: found ['jax-cpu'], allowed: a table"),
        (HEAD + "[targets]\nmine = 3", "key targets.mine: found 3, allowed: a table"),
        (HEAD + "batch_size = 3", "not TOML: "),
    ],
)
def test_wrong_file_gets_one_line_with_file_key_found_and_allowed(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 's.toml'}: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("batch_size", "0", "--batch-size: found 0, allowed: a whole number of 1 or more"),
        ("batch_size", ("8", "many"), "--batch-size: found 'many', allowed: a whole number of 1 or more"),
        ("batch_size", "8,", "--batch-size: found '', allowed: a whole number of 1 or more"),
        ("epochs", "1.5", "--epochs: found 1.5, allowed: a whole number of 1 or more"),
        ("seed", "-1", "--seed: found -1, allowed: a whole number from 0 to 2147483647"),
        ("train_examples", "1,2", "--train-examples: found [1, 2], allowed: a whole number of 1 or more"),
        ("decay", "linear", "--decay: found 'linear', allowed: none, cosine, polynomial"),
        ("weight_decay", "-1", "--weight-decay: found -1, allowed: a number of 0 or more"),
        ("label_smoothing", "1", "--label-smoothing: found 1, allowed: a number of at least 0 and less than 1"),
        ("target", ("",), "--target: found '', allowed: a text that is not empty"),
        (
            "dataset",
            "minst",
            "--dataset: found 'minst', allowed: mnist, digits, or a file that ends in .npz (did you mean 'mnist'?)",
        ),
        ("learning_rate", "fast", "--learning-rate: found 'fast', allowed: a number greater than 0"),
        ("optimizer", "adm", "--optimizer: found 'adm', allowed: sgd, momentum, nesterov, adam (did you mean 'adam'?)"),
    ],
)
def test_wrong_flag_is_told_by_its_name(key: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        sweep.load("quick", {key: value})
    assert str(caught.value) == expected


def test_right_flag_does_not_hide_a_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"s\.toml: key training: found 3, allowed: a table"):
        load(tmp_path, HEAD + "training = 3", learning_rate="0.1")


def test_unknown_preset_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        sweep.load("quik", {})
    assert str(caught.value) == (
        "no preset is called 'quik' (did you mean 'quick'?); allowed: batch, quick, study, study-accuracy, "
        "study-batch, study-time, or a file that ends in .toml"
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            ModelSpec("big", (32, 32, 3), (Flatten(), Dense(10))),
            "--model: 'big' takes images of 32x32x3, but those of 'digits' are 28x28x1",
        ),
        (
            ModelSpec("narrow", (28, 28, 1), (Flatten(), Dense(9))),
            "--model: 'narrow' ends in 9 values, but 'digits' has 10 classes",
        ),
    ],
)
def test_model_that_does_not_fit_the_dataset_is_told(model: ModelSpec, expected: str) -> None:
    loaded = sweep.load("quick", {"model": model.name})
    with pytest.raises(UsageError) as caught:
        sweep.expand(loaded, [model], [target("a")], DIGITS, digests)
    assert str(caught.value) == expected


# How a sweep becomes cells

axis = st.lists(st.integers(1, 6), min_size=1, max_size=4)
BASE = sweep.load("quick", {})
MODELS = tuple(ModelSpec(f"m{units}", (28, 28, 1), (Flatten(), Dense(units), Dense(10))) for units in range(1, 7))

sweeps = st.builds(
    lambda sizes, epochs, seeds, optimizers, rates: dataclasses.replace(
        BASE,
        batch_sizes=tuple(1000 * size for size in sizes),
        epochs=tuple(epochs),
        seeds=tuple(seeds),
        optimizers=tuple(OptimizerSpec(name) for name in optimizers),
        learning_rates=tuple(LearningRate(base=rate / 8) for rate in rates),
    ),
    axis,
    axis,
    axis,
    st.lists(st.sampled_from(["sgd", "momentum", "adam"]), min_size=1, max_size=3),
    axis,
)
some_models = st.lists(st.sampled_from(MODELS), min_size=1, max_size=2)
some_targets = st.lists(st.sampled_from("abcd").map(target), min_size=1, max_size=4)


@no_deadline
@given(sweeps, some_models, some_targets)
def test_every_combination_becomes_exactly_one_cell(
    wanted: Sweep, chosen: list[ModelSpec], lanes: list[Target]
) -> None:
    cells = cells_of(sweep.expand(wanted, chosen, lanes, DIGITS, digests))
    axes = (wanted.batch_sizes, wanted.epochs, wanted.seeds, wanted.optimizers, wanted.learning_rates, chosen, lanes)
    expected = 1
    for values in axes:
        expected *= len(set(values))
    assert len(cells) == len({cell.cell_id for cell in cells}) == expected
    assert len({cell.work_id for cell in cells}) == expected // len(set(lanes))
    assert {cell.training.precision for cell in cells} == set(wanted.precisions)


@no_deadline
@given(sweeps, some_models, some_targets)
def test_cells_that_differ_only_in_target_are_neighbours_and_batch_sizes_rise(
    wanted: Sweep, chosen: list[ModelSpec], lanes: list[Target]
) -> None:
    cells = cells_of(sweep.expand(wanted, chosen, lanes, DIGITS, digests))
    heats = [list(heat) for _, heat in groupby(cells, key=lambda cell: cell.work_id)]
    order = list(dict.fromkeys(lanes))
    assert all([cell.target for cell in heat] == order for heat in heats)
    rest = [dataclasses.replace(heat[0].training, batch_size=1) for heat in heats]
    keys = [(heat[0].model, training) for heat, training in zip(heats, rest, strict=True)]
    runs = [list(run) for _, run in groupby(zip(keys, heats, strict=True), key=lambda pair: pair[0])]
    assert len(runs) == len(set(keys))
    sizes = sorted(set(wanted.batch_sizes))
    assert all([heat[0].training.batch_size for _, heat in run] == sizes for run in runs)


@no_deadline
@given(sweeps, some_models, some_targets, st.randoms())
def test_order_of_the_axes_changes_no_cell(
    wanted: Sweep, chosen: list[ModelSpec], lanes: list[Target], generator: Any
) -> None:
    def shuffled(values: Any) -> Any:
        return tuple(generator.sample(list(values), len(values)))

    axes = ("batch_sizes", "epochs", "seeds", "optimizers", "learning_rates")
    other = dataclasses.replace(wanted, **{name: shuffled(getattr(wanted, name)) for name in axes})
    first = cells_of(sweep.expand(wanted, chosen, lanes, DIGITS, digests))
    second = cells_of(sweep.expand(other, shuffled(chosen), shuffled(lanes), DIGITS, digests))
    assert {cell.cell_id for cell in first} == {cell.cell_id for cell in second}


@no_deadline
@given(sweeps, some_models, some_targets)
def test_inputs_are_asked_once_per_model_seed_and_epochs(
    wanted: Sweep, chosen: list[ModelSpec], lanes: list[Target]
) -> None:
    asked: list[tuple[str, int, int]] = []

    def inputs(model: ModelSpec, seed: int, epochs: int) -> Inputs:
        asked.append((model.name, seed, epochs))
        return digests(model, seed, epochs)

    planned = sweep.expand(wanted, chosen, lanes, DIGITS, inputs)
    assert len(asked) == len(set(asked)) == len(set(chosen)) * len(set(wanted.seeds)) * len(set(wanted.epochs))
    assert all(
        cell.inputs == digests(cell.model, cell.training.seed, cell.training.epochs) for cell in cells_of(planned)
    )


@no_deadline
@given(sweeps)
def test_only_batches_larger_than_the_training_examples_are_skipped(wanted: Sweep) -> None:
    for planned in sweep.expand(wanted, MODELS[:1], [target("a")], DIGITS, digests):
        if planned.cell.training.batch_size > 4096:
            size = planned.cell.training.batch_size
            assert planned.skip == f"batch size {size} is larger than the 4096 training examples"
            assert planned.cell.steps_per_epoch == 0
        else:
            assert planned.skip == ""
            assert planned.cell.steps_per_epoch >= 1


def test_a_rate_that_is_found_stands_beside_one_for_all_and_a_plan_takes_that_of_its_first_size(tmp_path: Path) -> None:
    wanted = load(
        tmp_path,
        HEAD.replace("= 32", "= [32, { 0 = 32, 1 = 64 }, 128]") + "epochs = 2\n"
        "[training]\nlearning_rate = [0.01, 'find']\nwarmup_steps = 3",
    )

    def found(model: ModelSpec, optimizer: OptimizerSpec, precision: str, size: int) -> float:
        return size / 1000

    planned = sweep.expand(wanted, MODELS[:1], [target("a")], DIGITS, digests, found)
    rates = [
        (one.training.batch_plan or one.training.batch_size, one.training.learning_rate) for one in cells_of(planned)
    ]
    assert all(rate.warmup_steps == 3 for _, rate in rates)
    assert sorted((str(size), rate.base) for size, rate in rates) == [
        *(("128", 0.01), ("128", 0.128)),
        *(("32", 0.01), ("32", 0.032)),
        *(("32>64@1", 0.01), ("32>64@1", 0.032)),
    ]
    table = load(tmp_path, HEAD.replace("= 32", "= { 0 = 32, 1 = 64 }") + "[training]\nlearning_rate = { 32 = 0.5 }")
    assert [rate.base for rate, _ in table.rates_and_sizes()] == [0.5]


@pytest.mark.parametrize(
    ("written", "sizes"),
    [
        ("'32..256'", (32, 64, 128, 256)),
        ("'10..50'", (10, 20, 40, 50)),
        ("[7, '32..64', '64..64']", (7, 32, 64)),
    ],
)
def test_a_range_of_batch_sizes_doubles_up_to_its_end(tmp_path: Path, written: str, sizes: tuple[int, ...]) -> None:
    assert load(tmp_path, HEAD.replace("= 32", f"= {written}")).batch_sizes == sizes


def test_what_memory_does_not_hold_on_one_target_is_skipped_there_and_trained_on_the_other(tmp_path: Path) -> None:
    asked = load(tmp_path, HEAD.replace("= 32", "= [8, '32..max']"), memory="1GB")
    assert (asked.batch_sizes, asked.up_to_memory, asked.memory) == ((8,), 32, "1GB")
    wanted, lanes = sweep.with_sizes_up_to(asked, 200), [target("a"), target("b")]
    assert wanted.batch_sizes == (8, 32, 64, 128)
    planned = sweep.expand(
        wanted, MODELS[:1], lanes, DIGITS, digests, held=lambda cell: 200 if cell.target.name == "a" else 100
    )
    assert [(one.cell.training.batch_size, one.cell.target.name) for one in planned if one.skip] == [(128, "b")]
    assert planned[-1].skip == "batch size 128 is more than memory holds there: 100 at most"


def test_a_call_longer_than_an_epoch_is_skipped_and_is_the_same_work() -> None:
    wanted = dataclasses.replace(BASE, batch_sizes=(128, 1024), seeds=(0,))
    lanes = [target("a"), dataclasses.replace(target("a"), steps_per_call=8)]
    planned = sweep.expand(wanted, MODELS[:1], lanes, DIGITS, digests)
    assert [item.skip for item in planned] == [
        *("", "", ""),
        "8 steps per call are more than the 4 steps of an epoch at batch size 1024",
    ]
    assert len({item.cell.work_id for item in planned}) == 2
    assert len({item.cell.cell_id for item in planned}) == 4


def test_ten_thousand_cells_expand_with_their_ids_within_a_second_of_processor_time() -> None:
    wanted = dataclasses.replace(BASE, batch_sizes=tuple(range(1, 1001)), seeds=tuple(range(5)))
    model = models.load("mnist-cnn")
    start = time.process_time()
    planned = sweep.expand(wanted, [model], [target("a"), target("b")], DIGITS, digests)
    ids = {item.cell.cell_id for item in planned}
    assert len(ids) == 10_000
    assert time.process_time() - start < 1.0


def test_precision_is_an_axis_whose_flag_has_a_name_of_its_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD, precision=("float32", "mixed_float16", "float32"))
    assert loaded.precisions == ("float32", "mixed_float16")
    cells = cells_of(sweep.expand(loaded, MODELS[:1], [target("a"), target("b")], DIGITS, digests))
    assert [(cell.training.precision, cell.target.name) for cell in cells] == [
        ("float32", "a"),
        ("float32", "b"),
        ("mixed_float16", "a"),
        ("mixed_float16", "b"),
    ]
    with pytest.raises(UsageError, match=r"^--compute-precision: found 'half', allowed: float32, mixed_bfloat16"):
        load(tmp_path, HEAD, precision=("half",))


def test_a_batch_size_per_device_is_times_the_devices_of_each_target(tmp_path: Path) -> None:
    text = HEAD.replace("batch_size = 32", "batch_size_per_device = [8, 16]") + "devices = [1, 2]\n"
    assert "batch_size_per_device" in text
    found = load(tmp_path, text)
    assert set(found.batch_sizes) == {8, 16, 32}
    lanes = [target("a"), dataclasses.replace(target("a"), devices=2)]
    planned = sweep.expand(found, MODELS[:1], lanes, DIGITS, digests)
    cells = {(one.target.devices, one.training.batch_size) for one in cells_of(planned)}
    assert cells == {(1, 8), (1, 16), (2, 16), (2, 32)}
    beside = HEAD + "batch_size_per_device = [8]\n"
    with pytest.raises(UsageError, match="key batch_size_per_device: found beside batch_size, allowed: one of the two"):
        load(tmp_path, beside)
    flag = load(tmp_path, HEAD, batch_size_per_device=("8",), target=("a@devices=4", "a"))
    assert set(flag.batch_sizes) == {8, 32}
    assert flag.per_device == (8,)
