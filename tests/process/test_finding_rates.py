"""Sweeps that find their learning rates: searched once, frozen into the plan, looked up afterwards."""

from __future__ import annotations

import shutil

import numpy as np

from harness.runs import rate_searches
from tests.process.small_sweep import Sweeper

FIND = ("--learning-rate", "find")


def test_rates_are_searched_once_frozen_for_all_targets_and_never_judged_by_the_test_set(sweeper: Sweeper) -> None:
    sweeper.add("other", "reference")
    asked = {"target": "reference,other", "batch_sizes": (4, 8, 100)}
    done = sweeper.run(*FIND, **asked)
    assert done.returncode == 0, done.stderr
    assert "learning rates to find: 2, each by 36 short trainings" in done.stderr
    found = {one.batch_size: one for one in rate_searches.stored(sweeper.kept.folder)}
    cells = sweeper.kept.plan.cells
    assert {(cell.training.batch_size, cell.training.learning_rate.base) for cell in cells} == {
        *((size, one.rate) for size, one in found.items()),
        (100, 0.01),
    }
    assert len({cell.work_id for cell in cells}) == 3
    assert {sweeper.kept.plan.skips[cell.cell_id] for cell in cells if cell.training.batch_size == 100} == {
        "batch size 100 is larger than the 64 training examples"
    }
    assert {(one.train_examples, one.held_out) for one in found.values()} == {(58, 6)}
    assert "Learning rates found for small, sgd, by the loss of 6 training images" in done.stdout

    # The same run resumes, whatever the cache has; another finds them in the cache.
    kept = sweeper.cache / "learning-rates"
    away = kept.rename(sweeper.cache / "away")
    again = sweeper.run(*FIND, **asked)
    assert (again.returncode, "to find" in again.stderr) == (0, False), again.stderr
    shutil.rmtree(kept, ignore_errors=True)
    away.rename(kept)
    (sweeper.kept.folder).rename(sweeper.folder / "before")
    planned = sweeper.run(*FIND, "--plan", **asked)
    assert planned.returncode == 0, planned.stderr

    # Another test set, and nothing else: the same rates are searched for again, as the bytes are others.
    arrays = dict(np.load(sweeper.folder / "small.npz"))
    arrays["y_test"] = (arrays["y_test"] + 1) % 3
    np.savez(sweeper.folder / "small.npz", **arrays)
    other = sweeper.run(*FIND, **asked)
    assert other.returncode == 0, other.stderr
    assert {one.batch_size: one.trials for one in rate_searches.stored(sweeper.kept.folder)} == {
        size: one.trials for size, one in found.items()
    }


def test_a_plan_and_a_scaling_rule_have_nothing_to_do_with_a_search(sweeper: Sweeper) -> None:
    plan = sweeper.run(*FIND, "--plan", target="reference")
    assert plan.returncode == 2
    assert "the rates of this sweep are not known here yet" in plan.stderr
    scaled = sweeper.run(*FIND, "--scaling", "sqrt", target="reference")
    assert scaled.returncode == 2
    assert "--scaling: found 'sqrt' beside a learning rate for each batch size, allowed: none" in scaled.stderr
