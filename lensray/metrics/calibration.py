"""Calibration: whether a score of 0.9 means nine lenses in ten.

A ranking does not need it; a threshold, an expected number of lenses and the mean of several models' scores do. It
holds for the mix of lenses and non-lenses that it is measured on: among fewer lenses the same scores are too high.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Scores in equal bins from 0 to 1; every array has the shape (bins with scores,)."""

    mean_score: NDArray[np.float64]
    """Mean score of the bin."""
    lens_fraction: NDArray[np.float64]
    """Share of lenses in it."""
    count: NDArray[np.int64]
    """Cutouts in it."""


def brier_score(scores: ArrayLike, is_lens: ArrayLike) -> float:
    """Mean squared difference of score and truth (Brier 1950): 0 is best, 1/4 is a constant score of one half.

    Examples
    --------
    >>> round(brier_score([0.9, 0.4], [True, False]), 6)
    0.085
    """
    values, lens = _checked(scores, is_lens)
    return float(np.mean((values - lens) ** 2))


def expected_calibration_error(scores: ArrayLike, is_lens: ArrayLike, bins: int = BINS) -> float:
    """Mean distance between a bin's mean score and its share of lenses, weighted by its cutouts (Naeini et al. 2015).

    Examples
    --------
    >>> round(expected_calibration_error([0.95, 0.95, 0.05, 0.05], [True, True, False, False]), 6)
    0.05
    """
    found = reliability(scores, is_lens, bins)
    return float(np.average(np.abs(found.mean_score - found.lens_fraction), weights=found.count))


def reliability(scores: ArrayLike, is_lens: ArrayLike, bins: int = BINS) -> Reliability:
    """Mean score and share of lenses in equal bins of the score.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
        Probabilities, from 0 to 1.
    is_lens : array_like of bool, shape (N,)
    bins : int

    Raises
    ------
    ValueError
        If the shapes differ, there is no score, or one is not in [0, 1].
    """
    values, lens = _checked(scores, is_lens)
    places = np.minimum((values * bins).astype(np.int64), bins - 1)
    count = np.bincount(places, minlength=bins)
    used = count > 0
    return Reliability(
        mean_score=np.bincount(places, values, bins)[used] / count[used],
        lens_fraction=np.bincount(places, lens, bins)[used] / count[used],
        count=count[used],
    )


def _checked(scores: ArrayLike, is_lens: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, lens = np.asarray(scores, np.float64), np.asarray(is_lens, bool)
    if values.ndim != 1 or values.shape != lens.shape or not len(values):
        raise ValueError(f"scores and classes must be of one shape (N,); got {values.shape} and {lens.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("calibration is a property of probabilities; a score is NaN or not in [0, 1]")
    return values, lens
