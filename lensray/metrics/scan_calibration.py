"""What a scan's scores say as probabilities, from what its two passes counted.

Platt's curve is fitted to numbers in narrow bins of the log odds, isotonic regression to the counts at the lenses' scores:
the second is exact, the first as good as the bins are narrow. Among tracers the rest of the survey stands for the
non-lenses, though some of it are lenses that nobody knows: probabilities of the highest scores are then too low.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from lensray.metrics.calibration import (
    BINS,
    LARGEST_LOG_ODDS,
    LogOddsCounts,
    Reliability,
    brier_score_of,
    calibration_error_of,
    reliability_of,
)
from lensray.metrics.counts import ClassCounts
from lensray.metrics.probabilities import Calibration, fit_isotonic_of, fit_platt_of

# Bins of a diagram: a factor of e in the odds.
_EDGES = expit(np.arange(-np.floor(LARGEST_LOG_ODDS), np.floor(LARGEST_LOG_ODDS) + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanCalibration:
    """Calibrations of a scan's scores, and how reliable scores are with and without."""

    platt: Calibration
    """A logistic curve of the log odds."""
    isotonic: Calibration
    """The best ascending steps."""
    scores: Reliability
    """Share of lenses against score, in bins of the score's log odds, at the sample's lens rate."""
    calibrated: Reliability
    """The same with Platt's probabilities in place of the scores; of the sample that they were fitted on."""
    brier_score: tuple[float, float]
    """Of scores and of Platt's probabilities."""
    expected_calibration_error: tuple[float, float]
    """Of scores and of Platt's probabilities, in ten equal bins."""

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; the errors are at the sample's lens rate, of the sample itself."""
        errors = {
            name: dict(zip(("before", "after"), getattr(self, name), strict=True))
            for name in ("brier_score", "expected_calibration_error")
        }
        return {"platt": self.platt.to_json(), "isotonic": self.isotonic.to_json(), **errors}


def scan_calibration(histogram: LogOddsCounts, counts: ClassCounts) -> ScanCalibration:
    """Calibrations of scores that were counted by log odds, and at the lenses' scores; both of the same cutouts.

    Raises
    ------
    ValueError
        If there is no lens or no non-lens.
    """
    lenses, others, scores = histogram.lenses, histogram.non_lenses, histogram.scores
    platt = fit_platt_of(histogram.log_odds, lenses, others)
    values = [scores, platt.probabilities(scores)]
    equal = np.linspace(0, 1, BINS + 1)
    errors = [calibration_error_of(reliability_of(value, lenses, others, equal)) for value in values]
    diagrams = [reliability_of(value, lenses, others, _EDGES) for value in values]
    briers = [brier_score_of(value, lenses, others) for value in values]
    return ScanCalibration(
        platt=platt,
        isotonic=fit_isotonic_of(counts),
        scores=diagrams[0],
        calibrated=diagrams[1],
        brier_score=(briers[0], briers[1]),
        expected_calibration_error=(errors[0], errors[1]),
    )
