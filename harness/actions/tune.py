"""``harness.tune``: what makes a target quickest on this machine, with the evidence, as a target to use from then on.

Three rounds of trials, each against the target as it is and a second copy of that, in turns: every single change once;
unions of those that gained; and the winner of these once more on fresh processes, since the best of many trials is
too good by chance. Only the last is reported as its gain.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.actions import heats, said, values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import RunStopped, Shown
from harness.actions.values import Place
from harness.analysis import comparison, tuning
from harness.analysis.comparison import Comparison, LaneKey
from harness.analysis.tuning import Gain
from harness.core import codec, system
from harness.core.cell import Cell, Target
from harness.core.errors import CellError, UsageError
from harness.core.model import ModelSpec
from harness.core.record import INTERRUPTED, now
from harness.machine import facts as machine_facts
from harness.measure import heat, series, session
from harness.measure.instruments import Instruments
from harness.measure.runner import Runner
from harness.paths import from_here
from harness.plan import own_file, targets, variants
from harness.plan.targets import TargetDefinition
from harness.plan.variants import Variant
from harness.report.printed import new_table, print_table, say
from harness.runs.folder import Run, default_folder
from harness.wording import plural

DEFAULT_BATCH_SIZES = (32, 128)
AT_ONCE = 3
"""Settings that are tried in one heat, beside the target twice: each is a process, and each makes rounds longer."""

SHARE_OF_SINGLE, SHARE_OF_UNIONS = 0.4, 0.6
"""Of a target's time, when trials of single changes and of unions end; the rest is for the winner."""

LEAST_OF_FINAL = 0.2
"""Of a target's time, what the winner gets however long the trials took: without it nothing is shown."""

MOST_UNIONS = 3
FILE = "tuned.toml"


@dataclass(frozen=True)
class Tuned:
    """What was found for one target. ``trials``: variant -> what it gained when it was tried first.

    ``winner``: the best of them, None where none gained. ``final``: the winner against the target as it is, measured
    afresh, one for each batch size. ``toml``: the winner as a target, empty where nothing better was found.
    ``untried``: variants that the time did not suffice for. ``problem``: why nothing could be tried.
    """

    target: str
    trials: Mapping[Variant, Gain]
    winner: Variant | None = None
    final: tuple[Comparison, ...] = ()
    toml: str = ""
    untried: tuple[Variant, ...] = ()
    problem: str = ""

    @property
    def is_better(self) -> bool:
        """Whether the winner was shown to be faster."""
        return tuning.is_better(self.final)


@dataclass(frozen=True, repr=False)
class TuningResult(Shown):
    """What was found for each target; ``folder`` has the records of all trials."""

    tuned: tuple[Tuned, ...]
    folder: Path

    @property
    def is_whole(self) -> bool:
        """Whether each target could be tried."""
        return not any(one.problem for one in self.tuned)

    @property
    def toml(self) -> str:
        """The targets to put into ``harness.toml``."""
        return "\n".join(one.toml for one in self.tuned if one.toml)

    def plain(self) -> dict[str, Any]:
        """Run folder and a dict for each target."""
        return {"run": str(self.folder), "targets": [_plain(one) for one in self.tuned]}

    def print_to(self, console: Console) -> None:
        """Of each target the trials, the winner measured afresh, and what to make of it."""
        for one in self.tuned:
            _print(one, console)
        if self.toml:
            say(console, f"To use it, put this into harness.toml (also in {from_here(self.folder / FILE)}):")
            console.print(self.toml, soft_wrap=True, markup=False, highlight=False)
        say(console, f"Run folder: {from_here(self.folder)}")


def tune(
    *names: str,
    batch_size: int | str | Iterable[int | str] = (),
    model: str | ModelSpec = "mnist-cnn",
    dataset: Place = "digits",
    optimizer: str = "momentum",
    compute_precision: str = "float32",
    precision: float | str = 0.02,
    budget: float | str = "20m",
    out: Place | None = None,
    data_dir: Place | None = None,
    timeout: float = 900.0,
    fork: bool = True,
) -> TuningResult:
    """Find variants with which targets train faster on this machine, and show by how much.

    Args:
        names: targets, as NAME[:MODE][@KEY=VALUE]; tensorflow-cpu and jax-cpu if none is given.
        batch_size: 32 and 128 if not given; a variant is judged by all of them together.
        model: a built-in one's name, a file that ends in .toml, or a ``harness.Model``.
        dataset: "mnist", "digits", or a file that ends in .npz.
        optimizer, compute_precision: how to train.
        precision: wanted half width of the winner's interval, a share of one.
        budget: most time for each target: seconds, or a text such as "90s", "10m", "1h".
        out: the run folder. A search that is there already resumes.
        data_dir: a folder with the four MNIST files.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that, other HarnessErrors for what cannot be had,
    and ``RunStopped``, a KeyboardInterrupt, where somebody stopped it: its ``result`` shows what was found.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    wait, goal = values.timeout(timeout), series.Goal(values.half_width(precision), values.seconds_of(budget))
    definitions = dict(own_file.target_definitions())
    wanted = list(
        dict.fromkeys(
            targets.resolve(values.text("tune", name), definitions) for name in names or session.DEFAULT_TARGETS
        )
    )
    works, dataset_folder = heats.asked(given, wanted[0], DEFAULT_BATCH_SIZES)
    folder = (values.place(out) or default_folder("tune")).absolute()
    search = _Search(folder, works, dataset_folder, wait, said.command(tune, given))
    stopped = False
    try:
        with search.opened(definitions, wanted, fork):
            for target in wanted:
                search.run(target, goal)
    except KeyboardInterrupt:
        stopped = True
    result = TuningResult(tuple(search.found.values()), folder)
    if result.toml:
        (folder / FILE).write_text(result.toml, encoding="utf-8")
    if stopped:
        raise RunStopped(result, said.resuming(tune, given, str(folder)))
    return result


class _Stage:
    """One round of trials, in a run folder of its own: each of ``tried`` beside the target twice, at each work."""

    def __init__(
        self, folder: Path, works: Sequence[Cell], base: Target, tried: Sequence[Target], command: str
    ) -> None:
        self._base = comparison.lane_keys([base, base], control=False)
        groups = [tried[start : start + AT_ONCE] for start in range(0, len(tried), AT_ONCE)]
        self._works = works
        self.heats = [
            [
                replace(work, target=lane.target, lane=lane.lane, repeat=number)
                for lane in (*self._base, *(LaneKey(target, 0) for target in group))
            ]
            for number, group in enumerate(groups)
            for work in works
        ]
        self.kept = heats.kept(folder, "tune", command, [cell for cells in self.heats for cell in cells])

    def trial(self, target: Target) -> Gain | None:
        """What was measured of a variant; None where it was not tried at every work."""
        lanes = [*self._base, LaneKey(target, 0)]
        of_target = [cells for cells in self.heats if any(cell.target == target for cell in cells)]
        wanted = [cell for cells in of_target for cell in cells if LaneKey(cell.target, cell.lane) in lanes]
        records = [record for cell in wanted if (record := self.kept.record(cell.cell_id)) is not None]
        if len(records) < len(wanted) or any(record.status == "interrupted" for record in records):
            return None
        return tuning.trial(comparison.compare(records, lanes))


class _Search:
    """The search of one call, target after target. ``works``: a cell for each batch size, whatever its target."""

    def __init__(self, folder: Path, works: Sequence[Cell], dataset: Path, timeout: float, command: str) -> None:
        self._folder = folder
        self._works = works
        self._dataset = dataset
        self._timeout = timeout
        self._command = command
        self._definitions: dict[str, TargetDefinition] = {}
        self.found: dict[Target, Tuned] = {}

    @contextmanager
    def opened(
        self, definitions: Mapping[str, TargetDefinition], wanted: Sequence[Target], fork: bool
    ) -> Iterator[None]:
        """Hosts, verifier and instruments for all trials."""
        problems = session.build_environments(definitions, wanted, NEWS)
        # The trials' own definitions are added to it as they are made.
        self._definitions = dict(session.with_reference(definitions, NEWS))
        scratch, logs = self._folder / "scratch", self._folder / "logs"
        pool, bundle = session.open_hosts(self._definitions, problems, scratch, logs, self._timeout, fork, NEWS.keeping)
        self._pool = pool
        self._verifier = session.open_verifier(
            self._definitions, pool, bundle.sha256, scratch, self._timeout, NEWS.keeping
        )
        limiter = session.open_limiter(bundle.sha256, scratch, self._timeout, NEWS.keeping)
        with pool, Instruments(limiter) as self._instruments, session.terminable():
            yield
        shutil.rmtree(scratch, ignore_errors=True)

    def run(self, target: Target, goal: series.Goal) -> None:
        """Search for one target; ``found`` has what is known so far. KeyboardInterrupt goes up."""
        began, place, label = time.monotonic(), self._folder / _slug(target.label), target.label
        self.found[target] = Tuned(label, {})
        try:
            able = self._pool.worker(target).ready.capabilities
            singles = variants.single(target, self._definitions[target.name], able, len(system.usable_processors()))
        except CellError as error:
            self._know(target, problem=str(error))
            return
        tell(f"{label}: trying {plural(len(singles), 'change')}, each alone")
        self._try(place / "single", target, singles, began + SHARE_OF_SINGLE * goal.budget)
        unions = variants.combined(tuning.better_half(self.found[target].trials), MOST_UNIONS)
        if unions:
            tell(f"{label}: trying {plural(len(unions), 'union')} of changes that gained")
            self._try(place / "unions", target, unions, began + SHARE_OF_UNIONS * goal.budget)
        for best in tuning.better_half(self.found[target].trials)[:1]:
            self._know(target, winner=best)
            tell(f"{label}: {best} gained most; measuring it afresh")
            left = max(began + goal.budget - time.monotonic(), LEAST_OF_FINAL * goal.budget)
            self._know(target, final=self._measured(place / "final", target, best, replace(goal, budget=left)))
            if self.found[target].is_better:
                self._know(target, toml=self._toml(self.found[target], target, best))

    def _know(self, target: Target, **told: Any) -> None:
        self.found[target] = replace(self.found[target], **told)

    def _try(self, folder: Path, target: Target, tried: Sequence[Variant], until: float) -> None:
        """One round of trials. What the time does not suffice for is left untried."""
        realised = self._realised(target, tried)
        if not realised:
            return
        stage = _Stage(folder, self._works, target, list(realised.values()), self._command)
        with stage.kept.locked():
            runner = self._runner(stage.kept)
            waiting = {cell.cell_id for cell in stage.kept.pending(INTERRUPTED)}
            for cells in stage.heats:
                left = [cell for cell in cells if cell.cell_id in waiting]
                if left and time.monotonic() < until:
                    runner.run(left)
                    self._learn(target, realised, stage)
        self._learn(target, realised, stage)
        untried = tuple(variant for variant in realised if variant not in self.found[target].trials)
        self._know(target, untried=(*self.found[target].untried, *untried))

    def _learn(self, target: Target, realised: Mapping[Variant, Target], stage: _Stage) -> None:
        """Take in and tell the trials that have ended."""
        for variant, at in realised.items():
            known = self.found[target].trials
            trial = None if variant in known else stage.trial(at)
            if trial is not None:
                tell(f"{target.label}, {variant}: {_gain(trial)}")
                self._know(target, trials={**known, variant: trial})

    def _measured(self, folder: Path, target: Target, variant: Variant, goal: series.Goal) -> tuple[Comparison, ...]:
        """The winner against the target on fresh processes, until that is as precise as wanted or the time is up."""
        (at,) = self._realised(target, [variant]).values()
        lanes = comparison.lane_keys([target, at])
        kept = heats.kept(folder, "tune", self._command, heats.repeated(self._works, lanes, series.MOST_REPEATS))
        with kept.locked():
            waiting = kept.pending(INTERRUPTED)
            if waiting:
                series.Series(kept, self._runner(kept), lanes, goal, heats.told).run(waiting)
        records = [record for record in kept.records() if record.status != "skipped"]
        return tuple(comparison.compare(records, lanes))

    def _runner(self, kept: Run) -> Runner:
        measure = heat.Measure(series.HEAT_SECONDS, self._folder / "scratch" / "programs")
        return Runner(
            kept,
            self._pool,
            self._verifier,
            self._dataset,
            self._timeout,
            heats.Quiet(),
            measure,
            self._instruments,
            self._folder / "scratch",
        )

    def _realised(self, target: Target, tried: Iterable[Variant]) -> dict[Variant, Target]:
        """Variant -> the target that it makes, where it makes one."""
        found = {}
        for variant in tried:
            name = f"{target.name}+{codec.digest(variant)[:4]}"
            try:
                definition, found[variant] = variants.realised(variant, target, self._definitions, name)
            except UsageError:
                continue
            self._definitions[definition.name] = definition
        return found

    def _toml(self, found: Tuned, target: Target, variant: Variant) -> str:
        evidence = [f"Found by 'harness tune {target.label}' on {now()[:10]}, {machine_facts.facts()['processor']}:"]
        for one in found.final:
            if one.speed is not None:
                evidence.append(f"at batch size {one.batch_size} {_times(*one.speed)}, {one.verdict}")
        return variants.as_toml(f"{target.name}-here", variant, target, evidence)


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", label)


def _gain(trial: Gain) -> str:
    if trial.gain is None:
        return trial.problem
    sizes = ", ".join(f"{ratio:.2f} at {size}" for size, ratio in sorted(trial.by_size.items()))
    return f"{trial.gain:.2f} times as fast ({sizes})"


def _times(ratio: float, low: float, high: float) -> str:
    return f"{ratio:.2f} times as fast ({low:.2f} to {high:.2f})"


def _plain(one: Tuned) -> dict[str, Any]:
    return {
        "target": one.target,
        "is_better": one.is_better,
        "winner": None if one.winner is None else dict(one.winner.changes),
        "trials": [{"setting": dict(variant.changes), **codec.to_json(found)} for variant, found in one.trials.items()],
        "untried": [dict(variant.changes) for variant in one.untried],
        "final": [comparison.to_plain(final) for final in one.final],
        "toml": one.toml,
        "problem": one.problem,
    }


def _print(one: Tuned, console: Console) -> None:
    if one.problem:
        say(console, f"FAILED {one.target}: {one.problem}")
        return
    if not (one.trials or one.untried):
        say(console, f"{one.target}: nothing of it can be set otherwise, so there is nothing to tune.")
        return
    sizes = sorted({size for found in one.trials.values() for size in found.by_size})
    numbers = ("all together", *(f"at {size}" for size in sizes))
    title = f"{one.target}: what each change makes of its speed (one short trial each)"
    table = new_table("change", *numbers, "", numbers=numbers, title=title)
    ranked = sorted(one.trials.items(), key=lambda item: -(item[1].gain or 0.0))
    for variant, found in ranked:
        ratios = [f"{found.by_size[size]:.2f}" if size in found.by_size else "" for size in sizes]
        table.add_row(str(variant), "" if found.gain is None else f"{found.gain:.2f}", *ratios, found.problem)
    print_table(table, console)
    if one.untried:
        say(console, f"Not tried, the time being over: {'; '.join(map(str, one.untried))}")
    if one.winner is None:
        say(console, f"{one.target}: nothing better found.")
        return
    verdict = "faster" if one.is_better else "not shown to be faster, so nothing better found"
    say(console, f"{one.target} with {one.winner}, measured afresh: {verdict}.")
    for final in one.final:
        told = "" if final.speed is None else f"{_times(*final.speed)}, "
        reasons = f" ({'; '.join(final.reasons)})" if final.reasons else ""
        say(console, f"  batch size {final.batch_size}: {told}{final.verdict}{reasons}")
