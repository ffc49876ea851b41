"""Records of heats to statements: who is faster at the same work, by how much, and whether that can be told.

Records go in, plain values come out. Times are compared within a heat, round by round, then over heats of fresh
processes (``harness.statistics``). Lanes of two runs, which never took turns, are ``harness.analysis.across_runs``'
affair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import statistics
from harness.analysis import manifest, statement
from harness.core.cell import Cell, Target
from harness.core.record import Record, SameWork
from harness.statistics import Interval
from harness.wording import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_COMPARABLE = "not comparable"
TOO_FEW_HEATS = "of fresh processes, and at least 2 are needed"
"""How the reason ends where too little was measured."""

IDLE_SHARE = 0.05
"""A waiting lane that uses more of a processor than this share of the time slows down whoever runs."""


@dataclass(frozen=True)
class LaneKey:
    """One lane of a comparison, over all its repeats: a target, and which of those with the same target."""

    target: Target
    lane: int

    @property
    def label(self) -> str:
        """As the person wrote it."""
        return self.target.label


@dataclass(frozen=True)
class LaneResult:
    """What one lane did at one kind of work.

    ``images_per_second``: over the medians of its processes; None without any. ``processes`` that finished;
    ``problem``: why others did not, empty if all did. ``statement``: which question it answers
    (``harness.analysis.statement``).
    """

    label: str
    images_per_second: float | None
    processes: int
    problem: str
    statement: str = statement.AS_INSTALLED


@dataclass(frozen=True)
class Comparison:
    """One lane against the first target at one kind of work.

    ``effects``: one log ratio of step times (lane / base) per heat. ``interval`` of their mean; None with fewer than
    two. ``floor``: what the control lane differed by, in log units; None without one. ``p_adjusted``: for all
    comparisons made together. ``rounds`` counted, ``dropped`` not.
    """

    work_id: str
    model: str
    dataset: str
    batch_size: int
    base: LaneResult
    lane: LaneResult
    effects: tuple[float, ...]
    control_effects: tuple[float, ...]
    interval: Interval | None
    floor: float | None
    p_adjusted: float
    verdict: str
    reasons: tuple[str, ...]
    processes: int
    rounds: int
    dropped: int
    differences: tuple[manifest.Difference, ...]

    @property
    def speed(self) -> tuple[float, float, float] | None:
        """Speed of the lane over that of the base: estimate, low, high."""
        if self.interval is None:
            return None
        estimate, low, high = self.interval.ratios()
        return 1 / estimate, 1 / high, 1 / low


def lane_keys(targets: Sequence[Target], control: bool = True) -> list[LaneKey]:
    """The lanes of a heat: the first target, its control, the others. Equal targets are numbered."""
    wanted = [targets[0], *([targets[0]] if control else []), *targets[1:]]
    return [LaneKey(target, wanted[:place].count(target)) for place, target in enumerate(wanted)]


def log_seconds(heat: Mapping[LaneKey, Record], lanes: Sequence[LaneKey]) -> NDArray[np.float64]:
    """Log seconds per step, (rounds, lanes), of one heat's records; NaN where a lane has no timed block.

    Rounds that a record counts as dropped are NaN throughout.
    """
    import numpy as np

    count = 1 + max((max(record.blocks.round, default=-1) for record in heat.values()), default=-1)
    found = np.full((count, len(lanes)), np.nan)
    for place, key in enumerate(lanes):
        if key not in heat:
            continue
        blocks = heat[key].blocks
        for number, kind, steps, seconds in zip(blocks.round, blocks.kind, blocks.steps, blocks.seconds, strict=True):
            if number >= 0 and kind == "train" and seconds > 0:
                found[number, place] = math.log(seconds / steps)
    for record in heat.values():
        for dropped in record.heat.dropped or {}:
            found[int(dropped)] = np.nan
    return found


def compare(records: Iterable[Record], lanes: Sequence[LaneKey]) -> list[Comparison]:
    """Each lane but the control against the first, per kind of work, in order of model and batch size.

    The control is the second lane if it has the first one's target. P-values are adjusted over all that is returned.
    """
    works: dict[str, dict[int, dict[LaneKey, Record]]] = {}
    cells: dict[str, Cell] = {}
    for record in records:
        cells.setdefault(record.work_id, record.cell)
        heat = works.setdefault(record.work_id, {}).setdefault(record.cell.repeat, {})
        heat[LaneKey(record.cell.target, record.cell.lane)] = record
    has_control = len(lanes) > 2 and lanes[1].target == lanes[0].target and lanes[1].lane == 1
    found = []
    for work_id in sorted(works, key=lambda one: (cells[one].model.name, cells[one].training.batch_size, one)):
        heats = [works[work_id][repeat] for repeat in sorted(works[work_id])]
        for key in lanes[2:] if has_control else lanes[1:]:
            found.append(_compare_one(cells[work_id], heats, lanes, key, has_control))
    return judged(found)


def _compare_one(
    cell: Cell, heats: Sequence[Mapping[LaneKey, Record]], lanes: Sequence[LaneKey], key: LaneKey, has_control: bool
) -> Comparison:
    base = lanes[0]
    effects, control_effects, rounds, dropped = [], [], 0, 0
    for heat in heats:
        if not all(counts(heat.get(lane)) and _shared(heat[lane]) for lane in (base, key)):
            continue
        bases = [base, *([lanes[1]] if has_control and counts(heat.get(lanes[1])) else [])]
        times, places = log_seconds(heat, [*bases, key]), range(len(bases))
        try:
            effects.append(statistics.process_effect(times, len(bases), places))
            if len(bases) == 2:
                control_effects.append(statistics.process_effect(times, 1, [0]))
        except ValueError:
            continue
        rounds += len(statistics.paired_contrast(times, len(bases), places))
        dropped += len(heat[base].heat.dropped or {})
    latest = [_latest(heats, lane) for lane in (base, key)]
    both = [record for record in latest if record is not None]
    enough = len(effects) >= 2
    return Comparison(
        work_id=cell.work_id,
        model=cell.model.name,
        dataset=cell.dataset.name,
        batch_size=cell.training.batch_size,
        base=_lane_result(base, heats),
        lane=_lane_result(key, heats),
        effects=tuple(effects),
        control_effects=tuple(control_effects),
        interval=statistics.sequential_interval(effects) if enough else None,
        floor=statistics.noise_floor(control_effects) if control_effects else None,
        p_adjusted=statistics.p_value(effects) if enough else math.nan,
        verdict="",
        reasons=tuple(_reasons(base, key, heats, both, len(effects), has_control and not control_effects)),
        processes=len(effects),
        rounds=rounds,
        dropped=dropped,
        differences=tuple(_differences(base, key, heats, both)),
    )


def _differences(
    base: LaneKey, key: LaneKey, heats: Sequence[Mapping[LaneKey, Record]], both: Sequence[Record]
) -> list[manifest.Difference]:
    """What differs in any heat, each key once, as the latest heat with that difference tells it."""
    pairs = [[heat[base], heat[key]] for heat in heats if counts(heat.get(base)) and counts(heat.get(key))]
    found: dict[str, manifest.Difference] = {}
    for pair in pairs or ([list(both)] if len(both) == 2 else []):
        found.update({difference.key: difference for difference in manifest.differences(pair)})
    return list(found.values())


def judged(found: list[Comparison]) -> list[Comparison]:
    """With p-values for all together (Holm), and the verdicts that follow."""
    adjusted = statistics.holm([one.p_adjusted for one in found])
    told = []
    for one, p in zip(found, adjusted, strict=True):
        if one.reasons or one.interval is None:
            verdict = NOT_COMPARABLE
        else:
            verdict = statistics.verdict(one.interval, p, one.floor or 0.0)
        told.append(replace(one, p_adjusted=p, verdict=verdict))
    return told


def overall(comparisons: Sequence[Comparison]) -> str:
    """One verdict over all kinds of work of one lane: what all agree on, or that it depends."""
    verdicts = [one.verdict for one in comparisons]
    told = set(verdicts) - {NOT_COMPARABLE}
    if not told:
        return NOT_COMPARABLE
    if len(told) == 1:
        return told.pop()
    if told == {"faster", "slower"} or len(told) == 3:
        return "faster or slower, depending on the batch size"
    one = (told - {"no difference found"}).pop()
    return f"{one} at some batch sizes, no difference found at the others"


def _reasons(
    base: LaneKey,
    key: LaneKey,
    heats: Sequence[Mapping[LaneKey, Record]],
    both: Sequence[Record],
    effects: int,
    no_floor: bool,
) -> list[str]:
    """Why there can be no verdict; empty if there can."""
    found = list(dict.fromkeys(manifest.obstacles(both))) if len(both) == 2 else []
    found += [
        f"{one.cell.target.label} is not proven at this batch size"
        for one in both
        if one.same_work != SameWork() and not one.same_work.steps
    ]
    for lane in (base, key):
        problem = _problem(lane, heats)
        if problem and not any(counts(heat.get(lane)) for heat in heats) and not any(problem in one for one in found):
            found.append(f"{lane.label}: {problem}")
    if found:
        return found
    alone = next(
        (
            heat[lane].heat.fallback
            for heat in heats
            for lane in (base, key)
            if lane in heat and not _shared(heat[lane])
        ),
        None,
    )
    if effects < 2:
        few = f"both ran in {plural(effects, 'heat')} {TOO_FEW_HEATS}"
        found.append(f"{alone}; {few}" if alone else few)
    elif no_floor:
        found.append(
            f"no second copy of {base.label} was timed, so it is not known how large a difference means nothing"
        )
    spinning = [lane.label for lane in (base, key) if _idles(lane, heats) > IDLE_SHARE]
    found += [
        f"{label} keeps a processor busy while it waits for its turn, which slows the others"
        for label in dict.fromkeys(spinning)
    ]
    return found


def _idles(lane: LaneKey, heats: Sequence[Mapping[LaneKey, Record]]) -> float:
    """Median share of the waiting time in which a lane used a processor."""
    shares = sorted(share for heat in heats if lane in heat and (share := heat[lane].heat.idle_share) is not None)
    return float(shares[len(shares) // 2]) if shares else 0.0


def _shared(record: Record) -> bool:
    return record.heat.interleave == "block"


def counts(record: Record | None) -> bool:
    """Whether a record's times are the work's: an interrupted one's are, as far as they go."""
    return record is not None and record.status in ("ok", "interrupted") and bool(record.blocks.seconds)


def _latest(heats: Sequence[Mapping[LaneKey, Record]], lane: LaneKey) -> Record | None:
    """The last record that was trained, or else the last of all."""
    found = [heat[lane] for heat in heats if lane in heat]
    trained = [record for record in found if counts(record)]
    return trained[-1] if trained else found[-1] if found else None


def _problem(lane: LaneKey, heats: Sequence[Mapping[LaneKey, Record]]) -> str:
    """Of the first that did not end well: its status and reason."""
    for heat in heats:
        record = heat.get(lane)
        if record is not None and record.status not in ("ok", "skipped"):
            return ending(record)
    return ""


def ending(record: Record) -> str:
    """How a record's cell ended, in words."""
    return f"{record.status.replace('_', ' ')}: {record.reason}"


def rate(batch_size: int, logs: Sequence[float]) -> float | None:
    """Images per second at the geometric mean of processes' step times, given as log seconds; None without any."""
    return batch_size / math.exp(sum(logs) / len(logs)) if logs else None


def _lane_result(lane: LaneKey, heats: Sequence[Mapping[LaneKey, Record]]) -> LaneResult:
    medians = [process_log_seconds(heat[lane]) for heat in heats if counts(heat.get(lane))]
    known = [value for value in medians if value is not None]
    size = next((heat[lane].cell.training.batch_size for heat in heats if lane in heat), 0)
    return LaneResult(lane.label, rate(size, known), len(known), _problem(lane, heats), statement.of(lane.target))


def process_log_seconds(record: Record) -> float | None:
    """Median log seconds per step of one process's timed blocks; None without one."""
    import numpy as np

    blocks = record.blocks
    values = [
        math.log(seconds / steps)
        for kind, steps, seconds in zip(blocks.kind, blocks.steps, blocks.seconds, strict=True)
        if kind == "train" and seconds > 0
    ]
    return float(np.median(values)) if values else None


def to_plain(one: Comparison) -> dict[str, Any]:
    """For a program: ratios of speeds, not logs."""
    return {
        "work_id": one.work_id,
        "model": one.model,
        "dataset": one.dataset,
        "batch_size": one.batch_size,
        "base": vars(one.base),
        "lane": vars(one.lane),
        "speed_ratio": one.speed[0] if one.speed else None,
        "speed_ratio_low": one.speed[1] if one.speed else None,
        "speed_ratio_high": one.speed[2] if one.speed else None,
        "noise_floor": math.exp(one.floor) if one.floor is not None else None,
        "p_adjusted": None if math.isnan(one.p_adjusted) else one.p_adjusted,
        "verdict": one.verdict,
        "reasons": list(one.reasons),
        "processes": one.processes,
        "rounds": one.rounds,
        "dropped_rounds": one.dropped,
        "log_time_effects": list(one.effects),
        "control_log_time_effects": list(one.control_effects),
        "differences": [vars(difference) for difference in one.differences],
    }
