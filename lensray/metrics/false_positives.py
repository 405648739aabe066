"""False positive rates with what a sample can say of them.

Of a billion galaxies a few ten thousand are lenses: half of a list is lenses only where a false positive rate is near
1e-5. A sample of ten thousand non-lenses cannot tell such a rate from zero, so that it is refused, not extrapolated.
"""

import math
from dataclasses import dataclass

import numpy as np

from lensray.errors import InputError
from lensray.metrics.counts import ClassCounts
from lensray.metrics.intervals import ONE_SIGMA, binomial_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A share that was counted, with its interval."""

    found: int
    """So many."""
    total: int
    """Of so many."""
    low: float
    """Lower end of the interval (Jeffreys)."""
    high: float
    """Upper end."""

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.found / self.total if self.total else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """What a threshold does."""

    threshold: float
    """Score from which on a cutout is taken for a lens; infinite where no lens is found."""
    false_positives: Rate
    """Non-lenses taken for lenses."""
    true_positives: Rate
    """Lenses found."""


def false_positive_rate(counts: ClassCounts, threshold: float, level: float = ONE_SIGMA) -> Rate:
    """Share of the non-lenses with a score of at least `threshold`, which must be the score of a lens.

    Raises
    ------
    ValueError
        If no lens has this score, so that the non-lenses above it were not counted.
    """
    place = int(np.searchsorted(counts.thresholds, threshold))
    if place == len(counts.thresholds) or counts.thresholds[place] != threshold:
        raise ValueError(f"false positives are known at scores of lenses alone; {threshold} is none")
    taken = counts.negatives_greater[place] + counts.negatives[place]
    return _rate(int(taken), counts.n_negatives, level)


def threshold_at_false_positive_rate(
    counts: ClassCounts, rate: float, level: float = ONE_SIGMA
) -> OperatingPoint:
    """The lowest score of a lens from which on at most this share of the non-lenses is taken for lenses.

    Parameters
    ----------
    counts : ClassCounts
        Lenses and non-lenses.
    rate : float
        False positive rate, in (0, 1].
    level : float
        Of the intervals.

    Raises
    ------
    InputError
        If the rate is below one false positive in the sample, or no rate.
    """
    n = counts.n_negatives
    if not 0 < rate <= 1:
        raise InputError(f"a false positive rate lies between 0 and 1; got {rate}")
    if rate * n < 1 - 1e-9:
        smallest = f"the smallest that can be quoted is one in {n:,} ({1 / n:.2g})" if n else "there are none"
        raise InputError(
            f"a false positive rate of {rate:g} cannot be told from zero with {n:,} non-lenses: {smallest}; give more "
            f"non-lenses, at least {math.ceil(1 / rate):,}, or a higher rate"
        )
    taken = counts.negatives_greater + counts.negatives
    allowed = np.flatnonzero(taken <= rate * n * (1 + 1e-12))
    place = int(allowed[0]) if len(allowed) else None
    found = 0 if place is None else int(counts.positives[place:].sum())
    return OperatingPoint(
        threshold=math.inf if place is None else float(counts.thresholds[place]),
        false_positives=_rate(0 if place is None else int(taken[place]), n, level),
        true_positives=_rate(found, counts.n_positives, level),
    )


def _rate(found: int, total: int, level: float) -> Rate:
    low, high = binomial_interval(found, total, level)
    return Rate(found=found, total=total, low=float(low), high=float(high))
