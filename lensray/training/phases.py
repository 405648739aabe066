"""A phase of training: what is trained, on what, how long.

A recipe is a row of phases. Each starts from fresh weights or from the bundle of an earlier one, is shown
labelled cutouts, and ends in a bundle. Everything that the result depends on stands in the `Phase` and in
the training set, so their hash says whether a result that is there can be used again.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lensray.bundle import Inputs, check_classes
from lensray.errors import InputError
from lensray.training.schedules import Constant, Schedule

if TYPE_CHECKING:
    from lensray.normalization import Normalization


Monitor = Literal["auroc", "ranking_performance", "recall", "loss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How an image is changed each time that it is shown."""

    symmetries: bool = True
    """Turn and mirror it in one of the eight ways, drawn at random."""
    max_shift: int = 0
    """Move it by up to so many pixels along both axes."""
    crop: int | None = None
    """Half of the times, also take a part of so many pixels a side, rescaled (LensFlow: 90 of 100)."""
    max_zoom: float | None = None
    """Turn it by any angle and magnify it by up to this factor, or its inverse."""

    def __post_init__(self) -> None:
        if self.max_shift < 0 or (self.crop is not None and self.crop < 1):
            raise InputError(f"images cannot be shifted by {self.max_shift} or cropped to {self.crop} pixels")
        if self.max_zoom is not None and not 1 <= self.max_zoom < math.inf:
            raise InputError(f"the largest zoom is {self.max_zoom}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """How the weights follow the gradient."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    """``sgd`` (with momentum), ``adam`` or ``adamw``."""
    learning_rate: float = 1e-3
    """Rate before the schedule's factor."""
    weight_decay: float = 0.0
    """L2 penalty (``sgd``, ``adam``), or decay decoupled from the gradient (``adamw``)."""
    momentum: float = 0.0
    """Momentum of ``sgd``; of ``adam`` and ``adamw`` the first of the two betas, if not 0."""
    nesterov: bool = False
    """Nesterov's momentum."""
    multipliers: dict[str, float] = field(default_factory=dict)
    """Factor on the learning rate of parameters, by the beginning of their names."""

    def __post_init__(self) -> None:
        if not (
            0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf and 0 <= self.momentum < 1
        ):
            raise InputError(
                f"no optimizer has a learning rate of {self.learning_rate:g}, a weight decay of {self.weight_decay:g} "
                f"and a momentum of {self.momentum:g}; give a rate above 0, a decay of at least 0, a momentum below 1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One phase of a recipe."""

    name: str
    """Names the phase's folder; letters, digits, ``_`` and ``-``."""
    architecture: str
    """Network, by its name in `lensray.models`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the network is built with; JSON."""
    inputs: Inputs
    """The images that it takes."""
    normalization: "Normalization"
    """What the images go through, here and in the scan."""
    classes: tuple[str, ...] = ("non-lens", "lens")
    """Names of the outputs: the class of a false and of a true label, or the targets."""
    positive_classes: tuple[str, ...] = ("lens",)
    """Classes whose probabilities add up to the score."""
    label: str = "label"
    """Bool column of the training set with the class."""
    targets: tuple[str, ...] = ()
    """Float columns to regress instead of telling classes; rows without a value are left out."""
    epochs: int
    """Largest number of passes: through the positives (``paired``) or through everything (``shuffled``)."""
    batch_size: int
    """Images in a mini-batch over all workers."""
    repeats: int = 1
    """How often an epoch goes through the positives (``paired``) or everything, augmented anew each time."""
    sampling: Literal["paired", "shuffled"] = "paired"
    """``paired``: every positive with a freshly drawn negative; ``shuffled``: everything once, in random order."""
    augmentation: Augmentation = Augmentation()
    """How images are changed each time that they are shown."""
    optimizer: Optimizer = Optimizer()
    """How the weights follow the gradient."""
    schedule: Schedule = Constant()  # noqa: RUF009  (immutable)
    """Learning rate over the phase."""
    smoothing: float = 0.0
    """Label smoothing."""
    averaging: int | None = None
    """Validate and keep, instead of the weights, their exponential average over about so many steps."""
    monitor: Monitor = "ranking_performance"
    """Metric of the validation set that says which epoch is best."""
    inspection_depth: float = 0.01
    """Part of the validation set that is inspected, for ``recall``, the part of its lenses that is found there."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose weights the bundle gets; without a validation set always the last."""
    patience: int | None = None
    """Stop after so many epochs without a new best (overfitting)."""
    patient_until: int = 0
    """Epochs whose results do not count for this, such as those before the learning rate first falls."""
    autocast: bool = False
    """Train in bfloat16 mixed precision."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision in which the bundle is to be scanned."""
    start: str = ""
    """Bundle whose weights to start from; empty for fresh weights."""
    fresh: tuple[str, ...] = ()
    """Parameters that stay fresh all the same, by the beginning of their names (a new output layer)."""
    seed: int = 1
    """Seed of weights, order and augmentation."""

    def __post_init__(self) -> None:
        if not self.name or not all(letter.isalnum() or letter in "_-" for letter in self.name):
            raise ValueError(f"a phase's name has letters, digits, _ and -; got {self.name!r}")
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(
                f"phase {self.name}: {self.epochs} epochs of batches of {self.batch_size}; give at least 1 and 2"
            )
        if not 0 <= self.smoothing < 1:
            raise InputError(f"phase {self.name}: smoothing is {self.smoothing:g}; it must lie in [0, 1)")
        if self.sampling == "paired" and self.batch_size % 2:
            raise InputError(f"phase {self.name}: pairs need an even batch size; got {self.batch_size}")
        if not self.targets:
            check_classes(self.classes, self.positive_classes)

    @property
    def needs_both_classes(self) -> bool:
        """Whether the training set must have images with a true and with a false label."""
        return not self.targets


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialPhase(Phase):
    """A phase in which a generator learns to make images like those of the training set, whatever their labels."""

    least_diversity: float = 0.2
    """Training stops when generated images differ from each other by less than this share of what real ones do."""

    @property
    def needs_both_classes(self) -> bool:
        """It looks at no label."""
        return False


def description(phase: Phase) -> dict[str, Any]:
    """A phase as what JSON can hold; arrays of the normalization as their hash."""
    from lensray import normalization

    config, arrays = normalization.to_config(phase.normalization)
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    fields = {
        name: getattr(phase, name)
        for name in phase.__dataclass_fields__
        if name not in ("normalization", "inputs", "augmentation", "optimizer", "schedule")
    }
    parts = {name: asdict(getattr(phase, name)) for name in ("inputs", "augmentation", "optimizer")}
    schedule = {"name": type(phase.schedule).__name__, **asdict(phase.schedule)}  # type: ignore[call-overload]
    content = {**fields, **parts, "schedule": schedule, "normalization": {**config, **hashes}}
    return json.loads(json.dumps(content))
