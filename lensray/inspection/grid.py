"""The grid of the best candidates, as one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lensray.inspection.composites import composite
from lensray.inspection.figures import NIGHT, styled


def truth_of(row: Mapping[str, Any]) -> str:
    """What is known of a candidate: ``tracer``, ``known`` (of a list of lenses), ``lens``, ``non-lens`` or nothing."""
    if row.get("is_tracer"):
        return "tracer"
    if row.get("known_lens"):
        return "known"
    label = row.get("label")
    return "" if label is None else "lens" if label else "non-lens"


_FLAG_COLOURS = {"tracer": "#56B4E9", "known": "#F0E442", "lens": "#35d0a0", "non-lens": "#ff9a5c"}

_DESCRIBED = ("rank", "score", "is_tracer", "label", "known_lens")


@styled
def candidates_figure(
    candidates: pa.Table, bands: Sequence[str], count: int = 50, columns: int = 10
) -> Figure:
    """Grid of the best candidates as colour composites, with rank and score; known objects are framed.

    Parameters
    ----------
    candidates : pyarrow.Table
        With ``rank``, ``score`` and ``image``; at least one row.
    bands : sequence of str
        Bands of the images.
    count, columns : int
        Candidates shown, and columns of the grid.

    Notes
    -----
    The first row of pixels is at the bottom, as FITS images are shown.
    """
    shown = candidates.slice(0, count)
    images = images_of(shown)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[2:]
    tile = max(height, width)
    gap, text = 0.06 * tile, 0.20 * tile
    inch = 8.2 / max(columns, 5)
    figure = Figure(
        figsize=(inch * columns, inch * rows * (tile + gap + text) / (tile + gap) + 0.1), facecolor=NIGHT
    )
    axes = figure.add_axes((0.005, 0.005, 0.99, 0.99))
    described = shown.select([n for n in _DESCRIBED if n in shown.column_names])
    for i, row in enumerate(described.to_pylist()):
        x, y = (i % columns) * (tile + gap), (rows - 1 - i // columns) * (tile + gap + text)
        picture = composite(images[i], bands)
        axes.imshow(picture, origin="lower", extent=(x, x + width, y, y + height), interpolation="nearest")
        _caption(axes, row, x, y, width, height, text)
    axes.set(xlim=(-gap, columns * (tile + gap)), ylim=(-gap, rows * (tile + gap + text)), aspect="equal")
    axes.set_axis_off()
    return figure


def _caption(
    axes: Axes, row: dict[str, Any], x: float, y: float, width: float, height: float, text: float
) -> None:
    flag = truth_of(row)
    colour = _FLAG_COLOURS.get(flag, "#e8ecf0")
    if flag:
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec=colour, lw=1.4))
    base = y + height + 0.3 * text
    axes.text(x, base, f"{row['rank']}", color=colour, fontsize=7.5, weight="bold", va="baseline")
    axes.text(x + width, base, f"{row['score']:.3f}", color="#aab4be", fontsize=7, ha="right", va="baseline")
    if flag:
        axes.text(x + 0.04 * width, y + 0.05 * height, flag, color=colour, fontsize=6)


def images_of(candidates: pa.Table) -> np.ndarray:
    """The candidates' images, shape (N, bands, height, width)."""
    column = candidates["image"].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return array.to_numpy_ndarray()
