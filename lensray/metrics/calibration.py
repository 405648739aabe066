"""Calibration: whether a score of 0.9 means nine lenses in ten.

A ranking does not need it; a threshold, an expected number of lenses and the mean of several models' scores do. It
holds for the mix of lenses and non-lenses that it is measured on: among fewer lenses the same scores are too high
(`lensray.metrics.probabilities` corrects both).

Functions that end in ``_of`` take counts: how many lenses and non-lenses have each value. A survey's scores do not
fit into memory, but how many there are in narrow bins of their log odds does (`LogOddsCounts`).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

BINS = 10
LEAST_SCORE = 2.0**-24
"""A score nearer to 0 or 1 counts as this far away: no float32 but 1 itself is nearer to 1."""
LARGEST_LOG_ODDS = float(np.log1p(-LEAST_SCORE) - np.log(LEAST_SCORE))
LOG_ODDS_BINS = 512
"""Bins of `LogOddsCounts`, 0.065 wide: as wide as a factor of 1.07 in the odds."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Scores in bins; every array has the shape (bins with scores,)."""

    mean_score: Numbers
    """Mean score of the bin."""
    lens_fraction: Numbers
    """Share of lenses in it."""
    count: NDArray[np.int64]
    """Cutouts in it."""

    @property
    def n_lenses(self) -> NDArray[np.int64]:
        """Lenses in each bin."""
        return np.rint(self.lens_fraction * self.count).astype(np.int64)


@dataclass(slots=True)
class LogOddsCounts:
    """Numbers of lenses and non-lenses in equal bins of the log odds of their scores."""

    lenses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LOG_ODDS_BINS, np.int64))
    """Lenses in each bin."""
    non_lenses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LOG_ODDS_BINS, np.int64))
    """Non-lenses in each bin."""

    @property
    def log_odds(self) -> Numbers:
        """Middle of each bin."""
        middles = np.arange(LOG_ODDS_BINS, dtype=np.float64) + 0.5
        return np.asarray(middles * (2 * LARGEST_LOG_ODDS / LOG_ODDS_BINS) - LARGEST_LOG_ODDS, np.float64)

    @property
    def scores(self) -> Numbers:
        """Score in the middle of each bin."""
        return np.asarray(expit(self.log_odds), np.float64)

    def add(self, scores: Numbers, is_lens: NDArray[np.bool_], is_other: NDArray[np.bool_]) -> None:
        """Count scores, of lenses and of non-lenses; those that are neither are left out."""
        places = (log_odds(scores) / LARGEST_LOG_ODDS + 1) * (LOG_ODDS_BINS / 2)
        places = np.clip(np.floor(places), 0, LOG_ODDS_BINS - 1).astype(np.int64)
        # Not in place: what comes from another process is read-only.
        self.lenses = self.lenses + np.bincount(places[is_lens], minlength=LOG_ODDS_BINS)
        self.non_lenses = self.non_lenses + np.bincount(places[is_other], minlength=LOG_ODDS_BINS)

    def merge(self, other: "LogOddsCounts") -> None:
        """Add the counts of other fragments."""
        self.lenses = self.lenses + other.lenses
        self.non_lenses = self.non_lenses + other.non_lenses


def log_odds(scores: ArrayLike) -> Numbers:
    """``log(p / (1 - p))`` of scores, finite at 0 and 1 too (`LEAST_SCORE`); NaN stays NaN.

    >>> log_odds([0.0, 0.5, 1.0]).round(3).tolist()
    [-16.636, 0.0, 16.636]
    """
    values = np.clip(np.asarray(scores, np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    return np.log(values) - np.log1p(-values)


def brier_score(scores: ArrayLike, is_lens: ArrayLike) -> float:
    """Mean squared difference of score and truth (Brier 1950): 0 is best, 1/4 is a constant score of one half.

    Examples
    --------
    >>> round(brier_score([0.9, 0.4], [True, False]), 6)
    0.085
    """
    values, lens = checked(scores, is_lens)
    return brier_score_of(values, lens, ~lens)


def brier_score_of(values: Numbers, lenses: ArrayLike, non_lenses: ArrayLike) -> float:
    """`brier_score` of so many lenses and non-lenses with each value; arrays of shape (B,)."""
    positive, negative = np.asarray(lenses, np.float64), np.asarray(non_lenses, np.float64)
    squares = positive @ (1 - values) ** 2 + negative @ values**2
    return float(squares / (positive.sum() + negative.sum()))


def expected_calibration_error(scores: ArrayLike, is_lens: ArrayLike, bins: int = BINS) -> float:
    """Mean distance between a bin's mean score and its share of lenses, weighted by its cutouts (Naeini et al. 2015).

    Examples
    --------
    >>> round(expected_calibration_error([0.95, 0.95, 0.05, 0.05], [True, True, False, False]), 6)
    0.05
    """
    return calibration_error_of(reliability(scores, is_lens, bins))


def calibration_error_of(found: Reliability) -> float:
    """`expected_calibration_error` of scores in bins."""
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
    values, lens = checked(scores, is_lens)
    return reliability_of(values, lens, ~lens, np.linspace(0, 1, bins + 1))


def reliability_of(
    values: Numbers, lenses: ArrayLike, non_lenses: ArrayLike, edges: ArrayLike
) -> Reliability:
    """`reliability` of so many lenses and non-lenses with each value; arrays of shape (B,).

    Values outside of `edges`, which ascend, belong to the bin at their end.
    """
    positive, negative = np.asarray(lenses, np.float64), np.asarray(non_lenses, np.float64)
    inner = np.asarray(edges, np.float64)[1:-1]
    places, bins = np.searchsorted(inner, values, side="right"), len(inner) + 1
    count = np.bincount(places, positive + negative, bins)
    used = count > 0
    return Reliability(
        mean_score=np.bincount(places, values * (positive + negative), bins)[used] / count[used],
        lens_fraction=np.bincount(places, positive, bins)[used] / count[used],
        count=count[used].astype(np.int64),
    )


def checked(scores: ArrayLike, is_lens: ArrayLike) -> tuple[Numbers, NDArray[np.bool_]]:
    """Probabilities and classes of one shape (N,); ValueError if they are none."""
    values, lens = np.asarray(scores, np.float64), np.asarray(is_lens, bool)
    if values.ndim != 1 or values.shape != lens.shape or not len(values):
        raise ValueError(f"scores and classes must be of one shape (N,); got {values.shape} and {lens.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("calibration is a property of probabilities; a score is NaN or not in [0, 1]")
    return values, lens
