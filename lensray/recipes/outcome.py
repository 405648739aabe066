"""What a recipe comes to, and its report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lensray.errors import InputError
from lensray.recipes.config import RecipeConfig

if TYPE_CHECKING:
    from lensray.inspection.generation_records import Generation
    from lensray.inspection.training_records import Evaluation, Regression
    from lensray.training.workbench import Workbench


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a recipe did."""

    phases: Mapping[str, str | None]
    """Names of its phases in their order, each with the address of the scan that followed, or None."""
    bundle: str
    """Address of the bundle that came of it."""
    evaluations: "Sequence[Evaluation]" = ()
    """Labelled cutouts that were scored beside."""
    regressions: "Sequence[Regression]" = ()
    """Parameters that were regressed."""
    generation: "Generation | None" = None
    """Images that were generated, compared with real ones."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The paper's values, by phase."""
    notes: Sequence[str] = ()
    """What the report is to say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a training leaves."""

    outcome: Outcome
    """What the recipe did."""
    report: str
    """Address of the report."""
    lines: Sequence[str]
    """The figures, a line a phase or evaluation."""

    def summary(self) -> str:
        """What the command prints."""
        return "\n".join([*self.lines, f"bundle: {self.outcome.bundle}", f"report: {self.report}"])


@contextmanager
def claimed(name: str, recipe: Any, config: RecipeConfig) -> Iterator[None]:
    """The output folder for a run of these words, checked and claimed; given back if the user's data cannot be used.

    Before Ray starts: wrong words are answered at once.

    Raises
    ------
    InputError
        If the folder holds another run, or a survey lacks what the recipe needs.
    """
    from lensray.training.workbench import claim, disclaim

    check_surveys(recipe, config)
    claim(config.output, name, config.settings())
    try:
        yield
    except InputError:
        disclaim(config.output)
        raise


def run_recipe(recipe: Any, config: RecipeConfig, bench: "Workbench") -> Result:
    """Claim the folder, work through a recipe, and write its report.

    Raises
    ------
    InputError
        If the folder holds another run, or the user's data cannot be used.
    LensRayError
        If the training diverges or a worker fails for good.
    """
    with claimed(bench.recipe, recipe, config):
        return work_through(recipe, config, bench)


def work_through(recipe: Any, config: RecipeConfig, bench: "Workbench") -> Result:
    """Work through a recipe in a folder that is claimed, and write its report."""
    from lensray.inspection.training_records import TrainingReport, phase_record
    from lensray.inspection.training_report import write_training_report
    from lensray.io import storage
    from lensray.training.workbench import BUNDLE

    started = time.time()
    outcome: Outcome = recipe.run(config, bench)
    phases = [
        phase_record(
            storage.join(bench.folder(name), BUNDLE),
            bench.history(name),
            scan_url=scan,
            published=outcome.published.get(name),
        )
        for name, scan in outcome.phases.items()
    ]
    evaluations = [*outcome.evaluations, *_on_real_images(config, outcome)]
    report = TrainingReport(
        recipe=bench.recipe,
        phases=phases,
        evaluations=evaluations,
        regressions=outcome.regressions,
        generation=outcome.generation,
        notes=outcome.notes,
        run=run_facts(config, bench, started),
    )
    return Result(outcome=outcome, report=write_training_report(report, config.output), lines=_lines(report))


def run_facts(config: RecipeConfig, bench: "Workbench", started: float) -> dict[str, Any]:
    """What a report says of the run that began at `started`, in seconds since 1970."""
    from lensray.training.workbench import versions

    return {
        "command": bench.command,
        "versions": versions(),
        "seed": config.seed,
        "scale": config.scale,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_s": time.time() - started,
        "settings": bench.settings,
    }


def check_surveys(recipe: Any, config: RecipeConfig) -> None:
    """Whether a recipe can use the user's surveys, as far as their footers and labels say; raises InputError.

    All of them, before anything is made: ``--real`` is read last, when hours of training are done.
    """
    from lensray.io import storage
    from lensray.training.sets import check_labelled

    urls = [url for url in (config.cutouts, *config.positives, *config.negatives, config.real) if url]
    inputs = recipe.inputs(config) if urls else None
    for url in urls:
        storage.check_outside(config.output, url)
        for _, footer in storage.read_footers(url):
            _check_bands(url, footer.metadata.schema.to_arrow_schema(), inputs)
    if config.real:
        check_labelled(config.real)


def _check_bands(url: str, schema: Any, inputs: Any) -> None:
    from lensray.reading import lacking_bands

    for part, found in lacking_bands(schema, inputs):
        missing = [band for band in part.bands if band not in found]
        raise InputError(
            f"{part.column!r} of {url} has the bands {', '.join(found)}, but the recipe's network takes "
            f"{', '.join(part.bands)}; give a survey with {', '.join(missing)}, or take another recipe"
        )


def _on_real_images(config: RecipeConfig, outcome: Outcome) -> "list[Evaluation]":
    """The bundle on the user's labelled real images, beside its last phase's validation."""
    if not config.real:
        return []
    from lensray.training.evaluation import evaluate_bundle

    return [evaluate_bundle(outcome.bundle, [config.real], kind="real")]


def _lines(report: Any) -> list[str]:
    from lensray.inspection.training_records import ranking_values

    lines = []
    for phase in report.phases:
        values = {
            name: value
            for name, value in ranking_values(phase, report.top_share).items()
            if value is not None
        }
        if values:
            lines.append(
                f"{phase.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            )
    for found in report.evaluations:
        values = ", ".join(f"{name} {value:.3g}" for name, value in found.values.items())
        lines.append(f"{found.model} on {found.data}: {values} (AUROC error {found.auroc_error:.2g})")
    lines += [
        f"{r.model}, {r.target}: " + ", ".join(f"{name} {value:.3g}" for name, value in r.values.items())
        for r in report.regressions
    ]
    if report.generation:
        values = report.generation.values
        lines.append(f"generated: diversity {values['diversity']:.3g}, copies {values['copied']:.3g}")
    return lines
