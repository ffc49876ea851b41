"""A run as a page: what it is made of is gathered here, ``harness.report.page`` makes it."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path

from harness import outputs
from harness.analysis.reading import Reading
from harness.cache.keeping import Keeping, mark_used
from harness.core import codec
from harness.core.errors import StoreError, UsageError
from harness.paths import PAGES, cache_place
from harness.plan.datasets.extent import Extent
from harness.proof import parity
from harness.report import advice, page
from harness.report.fairness import Proof
from harness.report.works import NoisePoint
from harness.runs import files, noise_scales, setting
from harness.runs import folder as run_folder

PAGE_FILE = "report.html"
"""In the run folder: the page that a sweep leaves."""

CHARTS = "vl-convert-python"


def view(reading: Reading, version: str = "") -> page.PageView:
    """Everything that the page shows; ``version`` for one that is served while its sweep runs."""
    run, plan = reading.run, reading.run.plan
    several, images = len(reading.found.advice) > 1, _images(run)
    return page.PageView(
        found=reading.found,
        name=plan.name,
        command=plan.command,
        created=plan.created,
        harness_version=plan.harness_version,
        folder=str(run.folder),
        planned=len(plan.cells),
        answers=tuple(
            page.Answer(
                advice.heading(one) if several else "",
                advice.sentence(one),
                tuple(advice.evidence(one)),
                tuple(advice.measure_next(one)),
            )
            for one in reading.found.advice
        ),
        bundle=_bundle(),
        lanes=reading.lanes,
        proofs=tuple(_proofs(run.proofs_folder)),
        unreadable=tuple(str(error) for error in reading.unreadable),
        noise=tuple(noise_points(run.folder)),
        version=version,
        images=images.words if images else "",
        doubt=images.doubt if images else "",
    )


def write(reading: Reading, path: Path) -> None:
    """Write the page where ``path`` points (``harness.outputs``). Raises HarnessError if it cannot be."""
    text = page.render(view(reading))
    with outputs.reader_may_leave():
        outputs.write(path, text)


def _images(run: run_folder.Run) -> Extent | None:
    """The range of the dataset's pixels, where the sweep kept it and it can be read."""
    try:
        return setting.read(run).images
    except (StoreError, UsageError):
        return None


def _bundle() -> str:
    """The scripts that draw, from the user's cache: putting them together takes seconds."""
    path = cache_place(PAGES) / charts_file()
    with contextlib.suppress(OSError):
        found = path.read_text(encoding="utf-8")
        mark_used(path)
        return found
    import vl_convert

    text: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    Keeping().keep(path, partial(codec.write_atomically, content=text))
    return text


def charts_file() -> str:
    """What the scripts that draw are called in the cache, as of the library that is installed."""
    return f"charts-{installed(CHARTS)}.js"


def _proofs(folder: Path) -> list[Proof]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            proof = files.read(path, parity.Proof)
        except StoreError as error:
            found.append(Proof("not readable", "", "", "", False, "", None, None, str(error)))
            continue
        closest = max(proof.quantities, key=lambda quantity: quantity.share, default=None)
        found.append(
            Proof(
                target=proof.target,
                model=proof.model,
                optimizer=proof.optimizer,
                precision=proof.precision,
                passed=proof.passed,
                quantity="" if closest is None else " ".join((closest.name, closest.detail)).strip(),
                error=None if closest is None else closest.error,
                tolerance=None if closest is None else closest.tolerance,
                reason=proof.reason,
            )
        )
    return found


def noise_points(folder: Path) -> list[NoisePoint]:
    """What ``harness noise-scale`` has measured, where it could; of a point measured again that with most batches."""
    best: dict[tuple[str, str, int], noise_scales.NoiseScale] = {}
    for one in sorted(noise_scales.stored(folder), key=lambda one: one.batches):
        best[one.work, one.target, one.step] = one
    return [
        NoisePoint(
            model=one.model,
            dataset=one.dataset,
            train_examples=one.train_examples,
            optimizer=one.optimizer,
            learning_rate=one.learning_rate,
            target=one.target,
            batch_size=one.trained_batch_size,
            epoch=one.epoch,
            images=one.estimate.noise_scale,
            low=one.estimate.low,
            high=one.estimate.high,
        )
        for one in best.values()
        if one.estimate is not None and one.estimate.noise_scale is not None
    ]
