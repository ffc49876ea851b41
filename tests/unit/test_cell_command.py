"""``harness cell export`` as its user meets it: which cell, where to, and what stands in the two files."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import cli
from harness.core.cell import Cell, Target
from harness.core.training import TrainingSpec
from harness.plan import datasets, inputs
from harness.runs import folder as run_folder
from tests.unit import records
from tests.unit.builders import reference_target
from tests.unit.devices import device
from tests.unit.links import link

TRAIN, TEST = 20, 9
LABELS = {"train": TRAIN, "test": TEST}

Caller = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> run_folder.Run:
    """A run of a dataset of one's own: a JAX cell with a record, one without, a skipped TensorFlow cell, the oracle."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in LABELS.items():
        arrays[f"x_{part}"] = generator.integers(0, 256, (count + 5, 4, 4)).astype(np.uint8)
        arrays[f"y_{part}"] = (np.arange(count + 5) % 3).astype(np.int32)
    np.savez(tmp_path / "own.npz", **arrays)  # type: ignore[arg-type]
    dataset = datasets.limited(datasets.prepare(str(tmp_path / "own.npz")).dataset, TRAIN, TEST)

    def cell(batch_size: int, target: Target) -> Cell:
        training = TrainingSpec(batch_size, epochs=2)
        drawn = inputs.identify(records.MODEL, TRAIN, training.epochs, training.seed)
        return Cell(records.MODEL, training, dataset, drawn, target)

    cells = [cell(4, records.JAX), cell(5, records.JAX), cell(4, records.TENSORFLOW), cell(4, reference_target())]
    kept = run_folder.Run.create(tmp_path / "run", records.plan(cells))
    worker = {"packages": {"jax": "0.10.2", "numpy": "2.4.6"}}
    epochs = (records.Epoch(0, 1.25, 1.125, 0.5, 0.1),)
    with kept.locked():
        kept.save(records.record(cells[0], "interrupted", worker=worker, epochs=epochs))
        kept.save(records.failed(cells[2], "skipped", "a smaller batch size ran out of memory"))
        inputs.write(kept.inputs_folder, cells[0])
    return kept


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    def export(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "cell", "export", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out, err

    return export


def ids(run: run_folder.Run) -> list[str]:
    return list(run.cells)


def test_the_script_and_its_arrays_are_written_beside_each_other(
    run: run_folder.Run, call: Caller, tmp_path: Path
) -> None:
    first = ids(run)[0]
    status, out, err = call("run", first, "--out", "new/mine.py")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"{Path('new', 'mine.py')}: jax-cpu:jit, tiny, batch 4, 2 epochs, in plain JAX"
    assert f"{Path('new', 'mine.npz')}: its arrays, 0.0 MB" in out
    assert "jax 0.10.2, numpy 2.4.6" in out
    ast.parse((tmp_path / "new" / "mine.py").read_text(encoding="utf-8"))
    with np.load(tmp_path / "new" / "mine.npz", allow_pickle=False) as found:
        arrays = dict(found)
    cell = run.cells[first]
    drawn = inputs.draw_parameters(cell.model, cell.training.seed)
    order = inputs.draw_order(TRAIN, 2, cell.training.seed)
    assert [name for name in arrays if "/" in name] == list(cell.model.parameter_shapes)
    for name, expected in {**drawn, "order": order}.items():
        np.testing.assert_array_equal(arrays[name], expected)
    with np.load(tmp_path / "own.npz") as own:
        for part, count in LABELS.items():
            np.testing.assert_array_equal(arrays[f"{part}_images"][..., 0], own[f"x_{part}"][:count])
            np.testing.assert_array_equal(arrays[f"{part}_labels"], own[f"y_{part}"][:count])
    np.testing.assert_array_equal(arrays["recorded"], [[1.25, 1.125, 0.5], [np.nan] * 3])


def test_without_out_the_files_are_named_by_the_cell_and_never_written_over(
    run: run_folder.Run, call: Caller, tmp_path: Path
) -> None:
    first = ids(run)[0]
    assert call("run", first[:6].upper())[0] == 0
    assert {f"cell-{first}.py", f"cell-{first}.npz"} <= {path.name for path in tmp_path.iterdir()}
    before = (tmp_path / f"cell-{first}.py").read_bytes()
    status, out, err = call("run", first)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"cell-{first}.py: is there already; remove it, or name another file with --out" in err
    assert (tmp_path / f"cell-{first}.py").read_bytes() == before


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no fifos and devices of this kind there")


def test_the_script_on_standard_output_is_alone_there_and_its_arrays_have_the_cell_s_name(
    run: run_folder.Run, call: Caller, tmp_path: Path
) -> None:
    first = ids(run)[0]
    assert call("run", first, "--out", "file.py")[0] == 0
    status, out, err = call("run", first, "--out", "-")
    assert status == 0
    assert out == (tmp_path / "file.py").read_text(encoding="utf-8")
    assert (tmp_path / f"cell-{first}.npz").is_file()
    assert err.endswith(f" FILE.py --arrays cell-{first}.npz\n")
    assert not (tmp_path / "-").exists()
    status, out, err = call("run", first, "--out", "-")
    assert (status, out) == (2, "")
    assert f"cell-{first}.npz: is there already" in err


@POSIX
def test_the_script_goes_into_a_fifo_or_a_device_and_leaves_it_there(
    run: run_folder.Run, call: Caller, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "fifo.py").read_bytes()), daemon=True)
    reader.start()
    assert call("run", ids(run)[0], "--out", "fifo.py")[0] == 0
    reader.join(60)
    ast.parse(found[0])
    assert (tmp_path / "fifo.py").is_fifo()
    null = device(tmp_path, "null")
    assert call("run", ids(run)[1], "--out", str(null))[0] == 0
    assert null.is_char_device()


@POSIX
def test_the_script_goes_where_a_link_points_to(run: run_folder.Run, call: Caller, tmp_path: Path) -> None:
    link(tmp_path / "mine.py", "kept.py")
    assert call("run", ids(run)[0], "--out", "mine.py")[0] == 0
    assert (tmp_path / "mine.py").is_symlink()
    assert (tmp_path / "kept.py").is_file()
    assert (tmp_path / "mine.npz").is_file(), "beside the name by which the script is run"


def test_a_cell_that_was_skipped_or_not_run_is_exported_with_nothing_to_compare(
    run: run_folder.Run, call: Caller, tmp_path: Path
) -> None:
    for number, word in ((1, "it was not run"), (2, "skipped")):
        assert call("run", ids(run)[number], "--out", f"{number}.py")[0] == 0
        source = (tmp_path / f"{number}.py").read_text(encoding="utf-8")
        assert f"There is no finished record of it: {word}." in " ".join(source.split())
        with np.load(tmp_path / f"{number}.npz") as arrays:
            assert "recorded" not in arrays.files


def test_inputs_that_a_run_no_longer_has_are_drawn_again(run: run_folder.Run, call: Caller, tmp_path: Path) -> None:
    assert call("run", ids(run)[0], "--out", "before.py")[0] == 0
    shutil.rmtree(run.inputs_folder)
    assert call("run", ids(run)[0], "--out", "after.py")[0] == 0
    with np.load(tmp_path / "before.npz") as before, np.load(tmp_path / "after.npz") as after:
        for name in before.files:
            np.testing.assert_array_equal(before[name], after[name])


def test_which_cells_there_are_is_said_where_none_or_several_are_meant(run: run_folder.Run, call: Caller) -> None:
    first = ids(run)[0]
    status, out, err = call("run", first[:-1] + ("0" if first[-1] != "0" else "1"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"this run has no such cell (did you mean '{first}'?); allowed: {first} (jax-cpu:jit, tiny, batch 4" in err
    status, _, err = call("run", "")
    assert status == 2
    assert "cell '': 4 cells of this run begin so; allowed: " in err
    assert all(cell_id in err for cell_id in ids(run))


def test_other_wrong_calls_are_one_line(run: run_folder.Run, call: Caller, tmp_path: Path) -> None:
    oracle = ids(run)[3]
    for arguments, says in (
        (("nope", oracle), "nope: there is no such run folder"),
        (("run", oracle), "backend 'reference' cannot be exported as a script; allowed: tensorflow_keras (TensorFlow)"),
        (
            ("run", ids(run)[0], "--out", "script.txt"),
            "--out: found 'script.txt', allowed: the name of a file that ends",
        ),
    ):
        status, out, err = call(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert says in err
    (tmp_path / "file").touch()
    status, _, err = call("run", ids(run)[0], "--out", "file/script.py")
    assert (status, err.count("\n")) == (1, 1)
    assert "a file is in the way" in err
    for kept in (tmp_path / "cache" / "datasets").iterdir():
        if kept.is_dir():  # beside it lies the mark of this process, which uses it
            shutil.rmtree(kept)
    status, _, err = call("run", ids(run)[0], "--out", "script.py")
    assert (status, err.count("\n")) == (2, 1)
    assert "dataset 'own'" in err
    assert "is not in the cache; get it there with: harness data prepare FILE.npz" in err
    assert not (tmp_path / "script.py").exists()


def test_a_damaged_record_is_told_and_not_passed_over(run: run_folder.Run, call: Caller) -> None:
    first = ids(run)[0]
    (run.records_folder / f"{first}.json").write_text("{")
    status, _, err = call("run", first)
    assert status == 1
    assert "damaged, it is not JSON" in err
    status, _, err = call("run", ids(run)[1])
    assert (status, err) == (0, "")


def test_a_plan_that_names_what_does_not_exist_is_refused(run: run_folder.Run, call: Caller, tmp_path: Path) -> None:
    strange = dataclasses.replace(run.cells[ids(run)[0]], target=dataclasses.replace(records.JAX, accelerator='"""'))
    run_folder.Run.create(tmp_path / "strange", records.plan([strange]))
    status, _, err = call("strange", strange.cell_id)
    assert status == 2
    assert 'accelerator \'"""\' cannot be exported; allowed: cpu, cuda' in err
