"""Classification metrics: lenses against non-lenses, at a threshold or over all of them.

The field's terms differ: *completeness* is the true positive rate (recall); *contamination* is, here as in the
LSST class project that LensRay derives from, the false positive rate, the share of the non-lenses that is taken
for lenses; *purity* is the precision, the share of lenses among what is taken for a lens. Others call 1 - purity
contamination. With one lens in ten thousand galaxies a small contamination is still a poor purity.

AUROC is saturated in this field; what distinguishes finders is how many lenses they bring before the first false
positive (TPR0) and before the tenth (TPR10), the measures of the lens finding challenge (Metcalf et al. 2019).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensray.metrics.counts import ClassCounts
from lensray.metrics.ranking import ranking_performance_of


@dataclass(frozen=True, kw_only=True, slots=True)
class RocCurve:
    """Receiver operating characteristic, from (0, 0) to (1, 1); every array has the shape (S,)."""

    false_positive_rate: NDArray[np.float64]
    """Non-lenses at or above the threshold, over all non-lenses."""
    true_positive_rate: NDArray[np.float64]
    """Lenses at or above the threshold, over all lenses."""
    n_negatives: int
    """Number of non-lenses: no false positive rate below its inverse is resolved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusionMatrix:
    """Lenses and non-lenses taken for lenses (score at or above the threshold) or not."""

    true_positives: int
    """Lenses found."""
    false_negatives: int
    """Lenses missed."""
    false_positives: int
    """Non-lenses taken for lenses."""
    true_negatives: int
    """Non-lenses left aside."""

    @property
    def completeness(self) -> float:
        """Share of the lenses that is found (true positive rate); NaN without a lens."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def contamination(self) -> float:
        """Share of the non-lenses that is taken for lenses (false positive rate); NaN without a non-lens."""
        return _ratio(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def purity(self) -> float:
        """Share of lenses among what is taken for a lens (precision); NaN where nothing is."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def roc_curve(scores: ArrayLike, is_lens: ArrayLike) -> RocCurve:
    """True positive rate against false positive rate, over all thresholds.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
    is_lens : array_like of bool, shape (N,)

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, or there are no lenses or no non-lenses.

    Examples
    --------
    >>> roc = roc_curve([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
    >>> roc.false_positive_rate.tolist(), roc.true_positive_rate.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    return roc_curve_of(ClassCounts.of(scores, is_lens))


def roc_curve_of(counts: ClassCounts) -> RocCurve:
    """`roc_curve` of counted scores.

    The corners alone: before and after each score that a lens has. Ties give a slanted piece.
    """
    _check_negatives(counts)
    before = counts.negatives_greater[::-1], counts.positives_greater[::-1]
    after = before[0] + counts.negatives[::-1], before[1] + counts.positives[::-1]
    false, true = (np.column_stack([b, a]).ravel() for b, a in zip(before, after, strict=True))
    corners = np.column_stack(
        [
            np.concatenate([[0], false, [counts.n_negatives]]),
            np.concatenate([[0], true, [counts.n_positives]]),
        ]
    )
    corners = corners[np.append(True, (np.diff(corners, axis=0) != 0).any(axis=1))]
    return RocCurve(
        false_positive_rate=corners[:, 0] / counts.n_negatives,
        true_positive_rate=corners[:, 1] / counts.n_positives,
        n_negatives=counts.n_negatives,
    )


def _check_negatives(counts: ClassCounts) -> None:
    if not counts.n_negatives:
        raise ValueError("there is no non-lens to measure against; add cutouts that are not lenses")


def auroc(scores: ArrayLike, is_lens: ArrayLike) -> float:
    """Area under the ROC: the chance that a lens outranks a non-lens, ties counting half.

    Examples
    --------
    >>> auroc([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
    0.75
    """
    return auroc_of(ClassCounts.of(scores, is_lens))


def auroc_of(counts: ClassCounts) -> float:
    """`auroc` of counted scores."""
    return (1 + ranking_performance_of(counts)) / 2


def tpr0(scores: ArrayLike, is_lens: ArrayLike) -> float:
    """True positive rate at the lowest threshold that lets no non-lens through (Metcalf et al. 2019).

    Examples
    --------
    >>> tpr0([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
    0.5
    """
    return tpr_before(ClassCounts.of(scores, is_lens), 1)


def tpr10(scores: ArrayLike, is_lens: ArrayLike) -> float:
    """True positive rate reached with fewer than ten false positives (Metcalf et al. 2019).

    Notes
    -----
    Ties count against the model: a lens is found only after all non-lenses of its score. With fewer
    than ten non-lenses it is 1, whatever the scores; so is TPR0 without any, which is refused.
    """
    return tpr_before(ClassCounts.of(scores, is_lens), 10)


def tpr_before(counts: ClassCounts, false_positives: int) -> float:
    """True positive rate reached before that many false positives, ties counting against the model."""
    _check_negatives(counts)
    found = counts.negatives_greater + counts.negatives < false_positives
    return float(counts.positives[found].sum() / counts.n_positives)


def confusion_matrix(scores: ArrayLike, is_lens: ArrayLike, threshold: float = 0.5) -> ConfusionMatrix:
    """Lenses and non-lenses with a score at or above `threshold`, and below.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
    is_lens : array_like of bool, shape (N,)
    threshold : float

    Raises
    ------
    ValueError
        If the shapes differ or a score is NaN.

    Examples
    --------
    >>> matrix = confusion_matrix([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
    >>> matrix.completeness, matrix.contamination, matrix.purity
    (0.5, 0.5, 0.5)
    """
    values, lens = np.asarray(scores, dtype=np.float64), np.asarray(is_lens, dtype=bool)
    if values.shape != lens.shape:
        raise ValueError(f"scores and classes must be of one shape (N,); got {values.shape} and {lens.shape}")
    if np.isnan(values).any():
        raise ValueError("a score is NaN; leave out the cutouts that have no score")
    taken = values >= threshold
    return ConfusionMatrix(
        true_positives=int((taken & lens).sum()),
        false_negatives=int((~taken & lens).sum()),
        false_positives=int((taken & ~lens).sum()),
        true_negatives=int((~taken & ~lens).sum()),
    )


def completeness(scores: ArrayLike, is_lens: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the lenses with a score at or above `threshold`: the true positive rate."""
    return confusion_matrix(scores, is_lens, threshold).completeness


def contamination(scores: ArrayLike, is_lens: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the non-lenses with a score at or above `threshold`: the false positive rate."""
    return confusion_matrix(scores, is_lens, threshold).contamination


def purity(scores: ArrayLike, is_lens: ArrayLike, threshold: float = 0.5) -> float:
    """Share of lenses among the cutouts with a score at or above `threshold`: the precision."""
    return confusion_matrix(scores, is_lens, threshold).purity
