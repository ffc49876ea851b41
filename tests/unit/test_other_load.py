"""Was other load to blame? On planted runs in which it was, was not, or in which nobody can tell."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from harness import analysis
from harness.analysis import Blame
from harness.analysis.other_load import BETWEEN_PROCESSES, CONTROL_LANE
from harness.core.record import HeatFacts, Record
from harness.report import charts, page
from harness.report import other_load as words
from harness.statistics import slope_within_groups
from tests.unit.made_up_runs import view
from tests.unit.planted_runs import MACHINE, planted
from tests.unit.records import JAX, TENSORFLOW

COST = 0.2
"""Log units that a processor of other load slows a step by, where it does."""


def run(
    loads: Callable[[np.random.Generator], float],
    *,
    cost: float = COST,
    seeds: Sequence[int] = range(6),
    sizes: Sequence[int] = (16, 32, 64),
    spread: float = 0.005,
    stolen: float | None = None,
    generator_seed: int = 0,
    machine: dict[str, Any] = MACHINE,
    control: bool = False,
    throttled: float | None = None,
) -> Iterator[Record]:
    """Heats of two targets, each heat under a load of its own, on a machine that drifts by ``spread`` between them."""
    random = np.random.default_rng(generator_seed)
    for seed in seeds:
        for size in sizes:
            other = loads(random)
            drift = spread * random.normal()
            lanes = [(JAX, 0, 1.0), (TENSORFLOW, 0, 1.7), *([(JAX, 1, 1.0)] if control else [])]
            for target, lane, slower in lanes:
                pace = 0.0001 * size * slower * math.exp(cost * other + drift + spread * random.normal())
                heat = HeatFacts(
                    "block", other_processors=other, stolen_processors=stolen, throttled_processors=throttled
                )
                yield planted(size, target, seed=seed, lane=lane, pace=pace, heat=heat, machine=machine)


def varied(random: np.random.Generator) -> float:
    return float(random.uniform(0, 1.5))


def blamed(records: Iterator[Record] | Sequence[Record]) -> Blame:
    (only,) = analysis.outline(analysis.collect(records)).blame
    return only


class TestVerdict:
    def test_load_that_slows_is_to_blame_and_its_cost_is_in_the_interval(self) -> None:
        found = blamed(run(varied, generator_seed=1))
        assert (found.verdict, found.why, found.records, found.heats) == ("to blame", "slower", 36, 18)
        assert found.cost_low is not None
        assert found.cost_high is not None
        assert found.cost_low < 1 - math.exp(-COST) < found.cost_high
        assert found.cost_high - found.cost_low < 0.05

    def test_stolen_time_counts_as_load(self) -> None:
        swapped = [
            dataclasses.replace(
                one,
                heat=dataclasses.replace(one.heat, other_processors=0.0, stolen_processors=one.heat.other_processors),
            )
            for one in run(varied)
        ]
        assert blamed(swapped).cost == pytest.approx(blamed(run(varied)).cost)

    def test_load_without_an_effect_is_not_and_what_may_be_missed_is_told(self) -> None:
        found = blamed(run(varied, cost=0.0, generator_seed=1))
        assert (found.verdict, found.why) == ("not to blame", "without effect")
        assert found.missed is not None
        assert 0 < found.missed < 0.05

    def test_with_much_noise_it_cannot_be_told(self) -> None:
        found = blamed(run(varied, cost=0.0, spread=0.3, seeds=range(3)))
        assert (found.verdict, found.why) == ("cannot be told", "unclear")
        assert found.missed is not None
        assert found.missed > 0.05

    def test_no_load_is_not(self) -> None:
        found = blamed(run(lambda random: float(random.uniform(0, 0.08)), cost=0.0, stolen=0.01))
        assert (found.verdict, found.why, found.cost) == ("not to blame", "quiet", None)
        assert (found.stolen_median, found.stolen_max) == (0.01, 0.01)

    def test_a_large_machine_is_quiet_with_more(self) -> None:
        def little(random: np.random.Generator) -> float:
            return float(random.uniform(0, 0.6))

        assert blamed(run(little, machine={**MACHINE, "logical_cores": 72})).why == "quiet"
        assert blamed(run(little)).why != "quiet"

    @pytest.mark.parametrize(
        "records",
        [
            list(run(varied, seeds=[0], sizes=[16]))[:1],
            list(run(varied, seeds=[0])),
            list(run(lambda random: 1.0)),
        ],
        ids=["one record", "one heat of each cell", "always the same load"],
    )
    def test_load_that_nothing_can_be_held_against_tells_nothing(self, records: list[Record]) -> None:
        found = blamed(records)
        assert (found.verdict, found.why, found.cost) == ("cannot be told", "alone", None)

    def test_one_busy_heat_alone_proves_nothing(self) -> None:
        loads = iter([1.0] + [0.0] * 9)
        found = blamed(run(lambda random: next(loads), seeds=range(10), sizes=[16]))
        assert found.verdict == "cannot be told"

    def test_lanes_of_a_heat_count_once(self) -> None:
        """However many lanes a heat has, they share its drift: an interval that took them for independent is wrong."""
        covered = 0
        for number in range(100):
            found = blamed(run(varied, spread=0.02, seeds=range(4), sizes=[16], generator_seed=number, control=True))
            if found.cost_low is not None and found.cost_high is not None:
                covered += found.cost_low <= 1 - math.exp(-COST) <= found.cost_high
        assert covered >= 90

    def test_of_an_old_run_nothing_is_said(self) -> None:
        found = analysis.analyse(analysis.collect(planted(32, seed=seed) for seed in (0, 1)))
        assert found.blame == ()
        assert found.other_load["other_processors"].to_list() == [None, None]
        assert found.other_load["relative_throughput"].to_list() == [1.0, 1.0]
        assert words.lines(found.blame) == []

    def test_of_no_record_neither(self) -> None:
        found = analysis.analyse(analysis.collect([]))
        assert (found.blame, found.other_load.height) == ((), 0)

    def test_machines_are_judged_apart(self) -> None:
        other = {**MACHINE, "id": "m2", "slurm": {"node": "n2", "exclusive": False, "other_jobs": 2}}
        records = [*run(varied), *run(varied, cost=0.0, seeds=range(6, 12), machine=other)]
        one, two = analysis.outline(analysis.collect(records)).blame
        assert [(one.label, one.verdict), (two.label, two.verdict)] == [
            ("machine m1", "to blame"),
            ("n2 (m2)", "not to blame"),
        ]
        assert (one.shared, one.other_jobs, two.shared, two.other_jobs) == (0, None, 36, 2)


class TestQuota:
    """What a container's own quota holds back is no other load, and is not silent."""

    TIGHT: ClassVar[dict[str, Any]] = {**MACHINE, "processor_quota": 0.3}

    def held_back(self, loads: Callable[[np.random.Generator], float], **how: Any) -> list[Record]:
        return list(run(loads, machine=self.TIGHT, throttled=1.6, **how))

    def test_that_held_work_back_on_a_quiet_machine_is_to_blame_itself(self) -> None:
        found = blamed(self.held_back(lambda random: 0.0, cost=0.0))
        assert (found.verdict, found.why) == ("not to blame", "throttled")
        assert (found.quota, found.throttled_median, found.throttled_max) == (0.3, 1.6, 1.6)
        (line,) = words.lines([found])
        assert line.startswith(
            "The container's own quota, 0.3 of a processor, slowed training, and other load did not: hardly anything "
            "else ran, but the quota held back the work of up to 1.60 processors. "
        )
        assert (
            "The container's quota of 0.3 of a processor held back the work of 1.60 processors (median; at most 1.60)."
            in line
        )

    def test_is_told_beside_other_load(self) -> None:
        found = blamed(self.held_back(varied, generator_seed=1))
        assert (found.verdict, found.why) == ("to blame", "slower")
        assert any("held back the work of" in line for line in words.evidence(found))

    def test_that_held_nothing_back_changes_no_answer(self) -> None:
        found = blamed(list(run(lambda random: 0.05, cost=0.0, machine=self.TIGHT, throttled=0.001)))
        assert found.why == "quiet"

    def test_that_cannot_be_seen_shows_in_what_it_held_back(self) -> None:
        found = blamed(list(run(lambda random: 0.05, cost=0.0, throttled=0.5)))
        assert found.why == "throttled"
        assert "quota that cannot be seen from inside held back the work of 0.500 processors" in " ".join(
            words.evidence(found)
        )

    def test_stands_in_the_table_and_on_the_page(self) -> None:
        records = self.held_back(lambda random: 0.0, cost=0.0)
        row = analysis.analyse(analysis.collect(records)).other_load.to_dicts()[0]
        assert (row["processor_quota"], row["throttled_processors"]) == (0.3, 1.6)
        html = page.render(view(records))
        assert "own quota, 0.3 of a processor, slowed training" in html
        assert "processors held back by a quota" in html
        assert 'data-figure="other-load"' not in html


class TestUntold:
    """Where the system has no counters the question has an answer: that, and why."""

    WHY = "Performance counters may be disabled"

    def records(self) -> list[Record]:
        heat = HeatFacts("block", load_untold=self.WHY)
        return [planted(16, seed=seed, heat=heat, machine=MACHINE) for seed in (50, 51)]

    def test_cannot_be_told_and_says_why(self) -> None:
        found = blamed(self.records())
        assert (found.verdict, found.why, found.records) == ("cannot be told", "untold", 2)
        (line,) = words.lines([found])
        assert line == (
            "Whether other load slowed training is not known: the system does not say how busy it was "
            "(Performance counters may be disabled)."
        )
        assert self.WHY in page.render(view(self.records()))

    def test_records_that_tell_come_before_those_that_do_not(self) -> None:
        found = blamed([*run(varied, generator_seed=1), *self.records()])
        assert (found.why, found.records) == ("slower", 36)


class TestFloor:
    def test_is_what_control_lanes_differ_by(self) -> None:
        found = blamed(run(varied, control=True, spread=0.0))
        assert found.floor_from == CONTROL_LANE
        assert found.floor == pytest.approx(0.0, abs=1e-9)

    def test_or_else_the_spread_between_processes(self) -> None:
        found = blamed(run(lambda random: 0.0, cost=0.0, spread=0.03))
        assert found.floor_from == BETWEEN_PROCESSES
        assert found.floor == pytest.approx(0.03 * math.sqrt(2), rel=0.4)

    def test_of_one_process_of_each_cell_is_not_known(self) -> None:
        assert blamed(run(varied, seeds=[0])).floor is None


class TestTable:
    def made(self, **lists: Any) -> dict[str, Any]:
        one = planted(32, blocks=4, noise=lambda count: [1.0, 1.0, 1.0, 2.0])
        changed = dataclasses.replace(one, blocks=dataclasses.replace(one.blocks, **lists))
        return analysis.analyse(analysis.collect([changed])).other_load.to_dicts()[0]

    def test_has_what_disturbed_a_record(self) -> None:
        row = self.made(preempted=[7, 0, 0, 0, 1], stolen_seconds=[0.5, 0.0, 0.0, 0.05, 0.0])
        assert row["preempted_share"] == 0.25
        assert row["stolen_share"] == pytest.approx(0.05 / 0.5)
        assert row["disturbed_cost"] == pytest.approx(0.25)
        assert row["noise"] == 0.0

    def test_has_no_cost_where_all_blocks_were_disturbed_or_none(self) -> None:
        assert self.made(preempted=[0, 1, 1, 1, 1])["disturbed_cost"] is None
        assert self.made(preempted=[9, 0, 0, 0, 0])["disturbed_cost"] is None

    @pytest.mark.parametrize("lists", [{}, {"preempted": [None] * 5, "stolen_seconds": [None] * 5}])
    def test_is_empty_where_the_system_does_not_tell(self, lists: dict[str, Any]) -> None:
        row = self.made(**lists)
        assert [row[name] for name in ("preempted_share", "stolen_share", "disturbed_cost")] == [None] * 3

    def test_has_the_facts_of_slurm(self) -> None:
        slurm = {"node": "n1", "exclusive": True, "other_jobs": 0}
        one = planted(32, machine={**MACHINE, "load_1min": 2.5, "slurm": slurm})
        row = analysis.analyse(analysis.collect([one])).other_load.to_dicts()[0]
        facts = {name: row[name] for name in ("node", "exclusive", "other_jobs", "load_1min")}
        assert facts == {"node": "n1", "exclusive": True, "other_jobs": 0, "load_1min": 2.5}


class TestWords:
    def test_of_load_that_is_to_blame(self) -> None:
        found = dataclasses.replace(
            blamed(run(varied)),
            cost=0.18,
            cost_low=0.171,
            cost_high=0.195,
            other_median=0.7,
            other_max=1.45,
            floor=0.011,
            shared=2,
            other_jobs=1,
            disturbed_cost=0.013,
        )
        assert words.answer(found) == (
            "Other load slowed training: each processor that other programs kept busy, or that the host of this "
            "virtual machine took, cost 18 % of the throughput (95 % interval: 17 to 20 %)."
        )
        assert words.evidence(found) == [
            (
                "Other programs kept 0.700 of 2 processors busy (median; at most 1.45), in 36 records of 18 heats "
                "(cells that run together)."
            ),
            "The job shared its node with others in 2 of 36 records; at most 1 other job ran there.",
            "Moments in which training lost a processor change its mean step time by +1.3 % (median over records).",
            (
                "The same program differs by 1.1 % from run to run (the noise floor, from the spread between processes "
                "that did the same work)."
            ),
        ]

    def test_of_a_quiet_machine_are_one_line(self) -> None:
        found = dataclasses.replace(blamed(run(lambda random: 0.05, cost=0.0)), label="n1 (m1)")
        assert words.lines([found]) == [
            (
                "n1 (m1): other load did not slow training: other programs kept at most 0.050 of 2 processors busy, in "
                "36 records."
            )
        ]

    @pytest.mark.parametrize(
        ("records", "begins"),
        [
            (list(run(varied, cost=0.0)), "Other load did not slow training noticeably: with more of it, "),
            (
                list(run(varied, cost=0.0, spread=0.3, seeds=range(3))),
                "Whether other load slowed training cannot be told: with more of it, ",
            ),
            (
                list(run(varied, seeds=[0])),
                "Whether other load slowed training cannot be told: other programs ran, but ",
            ),
        ],
    )
    def test_of_all_else(self, records: list[Record], begins: str) -> None:
        assert words.answer(blamed(records)).startswith(begins)


class TestOnThePage:
    def test_the_question_is_answered_with_a_figure_and_a_table(self) -> None:
        html = page.render(view(list(run(varied, generator_seed=1))))
        assert "Did other programs slow training?" in html
        assert "Other load slowed training: " in html
        assert 'data-figure="other-load"' in html
        assert "What disturbed each record" in html
        values = json.loads(html.split('id="data">')[1].split("</script>")[0])["figures"]["other-load"]["spec"]["data"]
        assert len(values["values"]) == 36
        assert {"taken_processors", "relative_throughput", "target"} <= values["values"][0].keys()

    def test_a_quiet_machine_needs_no_figure(self) -> None:
        html = page.render(view(list(run(lambda random: 0.05, cost=0.0))))
        assert "Other load did not slow training: other programs kept at most" in html
        assert 'data-figure="other-load"' not in html

    def test_of_an_old_run_nothing_is_asked(self) -> None:
        assert "Did other programs slow training?" not in page.render(view([planted(32)]))

    def test_the_figure_is_one_of_the_pictures(self) -> None:
        found = analysis.analyse(analysis.collect(run(varied, generator_seed=1)))
        assert [one.name for one in charts.figures(found)][-1] == "other-load"


class TestSlope:
    """``slope_within_groups`` on simulated heats of lanes."""

    @staticmethod
    def simulated(
        random: np.random.Generator, groups: int, clusters: int, lanes: int, errors: str
    ) -> tuple[list[float], list[float], list[int], list[int]]:
        x, y, of_group, of_cluster = [], [], [], []
        for size in range(groups):
            for heat in range(clusters):
                load = float(random.exponential() if errors == "skewed load" else random.uniform())
                scale = 1 + 2 * load if errors == "grow with load" else 1.0
                shared = scale * random.normal()
                for lane in range(lanes):
                    x.append(load)
                    y.append(5.0 * lane + size - 0.05 * load + 0.01 * (shared + scale * random.normal()))
                    of_group.append(size * lanes + lane)
                    of_cluster.append(size * clusters + heat)
        return x, y, of_group, of_cluster

    @pytest.mark.parametrize("errors", ["alike", "grow with load", "skewed load"])
    @pytest.mark.parametrize(("groups", "clusters", "lanes"), [(5, 6, 2), (1, 10, 1), (1, 4, 2)])
    def test_coverage_is_that_of_the_docstring(self, groups: int, clusters: int, lanes: int, errors: str) -> None:
        random = np.random.default_rng(1)
        found = [slope_within_groups(*self.simulated(random, groups, clusters, lanes, errors)) for _ in range(400)]
        told = [one for one in found if one is not None]
        assert len(told) > 300
        assert sum(one.low <= -0.05 <= one.high for one in told) / len(told) > 0.925

    def test_is_that_of_least_squares_with_a_level_for_each_group(self) -> None:
        x, y, groups, clusters = self.simulated(np.random.default_rng(0), 3, 5, 2, "alike")
        design = np.column_stack([x, np.array(groups)[:, None] == np.arange(6)])
        expected = np.linalg.lstsq(design, np.array(y), rcond=None)[0][0]
        found = slope_within_groups(x, y, groups, clusters)
        assert found is not None
        assert found.estimate == pytest.approx(expected)

    def test_with_clusters_of_one_is_hc2_with_bell_and_mccaffrey_s_freedom(self) -> None:
        """Against the matrices of the paper, written out."""
        x, y, groups, clusters = self.simulated(np.random.default_rng(2), 2, 6, 1, "grow with load")
        design = np.column_stack([x, np.array(groups)[:, None] == np.arange(2)]).astype(float)
        inverse = np.linalg.inv(design.T @ design)
        left = np.eye(12) - design @ inverse @ design.T
        first = (inverse @ design.T)[0] / np.sqrt(np.diag(left))
        error = math.sqrt(float(np.sum((first * (left @ np.array(y))) ** 2)))
        matrix = np.diag(first) @ left @ np.diag(first)
        freedom = np.trace(matrix) ** 2 / np.trace(matrix @ matrix)
        from scipy.special import stdtrit

        found = slope_within_groups(x, y, groups, clusters)
        assert found is not None
        assert found.half_width == pytest.approx(error * float(stdtrit(freedom, 0.975)))

    def test_values_that_no_other_cluster_can_be_held_against_do_not_count(self) -> None:
        x, y, groups, clusters = self.simulated(np.random.default_rng(3), 2, 6, 1, "alike")
        more = slope_within_groups([*x, 9.0, 8.0], [*y, 70.0, 3.0], [*groups, 77, 78], [*clusters, 55, 55])
        assert more == slope_within_groups(x, y, groups, clusters)

    def test_there_is_none_without_variation_or_through_one_cluster_alone(self) -> None:
        assert slope_within_groups([1.0] * 4, [1.0, 2.0, 3.0, 4.0], [0] * 4, range(4)) is None
        assert slope_within_groups([0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0] * 4, range(4)) is None
        assert slope_within_groups([0.0, 1.0], [1.0, 2.0], [0, 0], [0, 1]) is None
        assert slope_within_groups([], [], [], []) is None

    def test_rows_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="expected as many of each"):
            slope_within_groups([1.0, 2.0], [1.0], [0, 0], [0, 1])
