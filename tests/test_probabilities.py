"""Scores to probabilities, against known truths, scikit-learn and slow minimizations."""

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from lensray.metrics.calibration import (
    LogOddsCounts,
    brier_score,
    expected_calibration_error,
    log_odds,
    reliability,
)
from lensray.metrics.probabilities import (
    Calibration,
    at_lens_rate,
    calibrated,
    fit_isotonic,
    fit_platt,
    fit_platt_of,
)
from lensray.metrics.scan_metrics import scan_metrics
from lensray.metrics.truth import TruthScores

LENSES: Any
OTHERS: Any
LENSES, OTHERS = stats.beta(3.0, 1.2), stats.beta(0.7, 4.0)


def sample(n_lenses: int, n_others: int, seed: int = 0):
    """Scores of lenses and non-lenses from known distributions."""
    scores = np.concatenate(
        [LENSES.rvs(n_lenses, random_state=seed), OTHERS.rvs(n_others, random_state=seed + 1)]
    )
    return np.clip(scores, 0, 1), np.arange(n_lenses + n_others) < n_lenses


def true_probability(scores, rate):
    lens = rate * LENSES.pdf(scores)
    return lens / (lens + (1 - rate) * OTHERS.pdf(scores))


def logistic(n: int, seed: int = 0):
    """Scores whose log odds of a lens are 0.6 of their own, less 1.2."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(-1, 3, n)
    return expit(odds), generator.random(n) < expit(0.6 * odds - 1.2)


def test_platt_recovers_a_known_logistic_curve():
    fit = fit_platt(*logistic(200_000))
    assert fit.slope == pytest.approx(0.6, abs=0.01)
    assert fit.intercept == pytest.approx(-1.2, abs=0.03)


def test_platt_on_many_scores_is_the_logistic_regression_of_scikit_learn():
    scores, lens = logistic(20_000)
    found = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds(scores)[:, None], lens)
    fit = fit_platt(scores, lens)
    assert fit.slope == pytest.approx(found.coef_[0, 0], rel=2e-3)
    assert fit.intercept == pytest.approx(found.intercept_[0], rel=2e-3)


def test_platt_minimizes_the_cross_entropy_of_his_smoothed_targets():
    scores, lens = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1, 0.05]), np.arange(7) < 3
    targets = np.where(lens, 4 / 5, 1 / 6)

    def entropy(parameters):
        found = expit(parameters[0] * log_odds(scores) + parameters[1])
        return -np.sum(targets * np.log(found) + (1 - targets) * np.log(1 - found))

    slow = minimize(entropy, [1, 0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x
    fit = fit_platt(scores, lens)
    np.testing.assert_allclose([fit.slope, fit.intercept], slow, atol=1e-5)


def test_scores_of_zero_and_one_and_separated_classes_give_probabilities_inside():
    fit = fit_platt([0, 0, 0, 1, 1], [False, False, False, True, True])
    found = fit.probabilities([0, 1e-30, 0.5, 1])
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert found[0] == pytest.approx(1 / 5, abs=1e-4)  # Platt's targets of 3 and 2
    assert found[-1] == pytest.approx(3 / 4, abs=1e-4)
    assert (np.diff(found) >= 0).all()


def test_scores_that_are_worse_than_chance_are_not_turned_around():
    scores, lens = logistic(2000)
    fit = fit_platt(1 - scores, lens)
    assert fit.slope == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(fit.probabilities(scores), lens.mean(), atol=1e-3)


def test_platt_of_counts_in_bins_is_that_of_the_scores():
    scores, lens = sample(400, 20_000)
    counted = LogOddsCounts()
    for part in np.array_split(np.arange(len(scores)), 7):
        one = LogOddsCounts()
        one.add(scores[part], lens[part], ~lens[part])
        counted.merge(one)
    assert (counted.lenses.sum(), counted.non_lenses.sum()) == (400, 20_000)
    fit, exact = fit_platt_of(counted.log_odds, counted.lenses, counted.non_lenses), fit_platt(scores, lens)
    assert (fit.n_lenses, fit.n_non_lenses) == (400, 20_000)
    np.testing.assert_allclose([fit.slope, fit.intercept], [exact.slope, exact.intercept], rtol=2e-3)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60))
def test_isotonic_fit_from_counts_is_that_of_scikit_learn_from_scores(rows):
    scores, lens = np.array([row[0] for row in rows]) / 12, np.array([row[1] for row in rows])
    if lens.all() or not lens.any():
        with pytest.raises(ValueError, match="lens"):
            fit_isotonic(scores, lens)
        return
    fit = fit_isotonic(scores, lens)
    expected = IsotonicRegression().fit(scores, lens).predict(scores)
    np.testing.assert_allclose(fit.probabilities(scores), expected, atol=1e-12)


def test_isotonic_fit_of_many_scores_is_that_of_scikit_learn():
    scores, lens = sample(500, 5000)
    expected = IsotonicRegression().fit(scores, lens).predict(scores)
    np.testing.assert_allclose(fit_isotonic(scores, lens).probabilities(scores), expected, atol=1e-12)


def test_odds_at_another_lens_rate_are_bayes_rule():
    scores = np.linspace(0.01, 0.99, 99)
    for rate in (0.5, 0.01, 1e-5):
        found = at_lens_rate(true_probability(scores, 0.3), 0.3, rate)
        np.testing.assert_allclose(found, true_probability(scores, rate), rtol=1e-10)


@pytest.mark.parametrize("fitted", [fit_platt, fit_isotonic])
def test_calibrated_at_one_lens_rate_is_reliable_at_another(fitted):
    fit = fitted(*sample(20_000, 20_000))
    scores, lens = sample(2000, 198_000, seed=10)
    shifted = fit.probabilities(scores, lens_rate=0.01)
    assert expected_calibration_error(fit.probabilities(scores), lens) > 0.05
    assert expected_calibration_error(shifted, lens) < 0.002
    found = reliability(shifted, lens)
    usual = found.count > 500
    error = np.sqrt(found.lens_fraction * (1 - found.lens_fraction) / found.count)
    assert usual.sum() >= 3
    assert (np.abs(found.mean_score - found.lens_fraction) < 5 * error + 0.02)[usual].all()
    assert shifted.mean() == pytest.approx(0.01, rel=0.1)


def test_a_rank_is_the_same_at_every_lens_rate():
    scores, lens = sample(50, 500)
    fit = fit_platt(scores, lens)
    order = np.argsort(scores)
    for rate in (1e-6, 0.2):
        assert (np.diff(fit.probabilities(scores, rate)[order]) > 0).all()


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, np.nan])
def test_a_lens_rate_outside_of_zero_and_one_is_refused(rate):
    fit = fit_platt([0.1, 0.9], [False, True])
    with pytest.raises(ValueError, match="lens rate"):
        fit.probabilities([0.5], rate)


@pytest.mark.parametrize("fitted", [fit_platt, fit_isotonic])
def test_calibration_survives_json_and_a_cutout_without_score_has_no_probability(fitted):
    fit = fitted(*sample(30, 60))
    again = Calibration.from_json(json.loads(json.dumps({**fit.to_json(), "further": 1})))
    assert again == fit
    found = again.probabilities(np.array([np.nan, 0.5], np.float32), 0.1)
    assert np.isnan(found[0])
    assert 0 <= found[1] <= 1


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"method": "magic", "lens_rate": 0.5, "n_lenses": 1, "n_non_lenses": 1},
        {"method": "platt", "lens_rate": 2, "n_lenses": 1, "n_non_lenses": 1},
        {"method": "platt", "lens_rate": 0.5, "n_lenses": 1, "n_non_lenses": 1, "slope": "steep"},
        {"method": "isotonic", "lens_rate": 0.5, "n_lenses": 1, "n_non_lenses": 1, "steps": [1, 2]},
    ],
)
def test_what_is_no_calibration_is_refused(content):
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_json(content)


@pytest.mark.parametrize("lens", [[True, True], [False, False]])
@pytest.mark.parametrize("fitted", [fit_platt, fit_isotonic])
def test_one_class_alone_cannot_be_calibrated(fitted, lens):
    with pytest.raises(ValueError, match="lens"):
        fitted([0.1, 0.9], lens)


def test_what_a_bundle_is_told_of_its_calibration_is_measured_on_held_out_scores():
    scores, lens = sample(500, 500)
    told = json.loads(json.dumps(calibrated(np.sqrt(scores), lens)))
    assert Calibration.from_json(told).method == "platt"
    assert told["lens_rate"] == 0.5
    assert told["measured"] == "5-fold cross-validation"
    assert told["brier_score"]["before"] == pytest.approx(brier_score(np.sqrt(scores), lens))
    fitted = Calibration.from_json(told).probabilities(np.sqrt(scores))
    assert told["brier_score"]["after"] > brier_score(fitted, lens)
    assert told["brier_score"]["after"] < told["brier_score"]["before"]
    assert told["expected_calibration_error"]["after"] < told["expected_calibration_error"]["before"] / 2


def test_too_few_lenses_for_folds_say_that_the_errors_are_of_the_fitted_sample():
    scores, lens = sample(3, 50)
    told = calibrated(scores, lens)
    assert told["measured"] == "the sample that it was fitted on"
    fitted = Calibration.from_json(told).probabilities(scores)
    assert told["brier_score"]["after"] == pytest.approx(brier_score(fitted, lens))


def scanned(scores, **truth):
    """Metrics of scores that come in three fragments, each in a process of its own."""
    parts = np.array_split(np.arange(len(scores)), 3)
    first = TruthScores()
    for part in parts:
        one = TruthScores()
        one.add(scores[part], **{name: values[part] for name, values in truth.items()})
        first.merge(one)
    counts = first.counts()
    for part in parts:
        one = first.counts()
        one.add(scores[part], **{name: values[part] for name, values in truth.items()})
        counts.merge(one)
    found = scan_metrics(first, counts, depths=(10, 100), lens_rate=0.01)
    assert found is not None
    return found


@pytest.mark.parametrize("column", ["label", "is_tracer"])
def test_calibration_of_a_scan_in_fragments_is_that_of_all_scores(column):
    scores, lens = sample(80, 3000)
    found = scanned(scores, **{column: lens}).calibration
    assert found is not None
    exact = fit_platt(scores, lens)
    np.testing.assert_allclose(
        [found.platt.slope, found.platt.intercept], [exact.slope, exact.intercept], rtol=5e-3
    )
    assert found.isotonic == fit_isotonic(scores, lens)
    assert found.brier_score[0] == pytest.approx(brier_score(scores, lens), rel=5e-3)
    assert found.brier_score[1] == pytest.approx(brier_score(exact.probabilities(scores), lens), rel=5e-3)
    assert found.scores.count.sum() == found.calibrated.count.sum() == 3080
    assert found.scores.n_lenses.sum() == 80


def test_scores_of_zero_and_one_are_counted_at_the_ends():
    counted = LogOddsCounts()
    everything = np.array([True, True, True])
    counted.add(np.array([0.0, 1.0, 1.0000001]), everything, ~everything)
    assert (counted.lenses[0], counted.lenses[-1]) == (1, 2)


def test_labels_that_are_null_belong_to_no_class():
    scores, lens = sample(40, 400)
    label = np.array([value if i % 2 == 0 else None for i, value in enumerate(lens)])
    known = scanned(scores, label=label).calibration
    half = scanned(scores[::2], label=lens[::2]).calibration
    assert known is not None
    assert half is not None
    assert known.platt == half.platt
    assert known.isotonic == half.isotonic


def test_a_calibration_that_leaves_reliable_scores_alone():
    generator = np.random.default_rng(1)
    scores = generator.beta(0.6, 1.5, 100_000)
    lens = generator.random(100_000) < scores
    counted = LogOddsCounts()
    counted.add(scores, lens, ~lens)
    fit = fit_platt_of(counted.log_odds, counted.lenses, counted.non_lenses)
    np.testing.assert_allclose([fit.slope, fit.intercept], [1, 0], atol=0.03)
    assert replace(fit, slope=1.0, intercept=0.0).probabilities([0.3]) == pytest.approx(0.3)
