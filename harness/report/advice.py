"""The words for ``harness.analysis.Advice``: the answer in a sentence, what it rests on, and what to measure next."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.advice import NOTHING, THROUGHPUT, TO_ACCURACY, Advice, Choice, MemoryEnd, PlanLead
from harness.analysis.plans_to_accuracy import QUICKER
from harness.report.headline import DIVERGED, TRAITS, figure, not_proven, said_percent
from harness.report.same_work import NOT_PROVEN
from harness.wording import plural

_NAMED = 4
_INTERVAL = "95 % interval: "

_NOTABLY_LARGER = 1.1
"""Times a batch size, for another to be worth a measurement."""

_SAYS_NOTHING = 100
"""Times its lower end, from which on the upper end of an interval makes it no statement: its middle may be wrong by a
factor of ten either way."""

_ALIKE = "With 95 % confidence, the best choice is this one or one of these"
_BEHIND = "These were shown to be slower"
_RANGES = "Each end of such a range holds with 95 % confidence."


def heading(advice: Advice) -> str:
    """Which work the advice is for, and on which machine where the run has several."""
    said = [advice.label, *(TRAITS[name](advice.work) for name in ("model", "dataset", "optimizer", "precision"))]
    return ", ".join(text for text in said if text not in ("", "float32"))


def sentence(advice: Advice) -> str:
    """The answer."""
    return " ".join([_answer(advice), *map(_memory_end, advice.memory_ends)])


def _answer(advice: Advice) -> str:
    if advice.goal == NOTHING and advice.logical:
        return "There is no answer: only logical devices, which share the same processors, were timed."
    if advice.goal == NOTHING:
        why = "training diverged with every choice" if advice.diverged else "no cell was timed"
        return f"There is no answer: {why}."
    before = _not_reached(advice) if advice.goal == THROUGHPUT else ""
    choice = advice.choice
    if choice is None:
        best = "; ".join(f"{_at(one)}, {_amount(one, advice.goal)}" for one in advice.per_target)
        where = f" at reaching {said_percent(advice.accuracy)}" if advice.goal == TO_ACCURACY else ""
        return (
            f"{before}No target is recommended over another, because they cannot be compared. The best of each{where}: "
            f"{best}."
        )
    said = [f"{before}{_machine(advice)} {_first(advice, choice)}"]
    alone = advice.alike == (advice.next_best,)
    if advice.next_best is not None:
        which = "; these measurements cannot tell which of the two is better" if alone else ""
        said.append(f"The next best is {_at(advice.next_best)}, with {_amount(advice.next_best, advice.goal)}{which}.")
    if alone:
        return " ".join(said)
    if advice.alike:
        said.append(f"These measurements cannot tell whether the first is better than {_listed(advice.alike, ' or ')}.")
    elif advice.tested:
        some = advice.goal == TO_ACCURACY and bool(advice.not_reached)
        others = f"that reached {said_percent(advice.accuracy)}" if some else "that was measured"
        said.append(f"Every other choice {others} was shown to be slower.")
    return " ".join(said)


def _memory_end(end: MemoryEnd) -> str:
    why = f"{end.too_large:,} did not fit" if end.held is None else f"it holds {end.held:,} at most"
    return (
        f"On {end.target} memory, not speed, ends the range: batch size {end.largest:,} is the quickest and the "
        f"largest that ran, and {why}."
    )


def _first(advice: Advice, choice: Choice) -> str:
    if advice.goal == THROUGHPUT:
        ends = _ends(choice.images_per_second_low, choice.images_per_second_high, _INTERVAL)
        return f"{_at(choice)} trains fastest: {_amount(choice, advice.goal)}{ends}.{_untold(advice, choice)}"
    ends = _ends(choice.low, choice.high, _INTERVAL)
    added = _compiling(choice)
    compiling = f", plus {added} s to compile" if added else ""
    return (
        f"use {_at(choice)}. It trains to {said_percent(advice.accuracy)} test accuracy in "
        f"{_amount(choice, advice.goal)}{ends}{compiling}.{_untold(advice, choice)}"
    )


def _untold(advice: Advice, choice: Choice) -> str:
    """A further sentence, with what would tell, where the interval of the choice's figure says nothing."""
    if not _is_wide(advice, choice):
        return ""
    values = plural(choice.seeds, "seed") if advice.goal == TO_ACCURACY else plural(choice.processes, "process")
    return (
        f" How near other runs come to that cannot be told from {values}, which differ too much; more seeds would "
        f"tell: --seed {_more_seeds(advice)}."
    )


def _is_wide(advice: Advice, choice: Choice) -> bool:
    if advice.goal == TO_ACCURACY:
        return _says_nothing(choice.low, choice.high)
    return _says_nothing(choice.images_per_second_low, choice.images_per_second_high)


def evidence(advice: Advice) -> list[str]:
    """What each clause of the sentence rests on, a line each."""
    found = list(_of_choice(advice)) if advice.choice is not None else []
    if advice.plan is not None:
        found.append(_of_plan(advice, advice.plan))
    found += [f"The targets cannot be compared: {obstacle}." for obstacle in advice.obstacles]
    if advice.not_reached and advice.goal == TO_ACCURACY:
        places = [f"{target} at batch size {size}" for target, size in advice.not_reached]
        found.append(f"These did not reach {said_percent(advice.accuracy)} with every seed: {_shortened(places)}.")
    if advice.diverged:
        places = [f"{target} at batch size {size}" for target, size in advice.diverged]
        found.append(f"These {DIVERGED}, so they are never recommended: {_shortened(places)}.")
    if advice.unsized:
        places = [f"{target} at batch size {size}" for target, size in advice.unsized]
        found.append(f"These are {NOT_PROVEN}, so they are never recommended: {_shortened(places)}.")
    if advice.unproven:
        found.append(not_proven(advice.unproven))
    if advice.failed:
        found.append(f"{plural(advice.failed, 'cell')} did not finish; 'harness report' gives the reasons.")
    return found


def measure_next(advice: Advice) -> list[str]:
    """What the data cannot tell, and the flags of a sweep (or of this command) that would."""
    found = []
    choice = advice.choice
    if advice.diverged:
        found.append(f"a --learning-rate smaller than {advice.work['learning_rate']:g}, with which training diverged")
    if advice.goal == THROUGHPUT and advice.highest is not None:
        lower = math.floor(100 * advice.highest[3] + 1e-9) / 100
        less = f"; or ask for less: --accuracy {lower:g}" if 0 < lower < advice.accuracy else ""
        found.append(
            f"more --epochs than {advice.most_epochs}, a smaller --batch-size or another --learning-rate, to reach "
            f"{said_percent(advice.accuracy)}{less}"
        )
    elif advice.goal == THROUGHPUT:
        found.append("training for a whole epoch: accuracy is measured after each epoch, and none was finished")
    seeds = _more_seeds(advice)
    if choice is not None and not advice.tested and advice.next_best is not None:
        once = "with 1 seed" if len(advice.seeds) == 1 else "for a choice that was trained once"
        found.append(f"--seed {seeds}: {once} no difference can be told from chance")
    bounded = [one for one in advice.alike if one.ratio_low is None and one.ratio_high is not None]
    unclear = [one for one in advice.alike if one not in bounded]
    if unclear:
        found.append(f"--seed {seeds}: more seeds may tell whether it is better than {_listed(unclear, ' or ')}")
    elif choice is not None and _is_wide(advice, choice):
        found.append(f"--seed {seeds}: so few seeds differ too much to tell how long it takes")
    if choice is not None and (choice.at_most or bounded):
        by = "" if choice.at_most else f" by {_listed(bounded, ' and ')}"
        found.append(
            f"a higher --accuracy, or fewer --train-examples: {said_percent(advice.accuracy)} was reached within "
            f"the first epoch{by}, so the time is an upper bound"
        )
    size = 0 if choice is None else choice.batch_size
    if choice is not None and size == advice.sizes[-1] and 2 * size <= advice.work["train_examples"]:
        found.append(
            f"--batch-size {2 * size}: the best batch size is the largest one measured, so a larger one may be better"
        )
    elif choice is not None and size == advice.sizes[0] and size > 1:
        found.append(
            f"--batch-size {size // 2}: the best batch size is the smallest one measured, so a smaller one may be "
            "better"
        )
    ends = {end.target: end for end in advice.memory_ends}
    end = None if choice is None else ends.get(choice.target)
    if end is not None and end.held is not None and end.held >= _NOTABLY_LARGER * end.largest:
        found.append(f"--batch-size {end.held}: the most that memory holds, as the largest that ran was the quickest")
    if advice.untried is not None and advice.goal == THROUGHPUT and (end is None or advice.untried[0] < end.too_large):
        size, speed = advice.untried
        found.append(f"--batch-size {size}: it is predicted to train {figure(speed)} images per second")
    if len(advice.targets) == 1:
        found.append("--target with a second target: only one was measured")
    if advice.obstacles:
        found.append("the targets again, in one sweep, without the differences that keep them from being compared")
    return list(dict.fromkeys(found))


def _of_choice(advice: Advice) -> list[str]:
    choice = advice.choice
    assert choice is not None
    pace = f"{figure(choice.images_per_second)} images per second" if choice.images_per_second else "at an unknown pace"
    ends = _ends(choice.images_per_second_low, choice.images_per_second_high)
    found = []
    if advice.goal == TO_ACCURACY and choice.steps is not None:
        bound = "at most " if choice.at_most else ""
        found.append(
            f"{_at(choice)} needs {bound}{choice.steps:,.0f} steps ({_epochs(choice.epochs)}) to reach "
            f"{said_percent(advice.accuracy)}{_of_seeds(choice.seeds)}. It trains {pace}{ends}, measured in "
            f"{plural(choice.processes, 'process')}."
        )
        if choice.measured:
            found.append("That is measured: its training ended there.")
        if choice.at_most:
            found.append("It was there when first tested, after one epoch, so steps and time are upper bounds.")
    else:
        found.append(f"{_at(choice)} trains {pace}{ends}, measured in {plural(choice.processes, 'process')}.")
    if advice.quicker_with_compile is not None:
        other = advice.quicker_with_compile
        found.append(
            f"If compiling counts too, {_at(other)} is there sooner: after {figure(other.seconds_with_compile)} s "
            f"instead of {figure(choice.seconds_with_compile)} s."
        )
    if advice.rival is not None:
        target, ratio, low, high, heats = advice.rival
        found.append(
            f"At batch size {choice.batch_size}, {target} trains {figure(ratio)} times as fast as {choice.target}"
            f"{_ends(low, high)}, measured in {plural(heats, 'heat')} (cells that run together) with both."
        )
    long = "as long" if advice.goal == TO_ACCURACY else "as long per image"
    groups = [f"{title}: {_against(group, long)}." for title, group in _groups(advice) if group]
    found += [*groups[:-1], f"{groups[-1]} {_RANGES}"] if groups else []
    if not advice.tested and advice.next_best is not None:
        found.append(
            "Whether this lead is more than chance was not tested: this choice, or every other one, was trained only "
            "once, so it is not known how much such runs differ."
        )
    return found


def _of_plan(advice: Advice, plan: PlanLead) -> str:
    seconds = f"{'at most ' if plan.at_most else ''}{figure(plan.seconds)} s"
    said = f"{plan.target} with the plan {plan.batch_plan} reached {said_percent(advice.accuracy)} in {seconds}"
    if plan.against_fixed == QUICKER:
        return f"{said}, and was shown to be quicker than every fixed batch size that did."
    why = ": with one seed no difference can be told from chance" if plan.seeds == 1 else ""
    return f"{said}, on average sooner; whether that is more than chance cannot be told from these measurements{why}."


def _not_reached(advice: Advice) -> str:
    if advice.highest is None:
        return "No accuracy was measured. "
    target, size, epochs, value = advice.highest
    return (
        f"No target reached {said_percent(advice.accuracy)} test accuracy with every seed; the highest was "
        f"{100 * value:.2f} %, by {target} at batch size {size} after {plural(epochs, 'epoch')}. "
    )


def _machine(advice: Advice) -> str:
    called = f"On {advice.label}" if advice.label else "On this machine"
    return f"{called} ({advice.machine})" if advice.machine else called


def _at(choice: Choice) -> str:
    return f"{choice.target} at batch size {choice.batch_size}"


def _amount(choice: Choice, goal: str) -> str:
    if goal == TO_ACCURACY:
        return f"{'at most ' if choice.at_most else ''}{figure(choice.seconds)} s"
    return f"{figure(choice.images_per_second)} images per second"


def _compiling(choice: Choice) -> str:
    if choice.seconds is None or choice.seconds_with_compile is None:
        return ""
    return figure(choice.seconds_with_compile - choice.seconds)


def _groups(advice: Advice) -> tuple[tuple[str, Sequence[Choice]], ...]:
    return (_ALIKE, advice.alike), (_BEHIND, advice.behind)


def _ends(low: float | None, high: float | None, said: str = "") -> str:
    is_said = low is not None and high is not None and not _says_nothing(low, high)
    return f" ({said}{figure(low)} to {figure(high)})" if is_said else ""


def _says_nothing(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and not high < _SAYS_NOTHING * low


def _epochs(count: float | None) -> str:
    text = f"{count or 0:.3g}"
    return f"{text} epoch" if text == "1" else f"{text} epochs"


def _of_seeds(seeds: int) -> str:
    return "; with one seed there is no interval" if seeds == 1 else f", on average over {seeds} seeds"


def _listed(choices: Sequence[Choice], last: str) -> str:
    return _shortened([_at(one) for one in choices], last=last)


def _against(choices: Sequence[Choice], long: str) -> str:
    return _shortened([f"{_at(one)} ({_times(one, long)})" for one in choices])


def _times(choice: Choice, long: str) -> str:
    if choice.ratio_high is None:
        return "trained once"
    if _says_nothing(choice.ratio_low, choice.ratio_high):
        return "how much longer cannot be told from so few runs"
    low = "at most" if choice.ratio_low is None else f"{figure(choice.ratio_low)} to"
    return f"takes {low} {figure(choice.ratio_high)} times {long}"


def _shortened(texts: Sequence[str], last: str = " and ") -> str:
    """``a, b and c``; of many the first few and how many more."""
    *others, end = [*texts[:_NAMED], f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else texts
    return f"{', '.join(others)}{last}{end}" if others else end


def _more_seeds(advice: Advice) -> str:
    return ",".join(str(seed) for seed in (*advice.seeds, *_further(advice.seeds, 2)))


def _further(seeds: Sequence[int], count: int) -> list[int]:
    first = max(seeds, default=-1) + 1
    return list(range(first, first + count))
