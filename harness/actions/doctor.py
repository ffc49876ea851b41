"""``harness.doctor``: the machine, each target's state, what is missing and what mends it.

Targets that are named are put to the test as well: their worker starts, wakes its device and trains one step of a
small network there. A ready environment is no proof that its device works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from harness.actions import values
from harness.actions.progress import NEWS, tell
from harness.actions.shown import Shown
from harness.core.cell import Target
from harness.core.errors import CellError, StoreError
from harness.core.messages import Train
from harness.doctor import inspection, rules
from harness.doctor.rules import Diagnosis, Examined, Finding, Machine, Trial
from harness.measure import session
from harness.plan import own_file, targets
from harness.plan.targets import TargetDefinition
from harness.proof import probes
from harness.proof.probing import ProbeFolder, opened
from harness.report.printed import new_table, print_table, say
from harness.wording import megabytes, processors
from harness.workers.hosts import Hosts

if TYPE_CHECKING:
    import polars as pl

ANSWER_SECONDS = 300.0
"""Longest wait for one answer of a worker: a first start compiles kernels for a new GPU."""

STYLES = {
    "ready": "green",
    "buildable": "yellow",
    "no device": "red",
    "broken": "red",
    "problem": "red",
    "warning": "yellow",
}


@dataclass(frozen=True, repr=False)
class DoctorReport(Shown):
    """The machine, what is to be said of it, and the state of each target as it was written.

    ``was_named``: whether targets were named, rather than all of them looked at.
    """

    machine: Machine
    findings: tuple[Finding, ...]
    targets: Mapping[str, tuple[Examined, Diagnosis]]
    was_named: bool

    @property
    def is_ready(self) -> bool:
        """Whether every target is."""
        return all(diagnosis.state == "ready" for _, diagnosis in self.targets.values())

    @property
    def states(self) -> dict[str, str]:
        """Target -> ready, buildable, not here, no device, broken."""
        return {text: diagnosis.state for text, (_, diagnosis) in self.targets.items()}

    @property
    def table(self) -> pl.DataFrame:
        """A row for each target: its state, and what is missing and what mends it, in words."""
        import polars as pl

        rows = [
            {
                "target": text,
                "accelerator": examined.accelerator,
                "devices": rules.devices_seen(examined, self.machine),
                "environment": examined.environment,
                "state": diagnosis.state,
                "findings": [finding.text for finding in diagnosis.findings],
                "remedies": [finding.remedy for finding in diagnosis.findings if finding.remedy],
            }
            for text, (examined, diagnosis) in self.targets.items()
        ]
        texts = pl.List(pl.String)
        return pl.DataFrame(rows, schema_overrides={"findings": texts, "remedies": texts}, infer_schema_length=None)

    def print_to(self, console: Console) -> None:
        """The machine, the targets, and what mends them."""
        found = list(self.targets.values())
        _print(
            console, self.machine, self.findings, list(self.targets), [one for one, _ in found], [d for _, d in found]
        )

    def plain(self) -> dict[str, Any]:
        """Machine and targets, with all facts."""
        found = list(self.targets.values())
        return _plain(self.machine, self.findings, list(self.targets), [one for one, _ in found], [d for _, d in found])


def doctor(*names: str, quick: bool = False) -> DoctorReport:
    """Say what this machine has, which targets work on it, and what mends those that do not.

    Args:
        names: targets, as NAME[:MODE][@KEY=VALUE]; these are tried: their worker trains one step on their device. All
            if none is given, untried.
        quick: start no worker, judge named targets by what can be seen from outside.

    Raises ``harness.core.errors.UsageError`` for a target that is none.
    """
    definitions = own_file.target_definitions()
    texts = list(dict.fromkeys(values.texts(names))) or list(definitions)
    wanted = [targets.resolve(text, definitions) for text in texts]
    machine = inspection.look_at_machine()
    examined = {target.name: inspection.look_at_target(definitions[target.name]) for target in wanted}
    named = dict(zip(texts, wanted, strict=True))
    able = {text: target for text, target in named.items() if examined[target.name].environment == "ready"}
    trials = _tried(able, definitions) if names and not quick else {}
    found = {
        text: (examined[target.name], rules.diagnose(examined[target.name], machine, trials.get(text)))
        for text, target in named.items()
    }
    return DoctorReport(machine, tuple(rules.machine_findings(machine)), found, bool(names))


def _tried(named: Mapping[str, Target], definitions: Mapping[str, TargetDefinition]) -> dict[str, Trial]:
    """Each target as it was written -> what came of trying its device."""
    trials = {}
    with session.temporary_hosts(definitions, {}, "doctor", ANSWER_SECONDS, keeping=NEWS.keeping) as (pool, _, place):
        for text, target in named.items():
            tell(f"{text}: starting its worker")
            trials[text] = try_device(target, pool, place / "trial")
    return trials


def try_device(target: Target, pool: Hosts, folder: Path) -> Trial:
    """Have the target's worker train one step of a small network; ``folder`` is removed afterwards."""
    try:
        with (
            ProbeFolder(folder, probes.ties_probe("float32", target)) as files,
            opened(pool.worker(target), files.request, ANSWER_SECONDS, trained=True) as (worker, facts),
        ):
            worker.ask(Train(1), ANSWER_SECONDS)
    except CellError as error:
        return Trial(error.status, str(error))
    except StoreError as error:
        return Trial("crashed", str(error))
    return Trial("ok", device=facts)


def _print(
    console: Console,
    machine: Machine,
    about: Sequence[Finding],
    texts: Sequence[str],
    examined: Sequence[Examined],
    diagnoses: Sequence[Diagnosis],
) -> None:
    table = new_table("machine", "", prose=("",))
    for row in _machine_rows(machine):
        table.add_row(*row)
    print_table(table, console)
    say(console, "")
    tried = any(diagnosis.trial for diagnosis in diagnoses)
    headings = (
        "target",
        "accelerator",
        "devices",
        "environment",
        "state",
        *(("device that trained",) if tried else ()),
    )
    table = new_table(*headings, prose=("device that trained",))
    for text, facts, diagnosis in zip(texts, examined, diagnoses, strict=True):
        state = Text(diagnosis.state, STYLES.get(diagnosis.state, ""))
        place = [_where(diagnosis.trial)] if tried else []
        seen = rules.devices_seen(facts, machine)
        table.add_row(text, facts.accelerator, "-" if seen is None else str(seen), facts.environment, state, *place)
    print_table(table, console)
    findings = [*about, *(finding for diagnosis in diagnoses for finding in diagnosis.findings)]
    if findings:
        say(console, "")
    for finding in dict.fromkeys(findings):
        _say(console, finding)


def _say(console: Console, finding: Finding) -> None:
    line = Text()
    line.append(finding.severity, STYLES.get(finding.severity, ""))
    line.append(f": {finding.about}: {finding.text}" + (f" -> {finding.remedy}" if finding.remedy else ""))
    console.print(line, soft_wrap=True)


def _machine_rows(machine: Machine) -> list[tuple[str, str]]:
    facts, load, pace = machine.processor, machine.load, machine.pace
    cores = facts["logical_cores"]
    usable = facts["usable_cores"] or cores
    governor = f", governor {facts['governor']}" if facts["governor"] else ""
    untold, swap = load.get("untold") or {}, load["swap_used_bytes"]
    quota = facts.get("processor_quota")
    limit = f", {processors(quota)} by quota" if quota is not None else ""
    stolen = "" if pace.stolen is None else f"; {100 * pace.stolen:.1f} % of the time stolen"
    if pace.throttled:
        stolen += f"; held back by a quota for {100 * pace.throttled:.1f} % of the time"
    driver = f"NVIDIA driver {machine.driver}" if machine.driver else "no NVIDIA driver"
    gpus = "; ".join(f"{gpu.index}: {gpu.name}{_gibibytes(gpu.memory_bytes)}" for gpu in machine.gpus)
    wsl = f", WSL{machine.wsl}" if machine.wsl else ""
    length = f"{1000 * pace.block_seconds:.1f} ms"
    return [
        ("system", f"{facts['system']} {facts['release']}, {facts['architecture']}{wsl}"),
        ("processor", f"{facts['processor']}, {_cores(usable, cores)}{limit}{governor}"),
        ("load", _or_why("load_1min", untold, lambda: f"{load['load_1min']:.1f} (average of a minute)")),
        ("memory", _or_why("available_memory_bytes", untold, lambda: _memory(facts, load))),
        ("swap", _or_why("swap_used_bytes", untold, lambda: f"{_size(swap)} in use" if swap else "none in use")),
        ("cache", _cache(machine.cache)),
        ("GPU", f"{gpus} ({driver})" if gpus else driver),
        ("pace", f"neighbouring {length} of an empty loop differ by {100 * pace.apart:.1f} %{stolen}"),
    ]


def _cache(cache: rules.Cache | None) -> str:
    if cache is None:
        return "not looked at"
    free = "" if cache.free_bytes is None else f", {megabytes(cache.free_bytes)} free on its disk"
    return f"{cache.folder}, {megabytes(cache.bytes)}{free} (see harness cache)"


def _or_why(name: str, untold: Mapping[str, str], words: Callable[[], str]) -> str:
    """A fact in words, or why the system does not tell it."""
    return f"not told ({untold[name]})" if name in untold else words()


def _cores(usable: int | None, cores: int | None) -> str:
    if usable is None or cores is None:
        return "number of logical cores not told"
    return f"{usable} of {cores} logical cores usable"


def _memory(facts: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    total = "" if facts["memory_bytes"] is None else f"{_size(facts['memory_bytes'])}, "
    limit = facts.get("memory_limit_bytes")
    total += "" if limit is None else f"{_size(limit)} by a container's limit, "
    return f"{total}{_size(load['available_memory_bytes'])} available"


def _gibibytes(count: int | None) -> str:
    return "" if count is None else f", {_size(count)}"


def _size(count: int) -> str:
    return f"{count / rules.GIBIBYTE:.1f} GiB"


def _where(trial: Trial | None) -> str:
    """Which device did the step, by its name and the framework's."""
    if trial is None or trial.status != "ok":
        return ""
    names = [str(trial.device[key]) for key in ("adapter", "device_name") if trial.device.get(key)][:1]
    places = [str(place) for place in trial.device.get("loss_on") or ()]
    return ", ".join([*names, *(place for place in places if place not in names)])


def _plain(
    machine: Machine,
    about: Sequence[Finding],
    texts: Sequence[str],
    examined: Sequence[Examined],
    diagnoses: Sequence[Diagnosis],
) -> dict[str, Any]:
    facts = {examined_target.name: examined_target for examined_target in examined}
    return {
        "machine": {**asdict(machine), "findings": [asdict(finding) for finding in about]},
        "targets": [
            {
                "target": text,
                "name": diagnosis.target,
                "accelerator": facts[diagnosis.target].accelerator,
                "devices": rules.devices_seen(facts[diagnosis.target], machine),
                "state": diagnosis.state,
                "environment": facts[diagnosis.target].environment,
                "findings": [asdict(finding) for finding in diagnosis.findings],
                "trial": None if diagnosis.trial is None else asdict(diagnosis.trial),
            }
            for text, diagnosis in zip(texts, diagnoses, strict=True)
        ],
    }
