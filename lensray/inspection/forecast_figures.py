"""Figures of what an inspection brings, and of what scores say as probabilities."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, PercentFormatter

from lensray.inspection.figures import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, styled
from lensray.metrics.calibration import Reliability, log_odds
from lensray.metrics.forecast import Forecast
from lensray.metrics.intervals import binomial_interval
from lensray.metrics.probabilities import Calibration
from lensray.metrics.scan_calibration import ScanCalibration

# Probabilities that are written at an axis of log odds.
_TICKS = (1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999, 0.999999)
_SAMPLED = np.linspace(-16.6, 16.6, 800)


@styled
def forecast_figure(forecast: Forecast) -> Figure:
    """Completeness, and the purity where it can be told, against the number of images inspected."""
    figure = Figure(figsize=(8.2, 3.7), layout="constrained")
    whole, pure = figure.subplots(1, 2)
    _band(
        whole, forecast, forecast.completeness, (forecast.completeness_low, forecast.completeness_high), BLUE
    )
    whole.set(ylim=(0, 1.02), ylabel="Completeness")
    whole.yaxis.set_major_formatter(PercentFormatter(1))
    whole.set_title(f"Completeness, by {forecast.n_lenses:,} known lenses")
    _band(pure, forecast, forecast.purity, forecast.purity_interval, GREEN)
    random = forecast.lens_rate
    pure.axhline(random, ls="--", color=VERMILION, lw=1.3, label="images taken at random")
    told = forecast.purity[np.isfinite(forecast.purity)]
    floor = min(random, told[told > 0].min() if (told > 0).any() else random) / 2
    pure.set(yscale="log", ylim=(floor, 1.3), ylabel="Purity (logarithmic)")
    pure.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    pure.set_title(f"Purity, one lens in {1 / forecast.lens_rate:,.0f}")
    for axes in (whole, pure):
        _shade_unresolved(axes, forecast)
        axes.set(
            xscale="log",
            xlim=(forecast.images[0], forecast.images[-1]),
            xlabel="Images inspected (logarithmic)",
        )
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    pure.legend(loc="lower left", bbox_to_anchor=(0, 0.1), frameon=True, framealpha=0.8, edgecolor="none")
    return figure


def _band(axes: Axes, forecast: Forecast, values: np.ndarray, interval: tuple, colour: str) -> None:
    axes.fill_between(forecast.images, *interval, color=colour, alpha=0.25, lw=0)
    axes.plot(forecast.images, values, color=colour)


def _shade_unresolved(axes: Axes, forecast: Forecast) -> None:
    """Grey where the sample is too small to tell."""
    end = forecast.images[-1] if forecast.resolved_from is None else forecast.resolved_from
    if end > forecast.images[0]:
        label = "below one false positive"
        axes.axvspan(forecast.images[0], end, color="#e4e7eb", lw=0, label=label)


@styled
def reliability_figure(calibration: ScanCalibration, lens_rate: float) -> Figure:
    """Share of lenses against score, with the fits, and against the calibrated score; axes of log odds."""
    figure = Figure(figsize=(8.2, 4.1), layout="constrained")
    raw, after = figure.subplots(1, 2, sharey=True)
    _diagonal(raw)
    _measured(raw, calibration.scores)
    _curves(raw, calibration, lens_rate)
    raw.set(xlabel="Score", ylabel="Share of lenses")
    raw.set_title("Scores as they are")
    _diagonal(after)
    _measured(after, calibration.calibrated)
    after.set(xlabel="Probability by Platt's curve")
    after.set_title("Calibrated")
    low, high = _limits(calibration)
    for axes in (raw, after):
        _odds_axis(axes, low, high)
    raw.legend(loc="upper left", fontsize=8)
    after.legend(loc="upper left", fontsize=8)
    return figure


def _diagonal(axes: Axes) -> None:
    axes.plot([-17, 17], [-17, 17], "--", color=GREY, lw=1.2)


def _measured(axes: Axes, found: Reliability) -> None:
    """Shares with their intervals; a bin without a lens, or without any other, gives a limit."""
    low, high = (log_odds(end) for end in binomial_interval(found.n_lenses, found.count))
    middle, at = log_odds(found.lens_fraction), log_odds(found.mean_score)
    none, all_lenses = found.lens_fraction == 0, found.lens_fraction == 1
    both = ~none & ~all_lenses
    axes.vlines(at[both], low[both], high[both], color=INK, lw=1.1)
    axes.plot(at[both], middle[both], "o", color=INK, ms=4.5, label="this scan, ±1σ")
    for chosen, limit, marker, name in (
        (none, high, "v", "no lens: upper limit"),
        (all_lenses, low, "^", "lenses only: lower limit"),
    ):
        if chosen.any():
            axes.plot(at[chosen], limit[chosen], marker, color=GREY, ms=4.5, label=name)


def _curves(axes: Axes, calibration: ScanCalibration, lens_rate: float) -> None:
    scores = 1 / (1 + np.exp(-_SAMPLED))
    drawn: tuple[tuple[Calibration, float, str, str], ...] = (
        (calibration.platt, calibration.platt.lens_rate, BLUE, "Platt"),
        (calibration.isotonic, calibration.platt.lens_rate, ORANGE, "isotonic"),
        (calibration.platt, lens_rate, VERMILION, f"Platt, one lens in {1 / lens_rate:,.0f}"),
    )
    for fit, rate, colour, name in drawn:
        axes.plot(_SAMPLED, log_odds(fit.probabilities(scores, rate)), color=colour, lw=1.5, label=name)


def _limits(calibration: ScanCalibration) -> tuple[float, float]:
    """Log odds that hold what was measured."""
    values = [
        log_odds(part)
        for found in (calibration.scores, calibration.calibrated)
        for part in (found.mean_score, *binomial_interval(found.n_lenses, found.count))
    ]
    ends = np.concatenate(values)
    ends = ends[np.abs(ends) < 16.5]
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (-5.0, 5.0)
    return max(low - 1, -16.6), min(high + 1, 16.6)


def _odds_axis(axes: Axes, low: float, high: float) -> None:
    places = log_odds(_TICKS)
    names = [f"{tick:g}" for tick in _TICKS]
    inside = (places >= low) & (places <= high)
    shown = [name for name, keep in zip(names, inside, strict=True) if keep]
    axes.set_xticks(places[inside], shown)
    axes.set_yticks(places[inside], shown)
    axes.set(xlim=(low, high), ylim=(low, high))
