"""Passing twice over a scan's scores: what the metrics need of them, in bounded memory.

The first pass (`TruthScores`) collects the scores of the known lenses and histograms of all; the second
(`TruthCounts`) counts how many cutouts of each kind lie above each of them. Both take fragments in any order
and can be merged, so the passes run on as many machines as there are; memory is proportional to the number of
known lenses. `lensray.metrics.scan_metrics` makes the metrics of them.

Two columns tell the truth: ``is_tracer`` (a lens planted or known, ranked among everything else) and ``label``
(true: lens, false: not a lens, null: unknown).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensray.metrics.calibration import LogOddsCounts
from lensray.metrics.counts import RankCounts

THRESHOLD = 0.5
HISTOGRAM_BINS = 100

Flags = NDArray[np.bool_]


@dataclass(slots=True)
class ScoreHistogram:
    """Counts of scores in equal bins from 0 to 1, of all cutouts and of the known lenses among them."""

    all: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    """Every scored cutout."""
    lenses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    """Tracers and lenses by label."""

    @property
    def edges(self) -> NDArray[np.float64]:
        """Limits of the bins."""
        return np.linspace(0, 1, len(self.all) + 1)

    def add(self, scores: NDArray[np.float64], is_lens: Flags) -> None:
        """Count scores; what rounding puts outside of 0 to 1 goes into the bins at the ends."""
        bins = np.clip(np.floor(scores * HISTOGRAM_BINS), 0, HISTOGRAM_BINS - 1).astype(np.int64)
        self.all = self.all + np.bincount(bins, minlength=HISTOGRAM_BINS)
        self.lenses = self.lenses + np.bincount(bins[is_lens], minlength=HISTOGRAM_BINS)

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the counts of other fragments."""
        self.all = self.all + other.all  # not in place: what comes from another process is read-only
        self.lenses = self.lenses + other.lenses


class TruthScores:
    """First pass: the scores of the known lenses, counts of each kind, and histograms of the scores."""

    def __init__(self) -> None:
        self.n_scored = 0
        self.n_tracers_unscored = 0
        self.n_lenses_unscored = 0
        self.n_non_lenses = 0
        self.n_non_lenses_unscored = 0
        self.histogram = ScoreHistogram()
        self.labelled = LogOddsCounts()
        """Log odds of lenses and non-lenses by label."""
        self.planted = LogOddsCounts()
        """Log odds of tracers and of what is neither tracer nor lens by label."""
        self._tracers: list[NDArray[np.float64]] = []
        self._lenses: list[NDArray[np.float64]] = []

    def add(
        self, scores: ArrayLike, *, is_tracer: ArrayLike | None = None, label: ArrayLike | None = None
    ) -> None:
        """Take the rows of one fragment.

        Parameters
        ----------
        scores : array_like of float, shape (N,)
            NaN where the cutout has no score.
        is_tracer, label : array_like of bool or None, shape (N,), optional
            A null tracer is none; a null label is neither lens nor non-lens.
        """
        scores, scored, tracer, lens, non_lens = _split(scores, is_tracer, label)
        self._tracers.append(scores[scored & tracer])
        self._lenses.append(scores[scored & lens])
        self.n_scored += int(scored.sum())
        self.n_non_lenses += int((scored & non_lens).sum())
        self.n_tracers_unscored += int((~scored & tracer).sum())
        self.n_lenses_unscored += int((~scored & lens).sum())
        self.n_non_lenses_unscored += int((~scored & non_lens).sum())
        self.histogram.add(scores[scored], (tracer | lens)[scored])
        self.labelled.add(scores[scored], lens[scored], non_lens[scored])
        self.planted.add(scores[scored], tracer[scored], ~(tracer | lens)[scored])

    def merge(self, other: "TruthScores") -> None:
        """Add what another process took of other fragments."""
        self._tracers += other._tracers
        self._lenses += other._lenses
        for name in ("histogram", "labelled", "planted"):
            getattr(self, name).merge(getattr(other, name))
        for name in (
            "n_scored",
            "n_tracers_unscored",
            "n_lenses_unscored",
            "n_non_lenses",
            "n_non_lenses_unscored",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def tracers(self) -> NDArray[np.float64]:
        """Scores of the tracers, in no particular order."""
        return np.concatenate([np.empty(0), *self._tracers])

    @property
    def lenses(self) -> NDArray[np.float64]:
        """Scores of the lenses by label."""
        return np.concatenate([np.empty(0), *self._lenses])

    def counts(self, extra: ArrayLike = ()) -> "TruthCounts":
        """Begin the second pass; `extra` are further scores to be ranked, such as the candidates'."""
        return TruthCounts(np.concatenate([self.tracers, self.lenses, np.ravel(extra), [THRESHOLD]]))


class TruthCounts:
    """Second pass: cutouts of each kind above and at each known lens's score."""

    def __init__(self, thresholds: ArrayLike) -> None:
        self.pool = RankCounts(thresholds)
        """All scored cutouts."""
        self.tracers = RankCounts(thresholds)
        """Tracers."""
        self.lenses = RankCounts(thresholds)
        """Lenses by label."""
        self.non_lenses = RankCounts(thresholds)
        """Non-lenses by label."""
        self.rest = RankCounts(thresholds)
        """Neither tracer nor lens by label."""

    def add(
        self, scores: ArrayLike, *, is_tracer: ArrayLike | None = None, label: ArrayLike | None = None
    ) -> None:
        """Count the rows of one fragment; arguments as of `TruthScores.add`."""
        scores, scored, tracer, lens, non_lens = _split(scores, is_tracer, label)
        self.pool.add(scores[scored])
        self.tracers.add(scores[scored & tracer])
        self.lenses.add(scores[scored & lens])
        self.non_lenses.add(scores[scored & non_lens])
        self.rest.add(scores[scored & ~tracer & ~lens])

    def merge(self, other: "TruthCounts") -> None:
        """Add what another process counted in other fragments."""
        for name in ("pool", "tracers", "lenses", "non_lenses", "rest"):
            getattr(self, name).merge(getattr(other, name))

    def ordinality(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Ordinality, ``(n_less + 1) / N``, of scores that were given as thresholds."""
        return (self.pool.less(scores) + 1) / max(self.pool.n, 1)


def _split(
    scores: ArrayLike, is_tracer: ArrayLike | None, label: ArrayLike | None
) -> tuple[NDArray[np.float64], Flags, Flags, Flags, Flags]:
    """Scores, and which rows are scored, tracers, lenses and non-lenses."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    flags = (_equal(is_tracer, True, values), _equal(label, True, values), _equal(label, False, values))
    return values, ~np.isnan(values), *flags


def _equal(column: ArrayLike | None, wanted: bool, scores: NDArray[np.float64]) -> Flags:
    """Where a column of booleans and nulls has the value `wanted`."""
    if column is None:
        return np.zeros(len(scores), dtype=bool)
    values = np.asarray(column)
    if values.shape != scores.shape:
        raise ValueError(f"truth and scores must be of one shape (N,); got {values.shape} and {scores.shape}")
    return np.equal(values, wanted).astype(bool)
