"""Figures of a selection function, like figure 3.3 of the thesis (Pourrahmani 2019)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lensray.inspection.figures import BLUE, GREY, INK, VERMILION, styled
from lensray.metrics.selection import Cells, Difference, SelectionFunction

MAP, POINTS = "viridis", 33
"""Colours of a completeness from 0 to 1; points along a parameter."""
LABEL_SIZE = 8


def _corner(
    labels: Mapping[str, str],
    pair: Callable[[Axes, str, str], None],
    one: Callable[[Axes, str], None],
) -> Figure:
    """A triangle of panels: one for each parameter on the diagonal, one for each pair below."""
    names = list(labels)
    figure = Figure(figsize=(1.75 * len(names) + 1.2, 1.75 * len(names) + 0.3), layout="constrained")
    panels = figure.subplots(len(names), len(names), sharex="col", squeeze=False)
    for row, vertical in enumerate(names):
        for column, horizontal in enumerate(names):
            axes = panels[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            if column == row:
                one(axes, horizontal)
                axes.set(ylim=(-0.03, 1.03))
                axes.yaxis.tick_right()
                axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            else:
                pair(axes, horizontal, vertical)
                axes.grid(False)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(labelsize=LABEL_SIZE - 1, labelleft=column == 0 < row)
            if row == len(names) - 1:
                axes.set_xlabel(labels[horizontal], fontsize=LABEL_SIZE)
            if column == 0 < row:
                axes.set_ylabel(labels[vertical], fontsize=LABEL_SIZE)
    middle = panels[0, (len(names) + 1) // 2]
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), MAP),
        cax=middle.inset_axes((0.0, 0.7, 2.0, 0.1)),
        label="Completeness",
        orientation="horizontal",
        format=PercentFormatter(1, decimals=0),
    )
    bar.ax.tick_params(labelsize=LABEL_SIZE)
    # It lies over panels that are not drawn, whose width it shall not change.
    bar.ax.set_in_layout(False)
    return figure


@styled
def cuts_figure(function: SelectionFunction, labels: Mapping[str, str]) -> Figure:
    """Completeness along each parameter and each pair, the others at their references, with the 50% contour."""
    grids = {name: np.linspace(*function.ranges[name], POINTS) for name in labels}

    def pair(axes: Axes, horizontal: str, vertical: str) -> None:
        x, y = grids[horizontal], grids[vertical]
        shares, _ = function.completeness({horizontal: x[None, :], vertical: y[:, None]})
        axes.pcolormesh(x, y, shares, cmap=MAP, vmin=0, vmax=1, shading="gouraud", rasterized=True)
        if shares.min() < 0.5 < shares.max():
            axes.contour(x, y, shares, levels=[0.5], colors="white", linewidths=1)
        axes.plot(function.reference[horizontal], function.reference[vertical], "+", color="white", ms=6)

    def one(axes: Axes, name: str) -> None:
        share, error = function.completeness({name: grids[name]})
        axes.fill_between(grids[name], share - error, share + error, color=BLUE, alpha=0.25, lw=0)
        axes.plot(grids[name], share, color=BLUE)
        axes.axvline(function.reference[name], color=GREY, lw=0.8, ls=":")

    return _corner(labels, pair, one)


@styled
def projections_figure(
    counted: Callable[[Sequence[str]], Cells], labels: Mapping[str, str], mark: Mapping[str, float]
) -> Figure:
    """Counted completeness in cells of each parameter and each pair, over all of the others.

    Parameters
    ----------
    counted : callable
        Gives the cells of one or two parameters.
    labels : mapping of str to str
        Axis labels by parameter.
    mark : mapping of str to float
        Reference values, dotted.
    """

    def pair(axes: Axes, horizontal: str, vertical: str) -> None:
        found = counted((horizontal, vertical))
        x, y = found.edges[horizontal], found.edges[vertical]
        axes.pcolormesh(x, y, found.completeness.T, cmap=MAP, vmin=0, vmax=1, rasterized=True)

    def one(axes: Axes, name: str) -> None:
        found = counted((name,))
        low, high = found.interval()
        edges, share = found.edges[name], found.completeness
        axes.errorbar(
            (edges[:-1] + edges[1:]) / 2, share, np.abs([share - low, high - share]), fmt="o", color=BLUE, ms=3, lw=1
        )  # fmt: skip
        axes.axvline(mark[name], color=GREY, lw=0.8, ls=":")

    return _corner(labels, pair, one)


@styled
def onto_figure(found: Mapping[str, Difference], labels: Mapping[str, str]) -> Figure:
    """Completeness on real galaxies beside what the simulated lenses let expect of the same lenses."""
    figure = Figure(figsize=(4.1 * len(found), 3.5), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        axes.errorbar(
            one.centres, one.counted, one.error, fmt="o", color=VERMILION, lw=1.4, label="on real galaxies"
        )
        axes.plot(one.centres, one.expected, "s-", color=BLUE, ms=4, label="expected from simulated lenses")
        axes.set_xlabel(labels[name])
        axes.set_ylim(-0.03, 1.03)
    panels[0].set_ylabel("Completeness")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[0].legend(fontsize=LABEL_SIZE)
    return figure


@styled
def agreement_figure(predicted: np.ndarray, found: np.ndarray, bins: int = 10) -> Figure:
    """Share found against completeness that was predicted, for lenses that the predicting models had not seen."""
    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    axes = figure.subplots()
    known = np.isfinite(predicted)
    place = np.minimum((predicted[known] * bins).astype(int), bins - 1)
    total = np.bincount(place, minlength=bins)
    used = total > 0
    mean = np.bincount(place, predicted[known], bins)[used] / total[used]
    hits = np.bincount(place, found[known], bins)[used].astype(np.int64)
    counted = Cells(edges={}, found=hits, total=total[used])
    low, high = counted.interval()
    share = counted.completeness
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8)
    axes.errorbar(mean, share, np.abs([share - low, high - share]), fmt="o", color=BLUE, ms=4, lw=1)
    axes.set(
        xlabel="Completeness of the function",
        ylabel="Share that was found",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
