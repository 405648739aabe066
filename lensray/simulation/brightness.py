"""Brightness must not tell lenses from non-lenses: what is bright about a cutout, and a choice that evens it out.

An arc adds light to a galaxy, galaxies that could be lenses are brighter than others, and in shallow images only
bright arcs are seen. A network that is trained on such lenses against random cutouts learns total flux first. So
more lenses are proposed and more cutouts are looked at than are wanted, and both are drawn with overlap weights (Li,
Morgan & Zaslavsky 2018, JASA 113, 390): where ``e`` is the chance of being a lens by its brightness alone, as a
logistic regression on ranks and their squares has it, a lens is drawn in proportion to ``1 - e`` and another
cutout to ``e``. Then the mean rank of each feature is the same in both, and a mean rank is an AUROC: 1/2. That
holds on average; where sets are small and one draw is off, others are made, and the best one is taken (rerandomization, Morgan
& Rubin 2012, Annals of Statistics 40, 1263).

What this costs: cutouts fainter than any lens are hardly among the non-lenses. Where nearly all that there is
has to be taken, there is no choice, and brightness may tell; `brightness_auroc` says how well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CENTRAL_PIXELS = 7
"""Side of the square in the middle whose mean is the central flux."""
CLIP_PERCENT = 0.5
"""Share of the pixels at each end beyond the range of the normalized image, as of `PercentileClip`."""
DRAWS = 1000
"""Draws that are made at most for one in which brightness does not tell lenses from others."""
BALANCED = 0.04
"""Largest distance of an AUROC from 1/2 at which no other draw is made."""

Floats = NDArray[np.float64]


def brightness_features(images: NDArray, apertures: Sequence[float] = ()) -> Floats:
    """What is bright about cutouts, of each band one after another.

    Parameters
    ----------
    images : ndarray of float, shape (N, bands, height, width)
        NaN pixels do not count; where there are no others, a feature is NaN.
    apertures : sequence of float
        Radii, in pixels, of circles about the middle, in which the mean is taken.

    Returns
    -------
    ndarray, shape (N, bands * (4 + apertures))
        Of each band the mean of all pixels, the largest, the mean after the 0.5 and 99.5 percentiles were stretched
        to 0 and 1, that of the `CENTRAL_PIXELS`² in the middle, and those in the apertures.
    """
    count, bands, *shape = images.shape
    regions = _regions(tuple(shape), apertures)
    features = np.full((count, bands, 3 + len(regions)), np.nan)
    for row, image in enumerate(images):
        for band, plane in enumerate(image.astype(np.float64)):
            seen = np.isfinite(plane)
            if seen.any():
                features[row, band, :3] = _whole(plane[seen])
                features[row, band, 3:] = [_mean(plane[seen & region]) for region in regions]
    return features.reshape(count, bands * (3 + len(regions)))


def _regions(shape: tuple[int, ...], apertures: Sequence[float]) -> list[NDArray[np.bool_]]:
    """Pixels of the square in the middle, and of the apertures."""
    y, x = (np.abs(np.arange(n) - (n - 1) / 2) for n in shape)
    square = np.maximum(y[:, None], x) <= CENTRAL_PIXELS / 2
    return [square, *(np.hypot(y[:, None], x) <= radius for radius in apertures)]


def _whole(pixels: Floats) -> tuple[float, float, float]:
    low, high = _percentiles(pixels)
    stretched = np.clip((pixels - low) / max(high - low, 1e-30), 0, 1)
    return float(pixels.mean()), float(pixels.max()), float(stretched.mean())


def _mean(pixels: Floats) -> float:
    return float(pixels.mean()) if len(pixels) else float("nan")


def _percentiles(pixels: Floats) -> tuple[float, float]:
    k = int(CLIP_PERCENT / 100 * (len(pixels) - 1))
    part = np.partition(pixels, (k, len(pixels) - 1 - k))
    return float(part[k]), float(part[len(pixels) - 1 - k])


def ranks(values: Floats, reference: Floats) -> Floats:
    """Share of the reference, shape (R, F), below each value, shape (N, F); equal ones count half."""
    columns = []
    for value, column in zip(values.T, np.sort(reference, axis=0).T, strict=True):
        below = np.searchsorted(column, value, side="left") + np.searchsorted(column, value, side="right")
        columns.append(below / (2 * len(column)))
    return np.stack(columns, axis=1)


def brightness_auroc(lenses: Floats, others: Floats) -> Floats:
    """AUROC of each feature, shape (F,), between lenses (N, F) and other cutouts (R, F): 1/2 is what it should be."""
    return ranks(lenses, others).mean(0)


def overlap_weights(lenses: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Weights, from 0 to 1, under which lenses (N, F) and other cutouts (R, F) have the same features on average."""
    # Takes a second, of which no command's start has need.
    from sklearn.linear_model import LogisticRegression

    mine, theirs = ranks(lenses, others), ranks(others, others)
    moments = np.concatenate([np.concatenate([r, r**2], axis=1) for r in (mine, theirs)])
    spread = moments.std(0)
    moments = (moments - moments.mean(0)) / np.where(spread > 0, spread, 1.0)
    is_lens = np.arange(len(moments)) < len(lenses)
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(moments, is_lens)
    chance = model.predict_proba(moments)[:, 1]
    return 1 - chance[is_lens], chance[~is_lens]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedDraw:
    """Lenses and other cutouts that brightness does not tell apart, as far as there was a choice."""

    chosen: NDArray[np.int64]
    """Rows of the proposed lenses, ascending."""
    others: NDArray[np.int64]
    """Rows of the cutouts that were looked at, ascending; hosts of chosen lenses are not among them."""
    auroc: float | None
    """That of the feature whose AUROC is farthest from 1/2; None without lenses or others."""


def matched_draw(
    proposed: Floats, owners: NDArray[np.int64], looked_at: Floats, *, lenses: int, others: int, seed: int
) -> MatchedDraw:
    """Draw lenses and other cutouts of like brightness.

    Parameters
    ----------
    proposed : ndarray, shape (N, F)
        Features of the lenses to choose from.
    owners : ndarray of int64, shape (N,)
        The cutout, a row of `looked_at`, that each of them was painted on.
    looked_at : ndarray, shape (R, F)
        Features of the cutouts to choose from.
    lenses, others : int
        How many of each; there are fewer others where the hosts leave no more.
    seed : int
        Not negative.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, len(proposed), len(looked_at)]))
    weights = overlap_weights(proposed, looked_at) if lenses else (np.empty(0), np.ones(len(looked_at)))

    def draw() -> MatchedDraw:
        chosen = draw_weighted(weights[0], lenses, generator)
        free = np.setdiff1d(np.arange(len(looked_at)), owners[chosen])
        taken = free[draw_weighted(weights[1][free], others, generator)]
        areas = brightness_auroc(proposed[chosen], looked_at[taken]) if lenses and len(taken) else None
        auroc = None if areas is None else float(areas[np.abs(areas - 0.5).argmax()])
        return MatchedDraw(chosen=chosen, others=taken, auroc=auroc)

    def cost(drawn: MatchedDraw) -> tuple[int, float]:
        return others - len(drawn.others), 0.0 if drawn.auroc is None else abs(drawn.auroc - 0.5)

    best = draw()
    for _ in range(DRAWS - 1):
        if cost(best) <= (0, BALANCED):
            break
        best = min(best, draw(), key=cost)
    return best


def draw_weighted(weights: Floats, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` items without repetition, each with a chance in proportion to its weight as far as that is below 1.

    Returns
    -------
    ndarray of int64, shape (count,)
        Ascending places in `weights`; all of them where there are no more.
    """
    if count >= len(weights):
        return np.arange(len(weights))
    if count == 0:
        return np.empty(0, np.int64)
    chances = _chances(weights, count)
    order = generator.permutation(len(weights))
    # Systematic sampling: one item is drawn wherever the summed chances, from a random start, pass a whole number.
    steps = np.floor(np.cumsum(chances[order]) * (count / chances.sum()) + generator.random())
    drawn = order[np.diff(steps, prepend=0.0) > 0][:count]
    rest = np.setdiff1d(order, drawn)
    return np.sort(np.concatenate([drawn, rest[: count - len(drawn)]]))


def _chances(weights: Floats, count: int) -> Floats:
    """Numbers of sum `count`, in proportion to the weights and at most 1."""
    chances = np.minimum((weights + 1e-12) / (weights + 1e-12).sum() * count, 1.0)
    for _ in range(100):
        free = chances < 1
        missing = count - chances.sum()
        if missing < 1e-6 or not free.any():
            break
        chances[free] = np.minimum(chances[free] * (1 + missing / chances[free].sum()), 1.0)
    return chances
