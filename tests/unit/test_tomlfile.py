"""What a person sees when a TOML file is wrong: one line with file, key, what was found, what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from harness import wording
from harness.core.errors import UsageError
from harness.plan import tomlfile

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]


def even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number")
    return value


class Inner(BaseModel):
    model_config = STRICT
    batch_size: Annotated[
        list[Count], BeforeValidator(lambda value: value if isinstance(value, list) else [value]), Field(min_length=1)
    ] = [1]
    mode: Literal["graph", "xla"] = "graph"
    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    port: Annotated[int, Field(ge=1, le=9)] = 1
    wide: bool = False
    workers: Annotated[int, AfterValidator(even)] = 2


class Outer(BaseModel):
    model_config = STRICT
    name: Annotated[str, Field(min_length=1)]
    shape: Annotated[tuple[int, int], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = Field(
        (1, 1), description="two whole numbers"
    )
    training: Inner = Inner()
    targets: dict[str, Inner] = {}
    either: int | str = 0


def message(data: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        tomlfile.validate(Outer, data, "f.toml", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_status == 2
    return text


def inner(**keys: Any) -> dict[str, Any]:
    return {"name": "x", "training": keys}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "f.toml: missing key 'name', allowed: a text that is not empty"),
        (
            {"nmae": "x"},
            "f.toml: unknown key 'nmae'; did you mean 'name'? allowed: name, shape, training, targets, either",
        ),
        ({"name": 1}, "f.toml: key name: found 1, allowed: a text that is not empty"),
        ({"name": ""}, "f.toml: key name: found '', allowed: a text that is not empty"),
        ({"name": "x", "shape": [1]}, "f.toml: key shape: found [1], allowed: two whole numbers"),
        ({"name": "x", "shape": [1, "2"]}, "f.toml: key shape[1]: found '2', allowed: two whole numbers"),
        ({"name": "x", "training": 3}, "f.toml: key training: found 3, allowed: a table"),
        ({"name": "x", "either": 1.5}, "f.toml: key either: found 1.5, allowed: a whole number or a text"),
        (
            inner(batch_size="many"),
            "f.toml: key training.batch_size: found 'many', allowed: a whole number of 1 or more",
        ),
        (inner(batch_size=[8, 0]), "f.toml: key training.batch_size[1]: found 0, allowed: a whole number of 1 or more"),
        (
            inner(batch_size=[]),
            "f.toml: key training.batch_size: found [], allowed: a list of at least one (a whole number of 1 or more)",
        ),
        (inner(batch_size=True), "f.toml: key training.batch_size: found true, allowed: a whole number of 1 or more"),
        (inner(batch_size=8.0), "f.toml: key training.batch_size: found 8.0, allowed: a whole number of 1 or more"),
        (inner(mode="xlaa"), "f.toml: key training.mode: found 'xlaa', allowed: graph, xla"),
        (inner(rate=1.5), "f.toml: key training.rate: found 1.5, allowed: a number greater than 0 and less than 1"),
        (
            inner(rate=float("nan")),
            "f.toml: key training.rate: found nan, allowed: a number greater than 0 and less than 1 (finite)",
        ),
        (inner(share=-1), "f.toml: key training.share: found -1, allowed: a number of at least 0 and less than 1"),
        (inner(port=10), "f.toml: key training.port: found 10, allowed: a whole number from 1 to 9"),
        (inner(wide=1), "f.toml: key training.wide: found 1, allowed: true or false"),
        (inner(workers=3), "f.toml: key training.workers: found 3, allowed: an even number"),
        (
            {"name": "x", "targets": {"mine": {"rats": 1}}},
            (
                "f.toml: unknown key 'rats' in [targets.mine]; did you mean 'rate'? "
                "allowed: batch_size, mode, rate, share, port, wide, workers"
            ),
        ),
        (
            {"name": "x", "targets": {"mine": {"port": "a"}}},
            "f.toml: key targets.mine.port: found 'a', allowed: a whole number from 1 to 9",
        ),
        ({"name": "x", "targets": {"a\nb": 1}}, r"f.toml: key targets.'a\nb': found 1, allowed: a table"),
        ({"name": "x", "targets": {"mine": 1}}, "f.toml: key targets.mine: found 1, allowed: a table"),
    ],
)
def test_error_names_file_key_found_and_allowed(data: dict[str, Any], expected: str) -> None:
    assert message(data) == expected


def test_unknown_key_is_reported_before_the_key_it_leaves_missing() -> None:
    assert "unknown key 'nam'" in message({"nam": "x", "training": {"port": 0}})


def test_place_of_a_table_leads_its_keys() -> None:
    assert message({"name": 1}, within="targets.mine") == (
        "f.toml: key targets.mine.name: found 1, allowed: a text that is not empty"
    )
    assert "missing key 'name' in [targets.mine]" in message({}, within="targets.mine")


def test_flag_stands_in_place_of_file_and_key() -> None:
    flags = {"training.batch_size": "--batch-size", "name": "--name"}
    assert message(inner(batch_size=[0]), flags=flags) == "--batch-size: found 0, allowed: a whole number of 1 or more"
    assert message(inner(port=0), flags=flags).startswith("f.toml: key training.port: found 0")


def test_long_and_many_line_values_are_shown_short_and_on_one_line() -> None:
    text = message(inner(mode="x\n" * 500))
    assert len(text) < 200
    assert r"\n" in text


def test_valid_data_builds_the_model() -> None:
    form = tomlfile.validate(Outer, {"name": "x", "training": {"batch_size": 8, "rate": 0.5}}, "f.toml")
    assert form.training.batch_size == [8]
    assert form.training.rate == 0.5


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a = 1\nb = = 2\n", "not TOML: .*line 2"),
        (b"a = 1\na = 2\n", "not TOML: .*line 2"),
        (b"a = [1,\n", "not TOML"),
        (b"a = '\xff'\n", r"not UTF-8 text \(byte 5\)"),
        (b"a = " + b"[" * 100_000, "not TOML: nested too deeply"),
        (b"a = " + b"1" * 10_000, "not TOML"),
    ],
)
def test_damaged_file_gives_one_line_with_its_name(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        tomlfile.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        tomlfile.read(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        tomlfile.read(tmp_path)


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b'\xef\xbb\xbfa = 1\r\nb = "\xc3\xa9"\r\n')
    assert tomlfile.read(path) == {"a": 1, "b": "é"}


def test_nearest_finds_the_closest_name_whatever_its_case_and_dashes() -> None:
    assert wording.nearest("TENSORFLOW_CPU", ["tensorflow-cpu", "jax-cpu"]) == " (did you mean 'tensorflow-cpu'?)"
    assert wording.nearest("jax-cp", ["tensorflow-cpu", "jax-cpu"]) == " (did you mean 'jax-cpu'?)"
    assert wording.nearest("zzz", ["tensorflow-cpu", "jax-cpu"]) == ""


def test_importing_it_imports_no_validation_library() -> None:
    code = "import sys, harness.plan.tomlfile; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
