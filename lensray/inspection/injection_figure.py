"""Contact sheet of simulated arcs on real galaxies: each galaxy as it is, and with its arc."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lensray import cutouts
from lensray.inspection.composites import composite
from lensray.inspection.figures import NIGHT, styled


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A real galaxy, and the same with an arc."""

    before: NDArray
    """Pixels as they are, shape (bands, height, width)."""
    after: NDArray
    """Pixels with the arc, of the same shape."""
    bands: tuple[str, ...]
    """Bands of both."""
    title: str
    """What stands above the pair."""


def pairs_of(survey: pa.Table, injected: pa.Table, *, width_arcsec: float | None = None) -> Iterator[Pair]:
    """Each lens of a set that ``simulate_survey.py --onto`` made beside its host.

    Parameters
    ----------
    survey : pyarrow.Table
        The survey that the arcs were painted onto.
    injected : pyarrow.Table
        The set.
    width_arcsec : float, optional
        Show this much about the middle; all of the cutout by default.
    """
    format = cutouts.read_format(survey.schema)
    for lens in (injected.slice(row, 1) for row in np.flatnonzero(injected["label"].to_numpy()).tolist()):
        host = survey.filter(pc.equal(survey["object_id"], lens["host_id"][0]))  # type: ignore[attr-defined]
        before, after = (cutouts.images_of(table, format)[0][0] for table in (host, lens))
        radius, mag = (lens[name][0].as_py() for name in ("einstein_radius_arcsec", "host_mag_i"))
        side = format.shape[1] if width_arcsec is None else round(width_arcsec / format.pixel_scale_arcsec)
        yield Pair(
            before=_middle(before, side),
            after=_middle(after, side),
            bands=format.bands,
            title=f"{format.survey}   θE {radius:.2f}″   i {mag:.1f}",
        )


def _middle(image: NDArray, side: int) -> NDArray:
    rows, columns = (slice(max((n - side) // 2, 0), max((n - side) // 2, 0) + side) for n in image.shape[1:])
    return image[:, rows, columns]


@styled
def injection_figure(pairs: Sequence[Pair], columns: int = 4) -> Figure:
    """Pairs of colour composites, the galaxy as it is on the left and with its arc on the right, of one stretch.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one.
    columns : int
        Pairs side by side.
    """
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    gap, text = 0.08, 0.2
    width, height = 2 + gap, 1 + gap + text
    inch = 11.0 / (4 * width)
    figure = Figure(figsize=(inch * columns * width, inch * rows * height), facecolor=NIGHT)
    axes = figure.add_axes((0, 0, 1, 1))
    for k, pair in enumerate(pairs):
        _draw(axes, pair, (k % columns) * width + gap / 2, (rows - 1 - k // columns) * height + gap / 2)
    axes.set(xlim=(0, columns * width), ylim=(0, rows * height))
    axes.set_axis_off()
    return figure


def _draw(axes: Axes, pair: Pair, x: float, y: float) -> None:
    picture = composite(np.concatenate([pair.before, pair.after], axis=2), pair.bands)
    axes.imshow(picture, origin="lower", extent=(x, x + 2, y, y + 1), interpolation="nearest", aspect="auto")
    axes.plot([x + 1, x + 1], [y, y + 1], color=NIGHT, lw=1.5)
    axes.text(x + 0.02, y + 1.05, pair.title, color="#e8ecf0", fontsize=8, va="bottom")
