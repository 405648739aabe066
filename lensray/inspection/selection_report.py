"""The report of a selection function: ``report.html`` with its figures, ``cells.parquet``, ``run.json``."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from lensray.inspection.report import ReportFigure, command_text, page_template, rendered, write_page
from lensray.inspection.selection_figures import (
    agreement_figure,
    cuts_figure,
    onto_figure,
    projections_figure,
)
from lensray.io import storage
from lensray.metrics.selection import Cells, Difference, SelectionFunction, cells, difference
from lensray.pixels import SCORED
from lensray.selection import PARAMETERS, Selection
from lensray.survey import Survey

BINS = 8
"""Cells along a parameter: a pair has 64, each of 500 lenses of 32,768."""
ONTO_BINS = 7


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectionReport:
    """All that the report shows."""

    lenses: Selection
    """Simulated lenses."""
    onto: Selection | None
    """Lenses on real galaxies, if there are any."""
    survey: Survey
    """What they are imaged with."""
    meaning: str
    """What the threshold is, in words."""
    host_statuses: Mapping[str, int] = field(default_factory=dict)
    """How many galaxies could be hosts, and why others could not."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """The content of ``run.json``."""

    @cached_property
    def function(self) -> SelectionFunction:
        """Completeness of simulated lenses."""
        return self.lenses.function()

    @cached_property
    def labels(self) -> dict[str, str]:
        """Axis labels of the parameters that vary; magnitudes say their band."""
        band = f" ({self.survey.bands[0]})"
        return {
            name: PARAMETERS[name].label + (band if name.endswith("_mag") else "")
            for name in self.lenses.space.ranges
        }

    def counted(self, names: Sequence[str]) -> Cells:
        """Simulated lenses in cells of some parameters."""
        edges = {name: np.linspace(*self.lenses.space.ranges[name], BINS + 1) for name in names}
        values = {name: self.lenses.column(name) for name in names}
        return cells(values, self.lenses.column("found"), edges)

    @cached_property
    def expected(self) -> np.ndarray:
        """Completeness that simulated lenses let expect of each lens on a real galaxy; NaN outside of the space."""
        assert self.onto is not None
        names = self.onto.lenses.schema.names
        return self.function.completeness(
            {name: self.onto.column(name) for name in self.function.ranges if name in names}
        )[0]

    def _difference(self, name: str, edges: np.ndarray) -> Difference:
        assert self.onto is not None
        hosts = self.onto.lenses["host_id"].to_pylist()
        return difference(self.onto.column(name), self.onto.column("found"), self.expected, hosts, edges)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Lenses on real galaxies beside what is expected of them, along each parameter that was chosen."""
        if self.onto is None or not np.isfinite(self.expected).any():
            return {}
        return {
            name: self._difference(name, np.linspace(low, high, ONTO_BINS + 1))
            for name, (low, high) in self.onto.space.ranges.items()
        }

    @cached_property
    def half_way(self) -> dict[str, list[tuple[float, str]]]:
        """Where the completeness at the reference crosses 50%, by parameter: the value, and the side that is found."""
        found = {}
        for name, (low, high) in self.function.ranges.items():
            grid = np.linspace(low, high, 201)
            above = self.function.completeness({name: grid})[0] >= 0.5
            places = np.flatnonzero(above[1:] != above[:-1])
            found[name] = [(float(grid[k]), "above" if above[k + 1] else "below") for k in places]
        return found

    def lines(self) -> list[str]:
        """The figures, a line each."""
        found, made = int(self.lenses.column("found").sum()), self.lenses.lenses.num_rows
        lines = [f"{found:,} of {made:,} simulated lenses are found by {self.meaning}"]
        unscored = int(np.sum(~np.isin(self.lenses.column("status").astype(str), SCORED)))
        if unscored:
            lines.append(f"{unscored:,} could not be scored and count as missed")
        share, error = self.function.completeness({})
        lines.append(f"completeness at the reference lens: {float(share):.3f} ± {float(error):.3f}")
        lines += [
            f"over 50% {side} {self.labels[name]} = {value:.2f}"
            for name, crossings in self.half_way.items()
            for value, side in crossings
        ]
        return [*lines, *self._onto_lines()]

    def _onto_lines(self) -> list[str]:
        if self.onto is None:
            return []
        made = self.onto.lenses.num_rows
        if not self.differences:
            return [f"no galaxy of the {made:,} lenses on real ones lies in the space of the simulated ones"]
        name, (low, high) = next(iter(self.onto.space.ranges.items()))
        whole = self._difference(name, np.array([low, high]))
        known = np.isfinite(self.expected)
        ids = np.asarray(self.onto.lenses["host_id"].to_pylist(), object)[known]
        left_out = f"; {made - known.sum():,} lie outside of its space" if not known.all() else ""
        return [
            f"on {len(set(ids)):,} real galaxies {whole.counted[0]:.3f} ± {whole.error[0]:.3f} of {whole.total[0]:,} lenses are found, "
            f"{whole.expected[0]:.3f} expected from simulated ones{left_out}"
        ]


def cells_table(report: SelectionReport) -> pa.Table:
    """Counted completeness of all pairs: a row a cell, with its binomial interval (68%)."""
    columns: dict[str, list[Any]] = {}
    for first, second in itertools.combinations(report.labels, 2):
        counted = report.counted((first, second))
        low, high = counted.interval()
        x, y = counted.edges[first], counted.edges[second]
        for i, j in np.ndindex(counted.total.shape):
            row = {
                "parameter_1": first, "low_1": x[i], "high_1": x[i + 1],
                "parameter_2": second, "low_2": y[j], "high_2": y[j + 1],
                "lenses": counted.total[i, j], "found": counted.found[i, j],
                "completeness": counted.completeness[i, j], "interval_low": low[i, j], "interval_high": high[i, j],
            }  # fmt: skip
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return pa.table(columns)


def write_selection_report(report: SelectionReport, url: str) -> str:
    """Write the report into a folder, local or S3; returns the address of ``report.html``."""
    with storage.atomic_output(storage.join(url, "cells.parquet")) as file:
        pq.write_table(cells_table(report), file)
    drawn = rendered(_drawings(report))
    address = write_page(url, render(report, drawn), drawn)
    storage.write_bytes(storage.join(url, "run.json"), json.dumps(dict(report.run), indent=1).encode())
    return address


def _drawings(report: SelectionReport) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and alternative text of each."""
    function, labels = report.function, report.labels
    yield (
        "cuts",
        cuts_figure(function, labels),
        "Completeness along each parameter and pair through the reference lens",
    )
    yield (
        "projections",
        projections_figure(report.counted, labels, function.reference),
        "Counted completeness in cells of each parameter and pair, over all other parameters",
    )
    yield (
        "agreement",
        agreement_figure(function.left_out(), function.found),
        "Share of lenses found against the completeness that the function gives for lenses it was not fitted to",
    )
    if report.differences:
        yield (
            "onto",
            onto_figure(report.differences, labels),
            "Completeness on real galaxies beside what simulated lenses let expect",
        )


def render(report: SelectionReport, drawn: Mapping[str, ReportFigure]) -> str:
    """The report's HTML. Every text that comes from outside is escaped."""
    share, error = report.function.completeness({})
    space = report.lenses.space
    reference = report.function.reference
    return page_template("selection_report.html").render(
        report=report,
        figures=drawn,
        lines=report.lines(),
        found=int(report.lenses.column("found").sum()),
        made=report.lenses.lenses.num_rows,
        share=float(share),
        error=float(error),
        parameters=[
            (
                report.labels[name],
                low,
                high,
                reference[name],
                ", ".join(f"{side} {value:.2f}" for value, side in report.half_way[name]),
            )
            for name, (low, high) in space.ranges.items()
        ],
        fixed=[(PARAMETERS[name].label, value) for name, value in space.fixed.items()],
        threshold=report.lenses.threshold,
        run_facts=[
            (key, report.run[key]) for key in ("survey", "onto", "seed", "started") if report.run.get(key) is not None
        ],
        command=command_text(report.run.get("command", "")),
    )  # fmt: skip
