"""Pictures of generated images: the contact sheet, and how far they are from each other and from what they learned."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lensray.inspection.composites import composite
from lensray.inspection.figures import BAND_COLOURS, NIGHT, styled
from lensray.inspection.generation_records import Generation

COLUMNS = 12


@styled
def contact_sheet(found: Generation) -> Figure:
    """Generated images, the training image that is nearest to each, and real ones that were never seen."""
    rows = _rows(found)
    figure = Figure(figsize=(8.2, 8.2 / COLUMNS * len(rows) * 1.12), facecolor=NIGHT)
    grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.96, wspace=0.04, hspace=0.12)
    for line, (name, images) in zip(grid, rows, strict=True):
        for axes, image in zip(line, images, strict=False):
            axes.imshow(composite(image, found.bands), origin="lower", interpolation="nearest")
        for axes in line:
            axes.set_axis_off()
        line[0].text(0, 1.03, name, transform=line[0].transAxes, color="#e8ecf0", fontsize=7, va="bottom")
    return figure


def _rows(found: Generation) -> list[tuple[str, NDArray]]:
    places = np.linspace(0, len(found.generated) - 1, 3 * COLUMNS).round().astype(int)
    places = np.unique(places)
    rows: list[tuple[str, NDArray]] = []
    for start in range(0, len(places), COLUMNS):
        part = places[start : start + COLUMNS]
        rows.append(("generated", found.generated[part]))
        rows.append(("nearest training lens of each", found.training[found.nearest[part]]))
    return [*rows, ("lenses that the generator never saw", found.unseen[:COLUMNS])]


@styled
def distances_figure(found: Generation) -> Figure:
    """Cumulative distributions of the distances to the nearest image."""
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    pairs = {
        "To the nearest of the same set": ("generated to generated", "unseen to unseen"),
        "To the nearest training lens": ("generated to training", "unseen to training"),
    }
    for axes, (title, names) in zip(figure.subplots(1, 2, sharey=True), pairs.items(), strict=True):
        for name, colour in zip(names, BAND_COLOURS, strict=False):
            values = np.sort(found.distances[name])
            if len(values):
                axes.step(
                    values,
                    np.arange(1, len(values) + 1) / len(values),
                    color=colour,
                    label=name,
                    where="post",
                )
        axes.set(title=title, xlabel="RMS difference (brightest pixels = 1)", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        axes.legend(fontsize=8)
        if "training" in names[0]:
            axes.axvline(found.values["copy_limit"], ls=":", color="0.4")
        else:
            axes.set_ylabel("Share of the images")
    return figure
