"""A finished scan against a table of the truth: the figures of the lens finding challenge, and this project's.

The pool is what the scan scored and the table labels, lenses and non-lenses alike; every figure is one of this pool, by
the code that makes a scan's ``metrics.json`` (`lensray.metrics.scan_metrics`), with its error by bootstrap. Objects
that cannot be in it are counted: those that the scan lacks, and those without a score, by the status that says why.

The challenge (Metcalf et al. 2019, A&A 625, A119) wants a score of every object. Here objects without one are left out of the
figures, and what the figures would be if the lenses among them counted as missed stands beside. The bootstrap of TPR0,
which hangs on a single non-lens, is rough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lensray.errors import InputError
from lensray.inspection.scan_truth import Fates, match
from lensray.io import storage
from lensray.metrics import bootstrap
from lensray.metrics.classification import ConfusionMatrix, auroc_of, tpr_before
from lensray.metrics.counts import ClassCounts
from lensray.metrics.ranking import efficiency, ranking_performance_of, ranks_of
from lensray.metrics.scan_metrics import ScanMetrics, scan_metrics
from lensray.metrics.truth import THRESHOLD, ScoreHistogram, TruthScores
from lensray.truth_table import TruthTable

MISSED = ("completeness", "tpr0", "tpr10")
"""Figures that fall when lenses without a score count as missed."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScanEvaluation:
    """A scan's figures by a table of the truth."""

    scan: str
    """The scan's folder."""
    truth: TruthTable
    """The table."""
    metrics: ScanMetrics
    """Figures, curves, and on what each was measured; ``tpr10`` is None with fewer than ten non-lenses."""
    errors: Mapping[str, Any]
    """Standard errors of the figures that have one, by their names; of ``tracers_in_top`` a mapping."""
    unscored_missed: Mapping[str, float]
    """Completeness, TPR0 and TPR10 if the lenses without a score count as missed; empty if all have one."""
    histogram: ScoreHistogram
    """Scores of the pool."""
    fates: Mapping[str, Fates]
    """Of the table's ``lenses``, ``non_lenses`` and ``unknown`` (which have no label)."""
    scan_rows: Mapping[str, int]
    """Rows of the scan: ``all``, ``without_id``, ``without_truth`` and ``repeated`` (of an id that came before)."""
    compared_as: str
    """What the ids of table and scan were taken for: ``whole numbers`` or ``texts``."""


def evaluate_scan(scan: str, files: Sequence[storage.FileEntry], truth: TruthTable) -> ScanEvaluation:
    """Figures of a finished scan.

    Parameters
    ----------
    scan : str
        The scan's output folder.
    files : sequence of FileEntry
        Its score files, by `lensray.catalogs.finished_score_files`.
    truth : TruthTable

    Raises
    ------
    InputError
        If no object of the table is in the scan, or no lens or no non-lens of it has a score.
    """
    found = match(scan, files, truth)
    known = truth.is_lens.is_valid().to_numpy(zero_copy_only=False)
    is_lens = truth.is_lens.fill_null(False).to_numpy(zero_copy_only=False)
    kinds = {"lenses": is_lens, "non_lenses": known & ~is_lens, "unknown": ~known}
    fates = {name: found.fates(chosen) for name, chosen in kinds.items()}
    _check_classes(scan, truth, fates)
    pool = found.in_scan & known
    metrics, counts, histogram = _metrics(found.scores[pool], is_lens[pool])
    return ScanEvaluation(
        scan=scan,
        truth=truth,
        metrics=metrics,
        errors=_errors(counts, metrics),
        unscored_missed=_unscored_missed(metrics, fates["lenses"]),
        histogram=histogram,
        fates=fates,
        scan_rows=found.rows,
        compared_as="whole numbers" if pa.types.is_integer(found.id_type) else "texts",
    )


def _check_classes(scan: str, truth: TruthTable, fates: Mapping[str, Fates]) -> None:
    for name in ("lenses", "non_lenses"):
        kind, words = fates[name], name.replace("_", "-")
        if not kind.scored:
            raise InputError(
                f"none of the {kind.in_truth:,} {words} of {truth.url} has a score in {scan}: {kind.not_in_scan:,} are not in "
                f"it, {sum(kind.unscored.values()):,} could not be scored{by_status(kind.unscored)}; give the whole table"
            )


def by_status(unscored: Mapping[str, int]) -> str:
    """Numbers of objects by status, in brackets; nothing if there are none.

    >>> by_status({"nan": 2, "masked": 1})
    ' (nan 2, masked 1)'
    """
    return f" ({', '.join(f'{name} {count:,}' for name, count in unscored.items())})" if unscored else ""


def _metrics(
    scores: NDArray[np.float64], is_lens: NDArray[np.bool_]
) -> tuple[ScanMetrics, ClassCounts, ScoreHistogram]:
    """The figures of the pool, its counts at each lens's score and at the threshold, and its scores."""
    first = TruthScores()
    first.add(scores, label=is_lens)
    second = first.counts()
    second.add(scores, label=is_lens)
    metrics = scan_metrics(first, second)
    assert metrics is not None  # there are lenses
    counts = ClassCounts(
        thresholds=second.lenses.thresholds,
        positives=second.lenses.equal(),
        negatives=second.non_lenses.equal(),
        negatives_greater=second.non_lenses.greater(),
        n_negatives=second.non_lenses.n,
    )
    return _of_the_table(metrics), counts, first.histogram


def _of_the_table(metrics: ScanMetrics) -> ScanMetrics:
    """Values and curves alone, with sentences that name the pool, and no TPR10 that would be 1 whatever the scores."""
    values = dict(metrics.values)
    measured_on = {
        key: f"{metrics.measured_on[key]}, all in the truth table"
        for key in values
        if key in metrics.measured_on
    }
    if values["n_non_lenses"] < 10:
        values["tpr10"] = None
        measured_on["tpr10"] = f"not measurable with fewer than ten non-lenses: {measured_on['tpr10']}"
    return ScanMetrics(values=values, measured_on=measured_on, rank_curve=metrics.rank_curve, roc=metrics.roc)


def _unscored_missed(metrics: ScanMetrics, lenses: Fates) -> dict[str, float]:
    missed = sum(lenses.unscored.values())
    if not missed:
        return {}
    share = lenses.scored / (lenses.scored + missed)
    return {name: metrics.values[name] * share for name in MISSED if metrics.values[name] is not None}


# --- errors ---------------------------------------------------------------------------------------------


def figures_of(counts: ClassCounts, depths: Sequence[int] = ()) -> dict[str, float]:
    """The figures that have an error, of counted scores, and the lenses found in the top `depths`.

    The threshold 0.5 must be one of the counts'.
    """
    matrix = _matrix(counts)
    return {
        "auroc": auroc_of(counts),
        "tpr0": tpr_before(counts, 1),
        "tpr10": tpr_before(counts, 10),
        "ranking_performance": ranking_performance_of(counts),
        "efficiency": efficiency(ranks_of(counts, "mid") / counts.n),
        "completeness": matrix.completeness,
        "contamination": matrix.contamination,
        "purity": matrix.purity,
        **{str(depth): _found_in_top(counts, depth) for depth in depths},
    }


def _found_in_top(counts: ClassCounts, depth: int) -> float:
    """Lenses among the first `depth` objects, on average over the orders of ties: drawn samples are full of them."""
    greater = counts.positives_greater + counts.negatives_greater
    equal = np.maximum(counts.positives + counts.negatives, 1)
    return float(counts.positives @ np.clip((depth - greater) / equal, 0, 1))


def _matrix(counts: ClassCounts) -> ConfusionMatrix:
    place = int(np.searchsorted(counts.thresholds, THRESHOLD))
    true = int(counts.positives[place:].sum())
    false = int(counts.negatives_greater[place] + counts.negatives[place])
    return ConfusionMatrix(
        true_positives=true,
        false_negatives=counts.n_positives - true,
        false_positives=false,
        true_negatives=counts.n_negatives - false,
    )


def _errors(counts: ClassCounts, metrics: ScanMetrics) -> dict[str, Any]:
    """Scatter of the figures over drawn samples; draws in which a figure is not defined are left out of it.

    None where all draws agree, as when all lenses were found: the sample does not tell how many others would have been.
    """
    depths = [int(depth) for depth in metrics.values["tracers_in_top"]]
    drawn = pd.DataFrame([figures_of(sample, depths) for sample in bootstrap.resampled_counts(counts)])
    scatter = {str(name): float(value) or None for name, value in drawn.std(ddof=0).items()}
    top = {str(depth): scatter.pop(str(depth)) for depth in depths}
    measured = {name: value for name, value in scatter.items() if metrics.values[name] is not None}
    return {**measured, "tracers_in_top": top}
