"""Figures of a scan, drawn with matplotlib's objects alone: no pyplot, no window, no global state.

Each function returns a `matplotlib.figure.Figure` whose title states the numbers; `png` renders it. Colours are
those of Okabe and Ito, which people with any kind of colour vision tell apart.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from lensray.metrics.classification import RocCurve
from lensray.metrics.ranking import RankCurve
from lensray.metrics.truth import ScoreHistogram

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7A828A"
BAND_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, NIGHT = "#1f2933", "#10141a"

_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
}

_Arguments = ParamSpec("_Arguments")
_thousands = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@FuncFormatter
def powers(value: float, _: int | None) -> str:
    """Powers of ten as text: mathematical markup is off, since titles hold names from outside."""
    exponent = f"{np.log10(value):.0f}".translate(_SUPERSCRIPTS) if value > 0 else ""
    return f"10{exponent}" if exponent else ""


def number(value: float | None) -> str:
    """A number for people: counts with separators, others with four decimals, more near 0 and 1.

    >>> number(19801), number(0.98765), number(0.999987), number(1.0), number(0.000102), number(None)
    ('19,801', '0.9877', '0.999987', '1.0000', '0.0001020', 'not measurable')
    """
    if value is None:
        return "not measurable"
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.001:
        return f"{value:#.4g}"
    return f"{value:.6f}" if 0.99995 <= value < 1 else f"{value:.4f}"


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """The figure drawn in LensRay's style, leaving matplotlib's settings as they were."""

    @wraps(draw)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def png(figure: Figure, dpi: int = 160) -> bytes:
    """A figure as the bytes of a PNG file."""
    sink = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure).print_png(sink, metadata={"Software": None})
    return sink.getvalue()


@styled
def rank_curve_figure(curve: RankCurve, performance: float | None, name: str = "tracers") -> Figure:
    """Tracer rank curve, whole and with a logarithmic depth (Pourrahmani 2019, figures 2.5 and 3.2).

    Parameters
    ----------
    curve : RankCurve
    performance : float or None
        Ranking performance, for the title.
    name : str
        What was recovered.
    """
    figure = Figure(figsize=(8.2, 3.7), layout="constrained")
    whole, top = figure.subplots(1, 2, sharey=True)
    depth, recall = _drawn_curve(curve)
    shares, perfect = np.linspace(0, 1, 400), [0, curve.n_tracers / curve.n, 1]
    whole.fill_between(perfect, [0, 1, 1], perfect, color=BLUE, alpha=0.10, lw=0)
    whole.fill_between(
        shares, np.interp(shares, depth / curve.n, recall), shares, color=BLUE, alpha=0.18, lw=0
    )
    _curve_and_limits(whole, curve, np.linspace(0, curve.n, 400), unit=curve.n)
    whole.set(
        xlim=(-0.01, 1), ylim=(0, 1.02), xlabel="Fraction of the list inspected", ylabel=f"Recovered {name}"
    )
    whole.xaxis.set_major_formatter(PercentFormatter(1))
    whole.yaxis.set_major_formatter(PercentFormatter(1))
    whole.legend(loc="lower right")
    _curve_and_limits(top, curve, np.geomspace(0.8, max(curve.n, 2), 400), unit=1)
    top.set(xscale="log", xlim=(0.8, max(curve.n, 2)), xlabel="Cutouts inspected (logarithmic)")
    top.xaxis.set_major_formatter(_thousands)
    whole.set_title(f"Ranking performance {number(performance)}")
    top.set_title(_half_recovered(curve, name))
    return figure


def _drawn_curve(curve: RankCurve) -> tuple[np.ndarray, np.ndarray]:
    """Depth and recall from nothing inspected to the end of the list."""
    return np.concatenate([[0], curve.depth, [curve.n]]), np.concatenate([[0], curve.recall, [1]])


def _curve_and_limits(axes: Axes, curve: RankCurve, depths: np.ndarray, unit: int) -> None:
    """The curve, the perfect one and that of a random order; depths are drawn in units of `unit` cutouts."""
    depth, recall = _drawn_curve(curve)
    depths = np.union1d(depths, [curve.n_tracers])
    axes.plot(depths / unit, depths / curve.n, "--", color=VERMILION, lw=1.3, label="no discrimination")
    best = np.minimum(depths / curve.n_tracers, 1)
    axes.plot(depths / unit, best, ":", color=GREY, lw=1.5, label="perfect classifier")
    axes.step(depth / unit, recall, where="post", color=INK, label="this scan")


def _half_recovered(curve: RankCurve, name: str) -> str:
    half = int(curve.depth[np.searchsorted(curve.recall, 0.5)])
    return f"Half of the {name} in the top {half:,}"


@styled
def roc_figure(roc: RocCurve, values: Mapping[str, Any]) -> Figure:
    """ROC with a logarithmic axis of the false positive rate, and the points of TPR0 and TPR10.

    Parameters
    ----------
    roc : RocCurve
    values : mapping
        With ``auroc``, ``tpr0`` and ``tpr10``.
    """
    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    axes = figure.subplots()
    single, left = 1 / roc.n_negatives, 0.3 / roc.n_negatives
    axes.axvspan(left, single, color="#f1f3f5", lw=0)
    middle = np.sqrt(left * single)
    axes.text(
        middle, 0.4, "below one false positive", ha="center", va="center", rotation=90, color=GREY, fontsize=8
    )
    rates = np.geomspace(single, 1, 200)
    axes.plot(rates, rates, "--", color=VERMILION, lw=1.3, label="no discrimination")
    false = np.maximum(roc.false_positive_rate, left)
    axes.plot(false, roc.true_positive_rate, color=INK, label="this scan", drawstyle="default")
    axes.plot(
        [single],
        [values["tpr0"]],
        "o",
        color=BLUE,
        ms=7,
        label=f"TPR0 {values['tpr0']:.3f} (no false positive)",
    )
    if roc.n_negatives >= 10:
        label = f"TPR10 {values['tpr10']:.3f} (fewer than ten)"
        axes.plot([10 * single], [values["tpr10"]], "s", color=ORANGE, ms=7, label=label)
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02))
    axes.set(xlabel="False positive rate (logarithmic)", ylabel="True positive rate")
    axes.xaxis.set_major_formatter(powers)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_title(f"AUROC {number(values['auroc'])}, against {roc.n_negatives:,} negatives")
    return figure


@styled
def score_histogram_figure(histogram: ScoreHistogram) -> Figure:
    """Numbers of cutouts by score, on a logarithmic axis; known lenses apart."""
    figure = Figure(figsize=(8.2, 3.3), layout="constrained")
    axes = figure.subplots()
    total, lenses = int(histogram.all.sum()), int(histogram.lenses.sum())
    axes.stairs(
        histogram.all, histogram.edges, fill=True, color="#b8c4ce", label=f"all {total:,} scored cutouts"
    )
    if lenses:
        label = f"{lenses:,} tracers and labelled lenses"
        axes.stairs(histogram.lenses, histogram.edges, fill=True, color=BLUE, alpha=0.75, label=label)
    axes.set(yscale="log", ylim=(0.7, max(10.0, 3.0 * histogram.all.max())), xlim=(0, 1))
    axes.set(xlabel="Score (lens probability)", ylabel="Cutouts")
    axes.yaxis.set_major_formatter(_thousands)
    axes.legend(loc="upper right", ncols=2)
    above = int(histogram.all[len(histogram.all) // 2 :].sum())
    axes.set_title(f"{above:,} of {total:,} cutouts score 0.5 or more")
    return figure


@styled
def pixel_histogram_figure(
    images_NCHW: np.ndarray,
    bands: Sequence[str],
    template: tuple[np.ndarray, np.ndarray] | None = None,
    what: str = "Normalized pixels",
) -> Figure:
    """Mean histogram of the pixels of a sample of cutouts, against the template of the normalization.

    Parameters
    ----------
    images_NCHW : ndarray, shape (N, bands, height, width)
        As the network gets them.
    bands : sequence of str
    template : (values, weights), optional
        Pixel values of the normalization's template, and the share of its pixels that has each.
    what : str
        What the pixels are, for the title.
    """
    figure = Figure(figsize=(8.2, 3.3), layout="constrained")
    axes = figure.subplots()
    pixels = np.moveaxis(images_NCHW, 1, 0).reshape(len(bands), -1).astype(np.float64)
    finite = pixels[np.isfinite(pixels)]
    low, high = _histogram_range(finite if template is None else np.concatenate([finite, template[0]]))
    edges = np.linspace(low, high, 61)
    for band, values, colour in zip(bands, pixels, BAND_COLOURS * len(bands), strict=False):
        inside = np.clip(values[np.isfinite(values)], low, high)
        share = np.histogram(inside, edges, weights=np.full(len(inside), 1 / max(len(inside), 1)))[0]
        axes.stairs(share, edges, color=colour, lw=1.6, label=f"band {band}", baseline=None)
    if template is not None:
        share = np.histogram(np.clip(template[0], low, high), edges, weights=template[1])[0]
        axes.stairs(share, edges, color=INK, lw=1.6, ls="--", label="template", baseline=None)
    axes.set(yscale="log", xlim=(low, high), xlabel="Pixel value", ylabel="Share of the pixels")
    axes.yaxis.set_major_formatter(powers)
    axes.legend(loc="upper right")
    axes.set_title(f"{what} of {len(images_NCHW):,} cutouts" + (" and the template" if template else ""))
    return figure


def _histogram_range(values: np.ndarray) -> tuple[float, float]:
    """Limits that leave out the brightest and faintest 0.1%, except for pixels within 0 and 1."""
    if not len(values):
        return 0.0, 1.0
    if values.min() >= 0 and values.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(values, [0.1, 99.9])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


@styled
def status_figure(invalid: Mapping[str, int], rows: int) -> Figure:
    """Numbers of rows without a score, by reason."""
    figure = Figure(figsize=(8.2, 0.9 + 0.32 * len(invalid)), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(invalid.items(), key=lambda item: item[1])
    bars = axes.barh(
        [name.replace("_", " ") for name, _ in ordered], [n for _, n in ordered], color=ORANGE, height=0.7
    )
    axes.bar_label(bars, [f"{n:,}" for _, n in ordered], padding=4, color=INK)
    axes.set(xlabel="Cutouts")
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(_thousands)
    total = sum(invalid.values())
    axes.set_title(f"{total:,} of {rows:,} cutouts have no score")
    return figure
