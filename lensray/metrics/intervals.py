"""Intervals of a share that was counted: k of n."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

ONE_SIGMA = 0.6827
"""Level of an interval that would be ±1 standard deviation of a normal distribution."""


def binomial_interval(
    found: ArrayLike, total: ArrayLike, level: float = ONE_SIGMA
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Equal-tailed Jeffreys interval of the share of which `found` of `total` is a sample.

    Quantiles of the beta distribution with parameters ``found + 1/2`` and ``total - found + 1/2``; 0 where nothing and
    1 where all was found (Brown, Cai & DasGupta 2001, Statistical Science 16, 101; for astronomers Cameron 2011,
    PASA 28, 128). Its coverage is near the level on average over shares, also for small samples.

    Parameters
    ----------
    found, total : array_like of int
        Of shapes that broadcast; without a total the interval is all of [0, 1].
    level : float
        Coverage that is aimed at, in (0, 1).

    Returns
    -------
    low, high : arrays of float64

    Raises
    ------
    ValueError
        If more was found than there is, or a number is negative.

    Examples
    --------
    >>> low, high = binomial_interval([0, 5, 10], 10)
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.349, 0.908], [0.092, 0.651, 1.0])
    """
    k, n = np.broadcast_arrays(np.asarray(found, np.float64), np.asarray(total, np.float64))
    if (k < 0).any() or (k > n).any():
        raise ValueError("a share is a number found of at least as many, and no number is negative")
    low, high = (beta.ppf(p, k + 0.5, n - k + 0.5) for p in ((1 - level) / 2, (1 + level) / 2))
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)
