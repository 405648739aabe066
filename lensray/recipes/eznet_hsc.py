"""EZnet for g, r, i cutouts of HSC Wide, mined with few lenses (Pourrahmani 2019, chapter 4).

    python jobs/train_phases.py eznet_hsc --output runs/eznet_hsc --scale small
    python jobs/train_phases.py eznet_hsc --output runs/eznet_tuned --tuned

The thesis' way: cutouts of 64×64 pixels, the faintest and brightest half percent of the pixels clipped and the
rest stored as uint8; negative learning, each lens of a mini-batch beside a freshly drawn galaxy of a pool of 50,000;
the eight symmetries of the square; gradient descent with Nesterov momentum 0.9 and weight decay 1e-4, its rate 0.1, then
0.01 and 0.001 from epochs 150 and 220, for 250 epochs, or fewer if the validation set says so; and 50 lenses.

``paper`` takes half an hour on one core of an AMD EPYC, ``small`` six minutes; 50 simulated lenses give a ranking performance of 0.83 and
0.5 to 0.8 on 20,000 and 5,000 cutouts, ``--tuned`` at ``paper`` 0.90 in 22 minutes (docs/results.md, with what other numbers of lenses give).

Departures: the lenses are simulated (the thesis had 50 real ones), and the mini-batch, which it does not give,
is 64. An epoch goes ``passes`` times through the lenses, each time turned anew, as a set of all symmetries would be; images are
moreover shifted, turned by any angle and magnified by up to 1.3 or its inverse. What is kept is the average of the weights over the last
steps: at a rate of 0.1 the weights themselves jump.

The shipped bundle is of an earlier form of this recipe: 10,000 lenses and a pool of 40,000, AdamW and one cycle of the rate over 16
epochs, symmetries and shifts alone: ``--lenses 10000 --pool 40000 --epochs 16 --passes 1 --optimizer adamw`` comes closest.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lensray.bundle import Inputs
from lensray.errors import InputError
from lensray.recipes.config import RecipeConfig, check_lenses, check_positive
from lensray.recipes.outcome import Outcome
from lensray.recipes.sources import Sources
from lensray.training.phases import Augmentation, Optimizer, Phase
from lensray.training.schedules import OneCycle, Schedule, Steps
from lensray.training.search import Choice, Range, SearchSets, Tunable, changed, sizes_around

if TYPE_CHECKING:
    from lensray.training.workbench import Workbench

SURVEY, SIZE, PIXEL_SCALE = "hsc_wide", 64, 0.168
EPOCHS, DROPS = 250, (150, 220)
MAX_ZOOM = 1.3
INPUTS = Inputs(
    bands=("g", "r", "i"), height=SIZE, width=SIZE, pixel_scale_arcsec=PIXEL_SCALE, max_nan_fraction=0.05
)
"""The images that the network takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything at a scale."""

    lenses: int
    """Lenses of the training set."""
    pool: int
    """Non-lenses from which each lens' companion is drawn."""
    validation: int
    """Cutouts of the validation set, one lens in ten."""
    survey: int
    """Cutouts of the survey that is ranked in the end."""
    tracers: int
    """Lenses hidden in that survey."""
    epochs: int
    """Epochs; the rate falls at the same parts of them."""
    passes: int
    """How often an epoch goes through the lenses."""
    batch_size: int
    """Images in a mini-batch."""
    averaging: int
    """Steps over which the weights are averaged."""


SCALES = {
    "paper": Sizes(
        lenses=50,
        pool=50_000,
        validation=1_000,
        survey=20_000,
        tracers=100,
        epochs=EPOCHS,
        passes=8,
        batch_size=64,
        averaging=500,
    ),
    "small": Sizes(
        lenses=50,
        pool=10_000,
        validation=1_000,
        survey=5_000,
        tracers=50,
        epochs=200,
        passes=2,
        batch_size=64,
        averaging=200,
    ),
    "smoke": Sizes(
        lenses=8, pool=24, validation=40, survey=60, tracers=6, epochs=2, passes=1, batch_size=8, averaging=2
    ),
}


TUNED: dict[str, Any] = {
    "optimizer.learning_rate": 0.0089,
    "optimizer.weight_decay": 0.0051,
    "optimizer.momentum": 0.903,
    "schedule": "one cycle",
    "smoothing": 0.0715,
    "normalization": "arcsinh",
    "augmentation.max_zoom": 1.69,
    "augmentation.max_shift": 6,
    "arguments.branching_rate": 3,
    "arguments.blocks": "half",
}
"""The best of eight trials of ``tune_trc.py eznet_hsc --scale small``, by their names in `tunable`; its mini-batches were twice as large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(RecipeConfig):
    """EZnet for HSC Wide g, r, i, trained from few lenses."""

    lenses: int | None = None
    """Simulated lenses of the training set (default: 50, as in the thesis; 0 for none beside --positives)."""
    pool: int | None = None
    """Non-lenses from which each lens' companion is drawn (default: 50,000 at ``paper``)."""
    epochs: int | None = None
    """Epochs (default: 250); the learning rate falls after 60% and 88% of them."""
    passes: int | None = None
    """How often an epoch goes through the lenses, each time turned anew (default: 8 at ``paper``)."""
    batch_size: int | None = None
    """Images in a mini-batch, half of them lenses (default: 64)."""
    learning_rate: float | None = None
    """Highest learning rate (default: 0.1, or 0.003 for adamw)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: the thesis' gradient descent with momentum; ``adamw``: one cycle, for many lenses and few epochs."""
    tuned: bool = False
    """The settings that a search found for 50 lenses, instead of the thesis': one cycle, an arcsinh stretch, more zoom and shift,
    half of the blocks."""
    patience: int | None = None
    """Stop after so many epochs without a better validation, once the rate has fallen (default: an eighth of the epochs)."""

    def __post_init__(self) -> None:
        # slots=True makes a new class, which super() without arguments would not know.
        RecipeConfig.__post_init__(self)
        check_lenses(self)
        check_positive(self, "pool", "epochs", "passes", "batch_size", "learning_rate", "patience")
        given = [name for name in ("batch_size", "learning_rate") if getattr(self, name) is not None]
        if self.tuned and (given or self.optimizer != "sgd"):
            option = "--" + (given[0] if given else "optimizer").replace("_", "-")
            raise InputError(f"--tuned has settings of its own; leave {option} out, or --tuned")


def sizes(config: Config) -> Sizes:
    """The scale's sizes with the user's own in their place."""
    own = {name: getattr(config, name) for name in ("lenses", "pool", "epochs", "passes", "batch_size")}
    return replace(SCALES[config.scale], **{name: value for name, value in own.items() if value is not None})


def inputs(config: Config) -> Inputs:
    """The images that the network takes."""
    return INPUTS


def phase(config: Config) -> Phase:
    """The one phase of this recipe."""
    if not config.tuned:
        return thesis_phase(config)
    found = tunable(config)
    return replace(changed(found.phase, TUNED, found.space), batch_size=2 * found.phase.batch_size)


def thesis_phase(config: Config) -> Phase:
    """The phase with the thesis' settings."""
    from lensray.normalization import PercentileClip

    wanted = sizes(config)
    optimizer, schedule = _optimizer(config, wanted.epochs)
    return Phase(
        name="mine",
        architecture="eznet",
        arguments={"in_channels": 3},
        inputs=inputs(config),
        normalization=PercentileClip(percent=0.5),
        epochs=wanted.epochs,
        batch_size=wanted.batch_size,
        repeats=wanted.passes,
        augmentation=Augmentation(symmetries=True, max_shift=2, max_zoom=MAX_ZOOM),
        optimizer=optimizer,
        schedule=schedule,
        patience=config.patience or max(2, wanted.epochs // 8),
        patient_until=round(wanted.epochs * DROPS[0] / EPOCHS),
        validate_every=max(1, wanted.epochs // 50),
        averaging=wanted.averaging,
        autocast=True,
        seed=config.seed,
    )


def _optimizer(config: Config, epochs: int) -> tuple[Optimizer, Schedule]:
    if config.optimizer == "adamw":
        rate = config.learning_rate or 0.003
        return Optimizer(name="adamw", learning_rate=rate, weight_decay=1e-4), OneCycle()
    rate = config.learning_rate or 0.1
    drops = tuple(round(epochs * drop / EPOCHS) for drop in DROPS)
    optimizer = Optimizer(name="sgd", learning_rate=rate, weight_decay=1e-4, momentum=0.9, nesterov=True)
    return optimizer, Steps(at=drops)


def tunable(config: Config) -> Tunable:
    """What can be searched: what the thesis tuned by hand, depth and branching of the network too."""
    from lensray.models.eznet import THESIS_BLOCKS, shallower
    from lensray.normalization import Arcsinh, PercentileClip

    wanted = sizes(config)
    blocks = {"thesis": THESIS_BLOCKS, "half": shallower(0.5), "quarter": shallower(0.25)}
    own = thesis_phase(config)

    def sets(bench: "Workbench") -> SearchSets:
        made = Sources(config, bench, survey=SURVEY, size=SIZE)
        return SearchSets(
            training=_training(wanted, made),
            validation=[made.validation("validation", wanted.validation, beside_test=True)],
            test=[made.test("test", wanted.survey)],
        )

    return Tunable(
        phase=replace(
            own, arguments={**own.arguments, "branching_rate": 5, "blocks": as_lists(THESIS_BLOCKS)}
        ),
        space={
            "optimizer.learning_rate": Range(low=0.003, high=0.3, log=True),
            "optimizer.weight_decay": Range(low=1e-5, high=1e-2, log=True),
            "optimizer.momentum": Range(low=0.8, high=0.98),
            "schedule": Choice({"own": own.schedule, "one cycle": OneCycle()}),
            "batch_size": Choice(sizes_around(own.batch_size)),
            "smoothing": Range(low=0.0, high=0.2),
            "normalization": Choice(
                {
                    "0.5%": PercentileClip(percent=0.5),
                    "0.1%": PercentileClip(percent=0.1),
                    "2%": PercentileClip(percent=2.0),
                    "arcsinh": Arcsinh(scale=0.3),
                }
            ),
            "augmentation.max_zoom": Range(low=1.0, high=2.0),
            "augmentation.max_shift": Range(low=0, high=6, whole=True),
            "arguments.branching_rate": Range(low=2, high=7, whole=True),
            "arguments.blocks": Choice({name: as_lists(table) for name, table in blocks.items()}),
        },
        sets=sets,
    )


def as_lists(blocks: Any) -> list[list[int]]:
    """A table of blocks as JSON has it."""
    return [list(block) for block in blocks]


def _training(wanted: Sizes, made: Sources) -> list[str]:
    lenses = [made.lenses("lenses", wanted.lenses)] if wanted.lenses else []
    return [*lenses, made.non_lenses("non_lenses", wanted.pool), *made.more()]


def run(config: Config, bench: "Workbench") -> Outcome:
    """Make lenses and pool, train, rank a survey with unseen lenses."""
    wanted, made = sizes(config), Sources(config, bench, survey=SURVEY, size=SIZE)
    training = _training(wanted, made)
    validation = made.validation("validation", wanted.validation)
    bundle = bench.train(phase(config), training=training, validation=[validation])
    survey = made.survey("survey", wanted.survey, wanted.tracers)
    scan = bench.scan("ranking", cutouts=survey, bundle=bundle, resample=made.is_real)
    return Outcome(phases={"mine": scan}, bundle=bundle)
