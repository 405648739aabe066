"""The figure that Saied, Syvis & Crettenand ask for: AUROC against the number of images in a prediction's batch."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from lensray.inspection.figures import BAND_COLOURS, INK, styled


@styled
def batch_size_figure(by_batch: Mapping[str, Mapping[int, float]], fixed: Mapping[str, float]) -> Figure:
    """AUROC with the statistics of each batch, against its size; lines for what does not depend on it.

    Parameters
    ----------
    by_batch : mapping of str to mapping of int to float
        AUROC by batch size, by the name of the network.
    fixed : mapping of str to float
        AUROC by name, where a score depends on the image alone.
    """
    figure = Figure(figsize=(8.2, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(by_batch, BAND_COLOURS * len(by_batch), strict=False))
    for name, values in by_batch.items():
        axes.plot(
            list(values),
            list(values.values()),
            "o-",
            color=colours[name],
            label=f"{name}, statistics of the batch",
        )
    for name, value in fixed.items():
        network = next((known for known in by_batch if name.startswith(known)), None)
        colour = INK if network is None else colours[network]
        axes.axhline(value, ls=":" if "anew" in name else "--", color=colour, label=f"{name}: {value:.3f}")
    sizes = sorted({size for values in by_batch.values() for size in values})
    axes.set(xscale="log", xlabel="Images in a batch (logarithmic)", ylabel="AUROC")
    axes.set_xticks(sizes)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    axes.set_title("AUROC where each batch is normalized by its own statistics")
    return figure
