"""What an inspection brings, and false positive rates: against counting, known truths and coverage of the intervals."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from lensray.errors import InputError
from lensray.metrics.counts import ClassCounts
from lensray.metrics.false_positives import false_positive_rate, threshold_at_false_positive_rate
from lensray.metrics.forecast import forecast_of_labels, forecast_of_tracers
from lensray.metrics.intervals import binomial_interval
from lensray.metrics.scan_metrics import scan_metrics
from lensray.metrics.truth import TruthScores

SEPARATION = 3.0
NOMINAL = (0.60, 0.76)
"""Share of 200 intervals of 68.27% that hold the truth: two and a half standard errors on either side."""


def drawn(n_lenses: int, n_others: int, seed: int) -> ClassCounts:
    """Lenses about 3, others about 0."""
    generator = np.random.default_rng(seed)
    is_lens = np.arange(n_lenses + n_others) < n_lenses
    return ClassCounts.of(generator.normal(SEPARATION * is_lens), is_lens)


def true_completeness(images: int, objects: int, rate: float) -> float:
    """Of normal scores, at the threshold that so many objects are above."""

    def beyond(threshold: float) -> float:
        above = rate * norm.sf(threshold - SEPARATION) + (1 - rate) * norm.sf(threshold)
        return float(objects * above - images)

    threshold: Any = brentq(beyond, -8, 9)
    return float(norm.sf(threshold - SEPARATION))


def covered(low, truth, high) -> np.ndarray:
    return (low <= truth) & (truth <= high)


def test_completeness_of_tracers_is_the_share_that_would_be_among_the_first():
    generator = np.random.default_rng(2)
    pool, tracers = generator.normal(size=300), generator.normal(1.5, 1, 25)
    counts = ClassCounts.of(np.append(pool, tracers), np.arange(325) >= 300)
    images = np.arange(1, 301)
    found = forecast_of_tracers(counts, lens_rate=0.001, images=images)
    for depth, completeness in zip(images, found.completeness, strict=True):
        alone = [1 + (pool > score).sum() <= depth for score in tracers]
        assert completeness == pytest.approx(np.mean(alone)), depth
    np.testing.assert_allclose(found.expected_lenses[50:], 0.3 * found.completeness[50:])


def test_completeness_by_labels_is_the_true_positive_rate_where_so_many_are_above_the_threshold():
    generator = np.random.default_rng(3)
    lenses, others = generator.normal(1.5, 1, 30), generator.normal(size=500)
    counts = ClassCounts.of(np.append(lenses, others), np.arange(530) < 30)
    rate, objects = 0.02, 1_000_000
    for threshold in np.sort(lenses)[5:25]:
        share = (lenses >= threshold).mean(), (others >= threshold).mean()
        depth = round(objects * (rate * share[0] + (1 - rate) * share[1]))
        found = forecast_of_labels(counts, lens_rate=rate, objects=objects, images=[depth])
        assert found.completeness[0] == pytest.approx(share[0], abs=1e-4)
        assert found.expected_lenses[0] == pytest.approx(rate * objects * share[0], rel=1e-3)
        assert found.purity[0] == pytest.approx(rate * objects * share[0] / depth, rel=1e-3)


@pytest.mark.parametrize("n_lenses", [25, 100])
def test_intervals_by_labels_hold_the_true_purity_as_often_as_they_say(n_lenses):
    objects, rate, images = 1_000_000, 1e-3, [2000, 5000, 50_000]
    truth = np.array([true_completeness(depth, objects, rate) for depth in images])
    hits = np.zeros(3)
    for seed in range(200):
        found = forecast_of_labels(
            drawn(n_lenses, 5000, seed),
            lens_rate=rate,
            objects=objects,
            images=images,
            seed=10_000 + seed,  # not the numbers that made the sample
            repeats=150,
        )
        low, high = found.purity_interval
        hits += covered(low, rate * objects * truth / images, high)
    assert ((NOMINAL[0] <= hits / 200) & (hits / 200 <= NOMINAL[1])).all(), hits / 200


@pytest.mark.parametrize("n_tracers", [30, 100])
def test_intervals_by_tracers_hold_the_true_purity_of_the_survey_as_often_as_they_say(n_tracers):
    n, rate, images = 5000, 1e-3, np.array([20, 50, 200])
    hits = np.zeros(3)
    for seed in range(200):
        generator = np.random.default_rng(seed)
        # The survey's own lenses are in the pool, as nobody knows them.
        pool = generator.normal(SEPARATION * (generator.random(n) < rate))
        tracers = generator.normal(SEPARATION, 1, n_tracers)
        counts = ClassCounts.of(np.append(pool, tracers), np.arange(n + n_tracers) >= n)
        found = forecast_of_tracers(counts, lens_rate=rate, images=images, seed=10_000 + seed, repeats=150)
        truth = norm.sf(np.sort(pool)[::-1][images - 1] - SEPARATION)
        low, high = found.purity_interval
        hits += covered(low, rate * n * truth / images, high)
    assert ((NOMINAL[0] <= hits / 200) & (hits / 200 <= NOMINAL[1])).all(), hits / 200


def test_expected_lenses_are_those_that_a_large_survey_brings():
    generator = np.random.default_rng(7)
    n, rate = 1_000_000, 5e-3
    is_lens = generator.random(n) < rate
    scores = generator.normal(SEPARATION * is_lens)
    survey = np.sort(scores)[::-1], np.cumsum(is_lens[np.argsort(-scores)])
    images = np.array([3000, 10_000, 100_000])
    labels = forecast_of_labels(drawn(3000, 100_000, 8), lens_rate=rate, objects=n, images=images)
    planted = generator.normal(SEPARATION, 1, 3000)
    pool = ClassCounts.of(np.append(scores, planted), np.arange(n + 3000) >= n)
    tracers = forecast_of_tracers(pool, lens_rate=rate, images=images)
    for found in (labels, tracers):
        np.testing.assert_allclose(found.expected_lenses, survey[1][images - 1], rtol=0.08)


def test_interval_at_one_depth_is_that_of_a_counted_share():
    counts = drawn(40, 5000, 4)
    images = [5, 60, 1000]
    found = forecast_of_tracers(counts, lens_rate=1e-3, images=images, repeats=20_000)
    low, high = binomial_interval(np.rint(found.completeness * 40), 40)
    np.testing.assert_allclose(found.completeness_low, low, atol=0.005)
    np.testing.assert_allclose(found.completeness_high, high, atol=0.005)


def test_intervals_have_a_width_where_every_lens_was_found():
    counts = ClassCounts.of(np.arange(1003.0), np.arange(1003) >= 1000)
    found = forecast_of_tracers(counts, lens_rate=1e-4, images=[1], repeats=20_000)
    assert (found.completeness[0], found.completeness_high[0]) == (1, 1)
    assert found.completeness_low[0] == pytest.approx(binomial_interval(3, 3)[0], abs=0.01)


def test_purity_is_not_quoted_before_a_false_positive_of_the_sample():
    # 100 lenses above 1,000 non-lenses: a million objects bring 1,000 lenses, then the first false positive,
    # which stands for 999.
    counts = ClassCounts.of(np.arange(1100.0), np.arange(1100) >= 1000)
    found = forecast_of_labels(counts, lens_rate=1e-3, objects=1_000_000, images=[10, 1000, 1998, 1999, 5000])
    assert found.resolved_from == 1999
    assert np.isnan(found.purity).tolist() == [True, True, True, False, False]
    assert np.isnan(found.completeness).tolist() == [True, True, True, False, False]
    assert found.purity[3] == pytest.approx(1000 / 1999)
    written = json.loads(json.dumps(found.to_json([10, 5000, 7]), allow_nan=False))
    assert written["resolved_from"] == 1999
    first, second = written["rows"]
    assert (first["images"], first["purity"], first["expected_lenses_low"]) == (10, None, None)
    assert second["purity"] == pytest.approx(0.2)


@pytest.mark.parametrize("seed", range(5))
def test_depth_from_which_purity_is_quoted_is_the_first_with_one_false_positive_expected(seed):
    counts = drawn(50, 2000, seed)
    rate, objects = 1e-2, 50_000
    images = np.arange(1, 3000)
    found = forecast_of_labels(counts, lens_rate=rate, objects=objects, images=images, repeats=2)
    told = found.images[np.isfinite(found.purity)]
    assert told[0] == found.resolved_from
    # Just there, one of the 2,000 non-lenses is above the threshold: 24.75 objects of the survey.
    false = told[0] - found.expected_lenses[found.images == told[0]][0]
    assert 49_500 / 2000 <= false < 49_500 / 2000 + 1.01


def test_a_purity_that_can_be_told_at_no_depth_is_never_quoted():
    counts = ClassCounts.of([2.0, 1.0], [True, False])
    found = forecast_of_tracers(counts, lens_rate=0.999, images=[1])
    assert found.resolved_from is None
    assert np.isnan(found.purity).all()


def test_more_lenses_than_images_are_never_expected():
    # Tracers on top of a survey in which every second object should be a lens: the first images cannot all be.
    counts = ClassCounts.of(np.arange(220.0), np.arange(220) >= 200)
    found = forecast_of_tracers(counts, lens_rate=0.5, images=np.arange(1, 201))
    assert found.resolved_from == 101
    told = np.isfinite(found.purity)
    assert (found.purity[told] < 1).all()
    assert (found.purity_interval[1][told] <= 1).all()
    np.testing.assert_array_equal(found.completeness, 1)


def test_one_score_for_all_finds_lenses_as_a_random_order_does():
    counts = ClassCounts.of(np.ones(1010), np.arange(1010) < 10)
    for found in (
        forecast_of_tracers(counts, lens_rate=0.01, images=[100, 400, 1000]),
        forecast_of_labels(counts, lens_rate=0.01, objects=1000, images=[100, 400, 1000]),
    ):
        np.testing.assert_allclose(found.completeness, [0.1, 0.4, 1.0], atol=1e-6)
        np.testing.assert_allclose(found.purity, 0.01, atol=1e-6)


def test_cutouts_that_are_a_sample_of_the_survey_stand_for_more_of_it():
    counts = drawn(100, 1000, 5)
    small = forecast_of_tracers(counts, lens_rate=1e-3, images=[20, 200])
    large = forecast_of_tracers(counts, lens_rate=1e-3, images=[2000, 20_000], objects=100_000)
    np.testing.assert_allclose(large.completeness, small.completeness, atol=0.011)
    widths = [found.completeness_high - found.completeness_low for found in (large, small)]
    assert widths[0][0] > 1.05 * widths[1][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"lens_rate": 0.0}, "lens rate"),
        ({"lens_rate": 1.0}, "lens rate"),
        ({"images": [0, 5]}, "from 1 to 100"),
        ({"images": [101]}, "from 1 to 100"),
        ({"images": []}, "from 1 to 100"),
    ],
)
def test_forecasts_without_sense_are_refused(words: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        forecast_of_tracers(drawn(5, 100, 0), **{"lens_rate": 0.1, **words})


def test_a_sample_of_lenses_alone_forecasts_nothing():
    with pytest.raises(ValueError, match="nothing but lenses"):
        forecast_of_tracers(ClassCounts.of([1.0], [True]), lens_rate=0.1)


# --- of a scan ------------------------------------------------------------------------------------------


def scanned(scores, lens_rate=1e-3, **truth):
    first = TruthScores()
    first.add(scores, **truth)
    counts = first.counts()
    counts.add(scores, **truth)
    found = scan_metrics(first, counts, (10, 100, 10_000), lens_rate=lens_rate)
    assert found is not None
    return found


def test_scan_with_tracers_is_forecast_by_them_without_the_unscored():
    generator = np.random.default_rng(6)
    tracer = np.arange(2000) < 40
    scores = generator.normal(SEPARATION * tracer)
    scores[[0, 1, 1000]] = np.nan
    found = scanned(scores, is_tracer=tracer, label=tracer)
    assert found.forecast is not None
    assert (found.forecast.n_lenses, found.forecast.objects) == (38, 1959)
    written = found.to_json()["forecast"]
    assert [row["images"] for row in written["rows"]] == [10, 100]
    scored = np.isfinite(scores)
    exact = forecast_of_tracers(
        ClassCounts.of(scores[scored], tracer[scored]), lens_rate=1e-3, images=[10, 100]
    )
    assert [row["completeness"] for row in written["rows"]] == exact.completeness.tolist()
    assert "38 tracers" in found.measured_on["forecast"]
    assert "one lens in 1,000" in found.measured_on["forecast"]


def test_scan_with_labels_is_forecast_by_them():
    lens = np.arange(2000) < 40
    scores = np.random.default_rng(6).normal(SEPARATION * lens)
    found = scanned(scores, label=lens)
    assert found.forecast is not None
    assert (found.forecast.n_lenses, found.forecast.n_others, found.forecast.objects) == (40, 1960, 2000)
    assert "40 lenses (label true) and 1,960 non-lenses" in found.measured_on["forecast"]


def test_scan_with_labelled_lenses_alone_has_no_forecast():
    lens = np.array([True] * 5 + [None] * 195)
    found = scanned(np.random.default_rng(6).normal(size=200), label=lens)
    assert found.forecast is None
    assert found.to_json()["forecast"] is None
    assert found.to_json()["calibration"] is None
    assert "not measurable" in found.measured_on["forecast"]


# --- false positive rates -------------------------------------------------------------------------------


def test_threshold_at_a_false_positive_rate_against_counting():
    generator = np.random.default_rng(9)
    lenses, others = generator.integers(0, 60, 40) / 10 + 1, generator.integers(0, 60, 500) / 10
    counts = ClassCounts.of(np.append(lenses, others), np.arange(540) < 40)
    for rate in (0.002, 0.01, 0.1, 0.5, 1.0):
        found = threshold_at_false_positive_rate(counts, rate)
        fit = [score for score in lenses if (others >= score).mean() <= rate]
        assert found.threshold == min(fit)
        assert found.false_positives.value == (others >= min(fit)).mean()
        assert found.true_positives.value == (lenses >= min(fit)).mean()
        assert found.false_positives == false_positive_rate(counts, found.threshold)


def test_a_false_positive_rate_below_one_in_the_sample_is_refused_and_the_smallest_named():
    counts = drawn(10, 20_000, 1)
    assert threshold_at_false_positive_rate(counts, 1 / 20_000).false_positives.found <= 1
    with pytest.raises(
        InputError, match=r"1e-06 .* 20,000 non-lenses: .* one in 20,000 .* at least 1,000,000"
    ):
        threshold_at_false_positive_rate(counts, 1e-6)


@pytest.mark.parametrize("rate", [0, -1, 1.5, np.nan])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        threshold_at_false_positive_rate(drawn(3, 10, 1), rate)


def test_a_network_that_finds_no_lens_at_a_rate_has_no_threshold_there():
    counts = ClassCounts.of([0.1, *np.linspace(0.5, 1, 10)], [True] + [False] * 10)
    found = threshold_at_false_positive_rate(counts, 0.3)
    assert found.threshold == np.inf
    assert found.true_positives.value == 0
    assert 0 < found.true_positives.high < 1


def test_false_positives_are_known_at_scores_of_lenses_alone():
    with pytest.raises(ValueError, match="scores of lenses alone"):
        false_positive_rate(ClassCounts.of([0.9, 0.2], [True, False]), 0.5)


def test_intervals_of_false_positive_rates_hold_the_truth_as_often_as_they_say():
    hits = 0
    rates = norm.sf(np.linspace(0.5, 2.0, 10))
    for seed in range(200):
        others = np.random.default_rng(seed).normal(size=400)
        scores = np.append(np.linspace(0.5, 2.0, 10), others)
        counts = ClassCounts.of(scores, np.arange(410) < 10)
        found = [false_positive_rate(counts, score) for score in counts.thresholds]
        hits += np.mean([one.low <= rate <= one.high for one, rate in zip(found, rates, strict=True)])
    assert NOMINAL[0] < hits / 200 < NOMINAL[1]
