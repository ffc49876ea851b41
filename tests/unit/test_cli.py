"""The command line as its user meets it: help, one line for every mistake, tables and JSON on any console."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from harness import __version__, cli
from harness.plan import tomlfile
from harness.plan.prepare import prepare
from harness.runs import folder as run_folder
from tests.command import HARNESS

GOLDEN = Path(__file__).parents[1] / "golden" / "run-schema-1"
COLOURS = re.compile(r"\x1b\[[0-9;]*\b[349][0-7][;m]")
LISTS = [
    ["models"],
    ["models", "show", "deep-bn"],
    ["targets"],
    ["targets", "show", "jax-cpu-tuned"],
    ["data"],
    ["sweeps"],
    ["report", str(GOLDEN)],
]

SWEEP = 'name = "s"\nmodel = "model.toml"\ntarget = "reference"\ndataset = "small.npz"\nbatch_size = 8\n'
MODEL = 'name = "m"\ninput_shape = [4, 4, 1]\nlayers = [{ kind = "flatten" }, { kind = "dense", units = 3 }]\n'
FILES = {
    "sweep.toml": SWEEP,
    "few.toml": "train_examples = 20\n" + SWEEP,
    "model.toml": MODEL,
    "not-toml.toml": "name = = 3",
    "latin.toml": b"name = '\xe9'",
    "wrong-key.toml": SWEEP + "batch_sizes = 3\n",
    "wrong-value.toml": SWEEP.replace("= 8", "= 'eight'"),
    "no-name.toml": SWEEP.replace('name = "s"\n', ""),
    "wrong-training.toml": SWEEP + "[training]\noptimiser = 'sgd'\n",
    "wrong-target.toml": SWEEP + "[targets.mine]\nbackend = 'own:Backend'\nmodes = ['graf']\npython = '3.11'\n",
    "own-reference.toml": SWEEP + "[targets.reference]\nlike = 'reference'\n",
    "no-lock.toml": SWEEP + "[targets.mine]\nbackend = 'own:Backend'\nmodes = ['graph']\npython = '3.11'\n",
    "unknown-layer.toml": MODEL.replace('"flatten"', '"flaten"'),
    "layer-key.toml": MODEL.replace("units = 3", "unit = 3"),
    "large-kernel.toml": MODEL.replace(
        '{ kind = "flatten" }', '{ kind = "conv2d", filters = 2, kernel = 9 }, { kind = "flatten" }'
    ),
    "no-layers.toml": 'name = "m"\ninput_shape = [4, 4, 1]\nlayers = []\n',
    "two-classes.toml": MODEL.replace("units = 3", "units = 2"),
    "directory.toml/inside": "",
    "directory.npz/inside": "",
    "text.npz": "no arrays",
}

OWN = "sweep sweep.toml "
WRONG = [
    ("swep", "No such command 'swep'"),
    ("--nope", "No such option"),
    ("models nope", "No such command 'nope'"),
    ("sweeps extra", "Got unexpected extra argument (extra)"),
    ("sweep quik", "no preset is called 'quik' (did you mean 'quick'?)"),
    ("sweep nofile.toml", "nofile.toml: no such file"),
    ("sweep directory.toml", "directory.toml: cannot be read"),
    ("sweep not-toml.toml", "not-toml.toml: not TOML"),
    ("sweep latin.toml", "latin.toml: not UTF-8 text"),
    ("sweep wrong-key.toml", "wrong-key.toml: unknown key 'batch_sizes'; did you mean 'batch_size'?"),
    ("sweep wrong-value.toml", "wrong-value.toml: key batch_size: found 'eight', allowed: a whole number"),
    ("sweep no-name.toml", "no-name.toml: missing key 'name'"),
    (
        "sweep wrong-training.toml",
        "wrong-training.toml: unknown key 'optimiser' in [training]; did you mean 'optimizer'?",
    ),
    ("sweep wrong-target.toml", "wrong-target.toml: key targets.mine.modes[0]: found 'graf', allowed: graph"),
    ("sweep own-reference.toml", "own-reference.toml: key targets.reference: 'reference' is built in"),
    ("sweep no-lock.toml", "no-lock.toml: missing key 'lock' in [targets.mine]"),
    ("sweep sweep.toml extra", "Got unexpected extra argument (extra)"),
    ("sweep --nope", "--nope"),
    ("sweep --out", "Option '--out' requires an argument"),
    (OWN + "--batch-size 0", "--batch-size: found 0, allowed: a whole number of 1 or more"),
    (OWN + "--batch-size 8,x", "--batch-size: found 'x', allowed: a whole number"),
    (OWN + "--batch-size ,", "--batch-size: found '', allowed: a whole number"),
    (OWN + "-b 8 -b 1.5", "--batch-size: found 1.5, allowed: a whole number"),
    (OWN + "--batch-size 99999999999999999999", "--batch-size: found 99999999999999999999, allowed: a whole number"),
    (OWN + "--cpus 0", "--cpus: found 0, allowed: a whole number of 1 or more"),
    (OWN + "--cpus 1 --target reference@cpus=1", "--cpus: found [1] beside the target 'reference@cpus=1', allowed: "),
    (OWN + "--epochs two", "--epochs: found 'two', allowed: a whole number"),
    (OWN + "--epochs 1000000000", "--epochs: found 1000000000, allowed: a whole number from 1 to 10000"),
    (OWN + "--seed -1", "--seed: found -1, allowed: a whole number from 0"),
    (OWN + "--model nope", "no model is called 'nope'"),
    (OWN + "--model mnist-cn", "no model is called 'mnist-cn' (did you mean 'mnist-cnn'?)"),
    (OWN + "--model unknown-layer.toml", "unknown-layer.toml: layer 1: key kind: found 'flaten'"),
    (OWN + "--model lenet5", "--model: 'lenet5' takes images of 28x28x1, but those of 'small' are 4x4x1"),
    (OWN + "--model two-classes.toml", "--model: 'm' ends in 2 values, but 'small' has 3 classes"),
    (OWN + "--target nope", "no target is called 'nope'"),
    (OWN + "--target reference:xla", "mode 'xla' does not exist here; allowed: numpy"),
    (OWN + "--target reference@cpus=x", "cpus: found 'x', allowed: a whole number"),
    (OWN + "--target reference@cpu=1", "unknown key 'cpu' (did you mean 'cpus'?)"),
    (OWN + "--dataset nope", "--dataset: found 'nope', allowed: mnist, digits, or a file that ends in .npz"),
    (OWN + "--dataset nope.npz", "nope.npz: no such file"),
    (OWN + "--optimizer sgdd", "--optimizer: found 'sgdd'"),
    (OWN + "--learning-rate 0", "--learning-rate: found 0, allowed: a number greater than 0"),
    (OWN + "--learning-rate nan", "--learning-rate: found nan, allowed: a number greater than 0 (finite)"),
    (OWN + "--scaling cubic", "--scaling: found 'cubic', allowed: none, linear, sqrt"),
    (OWN + "--train-examples x", "--train-examples: found 'x', allowed: a whole number"),
    (OWN + "--train-examples 1000", "small: asked for 1000 training examples, allowed: 1 to 12"),
    (
        "sweep few.toml",
        "small: asked for 20 training examples by few.toml, allowed: 1 to 12; --train-examples changes it",
    ),
    (OWN + "--test-examples 0", "--test-examples: found 0, allowed: a whole number"),
    (OWN + "--data-dir nope", "--data-dir: found 'nope', allowed: a folder that exists"),
    (OWN + "--retry all", "Invalid value for '--retry': 'all' is not 'failed'"),
    (OWN + "--timeout 0", "'--timeout': found '0', allowed: a number of seconds from 1 to 1,000,000"),
    (OWN + "--timeout soon", "'--timeout': found 'soon', allowed: a number of seconds"),
    (OWN + "--timeout nan", "'--timeout': found 'nan', allowed: a number of seconds"),
    (OWN + "--timeout inf", "'--timeout': found 'inf', allowed: a number of seconds"),
    (OWN + "--out=", "'--out' / '-o': a path cannot be empty"),
    ("verify --target nope", "no target is called 'nope'"),
    ("verify --model nope", "no model is called 'nope'"),
    ("verify --optimizer sdg", "--optimizer: found 'sdg' (did you mean 'sgd'?)"),
    ("doctor jax-cup", "no target is called 'jax-cup' (did you mean 'jax-cpu'?)"),
    ("doctor jax-cpu:xla", "mode 'xla' does not exist here; allowed: jit"),
    ("report", "Missing argument 'RUN...'"),
    ("report nope", "nope: there is no such run folder"),
    ("report .", "is not a run folder (it has no plan.json)"),
    (f"report {GOLDEN} --format xml", "'xml' is not one of 'csv', 'json', 'parquet', 'markdown'"),
    ("models show", "Missing argument 'NAME|FILE.toml'"),
    ("models show nope", "no model is called 'nope'"),
    ("models show nope.toml", "nope.toml: no such file"),
    ("models show not-toml.toml", "not-toml.toml: not TOML"),
    ("models show unknown-layer.toml", "unknown-layer.toml: layer 1: key kind: found 'flaten'"),
    ("models show layer-key.toml", "layer-key.toml: layer 2 (dense): unknown key 'unit'; did you mean 'units'?"),
    ("models show large-kernel.toml", "large-kernel.toml: layer 1"),
    ("models show no-layers.toml", "no-layers.toml: key layers: found [], allowed: tables headed [[layers]]"),
    ("models show sweep.toml", "sweep.toml: unknown key"),
    ("targets sync nope", "no target is called 'nope'"),
    ("targets show jax-cup", "no target is called 'jax-cup' (did you mean 'jax-cpu'?)"),
    ("sweep --steps-per-call 0", "--steps-per-call: found 0, allowed: a whole number of 1 or more"),
    ("targets sync --nope", "--nope"),
    ("targets support nope", "Got unexpected extra argument (nope)"),
    ("data prepare", "Missing argument 'NAME|FILE.npz'"),
    ("data prepare mnits", "no dataset is called 'mnits' (did you mean 'mnist'?)"),
    ("data prepare nope.npz", "nope.npz: no such file"),
    ("data prepare mnist --data-dir nope", "--data-dir: found 'nope', allowed: a folder that exists"),
]
UNUSABLE = [
    (OWN + "--dataset text.npz", "text.npz: truncated, or not an .npz file"),
    (OWN + "--dataset directory.npz", "directory.npz: cannot be read"),
    (OWN + "--out .", "is not a run folder and not empty"),
    (OWN + "--out model.toml", "model.toml: a file is in the way"),
    (OWN + "--out model.toml/run", "a file is in the way"),
]
"""Well said, but what is there cannot be used: exit status 1."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right and wrong files."""
    made = tmp_path_factory.mktemp("work")
    for name, content in FILES.items():
        path = made / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    images, labels = np.arange(192, dtype=np.uint8).reshape(12, 4, 4), np.arange(12) % 3
    np.savez(made / "small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return made


Caller = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def call(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    """Run a command in this process: exit status, standard output, standard error."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(cache))
    monkeypatch.setenv("COLUMNS", "200")

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return run


def process(
    arguments: list[str], folder: Path, cache: Path, stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    env = {**os.environ, "HARNESS_CACHE_DIR": str(cache), **variables}
    return subprocess.run(
        [HARNESS, *arguments], cwd=folder, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def every_command(group: click.Group, path: tuple[str, ...] = ("harness",)) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize("path", [path for path, _ in every_command(cli.cli)])
def test_the_help_of_every_command_has_an_example_of_it(call: Caller, path: str) -> None:
    for flag in ("--help", "-h"):
        status, out, err = call(f"{path} {flag}".removeprefix("harness "))
        assert (status, err) == (0, "")
        assert f"Usage: {path} " in out
        example = out.partition("Example:\n")[2].splitlines()[0]
        assert example.startswith(f"    {path}")
    assert max(map(len, out.splitlines())) <= 115


@pytest.mark.parametrize("path", [path for path, _ in every_command(cli.cli)])
def test_every_option_says_what_it_is_for(path: str) -> None:
    command = dict(every_command(cli.cli))[path]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.name}"


def test_every_command_stands_in_the_list_that_help_prints(call: Caller) -> None:
    folder = Path(cli.__file__).parent / "commands"
    files = {path.stem.replace("_", "-") for path in folder.glob("*.py") if "@click." in path.read_text()}
    assert files - {"flags"} == set(cli.COMMANDS)
    listed = call("--help")[1].partition("Commands:\n")[2].splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[name, says] for name, says in sorted(cli.COMMANDS.items())]


def test_help_imports_no_command(folder: Path, cache: Path) -> None:
    code = (
        "import sys; from harness.cli import main; sys.argv = ['harness', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name for name in done.stderr.split() if name.startswith("harness.")}
    assert loaded
    assert not {name for name in loaded if name.startswith("harness.commands.")}


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[arguments for arguments, _ in WRONG])
def test_a_wrong_call_is_one_line_and_status_2(call: Caller, arguments: str, says: str) -> None:
    status, out, err = call(arguments)
    assert (status, out) == (2, "")
    assert err.startswith("harness: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "says"), UNUSABLE, ids=[arguments for arguments, _ in UNUSABLE])
def test_what_cannot_be_used_is_one_line_and_status_1(call: Caller, arguments: str, says: str) -> None:
    status, out, err = call(arguments)
    assert (status, out) == (1, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_without_a_command_the_help_is_a_wrong_call(call: Caller) -> None:
    status, out, err = call("")
    assert (status, out) == (2, "")
    assert "Usage: harness" in err


def test_the_version_is_the_package_s(call: Caller) -> None:
    assert call("--version") == (0, f"harness, version {__version__}\n", "")


@pytest.mark.parametrize("content", ["[targets.mine]\nbackend = 'x'", "other = 1", "targets = 3", "[targets"])
def test_a_wrong_harness_toml_is_one_line_that_names_it(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness.toml").write_text(content)
    for arguments in ("targets", "verify --target mine"):
        status, out, err = call(arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("harness: harness.toml: ")


def test_the_targets_of_harness_toml_are_targets(call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = f"backend = 'own:Backend'\npython = '{sys.executable}'\nmodes = ['graph']\npath = '.'\n"
    (tmp_path / "harness.toml").write_text(
        f"[targets.mine]\n{table}[targets.gone]\nlike='mine'\npython='/gone/python'\n"
    )
    status, out, err = call("targets --json")
    assert (status, err) == (0, "")
    found = {target["name"]: target for target in json.loads(out)}
    assert found["mine"]["state"] == "ready"
    assert found["gone"]["state"] == "broken"
    gone = str(Path("/gone/python"))
    assert gone in found["gone"]["detail"]
    status, out, _ = call("targets")
    assert status == 0
    assert re.search(rf"^gone .* broken: .*{re.escape(gone)}", out, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        "models --json",
        "models show lenet5 --json",
        "targets --json",
        "doctor --json",
        "data --json",
        "sweeps --json",
        "sweep sweep.toml --batch-size 4,8 --plan --json",
        f"report {GOLDEN} --format json",
    ],
)
def test_json_parses_and_nothing_else_is_said(call: Caller, arguments: str) -> None:
    call("data prepare small.npz")
    status, out, err = call(arguments)
    assert (status, err) == (0, "")
    assert json.loads(out)


def test_a_plan_lists_cells_with_what_is_skipped_and_why(call: Caller) -> None:
    status, out, _ = call("sweep sweep.toml --batch-size 4,13 --plan")
    assert status == 0
    assert re.search(r"^[0-9a-f]{16}  reference:numpy, m, batch 4, 1 epoch, seed 0: about ", out, re.MULTILINE)
    assert "batch 13, 1 epoch, seed 0: skipped: batch size 13 is larger than the 12 training examples" in out
    assert re.search(r"^1 cell to run, 1 .*; about \d", out, re.MULTILINE)
    assert not Path("harness-runs").exists()


def test_each_number_of_processors_is_a_target_of_its_own(call: Caller) -> None:
    status, out, _ = call("sweep sweep.toml --cpus 1,2 --plan")
    assert status == 0
    assert re.findall(r"  (reference\S+), m, batch 8, ", out) == ["reference:numpy@cpus=1", "reference:numpy@cpus=2"]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        *((arguments, {"PYTHONIOENCODING": "ascii"}) for arguments in [*LISTS, ["doctor"]]),
        *((arguments, {"PYTHONIOENCODING": "cp1252"}) for arguments in LISTS),
        (LISTS[1], {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_a_console_that_shows_few_characters_shows_the_rest(
    folder: Path, cache: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    done = process(arguments, folder, cache, COLUMNS="40", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() or variables == {"PYTHONIOENCODING": "cp1252"}
    assert len(done.stdout) > 100


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_keep_their_words_and_numbers_whole(call: Caller, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = {arguments[0] + str(len(arguments)): call(" ".join(arguments))[1] for arguments in LISTS}
    for text in shown.values():
        assert "…" not in text
        if columns >= 80:
            assert max(len(line) for line in text.splitlines() if "golden" not in line) <= columns
    assert {"mnist-cnn", "28x28x1", "550,886", "MFLOP/image"} <= set(shown["models1"].split())
    assert {"02_batch_norm", "15_conv2d", "20,278"} <= set(shown["models3"].split())
    assert {"tensorflow210-cpu", "tensorflow_keras", "reference", "3.10"} <= set(shown["targets1"].split())
    assert {"mnist", "digits", "60,000", "10,000"} <= set(shown["data1"].split())
    assert {"quick", "study"} <= set(shown["sweeps1"].split())
    assert {"jax-cpu:jit", "ok"} <= set(shown["report2"].split())


@pytest.mark.parametrize("columns", ["0", "00", "", "-5", "wide", "²", "99999999999999"])
def test_a_screen_of_no_width_hides_nothing(folder: Path, cache: Path, columns: str) -> None:
    for arguments in (["status", str(GOLDEN)], ["models"], ["sweep", "sweep.toml", "--plan"], ["--help"]):
        told = process(arguments, folder, cache, COLUMNS=columns, LINES=columns)
        assert (told.returncode, told.stdout) == (0, process(arguments, folder, cache).stdout)
        assert told.stdout.strip()


def test_a_screen_of_one_column_hides_nothing(folder: Path, cache: Path) -> None:
    narrow = process(["status", str(GOLDEN)], folder, cache, COLUMNS="1").stdout
    assert "".join(narrow.split()) == "".join(process(["status", str(GOLDEN)], folder, cache).stdout.split())


def test_names_with_brackets_are_printed_as_they_are(call: Caller, folder: Path) -> None:
    (folder / "odd.toml").write_text(MODEL.replace('"m"', '"[/b] :x: [red]"'))
    assert call("models show odd.toml")[1].startswith("[/b] :x: [red]: input 4x4x1")


def test_colours_are_for_terminals_and_for_those_who_want_them(folder: Path, cache: Path) -> None:
    arguments = ["report", str(GOLDEN)]
    assert "\x1b" not in process(arguments, folder, cache).stdout
    assert COLOURS.search(process(arguments, folder, cache, FORCE_COLOR="1").stdout)
    assert not COLOURS.search(process(arguments, folder, cache, FORCE_COLOR="1", NO_COLOR="1").stdout)


PRINTING = [
    ["--help"],
    ["models"],
    ["models", "--json"],
    ["report", str(GOLDEN)],
    ["report", str(GOLDEN), "--format", "csv"],
]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_leaves_ends_a_command_quietly(folder: Path, cache: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process(arguments, folder, cache, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_that_cannot_be_written_is_one_line(folder: Path, cache: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = process(arguments, folder, cache, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == "harness: output cannot be written (No space left on device)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_runs_without_standard_streams(folder: Path, cache: Path, closed: str) -> None:
    env = {**os.environ, "HARNESS_CACHE_DIR": str(cache)}
    for arguments, status in (("models", 0), (f"report {GOLDEN}", 0), ("models show nope", 2)):
        done = subprocess.run(f"{HARNESS} {arguments} {closed}", shell=True, cwd=folder, env=env, capture_output=True)
        assert done.returncode == status
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that is in use")
def test_a_current_folder_that_is_gone_is_one_line(cache: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; {HARNESS} targets"
    env = {**os.environ, "HARNESS_CACHE_DIR": str(cache)}
    done = subprocess.run(command, shell=True, cwd=gone, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("harness: the current folder is gone")
    assert done.stderr.count("\n") == 1


def test_a_cache_that_cannot_be_used_is_one_line_that_names_it(folder: Path) -> None:
    file = folder / "model.toml"
    for arguments in (["sweep", "sweep.toml", "--plan"], ["data"], ["targets"], ["doctor"]):
        done = process(arguments, folder, file)
        assert done.returncode == 1
        assert str(file) in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_environment_is_compiled_when_it_is_made_and_not_at_each_call() -> None:
    root = Path(__file__).resolve().parents[2]
    settings = tomlfile.read(root / "pyproject.toml")["tool"]["uv"]
    assert "compile-bytecode" not in settings  # with it "uv run harness" looks at ten thousand files each time
    assert "uv sync --quiet --compile-bytecode\n" in (root / ".ci" / "run").read_text()


class TestOwnImages:
    def test_their_range_is_told_and_an_unusual_one_is_warned_of(self, call: Caller, folder: Path) -> None:
        data = dict(np.load(folder / "small.npz"))
        scaled = {key: value.astype(np.float32) if key.startswith("x") else value for key, value in data.items()}
        np.savez(folder / "float.npz", **scaled)
        said = "float32 from 0 to 191, taken as they are"
        _, out, err = call("data prepare float.npz")
        assert said in out
        assert "warning: float: the images are" in err
        _, out, err = call("sweep sweep.toml --dataset float.npz --plan")
        assert f"images of float: {said}" in out
        assert "warning: float: the images are" in err
        _, out, err = call("sweep sweep.toml --plan")
        assert "images of small: uint8 from 0 to 191, divided by 255" in out
        assert "warning" not in err

    def test_under_another_name_they_are_the_same_cells_and_a_line_says_so(self, call: Caller, folder: Path) -> None:
        (folder / "other.npz").write_bytes((folder / "small.npz").read_bytes())
        first = json.loads(call("sweep sweep.toml --plan --json")[1])["cells"]
        _, out, err = call("sweep sweep.toml --dataset other.npz --plan --json")
        assert [cell["cell_id"] for cell in json.loads(out)["cells"]] == [cell["cell_id"] for cell in first]
        assert "other.npz: the same bytes as 'small'" in err

    def test_a_run_goes_on_under_the_name_that_it_was_planned_with(
        self, call: Caller, folder: Path, cache: Path, tmp_path: Path
    ) -> None:
        call("data prepare small.npz")
        planned = prepare("sweep.toml", {}).planned
        renamed = [replace(one.cell, dataset=replace(one.cell.dataset, name="elsewhere")) for one in planned]
        run_folder.Run.create(tmp_path / "run", run_folder.Plan("s", "", "", "", tuple(renamed)))
        _, out, _ = call(f"sweep sweep.toml --out {tmp_path / 'run'} --plan --json")
        assert [cell["cell_id"] for cell in json.loads(out)["cells"]] == [cell.cell_id for cell in renamed]


@pytest.mark.parametrize("variable", [None, "", "/lib", "/lib{sep}{here}"])
def test_a_clone_stays_importable_from_its_own_folder(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation has its folder on the path; only an empty entry of PYTHONPATH puts it there unasked."""
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    monkeypatch.setattr(sys, "path", ["/python", here])
    if variable is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", variable.format(sep=os.pathsep, here=here))
    cli._import_nothing_from_here()
    assert sys.path == ["/python", here]


def test_the_present_folder_goes_where_an_empty_entry_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [os.getcwd(), "/python"])
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/lib")
    cli._import_nothing_from_here()
    assert sys.path == ["/python"]
