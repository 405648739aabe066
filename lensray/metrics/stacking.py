"""Several models' answers as one: a logistic regression of the classes on their log odds (Wolpert 1992, stacking).

Weights are not negative: a model that is worse than chance is left out, not turned around. What the fusion gains over
the plain mean of the models' probabilities is measured by cross-validation, with the error that the sample allows.

The fused score is calibrated for the mix of lenses and non-lenses that it was fitted on. Where lenses are rarer it is too
high, by the same factor in the odds for every cutout, so that the ranking is not touched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import StratifiedKFold

from lensray.metrics import bootstrap
from lensray.metrics.calibration import brier_score, expected_calibration_error
from lensray.metrics.classification import auroc, tpr0, tpr10, tpr_before
from lensray.metrics.counts import ClassCounts

FOLDS = 5
LOW_RATE = 0.01

Scores = NDArray[np.float64]


def tpr_at_low_rate(scores: Scores, is_lens: NDArray[np.bool_]) -> float:
    """True positive rate at a false positive rate of at most 1%."""
    counts = ClassCounts.of(scores, is_lens)
    return tpr_before(counts, int(LOW_RATE * counts.n_negatives) + 1)


METRICS: Mapping[str, Callable[[Scores, NDArray[np.bool_]], float]] = {
    "auroc": auroc,
    "tpr0": tpr0,
    "tpr10": tpr10,
    "tpr_at_1_percent": tpr_at_low_rate,
    "brier_score": brier_score,
    "calibration_error": expected_calibration_error,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """Weights of a committee."""

    weights: NDArray[np.float64]
    """Weight of each member's log odds, none negative; shape (members,)."""
    bias: float
    """Added to the weighted sum."""

    def probabilities(self, odds_NM: NDArray) -> Scores:
        """Fused probabilities of log odds (N, members)."""
        return np.asarray(expit(odds_NM @ self.weights + self.bias), np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionReport:
    """What a fusion is worth: metrics by name, of cutouts that its weights were not fitted on."""

    members: dict[str, dict[str, float]]
    """Each member alone."""
    mean: dict[str, float]
    """Plain mean of the members' probabilities: the baseline."""
    fused: dict[str, float]
    """The learned fusion."""
    gain: dict[str, tuple[float, float]]
    """Fused minus mean, and its standard error by bootstrap; of Brier score and calibration error less is better."""
    weights: dict[str, float]
    """Weight of each member, and ``bias``, fitted on everything."""
    n_lenses: int
    """Lenses that it was measured on."""
    n_non_lenses: int
    """Non-lenses."""
    n_left_out: int
    """Cutouts for which a member gave no finite answer."""

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def fit(odds_NM: NDArray, is_lens: NDArray[np.bool_]) -> Fusion:
    """Logistic regression of the classes on the members' log odds, with weights that are not negative.

    Parameters
    ----------
    odds_NM : ndarray, shape (N, models)
    is_lens : ndarray of bool, shape (N,)

    Returns
    -------
    Fusion
        Rows with log odds that are not finite take no part.

    Notes
    -----
    Minimized is the summed cross-entropy plus half the squared weights, where log odds are counted in units of their
    scatter: scikit-learn's penalty with ``C = 1``. Without it the weights of perfect members would grow without end.
    """
    finite = np.isfinite(odds_NM).all(1)
    odds_NM, is_lens = odds_NM[finite], is_lens[finite]
    scale = np.maximum(odds_NM.std(0), 1e-6)
    features = odds_NM / scale
    signs = np.where(is_lens, 1.0, -1.0)

    def cost(parameters: NDArray) -> tuple[float, NDArray]:
        margins = signs * (features @ parameters[:-1] + parameters[-1])
        slopes = -signs * expit(-margins)
        value = np.logaddexp(0, -margins).sum() + 0.5 * np.square(parameters[:-1]).sum()
        return float(value), np.append(features.T @ slopes + parameters[:-1], slopes.sum())

    members = odds_NM.shape[1]
    start = np.append(np.full(members, 1 / members), 0.0)
    limits = [(0, None)] * members + [(None, None)]
    found = minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-12, "gtol": 1e-8}
    )
    return Fusion(weights=found.x[:-1] / scale, bias=float(found.x[-1]))


def cross_validated(odds_NM: NDArray, is_lens: NDArray[np.bool_], *, seed: int = 0) -> Scores:
    """Fused probabilities of each cutout, by weights that were fitted on the other folds.

    Raises
    ------
    ValueError
        If there are fewer lenses or non-lenses than folds.
    """
    smaller = min(int(is_lens.sum()), int((~is_lens).sum()))
    if smaller < FOLDS:
        raise ValueError(
            f"a fusion is measured on at least {FOLDS} lenses and as many non-lenses; got {int(is_lens.sum())} and "
            f"{int((~is_lens).sum())}"
        )
    scores = np.empty(len(is_lens))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(odds_NM, is_lens):
        scores[held_out] = fit(odds_NM[fitted], is_lens[fitted]).probabilities(odds_NM[held_out])
    return scores


def measure(
    names: Sequence[str], odds_NM: NDArray, is_lens: NDArray[np.bool_], fusion: Fusion, *, seed: int = 0
) -> FusionReport:
    """What a fusion is worth, by cross-validation.

    Parameters
    ----------
    names : sequence of str
        Of the models.
    odds_NM : ndarray, shape (N, models)
        Log odds; rows with one that is not finite are left out and counted.
    is_lens : ndarray of bool, shape (N,)
    fusion : Fusion
        Fitted on everything, for its weights.
    seed : int
        Of the folds and of the bootstrap.

    Raises
    ------
    ValueError
        If there are fewer lenses or non-lenses than folds.
    """
    finite = np.isfinite(odds_NM).all(1)
    odds_NM, is_lens = odds_NM[finite], is_lens[finite]
    fused, alone_NM = cross_validated(odds_NM, is_lens, seed=seed), expit(odds_NM)
    mean = alone_NM.mean(1)
    gain = {
        name: (
            metric(fused, is_lens) - metric(mean, is_lens),
            bootstrap.standard_error_of_difference(metric, fused, mean, is_lens, seed=seed),
        )
        for name, metric in METRICS.items()
    }
    return FusionReport(
        members={name: _measured(alone_NM[:, i], is_lens) for i, name in enumerate(names)},
        mean=_measured(mean, is_lens),
        fused=_measured(fused, is_lens),
        gain=gain,
        weights={**dict(zip(names, fusion.weights.tolist(), strict=True)), "bias": fusion.bias},
        n_lenses=int(is_lens.sum()),
        n_non_lenses=int((~is_lens).sum()),
        n_left_out=int((~finite).sum()),
    )


def _measured(scores: Scores, is_lens: NDArray[np.bool_]) -> dict[str, float]:
    return {name: metric(scores, is_lens) for name, metric in METRICS.items()}
