"""Figures of a search for settings."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lensray.inspection.figures import BAND_COLOURS, INK, styled
from lensray.recipes.tuning import Trial
from lensray.training.search import Choice, Dimension, Space, Value

MARKS = {"done": "o", "stopped": "v", "failed": "x", "running": "."}


@styled
def scores_figure(trials: Sequence[Trial], name: str) -> Figure:
    """Best score of each trial, and of all trials so far."""
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axes = figure.subplots()
    scored = [trial for trial in trials if trial.score is not None]
    for state in dict.fromkeys(trial.state for trial in scored):
        chosen = [trial for trial in scored if trial.state == state]
        axes.plot(
            [trial.number for trial in chosen],
            [_score(trial) for trial in chosen],
            MARKS[state],
            color=BAND_COLOURS[0],
            label=state,
        )
    best = np.maximum.accumulate([_score(trial) for trial in scored])
    axes.step([trial.number for trial in scored], best, where="post", color=INK, lw=1, label="best so far")
    axes.set(xlabel="Trial", ylabel=name.capitalize())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    return figure


@styled
def parallel_coordinates(trials: Sequence[Trial], space: Space, name: str) -> Figure:
    """A line a trial through its settings, coloured by its score; at least one trial must have one."""
    scored = sorted((trial for trial in trials if trial.score is not None), key=_score)
    figure = Figure(figsize=(max(8.2, 1.35 * (len(space) + 1)), 4.2), layout="constrained")
    axes = figure.subplots()
    scale = Normalize(_score(scored[0]), _score(scored[-1]))
    colours = colormaps["viridis"]
    places = range(len(space) + 1)
    for rank, trial in enumerate(scored):
        heights = [_height(dimension, trial.values[key]) for key, dimension in space.items()]
        best = rank == len(scored) - 1
        axes.add_line(
            Line2D(
                list(places),
                [*heights, scale(_score(trial))],
                color=colours(scale(_score(trial))),
                lw=2.6 if best else 1.2,
                alpha=1.0 if best else 0.75,
            )
        )
    for place, dimension in enumerate(space.values()):
        axes.axvline(place, color="0.75", lw=0.8, zorder=0)
        for value, text in _ticks(dimension):
            axes.text(place + 0.04, _height(dimension, value), text, fontsize=7, va="center", color="0.35")
    axes.axvline(len(space), color="0.75", lw=0.8, zorder=0)
    axes.set(xlim=(-0.15, len(space) + 0.1), ylim=(-0.06, 1.06))
    axes.set_xticks(list(places), [*(key.replace(".", ".\n") for key in space), name], fontsize=7.5)
    axes.set_yticks([])
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.grid(False)
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label=name.capitalize(), pad=0.01)
    return figure


def _score(trial: Trial) -> float:
    return -math.inf if trial.score is None else trial.score


def _height(dimension: Dimension, value: Value) -> float:
    """Where a value lies between the ends of its axis, from 0 to 1."""
    if isinstance(dimension, Choice):
        names = list(dimension.of)
        return (names.index(str(value)) + 0.5) / len(names)
    ends = (dimension.low, float(value), dimension.high)
    low, found, high = (math.log(end) for end in ends) if dimension.log else ends
    return (found - low) / (high - low)


def _ticks(dimension: Dimension) -> list[tuple[Value, str]]:
    if isinstance(dimension, Choice):
        return [(name, name) for name in dimension.of]
    return [(dimension.low, f"{dimension.low:g}"), (dimension.high, f"{dimension.high:g}")]
