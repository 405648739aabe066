"""Figures of a training run: curves, rankings, ROCs, confusion, examples, residuals, and the gap to real images.

As in `lensray.inspection.figures`: each function returns a `matplotlib.figure.Figure`, titles state the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from lensray.inspection.composites import composite
from lensray.inspection.figures import (
    BAND_COLOURS,
    BLUE,
    GREEN,
    GREY,
    INK,
    NIGHT,
    ORANGE,
    VERMILION,
    number,
    powers,
    styled,
)
from lensray.inspection.training_records import Evaluation, PhaseRecord, Regression, share_at_top
from lensray.metrics.classification import RocCurve
from lensray.metrics.ranking import RankCurve

METRIC_NAMES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "ranking_performance": "ranking performance",
    "tpr10": "TPR10",
    "tpr0": "TPR0",
}
EXAMPLES = 8
_percent = FuncFormatter(lambda value, _: f"{value:g}")
_exponent = FuncFormatter(lambda value, _: f"{value:.3g}")
_nothing = NullFormatter()


def series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Epochs and values of a measure, where it is a finite number.

    >>> series([{"epoch": 1, "auroc": None}, {"epoch": 2, "auroc": 0.9}], "auroc")
    ([2], [0.9])
    """
    found = [
        (int(row.get("epoch", place)), float(row[key]))
        for place, row in enumerate(history, start=1)
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    return [epoch for epoch, _ in found], [value for _, value in found]


@styled
def curves_figure(phase: PhaseRecord) -> Figure:
    """Loss, metrics, learning rate and batch size of a phase, epoch by epoch."""
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    (loss, metrics), (rate, batch) = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    for key, label, colour in (("training_loss", "training", INK), ("validation_loss", "validation", BLUE)):
        _line(loss, phase.history, key, label, colour)
    errors = sorted({key for row in phase.history for key in row if key.startswith("rmse_")})
    names = {key: key.removeprefix("rmse_") for key in errors} or METRIC_NAMES
    for (key, label), colour in zip(names.items(), BAND_COLOURS * len(names), strict=False):
        _line(metrics, phase.history, key, label, colour)
    _line(rate, phase.history, "learning_rate", "", VERMILION, drawstyle="steps-mid")
    _line(batch, phase.history, "batch_size", "", GREY, drawstyle="steps-mid")
    loss.set(ylabel="Loss")
    metrics.set(ylabel="Root mean square error" if errors else "Validation set")
    if errors:
        metrics.set_yscale("log")
        metrics.yaxis.set_major_formatter(_exponent)
        metrics.yaxis.set_minor_formatter(_nothing)
    elif metrics.lines:
        metrics.set_ylim(0, 1.02)
    _decades(rate, series(phase.history, "learning_rate")[1])
    rate.set(xlabel="Epoch", ylabel="Learning rate")
    batch.set(xlabel="Epoch", ylabel="Batch size")
    batch.set_ylim(bottom=0)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set_title(phase.name)
    metrics.set_title(_best(phase.history) if metrics.lines else "No validation set")
    for axes, place in (
        (loss, {"loc": "upper right"}),
        (metrics, {"loc": "upper left", "bbox_to_anchor": (1, 1)}),
    ):
        if axes.lines:
            axes.legend(**place)
    return figure


def _line(
    axes: Axes, history: Sequence[Mapping[str, Any]], key: str, label: str, colour: str, **style: Any
) -> None:
    epochs, values = series(history, key)
    if epochs:
        marker = "o" if len(epochs) < 12 else None
        axes.plot(epochs, values, color=colour, label=label, marker=marker, ms=3.5, **style)


def _decades(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis over whole decades, so that a constant value has a label beside it too."""
    positive = [value for value in values if value > 0]
    if positive:
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        axes.set_yscale("log")
        axes.set_ylim(10.0**low / 1.5, 10.0 ** max(high, low + 1) * 1.5)
        axes.yaxis.set_major_formatter(powers)


def _best(history: Sequence[Mapping[str, Any]]) -> str:
    epochs, values = series(history, "auroc")
    if not values:
        return ""
    best = int(np.argmax(values))
    return f"Largest AUROC {number(values[best])}, epoch {epochs[best]}"


@styled
def rank_curves_figure(curves: Mapping[str, RankCurve], top_share: float) -> Figure:
    """Tracer rank curves of several scans, whole and with a logarithmic rank (Pourrahmani 2019, figure 2.5).

    Parameters
    ----------
    curves : mapping of str to RankCurve
        By the name of the phase.
    top_share : float
        Part of the ranking that is marked.
    """
    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    whole, top = figure.subplots(1, 2, sharey=True)
    smallest = min(100 / curve.n for curve in curves.values())
    for axes, ranks in ((whole, np.linspace(0, 100, 400)), (top, np.geomspace(smallest, 100, 400))):
        axes.plot(ranks, ranks, "--", color=GREY, lw=1.3, label="no discrimination")
        axes.axvline(100 * top_share, color=GREY, lw=1, ls=":")
        for (name, curve), colour in zip(curves.items(), BAND_COLOURS * len(curves), strict=False):
            rank = 100 * np.concatenate([[1], curve.depth, [curve.n]]) / curve.n
            recall = 100 * np.concatenate([[0], curve.recall, [1]])
            label = f"{name}, {share_at_top(curve, top_share):.0%}"
            axes.step(rank, recall, where="post", color=colour, label=label)
    whole.set(xlim=(-1, 100), ylim=(0, 102), xlabel="Rank (%)", ylabel="Recovered lenses (%)")
    top.set(xscale="log", xlim=(smallest, 100), xlabel="Rank (%), logarithmic")
    top.xaxis.set_major_formatter(_percent)
    whole.legend(loc="lower right")
    whole.set_title(f"Recovered; in the first {top_share:.0%}, beside the names")
    return figure


@styled
def roc_curves_figure(curves: Mapping[str, RocCurve]) -> Figure:
    """Several ROCs with a logarithmic axis of the false positive rate."""
    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = figure.subplots()
    left = min(1 / roc.n_negatives for roc in curves.values())
    rates = np.geomspace(left, 1, 200)
    axes.plot(rates, rates, "--", color=VERMILION, lw=1.3, label="no discrimination")
    for (name, roc), colour in zip(curves.items(), BAND_COLOURS * len(curves), strict=False):
        single = 1 / roc.n_negatives
        # Drawn from one false positive on, where its own sample resolves it.
        false = np.maximum(roc.false_positive_rate, single)
        axes.plot(false, roc.true_positive_rate, color=colour, label=name)
        axes.plot(
            [single], [roc.true_positive_rate[roc.false_positive_rate == 0].max()], "o", color=colour, ms=5
        )
    axes.set(xscale="log", xlim=(left / 1.3, 1), ylim=(0, 1.02))
    axes.set(xlabel="False positive rate (logarithmic)", ylabel="True positive rate")
    axes.xaxis.set_major_formatter(powers)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_title("ROC; dots at TPR0, before the first false positive of each sample")
    return figure


@styled
def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix as a picture (counts, and shares of each true class), beside the scores of both classes."""
    figure = Figure(figsize=(8.2, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    matrix = evaluation.matrix
    _matrix_picture(
        left,
        np.array(
            [
                [matrix.true_positives, matrix.false_negatives],
                [matrix.false_positives, matrix.true_negatives],
            ]
        ),
    )
    left.set_title(f"Accuracy {number(evaluation.values['accuracy'])}")
    lens = np.asarray(evaluation.is_lens, bool)
    for members, label, colour in ((lens, "lenses", BLUE), (~lens, "non-lenses", ORANGE)):
        counts, edges = np.histogram(
            np.clip(evaluation.scores[members], 0, 1), np.linspace(0, 1, 26 if len(lens) > 1000 else 13)
        )
        right.stairs(counts, edges, color=colour, lw=1.8, label=f"{members.sum():,} {label}")
        right.stairs(counts, edges, color=colour, alpha=0.2, fill=True)
    right.axvline(evaluation.threshold, ymax=0.87, color=INK, lw=1.3, ls="--", label="threshold")
    right.set(xlabel="Score", ylabel="Cutouts", xlim=(0, 1))
    right.set_ylim(0, 1.15 * right.dataLim.ymax)
    right.legend(loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.2)
    right.set_title(f"AUROC {evaluation.values['auroc']:.4f} ± {evaluation.auroc_error:.4f}")
    return figure


def _matrix_picture(axes: Axes, counts: np.ndarray) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > 0.55 else INK
        axes.text(
            column, row, f"{count:,}", ha="center", va="bottom", color=colour, fontsize=15, weight="bold"
        )
        axes.text(column, row + 0.08, f"{share:.1%}", ha="center", va="top", color=colour)
    axes.set_xticks([0, 1], ["lens", "non-lens"])
    axes.set_yticks([0, 1], ["lens", "non-lens"], rotation=90, va="center")
    axes.set(xlabel="Taken for", ylabel="Truth")
    axes.grid(visible=False)
    axes.tick_params(length=0)


def example_rows(evaluation: Evaluation, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Cutouts of each kind of answer: the worst mistakes, and correct answers drawn at random."""
    taken = evaluation.scores >= evaluation.threshold
    lens = np.asarray(evaluation.is_lens, bool)
    generator = np.random.default_rng(seed)
    falling = np.argsort(-evaluation.scores, kind="stable")
    worst_first = {"false positives": falling[(taken & ~lens)[falling]]}
    worst_first["false negatives"] = falling[::-1][(~taken & lens)[falling[::-1]]]
    return {
        "true positives": generator.permutation(np.flatnonzero(taken & lens))[:count],
        "false positives": worst_first["false positives"][:count],
        "false negatives": worst_first["false negatives"][:count],
        "true negatives": generator.permutation(np.flatnonzero(~taken & ~lens))[:count],
    }


@styled
def examples_figure(evaluation: Evaluation, count: int = EXAMPLES) -> Figure:
    """Pictures of true and false positives and negatives, with their scores.

    Raises
    ------
    ValueError
        If the evaluation has no images.
    """
    if evaluation.images is None:
        raise ValueError("examples are shown of an evaluation with images; this one has none")
    rows = example_rows(evaluation, count)
    figure = Figure(figsize=(8.2, 8.2 / count * len(rows) * 1.33), facecolor=NIGHT)
    grid = figure.subplots(len(rows), count, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.935, wspace=0.06, hspace=0.28)
    for line, (name, members) in zip(grid, rows.items(), strict=True):
        for place, axes in enumerate(line):
            axes.set_axis_off()
            if place < len(members):
                picture = composite(evaluation.images[members[place]], evaluation.bands)
                axes.imshow(picture, origin="lower", interpolation="nearest")
                axes.text(
                    0.96, 0.04, f"{evaluation.scores[members[place]]:.3f}", transform=axes.transAxes, ha="right",
                    color="#e8ecf0", fontsize=6.5, bbox={"facecolor": NIGHT, "alpha": 0.6, "lw": 0, "pad": 1},
                )  # fmt: skip
        note = name if len(members) else f"{name}: none"
        line[0].text(0, 1.05, note, transform=line[0].transAxes, color="#e8ecf0", weight="bold", va="bottom")
    return figure


@styled
def residuals_figure(regression: Regression) -> Figure:
    """Predicted against true values with the 1:1 line, and the histogram of the residuals."""
    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    true, residual, values = regression.true, regression.predicted - regression.true, regression.values
    low, high = (float(f([f(true), f(regression.predicted)])) for f in (np.min, np.max))
    limits = [low, high] if high > low else [low - 0.5, low + 0.5]
    dense = len(true) > 500
    left.plot(
        true, regression.predicted, "." if dense else "o", color=BLUE, ms=2.5, alpha=0.35 if dense else 0.6
    )
    left.plot(limits, limits, "--", color=VERMILION, lw=1.3, label="1:1")
    centres, medians = _running_median(true, regression.predicted)
    left.plot(centres, medians, color=INK, label="running median")
    left.set(xlabel=f"True {regression.target}", ylabel="Predicted", xlim=limits, ylim=limits, aspect="equal")
    left.legend(loc="upper left")
    left.set_title(f"{len(true):,} cutouts, R² {values['r2']:.3f}")
    spread = max(5 * values["nmad"], 1e-12)
    edges = np.linspace(values["median"] - spread, values["median"] + spread, 41)
    right.hist(np.clip(residual, edges[0], edges[-1]), edges, color="#b8c4ce")
    right.axvline(0, color=VERMILION, lw=1.3, ls="--")
    right.axvline(values["bias"], color=INK, lw=1.5)
    right.set(xlabel="Predicted − true", ylabel="Cutouts")
    right.set_title(f"Bias {values['bias']:+.3g}, scatter {values['scatter']:.3g}")
    return figure


def _running_median(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians of both in groups of equal size, by x."""
    groups = np.array_split(np.argsort(x, kind="stable"), min(12, max(1, len(x) // 10)))
    return (np.array([np.median(values[g]) for g in groups]) for values in (x, y))  # type: ignore[return-value]


@styled
def gap_figure(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> Figure:
    """Metrics on simulated images beside those on real ones, model by model."""
    keys = {
        "auroc": "AUROC",
        "tpr10": "TPR10",
        "tpr0": "TPR0",
        "completeness": "completeness",
        "purity": "purity",
    }
    figure = Figure(figsize=(8.2, 0.5 + 2.5 * len(pairs)), layout="constrained")
    for axes, (simulated, real) in zip(figure.subplots(len(pairs), squeeze=False)[:, 0], pairs, strict=True):
        places = np.arange(len(keys))
        for shift, evaluation, colour in ((-0.2, simulated, GREEN), (0.2, real, ORANGE)):
            heights = np.array([evaluation.values[key] for key in keys])
            errors = np.array([evaluation.auroc_error, *[0.0] * (len(keys) - 1)])
            axes.bar(places + shift, np.nan_to_num(heights), 0.36, color=colour, label=evaluation.data)
            axes.errorbar(shift, heights[0], errors[0], color=INK, capsize=3, lw=1.2, capthick=1.2)
            for x, height, error in zip(places + shift, heights, errors, strict=True):
                text = f"{height:.3f}" if math.isfinite(height) else "none"
                axes.text(x, np.nan_to_num(height) + error + 0.015, text, ha="center", fontsize=8, color=INK)
        axes.set_xticks(places, list(keys.values()))
        axes.set(ylim=(0, 1.15))
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.set_title(
            f"{simulated.model}: AUROC {real.values['auroc'] - simulated.values['auroc']:+.3f} from simulated to real"
        )
    return figure
