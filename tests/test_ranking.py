import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lensray.metrics import ranking
from lensray.metrics.counts import ClassCounts, RankCounts
from lensray.metrics.scan_metrics import scan_metrics
from lensray.metrics.truth import TruthScores

# The 52 relative tracer ranks that LensFlow's notebook prints under "Plot Tracer Rank Curve".
PRINTED_RANKS = """
    0.00817647 0.0156471 0.0214706 0.0237647 0.0262941 0.0289412 0.0336471 0.0341176 0.0364118 0.0417647 0.047
    0.0548235 0.0554118 0.0575882 0.0610588 0.0617059 0.0618824 0.0657647 0.0727059 0.0757647 0.0967059 0.111176
    0.117588 0.132882 0.134765 0.141412 0.147588 0.152176 0.168706 0.183471 0.209118 0.226765 0.23 0.237176
    0.243647 0.250765 0.261706 0.262118 0.278765 0.290529 0.300412 0.304471 0.324882 0.357706 0.389 0.411706
    0.453765 0.477412 0.649647 0.729059 0.859118 0.934118
"""
LENSFLOW_RANKS = [float(rank) for rank in PRINTED_RANKS.split()]


@st.composite
def pools(draw, min_rest: int = 1):
    """Scores with many ties, and which of them are tracers: at least one, and `min_rest` others."""
    n = draw(st.integers(1 + min_rest, 40))
    scores = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    tracers = draw(st.integers(1, n - min_rest))
    order = draw(st.permutations(range(n)))
    is_tracer = np.zeros(n, bool)
    is_tracer[list(order)[:tracers]] = True
    return np.array(scores, np.float32) / 8, is_tracer


# --- the tracer rank curve ------------------------------------------------------------------------------


@given(pools())
def test_curve_is_what_an_inspector_finds_reading_ties_at_their_worst(pool):
    scores, is_tracer = pool
    curve = ranking.tracer_rank_curve(scores, is_tracer)
    expected = {}
    for score in sorted(set(scores[is_tracer].tolist()), reverse=True):
        inspected = scores >= score
        expected[int(inspected.sum())] = (inspected & is_tracer).sum() / is_tracer.sum()
    assert curve.depth.tolist() == list(expected)
    np.testing.assert_allclose(curve.recall, list(expected.values()))
    assert (curve.n, curve.n_tracers) == (len(scores), is_tracer.sum())
    assert (np.diff(curve.depth) > 0).all()


def test_one_score_for_all_gains_nothing():
    curve = ranking.tracer_rank_curve([0.5] * 10, [True] + [False] * 9)
    assert curve.depth.tolist() == [10]
    assert ranking.ranking_performance([0.5] * 10, [True] + [False] * 9) == 0


@pytest.mark.parametrize(
    ("scores", "tracers", "message"),
    [
        ([0.1, 0.2], [1], "one shape"),
        ([[0.1, 0.2]], [[1, 0]], "one shape"),
        ([0.1, np.nan], [1, 0], "NaN"),
        ([np.nan, 0.1], [1, 0], "NaN"),
        ([0.1, 0.2], [0, 0], "no tracer"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, tracers, message):
    with pytest.raises(ValueError, match=message):
        ranking.tracer_rank_curve(scores, tracers)


# --- ranking performance --------------------------------------------------------------------------------


@given(pools())
def test_ranking_performance_is_twice_auroc_minus_one(pool):
    scores, is_tracer = pool
    expected = 2 * roc_auc_score(is_tracer, scores) - 1
    assert ranking.ranking_performance(scores, is_tracer) == pytest.approx(expected, abs=1e-12)


@given(pools())
def test_ranking_performance_is_the_area_of_the_thesis(pool):
    scores, is_tracer = pool
    n, total = is_tracer.sum(), len(scores)
    depth, recall = [0.0], [0.0]
    for score in sorted(set(scores.tolist()), reverse=True):
        depth.append((scores >= score).mean())
        recall.append((scores[is_tracer] >= score).mean())
    area = np.trapezoid(recall, depth) - 0.5
    perfect = np.trapezoid([0, 1, 1], [0, n / total, 1]) - 0.5
    assert ranking.ranking_performance(scores, is_tracer) == pytest.approx(area / perfect, abs=1e-12)


def test_perfect_order_has_ranking_performance_one_and_reverse_minus_one():
    scores, tracers = np.arange(10.0), np.arange(10) >= 7
    assert ranking.ranking_performance(scores, tracers) == 1
    assert ranking.ranking_performance(-scores, tracers) == -1


def test_pool_of_tracers_alone_has_no_ranking_performance():
    with pytest.raises(ValueError, match="other cutouts"):
        ranking.ranking_performance([0.1, 0.2], [1, 1])


# --- LensFlow's notebook --------------------------------------------------------------------------------


def test_notebook_ranks_give_the_ranking_performance_that_the_notebook_prints():
    assert len(LENSFLOW_RANKS) == 52
    assert ranking.interpolated_ranking_performance(LENSFLOW_RANKS) == pytest.approx(0.596667, abs=1e-6)


def test_golden_number_tells_the_notebook_from_the_trapezium():
    trapezium = 1 - 2 * np.trapezoid(LENSFLOW_RANKS, np.arange(1, 53) / 52)
    assert trapezium == pytest.approx(0.596879, abs=1e-6)
    assert abs(ranking.interpolated_ranking_performance(LENSFLOW_RANKS) - trapezium) > 1e-4


@given(st.integers(4, 30), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_interpolation_is_exact_for_cubics(n, coefficients):
    x = np.arange(1, n + 1) / n
    cubic = np.polynomial.Polynomial(np.abs(coefficients))  # ascending, like ranks
    scale = 1.01 * cubic(1) + 1e-3
    integral = cubic.integ()(1) / scale
    ranks = cubic(x) / scale + 1e-6
    expected = 1 - 2 * (integral + 1e-6)
    assert ranking.interpolated_ranking_performance(ranks) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_ranks_are_joined_by_the_one_polynomial_through_them(n):
    ranks = [0.1, 0.4, 0.5][:n]
    polynomial = np.polynomial.Polynomial.fit(np.arange(1, n + 1) / n, ranks, n - 1).convert()
    expected = 1 - 2 * polynomial.integ()(1)
    assert ranking.interpolated_ranking_performance(ranks) == pytest.approx(expected, abs=1e-12)


def test_interpolation_matches_a_numerical_integral_of_the_local_cubics():
    rng = np.random.default_rng(0)
    ranks = np.sort(rng.uniform(0.01, 1, 9))
    nodes = np.arange(1, 10) / 9
    x = (np.arange(90_000) + 0.5) / 90_000
    values = np.empty_like(x)
    left = np.clip(np.searchsorted(nodes, x) - 1, 0, 7)
    for i in range(8):
        start = min(max(i - 1, 0), 5)
        window = slice(start, start + 4)
        piece = np.polynomial.Polynomial.fit(nodes[window], ranks[window], 3)
        values[left == i] = piece(x[left == i])
    expected = 1 - 2 * values.mean()
    assert ranking.interpolated_ranking_performance(ranks[::-1]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("ranks", [[], [0.0], [1.1], [np.nan]])
@pytest.mark.parametrize("measure", [ranking.interpolated_ranking_performance, ranking.efficiency])
def test_ranks_that_are_none_are_refused(measure, ranks):
    with pytest.raises(ValueError, match="relative ranks"):
        measure(ranks)


def test_efficiency_is_that_of_the_notebooks_examples():
    # Fourteen tracers that all have the first rank of seven: the notebook prints 0.714286.
    assert ranking.efficiency([1 / 7] * 14) == pytest.approx(0.714286, abs=1e-6)


# --- ranks and ordinality -------------------------------------------------------------------------------


@given(pools())
def test_relative_ranks_count_the_cutouts_that_are_not_worse(pool):
    scores, is_tracer = pool
    worst = sorted((scores >= score).mean() for score in scores[is_tracer])
    middle = sorted(
        ((scores > score).sum() + ((scores == score).sum() + 1) / 2) / len(scores)
        for score in scores[is_tracer]
    )
    np.testing.assert_allclose(ranking.relative_ranks(scores, is_tracer), worst)
    np.testing.assert_allclose(ranking.relative_ranks(scores, is_tracer, ties="mid"), middle)


def test_recovered_counts_ties_across_the_depth_as_not_recovered():
    counts = ClassCounts.of([0.9, 0.8, 0.8, 0.1], [1, 1, 0, 1])
    assert [ranking.recovered_of(counts, depth) for depth in (0, 1, 2, 3, 4)] == [0, 1, 1, 2, 3]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_ordinality_is_the_lowest_place_in_ascending_order(values):
    expected = [(sum(other < value for other in values) + 1) / len(values) for value in values]
    np.testing.assert_allclose(ranking.ordinality(values), expected)


def test_best_unique_score_has_ordinality_one():
    assert ranking.ordinality([0.1, 0.9, 0.3]).max() == 1
    assert (ranking.ordinality(np.arange(1000)) > 0.995).sum() == 5


# --- counting in fragments ------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(-1, 10), max_size=15), max_size=5),
)
def test_rank_counts_are_plain_counts_for_any_fragments(thresholds, fragments):
    counts, others = RankCounts(thresholds), RankCounts(thresholds)
    for i, fragment in enumerate(fragments):
        (counts if i % 2 else others).add(fragment)
    counts.merge(others)
    scores = np.array([score for fragment in fragments for score in fragment])
    unique = np.unique(thresholds)
    assert counts.n == len(scores)
    assert counts.greater().tolist() == [(scores > t).sum() for t in unique]
    assert counts.equal().tolist() == [(scores == t).sum() for t in unique]
    assert counts.less(thresholds).tolist() == [(scores < t).sum() for t in thresholds]


def test_float32_scores_find_their_equals_and_their_neighbours():
    score = np.float32(0.9)
    counts = RankCounts(np.array([score]))
    counts.add(np.array([np.nextafter(score, np.float32(0)), score, np.nextafter(score, np.float32(1))]))
    assert (counts.less().item(), counts.equal().item(), counts.greater().item()) == (1, 1, 1)


def test_counts_refuse_nan_foreign_thresholds_and_unknown_scores():
    counts = RankCounts([0.5])
    with pytest.raises(ValueError, match="NaN"):
        counts.add([0.1, np.nan])
    with pytest.raises(ValueError, match="other thresholds"):
        counts.merge(RankCounts([0.4]))
    with pytest.raises(ValueError, match="thresholds alone"):
        counts.greater([0.4])


# --- a whole scan ---------------------------------------------------------------------------------------


@st.composite
def surveys(draw):
    """Scores with NaN, tracers and labels with nulls, cut into fragments."""
    n = draw(st.integers(1, 30))
    column = st.lists(st.sampled_from([True, False, None]), min_size=n, max_size=n)
    scores = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, np.nan]), min_size=n, max_size=n))
    cuts = draw(st.lists(st.integers(0, n), max_size=3))
    pieces = np.split(np.arange(n), sorted(cuts))
    return np.array(scores), draw(column), draw(column), draw(st.permutations(pieces))


def measure(scores, tracer, label, pieces):
    first = TruthScores()
    for piece in pieces:
        part = TruthScores()
        part.add(scores[piece], is_tracer=tracer[piece], label=label[piece])
        first.merge(part)
    second = first.counts()
    for piece in pieces:
        part = first.counts()
        part.add(scores[piece], is_tracer=tracer[piece], label=label[piece])
        second.merge(part)
    return scan_metrics(first, second, depths=(1, 5))


@given(surveys())
def test_scan_measured_in_fragments_is_the_survey_measured_in_memory(survey):
    scores, tracer, label, pieces = survey
    tracer, label = np.array(tracer, object), np.array(label, object)
    metrics = measure(scores, tracer, label, pieces)
    scored = ~np.isnan(scores)
    tracers = np.array([t is True for t in tracer]) & scored
    lenses = np.array([value is True for value in label]) & scored
    non_lenses = np.array([value is False for value in label]) & scored
    if metrics is None:
        assert not any(t is True for t in tracer)
        assert not any(value is not None for value in label)
        return
    values = metrics.values
    assert (values["n_scored"], values["n_tracers"]) == (scored.sum(), tracers.sum())
    assert values["n_tracers_unscored"] == sum(t is True for t in tracer) - tracers.sum()
    ranked = tracers if tracers.any() else lenses
    if ranked.any() and not ranked[scored].all():
        expected = ranking.ranking_performance(scores[scored], ranked[scored])
        assert values["ranking_performance"] == pytest.approx(expected, abs=1e-12)
        middle = ranking.relative_ranks(scores[scored], ranked[scored], ties="mid")
        assert values["efficiency"] == pytest.approx(ranking.efficiency(middle), abs=1e-12)
        in_top = (ranking.relative_ranks(scores[scored], ranked[scored]) * scored.sum() <= 1 + 1e-9).sum()
        assert values["tracers_in_top"]["1"] == in_top
    else:
        assert values["ranking_performance"] is None
    by_label = lenses.any() and non_lenses.any()
    positive = lenses if by_label else tracers
    negative = non_lenses if by_label else scored & ~tracers & ~lenses
    used = positive | negative
    if positive.any() and negative.any():
        assert values["auroc"] == pytest.approx(roc_auc_score(positive[used], scores[used]), abs=1e-12)
        highest = scores[negative].max()
        assert values["tpr0"] == pytest.approx((scores[positive] > highest).mean())
    else:
        assert values["auroc"] is None
    assert values["confusion_matrix"]["true_positives"] == (scores[positive] >= 0.5).sum()
    assert values["confusion_matrix"]["false_positives"] == (scores[negative] >= 0.5).sum()


def test_every_number_says_on_what_it_was_measured():
    scores = np.array([0.9, 0.8, 0.3, np.nan])
    tracer = np.array([True, False, False, True])
    metrics = measure(scores, tracer, np.array([None] * 4, object), [np.arange(4)])
    assert metrics is not None
    content = metrics.to_json()
    assert set(content) - {"measured_on"} == set(content["measured_on"])
    assert content["n_tracers_unscored"] == 1
    assert content["measured_on"]["ranking_performance"] == "1 tracers (is_tracer) among 3 scored cutouts"


def test_survey_without_truth_has_no_metrics():
    truth = TruthScores()
    truth.add([0.1, 0.2])
    counts = truth.counts()
    counts.add([0.1, 0.2])
    assert scan_metrics(truth, counts) is None


def test_passes_over_different_rows_are_refused():
    truth = TruthScores()
    truth.add([0.1, 0.2], is_tracer=[True, False])
    counts = truth.counts()
    counts.add([0.1], is_tracer=[True])
    with pytest.raises(ValueError, match="all rows"):
        scan_metrics(truth, counts)


def test_ordinality_of_candidates_comes_with_the_second_pass():
    scores = np.array([0.1, 0.9, 0.9, 0.4], np.float32)
    truth = TruthScores()
    truth.add(scores)
    counts = truth.counts(extra=scores)
    counts.add(scores)
    np.testing.assert_allclose(counts.ordinality(scores), ranking.ordinality(scores))
