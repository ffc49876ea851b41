"""Figures of how well and how soon: accuracy, time and steps to it, learning curves, gradient noise.

Each function takes a ``Work`` and gives its figure, or says why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.training import SCALINGS
from harness.report import vega
from harness.report.fields import header
from harness.report.figure import Absent, Figure, Words, diverged_note, only, present, several_sizes, told, why_no_curve
from harness.report.learning_rates import brought_back, in_words, named, sentences
from harness.report.learning_rates import rows as rate_rows
from harness.report.works import Work

if TYPE_CHECKING:
    import polars as pl

_NO_ACCURACY = "no training finished all its epochs with a known accuracy"
_REGIMES = (
    "The dotted line is perfect scaling: twice the batch size needs half the steps. Beyond it come diminishing "
    "returns, then maximal data parallelism, where larger batches save no steps (Shallue and others, 2019)."
)
_NOT_REACHED = "Hollow marks on the upper edge did not reach it in the epochs trained."


def accuracy(work: Work) -> Figure | Absent:
    """Final test accuracy against batch size, a curve per number of epochs: the study's second figure."""
    frame = work.accuracy_by_size
    title = "Accuracy: test accuracy in percent against batch size"
    sizes = several_sizes(frame, "accuracy")
    if not sizes:
        return Absent(title, why_no_curve(frame, "accuracy", _NO_ACCURACY))
    x, y = vega.sizes(sizes), vega.quantity("accuracy", "test accuracy, percent")
    looks = vega.look(work.targets, present(work, frame))
    epochs = sorted(frame["epochs"].unique())
    curve = _dashed(vega.line(x, y, looks), "epochs", epochs, _dashes(len(epochs)))
    columns = ("target", "epochs", "batch_size", "accuracy", "seeds", "not_finite")
    layers = [curve, *vega.intervals(frame, x, y, looks), vega.points(x, y, looks, vega.tooltip(*columns))]
    said = [
        f"After {count} {'epoch' if count == 1 else 'epochs'}: "
        + told(frame.filter(frame["epochs"] == count), "batch_size", "accuracy", "at batch size {}", " %")
        for count in epochs
    ]
    several = "The shorter the dashes of a line, the fewer its epochs. " if len(epochs) > 1 else ""
    diverged = diverged_note(frame, "not_finite")
    note = f"{several}{vega.intervals_note(frame, 'accuracy')} {diverged}".strip()
    chart = vega.chart(only(frame, columns), layers)
    return Figure("accuracy", Words(title, " ".join(said)), note, chart, frame, columns)


def time_to_accuracy(work: Work) -> Figure | Absent:
    """Training seconds to the accuracy looked at, against batch size."""
    return _to_accuracy(work, "time-to-accuracy", "seconds", "Time to {accuracy} % test accuracy: seconds", " s")


def steps_to_accuracy(work: Work) -> Figure | Absent:
    """Training steps to the accuracy looked at, against batch size, with the line of perfect scaling."""
    return _to_accuracy(work, "steps-to-accuracy", "steps", "Steps to {accuracy} % test accuracy", " steps")


def learning_by_epoch(work: Work) -> Figure | Absent:
    """Test accuracy after each epoch, at each target's best batch size."""
    return _learning(work, "learning-by-epoch", "epoch", "Learning: test accuracy in percent after each epoch")


def learning_by_time(work: Work) -> Figure | Absent:
    """The same against seconds of training."""
    title = "Learning: test accuracy in percent over seconds of training"
    return _learning(work, "learning-by-time", "seconds", title)


def noise_scale(work: Work) -> Figure | Absent:
    """The gradient noise scale over epochs: up to about so many images, larger batches save steps."""
    title = "Gradient noise scale: images, after epochs of training"
    frame = work.noise
    if frame.is_empty():
        return Absent(title, "it was not measured")
    x = vega.epochs()
    y = vega.magnitude(frame, "noise_scale", header("noise_scale"))
    looks = vega.look(work.targets, sorted(frame["target"].unique()))
    columns = ("target", "batch_size", "epoch", "noise_scale")
    curve = vega.line(x, y, looks)
    curve["encoding"]["detail"] = {"field": "batch_size", "type": "nominal"}
    layers = [curve, *vega.intervals(frame, x, y, looks), vega.points(x, y, looks, vega.tooltip(*columns))]
    words = Words(title, told(frame, "epoch", "noise_scale", "at epoch {}", " images"))
    note = "Up to about this batch size, doubling the batch about halves the steps (McCandlish and others, 2018)."
    note = f"{vega.intervals_note(frame, 'noise_scale')} {note}".strip()
    return Figure("noise-scale", words, note, vega.chart(frame, layers), frame, columns)


def learning_rates(work: Work) -> Figure | Absent:
    """The loss of held-out images against the learning rate, a line per batch size, where rates were searched for."""
    title = "Learning rates: loss of held-out training images"
    if not work.rates:
        return Absent(title, "they were given, not searched for")
    frame = rate_rows(work.rates)
    x = {**vega.magnitude(frame, "rate", header("rate")), "axis": {"format": "~g", "grid": False, "tickCount": 6}}
    y = vega.magnitude(frame, "held_out_loss", header("held_out_loss"))
    looks = vega.look(work.targets, sorted(frame["target"].unique()), mark=False)
    columns = ("target", "batch_size", "rate", "steps", "held_out_loss", "chosen")
    curve = vega.line(x, y, looks)
    curve["encoding"]["detail"] = {"field": "batch_size", "type": "nominal"}
    dots = vega.points(x, y, looks, vega.tooltip(*columns[:-1]), hollow=True)
    best: vega.Spec = {
        "transform": [{"filter": "datum.chosen"}],
        "encoding": {"x": x, "y": y, **looks},
    }
    layers = [
        curve,
        dots,
        {**best, "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1}},
        {
            **best,
            "mark": {"type": "text", "align": "left", "dx": 10, "dy": -4},
            "encoding": {"x": x, "y": y, "text": {"field": "batch_size"}},
        },
    ]
    note = (
        "A line is a batch size, whose number stands beside the rate that was chosen. Each rate is shown after its "
        "longest training; those that did worse were trained for less. "
    )
    said = " ".join(sentences(work.rates))
    return Figure("learning-rates", Words(title, said), note + said, vega.chart(frame, layers), frame, columns)


def beside_one_rate(work: Work) -> Figure | Absent:
    """Final test accuracy against batch size at a rate for each, beside that at one rate for all."""
    title = "Learning rates: test accuracy at a rate for each batch size, and at one for all"
    both = work.beside_one_rate
    if both.is_empty():
        return Absent(title, "no two works of this run differ in that alone")
    both = both.filter(both["epochs"] == both["epochs"].max())
    own = in_words(work.learning_rate, work.scaling)
    frame = _by_rates(both, own)
    kinds = [*(rates for rates in frame["rates"].unique(maintain_order=True) if rates != own), own]
    x, y = vega.sizes(sorted(frame["batch_size"].unique())), vega.quantity("accuracy", "test accuracy, percent")
    looks = vega.look(work.targets, present(work, frame))
    columns = ("target", "rates", "epochs", "batch_size", "accuracy", "seeds")
    curve = _dashed(vega.line(x, y, looks), "rates", kinds, _dashes(len(kinds)))
    layers = [curve, *vega.intervals(frame, x, y, looks), vega.points(x, y, looks, vega.tooltip(*columns))]
    said = " ".join(
        f"At {rates}: {told(frame.filter(frame['rates'] == rates), 'batch_size', 'accuracy', 'at batch size {}', ' %')}"
        for rates in kinds
    )
    rates_told = brought_back(both, named(work.learning_rate, work.scaling, work.rates))
    note = f"{vega.intervals_note(frame, 'accuracy')} {' '.join(rates_told)}".strip()
    return Figure("beside-one-rate", Words(title, said), note, vega.chart(frame, layers), frame, columns)


def _by_rates(both: pl.DataFrame, own: str) -> pl.DataFrame:
    """A row per target, batch size and learning rates: ``own``, and each one rate."""
    import polars as pl

    place = ("target", "epochs", "batch_size", "seeds")
    ends = ("", "_low", "_high")
    fitted = both.select(*place, pl.lit(own).alias("rates"), *(f"accuracy{end}" for end in ends))
    at_one = both.select(
        *place,
        pl.col("one_rate").map_elements(lambda rate: in_words(rate, "none"), pl.String).alias("rates"),
        *(pl.col(f"accuracy_at_one_rate{end}").alias(f"accuracy{end}") for end in ends),
    )
    return pl.concat([at_one, fitted]).unique(maintain_order=True)


def _dashed(curve: vega.Spec, field: str, values: Sequence[Any], dashes: Sequence[list[int]]) -> vega.Spec:
    """A line whose dashes tell the value of a field."""
    legend = {"title": header(field), "symbolType": "stroke", "symbolSize": 400, "labelLimit": 400}
    scale = {"domain": list(values), "range": list(dashes)}
    kind = "ordinal" if field == "epochs" else "nominal"
    dash = {"field": field, "type": kind, "scale": scale, "legend": legend if len(values) > 1 else None}
    return {**curve, "encoding": {**curve["encoding"], "strokeDash": dash}}


def _dashes(count: int) -> list[list[int]]:
    """Dashes for so many numbers of epochs, ascending: the most is drawn whole."""
    broken = [[2, 3], [6, 3], [10, 3, 2, 3], [14, 4]]
    return [*(broken[number % len(broken)] for number in range(count - 1)), [1, 0]]


def _to_accuracy(work: Work, name: str, field: str, title: str, unit: str) -> Figure | Absent:
    frame = work.time_to_accuracy
    plain = title.replace(" {accuracy} %", "")
    if frame.is_empty():
        return Absent(plain, "no accuracy was measured")
    if not several_sizes(frame, "batch_size"):
        return Absent(plain, why_no_curve(frame, "batch_size", _NO_ACCURACY))
    if not frame[field].count():
        return Absent(plain, f"no batch size reached {_list(work.accuracies)} %")
    sizes = sorted(frame["batch_size"].unique())
    x, y = vega.sizes(sizes), vega.magnitude(frame, field, header(field), by="accuracy")
    looks = vega.look(work.targets, present(work, frame))
    drawn = ("accuracy", "target", "batch_size", field, "reached", "seeds", *(["regime"] if field == "steps" else []))
    told_too = vega.tooltip(*drawn[1:])
    further = ("regime", "steps_slope") if field == "steps" else ("seconds_with_compile", "at_most", "highest_accuracy")
    columns = ("accuracy", "target", "batch_size", field, "reached", "seeds", "most_epochs", *further)
    diverged = diverged_note(frame)
    columns = (*columns, "diverged") if diverged else columns
    layers = [
        vega.line(x, y, looks),
        *vega.intervals(frame, x, y, looks),
        vega.points(x, y, looks, told_too),
        *vega.on_top_edge(frame, x, field, looks, told_too),
    ]
    missed = f" {_NOT_REACHED}" if frame[field].null_count() else ""
    missed += f" {diverged}" if diverged else ""
    if work.at_once:
        missed += f" All reached {_list(work.at_once)} % within their first epoch, so those are not on offer."
    note = f"Accuracy is tested after each epoch, so what was reached in the first one is an upper bound.{missed}"
    if field == "steps":
        layers.insert(0, vega.chosen_layer(_perfect(frame), _guide(x, y)))
        note = f"{_REGIMES} {_tuned(work)}{missed}"
    by_accuracy = {}
    for chosen in work.accuracies:
        own = frame.filter(frame["accuracy"] == chosen)
        said = told(own, "batch_size", field, "at batch size {}", unit) + _missed(own, field) + _regimes(own, field)
        by_accuracy[chosen] = Words(title.format(accuracy=f"{chosen:g}") + ", against batch size", said)
    spec = vega.chart(only(frame, drawn), layers, accuracy=work.accuracy)
    words = by_accuracy.get(work.accuracy, Words(title.format(accuracy=f"{work.accuracy:g}"), "Nothing to show."))
    return Figure(name, words, note, spec, frame, columns, by_accuracy)


def _tuned(work: Work) -> str:
    """Whether the regimes are those of rates that were tuned at each batch size, as the paper asks for."""
    paper = "They tune the learning rate at each batch size"
    if work.rates and work.scaling != "none":
        return f"{paper}, as was done here: each has the rate that was found for it."
    if work.scaling not in SCALINGS:
        return f"{paper}; here each has the rate that was written for it."
    rates = in_words(work.learning_rate, work.scaling)
    return f"{paper}; here it is {rates}, so a larger batch may have lacked a rate that fits it."


def _perfect(frame: pl.DataFrame) -> pl.DataFrame:
    """Of each accuracy, from its smallest batch size that reached it: steps that fall as batch sizes grow."""
    import polars as pl

    reached = frame.filter(pl.col("steps").is_not_null()).sort("batch_size", "steps")
    first = reached.group_by("accuracy", maintain_order=True).first().select("accuracy", "batch_size", "steps")
    most = frame["batch_size"].max()
    end = first.with_columns(
        pl.lit(most, pl.Int64).alias("batch_size"),
        (pl.col("steps") * pl.col("batch_size") / most).alias("steps"),
    )
    kinds = (pl.col("batch_size").cast(pl.Int64), pl.col("steps").cast(pl.Float64))
    return pl.concat([first.with_columns(kinds), end.with_columns(kinds)])


def _guide(x: vega.Spec, y: vega.Spec) -> vega.Spec:
    return {
        "mark": {"type": "line", "style": "guide", "strokeWidth": 1.5},
        "encoding": {"x": {**x, "field": "batch_size"}, "y": y},
    }


def _missed(frame: pl.DataFrame, field: str) -> str:
    missed = frame.filter(frame[field].is_null()).sort("target", "batch_size").select("target", "batch_size").rows()
    named = [f"{target} at batch size {size}" for target, size in missed[:6]]
    more = [f"{len(missed) - 6} more"] if len(missed) > 6 else []
    return f" These did not reach it: {', '.join(named + more)}." if missed else ""


def _regimes(frame: pl.DataFrame, field: str) -> str:
    if field != "steps":
        return ""
    known = frame.filter(frame["regime"] != "").sort("target", "batch_size").select("target", "batch_size", "regime")
    named = [f"{target} to batch size {size}: {regime}" for target, size, regime in known.rows()[:12]]
    return f" {'; '.join(named)}." if named else ""


def _learning(work: Work, name: str, field: str, title: str) -> Figure | Absent:
    frame = work.curves.filter(work.curves["test_accuracy"].is_not_null() & work.curves[field].is_not_null())
    if frame.is_empty():
        return Absent(title, "no accuracy after an epoch is known")
    if frame["epoch"].n_unique() < 2:
        return Absent(title, "training took one epoch only, which makes no curve")
    x = vega.epochs() if field == "epoch" else vega.quantity(field, "seconds of training", zero=True, place="x")
    y = vega.quantity("test_accuracy", "test accuracy, percent")
    looks = vega.look(work.targets, present(work, frame))
    plans = sorted(set(frame["batch_plan"]) - {""})
    size = "batch_plan" if plans else "batch_size"
    frame = frame.with_columns(batch_plan=_or_its_size(frame)) if plans else frame
    columns = ("target", size, "epoch", "seconds", "test_accuracy")
    curve = vega.line(x, y, looks, strokeWidth=1.6)
    curve["encoding"]["detail"] = {"field": "cell_id", "type": "nominal"}
    if plans:
        fixed = sorted(set(frame["batch_plan"]) - set(plans), key=int)
        curve = _dashed(curve, "batch_plan", [*fixed, *plans], _dashes(len(fixed) + len(plans))[::-1])
    layers = [curve, vega.points(x, y, looks, vega.tooltip(*columns))]
    best = frame.select("target", size).unique(maintain_order=True).rows()
    which = f"Each target at its best batch size{', and each plan of batch sizes' if plans else ''}"
    note = f"{which}: {', '.join(f'{target} at {size}' for target, size in best)}. Each line is one seed."
    diverged = diverged_note(frame)
    note = f"{note} {diverged}" if diverged else note
    values = frame.select(*columns, "cell_id")
    words = told(frame, field, "test_accuracy", "at epoch {}" if field == "epoch" else "after {} s", " %")
    return Figure(name, Words(title, words), note, vega.chart(values, layers), frame, columns)


def _or_its_size(frame: pl.DataFrame) -> pl.Series:
    """The plan, or the fixed batch size as a text."""
    import polars as pl

    plan = pl.when(pl.col("batch_plan") == "").then(pl.col("batch_size").cast(pl.String)).otherwise("batch_plan")
    return frame.select(plan.alias("batch_plan")).to_series()


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
