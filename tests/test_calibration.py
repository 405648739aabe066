import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from lensray.metrics import bootstrap, calibration


def drawn(n: int = 20000, seed: int = 1):
    """Scores, and lenses drawn with the probability that the score states."""
    generator = np.random.default_rng(seed)
    scores = generator.beta(0.6, 1.5, n)
    return scores, generator.random(n) < scores


def test_brier_score_is_that_of_scikit_learn():
    scores, lens = drawn(500)
    assert calibration.brier_score(scores, lens) == pytest.approx(brier_score_loss(lens, scores))


def test_error_of_scores_that_state_the_true_probability_vanishes():
    scores, lens = drawn(200_000)
    assert calibration.expected_calibration_error(scores, lens) < 0.004
    # The same order, with every score too high.
    assert calibration.expected_calibration_error(np.sqrt(scores), lens) > 0.15


def test_calibration_error_against_a_loop_over_bins():
    scores, lens = drawn(300)
    scores[:2] = 0.0, 1.0
    error = 0.0
    for number in range(7):
        upper = scores <= 1 if number == 6 else scores < (number + 1) / 7
        inside = (scores >= number / 7) & upper
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - lens[inside].mean())
    assert calibration.expected_calibration_error(scores, lens, bins=7) == pytest.approx(error)


@pytest.mark.parametrize("scores", [[0.5, np.nan], [0.5, 1.1], [0.5], []])
def test_what_is_no_probability_is_refused(scores):
    with pytest.raises(ValueError, match=r"probabilities|shape"):
        calibration.reliability(scores, [True, False])


def test_standard_error_is_the_scatter_over_samples_of_the_population():
    def sample(seed):
        generator = np.random.default_rng(seed)
        lens = np.arange(300) < 100
        return generator.normal(np.where(lens, 1.0, 0.0)), lens

    def auroc(scores, lens):
        return roc_auc_score(lens, scores)

    truth = np.std([auroc(*sample(seed)) for seed in range(300)])
    estimates = [bootstrap.standard_error(auroc, *sample(1000 + seed), repeats=60) for seed in range(8)]
    assert np.mean(estimates) == pytest.approx(truth, rel=0.2)


def test_drawn_samples_keep_the_number_of_each_class():
    lens = np.arange(50) < 7
    for rows in bootstrap.resamples(lens, repeats=5):
        assert lens[rows].sum() == 7
        assert len(rows) == 50


def test_difference_of_one_model_to_itself_has_no_error():
    scores, lens = drawn(200)

    def mean_score(values, is_lens):
        return float(values[is_lens].mean())

    assert bootstrap.standard_error_of_difference(mean_score, scores, scores, lens) == 0
    shifted = bootstrap.standard_error_of_difference(mean_score, scores, scores + 0.1, lens)
    assert shifted == pytest.approx(0, abs=1e-12)
    assert bootstrap.standard_error(mean_score, scores, lens) > 0.01
