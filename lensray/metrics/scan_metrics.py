"""What is known of a scan's quality: the content of ``metrics.json``, and the curves of the report.

Ranking performance and efficiency are measured on tracers where there are any, else on lenses by label. AUROC,
TPR0, TPR10 and what depends on a threshold are measured on labels where both classes occur, else on tracers
against all cutouts that are neither tracer nor labelled a lens. Calibration goes by the same classes as AUROC; the
forecast of an inspection by tracers where there are any, else by labels. Every number says on what it was measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensray.metrics.classification import (
    ConfusionMatrix,
    RocCurve,
    auroc_of,
    roc_curve_of,
    tpr_before,
)
from lensray.metrics.counts import ClassCounts, RankCounts
from lensray.metrics.forecast import Forecast, forecast_of_labels, forecast_of_tracers, spread_depths
from lensray.metrics.ranking import (
    RankCurve,
    efficiency,
    rank_curve_of,
    ranking_performance_of,
    ranks_of,
    recovered_of,
)
from lensray.metrics.scan_calibration import ScanCalibration, scan_calibration
from lensray.metrics.truth import THRESHOLD, TruthCounts, TruthScores

INSPECTION_DEPTHS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
LENS_RATE = 1 / 30_000
"""Lenses an object of a survey, if nothing better is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanMetrics:
    """What is known of a scan's quality; a number that cannot be measured is None."""

    values: Mapping[str, Any]
    """Flat: ``ranking_performance``, ``efficiency``, ``auroc``, ``tpr0``, ``tpr10``, counts, and so on."""
    measured_on: Mapping[str, str]
    """For each key of `values`, a sentence that says on what it was measured."""
    rank_curve: RankCurve | None
    """Tracer rank curve; None if no tracer or lens has a score."""
    roc: RocCurve | None
    """ROC; None if one of the classes is empty."""
    calibration: ScanCalibration | None = None
    """What the scores say as probabilities; None if one of the classes is empty."""
    forecast: Forecast | None = None
    """What an inspection brings; None if nothing tells."""
    depths: Sequence[int] = INSPECTION_DEPTHS
    """Depths of the forecast that are written down."""
    lens_rate: float = LENS_RATE
    """Share of lenses among the survey's objects, as supposed."""

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``: the values, calibration and forecast, and ``measured_on``."""
        return {
            **self.values,
            "calibration": self.calibration.to_json() if self.calibration else None,
            "forecast": self.forecast.to_json(self.depths) if self.forecast else None,
            "measured_on": dict(self.measured_on),
        }


def scan_metrics(
    truth: TruthScores,
    counts: TruthCounts,
    depths: Sequence[int] = INSPECTION_DEPTHS,
    lens_rate: float = LENS_RATE,
) -> ScanMetrics | None:
    """All metrics of a scan whose scores were passed over twice.

    Parameters
    ----------
    truth : TruthScores
        From the first pass.
    counts : TruthCounts
        From the second, over the same rows.
    depths : sequence of int
        Inspection depths of ``tracers_in_top`` and the forecast; those beyond the number of scored cutouts are left out.
    lens_rate : float
        Share of lenses among the survey's objects, in (0, 1), for the forecast.

    Returns
    -------
    ScanMetrics or None
        None where the survey has neither tracers nor labels.

    Raises
    ------
    ValueError
        If the passes did not see the same rows.
    """
    if counts.pool.n != truth.n_scored:
        raise ValueError(
            f"the passes saw {truth.n_scored} and {counts.pool.n} scores; both must see all rows"
        )
    known = len(truth.tracers) + truth.n_tracers_unscored + len(truth.lenses) + truth.n_lenses_unscored
    if not known + truth.n_non_lenses + truth.n_non_lenses_unscored:
        return None
    values, measured_on = _numbers(truth)
    rank_curve = _measure_ranking(truth, counts, depths, values, measured_on)
    roc = _measure_classes(truth, counts, values, measured_on)
    return ScanMetrics(
        values=values,
        measured_on=measured_on,
        rank_curve=rank_curve,
        roc=roc,
        calibration=_measure_calibration(truth, counts, measured_on),
        forecast=_measure_forecast(truth, counts, depths, lens_rate, measured_on),
        depths=depths,
        lens_rate=lens_rate,
    )


def _numbers(truth: TruthScores) -> tuple[dict[str, Any], dict[str, str]]:
    rows = {
        "n_scored": (truth.n_scored, "all cutouts that have a score"),
        "n_tracers": (len(truth.tracers), "tracers (is_tracer) that have a score"),
        "n_tracers_unscored": (truth.n_tracers_unscored, "tracers (is_tracer) that could not be scored"),
        "n_lenses": (len(truth.lenses), "lenses (label true) that have a score"),
        "n_lenses_unscored": (truth.n_lenses_unscored, "lenses (label true) that could not be scored"),
        "n_non_lenses": (truth.n_non_lenses, "non-lenses (label false) that have a score"),
        "n_non_lenses_unscored": (
            truth.n_non_lenses_unscored,
            "non-lenses (label false) that could not be scored",
        ),
    }
    return {key: row[0] for key, row in rows.items()}, {key: row[1] for key, row in rows.items()}


def _measure_ranking(
    truth: TruthScores,
    counts: TruthCounts,
    depths: Sequence[int],
    values: dict[str, Any],
    measured_on: dict[str, str],
) -> RankCurve | None:
    """Add the ranking metrics to `values` and `measured_on`; returns the curve."""
    by_tracers = len(truth.tracers) > 0
    positives = truth.tracers if by_tracers else truth.lenses
    name = "tracers (is_tracer)" if by_tracers else "lenses (label true)"
    sentence = f"{len(positives):,} {name} among {truth.n_scored:,} scored cutouts"
    keys = ("ranking_performance", "efficiency", "tracers_in_top")
    if not len(positives):
        sentence = "no tracer or lens has a score"
        values.update(ranking_performance=None, efficiency=None, tracers_in_top={})
        measured_on.update(dict.fromkeys(keys, sentence))
        return None
    ranked = _class_counts(positives, counts.pool, counts.tracers if by_tracers else counts.lenses)
    values["ranking_performance"] = ranking_performance_of(ranked) if ranked.n_negatives else None
    values["efficiency"] = efficiency(ranks_of(ranked, "mid") / ranked.n)
    values["tracers_in_top"] = {str(d): recovered_of(ranked, d) for d in depths if d <= ranked.n}
    measured_on.update(dict.fromkeys(keys, sentence))
    return rank_curve_of(ranked)


def _class_counts(positives: ArrayLike, pool: RankCounts, positive_counts: RankCounts) -> ClassCounts:
    """The positives against everything else in the pool."""
    counts = ClassCounts.from_counts(positives, pool)
    at = counts.thresholds
    return ClassCounts(
        thresholds=at,
        positives=counts.positives,
        negatives=counts.negatives - positive_counts.equal(at),
        negatives_greater=counts.negatives_greater - positive_counts.greater(at),
        n_negatives=pool.n - positive_counts.n,
    )


def _measure_classes(
    truth: TruthScores, counts: TruthCounts, values: dict[str, Any], measured_on: dict[str, str]
) -> RocCurve | None:
    """Add the classification metrics to `values` and `measured_on`; returns the ROC."""
    if len(truth.lenses) and truth.n_non_lenses:
        scores, positives, negatives = truth.lenses, counts.lenses, counts.non_lenses
        sentence = f"{positives.n:,} lenses (label true) against {negatives.n:,} non-lenses (label false)"
    else:
        scores, positives, negatives = truth.tracers, counts.tracers, counts.rest
        sentence = (
            f"{positives.n:,} tracers (is_tracer) against {negatives.n:,} scored cutouts that are neither tracer nor "
            "labelled a lens"
        )
    values.update(auroc=None, tpr0=None, tpr10=None)
    roc = None
    if positives.n and negatives.n:
        two = ClassCounts.from_counts(scores, negatives)
        values.update(auroc=auroc_of(two), tpr0=tpr_before(two, 1), tpr10=tpr_before(two, 10))
        roc = roc_curve_of(two)
    else:
        sentence = f"not measurable: {sentence}"
    measured_on.update(dict.fromkeys(("auroc", "tpr0", "tpr10"), sentence))
    _measure_at_threshold(_matrix_at(THRESHOLD, positives, negatives), sentence, values, measured_on)
    return roc


def _measure_calibration(
    truth: TruthScores, counts: TruthCounts, measured_on: dict[str, str]
) -> ScanCalibration | None:
    """The calibration on the classes of AUROC, of whose sentence it takes over."""
    measured_on["calibration"] = measured_on["auroc"]
    if len(truth.lenses) and truth.n_non_lenses:
        return scan_calibration(truth.labelled, ClassCounts.from_counts(truth.lenses, counts.non_lenses))
    if len(truth.tracers) and counts.rest.n:
        return scan_calibration(truth.planted, ClassCounts.from_counts(truth.tracers, counts.rest))
    return None


def _measure_forecast(
    truth: TruthScores,
    counts: TruthCounts,
    depths: Sequence[int],
    lens_rate: float,
    measured_on: dict[str, str],
) -> Forecast | None:
    """The forecast for the survey that was scanned, without its tracers."""
    by_tracers, labelled = len(truth.tracers) > 0, len(truth.lenses) > 0 and truth.n_non_lenses > 0
    objects = counts.rest.n if by_tracers else truth.n_scored
    if by_tracers and objects:
        name, others = "tracers (is_tracer) among", f"{objects:,} scored cutouts that are no known lenses"
        made = forecast_of_tracers(
            ClassCounts.from_counts(truth.tracers, counts.rest),
            lens_rate=lens_rate,
            images=_grid(depths, objects),
        )
    elif labelled and not by_tracers:
        name, others = "lenses (label true) and", f"{truth.n_non_lenses:,} non-lenses (label false)"
        made = forecast_of_labels(
            ClassCounts.from_counts(truth.lenses, counts.non_lenses),
            lens_rate=lens_rate,
            objects=objects,
            images=_grid(depths, objects),
        )
    else:
        measured_on["forecast"] = "not measurable: it takes tracers, or labelled lenses and non-lenses"
        return None
    measured_on["forecast"] = (
        f"{made.n_lenses:,} {name} {others}, for a survey of {objects:,} objects with one lens in "
        f"{1 / lens_rate:,.0f}"
    )
    return made


def _grid(depths: Sequence[int], objects: int) -> NDArray[np.int64]:
    """The depths that the survey has, among others for a curve."""
    within = [depth for depth in depths if depth <= objects]
    return np.union1d(spread_depths(objects), np.asarray(within, np.int64))


def _measure_at_threshold(
    matrix: ConfusionMatrix, sentence: str, values: dict[str, Any], measured_on: dict[str, str]
) -> None:
    values.update(
        threshold=THRESHOLD,
        completeness=_finite(matrix.completeness),
        contamination=_finite(matrix.contamination),
        purity=_finite(matrix.purity),
        confusion_matrix=asdict(matrix),
    )
    meaning = {
        "completeness": "true positive rate",
        "contamination": "false positive rate",
        "purity": "precision",
        "confusion_matrix": "counts",
    }
    measured_on["threshold"] = "score from which on a cutout is taken for a lens"
    for key, word in meaning.items():
        measured_on[key] = f"{word} at a score of at least {THRESHOLD}: {sentence}"


def _matrix_at(threshold: float, positives: RankCounts, negatives: RankCounts) -> ConfusionMatrix:
    below = int(positives.less([threshold])[0]), int(negatives.less([threshold])[0])
    return ConfusionMatrix(
        true_positives=positives.n - below[0],
        false_negatives=below[0],
        false_positives=negatives.n - below[1],
        true_negatives=below[1],
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
