"""The report of a training run: ``report.html`` with its figures, and all its numbers in ``training.json``.

How each phase was trained, how well it ranks a survey and tells lenses from non-lenses, beside what the paper got,
how much is lost from simulated to real images, and all that is needed to repeat it.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lensray.inspection import figures, training_figures
from lensray.inspection.generation_figures import contact_sheet, distances_figure
from lensray.inspection.report import (
    ReportFigure,
    command_text,
    page_template,
    rendered,
    seconds_text,
    write_page,
)
from lensray.inspection.training_records import (
    Evaluation,
    PhaseRecord,
    Regression,
    TrainingReport,
    gaps,
    ranking_values,
    to_json,
)
from lensray.io import storage

_RANKING = {
    "ranking_performance": "Ranking performance",
    "efficiency": "Efficiency",
    "top_share": "In the top",
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
}
_CLASSES = {
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
    "accuracy": "Accuracy",
    "completeness": "Completeness",
    "contamination": "Contamination",
    "purity": "Purity",
}
_RESIDUALS = {"bias": "Bias", "scatter": "Scatter", "median": "Median", "nmad": "NMAD", "r2": "R²"}


@dataclass(frozen=True, slots=True)
class _Cell:
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    cells: Sequence[_Cell]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    caption: str
    columns: Sequence[str]
    rows: Sequence[_Row]
    figures: Sequence[tuple[str, str]] = ()


def write_training_report(report: TrainingReport, url: str) -> str:
    """Write ``report.html``, ``training.json`` and ``figures/*.png`` into a training's folder.

    Parameters
    ----------
    report : TrainingReport
    url : str
        The folder, local or S3.

    Returns
    -------
    str
        Address of ``report.html``.
    """
    drawn = draw_figures(report)
    content = json.dumps(to_json(report), indent=1, allow_nan=False)
    storage.write_bytes(storage.join(url, "training.json"), content.encode())
    return write_page(url, render(report, drawn), drawn)


# --- figures --------------------------------------------------------------------------------------------


def draw_figures(report: TrainingReport) -> dict[str, ReportFigure]:
    """The figures for which there is something to show, by name."""
    return rendered((name, draw(), alt) for name, draw, alt in _drawings(report))


def _drawings(report: TrainingReport) -> Iterator[tuple[str, Callable[[], Figure], str]]:
    """Name, how to draw it, and alternative text of each figure."""
    for place, phase in enumerate(report.phases):
        if phase.history:
            alt = f"Loss, metrics, learning rate and batch size of phase {phase.name} over its epochs"
            yield f"curves_{place}", lambda phase=phase: training_figures.curves_figure(phase), alt
    curves = {p.name: p.scan.rank_curve for p in report.phases if p.scan and p.scan.rank_curve}
    if curves:
        alt = f"Tracer rank curves after {', '.join(curves)}: recovered lenses against rank"
        yield "rank_curves", lambda: training_figures.rank_curves_figure(curves, report.top_share), alt
    rocs = {p.name: p.scan.roc for p in report.phases if p.scan and p.scan.roc}
    if rocs:
        alt = f"True against false positive rate of the scans after {', '.join(rocs)}, logarithmic"
        yield "roc_scans", lambda: training_figures.roc_curves_figure(rocs), alt
    if report.evaluations:
        of_evaluations = {_name(e): e.roc for e in report.evaluations}
        alt = f"True against false positive rate of {', '.join(of_evaluations)}, logarithmic"
        yield "roc_evaluations", lambda: training_figures.roc_curves_figure(of_evaluations), alt
    for place, one in enumerate(report.evaluations):
        alt = f"Confusion matrix of {_name(one)}: {asdict(one.matrix)}"
        yield f"confusion_{place}", lambda one=one: training_figures.confusion_figure(one), alt
        if one.images is not None:
            alt = f"Pictures of true and false positives and negatives of {_name(one)}"
            yield f"examples_{place}", lambda one=one: training_figures.examples_figure(one), alt
    for place, found in enumerate(report.regressions):
        alt = f"Predicted against true {found.target} and histogram of the residuals, {found.model} on {found.data}"
        yield f"residuals_{place}", lambda found=found: training_figures.residuals_figure(found), alt
    if report.generation:
        made = report.generation
        yield "generated", lambda: contact_sheet(made), "Generated images above the nearest training images"
        alt = "Distances of generated and of unseen real images to the nearest of their set and of the training set"
        yield "distances", lambda: distances_figure(made), alt
    if pairs := gaps(report.evaluations):
        yield (
            "gap",
            lambda: training_figures.gap_figure(pairs),
            "Metrics on simulated beside those on real images",
        )


def _name(evaluation: Evaluation) -> str:
    return f"{evaluation.model} on {evaluation.data}"


# --- page -----------------------------------------------------------------------------------------------


def render(report: TrainingReport, drawn: Mapping[str, ReportFigure]) -> str:
    """The report's HTML. Every text that comes from outside is escaped."""
    run = report.run
    hidden = ("command", "versions", "scale", "started", "duration_s")
    return page_template("training_report.html").render(
        report=report,
        figures=drawn,
        top_share=f"{report.top_share:.0%}",
        cards=_cards(report),
        ranking=_ranking_table(report),
        classes=_classes_table(report),
        evaluations=[
            {"title": _name(e), "confusion": f"confusion_{place}", "examples": f"examples_{place}"}
            for place, e in enumerate(report.evaluations)
        ],
        gap=_gap_table(report),
        regression=_regression_table(report),
        generation=_generation_table(report),
        phases=[
            {"name": p.name, "figure": f"curves_{place}", "epochs": len(p.history), "facts": _phase_facts(p)}
            for place, p in enumerate(report.phases)
        ],
        run_facts=[(key, _text(value)) for key, value in run.items() if key not in hidden],
        command=command_text(run.get("command", "")),
    )


def _cards(report: TrainingReport) -> list[tuple[str, str, str]]:
    """Label, value and remark of what comes first."""
    cards = []
    epochs = sum(len(phase.history) for phase in report.phases)
    shown = sum(row.get("images") or 0 for phase in report.phases for row in phase.history)
    if epochs:
        cards.append(("Epochs", f"{epochs:,}", f"{shown:,} images shown" if shown else ""))
    if report.run.get("duration_s") is not None:
        # A training that was stopped has taken longer than this; its epochs' durations are in training.json.
        remark = str(report.run.get("device", "")) or "since the last start"
        cards.append(("Duration", seconds_text(report.run["duration_s"]), remark))
    ranked = [phase for phase in report.phases if phase.scan and phase.scan.rank_curve]
    for phase in ranked[-1:]:
        value = ranking_values(phase, report.top_share)["ranking_performance"]
        cards.append(("Ranking performance", figures.number(value), f"after {phase.name}"))
    return cards + [
        ("AUROC", f"{one.values['auroc']:.4f}", f"± {one.auroc_error:.4f}, {_name(one)}")
        for one in report.evaluations[:2]
    ]


def _ranking_table(report: TrainingReport) -> _Table:
    scanned = [phase for phase in report.phases if phase.scan is not None]
    rows = []
    for phase in scanned:
        values = ranking_values(phase, report.top_share)
        notes = {key: f"paper: {value:g}" for key, value in phase.published.items()}
        rows.append(
            _Row(phase.name, [_Cell(figures.number(values[key]), notes.get(key, "")) for key in _RANKING])
        )
    sentences = {phase.scan.measured_on["ranking_performance"] for phase in scanned if phase.scan}
    columns = [
        f"{name} {report.top_share:.0%}" if key == "top_share" else name for key, name in _RANKING.items()
    ]
    return _Table(caption="; ".join(sorted(sentences)), columns=columns, rows=rows)


def _classes_row(evaluation: Evaluation) -> _Row:
    notes = {key: f"paper: {value:g}" for key, value in evaluation.published.items()}
    error = f"± {evaluation.auroc_error:.4f}"
    notes["auroc"] = f"{error}, {notes['auroc']}" if "auroc" in notes else error
    lenses = int(np.sum(evaluation.is_lens))
    name = f"{_name(evaluation)} ({evaluation.kind}; {lenses:,} lenses, {len(evaluation.is_lens) - lenses:,} non-lenses)"
    cells = [_Cell(_rate(evaluation.values[key]), notes.get(key, "")) for key in _CLASSES]
    return _Row(name, cells)


def _rate(value: float) -> str:
    return figures.number(value if math.isfinite(value) else None)


def _classes_table(report: TrainingReport) -> _Table:
    thresholds = sorted({f"{evaluation.threshold:g}" for evaluation in report.evaluations})
    caption = (
        f"At a score of {' or '.join(thresholds)} and above a cutout is taken for a lens. Completeness is the true positive "
        "rate, contamination the false positive rate, purity the precision; TPR0 and TPR10 are the true positive rates "
        "with no and with fewer than ten false positives. Errors are those of the sample, by bootstrap."
    )
    rows = [_classes_row(e) for e in report.evaluations]
    return _Table(caption=caption, columns=list(_CLASSES.values()), rows=rows)


def _gap_table(report: TrainingReport) -> _Table:
    rows = []
    for simulated, real in gaps(report.evaluations):
        rows += [_classes_row(simulated), _classes_row(real)]
        lost = [real.values[key] - simulated.values[key] for key in _CLASSES]
        cells = [_Cell(f"{value:+.4f}" if math.isfinite(value) else "") for value in lost]
        rows.append(_Row("difference", cells))
    return _Table(caption="Real minus simulated, model by model.", columns=list(_CLASSES.values()), rows=rows)


def _regression_table(report: TrainingReport) -> _Table:
    caption = (
        "Residuals are predicted minus true, in the parameter's unit. NMAD: 1.4826 median absolute deviations. R²: share of "
        "the variance that is explained, 0 for a constant answer."
    )
    rows = [
        _Row(_regression_name(r), [_Cell(f"{r.values[key]:.4g}") for key in _RESIDUALS])
        for r in report.regressions
    ]
    titles = [(f"residuals_{place}", _regression_name(r)) for place, r in enumerate(report.regressions)]
    return _Table(caption=caption, columns=list(_RESIDUALS.values()), rows=rows, figures=titles)


def _generation_table(report: TrainingReport) -> _Table:
    caption = (
        "Kolmogorov-Smirnov distance of a statistic's distribution to that of real lenses that the generator never saw: 0 "
        "where they agree, 1 where they do not overlap. The training lenses, which are few, show what chance does."
    )
    statistics = report.generation.statistics if report.generation else {}
    rows = [
        _Row(name, [_Cell(f"{value:.2f}") for value in values.values()])
        for name, values in statistics.items()
    ]
    return _Table(caption=caption, columns=["Generated", "Training"], rows=rows)


def _regression_name(regression: Regression) -> str:
    return f"{regression.target}: {regression.model} on {regression.data}"


def _phase_facts(phase: PhaseRecord) -> list[tuple[str, str]]:
    """Where a phase's bundle comes from, as texts."""
    facts = {"bundle": phase.bundle, "epochs": len(phase.history) or "", **phase.provenance}
    # They are the run's, and stand there.
    repeated = ("recipe", "phase", "command", "versions", "settings")
    return [
        (key, _text(value)) for key, value in facts.items() if key not in repeated and value not in ("", None)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
