"""LensGenerator: thousands of lens images from tens, by a network (Pourrahmani 2019, sections 3.1 and 4.3).

    python jobs/train_phases.py lens_generator --output runs/generator --scale small
    python jobs/train_phases.py eznet_hsc --positives runs/generator/generated --output runs/eznet_augmented

A generator and EZnet as its critic (`lensray.models.lens_generator`) learn first on ordinary galaxies of the survey, of
which there are many, then on the few lenses. Against mode collapse this second training is done in 10 cycles, each from the
same start with other random numbers, and each gives 200 images: 2,000 in all, in the folder ``generated``, a
survey of uint8 cutouts that any recipe of the same bands takes as ``--positives``. A cycle that collapses ends with its last
diverse epoch, and one that never was diverse gives no images.

The report says whether the images are any good: a contact sheet with the training lens that is nearest to each, how
different they are from each other, how many are copies, and the distances of their statistics to those of
lenses that the generator never saw (`lensray.metrics.diversity`).

``small`` takes half an hour on one core of an AMD EPYC. So short a training gives smooth objects on patterned skies that do more harm
than good (docs/results.md); ``paper`` shows 400,000 images, a night's work for one core.

Without ``--positives`` the lenses are simulated ones (the thesis had fewer than 50 real ones), those of ``eznet_hsc`` with the
same seed. The thesis says neither how long it trained nor how: DCGAN's Adam (2e-4, 0.5, batches of 64) is taken for it, with a
fourfold rate for the generator, whose critic is a strong one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from lensray.errors import InputError, LensRayError
from lensray.recipes import eznet_hsc
from lensray.recipes.config import RecipeConfig, check_lenses, check_positive
from lensray.recipes.outcome import Outcome
from lensray.recipes.sources import Sources
from lensray.training.phases import AdversarialPhase, Augmentation, Optimizer

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from lensray.bundle import Inputs
    from lensray.inspection.generation_records import Generation
    from lensray.training.workbench import Workbench

GENERATED = "generated"
CLASSES = ("generated", "real")
GENERATOR_RATE = 4.0
"""Factor on the generator's learning rate: at the same rate EZnet soon tells all of its images."""
COMPARED = 500
"""Generated and unseen images, at most, that are compared in the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything at a scale."""

    lenses: int
    """Lenses that are learned from."""
    pool: int
    """Galaxies of the survey, for the pretraining."""
    unseen: int
    """Lenses that are not learned from, for the comparison."""
    cycles: int
    """Trainings on the lenses."""
    per_cycle: int
    """Images that each of them gives."""
    epochs: tuple[int, int]
    """Epochs on the galaxies, and of each cycle on the lenses."""
    passes: int
    """How often an epoch of a cycle goes through the lenses."""
    batch_size: int
    """Real images in a mini-batch, beside as many generated ones."""
    averaging: int
    """Steps over which the generator is averaged."""
    least_diversity: float = 0.2
    """Share of the real images' diversity below which a cycle ends."""
    blocks: tuple[tuple[int, int, int], ...] | None = None
    """Blocks of the critic, if not the thesis'."""
    maps: int = 32
    """Feature maps of the generator before its last block."""


SCALES = {
    "paper": Sizes(
        lenses=50,
        pool=10_000,
        unseen=500,
        cycles=10,
        per_cycle=200,
        epochs=(20, 10),
        passes=40,
        batch_size=64,
        averaging=200,
    ),
    "small": Sizes(
        lenses=50,
        pool=2_000,
        unseen=500,
        cycles=10,
        per_cycle=200,
        epochs=(10, 4),
        passes=10,
        batch_size=32,
        averaging=50,
    ),
    "smoke": Sizes(
        lenses=8,
        pool=16,
        unseen=8,
        cycles=2,
        per_cycle=6,
        epochs=(10, 2),
        passes=10,
        batch_size=8,
        averaging=2,
        least_diversity=0.0,
        blocks=((6, 3, 16), (6, 3, 8)),
        maps=4,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(RecipeConfig):
    """Lens images by a generator that learned from few lenses."""

    lenses: int | None = None
    """Simulated lenses to learn from, beside those of --positives (default: 50, or none with --positives)."""
    pool: int | None = None
    """Galaxies of the survey for the pretraining (default: 10,000 at ``paper``)."""
    cycles: int | None = None
    """Trainings on the lenses, each with other random numbers (default: 10)."""
    per_cycle: int | None = None
    """Images of each cycle (default: 200)."""
    least_diversity: float | None = None
    """A cycle ends when its images differ from each other by less than this share of what real ones do (default: 0.2)."""

    def __post_init__(self) -> None:
        # slots=True makes a new class, which super() without arguments would not know.
        RecipeConfig.__post_init__(self)
        check_positive(self, "pool", "cycles", "per_cycle")
        check_lenses(self)
        if self.least_diversity is not None and not 0 <= self.least_diversity < 1:
            raise InputError(f"--least-diversity is {self.least_diversity}; it must lie in [0, 1)")


def sizes(config: Config) -> Sizes:
    """The scale's sizes with the user's own in their place."""
    own = {
        name: getattr(config, name) for name in ("lenses", "pool", "cycles", "per_cycle", "least_diversity")
    }
    if config.positives and config.lenses is None:
        own["lenses"] = 0
    return replace(SCALES[config.scale], **{name: value for name, value in own.items() if value is not None})


def inputs(config: Config) -> "Inputs":
    """The images that are learned and made."""
    return eznet_hsc.INPUTS


def phase(
    config: Config, name: str, *, epochs: int, passes: int, seed: int, start: str = ""
) -> AdversarialPhase:
    """A training of generator and critic."""
    from lensray.normalization import PercentileClip

    wanted, taken = sizes(config), inputs(config)
    critic = {"blocks": [list(block) for block in wanted.blocks]} if wanted.blocks else {}
    return AdversarialPhase(
        name=name,
        architecture="lens_generator",
        arguments={
            "in_channels": len(taken.bands),
            "size": taken.width,
            "maps": wanted.maps,
            "critic": critic,
        },
        inputs=taken,
        normalization=PercentileClip(percent=0.5),
        classes=CLASSES,
        positive_classes=CLASSES[1:],
        epochs=epochs,
        batch_size=wanted.batch_size,
        repeats=passes,
        sampling="shuffled",
        augmentation=Augmentation(symmetries=True, max_shift=2),
        optimizer=Optimizer(
            name="adam", learning_rate=2e-4, momentum=0.5, multipliers={"generator.": GENERATOR_RATE}
        ),
        smoothing=0.1,
        averaging=wanted.averaging,
        autocast=True,
        least_diversity=wanted.least_diversity,
        start=start,
        seed=seed,
    )


def run(config: Config, bench: "Workbench") -> Outcome:
    """Learn galaxies, then lenses again and again, and make images."""
    wanted, made = sizes(config), Sources(config, bench, survey=eznet_hsc.SURVEY, size=eznet_hsc.SIZE)
    lenses = [*([made.lenses("lenses", wanted.lenses)] if wanted.lenses else []), *made.more_positives()]
    galaxies = [made.non_lenses("non_lenses", wanted.pool), *made.more_negatives()]
    first = phase(config, "galaxies", epochs=wanted.epochs[0], passes=1, seed=config.seed)
    start = bench.train(first, training=galaxies)
    cycles = {f"cycle_{number}": number for number in range(1, wanted.cycles + 1)}
    # Latent numbers of its own for each cycle, or ten would give the same images ten times.
    latents = {name: config.seed * 1000 + number for name, number in cycles.items()}
    bundles = {}
    for name, number in cycles.items():
        again = phase(
            config,
            name,
            epochs=wanted.epochs[1],
            passes=wanted.passes,
            seed=config.seed + number,
            start=start,
        )
        try:
            bundles[name] = bench.train(again, training=lenses)
        except LensRayError as error:
            bench.note(f"{name} gives no images: {error}")
    good = {name: url for name, url in bundles.items() if _was_diverse(bench.history(name), wanted)}
    if not good:
        raise LensRayError(
            f"the generator collapsed in all of its {wanted.cycles} cycles: its images are all alike; "
            "give more lenses, or more --pool, or a smaller --least-diversity"
        )
    words = {
        "bundles": good,
        "per_cycle": wanted.per_cycle,
        "seeds": [latents[name] for name in good],
    }
    survey = bench.dataset(GENERATED, lambda: _generated(good, wanted.per_cycle, latents), words)
    bench.note(f"{len(good) * wanted.per_cycle:,} generated lenses in {survey}")
    generation = _compared(first, survey, lenses, made.unseen_lenses("unseen", wanted.unseen))
    return Outcome(
        phases=dict.fromkeys(["galaxies", *bundles]),
        bundle=list(good.values())[-1],
        generation=generation,
        notes=[
            f"The generated lenses are in {survey}; give them to a recipe as --positives.",
            *_collapses(bench, ["galaxies", *bundles], wanted),
            *(f"{name} diverged; it gave no images." for name in cycles if name not in bundles),
        ],
    )


def _was_diverse(history: list[dict[str, Any]], wanted: Sizes) -> bool:
    return any(row["diversity"] >= wanted.least_diversity for row in history)


def _collapses(bench: "Workbench", names: Any, wanted: Sizes) -> Iterator[str]:
    for name in names:
        history = bench.history(name)
        if history[-1]["diversity"] < wanted.least_diversity:
            left = "its last diverse epoch was used" if _was_diverse(history, wanted) else "it gave no images"
            yield f"{name} collapsed in epoch {len(history)} (diversity {history[-1]['diversity']:.2f}); {left}."


def _generated(bundles: dict[str, str], count: int, latents: dict[str, int]) -> Iterator["pa.Table"]:
    """The survey of generated lenses, a table a cycle; `latents` are the seeds of their latent numbers."""
    import numpy as np

    from lensray import bundle, cutouts
    from lensray.models.lens_generator import LensGenerator, generate

    taken = eznet_hsc.INPUTS
    fmt = cutouts.CutoutFormat(
        survey="generated",
        bands=taken.bands,
        pixel_scale_arcsec=taken.pixel_scale_arcsec,
        shape=taken.shape,
        dtype=np.dtype(np.uint8),
    )
    for name, url in bundles.items():
        images = generate(cast(LensGenerator, bundle.load(url).model()), count, seed=latents[name])
        levels = images.mul(255).round().byte().numpy()
        yield cutouts.make_table(
            fmt, [f"{name}-{i}" for i in range(count)], levels, label=np.ones(count, bool)
        )


def _compared(read_as: AdversarialPhase, generated: str, training: list[str], unseen: str) -> "Generation":
    """What the report says of the generated lenses."""
    import numpy as np

    from lensray.cutouts import images_of, read_format
    from lensray.inspection.generation_records import generation, spread
    from lensray.training.sets import row_groups

    def images(urls: list[str]) -> "np.ndarray":
        from lensray.training.examples import read_examples, to_float

        return to_float(read_examples(urls, read_as).images).numpy()

    # Not normalized again, which would stretch what has no contrast.
    made = np.concatenate([images_of(table, read_format(table.schema))[0] for table in row_groups(generated)])
    return generation(
        spread(made / np.float32(255), COMPARED),
        images(training),
        spread(images([unseen]), COMPARED),
        read_as.inputs.bands,
    )
