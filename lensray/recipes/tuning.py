"""A search for a recipe's settings: its options, what is searched, and the records of its trials. No ray."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from lensray.errors import InputError
from lensray.io import storage
from lensray.recipes.config import RecipeConfig, check_positive
from lensray.training.search import Choice, Range, SearchSets, Space, Tunable, Value, check_space, narrowed

if TYPE_CHECKING:
    from lensray.training.workbench import Workbench

Objective = Literal["ranking_performance", "recall", "cifar"]
State = Literal["running", "done", "stopped", "failed"]
TRIALS, TRIAL = "trials", "trial.json"
METRICS: Mapping[str, str] = {
    "ranking_performance": "ranking_performance",
    "recall": "recall",
    "cifar": "auroc",
}
"""What a trial is judged by, by objective: the name of a metric of the validation set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training of a search."""

    number: int
    """From 0, in the order of their starts."""
    values: Mapping[str, Value]
    """Its settings."""
    state: State
    """``done``: all of its epochs; ``stopped``: not promising; ``failed``: see `reason`."""
    score: float | None = None
    """Best value of the metric on the validation set."""
    epochs: int = 0
    """Epochs that were trained."""
    seconds: float = 0.0
    """How long it took."""
    reason: str = ""
    """Why it failed."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return key_of(self.values)


def key_of(values: Mapping[str, Value]) -> str:
    """The name that a trial gets from its settings."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:10]


def write_trial(output: str, trial: Trial) -> None:
    """Write a trial's record over the one that is there."""
    url = storage.join(output, TRIALS, trial.key, TRIAL)
    storage.write_bytes(url, json.dumps(asdict(trial), indent=1).encode())


def read_trials(output: str) -> list[Trial]:
    """The trials of a search so far, in the order of their numbers."""
    url = storage.join(output, TRIALS)
    if not storage.exists(url):
        return []
    records = [storage.join(url, name, TRIAL) for name in storage.list_names(*storage.resolve(url))]
    found = [Trial(**json.loads(storage.read_bytes(record))) for record in records if storage.exists(record)]
    return sorted(found, key=lambda trial: trial.number)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a score, the best first; of equals the first."""
    return sorted(
        (trial for trial in trials if trial.score is not None),
        key=lambda trial: (-(trial.score or 0.0), trial.number),
    )


class TuneOptions(RecipeConfig):
    """What a search can be told beside the words of its recipe; a base for type checkers alone."""

    trials: int
    objective: Objective
    inspection_depth: float
    space: tuple[str, ...]
    cifar: str
    concurrency: int | None
    reduction: int


def config_for(recipe: ModuleType) -> type[TuneOptions]:
    """The options of a search for a recipe's settings: the recipe's own, and those of the search."""

    @dataclass(frozen=True, kw_only=True)
    class TuneConfig(recipe.Config):  # type: ignore[misc, name-defined]
        """Search for the settings of a recipe that rank known lenses best."""

        trials: int = 20
        """Trainings, each with settings of its own."""
        objective: Objective = "ranking_performance"
        """What is maximized on the validation set: ranking performance, ``recall`` at --inspection-depth, or, to choose an architecture without lenses, the AUROC on --cifar images."""
        inspection_depth: float = 0.01
        """Part of the ranked validation set that is inspected, for --objective recall."""
        space: tuple[str, ...] = ()
        """Settings to search instead of all: NAME, NAME=LOW..HIGH or NAME=A,B,C."""
        cifar: str = ""
        """CIFAR-10, for --objective cifar: the binary archive, or a folder train/<class>/* and test/<class>/*."""
        concurrency: int | None = None
        """Trials at a time (default: as many as the cluster has room for)."""
        reduction: int = 3
        """Of so many trials one goes on at each rung of successive halving."""

        def __post_init__(self) -> None:
            recipe.Config.__post_init__(self)
            check_positive(self, "trials", "concurrency")
            if self.reduction < 2:
                raise InputError(f"--reduction is {self.reduction}; it must be at least 2")
            if not 0 < self.inspection_depth <= 1:
                raise InputError(f"--inspection-depth is {self.inspection_depth}; it must lie in (0, 1]")
            if self.objective == "cifar" and not self.cifar:
                raise InputError("--objective cifar needs --cifar, the images")
            if not hasattr(recipe, "tunable"):
                raise InputError("this recipe reports no ranking performance that could be searched for")

        def settings(self) -> dict[str, Any]:
            """The words that the results depend on."""
            free = ("concurrency", "trials")
            return {name: value for name, value in super().settings().items() if name not in free}

    return TuneConfig


def prepared(recipe: ModuleType, config: TuneOptions) -> Tunable:
    """The phase and the space of a search, checked; nothing is made yet.

    Raises
    ------
    InputError
        If a setting or a range makes no sense.
    """
    found: Tunable = recipe.tunable(config)
    if config.objective == "cifar":
        found = _on_cifar(found, config)
    found = replace(
        found,
        phase=replace(
            found.phase,
            monitor=METRICS[config.objective],
            inspection_depth=config.inspection_depth,
        ),
        space=narrowed(found.space, config.space),
    )
    check_space(found.phase, found.space)
    _check_batches(found, config.workers)
    return found


def _check_batches(found: Tunable, workers: int) -> None:
    dimension = found.space.get("batch_size")
    batches = dimension.of.values() if isinstance(dimension, Choice) else [found.phase.batch_size]
    if min(batches) < 2 * workers:
        raise InputError(
            f"a batch of {min(batches)} cannot be shared by {workers} workers; give fewer --workers, or larger ones as "
            "--space batch_size=…"
        )


def _on_cifar(found: Tunable, config: TuneOptions) -> Tunable:
    """The thesis' way of choosing an architecture: airplanes against automobiles, of which there are many."""
    from lensray.io.cifar import cifar_tables
    from lensray.normalization import HistogramTransform, PercentileClip

    phase = found.phase
    size = phase.inputs.width
    words = {"cifar": config.cifar, "size": size}

    def made(bench: "Workbench", split: Any) -> str:
        return bench.dataset(
            f"cifar_{split}",
            lambda: iter([cifar_tables(config.cifar, split, size=size)]),
            words | {"split": split},
        )

    if phase.inputs.further:
        raise InputError("--objective cifar is for networks of one image; this recipe's takes several")
    inputs = replace(phase.inputs, bands=("grey",), pixel_scale_arcsec=1.0)
    # Others have numbers of the survey's own, such as its noise.
    by_image = isinstance(phase.normalization, PercentileClip | HistogramTransform)
    return replace(
        found,
        phase=replace(
            phase,
            inputs=inputs,
            normalization=phase.normalization if by_image else PercentileClip(),
            arguments={**phase.arguments, "in_channels": 1},
            classes=("airplane", "automobile"),
            positive_classes=("automobile",),
            repeats=1,
            augmentation=replace(phase.augmentation, crop=None),
        ),
        sets=lambda bench: SearchSets(training=[made(bench, "train")], validation=[made(bench, "test")]),
    )


def largest_epochs(phase_epochs: int, space: Space) -> int:
    """The most epochs that a trial can have."""
    dimension = space.get("epochs")
    if dimension is None:
        return phase_epochs
    return int(dimension.high) if isinstance(dimension, Range) else max(dimension.of.values())
