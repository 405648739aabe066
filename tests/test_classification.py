import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from lensray.metrics import classification
from lensray.metrics.counts import ClassCounts


@st.composite
def classes(draw):
    """Scores with many ties, and classes of which both occur."""
    n = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    is_lens = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    is_lens[0], is_lens[-1] = True, False
    return np.array(scores) / 12, np.array(is_lens)


def tpr_by_trying_every_threshold(scores, is_lens, allowed):
    best = 0.0
    for threshold in scores:
        taken = scores >= threshold
        if (taken & ~is_lens).sum() <= allowed:
            best = max(best, (taken & is_lens).sum() / is_lens.sum())
    return best


@given(classes())
def test_roc_is_scikit_learns(pool):
    scores, is_lens = pool
    curve = classification.roc_curve(scores, is_lens)
    false, true, _ = sklearn_metrics.roc_curve(is_lens, scores, drop_intermediate=False)
    ours = list(zip(curve.false_positive_rate, curve.true_positive_rate, strict=True))
    # Ours has the corners at the lenses' scores alone; theirs all points. One lies on the other.
    grid = np.linspace(0, 1, 50)
    assert ours[0] == (0, 0)
    assert ours[-1] == (1, 1)
    theirs = {(round(x, 9), round(y, 9)) for x, y in zip(false, true, strict=True)}
    assert {(round(x, 9), round(y, 9)) for x, y in ours} <= theirs
    assert np.trapezoid(*list(zip(*ours, strict=True))[::-1]) == pytest.approx(
        sklearn_metrics.auc(false, true)
    )
    inside = grid[~np.isin(np.round(grid, 9), np.round(false, 9))]
    expected = np.interp(inside, false, true)
    np.testing.assert_allclose(
        np.interp(inside, curve.false_positive_rate, curve.true_positive_rate), expected, atol=1e-12
    )


@given(classes())
def test_auroc_is_scikit_learns(pool):
    scores, is_lens = pool
    expected = sklearn_metrics.roc_auc_score(is_lens, scores)
    assert classification.auroc(scores, is_lens) == pytest.approx(expected, abs=1e-12)


@given(classes())
def test_tpr0_and_tpr10_are_the_best_of_all_thresholds(pool):
    scores, is_lens = pool
    assert classification.tpr0(scores, is_lens) == pytest.approx(
        tpr_by_trying_every_threshold(scores, is_lens, 0)
    )
    assert classification.tpr10(scores, is_lens) == pytest.approx(
        tpr_by_trying_every_threshold(scores, is_lens, 9)
    )


def test_tpr10_allows_nine_false_positives_and_not_ten():
    scores = np.array([0.95, *[0.9] * 9, 0.5, 0.4, 0.3])
    is_lens = np.array([True, *[False] * 9, True, False, True])
    assert classification.tpr10(scores, is_lens) == pytest.approx(2 / 3)


def test_lens_that_ties_with_a_non_lens_does_not_count_for_tpr0():
    assert classification.tpr0([0.9, 0.9], [True, False]) == 0


@pytest.mark.parametrize(
    "measure", [classification.roc_curve, classification.auroc, classification.tpr0, classification.tpr10]
)
@pytest.mark.parametrize("is_lens", [[True, True], [False, False]])
def test_one_class_alone_cannot_be_measured(measure, is_lens):
    with pytest.raises(ValueError, match=r"there is no|nothing to rank"):
        measure([0.1, 0.9], is_lens)


@given(classes(), st.integers(0, 12))
def test_confusion_matrix_is_scikit_learns(pool, threshold):
    scores, is_lens = pool
    matrix = classification.confusion_matrix(scores, is_lens, threshold / 12)
    expected = sklearn_metrics.confusion_matrix(
        is_lens, scores >= threshold / 12, labels=[False, True]
    ).ravel()
    ours = (matrix.true_negatives, matrix.false_positives, matrix.false_negatives, matrix.true_positives)
    assert ours == tuple(expected)


def test_completeness_contamination_and_purity_are_three_different_shares():
    scores = [0.9, 0.8, 0.7, 0.2, *[0.6], *[0.1] * 9]
    is_lens = [True, True, True, True, *[False] * 10]
    assert classification.completeness(scores, is_lens) == 3 / 4
    assert classification.contamination(scores, is_lens) == 1 / 10
    assert classification.purity(scores, is_lens) == 3 / 4
    assert classification.purity(scores, is_lens, threshold=0.7) == 1


def test_purity_of_nothing_is_not_a_number():
    assert np.isnan(classification.purity([0.1, 0.2], [True, False]))
    assert classification.completeness([0.1, 0.2], [True, False]) == 0


def test_scores_that_are_nan_or_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        classification.confusion_matrix([0.1, np.nan], [True, False])
    with pytest.raises(ValueError, match="one shape"):
        classification.confusion_matrix([0.1, 0.2], [True])


def test_corners_of_the_roc_grow_with_the_lenses_and_not_with_the_survey():
    rng = np.random.default_rng(0)
    scores, is_lens = rng.random(5000), np.arange(5000) < 7
    curve = classification.roc_curve_of(ClassCounts.of(scores, is_lens))
    assert len(curve.true_positive_rate) <= 2 * 7 + 2
    assert curve.n_negatives == 4993
