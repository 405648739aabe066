"""What the report of a training run shows, as plain data: phases, evaluations and regressions. No torch, no ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lensray.bundle import read_header
from lensray.inspection.generation_records import Generation
from lensray.io import storage
from lensray.metrics import bootstrap
from lensray.metrics.classification import (
    ConfusionMatrix,
    RocCurve,
    auroc,
    confusion_matrix,
    roc_curve,
    tpr0,
    tpr10,
)
from lensray.metrics.ranking import RankCurve
from lensray.metrics.scan_metrics import ScanMetrics, scan_metrics
from lensray.metrics.truth import TruthScores

Kind = Literal["simulated", "real"]

RANKING = ("ranking_performance", "efficiency", "auroc", "tpr0", "tpr10")
"""What a scan measures, of its metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseRecord:
    """One phase of a training."""

    name: str
    """Name of the phase."""
    history: Sequence[Mapping[str, Any]] = ()
    """What was measured after each epoch: ``epoch``, ``training_loss``, and so on; some may be missing."""
    bundle: str = ""
    """Address of the bundle that the phase wrote."""
    scan: ScanMetrics | None = None
    """The ranking of a survey with that bundle."""
    published: Mapping[str, float] = field(default_factory=dict)
    """The paper's values, by their names in `ScanMetrics`; ``top_share`` for the share of tracers at the top."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the bundle comes from: settings, data, hashes, versions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A model's scores of labelled cutouts."""

    model: str
    """What scored: a phase, a bundle."""
    data: str
    """What was scored."""
    kind: Kind = "simulated"
    """Whether the cutouts (the lenses, at least) are simulated or real."""
    scores: NDArray[np.floating]
    """Shape (N,); none may be NaN."""
    is_lens: NDArray[np.bool_]
    """Shape (N,)."""
    threshold: float = 0.5
    """Score from which on a cutout is taken for a lens."""
    images: NDArray | None = None
    """The cutouts, shape (N, bands, height, width), for the examples."""
    bands: tuple[str, ...] = ()
    """Bands of the images."""
    published: Mapping[str, float] = field(default_factory=dict)
    """The paper's values, by their names in `values`."""

    @cached_property
    def matrix(self) -> ConfusionMatrix:
        """Lenses and non-lenses on both sides of the threshold."""
        return confusion_matrix(self.scores, self.is_lens, self.threshold)

    @cached_property
    def roc(self) -> RocCurve:
        """ROC of the scores."""
        return roc_curve(self.scores, self.is_lens)

    @cached_property
    def values(self) -> dict[str, float]:
        """Metrics by name; ``accuracy`` and what follows are taken at the threshold."""
        matrix = self.matrix
        return {
            "auroc": auroc(self.scores, self.is_lens),
            "tpr0": tpr0(self.scores, self.is_lens),
            "tpr10": tpr10(self.scores, self.is_lens),
            "accuracy": (matrix.true_positives + matrix.true_negatives) / len(self.is_lens),
            "completeness": matrix.completeness,
            "contamination": matrix.contamination,
            "purity": matrix.purity,
        }

    @cached_property
    def auroc_error(self) -> float:
        """Standard error of AUROC."""
        return bootstrap.standard_error(auroc, self.scores, self.is_lens)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regression:
    """A model's values of one parameter."""

    model: str
    """What predicted."""
    data: str
    """What it was shown."""
    target: str
    """Name of the parameter, with its unit at the end (``einstein_radius_arcsec``)."""
    true: NDArray[np.floating]
    """Shape (N,)."""
    predicted: NDArray[np.floating]
    """Shape (N,)."""

    @property
    def values(self) -> dict[str, float]:
        """Bias and scatter of predicted minus true, their robust versions, and how much better than the mean.

        ``nmad`` is 1.4826 times the median absolute deviation from the median residual. ``r2`` is the share of the
        variance that is explained: 0 for who always says the mean.
        """
        residual = self.predicted - self.true
        median = np.median(residual)
        found = {
            "bias": residual.mean(),
            "scatter": residual.std(),
            "median": median,
            "nmad": 1.4826 * np.median(np.abs(residual - median)),
            "r2": 1 - np.mean(residual**2) / max(np.var(self.true), 1e-300),
        }
        return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingReport:
    """All that the report of a training run shows."""

    recipe: str
    """Name of the recipe."""
    phases: Sequence[PhaseRecord] = ()
    """In their order."""
    evaluations: Sequence[Evaluation] = ()
    """Labelled cutouts that were scored."""
    regressions: Sequence[Regression] = ()
    """Parameters that were regressed."""
    generation: Generation | None = None
    """Images that were generated, compared with real ones."""
    top_share: float = 0.06
    """Part of the ranking whose share of the tracers is told (LensFlow: 6%)."""
    notes: Sequence[str] = ()
    """What differs from the paper, and other remarks."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """``command``, ``versions``, ``seed``, ``scale``, ``started``, ``duration_s``, ``device``, hashes, and so on."""


def gaps(evaluations: Sequence[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """Each model's first evaluation on simulated images beside each of its evaluations on real ones."""
    pairs = []
    for real in (e for e in evaluations if e.kind == "real"):
        same = (e for e in evaluations if e.kind == "simulated" and e.model == real.model)
        simulated = next(same, None)
        if simulated is not None:
            pairs.append((simulated, real))
    return pairs


def share_at_top(curve: RankCurve, share: float) -> float:
    """Part of the tracers within the top `share` of the ranking.

    >>> curve = RankCurve(depth=np.array([2, 5]), recall=np.array([0.5, 1.0]), n_tracers=2, n=50)
    >>> share_at_top(curve, 0.06)
    0.5
    """
    found = curve.recall[curve.depth <= share * curve.n]
    return float(found[-1]) if len(found) else 0.0


def ranking_values(phase: PhaseRecord, top_share: float) -> dict[str, float | None]:
    """Metrics of the scan after a phase by name; None where one cannot be measured."""
    if phase.scan is None:
        return dict.fromkeys((*RANKING, "top_share"))
    curve = phase.scan.rank_curve
    values = {key: phase.scan.values.get(key) for key in RANKING}
    return {**values, "top_share": share_at_top(curve, top_share) if curve else None}


def phase_record(
    bundle_url: str,
    history: Sequence[Mapping[str, Any]],
    *,
    scan_url: str | None = None,
    published: Mapping[str, float] | None = None,
) -> PhaseRecord:
    """The record of a phase from what it wrote: its bundle, its history and, if there is one, a scan with it."""
    provenance = read_header(bundle_url).provenance
    return PhaseRecord(
        name=str(provenance.get("phase") or bundle_url),
        history=history,
        bundle=bundle_url,
        scan=read_scan(scan_url) if scan_url else None,
        published=published or {},
        provenance=provenance,
    )


def read_scan(url: str) -> ScanMetrics | None:
    """Metrics and curves of a scan, from its score files, in the memory of one of them; None without tracers and labels."""
    filesystem, _ = storage.resolve(url)
    paths = [entry.path for entry in storage.find_files(storage.join(url, "scores"))]

    def scores():
        for path in paths:
            with filesystem.open_input_file(path) as file:
                table = pq.read_table(file)
            truth = {
                name: table[name].to_numpy(zero_copy_only=False)
                for name in ("is_tracer", "label")
                if name in table.column_names
            }
            yield table["score"].to_numpy(zero_copy_only=False), truth

    first = TruthScores()
    for values, truth in scores():
        first.add(values, **truth)
    second = first.counts()
    for values, truth in scores():
        second.add(values, **truth)
    return scan_metrics(first, second)


def to_json(report: TrainingReport) -> dict[str, Any]:
    """The content of ``training.json``; what is not measurable is null."""
    content = {
        "recipe": report.recipe,
        "phases": [
            {
                "name": p.name,
                "bundle": p.bundle,
                "history": [dict(row) for row in p.history],
                "scan": None
                if p.scan is None
                else {**ranking_values(p, report.top_share), **p.scan.to_json()},
                "published": dict(p.published),
                "provenance": dict(p.provenance),
            }
            for p in report.phases
        ],
        "evaluations": [
            {
                **{key: getattr(e, key) for key in ("model", "data", "kind", "threshold")},
                "n_lenses": int(np.sum(e.is_lens)),
                "n_non_lenses": int(np.sum(~np.asarray(e.is_lens, bool))),
                **e.values,
                "auroc_error": e.auroc_error,
                "confusion_matrix": asdict(e.matrix),
                "published": dict(e.published),
            }
            for e in report.evaluations
        ],
        "regressions": [
            {"model": r.model, "data": r.data, "target": r.target, "n": len(r.true), **r.values}
            for r in report.regressions
        ],
        "generation": report.generation
        and {"values": dict(report.generation.values), "statistics": report.generation.statistics},
        "top_share": report.top_share,
        "notes": list(report.notes),
        "run": dict(report.run),
    }
    return _plain(content)


def _plain(value: Any) -> Any:
    """The same of JSON's types alone: NaN and infinities become null, NumPy's numbers Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)
