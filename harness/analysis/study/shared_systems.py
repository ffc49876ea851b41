"""Claim 5: on a shared system the gain of larger batches vanishes, and other users' load is the reason."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import other_load
from harness.analysis.other_load import Blame
from harness.analysis.study.answers import FAILS, HOLDS, UNTOLD, ClaimAnswer, ClaimTable, listed
from harness.analysis.systems import System

_TELL = "harness sweep study --launcher slurm --batch-size 16,64,256,1024 --epochs 1 --seed 0,1,2,3,4,5"


def answers(system: System, gains: Sequence[ClaimAnswer]) -> list[ClaimAnswer]:
    """One for a system; ``gains``: its answers to claim 1.

    The gain remains where claim 1 holds for one of its targets: does not hold. It holds where the gain is excluded for
    all of them, and other load is shown to be to blame. Of a system that was not shared, or whose records do not tell
    of load, nothing can be told.
    """
    cells = system.collected.fixed().cells
    found = other_load.by_record(cells, system.collected.disturbances)
    blames = other_load.blame(cells, found, system.collected.machines)
    blame = blames[0] if blames else None
    if blame is None or blame.other_median is None:
        why = "The records do not tell of other users' load."
        return [ClaimAnswer(5, "", system.name, "", UNTOLD, why, would_tell=_TELL)]
    if blame.why == other_load.QUIET and not blame.shared:
        return [ClaimAnswer(5, "", system.name, "", UNTOLD, "This system was not shared.", would_tell=_TELL)]
    verdict = _verdict(blame, [one.verdict for one in gains])
    finding = f"{_load(blame)} {_gain(gains)}"
    rows = (
        ("records", blame.records),
        ("processors", blame.processors),
        ("processors busy with others, median", blame.other_median),
        ("processors busy with others, most", blame.other_max),
        ("records on a shared node", blame.shared),
        ("throughput lost for each such processor, %", _percent(blame.cost)),
        ("at least, %", _percent(blame.cost_low)),
        ("at most, %", _percent(blame.cost_high)),
    )
    evidence = ClaimTable("Other users' load, and what it cost", ("what", "value"), rows)
    seeds = cells["seed"].n_unique()
    tell = _TELL if verdict == UNTOLD else ""
    return [ClaimAnswer(5, "", system.name, "", verdict, finding, (evidence,), seeds, tell)]


def _verdict(blame: Blame, gains: Sequence[str]) -> str:
    if HOLDS in gains:
        return FAILS
    vanished = bool(gains) and set(gains) == {FAILS}
    if vanished and blame.verdict != other_load.CANNOT_BE_TOLD:
        return HOLDS if blame.verdict == other_load.TO_BLAME else FAILS
    return UNTOLD


def _load(blame: Blame) -> str:
    if blame.verdict == other_load.TO_BLAME:
        ends = f"{_percent(blame.cost_low)} to {_percent(blame.cost_high)} %"
        return f"Other load slows training: each processor of it costs {_percent(blame.cost)} % of the speed ({ends})."
    if blame.verdict == other_load.NOT_TO_BLAME:
        return "Other load does not slow training noticeably."
    return "Whether other load slows training cannot be told."


def _gain(gains: Sequence[ClaimAnswer]) -> str:
    told = dict.fromkeys(one.verdict for one in gains)
    if HOLDS in told:
        return (
            f"A larger batch still cuts training time ({listed(one.subject for one in gains if one.verdict == HOLDS)})."
        )
    if set(told) == {FAILS}:
        return "No larger batch cuts training time."
    return "Whether a larger batch cuts training time there cannot be told."


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)
