"""The search for a learning rate: its rule against planted losses, what it trains on, what is kept and told of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.learning_rates import exponent
from harness.cache.keeping import Keeping
from harness.core.errors import UsageError
from harness.core.training import LearningRate, OptimizerSpec
from harness.measure import rate_search
from harness.measure.rate_search import GRID, SEEDS, SURVIVORS, TRAININGS, chosen, halving, wanted
from harness.report import learning_rates
from harness.runs import rate_searches
from harness.runs.rate_searches import RateSearch, RateTrial
from tests.unit.records import cell


def bowl(best: float) -> Callable[[float, int, int], float]:
    """A loss around its best rate, on a logarithmic axis."""
    return lambda rate, steps, seed: 1.0 + math.log(rate / best) ** 2 / steps


def test_each_round_trains_the_better_half_twice_as_long() -> None:
    trials = halving(GRID, 64, bowl(0.05))
    rounds = [[trial for trial in trials if trial.round == number] for number in range(3)]
    assert [(len(one), one[0].steps, len(one[0].losses)) for one in rounds] == [
        (16, 16, 1),
        (8, 32, 1),
        (SURVIVORS, 64, SEEDS),
    ]
    kept = [{trial.rate for trial in one} for one in rounds]
    assert kept[0] > kept[1] > kept[2]
    assert chosen(trials) == min(GRID, key=lambda rate: abs(math.log(rate / 0.05)))
    assert TRAININGS == 16 + 8 + SURVIVORS * SEEDS


def test_a_rate_that_only_starts_well_is_not_chosen() -> None:
    """Large rates lead at first and diverge later, or with another seed."""

    def loss(rate: float, steps: int, seed: int) -> float:
        if rate > 1.0 and steps > 20:
            return math.nan
        if rate > 0.11 and seed == 2:
            return 50.0
        return 2.0 - rate * steps / 1000

    trials = halving(GRID, 64, loss)
    assert chosen(trials) == max(rate for rate in GRID if rate <= 0.11)
    assert all(math.isinf(trial.loss) for trial in trials if trial.rate > 1.0 and trial.steps > 20)
    assert math.isnan(chosen(halving(GRID, 64, lambda rate, steps, seed: math.nan)))


def test_equal_losses_choose_the_smaller_rate() -> None:
    assert chosen(halving(GRID, 8, lambda rate, steps, seed: 1.0)) == GRID[0]


def test_it_trains_on_the_front_and_judges_on_the_end_of_the_training_images(tmp_path: Path) -> None:
    asked = wanted(cell(16, examples=320, epochs=4))
    assert (asked.trial.dataset.train_examples, asked.trial.dataset.test_examples) == (288, 32)
    for part, shape in (("images", (400, 4, 4, 1)), ("labels", (400,))):
        np.save(tmp_path / f"train_{part}.npy", np.arange(np.prod(shape)).reshape(shape))
        np.save(tmp_path / f"test_{part}.npy", np.full(shape, -1))
    place = rate_search.lay_out(tmp_path, tmp_path / "scratch", asked.trial)
    assert np.load(place / "train_labels.npy").tolist() == list(range(288))
    assert np.load(place / "test_labels.npy").tolist() == list(range(288, 320))
    assert len(np.load(place / "test_images.npy")) == 32


def test_it_trains_no_longer_than_the_work_and_not_by_its_decay() -> None:
    rule = LearningRate(0.3, warmup_epochs=1, decay="cosine")
    short, long = (wanted(cell(16, examples=320, epochs=epochs, learning_rate=rule)) for epochs in (1, 50))
    assert (short.steps, long.steps) == (20, rate_search.MOST_STEPS)
    assert short.trial.training.learning_rate == LearningRate(1.0, warmup_steps=5)
    assert long.trial.training.learning_rate == LearningRate(1.0, warmup_steps=20)
    with pytest.raises(UsageError, match="batch size 300 is larger than the 288 training images that are left"):
        wanted(cell(300, examples=320))


def test_a_search_is_the_same_whatever_the_rate_target_and_repeat_but_not_for_other_work() -> None:
    one = wanted(cell(16, learning_rate=LearningRate(0.1)))
    assert one.id == wanted(cell(16, learning_rate=LearningRate(0.7), repeat=2)).id
    others = [cell(32), cell(16, optimizer=OptimizerSpec("sgd")), cell(16, label_smoothing=0.1), cell(16, examples=640)]
    assert len({one.id, *(wanted(other).id for other in others)}) == 5


def made(size: int, rate: float, losses: tuple[float, ...] = (1.5, 1.0, 1.05, 3.0), held_out: int = 32) -> RateSearch:
    """A search whose last round has the rate second, and one round before it."""
    rates = [rate / 2, rate, 2 * rate, 4 * rate]
    first = [RateTrial(0, one, 8, (2.3,)) for one in (rate / 4, *rates, 8 * rate)]
    last = [RateTrial(1, one, 32, (loss, loss)) for one, loss in zip(rates, losses, strict=True)]
    return RateSearch(
        f"{size:016d}", {}, "tiny", "digits", "momentum", "float32", size, 320 - held_out, held_out, 0, "t", rate,
        (*first, *last),
    )  # fmt: skip


def test_what_is_nearly_as_good_is_a_range_around_the_chosen_rate() -> None:
    assert made(32, 0.1).nearly_as_good == (0.1, 0.2, False)
    low, high, cut = made(32, 0.1, (1.05, 1.0, 1.05, 3.0)).nearly_as_good
    assert (low, high, cut) == (0.05, 0.2, True)
    assert not made(32, 0.1).at_the_edge
    assert dataclasses.replace(made(32, 0.1), trials=made(32, 0.1).last, rate=0.05).at_the_edge


def test_searches_are_kept_with_the_run_and_recalled_by_what_they_depend_on(tmp_path: Path) -> None:
    one, two = made(64, 0.2), made(32, 0.1)
    for search in (one, two, one):
        rate_searches.keep(tmp_path, search)
    assert rate_searches.stored(tmp_path) == [two, one]
    rate_searches.remember(tmp_path / "cache", one, Keeping())
    assert rate_searches.recall(tmp_path / "cache", one.id) == one
    assert rate_searches.recall(tmp_path / "cache", two.id) is None
    (tmp_path / "cache" / f"{one.id}.json").write_text("{")
    assert rate_searches.recall(tmp_path / "cache", one.id) is None


def test_the_exponent_is_that_of_planted_rates_and_its_interval_covers_it() -> None:
    assert exponent({32: 0.1}) is None
    two = exponent({32: 0.1, 128: 0.2})
    assert two is not None
    assert (two.value, two.low, two.high) == (pytest.approx(0.5), None, None)
    generator, sizes, covered = np.random.default_rng(0), [16, 32, 64, 128, 256], 0
    for _ in range(400):
        found = exponent({size: 0.01 * size**0.7 * math.exp(generator.normal(0, 0.3)) for size in sizes})
        assert found is not None
        covered += found.low <= 0.7 <= found.high  # type: ignore[operator]
    assert 0.92 < covered / 400 < 0.98


def test_what_was_found_is_told_in_words() -> None:
    sharp, growth = learning_rates.sentences([made(128, 0.2), made(32, 0.1)])
    assert sharp == (
        "Learning rates found for tiny, momentum, by the loss of 32 training images that no search trained on: "
        "0.1 at batch size 32 (loss 1 after 32 steps, 0.1 to 0.2 within 10 %); "
        "0.2 at batch size 128 (loss 1 after 32 steps, 0.2 to 0.4 within 10 %)."
    )
    assert growth == (
        "The rate grows with the batch size to the power of 0.50; the linear rule has 1, the square-root rule 0.5. Two "
        "batch sizes give no interval."
    )


def test_the_figure_has_each_rate_after_its_longest_training_without_what_blew_up() -> None:
    frame = learning_rates.rows([made(32, 0.1, (1.5, 1.0, 1.05, 300.0))])
    assert frame["held_out_loss"].to_list() == [2.3, 1.5, 1.0, 1.05, None, 2.3]
    assert frame["steps"].to_list() == [8, 32, 32, 32, 32, 8]
    assert frame.filter(frame["chosen"])["rate"].to_list() == [0.1]
