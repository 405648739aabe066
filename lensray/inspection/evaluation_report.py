"""A scan's figures by a truth table as text, and as ``evaluation.json`` and ``report.html`` with its figures."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

import lensray
from lensray.errors import InputError
from lensray.inspection import figures
from lensray.inspection.report import (
    ReportData,
    ReportFigure,
    command_text,
    draw_figures,
    page_template,
    write_page,
)
from lensray.inspection.scan_evaluation import ScanEvaluation, by_status
from lensray.io import storage

_FIGURES = {
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
    "ranking_performance": "Ranking performance",
    "efficiency": "Efficiency",
    "completeness": "Completeness",
    "contamination": "Contamination",
    "purity": "Purity",
}
_FATES = {"lenses": "Lenses", "non_lenses": "Non-lenses", "unknown": "Unknown"}


def check_output(output: str) -> None:
    """Raise InputError if an evaluation may not be written to a folder: it holds something else."""
    if not storage.exists(output):
        return
    filesystem, path = storage.resolve(output)
    if filesystem.get_file_info(path).is_file:
        raise InputError(f"--output {output} is a file; give a folder")
    names = storage.list_names(filesystem, path)
    if names and "evaluation.json" not in names:
        raise InputError(f"--output {output} holds something else ({names[0]}); choose another folder")


def write_evaluation(evaluation: ScanEvaluation, url: str, command: list[str]) -> str:
    """Write ``evaluation.json``, ``figures/*.png`` and ``report.html``.

    Parameters
    ----------
    evaluation : ScanEvaluation
    url : str
        The folder, local or S3.
    command : list of str
        The words that the user gave, for the record.

    Returns
    -------
    str
        Address of ``report.html``.
    """
    content = json.dumps(to_json(evaluation, command), indent=1, allow_nan=False)
    drawn = draw_figures(_report_data(evaluation))
    address = write_page(url, render(evaluation, drawn, command), drawn)
    storage.write_bytes(storage.join(url, "evaluation.json"), content.encode())
    return address


def _report_data(evaluation: ScanEvaluation) -> ReportData:
    """What a scan's report draws of it: tracer rank curve, ROC and scores."""
    return ReportData(
        run={},
        metrics=evaluation.metrics,
        candidates=pa.table({}),
        histogram=evaluation.histogram,
        bands=(),
    )


def to_json(evaluation: ScanEvaluation, command: list[str]) -> dict[str, Any]:
    """The content of ``evaluation.json``: the keys of ``metrics.json``, their errors, and what was counted."""
    truth = evaluation.truth
    return {
        **evaluation.metrics.values,
        "measured_on": dict(evaluation.metrics.measured_on),
        "errors": dict(evaluation.errors),
        "unscored_missed": dict(evaluation.unscored_missed),
        "objects": {name: asdict(fates) for name, fates in evaluation.fates.items()},
        "scan_rows": dict(evaluation.scan_rows),
        "scan": evaluation.scan,
        "truth": truth.url,
        "truth_id_column": truth.id_column,
        "ids_compared_as": evaluation.compared_as,
        "truth_rule": truth.rule,
        "truth_rows_without_id": truth.n_without_id,
        "command": command,
        "versions": {"lensray": lensray.__version__},
    }


# --- tables ---------------------------------------------------------------------------------------------


def figure_rows(evaluation: ScanEvaluation) -> Iterator[tuple[str, str, str, str]]:
    """Name, value, error and what it was measured on of each figure."""
    values, measured_on = evaluation.metrics.values, evaluation.metrics.measured_on
    for key, name in _FIGURES.items():
        error = evaluation.errors.get(key)
        yield name, figures.number(values[key]), _error(error), measured_on[key]
    for depth, found in values["tracers_in_top"].items():
        scatter = evaluation.errors["tracers_in_top"][depth]
        error = "" if scatter is None else f"± {scatter:.1f}"
        yield f"Found in the top {int(depth):,}", figures.number(found), error, measured_on["tracers_in_top"]


def _error(value: float | None) -> str:
    return (
        ""
        if value is None
        else f"± {value:.4f}"
        if value >= 0.0001
        else "± " + np.format_float_positional(value, 1, fractional=False)
    )


def fate_rows(evaluation: ScanEvaluation) -> Iterator[tuple[str, str, str, str, str]]:
    """Kind, objects in the table, not in the scan, without a score (by status) and measured."""
    for key, name in _FATES.items():
        fates = evaluation.fates[key]
        unscored = f"{sum(fates.unscored.values()):,}{by_status(fates.unscored)}"
        measured = "left out" if key == "unknown" else f"{fates.scored:,}"
        yield name, f"{fates.in_truth:,}", f"{fates.not_in_scan:,}", unscored, measured


def remarks(evaluation: ScanEvaluation) -> list[str]:
    """Sentences about what was left out, and how to read the figures."""
    rows, without_id = evaluation.scan_rows, evaluation.truth.n_without_id
    said = [
        f"Of the scan's {rows['all']:,} rows {rows['without_truth']:,} are not in the truth table, {rows['repeated']:,} repeat "
        f"an earlier row's id, and {rows['without_id']:,} have none; they are left out."
    ]
    if without_id:
        said.append(f"{without_id:,} rows of the truth table have no id and are left out.")
    n_lenses, n_others = (evaluation.metrics.values[key] for key in ("n_lenses", "n_non_lenses"))
    return [
        *said,
        _convention(evaluation),
        f"{n_lenses / (n_lenses + n_others):.2%} of the measured objects are lenses; where lenses are rarer, as in a survey, "
        "purity is lower.",
        "Errors are those of the sample, by bootstrap; that of TPR0, which hangs on a single non-lens, is rough.",
    ]


def _convention(evaluation: ScanEvaluation) -> str:
    missed, values = evaluation.unscored_missed, evaluation.metrics.values
    if not missed:
        return "All lenses that are in the scan have a score."
    names = {"completeness": "completeness", "tpr0": "TPR0", "tpr10": "TPR10"}
    falls = [f"{names[key]} {figures.number(values[key])} → {figures.number(missed[key])}" for key in missed]
    lenses = sum(evaluation.fates["lenses"].unscored.values())
    return (
        f"The figures are of objects with a score. With the {lenses:,} lenses that could not be scored counted as missed: "
        f"{', '.join(falls)}."
    )


def summary(evaluation: ScanEvaluation) -> str:
    """The figures for a terminal."""
    truth = evaluation.truth
    head = ("", "in the table", "not in the scan", "without a score", "measured")
    return "\n".join(
        [
            f"{evaluation.scan} by {truth.url} (ids: {truth.id_column}, compared as "
            f"{evaluation.compared_as}; lenses: {truth.rule})",
            "",
            *_aligned([head, *fate_rows(evaluation)]),
            "",
            *_aligned([("", "value", "error", "measured on"), *figure_rows(evaluation)]),
            "",
            *remarks(evaluation),
        ]
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines with their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


# --- page -----------------------------------------------------------------------------------------------


def render(evaluation: ScanEvaluation, drawn: Mapping[str, ReportFigure], command: list[str]) -> str:
    """The report's HTML. Every text that comes from outside is escaped."""
    truth = evaluation.truth
    return page_template("evaluation_report.html").render(
        figures=drawn,
        scan=evaluation.scan,
        truth=truth,
        metrics=evaluation.metrics,
        cards=list(figure_rows(evaluation))[:4],
        rows=list(figure_rows(evaluation)),
        fates=list(fate_rows(evaluation)),
        remarks=remarks(evaluation),
        facts_of_run=[
            ("scan", evaluation.scan),
            ("truth table", truth.url),
            ("ids", f"{truth.id_column}, compared as {evaluation.compared_as}"),
            ("lenses", truth.rule),
            ("LensRay", lensray.__version__),
        ],
        command=command_text(command),
    )
