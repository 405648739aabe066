"""The report of a search for settings: ``search.json``, ``trials.csv``, ``report.html`` with its figures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lensray.inspection import figures
from lensray.inspection.report import ReportFigure, command_text, page_template, rendered, write_page
from lensray.inspection.training_records import Evaluation
from lensray.inspection.tuning_figures import parallel_coordinates, scores_figure
from lensray.io import storage
from lensray.metrics import bootstrap
from lensray.metrics.ranking import ranking_performance
from lensray.recipes.tuning import Trial
from lensray.training.search import Space


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate:
    """Settings that were trained to the end."""

    name: str
    """What they are."""
    bundle: str
    """Address of the bundle."""
    epochs: int
    """Epochs that were trained."""
    validated: float
    """Best value of the metric on the validation set, by which the search chose."""
    test: Evaluation | None
    """Images that the search never saw; None without such images."""

    @property
    def tested(self) -> tuple[float, float] | None:
        """Ranking performance on the test images, and its standard error."""
        if self.test is None:
            return None
        scores, is_lens = self.test.scores, self.test.is_lens
        error = bootstrap.standard_error(ranking_performance, scores, is_lens)
        return float(ranking_performance(scores, is_lens)), float(error)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TuningReport:
    """All that the report of a search shows."""

    recipe: str
    """Name of the recipe."""
    objective: str
    """What was maximized."""
    metric: str
    """Its name among the metrics of a training."""
    space: Space
    """What was searched."""
    trials: Sequence[Trial]
    """In the order of their starts."""
    best: Trial
    """The trial with the best score."""
    candidates: Sequence[Candidate]
    """The best trial and the recipe's own settings, trained to the end."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """``command``, ``versions``, ``seed``, ``scale``, ``started``, ``duration_s``, and so on."""

    def lines(self) -> list[str]:
        """The figures, a line each."""
        states = pd.Series([trial.state for trial in self.trials]).value_counts()
        made = ", ".join(f"{count} {state}" for state, count in states.items())
        lines = [f"{len(self.trials)} trials: {made}; best is trial {self.best.number}"]
        for one in self.candidates:
            tested = one.tested
            unseen = "" if tested is None else f"; unseen images: {tested[0]:.4g} ± {tested[1]:.2g}"
            lines.append(f"{one.name}: validation {self.metric} {one.validated:.4g}{unseen}")
        return lines


def trials_table(report: TuningReport) -> pd.DataFrame:
    """One row a trial, best first."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            report.metric: trial.score,
            "epochs": trial.epochs,
            "seconds": round(trial.seconds, 1),
            **trial.values,
            "reason": trial.reason,
        }
        for trial in report.trials
    ]
    table = pd.DataFrame(rows)
    return table.sort_values([report.metric, "trial"], ascending=[False, True], na_position="last")


def write_tuning_report(report: TuningReport, url: str) -> str:
    """Write the report into a search's folder, local or S3; returns the address of ``report.html``."""
    table = trials_table(report)
    storage.write_bytes(storage.join(url, "trials.csv"), table.to_csv(index=False).encode())
    content = {
        "recipe": report.recipe,
        "objective": report.objective,
        "trials": [asdict(trial) for trial in report.trials],
        "best": report.best.number,
        "candidates": [
            {
                "name": one.name,
                "bundle": one.bundle,
                "epochs": one.epochs,
                f"validation_{report.metric}": one.validated,
                "test_ranking_performance": one.tested and one.tested[0],
                "test_error": one.tested and one.tested[1],
            }
            for one in report.candidates
        ],
        "run": dict(report.run),
    }
    storage.write_bytes(storage.join(url, "search.json"), json.dumps(content, indent=1, default=str).encode())
    drawn = rendered(_drawings(report))
    return write_page(url, _render(report, table, drawn), drawn)


def _drawings(report: TuningReport) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and alternative text of each."""
    name = report.metric.replace("_", " ")
    yield (
        "scores",
        scores_figure(report.trials, name),
        f"Best {name} of each trial in the order of their starts",
    )
    yield (
        "parallel",
        parallel_coordinates(report.trials, report.space, name),
        f"Parallel coordinates of the settings, coloured by {name}",
    )


def _render(report: TuningReport, table: pd.DataFrame, drawn: Mapping[str, ReportFigure]) -> str:
    hidden = ("command", "versions", "scale", "started", "duration_s")
    return page_template("tuning_report.html").render(
        report=report,
        figures=drawn,
        columns=list(table.columns),
        rows=[[_text(value) for value in row] for row in table.itertuples(index=False)],
        candidates=[
            (one.name, one.epochs, figures.number(one.validated), one.tested, one.bundle)
            for one in report.candidates
        ],
        run_facts=[(key, _text(value)) for key, value in report.run.items() if key not in hidden],
        command=command_text(report.run.get("command", "")),
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
