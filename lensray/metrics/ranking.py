"""Ranking metrics: how far down the list the known lenses are.

Known lenses (*tracers*) are put among all the cutouts of a survey and ranked with them. What counts is how much
of the list has to be inspected by eye to recover them: the tracer rank curve (TRC), and its one-number summary,
the ranking performance (Pourrahmani 2019, sections 2.4 and 4.6; Pourrahmani et al. 2018, arXiv:1705.05857).
A *rank* counts from 1 at the highest score; a *relative rank* is the rank over the number of cutouts N.

Each measure takes scores in memory; the functions of `ClassCounts` do the same for a survey that was counted
in fragments, with identical results.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from lensray.metrics.counts import ClassCounts, RankCounts

__all__ = [
    "ClassCounts",
    "RankCounts",
    "RankCurve",
    "efficiency",
    "interpolated_ranking_performance",
    "ordinality",
    "rank_curve_of",
    "ranking_performance",
    "ranking_performance_of",
    "ranks_of",
    "recall_at",
    "recovered_of",
    "relative_ranks",
    "tracer_rank_curve",
]

Ties = Literal["worst", "mid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCurve:
    """Recall of the tracers as a function of inspection depth."""

    depth: NDArray[np.int64]
    """Number of cutouts inspected from the top, strictly increasing; shape (S,)."""
    recall: NDArray[np.float64]
    """Fraction of the tracers found at that depth, in (0, 1]; shape (S,)."""
    n_tracers: int
    """Number of tracers."""
    n: int
    """Number of cutouts in the whole list."""


def tracer_rank_curve(scores: ArrayLike, is_tracer: ArrayLike) -> RankCurve:
    """Recall of known lenses as a function of inspection depth.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
        Model score of each cutout; higher is more lens-like.
    is_tracer : array_like of bool, shape (N,)
        True where the cutout holds a tracer. A lens must appear once only.

    Returns
    -------
    RankCurve
        ``depth``, shape (S,), strictly increasing, in cutouts; ``recall``, shape (S,), in (0, 1].

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, or there is no tracer.

    Notes
    -----
    Equal scores share the worst rank of their group, so a model that gives every cutout one score
    gains nothing by it. A random ordering has expected recall ``depth / N``.

    Examples
    --------
    >>> curve = tracer_rank_curve([0.9, 0.8, 0.7, 0.2, 0.1], [1, 0, 1, 0, 0])
    >>> curve.depth.tolist(), curve.recall.tolist()
    ([1, 3], [0.5, 1.0])
    """
    return rank_curve_of(ClassCounts.of(scores, is_tracer))


def recall_at(scores: ArrayLike, is_tracer: ArrayLike, share: float) -> float:
    """Part of the tracers within the top `share` of the list, at least one cutout; ties count against the model.

    >>> recall_at([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 0.5)
    0.5
    """
    curve = tracer_rank_curve(scores, is_tracer)
    found = curve.recall[curve.depth <= max(1.0, share * curve.n)]
    return float(found[-1]) if len(found) else 0.0


def rank_curve_of(counts: ClassCounts) -> RankCurve:
    """`tracer_rank_curve` of counted scores."""
    found = np.cumsum(counts.positives[::-1])
    depth = found + (counts.negatives_greater + counts.negatives)[::-1]
    return RankCurve(depth=depth, recall=found / counts.n_positives, n_tracers=counts.n_positives, n=counts.n)


def ranking_performance(scores: ArrayLike, is_tracer: ArrayLike) -> float:
    """Area between the tracer rank curve and no discrimination, over that of a perfect classifier.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
    is_tracer : array_like of bool, shape (N,)

    Returns
    -------
    float
        1 with all tracers in the highest ranks, 0 (expected) for a random order, -1 with all in the lowest.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, there is no tracer, or nothing else.

    Notes
    -----
    The thesis (section 2.4) divides by the perfect classifier's area, "approximately 1/2" where the pool is
    large. We divide by its exact area for n tracers among N cutouts, ``(1 - n/N) / 2``, so that a perfect
    order gives 1 in any pool. The curve joins its steps linearly, which gives tied scores their mid-rank
    and one score for all cutouts the value 0. The result is then equal to ``2 AUROC - 1`` of the
    tracers against all the rest (Gini coefficient), for any N and n.

    Examples
    --------
    >>> round(ranking_performance([0.9, 0.8, 0.7, 0.2, 0.1], [1, 0, 1, 0, 0]), 6)
    0.666667
    """
    return ranking_performance_of(ClassCounts.of(scores, is_tracer))


def ranking_performance_of(counts: ClassCounts) -> float:
    """`ranking_performance` of counted scores."""
    if not counts.n_negatives:
        raise ValueError(
            "every cutout is a tracer, so there is nothing to rank them against; add other cutouts"
        )
    outranked = counts.negatives_greater + counts.negatives / 2
    return float(1 - 2 * np.dot(counts.positives, outranked) / (counts.n_positives * counts.n_negatives))


def relative_ranks(scores: ArrayLike, is_tracer: ArrayLike, ties: Ties = "worst") -> NDArray[np.float64]:
    """Rank of each tracer among all cutouts, over their number.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
    is_tracer : array_like of bool, shape (N,)
    ties : {"worst", "mid"}
        Rank that equal scores share: the lowest place of their group, or the middle one. LensFlow's
        notebook takes the first place of a group, which rewards a model that gives equal scores to many.

    Returns
    -------
    ndarray, shape (n,)
        Ascending, in (0, 1].

    Examples
    --------
    >>> relative_ranks([0.9, 0.8, 0.7, 0.2, 0.1], [1, 0, 1, 0, 0]).tolist()
    [0.2, 0.6]
    """
    counts = ClassCounts.of(scores, is_tracer)
    return ranks_of(counts, ties) / counts.n


def ranks_of(counts: ClassCounts, ties: Ties = "worst") -> NDArray[np.float64]:
    """Ranks of the positives among all cutouts, ascending from 1 = best; shape (n,)."""
    greater = counts.positives_greater + counts.negatives_greater
    equal = counts.positives + counts.negatives
    rank = greater + (equal if ties == "worst" else (equal + 1) / 2)
    return np.repeat(rank, counts.positives)[::-1].astype(np.float64)


def recovered_of(counts: ClassCounts, depth: int) -> int:
    """How many positives are certain to be among the first `depth` cutouts, whatever the order of ties."""
    return int((ranks_of(counts) <= depth).sum())


def efficiency(relative_ranks: ArrayLike) -> float:
    """Mean relative rank of the tracers, scaled to 1 for the top, 0 for a random order and -1 for the bottom.

    ``2 mean(1 - r) - 1``, as LensFlow's notebook defines classification efficiency. Unlike
    `ranking_performance` it falls short of 1 for a perfect order, by (n + 1) / N.

    Examples
    --------
    >>> round(efficiency([0.1, 0.2]), 6)
    0.7
    """
    ranks = _checked_ranks(relative_ranks)
    return float(2 * np.mean(1 - ranks) - 1)


def interpolated_ranking_performance(relative_ranks: ArrayLike) -> float:
    """Ranking performance as LensFlow's notebook computes it from the tracers' relative ranks alone.

    Parameters
    ----------
    relative_ranks : array_like of float, shape (n,)
        Rank over the number of cutouts, in any order.

    Returns
    -------
    float
        ``1 - 2 ∫ r(x) dx`` over x in [0, 1].

    Raises
    ------
    ValueError
        If there is no rank, or one is not in (0, 1].

    Notes
    -----
    The notebook interpolates the points (i/n, r_i), i = 1 … n, with Mathematica's ``Interpolation``: on each
    interval the cubic through the four nearest points, the first of which is extrapolated to x = 0. Here the
    pieces are integrated exactly. With fewer than four points the one polynomial through all of them is used,
    of degree n - 1. The 52 ranks that the notebook prints give its 0.596667 (the trapezium rule 0.596879).
    For large n and N this approaches `ranking_performance`; it knows nothing of the pool's finite size.

    Examples
    --------
    >>> round(interpolated_ranking_performance([0.1, 0.2, 0.3, 0.4]), 6)
    0.6
    """
    ranks = np.sort(_checked_ranks(relative_ranks))
    n = len(ranks)
    width = min(4, n)
    pieces = np.arange(-1, n - 1)  # left ends of the intervals, in nodes; -1 is the extrapolation to x = 0
    first = np.clip(pieces - 1, 0, n - width)
    weights = np.stack([_lagrange_integrals(width, offset) for offset in pieces - first])
    nodes = np.lib.stride_tricks.sliding_window_view(ranks, width)[first]
    return float(1 - 2 * np.sum(weights * nodes) / n)


def _lagrange_integrals(width: int, start: int) -> NDArray[np.float64]:
    """Integrals from `start` to `start` + 1 of the Lagrange polynomials of the nodes 0 … width - 1."""
    powers = np.arange(1, width + 1)
    moments = ((start + 1.0) ** powers - float(start) ** powers) / powers
    vandermonde = np.vander(np.arange(width, dtype=np.float64), increasing=True)
    return np.asarray(np.linalg.solve(vandermonde.T, moments), dtype=np.float64)


def _checked_ranks(relative_ranks: ArrayLike) -> NDArray[np.float64]:
    ranks = np.asarray(relative_ranks, dtype=np.float64).ravel()
    if not len(ranks) or not ((ranks > 0) & (ranks <= 1)).all():
        raise ValueError(
            "relative ranks must be at least one number in (0, 1]: rank over the number of cutouts"
        )
    return ranks


def ordinality(scores: ArrayLike) -> NDArray[np.float64]:
    """Position of each cutout in the list from lowest to highest score, over the size of the list.

    Parameters
    ----------
    scores : array_like of float, shape (N,)

    Returns
    -------
    ndarray, shape (N,)
        ``(n_less + 1) / N``, in (0, 1]. The best cutout, if no other shares its score, has 1.

    Raises
    ------
    ValueError
        If a score is NaN.

    Notes
    -----
    The thesis (section 4.6) lets the position stand still for equal scores: they share the lowest position
    of their group, and no score gains by being common. Its "top 0.5%" is ``ordinality > 0.995``.

    Examples
    --------
    >>> ordinality([0.2, 0.9, 0.9, 0.1]).tolist()
    [0.5, 0.75, 0.75, 0.25]
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a score is NaN; leave out the cutouts that have no score")
    position = np.asarray(rankdata(values, method="min"), dtype=np.float64)
    return np.divide(position, max(len(values), 1), dtype=np.float64)
