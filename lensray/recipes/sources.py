"""Where a recipe's images come from: the simulator, or the user's own survey with arcs painted into it.

Each set has seeds of its own, so that no image of a validation set or of the ranked survey was trained on. On a user's
survey validation and training take their galaxies, hosts and non-lenses, from parts of the survey that have none in
common; what is ranked in the end is the whole of it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from lensray.recipes.config import RecipeConfig

if TYPE_CHECKING:
    from lensray.training.workbench import Workbench

# Sets of one recipe differ by these, whatever its seed.
SEEDS = {"lenses": 0, "non_lenses": 1, "validation": 2, "survey": 3, "tracers": 4, "test": 5}
SEED_STEP = 1000
VALIDATION_SHARE = 0.2
"""Share of a user's survey that the validation set is made of, and nothing else."""
VALIDATION, TRAINING = (0.0, VALIDATION_SHARE), (VALIDATION_SHARE, 1.0)
TEST = (VALIDATION_SHARE / 2, VALIDATION_SHARE)
"""Part of the validation galaxies that a search never sees."""
MATCHED_LENSES = 200
"""Lenses to whose brightness the negatives of a user's survey are matched."""


class Sources:
    """Makes a recipe's sets.

    Parameters
    ----------
    config : RecipeConfig
    bench : Workbench
    survey : str
        Name of the simulated survey.
    size : int
        Side of its cutouts, in pixels.
    """

    def __init__(self, config: RecipeConfig, bench: "Workbench", *, survey: str, size: int) -> None:
        self.config, self.bench, self.name, self.size = config, bench, survey, size

    @property
    def is_real(self) -> bool:
        """Whether the user gave a survey."""
        return bool(self.config.cutouts)

    def lenses(self, name: str, count: int) -> str:
        """A survey of `count` lenses."""
        if self.is_real:
            return self._injected(name, count)
        return self._simulated(name, count, count, "lenses")

    def non_lenses(self, name: str, count: int) -> str:
        """A survey of `count` non-lenses."""
        if self.is_real:
            return self._untouched(name, count)
        return self._simulated(name, count, 0, "non_lenses")

    def validation(self, name: str, count: int, *, beside_test: bool = False) -> str:
        """A survey of `count` cutouts, one lens in ten; on other galaxies than `test` if asked."""
        lenses = max(1, count // 10)
        if self.is_real:
            share = (VALIDATION[0], TEST[0]) if beside_test else VALIDATION
            return self._mixed(name, count, lenses, share, "validation")
        return self._simulated(name, count, lenses, "validation")

    def test(self, name: str, count: int) -> str:
        """A survey like that of `validation`, of which neither training nor validation sees a galaxy."""
        lenses = max(1, count // 10)
        if self.is_real:
            return self._mixed(name, count, lenses, TEST, "test")
        return self._simulated(name, count, lenses, "test")

    def survey(self, name: str, count: int, tracers: int) -> str:
        """The survey that is ranked: the user's, or a simulated one with `tracers` known lenses."""
        if self.is_real:
            return self.config.cutouts
        return self._simulated(name, count, tracers, "survey")

    def random_of(self, name: str, survey: str, count: int) -> str:
        """`count` random cutouts of a survey, its known lenses left out, as non-lenses.

        On the user's survey they are drawn like `non_lenses`.
        """
        if survey == self.config.cutouts:
            return self._untouched(name, count)
        return self._random(name, survey, count, "non_lenses")

    def unseen_lenses(self, name: str, count: int) -> str:
        """A survey of `count` lenses of which none is trained on."""
        if self.is_real:
            return self._onto(name, count, count, "validation", (True,), VALIDATION)
        return self._simulated(name, count, count, "validation")

    def more(self) -> list[str]:
        """The surveys of ``--positives`` and ``--negatives``."""
        return [*self.more_positives(), *self.more_negatives()]

    def more_positives(self) -> list[str]:
        """The surveys of ``--positives``, all of their cutouts labelled as lenses."""
        return [self._more("positives", n, url, True) for n, url in enumerate(self.config.positives)]

    def more_negatives(self) -> list[str]:
        """The surveys of ``--negatives``, all of their cutouts labelled as non-lenses."""
        return [self._more("negatives", n, url, False) for n, url in enumerate(self.config.negatives)]

    def _more(self, what: str, number: int, url: str, label: bool) -> str:
        from lensray.training.sets import all_with_label

        words = {what: url} | _sha256(url)
        return self.bench.dataset(f"{what}_{number}", lambda: all_with_label(url, label), words)

    def _seed(self, what: str) -> int:
        return self.config.seed * SEED_STEP + SEEDS[what]

    def _simulated(self, name: str, count: int, lenses: int, what: str) -> str:
        return self.bench.simulate(
            name, survey=self.name, count=count, lenses=lenses, seed=self._seed(what), size=self.size
        )

    def _random(self, name: str, survey: str, count: int, what: str) -> str:
        from lensray.training.sets import random_negatives

        seed = self._seed(what)
        words = {"random": survey, "count": count, "seed": seed} | _sha256(survey)
        return self.bench.dataset(name, lambda: iter([random_negatives(survey, count, seed=seed)]), words)

    def _injected(self, name: str, count: int) -> str:
        """Arcs painted on plausible deflectors of the user's survey."""
        return self._onto(name, count, count, "lenses", (True,))

    def _untouched(self, name: str, count: int) -> str:
        """Cutouts of the user's survey, drawn so that brightness does not tell them from lenses."""
        count = min(count, self._half_of(TRAINING))
        lenses = min(count, MATCHED_LENSES)
        return self._onto(name, count + lenses, lenses, "non_lenses", (False,))

    def _mixed(self, name: str, count: int, lenses: int, share: tuple[float, float], what: str) -> str:
        count = min(count, lenses + self._half_of(share))
        return self._onto(name, count, lenses, what, (True, False), share)

    def _half_of(self, share: tuple[float, float]) -> int:
        """Half of the cutouts of a share of the user's survey: of all, brightness could not be matched."""
        from lensray.training.sets import rows_of

        return max(1, int(rows_of(self.config.cutouts) * (share[1] - share[0]) / 2))

    def _onto(
        self,
        name: str,
        count: int,
        lenses: int,
        what: str,
        labels: tuple[bool, ...],
        share: tuple[float, float] = TRAINING,
    ) -> str:
        """Those of these labels of a set of lenses and non-lenses on a share of the user's survey."""
        survey, seed = self.config.cutouts, self._seed(what)

        def tables() -> Iterator[pa.Table]:
            from lensray.simulation.onto_survey import injected_survey
            from lensray.survey_imaging import open_hosts
            from lensray.training.sets import known_lenses, with_label

            made = injected_survey(open_hosts(survey), count=count, lenses=lenses, seed=seed, share=share)
            for table in made:
                for label in labels:
                    chosen = table.filter(pa.array(known_lenses(table) == label))
                    if chosen.num_rows:
                        yield with_label(chosen, label)

        words = {
            "onto": survey,
            "count": count,
            "lenses": lenses,
            "seed": seed,
            "labels": list(labels),
            "share": list(share),
        } | _sha256(survey)
        return self.bench.dataset(name, tables, words)


def _sha256(survey: str) -> dict[str, str]:
    """What tells a user's survey from the same address with other content."""
    from lensray.training.workbench import identity

    return {"sha256": identity(survey)["sha256"]}
