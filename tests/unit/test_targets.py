"""Target definitions and the text that names a target."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from harness.core import system
from harness.core.cell import MODES
from harness.core.errors import UsageError, WrongDevice
from harness.plan import targets
from tests.unit.links import link

LOCKS = sorted((targets.FOLDER / "locks").glob("*.txt"))


def own(**table: Any) -> targets.TargetDefinition:
    return targets.definitions({"mine": table}, "folder/harness.toml")["mine"]


def test_built_in_targets_are_complete() -> None:
    built_in = targets.built_in()
    assert set(built_in) == {
        *("tensorflow-cpu", "tensorflow-cuda", "tensorflow210-cpu", "tensorflow210-cuda", "tensorflow-directml"),
        *("jax-cpu", "jax-cuda", "reference"),
        *("tensorflow-cpu-tuned", "jax-cpu-tuned"),
    }
    for definition in built_in.values():
        assert definition.lock is not None
        assert definition.lock.is_file()
        assert definition.description
        assert definition.modes
        assert set(definition.modes) <= set(MODES)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_has_an_exact_version_and_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert "://" not in text
    assert "index" not in text
    assert "@" not in text
    entries = text.replace("\\\n", " ").splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==[^\s;]+( ;[^\\]*?)?(\s+--hash=sha256:[0-9a-f]{64})+$", entry.strip()), (
            entry
        )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_holds_what_its_input_pins(lock: Path) -> None:
    locked = lock.read_text("utf-8")
    for line in lock.with_suffix(".in").read_text("utf-8").splitlines():
        requirement = re.sub(r"\[.*\]", "", line.partition("#")[0].partition(";")[0].strip())
        if "==" in requirement:
            assert re.search(rf"^{re.escape(requirement)}(?=[ \\])", locked, re.MULTILINE), requirement


@pytest.mark.parametrize(
    ("text", "label", "chosen_input"),
    [
        ("tensorflow-cpu", "tensorflow-cpu:graph", "resident"),
        ("tensorflow-cpu:xla", "tensorflow-cpu:xla", "resident"),
        ("tensorflow-cpu:fit", "tensorflow-cpu:fit", "host"),
        ("tensorflow-cpu:fit@input=host", "tensorflow-cpu:fit", "host"),
        ("jax-cpu@cpus=2@input=host@device=0", "jax-cpu:jit@input=host@cpus=2", "host"),
        ("reference@matmul_precision=highest", "reference:numpy", "resident"),
        ("jax-cpu@steps_per_call=8", "jax-cpu:jit@steps_per_call=8", "resident"),
        ("jax-cpu@steps_per_call=1", "jax-cpu:jit", "resident"),
        ("jax-cpu@devices=2", "jax-cpu:jit@devices=2", "resident"),
        ("jax-cpu@devices=1", "jax-cpu:jit", "resident"),
        ("jax-cpu@loop=unrolled@cpus=1", "jax-cpu:jit@cpus=1@loop=unrolled", "resident"),
        ("jax-cpu@loop=rolled", "jax-cpu:jit", "resident"),
        ("jax-cpu-tuned", "jax-cpu-tuned:jit", "resident"),
        (
            "jax-cpu-tuned@pool_gradient=select_and_scatter",
            "jax-cpu-tuned:jit@pool_gradient=select_and_scatter",
            "resident",
        ),
    ],
)
def test_a_target_is_named_by_text(text: str, label: str, chosen_input: str) -> None:
    target = targets.resolve(text, targets.built_in())
    assert target.label == label
    assert target.input == chosen_input


def test_a_label_names_the_same_target_again() -> None:
    definitions = targets.built_in()
    for text in (
        "tensorflow-cpu:xla@cpus=1@input=host",
        "tensorflow-cpu@steps_per_call=4@loop=unrolled",
        "jax-cpu-tuned@convolution_gradient=transposed@steps_per_call=2",
    ):
        target = targets.resolve(text, definitions)
        assert targets.resolve(target.label, definitions) == target


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tensorflow-cup", ["'tensorflow-cup'", "did you mean 'tensorflow-cpu'", "jax-cpu"]),
        ("", ["no target is called ''"]),
        ("tensorflow-cpu:grpah", ["'grpah'", "did you mean 'graph'", "graph, xla, fit"]),
        ("jax-cpu:", ["mode ''", "allowed: jit"]),
        ("jax-cpu@cpu=1", ["'cpu'", "did you mean 'cpus'", "cpus, device, input, matmul_precision"]),
        ("jax-cpu@input=hots", ["'hots'", "did you mean 'host'", "resident, host"]),
        ("jax-cpu@matmul_precision=hihgest", ["did you mean 'highest'"]),
        ("jax-cpu@cpus=-1", ["cpus", "'-1'", "whole number"]),
        ("jax-cpu@cpus=two", ["cpus", "'two'", "whole number"]),
        ("jax-cpu@cpus", ["'cpus'", "key=value"]),
        ("jax-cpu@cpus=1@cpus=2", ["given twice"]),
        ("jax-cpu@device=1", ["device 0"]),
        ("jax-cpu@matmul_precision=tf32", ["GPU"]),
        ("tensorflow-cpu:fit@input=resident", ["'fit'", "input=host"]),
        ("jax-cpu@steps_per_call=0", ["steps_per_call", "'0'", "a whole number of 1 or more"]),
        ("jax-cpu@devices=0", ["devices", "'0'", "a whole number of 1 or more"]),
        ("jax-cpu@steps_per_cal=8", ["did you mean 'steps_per_call'"]),
        (
            "jax-cpu@pool_gradient=first_maximun",
            ["'first_maximun'", "did you mean 'first_maximum'", "select_and_scatter"],
        ),
        (
            "tensorflow-cpu@pool_gradient=first_maximum",
            ["unknown key 'pool_gradient'", "steps_per_call, microbatch, devices, loop"],
        ),
        ("reference@loop=rolled", ["unknown key 'loop'"]),
    ],
)
def test_a_wrong_target_gets_one_line_with_what_is_allowed(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        targets.resolve(text, targets.built_in())
    message = str(caught.value)
    assert "\n" not in message
    assert repr(text) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", ["jax-cpu", "tensorflow-cpu"])
def test_a_tuned_target_is_the_installed_one_with_settings_that_have_reasons(name: str) -> None:
    plain, tuned = targets.built_in()[name], targets.built_in()[f"{name}-tuned"]
    assert (plain.tuned, tuned.tuned) == (False, True)
    assert (plain.options, plain.reasons) == ({}, {})
    same = ("backend", "accelerator", "environment", "modes", "platforms", "unavailable")
    assert [getattr(tuned, key) for key in same] == [getattr(plain, key) for key in same]
    assert tuned.options or tuned.env != plain.env
    assert tuned.reasons.keys() == tuned.options.keys() | tuned.env.keys()
    assert all("\n" not in why for why in tuned.reasons.values())


def test_what_a_definition_asks_for_is_in_the_target_but_not_its_defaults() -> None:
    mine = own(like="jax-cpu", options={"pool_gradient": "first_maximum", "loop": "rolled"}, tuned=True)
    target = targets.resolve("mine", {"mine": mine})
    assert target.defined_options == (("pool_gradient", "first_maximum"),)
    assert (target.options, target.tuned, target.label) == ((), True, "mine:jit")
    other = targets.resolve("mine@loop=unrolled@pool_gradient=first_maximum", {"mine": mine})
    assert other.options == (("loop", "unrolled"),)
    assert other.all_options == {"loop": "unrolled", "pool_gradient": "first_maximum"}
    assert other.label == "mine:jit@loop=unrolled"


def test_options_and_reasons_are_inherited_but_not_the_reason_for_another_value() -> None:
    mine = own(like="jax-cpu-tuned", options={"pool_gradient": "select_and_scatter"}, reasons={"JAX_PLATFORMS": "mine"})
    assert mine.options == {"pool_gradient": "select_and_scatter", "convolution_gradient": "canonical"}
    assert "pool_gradient" not in mine.reasons
    assert mine.reasons["JAX_PLATFORMS"] == "mine"
    assert mine.reasons["convolution_gradient"]
    assert mine.tuned


def test_a_backend_of_ones_own_is_asked_for_what_its_definition_names(tmp_path: Path) -> None:
    mine = own(
        backend="own:Backend", python="3.11", lock="a.txt", path=str(tmp_path), modes=["jit"], options={"a": "b"}
    )
    (tmp_path / "a.txt").write_text("")
    known = {"mine": dataclasses.replace(mine, lock=tmp_path / "a.txt")}
    assert targets.resolve("mine@a=c", known).all_options == {"a": "c"}
    with pytest.raises(UsageError, match="unknown key 'd'"):
        targets.resolve("mine@d=c", known)


def test_an_own_target_inherits_what_it_does_not_give() -> None:
    base = targets.built_in()["tensorflow-cpu"]
    mine = own(like="tensorflow-cpu", env={"TF_NUM_INTEROP_THREADS": "1"}, modes=["xla"])
    assert mine.modes == ("xla",)
    assert mine.backend == base.backend
    assert mine.environment == base.environment
    assert mine.env == {**base.env, "TF_NUM_INTEROP_THREADS": "1"}
    assert mine.source == "folder/harness.toml"


def test_an_own_target_may_be_like_one_above_it() -> None:
    found = targets.definitions(
        {"one": {"like": "jax-cpu", "env": {"A": "1"}}, "two": {"like": "one", "env": {"B": "2"}}}
    )
    assert found["two"].env == {**targets.built_in()["jax-cpu"].env, "A": "1", "B": "2"}


def test_an_interpreter_stands_instead_of_a_lock_and_its_link_is_not_followed(tmp_path: Path) -> None:
    real = tmp_path / "real-python"
    real.touch()
    python = tmp_path / "venv" / "python"
    python.parent.mkdir()
    link(python, real)
    table = {"like": "tensorflow210-cpu", "python": "venv/python"}
    mine = targets.definitions({"mine": table}, str(tmp_path / "harness.toml"))["mine"]
    assert mine.interpreter == str(python)
    assert mine.lock is None
    assert mine.environment == f"python:{python}"
    assert not mine.unavailable_here


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    table = {"backend": "b", "modes": ["jit"], "python": "3.12", "lock": "my.txt"}
    (tmp_path / "my.txt").write_text("numpy==2.4.6 --hash=sha256:" + "0" * 64)
    mine = targets.definitions({"mine": table}, str(tmp_path / "harness.toml"))["mine"]
    assert mine.lock == tmp_path / "my.txt"
    assert re.fullmatch(r"lock:[0-9a-f]{16}-py3\.12", mine.environment)


def test_line_ends_do_not_change_an_environments_identity(tmp_path: Path) -> None:
    table = {"backend": "b", "modes": ["jit"], "python": "3.12", "lock": "my.txt"}
    identities = set()
    for content in (b"a\nb\n", b"a\r\nb\r\n"):
        (tmp_path / "my.txt").write_bytes(content)
        identities.add(targets.definitions({"mine": table}, str(tmp_path / "f.toml"))["mine"].environment)
    assert len(identities) == 1


def test_a_missing_lock_file_is_a_usage_error() -> None:
    mine = own(backend="b", modes=["jit"], python="3.12", lock="nowhere.txt")
    with pytest.raises(UsageError, match=r"harness\.toml.*nowhere\.txt"):
        targets.resolve("mine", {"mine": mine})


@pytest.mark.parametrize(
    ("platform", "machine", "words"),
    [("linux", "x86_64", ""), ("macos", "arm64", "Linux and Windows"), ("linux", "arm64", "Linux on ARM")],
)
def test_a_target_says_why_it_cannot_exist_on_a_platform(
    platform: str, machine: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "platform_name", lambda: platform)
    monkeypatch.setattr(system, "machine_name", lambda: machine)
    reason = targets.built_in()["tensorflow210-cpu"].unavailable_here
    assert words in reason
    assert bool(reason) == bool(words)


def test_a_lock_per_platform_is_chosen_and_its_absence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"backend": "b", "modes": ["jit"], "python": "3.12", "lock": {"windows": "w.txt", "linux": "l.txt"}}
    monkeypatch.setattr(system, "platform_name", lambda: "windows")
    assert own(**table).lock == Path("folder/w.txt").absolute()
    monkeypatch.setattr(system, "platform_name", lambda: "macos")
    assert own(**table).unavailable_here == "mine has no lock file for macos"


def test_the_devices_number_is_filled_into_variables() -> None:
    mine = own(like="jax-cpu", env={"CUDA_VISIBLE_DEVICES": "{device}"})
    assert mine.variables(3)["CUDA_VISIBLE_DEVICES"] == "3"
    assert mine.variables(3)["JAX_PLATFORMS"] == "cpu"


def test_a_targets_table_may_say_its_device_and_precision() -> None:
    table = {"like": "jax-cuda", "device": 1, "matmul_precision": "tf32"}
    found = targets.definitions({"second": table}, "harness.toml")
    assert targets.resolve("second", found).label == "second:jit@device=1@matmul_precision=tf32"
    assert targets.resolve("second@device=0@matmul_precision=highest", found).label == "second:jit"


def test_a_targets_table_gives_a_processor_no_other_device() -> None:
    found = targets.definitions({"mine": {"like": "jax-cpu", "device": 1}}, "harness.toml")
    with pytest.raises(UsageError, match="a CPU target has the one device 0"):
        targets.resolve("mine", found)


@pytest.mark.parametrize(
    ("inherited", "device", "shown"),
    [(None, 1, "1"), ("2,3", 0, "2"), ("2, 3", 1, "3"), ("GPU-8932f937,GPU-1", 1, "GPU-1"), ("0,2,-1,1", 1, "2")],
)
def test_a_targets_devices_count_among_those_that_a_scheduler_shows(
    inherited: str | None, device: int, shown: str
) -> None:
    told = {} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited}
    variables = targets.built_in()["jax-cuda"].variables(device, told)
    assert variables["CUDA_VISIBLE_DEVICES"] == shown
    assert variables["HARNESS_DEVICE"] == str(device)


@pytest.mark.parametrize("inherited", ["", " ", "-1", "-1,0", "NoDevFiles"])
def test_a_variable_that_shows_no_device_is_not_taken_for_one_that_shows_all(inherited: str) -> None:
    with pytest.raises(
        WrongDevice, match=rf"^asked for device 0, but CUDA_VISIBLE_DEVICES shows none \('{inherited}'; "
    ):
        targets.built_in()["jax-cuda"].variables(0, {"CUDA_VISIBLE_DEVICES": inherited})


@pytest.mark.parametrize(("variable", "hides"), [("ROCR_VISIBLE_DEVICES", True), ("HIP_VISIBLE_DEVICES", False)])
def test_an_empty_variable_means_what_its_library_takes_it_for(variable: str, hides: bool) -> None:
    mine = own(like="jax-cpu", env={variable: "{device}"})
    if hides:
        with pytest.raises(WrongDevice, match="shows none"):
            mine.variables(0, {variable: ""})
    else:
        assert mine.variables(0, {variable: ""})[variable] == "0"
        with pytest.raises(WrongDevice, match="shows none"):
            mine.variables(0, {variable: "-1"})


def test_directml_takes_an_empty_variable_for_an_unset_one() -> None:
    directml = targets.built_in()["tensorflow-directml"]
    assert directml.variables(1, {"DML_VISIBLE_DEVICES": ""})["DML_VISIBLE_DEVICES"] == "1"


def test_a_device_beyond_those_that_a_scheduler_shows_is_the_wrong_one() -> None:
    with pytest.raises(WrongDevice, match=r"asked for device 2, but CUDA_VISIBLE_DEVICES shows 2 \('4,5'"):
        targets.built_in()["jax-cuda"].variables(2, {"CUDA_VISIBLE_DEVICES": "4,5"})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"like": "jax-cup"}, ["targets.mine.like", "'jax-cup'", "did you mean 'jax-cpu'"]),
        ({"lik": "jax-cpu"}, ["'lik'", "did you mean 'like'"]),
        ({"like": "jax-cpu", "modes": ["jti"]}, ["targets.mine.modes[0]", "'jti'", "did you mean 'jit'"]),
        ({"like": "jax-cpu", "options": {"pol": "x"}}, ["targets.mine.options", "unknown key 'pol'", "pool_gradient"]),
        (
            {"like": "jax-cpu", "options": {"loop": "x"}},
            ["targets.mine.options", "loop: found 'x'", "rolled, unrolled"],
        ),
        ({"like": "jax-cpu", "reasons": {"loop": "x"}}, ["targets.mine.reasons", "'loop'", "JAX_PLATFORMS"]),
        ({"like": "jax-cpu", "modes": []}, ["targets.mine.modes", "at least one"]),
        ({"like": "jax-cpu", "python": 3.11}, ["targets.mine.python", "3.11", "a Python version such as '3.11'"]),
        ({"like": "jax-cpu", "python": "3.9"}, ["targets.mine.python", "'3.9'", "from '3.10' on"]),
        ({"like": "jax-cpu", "platforms": ["osx"]}, ["targets.mine.platforms[0]", "'osx'", "linux, windows, macos"]),
        ({"like": "jax-cpu", "python": "/usr/bin/python3", "lock": "a.txt"}, ["targets.mine.lock", "version"]),
        ({"backend": "jax_flax", "modes": ["jit"]}, ["missing key 'python'", "[targets.mine]"]),
        ({"backend": "jax_flax", "modes": ["jit"], "python": "3.11"}, ["missing key 'lock'", "[targets.mine]"]),
        ("jax-cpu", ["targets.mine", "'jax-cpu'", "a table"]),
    ],
)
def test_a_wrong_own_target_gets_one_line_with_file_key_and_what_is_allowed(table: Any, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        targets.definitions({"mine": table}, "harness.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("harness.toml: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "words"), [("jax-cpu", "built in"), ("a:b", "letters"), ("a@b", "letters"), ("", "letters")]
)
def test_a_name_that_could_be_misread_is_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        targets.definitions({name: {"like": "jax-cpu"}}, "harness.toml")
