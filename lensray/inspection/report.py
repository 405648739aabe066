"""The report of a scan: one HTML file that opens offline, with its figures inside and beside it.

What a scan found, how well it ranks the lenses that are known, what it could not score and why, and all that is
needed to repeat it. The figures are embedded, so that the file can be mailed; they also lie in ``figures/``.
"""

import base64
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from lensray.inspection import figures, forecast_figures, grid
from lensray.io import storage
from lensray.metrics.scan_metrics import LENS_RATE, ScanMetrics
from lensray.metrics.truth import ScoreHistogram
from lensray.sky import sexagesimal

if TYPE_CHECKING:
    from lensray.bundle import Bundle

GRID_COUNT = 50
TABLE_COUNT = 50
SAMPLE_COUNT = 256
# Compilations join all names of a lens to one text of hundreds of letters.
NAME_LENGTH = 40

_METRIC_NAMES = {
    "ranking_performance": "Ranking performance",
    "efficiency": "Efficiency",
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
    "completeness": "Completeness",
    "contamination": "Contamination",
    "purity": "Purity",
    "n_scored": "Scored cutouts",
    "n_tracers": "Tracers",
    "n_tracers_unscored": "Tracers without a score",
    "n_lenses": "Labelled lenses",
    "n_lenses_unscored": "Labelled lenses without a score",
    "n_non_lenses": "Labelled non-lenses",
    "n_non_lenses_unscored": "Labelled non-lenses without a score",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """All that the report shows; nothing of it grows with the survey."""

    run: Mapping[str, Any]
    """The content of ``run.json``: ``rows``, ``rows_scored``, ``invalid`` (rows by reason), ``cutouts_per_s``,
    ``duration_s``, ``survey``, ``bundle``, ``versions``, ``command`` and so on; what is missing is not shown."""
    metrics: ScanMetrics | None
    """None where the survey has neither tracers nor labels."""
    candidates: pa.Table
    """The ranked candidates, with or without an image; may be empty."""
    histogram: ScoreHistogram
    """Scores of the whole survey."""
    bands: tuple[str, ...]
    """Bands of the candidates' images."""
    bundle: "Bundle | None" = None
    """The model, whose normalization the pixel histogram shows; without it the pixels are shown as stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFigure:
    """A figure in the report."""

    name: str
    """File name without its ending, and anchor in the page."""
    png: bytes
    """The picture."""
    alt: str
    """What it shows, for those who cannot see it."""

    @property
    def source(self) -> str:
        """The picture as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_report(url: str, data: ReportData) -> str:
    """Write ``report.html`` and ``figures/*.png`` into a scan's output folder.

    Parameters
    ----------
    url : str
        The folder, local or S3.
    data : ReportData

    Returns
    -------
    str
        Address of ``report.html``.
    """
    drawn = draw_figures(data)
    return write_page(url, render(data, drawn), drawn)


def write_page(url: str, html: str, drawn: Mapping[str, ReportFigure]) -> str:
    """Write ``report.html`` and its figures into a folder, local or S3; returns the page's address."""
    for figure in drawn.values():
        storage.write_bytes(storage.join(url, "figures", f"{figure.name}.png"), figure.png)
    address = storage.join(url, "report.html")
    storage.write_bytes(address, html.encode())
    return address


def rendered(drawings: Iterable[tuple[str, Figure, str]]) -> dict[str, ReportFigure]:
    """Figures by their names, from name, drawing and alternative text of each; each drawing is let go when it is rendered."""
    return {name: ReportFigure(name=name, png=figures.png(figure), alt=alt) for name, figure, alt in drawings}


def render(data: ReportData, drawn: Mapping[str, ReportFigure]) -> str:
    """The report's HTML. Every text that comes from outside is escaped."""
    return page_template("report.html").render(
        run=data.run,
        survey=data.run.get("survey") or {},
        bundle=data.run.get("bundle") or {},
        metrics=data.metrics,
        metric_rows=_metric_rows(data.metrics),
        forecast_rows=_forecast_rows(data.metrics),
        figures=drawn,
        normalized=data.bundle is not None,
        candidates=_candidate_rows(data.candidates),
        lens_rate=(data.run.get("settings") or {}).get("lens_rate") or LENS_RATE,
        calibrated="probability" in data.candidates.column_names,
        candidate_count=data.candidates.num_rows,
        command=command_text(data.run.get("command", "")),
    )


def page_template(name: str) -> jinja2.Template:
    """A page of this package; what is put into it is escaped."""
    folder = resources.files("lensray.inspection")
    loader = jinja2.FunctionLoader(lambda file: folder.joinpath(file).read_text("utf-8"))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, loader=loader)
    environment.filters.update(number=figures.number, seconds=seconds_text)
    return environment.get_template(name)


# --- figures --------------------------------------------------------------------------------------------


def draw_figures(data: ReportData) -> dict[str, ReportFigure]:
    """The figures for which there is something to show, by name."""
    results = ((name, draw(data)) for name, draw in _FIGURES.items())
    return rendered((name, *result) for name, result in results if result is not None)


Drawn = tuple[Figure, str] | None


def _candidates_figure(data: ReportData) -> Drawn:
    if not data.candidates.num_rows or "image" not in data.candidates.column_names:
        return None
    count = min(GRID_COUNT, data.candidates.num_rows)
    figure = grid.candidates_figure(data.candidates, data.bands, count)
    return figure, f"Pictures of the {count} candidates with the highest scores, in order of rank"


def _rank_curve_figure(data: ReportData) -> Drawn:
    metrics = data.metrics
    if metrics is None or metrics.rank_curve is None:
        return None
    figure = figures.rank_curve_figure(
        metrics.rank_curve, metrics.values["ranking_performance"], ranked_name(metrics)
    )
    return figure, (
        f"Tracer rank curve, ranking performance {figures.number(metrics.values['ranking_performance'])}: fraction of the "
        f"{ranked_name(metrics)} recovered against the number of cutouts inspected"
    )


def ranked_name(metrics: ScanMetrics) -> str:
    """What the tracer rank curve recovers."""
    return "tracers" if metrics.values["n_tracers"] else "labelled lenses"


def _roc_figure(data: ReportData) -> Drawn:
    if data.metrics is None or data.metrics.roc is None:
        return None
    alt = f"ROC with a logarithmic false positive rate, area {figures.number(data.metrics.values['auroc'])}"
    return figures.roc_figure(data.metrics.roc, data.metrics.values), alt


def _forecast_figure(data: ReportData) -> Drawn:
    if data.metrics is None or data.metrics.forecast is None:
        return None
    forecast = data.metrics.forecast
    return forecast_figures.forecast_figure(forecast), (
        f"Expected completeness and purity against the number of images inspected, for {forecast.objects:,} objects with "
        f"one lens in {1 / forecast.lens_rate:,.0f}"
    )


def _reliability_figure(data: ReportData) -> Drawn:
    if data.metrics is None or data.metrics.calibration is None:
        return None
    figure = forecast_figures.reliability_figure(data.metrics.calibration, data.metrics.lens_rate)
    return figure, "Reliability diagram: share of lenses against score, before and after calibration"


def _score_figure(data: ReportData) -> Drawn:
    if not data.histogram.all.sum():
        return None
    return figures.score_histogram_figure(data.histogram), "Histogram of all scores, with a logarithmic axis"


def _pixel_figure(data: ReportData) -> Drawn:
    if not data.candidates.num_rows or "image" not in data.candidates.column_names:
        return None
    images = grid.images_of(data.candidates.slice(0, SAMPLE_COUNT))
    if data.bundle is None:
        figure = figures.pixel_histogram_figure(images, data.bands, what="Stored pixels")
        return figure, "Histogram of the pixels of the best candidates, band by band"
    planes = [data.bands.index(band) for band in data.bundle.inputs.bands if band in data.bands]
    bands = tuple(data.bands[i] for i in planes)
    template = _template(data.bundle)
    figure = figures.pixel_histogram_figure(_normalized(images[:, planes], data.bundle), bands, template)
    against = " against the template" if template else ""
    return figure, f"Histogram of the normalized pixels of the best candidates, band by band{against}"


def _normalized(images: np.ndarray, bundle: "Bundle") -> np.ndarray:
    import torch  # here: the bundle has brought torch along, everything else in this module does without

    # A candidate has no images of further columns; zeros stand for them.
    missing = bundle.inputs.shape[0] - len(bundle.inputs.bands)
    padded = np.pad(images, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return bundle.normalization(torch.from_numpy(padded)).numpy()[:, : images.shape[1]]


def _template(bundle: "Bundle") -> tuple[np.ndarray, np.ndarray] | None:
    """Pixel values of a histogram transform's template, and the share of its pixels that has each."""
    template = getattr(bundle.normalization, "template", None)
    if template is None:
        return None
    return template.values, np.diff(template.quantiles, prepend=0.0)


def _status_figure(data: ReportData) -> Drawn:
    invalid = data.run.get("invalid") or {}
    if not invalid:
        return None
    reasons = ", ".join(f"{count:,} {name}" for name, count in invalid.items())
    return figures.status_figure(invalid, data.run.get("rows", 0)), f"Cutouts without a score: {reasons}"


_FIGURES: Mapping[str, Callable[[ReportData], Drawn]] = {
    "candidates": _candidates_figure,
    "rank_curve": _rank_curve_figure,
    "roc": _roc_figure,
    "forecast": _forecast_figure,
    "reliability": _reliability_figure,
    "scores": _score_figure,
    "pixels": _pixel_figure,
    "invalid": _status_figure,
}


# --- tables ---------------------------------------------------------------------------------------------


def _metric_rows(metrics: ScanMetrics | None) -> list[tuple[str, str, str]]:
    """Name, value and what it was measured on."""
    if metrics is None:
        return []
    values = metrics.values
    rows = [
        (name, figures.number(values[key]), metrics.measured_on[key]) for key, name in _METRIC_NAMES.items()
    ]
    return [row for row in rows if not (row[0].endswith("without a score") and row[1] == "0")]


def _forecast_rows(metrics: ScanMetrics | None) -> list[tuple[str, str, str, str]]:
    """Images, lenses, completeness and purity at the depths of the table, each with its interval."""
    if metrics is None or metrics.forecast is None:
        return []
    return [
        (
            f"{row['images']:,}",
            _with_interval(row, "expected_lenses", "{:.3g}"),
            _with_interval(row, "completeness", "{:.1%}"),
            _with_interval(row, "purity", "{:.2g}%", 100),
        )
        for row in metrics.forecast.rows(metrics.depths)
    ]


def _with_interval(row: Mapping[str, Any], name: str, form: str, factor: float = 1) -> str:
    if row[name] is None:
        return "not measurable"
    value, low, high = (form.format(factor * row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} ({low} to {high})"


def _candidate_rows(candidates: pa.Table) -> list[dict[str, Any]]:
    """The first rows of the table of candidates, ready to be shown."""
    simple = [field.name for field in candidates.schema if field.name != "image"]
    rows = candidates.select(simple).slice(0, TABLE_COUNT).to_pylist()
    positions = [[np.nan if row.get(name) is None else row[name] for row in rows] for name in ("ra", "dec")]
    texts = sexagesimal(*positions)
    return [
        {
            "rank": row["rank"],
            "object_id": str(row["object_id"]),
            "ra": "" if np.isnan(ra) else f"{ra:.6f}",
            "dec": "" if np.isnan(dec) else f"{dec:+.6f}",
            "sexagesimal": f"{ra_text} {dec_text}".strip(),
            "score": f"{row['score']:.5f}",
            "probability": f"{row['probability']:.3g}" if row.get("probability") is not None else "",
            "truth": known_as(row),
        }
        for row, ra, dec, ra_text, dec_text in zip(rows, *positions, *texts, strict=True)
    ]


def known_as(row: Mapping[str, Any]) -> str:
    """What is known of a candidate: truth, the lens of the list (the first of its names) and how far off; ``new`` if neither.

    >>> known_as({"ra": 1.0, "dec": 2.0, "known_lens": "J1004 | SDSSJ1004+4112", "known_separation_arcsec": 0.44})
    'J1004, 0.4″ off'
    >>> known_as({"ra": 1.0, "dec": 2.0, "known_lens": None})
    'new'
    """
    flag = grid.truth_of(row)
    if "known_lens" not in row:
        return flag
    name, flag = row["known_lens"], "" if flag == "known" else flag
    if name is not None:
        found = f"{name.split(' | ')[0][:NAME_LENGTH]}, {row['known_separation_arcsec']:.1f}″ off"
    else:
        found = "new" if not flag and _on_sky(row) else ""
    return ", ".join(filter(None, (flag, found)))


def _on_sky(row: Mapping[str, Any]) -> bool:
    return all(row.get(name) is not None and np.isfinite(row[name]) for name in ("ra", "dec"))


def seconds_text(value: float) -> str:
    """A duration for people.

    >>> seconds_text(12.34), seconds_text(3725)
    ('12.3 s', '1 h 2 min 5 s')
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {seconds} s" if hours else f"{minutes} min {seconds} s"


def command_text(command: Any) -> str:
    """A command line as text, from its words or from text."""
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)
