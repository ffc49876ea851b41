"""``harness.sweep``: from what a person asked for to a run folder full of records.

In: a preset, a file or a ``harness.Sweep``, and what replaces its keys. Out: ``SweepResult``, which is a ``Report`` of
the run, or ``PlannedSweep`` where only the plan was asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from rich.console import Console

from harness import shells
from harness.actions import ending, said, slurm, values
from harness.actions.finding_rates import FoundRates
from harness.actions.largest_batch import HeldSizes
from harness.actions.plan_table import PlannedSweep
from harness.actions.progress import NEWS, RunProgress, tell
from harness.actions.report import Report
from harness.actions.shown import RunStopped
from harness.actions.slurm import Submitted
from harness.actions.values import Place
from harness.analysis import journal
from harness.cluster.options import places
from harness.cluster.ray import following as ray_following
from harness.cluster.ray import options as ray_options
from harness.cluster.ray.following import OnRay
from harness.core import record
from harness.core.cell import Cell, Dataset
from harness.core.errors import UsageError
from harness.core.model import ModelSpec
from harness.core.record import now
from harness.measure import session
from harness.paths import OWN_FILE, SPEEDS_FILE, cache_place, from_here
from harness.plan import own_file, shards
from harness.plan.estimate import Estimates
from harness.plan.plan import difference
from harness.plan.prepare import UNFETCHED, PreparedSweep, launcher_tables, prepare, prepare_dataset
from harness.plan.sweep import SweepDefinition
from harness.runs import folder as run_folder
from harness.runs import rate_searches, setting
from harness.runs.folder import default_folder
from harness.runs.rate_searches import RateSearch
from harness.wording import plural

Options = Iterable[str] | Mapping[str, object]
"""KEY=VALUE, or a mapping that says the same."""

LAUNCHERS = ("local", "slurm", "ray")
LONGEST_TABLE_UNASKED = 1000
"""Rows. Of a larger run that was complete already only the command that shows it is printed: it reads every record."""


class SweepResult(Report):
    """A run that a sweep made or went on with.

    ``page``: where its page is, empty where there is none. ``submitted``: what went to Slurm, None for other launchers;
    the run is then under way, and ``harness.report`` shows what there is of it. ``was_complete``: nothing had to run.
    """

    def __init__(
        self, run: run_folder.Run, page: str = "", submitted: Submitted | None = None, was_complete: bool = False
    ) -> None:
        super().__init__(run)
        self.page = page
        self.submitted = submitted
        self.was_complete = was_complete

    @property
    def has_failed(self) -> bool:
        """Whether a cell failed; those that were skipped for a reason did not."""
        return ending.has_failed(self.run)

    @property
    def has_table(self) -> bool:
        """Whether it is printed as a table."""
        is_long = self.was_complete and len(self.run.plan.cells) > LONGEST_TABLE_UNASKED
        return self.submitted is None and not is_long

    def print_to(self, console: Console) -> None:
        """As ``harness sweep`` prints it: the table and where the page is, or what was submitted."""
        if self.submitted is not None:
            self.submitted.print_to(console)
            return
        if not self.has_table:
            folder = shells.quoted(from_here(self.folder))
            text = f"Nothing to run, every cell has its record. Show the table: harness report {folder}"
            console.print(text, soft_wrap=True)
            return
        super().print_to(console)
        if self.page:
            console.print(f"Its page: {from_here(Path(self.page))}", soft_wrap=True)

    def plain(self) -> Any:
        """A dict for each cell; of what was submitted how it stands."""
        return super().plain() if self.submitted is None else self.submitted.plain()

    def _repr_html_(self) -> str:
        return super()._repr_html_() if self.submitted is None else self.submitted._repr_html_()


@dataclass(frozen=True)
class _Wish:
    """What was asked for beside the sweep itself."""

    out: Path | None
    retry: bool
    launcher: str
    slurm: tuple[str, ...]
    ray: tuple[str, ...]
    live: bool
    shard: tuple[int, int]
    only: tuple[str, ...]
    timeout: float
    fork: bool

    @property
    def again(self) -> frozenset[str]:
        """Statuses of records that make way for another attempt."""
        return record.FAILED_TOO if self.retry else record.INTERRUPTED


@overload
def sweep(source: Place | SweepDefinition = ..., *, plan: Literal[True], **asked: Any) -> PlannedSweep: ...


@overload
def sweep(
    source: Place | SweepDefinition = ...,
    *,
    target: str | Iterable[str] = ...,
    batch_size: int | str | Iterable[int | str] = ...,
    batch_size_per_device: int | str | Iterable[int | str] = ...,
    cpus: int | str | Iterable[int | str] = ...,
    steps_per_call: int | str | Iterable[int | str] = ...,
    devices: int | str | Iterable[int | str] = ...,
    epochs: int | str | Iterable[int | str] = ...,
    until_accuracy: float | str | None = ...,
    max_epochs: int | str | None = ...,
    evaluate_every: int | str | None = ...,
    memory: int | str | None = ...,
    model: str | ModelSpec | Iterable[str | ModelSpec] = ...,
    dataset: Place | None = ...,
    seed: int | str | Iterable[int | str] = ...,
    optimizer: str | Iterable[str] = ...,
    learning_rate: float | str | Iterable[float | str] | Mapping[int, float] = ...,
    compute_precision: str | Iterable[str] = ...,
    scaling: str | None = ...,
    warmup_steps: int | str | None = ...,
    warmup_epochs: int | str | None = ...,
    decay: str | None = ...,
    decay_power: float | str | None = ...,
    decay_to: float | str | None = ...,
    weight_decay: float | str | None = ...,
    weight_decay_form: str | None = ...,
    clip_norm: float | str | None = ...,
    label_smoothing: float | str | None = ...,
    train_examples: int | str | None = ...,
    test_examples: int | str | None = ...,
    interleave: str | None = ...,
    data_dir: Place | None = ...,
    out: Place | None = ...,
    plan: Literal[False] = ...,
    live: bool = ...,
    retry: str | None = ...,
    launcher: str = ...,
    slurm: Options = ...,
    ray: Options = ...,
    shard: str | None = ...,
    only: Options = ...,
    timeout: float = ...,
    fork: bool = ...,
) -> SweepResult: ...


@overload
def sweep(source: Place | SweepDefinition = ..., *, plan: bool, **asked: Any) -> SweepResult | PlannedSweep: ...


def sweep(  # type: ignore[misc]  # the shorter overloads leave out the names of arguments
    source: Place | SweepDefinition = "quick",
    *,
    target: str | Iterable[str] = (),
    batch_size: int | str | Iterable[int | str] = (),
    batch_size_per_device: int | str | Iterable[int | str] = (),
    cpus: int | str | Iterable[int | str] = (),
    steps_per_call: int | str | Iterable[int | str] = (),
    devices: int | str | Iterable[int | str] = (),
    epochs: int | str | Iterable[int | str] = (),
    until_accuracy: float | str | None = None,
    max_epochs: int | str | None = None,
    evaluate_every: int | str | None = None,
    memory: int | str | None = None,
    model: str | ModelSpec | Iterable[str | ModelSpec] = (),
    dataset: Place | None = None,
    seed: int | str | Iterable[int | str] = (),
    optimizer: str | Iterable[str] = (),
    learning_rate: float | str | Iterable[float | str] | Mapping[int, float] = (),
    compute_precision: str | Iterable[str] = (),
    scaling: str | None = None,
    warmup_steps: int | str | None = None,
    warmup_epochs: int | str | None = None,
    decay: str | None = None,
    decay_power: float | str | None = None,
    decay_to: float | str | None = None,
    weight_decay: float | str | None = None,
    weight_decay_form: str | None = None,
    clip_norm: float | str | None = None,
    label_smoothing: float | str | None = None,
    train_examples: int | str | None = None,
    test_examples: int | str | None = None,
    interleave: str | None = None,
    data_dir: Place | None = None,
    out: Place | None = None,
    plan: bool = False,
    live: bool = False,
    retry: str | None = None,
    launcher: str = "local",
    slurm: Options = (),
    ray: Options = (),
    shard: str | None = None,
    only: Options = (),
    timeout: float = 900.0,
    fork: bool = True,
) -> SweepResult | PlannedSweep:
    """Train over batch sizes and targets. Each cell ends as a record in the run folder, whatever becomes of it.

    Args:
        source: a preset ("quick", "study", "batch"), a file that ends in .toml, or a ``harness.Sweep``. The arguments
            down to ``interleave`` replace its keys; each takes one value, and those in the plural sense several.
        target: NAME[:MODE][@KEY=VALUE], such as "jax-cpu" or "tensorflow-cpu:graph".
        batch_size, epochs, seed: whole numbers. A batch size may be a range, such as "32..4096", which doubles, or
            "32..max", as far as memory holds.
        memory: with that: what a worker on processors may take of main memory, such as "4GiB".
        until_accuracy, max_epochs: train until a test accuracy, such as 0.98, in place of ``epochs``; how many epochs
            that may take.
        evaluate_every: evaluate after so many training steps, too.
        cpus, steps_per_call: whole numbers too: processors per worker, training steps in one call of the framework.
        devices: whole numbers too: on how many devices each batch is split.
        batch_size_per_device: in place of ``batch_size``: that of each device, times their number.
        model: names of built-in models, files that end in .toml, ``harness.Model`` objects.
        dataset: "mnist", "digits", or a file that ends in .npz.
        optimizer, learning_rate, compute_precision, scaling: how to train. A mapping of batch sizes to learning rates,
            such as {32: 0.01, 512: 0.08}, gives each its own; "find" searches for them.
        warmup_steps, warmup_epochs, decay, decay_power, decay_to: how the rate grows at first, and falls over the run.
        weight_decay, weight_decay_form, clip_norm, label_smoothing: what becomes of the loss and its gradient.
        train_examples, test_examples: only the first so many images.
        interleave: how cells of equal work take turns: "block", "cell", "none".
        data_dir: a folder with the four MNIST files.
        out: the run folder. A run that is there already resumes; a new one in ./harness-runs if not given.
        plan: say what would run, and for how long; run nothing.
        live: serve the run's page on this machine while it goes.
        retry: "failed" runs failed cells of the run folder again.
        launcher, slurm, ray: where heats run ("local", "slurm", "ray"), and options of these as KEY=VALUE or a dict.
        shard, only: which part of the plan to run: "K/N", and KEY=VALUE,... of its cells, or a dict.
        timeout: the longest wait for one answer of a worker, in seconds.
        fork: one forked process per cell, where possible.

    Raises ``harness.core.errors.UsageError`` for what is wrong in all that, before anything runs; other HarnessErrors
    for what cannot be had (a dataset, a place to write, a cluster). What goes wrong with a cell is in its record.
    Raises ``RunStopped``, which is a KeyboardInterrupt, where somebody stopped it: what was measured is saved, and
    its ``result`` shows it.
    """
    given = {name: values.plain(value) for name, value in locals().items()}
    given |= {name: values.options(f"--{name}", given[name]) for name in ("slurm", "ray", "only")}
    if not isinstance(source, SweepDefinition):
        values.text("sweep", given["source"])
    own, names = _own_models(given["model"])
    overrides = {
        "target": values.several(given["target"]),
        "batch_size": values.several(given["batch_size"]),
        "batch_size_per_device": values.several(given["batch_size_per_device"]),
        "cpus": values.several(given["cpus"]),
        "steps_per_call": values.several(given["steps_per_call"]),
        "devices": values.several(given["devices"]),
        "epochs": values.several(given["epochs"]),
        **{key: given[key] for key in ("until_accuracy", "max_epochs", "evaluate_every")},
        "model": names,
        "dataset": given["dataset"],
        "seed": values.several(given["seed"]),
        "optimizer": values.several(given["optimizer"]),
        "learning_rate": values.several(given["learning_rate"]),
        "precision": values.several(given["compute_precision"]),
        **{key: given[key] for key in values.TRAINING_FLAGS},
        "train_examples": given["train_examples"],
        "test_examples": given["test_examples"],
        "interleave": interleave,
    }
    wish = _Wish(
        out=values.place(out),
        retry=values.one_of("--retry", retry, ("failed",)) is not None,
        launcher=values.one_of("--launcher", launcher, LAUNCHERS) or "local",
        slurm=given["slurm"],
        ray=given["ray"],
        live=live,
        shard=shards.shard(None if shard is None else values.text("--shard", shard)),
        only=given["only"],
        timeout=values.timeout(timeout),
        fork=fork,
    )
    _check(wish)
    only_known = plan or wish.launcher != "local" or wish.shard != (1, 1)
    rates = FoundRates(wish.out, only_known, wish.timeout, fork)
    prepared = prepare(
        given["source"],
        overrides,
        values.place(data_dir),
        own,
        NEWS,
        fetch=not plan,
        named=_as_planned_in(wish.out),
        find=rates.find,
        find_sizes=HeldSizes(memory, only_known, wish.timeout, fork).find,
    )
    return _Sweeping(prepared, wish, said.command(sweep, given), rates.searches).result(plan, given)


def _own_models(model: object) -> tuple[dict[str, ModelSpec], tuple[str, ...]]:
    """Models that are objects by their names, and all that were asked for by name."""
    asked = values.models(model)
    own = {one.name: one for one in asked if isinstance(one, ModelSpec)}
    return own, tuple(one.name if isinstance(one, ModelSpec) else one for one in asked)


def _check(wish: _Wish) -> None:
    """Flags that do not go together. Raises UsageError."""
    if wish.launcher == "slurm" and wish.live:
        raise UsageError(
            "--live: a page is served by the process that follows the sweep, not with --launcher slurm, which returns; "
            "'harness wait' writes it at the end"
        )
    if wish.launcher != "local" and wish.only:
        raise UsageError(
            f"--only: heats go to --launcher {wish.launcher} whole; --shard K/N parts a plan between machines or "
            "clusters, and targets that ask for other hardware have heats of their own anyway"
        )
    for launcher, given in (("slurm", wish.slurm), ("ray", wish.ray)):
        if given and wish.launcher != launcher:
            raise UsageError(f"--{launcher}: only with --launcher {launcher}")


def _as_planned_in(folder: Path | None) -> Callable[[Dataset], Dataset]:
    """Gives a dataset the name that a run has for the same bytes: names are part of what its cells are."""

    def named(dataset: Dataset) -> Dataset:
        if folder is None or not (folder / run_folder.PLAN_FILE).is_file():
            return dataset
        planned = {
            cell.dataset.name
            for cell in run_folder.Run.open(folder).plan.cells
            if cell.dataset.sha256 == dataset.sha256
        }
        return replace(dataset, name=min(planned, default=dataset.name))

    return named


class _Sweeping:
    """One sweep, from its plan to its result."""

    def __init__(self, prepared: PreparedSweep, wish: _Wish, command: str, searches: Sequence[RateSearch] = ()) -> None:
        self._prepared, self._wish, self._searches = prepared, wish, searches
        self._estimates = Estimates(cache_place(SPEEDS_FILE))
        self._of_slurm = slurm.options(prepared, wish.slurm) if wish.launcher == "slurm" else {}
        tables = launcher_tables(prepared, "ray") if wish.launcher == "ray" else []
        self._of_ray = ray_options.resolve(prepared.targets, tables, wish.ray) if tables else {}
        self.plan = run_folder.Plan(
            name=prepared.name,
            command=command,
            created=now(),
            harness_version=said.harness_version(),
            cells=prepared.cells,
            skips={planned.cell.cell_id: planned.skip for planned in prepared.planned if planned.skip},
            interleave=prepared.interleave,
            places=places(self._of_slurm or self._of_ray),
        )

    def result(self, only_planned: bool, given: Mapping[str, Any]) -> SweepResult | PlannedSweep:
        """Plan, and unless only that was asked, run or submit."""
        wish = self._wish
        if only_planned:
            part = shards.chosen(self.plan, wish.shard, wish.only)
            recorded = _recorded(wish.out)
            if self._prepared.dataset.sha256 != UNFETCHED:
                _tell_other_plan(wish.out, self.plan)
            return PlannedSweep(self.plan, self._prepared, self._estimates, recorded, part, self._of_slurm)
        if wish.launcher == "slurm":
            slurm.require(self._of_slurm)
        on_ray = ray_following.connect(self._of_ray) if self._of_ray else None
        kept = run_folder.Run.create(wish.out or default_folder(self._prepared.name), self.plan)
        journal.keep(kept)
        part = shards.chosen(kept.plan, wish.shard, wish.only)
        with kept.locked():
            setting.write(kept, self._setting)
            for search in self._searches:
                rate_searches.keep(kept.folder, search)
            waiting = [cell for cell in _waiting(kept, wish) if cell.cell_id in part]
            if wish.launcher == "slurm":
                made = slurm.submit(kept, waiting, self._prepared, self._of_slurm, wish.retry)
                return SweepResult(kept, submitted=made)
            stopped, elsewhere = self._executed(kept, waiting, on_ray)
            result = SweepResult(kept, was_complete=not waiting)
            result.page = ending.write_page(result) if waiting else ""
        if elsewhere:
            tell(f"{plural(elsewhere, 'heat')} left to other processes that run them")
        _tell_rest(kept, part)
        if stopped:
            raise RunStopped(result, said.resuming(sweep, given, str(kept.folder)))
        return result

    @cached_property
    def _setting(self) -> setting.Setting:
        prepared, wish = self._prepared, self._wish
        own = [(own_file.own_table("targets"), Path(OWN_FILE)), (prepared.own_targets, Path(prepared.source))]
        return setting.Setting(
            dataset=prepared.dataset_source,
            data_dir=str(prepared.data_dir.expanduser().absolute()) if prepared.data_dir else "",
            targets=tuple(setting.tables(tables, file) for tables, file in own if tables),
            timeout=wish.timeout,
            fork=wish.fork,
            images=prepared.images,
        )

    def _executed(self, kept: run_folder.Run, waiting: Sequence[Cell], on_ray: OnRay | None) -> tuple[bool, int]:
        """Run the cells that wait. Returns whether somebody stopped it, and how many heats others are running."""
        if not waiting:
            return False, 0
        with _watched(kept.folder) if self._wish.live else nullcontext():
            tell(f"{plural(len(waiting), 'cell')} to run, records in {from_here(kept.folder)}")
            if self._prepared.images is not None:
                tell(f"images of {self._prepared.dataset.name}: {self._prepared.images.words}")
            try:
                elsewhere = self._run_here(kept, waiting) if on_ray is None else self._run_on_ray(kept, waiting, on_ray)
            except KeyboardInterrupt:
                return True, 0
            finally:
                self._estimates.save(NEWS.keeping)
        shutil.rmtree(kept.scratch_folder, ignore_errors=True)
        return False, elsewhere

    def _run_here(self, kept: run_folder.Run, waiting: Sequence[Cell]) -> int:
        prepared, wish = self._prepared, self._wish
        dataset = prepare_dataset(prepared.dataset_source, prepared.data_dir, NEWS)
        conditions = session.Conditions(prepared.definitions, dataset.folder, wish.timeout, wish.fork, wish.again)
        expected = self._expected(kept, waiting)
        return session.run_cells(kept, waiting, conditions, NEWS, lambda: RunProgress(expected, self._estimates.learn))

    def _run_on_ray(self, kept: run_folder.Run, waiting: Sequence[Cell], on_ray: OnRay) -> int:
        """The cluster's machines say nothing of this one's speed, so nothing is learnt of them."""
        prepared = self._prepared
        prepare_dataset(prepared.dataset_source, prepared.data_dir, NEWS)
        due = ray_following.due(kept, waiting, on_ray, tell)
        session.build_environments(prepared.definitions, [cell.target for cell in waiting], NEWS)
        session.with_reference(prepared.definitions, NEWS)
        session.make_way(kept, waiting)
        with RunProgress(self._expected(kept, waiting)) as progress, session.terminable():
            return ray_following.follow(kept, waiting, due, on_ray, progress.finished, tell)

    def _expected(self, kept: run_folder.Run, waiting: Sequence[Cell]) -> dict[str, float]:
        """cell_id -> seconds."""
        return {
            cell.cell_id: 0.0 if cell.cell_id in kept.plan.skips else self._estimates.seconds(cell) for cell in waiting
        }


def _tell_rest(kept: run_folder.Run, part: frozenset[str]) -> None:
    """What this part of the plan leaves to others."""
    rest = len(kept.plan.cells) - len(part)
    if rest:
        tell(
            f"{plural(rest, 'cell')} of the plan {'is' if rest == 1 else 'are'} not of this part; unite the folders of "
            "all parts: harness merge RUN RUN ... --out FOLDER"
        )


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """The run's page is served meanwhile."""
    from harness.report import live

    with live.serving(folder) as address:
        tell(f"live page: {address}" if address else "warning: the live page could not be served")
        yield


def _tell_other_plan(folder: Path | None, plan: run_folder.Plan) -> None:
    """Say that a run folder holds another plan, and so cannot be that of this one."""
    if folder is None or not (folder / run_folder.PLAN_FILE).is_file():
        return
    differs = difference(run_folder.Run.open(folder).plan, plan)
    if differs:
        tell(f"warning: {folder} holds the run of another plan: {differs}; to run this one, choose another folder")


def _recorded(folder: Path | None) -> dict[str, str]:
    """The statuses of the cells that have their record already, where a run folder is named and there."""
    if folder is None or not (folder / run_folder.PLAN_FILE).is_file():
        return {}
    return run_folder.Run.open(folder).statuses()


def _waiting(kept: run_folder.Run, wish: _Wish) -> list[Cell]:
    """The cells to run: those without a record or with one to try again, but not those that the plan skips."""
    pending = kept.pending(wish.again)
    if not wish.retry:
        return pending
    planned_skips = {cell_id for cell_id in kept.statuses() if cell_id in kept.plan.skips}
    return [cell for cell in pending if cell.cell_id not in planned_skips]
