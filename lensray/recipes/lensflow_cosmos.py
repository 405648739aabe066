"""LensFlow for HST/ACS F814W images of COSMOS (Pourrahmani et al. 2018, arXiv:1705.05857; thesis, chapter 2; notebook).

    python jobs/train_phases.py lensflow_cosmos --output runs/lensflow --scale paper --cifar cifar-10-binary.tar.gz

Cutouts of 200×200 pixels at 0.03 arcsec are brought to 100×100 and to the histogram of a template. Then, in phases:

0. airplanes against automobiles of CIFAR-10, grey, enlarged, of the same histogram: 8 epochs.
1. 200 simulated lenses, each in 8 symmetries and 8 random crops of 90×90 pixels an epoch, against as many random cutouts
   of the survey: 20 epochs of Adam, 64 + 64 in a batch, convolutions at a tenth of the rate. The network ranks
   the survey; the first 6% go on.
2. The negatives come from these 6%: 25 epochs at 5e-4. Bootstrapping: what ranks among the first 300 and is no lens joins
   the negatives, and the network goes on.
3. The tracers join the lenses; the network goes on, and ranks the survey once more: the candidate list.

Tracer rank curve, efficiency, ranking performance and ROC are measured after each phase.

``small`` takes ten minutes on two cores of an AMD EPYC (ranking performance 0.93 after phase 1, 0.98 in the end);
``paper`` takes an hour and a half on one core, and reaches 0.98 after phase 1 (docs/results.md).

Departures: symmetries and crops are drawn anew for each showing, and for the negatives as well (in the notebook
lenses alone are cropped and enlarged, a blur that gives them away); bootstrapping and phase 3, whose length is not
published, take ten epochs each. Who is no lens among the first 300 was said by eye; here it is the
survey's ``label`` or ``is_tracer``. The template is a stand-in (`lensray.normalization.dim_galaxy_template`). In a
simulated survey the random cutouts hold no unknown lens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lensray.bundle import Inputs
from lensray.errors import InputError
from lensray.recipes.config import RecipeConfig, check_positive
from lensray.recipes.outcome import Outcome
from lensray.recipes.sources import Sources
from lensray.training.phases import Augmentation, Optimizer, Phase
from lensray.training.search import Choice, Range, SearchSets, Tunable, sizes_around

if TYPE_CHECKING:
    import pyarrow as pa

    from lensray.training.workbench import Workbench

SURVEY, STORED_SIZE = "cosmos_acs", 200
SIZE, PIXEL_SCALE = 100, 0.06
SHOWINGS = 16
"""8 symmetries and 8 crops of each lens."""
SURVIVORS = 0.06
"""Share of the survey that goes on into phase 2."""


PUBLISHED = {
    "phase_1": {"ranking_performance": 0.97, "top_share": 1.0},
    "phase_2": {"ranking_performance": 0.60},
}
"""Thesis, Figure 2.5."""
NOTES = (
    "Phases 2 and bootstrap rank the survivors alone; phase 3 has been trained on the tracers that it ranks.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything at a scale."""

    lenses: int
    """Simulated lenses of the training set."""
    showings: int
    """How often an epoch shows each."""
    survey: int
    """Cutouts of the simulated survey."""
    tracers: int
    """Known lenses in it."""
    survivors: int
    """Negatives of phase 2, drawn from the first 6%."""
    bootstrap: int
    """Depth of the ranking whose false positives join the negatives."""
    epochs: tuple[int, int, int, int]
    """Epochs of phases 0, 1, 2, and of bootstrapping and phase 3 each."""
    batch_size: int
    """Images in a mini-batch."""


SCALES = {
    "paper": Sizes(
        lenses=200,
        showings=SHOWINGS,
        survey=20_000,
        tracers=52,
        survivors=2_000,
        bootstrap=300,
        epochs=(8, 20, 25, 10),
        batch_size=128,
    ),
    "small": Sizes(
        lenses=100,
        showings=SHOWINGS,
        survey=2_000,
        tracers=20,
        survivors=500,
        bootstrap=60,
        epochs=(2, 4, 4, 2),
        batch_size=128,
    ),
    "smoke": Sizes(
        lenses=4,
        showings=2,
        survey=60,
        tracers=3,
        survivors=20,
        bootstrap=6,
        epochs=(1, 1, 1, 1),
        batch_size=8,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(RecipeConfig):
    """LensFlow for COSMOS F814W, in four phases."""

    cifar: str = ""
    """CIFAR-10 for phase 0: the binary archive, or a folder train/<class>/*; without it phase 1 starts from fresh weights."""
    lenses: int | None = None
    """Simulated lenses of the training set (default: 200 at ``paper``)."""

    def __post_init__(self) -> None:
        # slots=True makes a new class, which super() without arguments would not know.
        RecipeConfig.__post_init__(self)
        check_positive(self, "lenses")


def inputs(config: Config) -> Inputs:
    """The images that the network takes, but for phase 0."""
    return phase(config, "phase_1", 1, 1e-3).inputs


def tunable(config: Config) -> Tunable:
    """What can be searched: the first phase, on which the others build."""
    from lensray.normalization import Arcsinh

    sizes = SCALES[config.scale]
    own = phase(config, "phase_1", sizes.epochs[1], 1e-3)

    def sets(bench: "Workbench") -> SearchSets:
        made = Sources(config, bench, survey=SURVEY, size=STORED_SIZE)
        count, tested = config.lenses or sizes.lenses, max(20, sizes.survey // 4)
        survey = made.survey("survey", sizes.survey, sizes.tracers)
        return SearchSets(
            training=[
                made.lenses("lenses", count),
                made.random_of("random", survey, count * sizes.showings),
                *made.more(),
            ],
            validation=[made.validation("validation", tested, beside_test=True)],
            test=[made.test("test", tested)],
        )

    return Tunable(
        # Without a validation set the recipe keeps the last weights; a search looks for the best.
        phase=replace(own, keep="best", arguments={**own.arguments, "dropout": 0.5}),
        space={
            "optimizer.learning_rate": Range(low=1e-4, high=1e-2, log=True),
            "optimizer.weight_decay": Range(low=0.0, high=1e-2),
            "epochs": Range(low=1, high=2 * own.epochs, whole=True),
            "batch_size": Choice(sizes_around(own.batch_size)),
            "smoothing": Range(low=0.0, high=0.2),
            "arguments.dropout": Range(low=0.0, high=0.7),
            "normalization": Choice({"template histogram": own.normalization, "arcsinh": Arcsinh(scale=0.3)}),
            "augmentation": Choice(
                {
                    "symmetries and crops": own.augmentation,
                    "symmetries": Augmentation(symmetries=True),
                    "symmetries and zooms": Augmentation(symmetries=True, max_zoom=1.3),
                }
            ),
        },
        sets=sets,
    )


def run(config: Config, bench: "Workbench") -> Outcome:
    """Work through the phases."""
    from lensray.training.sets import rows_of

    sizes = SCALES[config.scale]
    made = Sources(config, bench, survey=SURVEY, size=STORED_SIZE)
    count = config.lenses or sizes.lenses
    lenses = made.lenses("lenses", count)
    survey = made.survey("survey", sizes.survey, sizes.tracers)
    more = made.more()
    start = _phase_0(config, sizes, bench) if config.cifar else ""

    random = made.random_of("random", survey, count * sizes.showings)
    fresh = ("classifier.output",)
    first = phase(config, "phase_1", sizes.epochs[1], 1e-3, start=start, fresh=fresh if start else ())
    bundle_1 = bench.train(first, training=[lenses, random, *more])
    depth = max(1, round(SURVIVORS * rows_of(survey)))
    ranking_1 = bench.scan("ranking_1", cutouts=survey, bundle=bundle_1, top=depth, resample=True)

    best = _survivors(bench, ranking_1, depth)
    hard = _false_positives(bench, "survivors", ranking_1, depth, count=sizes.survivors, seed=config.seed)
    second = phase(config, "phase_2", sizes.epochs[2], 5e-4, start=bundle_1)
    bundle_2 = bench.train(second, training=[lenses, hard, *more])
    ranking_2 = bench.scan("ranking_2", cutouts=best, bundle=bundle_2, top=depth, resample=True)

    confused = _false_positives(bench, "confused", ranking_2, sizes.bootstrap)
    again = phase(config, "bootstrap", sizes.epochs[3], 5e-4, start=bundle_2)
    bundle_b = bench.train(again, training=[lenses, hard, confused, *more])
    ranking_b = bench.scan("ranking_bootstrap", cutouts=best, bundle=bundle_b, top=depth, resample=True)

    tracers = _tracers(bench, survey)
    third = phase(config, "phase_3", sizes.epochs[3], 5e-4, start=bundle_b)
    bundle_3 = bench.train(third, training=[lenses, hard, confused, *tracers, *more])
    ranking_3 = bench.scan("ranking_3", cutouts=survey, bundle=bundle_3, top=depth, resample=True)
    scans = {"phase_1": ranking_1, "phase_2": ranking_2, "bootstrap": ranking_b, "phase_3": ranking_3}
    return Outcome(
        phases=({"phase_0": None} if start else {}) | scans, bundle=bundle_3, published=PUBLISHED, notes=NOTES
    )


def phase(
    config: Config,
    name: str,
    epochs: int,
    learning_rate: float,
    *,
    start: str = "",
    fresh: Sequence[str] = (),
    bands: tuple[str, ...] = ("F814W",),
    pixel_scale_arcsec: float = PIXEL_SCALE,
    **settings: Any,
) -> Phase:
    """A phase on images of 100×100 pixels: pairs, Adam, convolutions at a tenth of the rate."""
    from lensray.normalization import HistogramTransform, dim_galaxy_template

    sizes = SCALES[config.scale]
    return Phase(
        **{
            "name": name,
            "architecture": "lensflow",
            "arguments": {"in_channels": 1},
            "inputs": Inputs(
                bands=bands,
                height=SIZE,
                width=SIZE,
                pixel_scale_arcsec=pixel_scale_arcsec,
                max_nan_fraction=0.05,
            ),
            "normalization": HistogramTransform(dim_galaxy_template(SIZE)),
            "epochs": epochs,
            "batch_size": sizes.batch_size,
            "repeats": sizes.showings,
            "augmentation": Augmentation(symmetries=True, crop=90),
            "optimizer": Optimizer(name="adam", learning_rate=learning_rate, multipliers={"features.": 0.1}),
            "autocast": True,
            "keep": "last",
            "start": start,
            "fresh": tuple(fresh),
            "seed": config.seed,
            **settings,
        }
    )


def _phase_0(config: Config, sizes: Sizes, bench: "Workbench") -> str:
    """Airplanes against automobiles; returns the bundle."""
    from lensray.io.cifar import cifar_tables

    def tables(split: Any) -> Iterator["pa.Table"]:
        yield cifar_tables(config.cifar, split, size=SIZE)

    words = {"cifar": config.cifar, "size": SIZE}
    training = bench.dataset("cifar_train", lambda: tables("train"), words | {"split": "train"})
    test = bench.dataset("cifar_test", lambda: tables("test"), words | {"split": "test"})
    zeroth = phase(
        config,
        "phase_0",
        sizes.epochs[0],
        1e-3,
        bands=("grey",),
        pixel_scale_arcsec=1.0,
        classes=("airplane", "automobile"),
        positive_classes=("automobile",),
        sampling="shuffled",
        augmentation=Augmentation(symmetries=False),
        optimizer=Optimizer(name="adam", learning_rate=1e-3),
        monitor="auroc",
    )
    return bench.train(zeroth, training=[training], validation=[test])


def _survivors(bench: "Workbench", ranking: str, depth: int) -> str:
    """The first cutouts of a ranking as a survey, with what is known of them."""
    from lensray.training.sets import top_of

    def tables() -> Iterator["pa.Table"]:
        top = top_of(ranking, depth)
        yield top.drop_columns([name for name in ("rank", "ordinality", "score") if name in top.column_names])

    return bench.dataset("best", tables, {"top": ranking, "depth": depth})


def _false_positives(
    bench: "Workbench", name: str, ranking: str, depth: int, *, count: int | None = None, seed: int = 0
) -> str:
    from lensray.training.sets import false_positives

    words = {"false_positives": ranking, "depth": depth, "count": count, "seed": seed}
    return bench.dataset(name, lambda: iter([false_positives(ranking, depth, count=count, seed=seed)]), words)


def _tracers(bench: "Workbench", survey: str) -> list[str]:
    """The known lenses of the survey as a training set; none where the survey knows none."""
    from lensray.training.sets import known_lenses_of

    try:
        return [bench.dataset("tracers", lambda: known_lenses_of(survey), {"tracers": survey})]
    except InputError:
        bench.note("the survey has no known lens: phase 3 repeats bootstrapping's training set")
        return []
