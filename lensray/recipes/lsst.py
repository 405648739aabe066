"""What the two recipes for LSST mocks share: the images, the quality filter, the published mocks, the baselines.

Images come from one of three sources: by default simulated mocks (`lensray.simulation.lsst_mocks`), with ``--bands``
simulated single epochs of LSST in these bands, with ``--cutouts`` the user's own survey with arcs painted into it.
``--mocks`` gives a folder of published mocks, on whose test half the networks are evaluated beside two
baselines; with ``--train-on-mocks`` their training half is learned too, in a further phase.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lensray.bundle import Inputs
from lensray.errors import InputError
from lensray.recipes.config import RecipeConfig, check_positive
from lensray.recipes.outcome import Outcome
from lensray.recipes.sources import SEED_STEP, SEEDS, Sources
from lensray.training.phases import Augmentation, Optimizer, Phase
from lensray.training.schedules import OneCycle
from lensray.training.search import Choice, Range, SearchSets, Space, Tunable, sizes_around

if TYPE_CHECKING:
    import pyarrow as pa

    from lensray.inspection.training_records import Evaluation
    from lensray.normalization import Normalization
    from lensray.training.workbench import Workbench

SIZE = 45
SURVEY = "lsst_single_epoch"
PSF_FWHM_ARCSEC = 0.7
SKY_SIGMA = 3.67
"""Noise of a pixel of the mocks, in their units."""
CLIP_LOW, CLIP_HIGH, CLIP_SCALE = -5.0, 20.0, 0.3
"""Limits, in noises, between which pixels are kept, and what they are multiplied by then."""
TUNING_EPOCHS, TUNING_RATE, TUNING_REPEATS = 2, 1e-4, 20
"""Epochs and rate of the phase with published mocks, and how often an epoch shows each."""
FOREST_IMAGES = 4000
"""Simulated mocks that the baseline forest learns."""
MOCKS = "published mocks, test half"


@dataclass(frozen=True, kw_only=True, slots=True)
class LsstConfig(RecipeConfig):
    """Options of both recipes."""

    mocks: str = ""
    """Folder of published mocks ({lensed,unlensed}_*.fits.gz): the networks are evaluated on their test half."""
    train_on_mocks: bool = False
    """Train on the training half of --mocks too, in a further phase."""
    bands: tuple[str, ...] = ()
    """Bands of the images: simulated LSST bands (g r i), or those to take of --cutouts (default: all)."""
    min_snr: float = 0.0
    """Leave out images whose signal-to-noise (lensray/image_quality.py) is lower; how many is reported."""
    images: int | None = None
    """Images of the training set, half of them lenses."""
    epochs: int | None = None
    """Passes through the training set."""
    batch_size: int | None = None
    """Images in a mini-batch."""
    learning_rate: float | None = None
    """Highest learning rate."""

    def __post_init__(self) -> None:
        # slots=True makes a new class, which super() without arguments would not know.
        RecipeConfig.__post_init__(self)
        if self.train_on_mocks and not self.mocks:
            raise InputError("--train-on-mocks needs --mocks FOLDER, the published mocks")
        if self.mocks and (self.bands or self.cutouts):
            raise InputError(
                "--mocks are of one band and of their own units; leave --bands and --cutouts out"
            )
        check_positive(self, "images", "epochs", "batch_size", "learning_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything at a scale."""

    images: int
    """Images of the training set, half of them lenses."""
    validation: int
    """Images of the validation set."""
    epochs: int
    """Passes through the training set."""
    batch_size: int
    """Images in a mini-batch."""


def sizes(config: LsstConfig, scales: dict[str, Sizes]) -> Sizes:
    """The scale's sizes with the user's own in their place."""
    own = {name: getattr(config, name) for name in ("images", "epochs", "batch_size")}
    return replace(scales[config.scale], **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The images that networks take."""

    inputs: Inputs
    """Bands, size and pixel scale."""
    normalization: "Normalization"
    """Clipping and scaling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sets(Taken):
    """The images of a run."""

    training: tuple[str, ...]
    """Addresses of the training surveys."""
    validation: str
    """Address of the validation survey."""
    mocks: Mapping[str, str]
    """Addresses of the ``training`` and ``test`` half of the published mocks; empty without them."""
    notes: tuple[str, ...]
    """What the quality filter left out."""


def inputs(config: LsstConfig) -> Inputs:
    """The images that the networks take."""
    return taken(config).inputs


def taken(config: LsstConfig) -> Taken:
    """What the networks take of the images, and how."""
    if config.bands or config.cutouts:
        return _of_survey(config)
    return Taken(inputs=_mock_inputs(), normalization=clipped((SKY_SIGMA,)))


def make_sets(
    config: LsstConfig, bench: "Workbench", *, images: int, validation: int, beside_test: bool = False
) -> Sets:
    """Make, or find again, all images of a run; the validation set on other galaxies than a test set if asked."""
    sources = Sources(config, bench, survey=SURVEY, size=SIZE)
    quality, read = _Quality(config.min_snr, bench), taken(config)
    if config.bands or config.cutouts:
        lenses = sources.lenses("lenses", images // 2)
        training = [lenses, sources.non_lenses("non_lenses", images - images // 2)]
        tested = sources.validation("validation", validation, beside_test=beside_test)
    else:
        training = [_simulated_mocks(bench, "training", images, _seed(config, "lenses"))]
        tested = _simulated_mocks(bench, "validation", validation, _seed(config, "validation"))
    training = [*training, *sources.more()]
    kept = tuple(quality.kept(f"good_{k}", url, read.inputs) for k, url in enumerate(training))
    mocks = {
        half: quality.kept(f"good_mocks_{half}", _published(bench, config.mocks, half), read.inputs)
        for half in (("training", "test") if config.mocks else ())
    }
    validated = quality.kept("good_validation", tested, read.inputs)
    return Sets(
        inputs=read.inputs,
        normalization=read.normalization,
        training=kept,
        validation=validated,
        mocks=mocks,
        notes=tuple(quality.notes),
    )


def clipped(sky_sigma: tuple[float, ...]) -> "Normalization":
    """Pixels in units of the sky's noise, clipped and scaled.

    One noise for all images: a network then knows how bright an image is. Lanusse et al. (2017) likewise divide by one
    standard deviation, that of their training set.
    """
    from lensray.normalization import SigmaClip

    return SigmaClip(
        mean=(0.0,) * len(sky_sigma), sigma=sky_sigma, low=CLIP_LOW, high=CLIP_HIGH, scale=CLIP_SCALE
    )


def _mock_inputs() -> Inputs:
    from lensray.extraction.lsst_mocks import BAND, PIXEL_SCALE_ARCSEC

    return Inputs(bands=(BAND,), height=SIZE, width=SIZE, pixel_scale_arcsec=PIXEL_SCALE_ARCSEC)


def _of_survey(config: LsstConfig) -> Taken:
    """Inputs and normalization for LSST's bands, or for the user's survey, whose units are not known."""
    from lensray.cutouts import read_format
    from lensray.io import storage
    from lensray.normalization import SigmaClip
    from lensray.survey import get_survey

    if config.cutouts:
        fmt = read_format(storage.read_schema(config.cutouts))
        inputs = Inputs(
            bands=config.bands or fmt.bands,
            height=SIZE,
            width=SIZE,
            pixel_scale_arcsec=fmt.pixel_scale_arcsec,
            max_nan_fraction=0.05,
        )
        return Taken(inputs=inputs, normalization=SigmaClip(low=CLIP_LOW, high=CLIP_HIGH))
    lsst = get_survey(SURVEY)
    unknown = [band for band in config.bands if band not in lsst.bands]
    if unknown:
        raise InputError(
            f"--bands {' '.join(unknown)}: simulated are {' '.join(lsst.bands)}; choose among them"
        )
    sigma = tuple(lsst.sky_sigma[lsst.bands.index(band)] for band in config.bands)
    inputs = Inputs(bands=config.bands, height=SIZE, width=SIZE, pixel_scale_arcsec=lsst.pixel_scale_arcsec)
    return Taken(inputs=inputs, normalization=clipped(sigma))


def _seed(config: LsstConfig, what: str) -> int:
    return config.seed * SEED_STEP + SEEDS[what]


def _simulated_mocks(bench: "Workbench", name: str, count: int, seed: int) -> str:
    def tables() -> "Iterator[pa.Table]":
        from lensray.simulation.lsst_mocks import mock_tables

        return mock_tables(count, seed=seed)

    return bench.dataset(name, tables, {"mocks": count, "seed": seed})


def _published(bench: "Workbench", folder: str, half: Any) -> str:
    def tables() -> "Iterator[pa.Table]":
        from lensray.extraction.lsst_mocks import read_mocks

        yield read_mocks(folder, half)

    return bench.dataset(f"mocks_{half}", tables, {"published": folder, "half": half})


class _Quality:
    """Leaves out images with too little signal, and counts them."""

    def __init__(self, min_snr: float, bench: "Workbench") -> None:
        self.min_snr, self.bench = min_snr, bench
        self.notes: list[str] = []

    def kept(self, name: str, url: str, inputs: Inputs) -> str:
        """A survey of the good images; the survey itself where no limit is set.

        Images without a signal-to-noise, such as those with NaN pixels, stay: the training counts them by status.
        """
        from lensray.training.sets import rows_of

        if not self.min_snr:
            return url
        words = {"good": url, "min_snr": self.min_snr}
        made = self.bench.dataset(name, lambda: self._good(url, inputs.pixel_scale_arcsec), words)
        before, after = rows_of(url), rows_of(made)
        text = f"{name}: {before - after} of {before} images have a signal-to-noise below {self.min_snr:g}"
        self.notes.append(text)
        self.bench.note(text)
        return made

    def _good(self, url: str, pixel_scale_arcsec: float) -> "Iterator[pa.Table]":
        import pyarrow as pa

        from lensray.cutouts import images_of, read_format
        from lensray.image_quality import signal_to_noise
        from lensray.training.sets import row_groups

        for table in row_groups(url):
            images, _ = images_of(table, read_format(table.schema))
            poor = signal_to_noise(images, PSF_FWHM_ARCSEC / pixel_scale_arcsec) < self.min_snr
            yield table.filter(pa.array(~poor))


def tunable(config: LsstConfig, wanted: Sizes, own: Phase, more: Space) -> Tunable:
    """What can be searched of a network on LSST images."""

    def made(bench: "Workbench") -> SearchSets:
        sets = make_sets(config, bench, images=wanted.images, validation=wanted.validation, beside_test=True)
        test = _test_set(config, bench, sets, wanted.validation)
        return SearchSets(training=sets.training, validation=[sets.validation], test=[test])

    return Tunable(
        phase=own,
        space={
            "optimizer": Choice(
                {
                    "own": own.optimizer,
                    "adam": Optimizer(name="adam", learning_rate=1e-3),
                    "adamw": Optimizer(name="adamw", learning_rate=2e-3, weight_decay=1e-3),
                    "sgd": Optimizer(name="sgd", learning_rate=0.03, momentum=0.9, nesterov=True),
                }
            ),
            "optimizer.learning_rate*": Range(low=0.1, high=10.0, log=True),
            "schedule": Choice({"own": own.schedule, "one cycle": OneCycle()}),
            "epochs": Range(low=1, high=2 * own.epochs, whole=True),
            "batch_size": Choice(sizes_around(own.batch_size)),
            "smoothing": Range(low=0.0, high=0.2),
            "sampling": Choice({"shuffled": "shuffled", "paired": "paired"}),
            "augmentation": Choice(
                {
                    "symmetries": own.augmentation,
                    "symmetries and shifts": Augmentation(symmetries=True, max_shift=2),
                    "symmetries and zooms": Augmentation(symmetries=True, max_zoom=1.3),
                }
            ),
            **more,
        },
        sets=made,
    )


def _test_set(config: LsstConfig, bench: "Workbench", sets: Sets, count: int) -> str:
    """Images that a search never sees: of the published mocks where they are given."""
    if sets.mocks:
        return sets.mocks["test"]
    if config.bands or config.cutouts:
        return Sources(config, bench, survey=SURVEY, size=SIZE).test("test", count)
    return _simulated_mocks(bench, "test", count, _seed(config, "test"))


def tuned(phase: Phase, bundle: str, config: LsstConfig) -> Phase:
    """The further phase: a trained network goes on with published mocks, at a low rate, turned and shifted."""
    return replace(
        phase,
        name=f"{phase.name}_mocks",
        start=bundle,
        epochs=TUNING_EPOCHS if config.scale != "smoke" else 1,
        optimizer=Optimizer(name="adamw", learning_rate=TUNING_RATE, weight_decay=1e-2),
        schedule=OneCycle(),
        sampling="paired",
        repeats=TUNING_REPEATS if config.scale != "smoke" else phase.batch_size,
        augmentation=Augmentation(symmetries=True, max_shift=1),
        keep="last",
    )


def train_and_evaluate(
    config: LsstConfig,
    bench: "Workbench",
    sets: Sets,
    phases: Sequence[Phase],
    published: Mapping[str, float],
) -> Outcome:
    """Train networks on the same sets, the first one further on the published mocks if asked for, rank and evaluate."""
    bundles = {
        phase.name: bench.train(phase, training=sets.training, validation=[sets.validation])
        for phase in phases
    }
    best = phases[0].name
    if config.train_on_mocks:
        further = tuned(phases[0], bundles[best], config)
        best = further.name
        bundles[best] = bench.train(further, training=[sets.mocks["training"]], validation=[sets.validation])
    scans = {
        name: bench.scan(f"ranking_{name}", cutouts=sets.validation, bundle=bundle)
        for name, bundle in bundles.items()
    }
    return Outcome(
        phases=scans,
        bundle=bundles[best],
        evaluations=evaluate(bench, sets, bundles, published),
        notes=sets.notes,
    )


def evaluate(
    bench: "Workbench", sets: Sets, bundles: Mapping[str, str], published: Mapping[str, float]
) -> "list[Evaluation]":
    """The networks on the validation set and, where there are published mocks, on their test half beside baselines."""
    from lensray.training.evaluation import evaluate_bundle

    found = [
        evaluate_bundle(bundle, [sets.validation], model=name, data="simulated mocks", symmetries=True)
        for name, bundle in bundles.items()
    ]
    if not sets.mocks:
        return found
    for name, bundle in bundles.items():
        on_mocks = evaluate_bundle(
            bundle, [sets.mocks["test"]], model=name, data=MOCKS, kind="real", symmetries=True
        )
        found.append(replace(on_mocks, published=published))
    bench.note("baselines on the published mocks")
    return [*found, *_baselines(sets)]


def _baselines(sets: Sets) -> "list[Evaluation]":
    """Brightness, and forests on radial statistics that learned the training half or simulated mocks."""
    from lensray.inspection.training_records import Evaluation
    from lensray.training import radial_forest

    images, is_lens = radial_forest.labelled_images([sets.mocks["test"]], sets.inputs)
    half = radial_forest.labelled_images([sets.mocks["training"]], sets.inputs)
    simulated = radial_forest.labelled_images(sets.training, sets.inputs, limit=FOREST_IMAGES)
    scores = {
        "brightness": radial_forest.brightness_scores(half[0], images),
        "forest, training half": radial_forest.forest_scores(*half, images),
        "forest, simulated mocks": radial_forest.forest_scores(*simulated, images),
    }
    return [
        Evaluation(model=name, data=MOCKS, kind="real", scores=values, is_lens=is_lens)
        for name, values in scores.items()
    ]
