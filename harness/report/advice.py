"""The words for ``harness.analysis.Advice``: the answer in a sentence, what it rests on, and what to measure next."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.advice import NOTHING, THROUGHPUT, TO_ACCURACY, Advice, Choice
from harness.report.headline import DIVERGED, TRAITS, figure
from harness.wording import plural

_NAMED = 4

_ALIKE = "Not distinguishable from it: it or one of these is the best, with 95 % confidence"
_BEHIND = "Shown not to be the best"


def heading(advice: Advice) -> str:
    """Which work the advice is for, and on which machine where the run has several."""
    said = [advice.label, *(TRAITS[name](advice.work) for name in ("model", "dataset", "optimizer", "precision"))]
    return ", ".join(text for text in said if text not in ("", "float32"))


def percent(accuracy: float) -> str:
    """An accuracy as a person says it: 98 %, 97.5 %."""
    return f"{100 * accuracy:.6g} %"


def sentence(advice: Advice) -> str:
    """The answer."""
    if advice.goal == NOTHING:
        return f"There is no answer: {'every choice diverged' if advice.diverged else 'no cell was timed'}."
    before = _not_reached(advice) if advice.goal == THROUGHPUT else ""
    choice = advice.choice
    if choice is None:
        best = "; ".join(f"{_at(one)}: {_amount(one, advice.goal)}" for one in advice.per_target)
        where = f" to {percent(advice.accuracy)}" if advice.goal == TO_ACCURACY else ""
        return (
            f"{before}No target is recommended over another, as they cannot be compared. Best of each{where}: {best}."
        )
    text = f"{before}{_machine(advice)} "
    if advice.goal == TO_ACCURACY:
        seconds = f"{_amount(choice, advice.goal)}{_ends(choice.low, choice.high)}"
        text += f"use {_at(choice)}: {seconds} to {percent(advice.accuracy)}"
        added = _compiling(choice)
        text += f", and {added} s to compile" if added else ""
    else:
        ends = _ends(choice.images_per_second_low, choice.images_per_second_high)
        text += f"{_at(choice)} trains fastest: {_amount(choice, advice.goal)}{ends}"
    if advice.next_best is not None:
        text += f"; next best {_at(advice.next_best)}: {_amount(advice.next_best, advice.goal)}"
    if advice.alike:
        text += f"; not distinguishable from {_listed(advice.alike)}"
    elif advice.tested:
        some = advice.goal == TO_ACCURACY and bool(advice.not_reached)
        text += f"; shown to be the best of those that {'reached it' if some else 'were measured'}"
    return f"{text}."


def evidence(advice: Advice) -> list[str]:
    """What each clause of the sentence rests on, a line each."""
    found = list(_of_choice(advice)) if advice.choice is not None else []
    found += [f"The targets cannot be compared: {obstacle}." for obstacle in advice.obstacles]
    if advice.not_reached and advice.goal == TO_ACCURACY:
        places = [f"{target} at batch size {size}" for target, size in advice.not_reached]
        found.append(f"{percent(advice.accuracy)} was not reached with all seeds by {_shortened(places, ', ')}.")
    if advice.diverged:
        places = [f"{target} at batch size {size}" for target, size in advice.diverged]
        found.append(f"{DIVERGED}, so never recommended: {_shortened(places, ', ')}.")
    if advice.unproven:
        found.append(f"Not proven to do the reference's work: {plural(advice.unproven, 'cell')}.")
    if advice.failed:
        found.append(f"Did not finish: {plural(advice.failed, 'cell')}; harness report tells the reasons.")
    return found


def measure_next(advice: Advice) -> list[str]:
    """What the data cannot tell, and the flags of a sweep (or of this command) that would."""
    found = []
    choice = advice.choice
    if advice.diverged:
        found.append(f"a smaller --learning-rate where it diverged (here {advice.work['learning_rate']:g})")
    if advice.goal == THROUGHPUT and advice.highest is not None:
        lower = math.floor(100 * advice.highest[3] + 1e-9) / 100
        less = f"; or ask for less: --accuracy {lower:g}" if 0 < lower < advice.accuracy else ""
        found.append(
            f"more --epochs (most so far: {advice.most_epochs}), a smaller --batch-size or another --learning-rate to "
            f"reach {percent(advice.accuracy)}{less}"
        )
    elif advice.goal == THROUGHPUT:
        found.append("cells that finish an epoch: without an evaluation there is no accuracy")
    seeds = ",".join(str(seed) for seed in (*advice.seeds, *_further(advice.seeds, 2)))
    if choice is not None and not advice.tested and advice.next_best is not None:
        once = "with 1 seed" if len(advice.seeds) == 1 else "of a choice that was trained once"
        found.append(f"--seed {seeds}: {once} no difference can be told from chance")
    bounded = [one for one in advice.alike if one.ratio_low is None and one.ratio_high is not None]
    unclear = [one for one in advice.alike if one not in bounded]
    if unclear:
        found.append(f"--seed {seeds}: more seeds may tell it from {_listed(unclear)}")
    if choice is not None and (choice.at_most or bounded):
        by = "" if choice.at_most else f" by {_listed(bounded)}"
        found.append(
            f"a higher --accuracy, or fewer --train-examples: {percent(advice.accuracy)} was reached within the first "
            f"epoch{by}, so the time is an upper bound"
        )
    size = 0 if choice is None else choice.batch_size
    if choice is not None and size == advice.sizes[-1] and 2 * size <= advice.work["train_examples"]:
        found.append(f"--batch-size {2 * size}: the best batch size is the largest that was measured")
    elif choice is not None and size == advice.sizes[0] and size > 1:
        found.append(f"--batch-size {size // 2}: the best batch size is the smallest that was measured")
    if advice.untried is not None and advice.goal == THROUGHPUT:
        size, speed = advice.untried
        found.append(f"--batch-size {size}: its predicted pace is {figure(speed)} images per s")
    if len(advice.targets) == 1:
        found.append("--target with another target beside it: only one was measured")
    if advice.obstacles:
        found.append("the targets again, in one sweep, without what makes them differ")
    return list(dict.fromkeys(found))


def _of_choice(advice: Advice) -> list[str]:
    choice = advice.choice
    assert choice is not None
    pace = f"{figure(choice.images_per_second)} images per s" if choice.images_per_second else "a pace not known"
    ends = _ends(choice.images_per_second_low, choice.images_per_second_high)
    found = []
    if advice.goal == TO_ACCURACY and choice.steps is not None:
        bound = "at most " if choice.at_most else ""
        found.append(
            f"{percent(advice.accuracy)} takes {_at(choice)} {bound}{figure(choice.steps)} steps, "
            f"{figure(choice.epochs)} epochs ({_of_seeds(choice.seeds)}), at {pace}{ends} in "
            f"{plural(choice.processes, 'process')}."
        )
        if choice.at_most:
            found.append("It was there at the first evaluation: the time is an upper bound.")
    else:
        found.append(f"{_at(choice)} trains {pace}{ends}, {plural(choice.processes, 'process')}.")
    if advice.quicker_with_compile is not None:
        other = advice.quicker_with_compile
        found.append(
            f"Counted with compiling {_at(other)} is sooner there: {figure(other.seconds_with_compile)} s against "
            f"{figure(choice.seconds_with_compile)} s."
        )
    if advice.rival is not None:
        target, ratio, low, high, heats = advice.rival
        found.append(
            f"At batch size {choice.batch_size} {target} trains {figure(ratio)} times as fast as {choice.target}"
            f"{_ends(low, high)}, in {plural(heats, 'heat')} with both."
        )
    unit = "time" if advice.goal == TO_ACCURACY else "time per image"
    for title, group in ((_ALIKE, advice.alike), (_BEHIND, advice.behind)):
        if group:
            found.append(f"{title}, in times its {unit} (each end at 95 %): {_against(group)}.")
    if not advice.tested and advice.next_best is not None:
        found.append(
            "Nothing is tested: of it or of all others there is one seed (or process), so how far apart runs of one "
            "choice are is not known."
        )
    return found


def _not_reached(advice: Advice) -> str:
    if advice.highest is None:
        return "No accuracy was measured. "
    target, size, epochs, value = advice.highest
    return (
        f"No target reached {percent(advice.accuracy)} with all its seeds (highest: {100 * value:.2f} %, {target} at "
        f"batch size {size} after {plural(epochs, 'epoch')}). "
    )


def _machine(advice: Advice) -> str:
    called = f"On {advice.label}" if advice.label else "On this machine"
    return f"{called} ({advice.machine})" if advice.machine else called


def _at(choice: Choice) -> str:
    return f"{choice.target} at batch size {choice.batch_size}"


def _amount(choice: Choice, goal: str) -> str:
    if goal == TO_ACCURACY:
        return f"{'at most ' if choice.at_most else ''}{figure(choice.seconds)} s"
    return f"{figure(choice.images_per_second)} images per s"


def _compiling(choice: Choice) -> str:
    if choice.seconds is None or choice.seconds_with_compile is None:
        return ""
    return figure(choice.seconds_with_compile - choice.seconds)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({figure(low)} to {figure(high)})"


def _of_seeds(seeds: int) -> str:
    return "one seed, so no interval" if seeds == 1 else f"mean of {seeds} seeds"


def _listed(choices: Sequence[Choice]) -> str:
    return _shortened([_at(one) for one in choices], ", ")


def _against(choices: Sequence[Choice]) -> str:
    return _shortened([f"{_at(one)}: {_times(one)}" for one in choices], "; ")


def _times(choice: Choice) -> str:
    if choice.ratio_high is None:
        return "trained once"
    low = "at most" if choice.ratio_low is None else f"{figure(choice.ratio_low)} to"
    return f"{low} {figure(choice.ratio_high)}"


def _shortened(texts: Sequence[str], between: str) -> str:
    more = [f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return between.join([*texts[:_NAMED], *more])


def _further(seeds: Sequence[int], count: int) -> list[int]:
    first = max(seeds, default=-1) + 1
    return list(range(first, first + count))
