"""Words that several outputs share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def plural(count: int, noun: str) -> str:
    """``1 epoch``, ``2,000 epochs``, ``3 processes``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{ending}"


def call_too_long(at_once: int, steps: int, batch_size: int) -> str:
    """Why no epoch has a whole call."""
    return f"{at_once} steps per call are more than the {plural(steps, 'step')} of an epoch at batch size {batch_size}"


def evaluated_too_often(at_once: int, every: int) -> str:
    """Why there is no whole call between two evaluations."""
    return f"{at_once} steps per call are more than the {plural(every, 'step')} between two evaluations"


def megabytes(count: int) -> str:
    """``0.3 MB``, ``53 MB``, ``3.2 GB``: bytes as makers of disks count them."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 10e6 else f"{count / 1e6:.1f} MB"


def processors(amount: float) -> str:
    """``2 processors``, ``1 processor``, ``0.3 of a processor``, ``1.5 processors``."""
    if amount < 1:
        return f"{amount:.2g} of a processor"
    return plural(round(amount), "processor") if amount == round(amount) else f"{amount:.3g} processors"


def machine_name(machine: str, node: str = "") -> str:
    """What a machine is called where there are several: by its node's name in a cluster, and its id."""
    if not machine:
        return "no machine known"
    return f"{node} ({machine})" if node else f"machine {machine}"


def machine_words(facts: Mapping[str, Any], *, whole: bool = False) -> str:
    """What a machine is, from its part of a record: processor, cores, GPU.

    ``whole``: also memory, the GPU's driver, the system, and in a cluster its node and partition.
    """
    return ", ".join(part for part in _machine_parts(facts, whole) if part)


def _machine_parts(facts: Mapping[str, Any], whole: bool) -> Iterator[str]:
    cores = facts.get("usable_cores") or facts.get("logical_cores")
    memory = min((facts[key] for key in ("memory_bytes", "memory_limit_bytes") if facts.get(key)), default=None)
    gpu, slurm = facts.get("gpu") or {}, facts.get("slurm") or {}
    yield str(facts.get("processor") or "processor not known")
    quota = facts.get("processor_quota")
    limit = f" ({processors(quota)} by quota)" if cores and quota and quota < cores else ""
    yield f"{plural(cores, 'logical core')}{limit}" if cores else ""
    yield f"{memory / 1e9:.1f} GB" if memory and whole else ""
    driver = f" (driver {gpu['driver']})" if gpu.get("driver") and whole else ""
    yield f"{gpu['name']}{driver}" if gpu.get("name") else ""
    if whole:
        yield str(facts.get("platform") or facts.get("system") or "")
        partition = f" of partition {slurm['partition']}" if slurm.get("partition") else ""
        yield f"node {slurm['node']}{partition}" if slurm.get("node") else ""


LONGEST_SHOWN = 60
"""Characters of a wrong value that an error shows."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed name closest to ``name``, or nothing if none is close."""
    close = _closest(name, allowed)
    return f" (did you mean {close!r}?)" if close else ""


def shown(value: Any) -> str:
    """A value as TOML would write it, on one line and cut where it is long."""
    text = _as_toml(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _closest(name: str, allowed: Iterable[str]) -> str:
    import difflib

    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in allowed}
    matches = difflib.get_close_matches(str(name).lower().replace("-", "_"), list(by_folded), n=1)
    return by_folded[matches[0]] if matches else ""


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_as_toml(item) for item in value) + "]"
    return repr(value) if isinstance(value, (str, int, float)) else str(value)
