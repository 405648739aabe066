"""DeepLens on LSST mocks, and the classic network beside it (class project; Lanusse et al. 2017, arXiv:1703.02642).

    python jobs/train_phases.py deeplens_lsst --output runs/deeplens --scale small
    python jobs/train_phases.py deeplens_lsst --output runs/deeplens --mocks lsst_mocks_single --train-on-mocks

The residual network of 46 layers and the classic network learn the same images of 45×45 pixels of one band (more with
``--bands``): clipped and scaled, those with NaN pixels left out and counted, on demand those of a low signal-to-noise too
(``--min-snr``); mini-batches of 128, Adam at 1e-3, a tenth of it after each third of the epochs (every 40 of
120). Completeness, contamination, purity and ROC are measured on a validation set, and with ``--mocks`` on published mocks.

``small`` takes twenty-five minutes on one core of an AMD EPYC, and reaches AUROC 0.99 on simulated and 0.96 on published mocks.
The epoch that is kept is chosen on the same simulated images on which the first figure is measured; the published test half chose nothing.

Departures: the training images are simulated mocks (`lensray.simulation.lsst_mocks` says how they were matched to the
published ones); each is turned into one of its eight symmetries when shown (the class project did not augment), and an
evaluation averages the eight; validation images are never trained on. ``small`` uses AdamW and one cycle of the rate, which
gets further in so few epochs. ``paper`` has the class project's 20,000 images and 120 epochs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lensray.recipes import lsst
from lensray.recipes.lsst import LsstConfig, Sizes, make_sets, sizes, train_and_evaluate
from lensray.recipes.lsst import inputs as inputs
from lensray.recipes.outcome import Outcome
from lensray.training.phases import Augmentation, Optimizer, Phase
from lensray.training.schedules import OneCycle, Steps
from lensray.training.search import Tunable

if TYPE_CHECKING:
    from lensray.training.workbench import Workbench

PUBLISHED = {"completeness": 0.61, "contamination": 0.52}
"""The class project's residual network, whose "contamination" is the false positive rate."""
CLASSIC = "classic_cnn"


SCALES = {
    "paper": Sizes(images=20_000, validation=4_000, epochs=120, batch_size=128),
    "small": Sizes(images=16_000, validation=2_000, epochs=4, batch_size=128),
    "smoke": Sizes(images=48, validation=24, epochs=1, batch_size=16),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(LsstConfig):
    """DeepLens on LSST mocks, and the classic network beside it."""


def phase(config: Config, sets: lsst.Taken, name: str) -> Phase:
    """Training of one of the two networks."""
    wanted = sizes(config, SCALES)
    size = {"size": sets.inputs.width} if name == CLASSIC else {}
    third = max(1, round(wanted.epochs / 3))
    paper = config.scale == "paper"
    return Phase(
        name=name,
        architecture=name,
        arguments={"in_channels": len(sets.inputs.bands), **size},
        inputs=sets.inputs,
        normalization=sets.normalization,
        epochs=wanted.epochs,
        batch_size=wanted.batch_size,
        sampling="shuffled",
        augmentation=Augmentation(symmetries=True),
        optimizer=Optimizer(
            name="adam" if paper else "adamw",
            learning_rate=config.learning_rate or (1e-3 if paper else 2e-3),
            weight_decay=0.0 if paper else 1e-2,
        ),
        schedule=Steps(at=(third, 2 * third)) if paper else OneCycle(),
        monitor="auroc",
        autocast=True,
        seed=config.seed,
    )


def tunable(config: Config) -> Tunable:
    """What can be searched: DeepLens' training; the classic network is its baseline."""
    own = phase(config, lsst.taken(config), "deeplens")
    return lsst.tunable(config, sizes(config, SCALES), own, {})


def run(config: Config, bench: "Workbench") -> Outcome:
    """Make the images, train both networks, and evaluate them."""
    wanted = sizes(config, SCALES)
    sets = make_sets(config, bench, images=wanted.images, validation=wanted.validation)
    trained = [phase(config, sets, name) for name in ("deeplens", CLASSIC)]
    return train_and_evaluate(config, bench, sets, trained, PUBLISHED)
