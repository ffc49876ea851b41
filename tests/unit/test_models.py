"""Model files: the built-in ones, the short forms, and what a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ModelError, UsageError
from harness.core.model import AveragePool, BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ModelSpec
from harness.plan import models

KINDS = "conv2d, max_pool, average_pool, global_average_pool, batch_norm, activation, flatten, dropout, dense"
HEAD = 'name = "x"\ninput_shape = [8, 8, 1]\n'


def load(folder: Path, text: str) -> ModelSpec:
    path = folder / "m.toml"
    path.write_text(text, encoding="utf-8")
    return models.load(str(path))


def layer(text: str) -> str:
    return f"{HEAD}[[layers]]\n{text}\n"


def test_built_in_models_bear_their_file_names_and_classify_28x28_images_in_ten() -> None:
    assert models.names() == ["deep-bn", "lenet5", "mnist-cnn"]
    for name, path in models.built_in().items():
        model = models.load(name)
        assert model.name == name == path.stem
        assert model.input_shape == (28, 28, 1)
        assert model.classes == 10


def test_mnist_cnn_is_the_study_network_with_the_stated_defaults() -> None:
    assert models.load("mnist-cnn").layers == (
        Conv2D(filters=32, kernel=(4, 4), activation="relu"),
        MaxPool(pool=(2, 2)),
        Conv2D(filters=64, kernel=(4, 4), activation="relu"),
        MaxPool(pool=(2, 2)),
        Flatten(),
        Dropout(rate=0.25),
        Dense(units=500, activation="relu"),
        Dropout(rate=0.5),
        Dense(units=10),
    )


def test_deep_bn_is_deeper_has_batch_norm_and_costs_no_more_than_mnist_cnn() -> None:
    deep, small = models.load("deep-bn"), models.load("mnist-cnn")
    convolutions = [item for item in deep.layers if isinstance(item, Conv2D)]
    assert len(convolutions) == 5
    assert not any(item.bias for item in convolutions)
    assert sum(isinstance(item, BatchNorm) for item in deep.layers) == 5
    assert deep.training_flops <= small.training_flops


def test_scalars_and_pairs_mean_the_same(tmp_path: Path) -> None:
    rest = '\n[[layers]]\nkind = "flatten"\n[[layers]]\nkind = "dense"\nunits = 2'
    short = load(tmp_path, layer(f'kind = "conv2d"\nfilters = 2\nkernel = 3\nstrides = 2{rest}'))
    long = load(tmp_path, layer(f'kind = "conv2d"\nfilters = 2\nkernel = [3, 3]\nstrides = [2, 2]{rest}'))
    assert short == long
    assert short.layers[0] == Conv2D(filters=2, kernel=(3, 3), strides=(2, 2))


def test_pool_strides_stay_open_where_not_given(tmp_path: Path) -> None:
    rest = '\n[[layers]]\nkind = "flatten"\n[[layers]]\nkind = "dense"\nunits = 2'
    model = load(tmp_path, layer(f'kind = "average_pool"\npool = [2, 4]{rest}'))
    assert model.layers[0] == AveragePool(pool=(2, 4), strides=None)
    assert model.traced[0].output_shape == (4, 2, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "missing key 'name', allowed: a text that is not empty"),
        (
            "name = 'x'\ninput_shape = [8, 8, 1]",
            "missing key 'layers', allowed: tables headed [[layers]], at least one",
        ),
        (HEAD + "layers = []", "key layers: found [], allowed: tables headed [[layers]], at least one"),
        (HEAD + "layers = 3", "key layers: found 3, allowed: tables headed [[layers]], at least one"),
        (HEAD + "layers = [3]", "key layers[0]: found 3, allowed: a table"),
        (
            HEAD + "[layers]\nkind = 'dense'",
            "key layers: found {kind = 'dense'}, allowed: tables headed [[layers]], at least one",
        ),
        (
            "name = 'x'\ninput_shape = [8, 8]\n[[layers]]\nkind = 'flatten'",
            "key input_shape: found [8, 8], allowed: three whole numbers: [height, width, channels]",
        ),
        (
            "name = 'x'\ninput_shape = [8, 0, 1]\n[[layers]]\nkind = 'flatten'",
            "input_shape: expected three positive sizes (H, W, C), found [8, 0, 1]",
        ),
        (
            HEAD + "layer = 3\n[[layers]]\nkind = 'flatten'",
            "unknown key 'layer'; did you mean 'layers'? allowed: name, input_shape, layers",
        ),
        (
            layer("units = 3"),
            f"layer 1: missing key 'kind', allowed: {KINDS}",
        ),
        (
            layer("kind = 'conv'"),
            f"layer 1: key kind: found 'conv', allowed: {KINDS} (did you mean 'conv2d'?)",
        ),
        (layer("kind = 3"), "layer 1: key kind: found 3, allowed: conv2d, max_pool, "),
        (
            layer("kind = 'conv2d'\nfilter = 3\nkernel = 3"),
            (
                "layer 1 (conv2d): unknown key 'filter'; did you mean 'filters'? "
                "allowed: filters, kernel, strides, padding, activation, bias"
            ),
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3"),
            "layer 1 (conv2d): missing key 'kernel', allowed: a whole number, or a pair of them such as [4, 4]",
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = [4]"),
            "layer 1 (conv2d): key kernel: found [4], allowed: a whole number, or a pair of them such as [4, 4]",
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = [4, '4']"),
            "layer 1 (conv2d): key kernel[1]: found '4', allowed: a whole number, or a pair of them such as [4, 4]",
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = true"),
            "layer 1 (conv2d): key kernel: found true, allowed: a whole number, or a pair of them such as [4, 4]",
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3.5\nkernel = 3"),
            "layer 1 (conv2d): key filters: found 3.5, allowed: a whole number",
        ),
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = 3\nbias = 1"),
            "layer 1 (conv2d): key bias: found 1, allowed: true or false",
        ),
        (layer("kind = 'dropout'\nrate = 'half'"), "layer 1 (dropout): key rate: found 'half', allowed: a number"),
        (layer("kind = 'dropout'\nrate = inf"), "layer 1 (dropout): key rate: found inf, allowed: a number (finite)"),
        (layer("kind = 'flatten'\nunits = 3"), "layer 1 (flatten): unknown key 'units'; allowed: "),
    ],
)
def test_wrong_key_or_type_gets_one_line_with_file_layer_and_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'm.toml'}: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = 9"),
            "layer 1 (conv2d), kernel: 9x9 is larger than its input of 8x8 (padding is valid)",
        ),
        (layer("kind = 'conv2d'\nfilters = 0\nkernel = 3"), "layer 1 (conv2d), filters: must be 1 or more, found 0"),
        (
            layer("kind = 'conv2d'\nfilters = 3\nkernel = 3\npadding = 'full'"),
            "layer 1 (conv2d), padding: found 'full', allowed: valid, same",
        ),
        (
            layer("kind = 'max_pool'\npool = 2\nstrides = 0"),
            "layer 1 (max_pool), strides: must be 1 or more, found [0, 0]",
        ),
        (
            layer("kind = 'dense'\nunits = 3"),
            "layer 1 (dense): needs a flat input, but it gets [8, 8, 1]; put flatten or global_average_pool before it",
        ),
        (
            layer("kind = 'flatten'\n[[layers]]\nkind = 'max_pool'\npool = 2"),
            "layer 2 (max_pool): needs an input of shape (H, W, C), but it gets [64]; it must come before flatten",
        ),
        (layer("kind = 'dropout'\nrate = 1"), "layer 1 (dropout), rate: must be at least 0 and less than 1, found 1.0"),
        (layer("kind = 'batch_norm'\nepsilon = 0"), "layer 1 (batch_norm), epsilon: must be more than 0, found 0.0"),
        (
            layer("kind = 'activation'\nfunction = 'gelu'"),
            "layer 1 (activation), function: found 'gelu', allowed: linear, relu, tanh, sigmoid",
        ),
        (
            layer("kind = 'max_pool'\npool = 2"),
            (
                "layer 1 (max_pool): the model must end in one value per class, but its output has shape [4, 4, 1]; "
                "end with a dense layer"
            ),
        ),
    ],
)
def test_layers_that_do_not_fit_get_one_line_with_file_layer_and_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'm.toml'}: {expected}"


def test_unknown_name_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        models.load("mnist-cn")
    assert str(caught.value) == (
        "no model is called 'mnist-cn' (did you mean 'mnist-cnn'?); "
        "allowed: deep-bn, lenet5, mnist-cnn, or a file that ends in .toml"
    )


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: no such file"):
        models.load(str(tmp_path / "absent.toml"))
