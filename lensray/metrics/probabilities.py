"""Scores to probabilities: fitted on lenses and non-lenses, corrected for the lens rate of a survey.

Two fits. Platt's is a logistic curve of the score's log odds: two numbers, which keep the ranking and go on beyond the
sample (Platt 1999, "Probabilistic outputs for support vector machines"). Isotonic regression is the best ascending
step function (Ayer et al. 1955, pool adjacent violators); it has no shape to be wrong, but with fewer than a thousand
lenses it follows the noise (Niculescu-Mizil & Caruana 2005), it gives many scores one probability, and those above the
last non-lens a 1 that no sample supports.

A fit holds at the lens rate of its sample. At another rate the odds of every score change by one factor, if lenses and
non-lenses are each drawn as before (Elkan 2001; Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21,
equation 2.4): what is no lens in the sample must stand for what is no lens in the survey.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit
from sklearn.model_selection import StratifiedKFold

from lensray.metrics.calibration import (
    Numbers,
    brier_score,
    checked,
    expected_calibration_error,
    log_odds,
)
from lensray.metrics.counts import ClassCounts

FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Probabilities of scores, as plain numbers."""

    method: Literal["platt", "isotonic"]
    """Which fit it is."""
    lens_rate: float
    """Share of lenses in the sample that it was fitted on, in (0, 1)."""
    n_lenses: int
    """Lenses that it was fitted on."""
    n_non_lenses: int
    """Non-lenses."""
    slope: float = 1.0
    """Platt: the log odds of a lens are ``slope * log_odds(score) + intercept``."""
    intercept: float = 0.0
    """See `slope`."""
    steps: tuple[tuple[float, float], ...] = ()
    """Isotonic: pairs of a score and the probability from it on, both ascending; 0 below the first."""

    def probabilities(self, scores: ArrayLike, lens_rate: float | None = None) -> Numbers:
        """Lens probabilities of scores.

        Parameters
        ----------
        scores : array_like of float
            From 0 to 1; NaN gives NaN.
        lens_rate : float, optional
            Share of lenses among the cutouts that are asked for, in (0, 1): the odds are multiplied by the ratio of its
            odds to those of the sample's rate (Bayes' rule). By default the sample's. Probabilities of exactly 0
            and 1, which isotonic regression gives, stay what they are.
        """
        found = self._steps(scores) if self.method == "isotonic" else self._curve(scores)
        return found if lens_rate is None else at_lens_rate(found, self.lens_rate, lens_rate)

    def _curve(self, scores: ArrayLike) -> Numbers:
        return np.asarray(expit(self.slope * log_odds(scores) + self.intercept), np.float64)

    def _steps(self, scores: ArrayLike) -> Numbers:
        values = np.asarray(scores, np.float64)
        starts, heights = np.asarray(self.steps, np.float64).reshape(-1, 2).T
        found = np.append(0.0, heights)[np.searchsorted(starts, values, side="right")]
        return np.where(np.isnan(values), np.nan, found)

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold: the numbers that the method has."""
        left_out = {"steps"} if self.method == "platt" else {"slope", "intercept"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """What `to_json` wrote; further entries are left aside.

        Raises
        ------
        ValueError
            If it is not of this form.
        """
        try:
            numbers = {name: float(content[name]) for name in ("slope", "intercept") if name in content}
            found = cls(
                method=content["method"],
                lens_rate=float(content["lens_rate"]),
                n_lenses=int(content["n_lenses"]),
                n_non_lenses=int(content["n_non_lenses"]),
                steps=tuple((float(score), float(height)) for score, height in content.get("steps", ())),
                **numbers,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no calibration: {error!r}; it has the words of Calibration") from None
        if found.method not in ("platt", "isotonic") or not 0 < found.lens_rate < 1:
            raise ValueError(f"no calibration is by {found.method!r} at a lens rate of {found.lens_rate}")
        return found


def at_lens_rate(probabilities: ArrayLike, sample_rate: float, lens_rate: float) -> Numbers:
    """Probabilities that hold at one share of lenses, at another.

    Raises
    ------
    ValueError
        If a rate is not in (0, 1).

    Examples
    --------
    >>> at_lens_rate([0.5, 0.9], 0.5, 0.1).round(3).tolist()
    [0.1, 0.5]
    """
    if not (0 < sample_rate < 1 and 0 < lens_rate < 1):
        raise ValueError(f"a lens rate lies between 0 and 1; got {sample_rate} and {lens_rate}")
    values = np.asarray(probabilities, np.float64)
    lens = values * (lens_rate / sample_rate)
    return lens / (lens + (1 - values) * ((1 - lens_rate) / (1 - sample_rate)))


def fit_platt(scores: ArrayLike, is_lens: ArrayLike) -> Calibration:
    """Platt's calibration of scores from 0 to 1.

    Parameters
    ----------
    scores : array_like of float, shape (N,)
    is_lens : array_like of bool, shape (N,)

    Raises
    ------
    ValueError
        If the shapes differ, a score is not in [0, 1], or there is no lens or no non-lens.

    Notes
    -----
    Least cross-entropy with Platt's targets, ``(n + 1) / (n + 2)`` for the n lenses and ``1 / (m + 2)`` for the m
    non-lenses, so that classes that do not overlap give no infinite slope. Unlike his, the slope is not
    negative, so that the ranking is never turned around, and the curve is one of the score's log odds.
    """
    values, lens = checked(scores, is_lens)
    return fit_platt_of(log_odds(values), lens, ~lens)


def fit_platt_of(odds: ArrayLike, lenses: ArrayLike, non_lenses: ArrayLike) -> Calibration:
    """`fit_platt` of so many lenses and non-lenses with each log odds; arrays of shape (B,)."""
    values = np.asarray(odds, np.float64)
    positive, negative = np.asarray(lenses, np.float64), np.asarray(non_lenses, np.float64)
    n, m = _check_classes(positive.sum(), negative.sum())
    targets = (n + 1) / (n + 2), 1 / (m + 2)
    wanted, weight = positive * targets[0] + negative * targets[1], positive + negative
    center = np.average(values, weights=weight)
    scale = max(float(np.sqrt(np.average((values - center) ** 2, weights=weight))), 1e-6)
    features = (values - center) / scale

    def cost(parameters: Numbers) -> tuple[float, Numbers]:
        margins = parameters[0] * features + parameters[1]
        slopes = weight * expit(margins) - wanted
        value = weight @ np.logaddexp(0, margins) - wanted @ margins
        return float(value / (n + m)), np.array([slopes @ features, slopes.sum()]) / (n + m)

    start = np.array([1.0, np.log((n + 1) / (m + 1))])
    limits = [(0, None), (None, None)]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    slope, intercept = minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=limits, options=options
    ).x.tolist()
    return Calibration(
        method="platt",
        lens_rate=n / (n + m),
        n_lenses=n,
        n_non_lenses=m,
        slope=slope / scale,
        intercept=intercept - slope * center / scale,
    )


def fit_isotonic(scores: ArrayLike, is_lens: ArrayLike) -> Calibration:
    """Isotonic calibration of scores (errors as of `fit_platt`)."""
    values, lens = checked(scores, is_lens)
    return fit_isotonic_of(ClassCounts.of(values, lens))


def fit_isotonic_of(counts: ClassCounts) -> Calibration:
    """`fit_isotonic` of counted scores, exactly.

    Non-lenses between two neighbouring scores of lenses always share a step with the lens below them, so that
    how many there are, but not where, decides the fit.
    """
    n, m = _check_classes(counts.n_positives, counts.n_negatives)
    at = counts.positives + counts.negatives
    above = counts.negatives_greater - np.append(counts.negatives_greater + counts.negatives, 0)[1:]
    weights = np.column_stack([at, above]).ravel()
    shares = np.column_stack([counts.positives / at, np.zeros(len(at))]).ravel()
    below = m - counts.negatives_greater[0] - counts.negatives[0]
    weights, shares = np.append(below, weights), np.append(0.0, shares)
    used = weights > 0
    fitted = np.zeros(len(weights))
    fitted[used] = isotonic_regression(shares[used], weights=weights[used]).x
    heights = fitted[1::2]
    rises = np.append(True, np.diff(heights) > 0)
    return Calibration(
        method="isotonic",
        lens_rate=n / (n + m),
        n_lenses=n,
        n_non_lenses=m,
        steps=tuple(zip(counts.thresholds[rises].tolist(), heights[rises].tolist(), strict=True)),
    )


def _check_classes(lenses: float, non_lenses: float) -> tuple[int, int]:
    if lenses < 1 or non_lenses < 1:
        raise ValueError(f"a calibration needs lenses and non-lenses; got {lenses:g} and {non_lenses:g}")
    return int(lenses), int(non_lenses)


def calibrated(scores: ArrayLike, is_lens: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """Platt's calibration and what it is worth, as JSON can hold it: what a bundle's provenance says.

    Returns
    -------
    dict
        `Calibration.to_json`, and ``brier_score`` and ``expected_calibration_error``, each with ``before`` and
        ``after``, at the sample's lens rate; ``measured`` says on what: by cross-validation where there are
        enough lenses and non-lenses for it.
    """
    values, lens = checked(scores, is_lens)
    fit = fit_platt(values, lens)
    enough = min(fit.n_lenses, fit.n_non_lenses) >= FOLDS
    after = _held_out(values, lens, seed) if enough else fit.probabilities(values)
    errors = {
        metric.__name__: {"before": metric(values, lens), "after": metric(after, lens)}
        for metric in (brier_score, expected_calibration_error)
    }
    measured = f"{FOLDS}-fold cross-validation" if enough else "the sample that it was fitted on"
    return {**fit.to_json(), **errors, "measured": measured}


def _held_out(values: Numbers, lens: NDArray[np.bool_], seed: int) -> Numbers:
    """Probabilities by fits on the other folds."""
    found = np.empty(len(values))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(values, lens):
        found[held_out] = fit_platt(values[fitted], lens[fitted]).probabilities(values[held_out])
    return found
