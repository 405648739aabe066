"""What an inspection brings: lenses found and their share, against the number of images that are looked at.

For a survey of M objects, of which the share π (the lens rate) are lenses, inspected from the top of the ranking. Two
kinds of truth forecast it:

- *tracers*, lenses planted among the survey's own cutouts. The n-th best cutout of the survey is known, so the
  completeness C(n) is the share of the tracers that would be among the first n. Tracers themselves are not inspected:
  each is ranked as if it were the only one.
- *labels*, a sample of lenses and one of non-lenses, of any proportion. At a threshold t
  n(t) = M (π TPR(t) + (1 - π) FPR(t)) images are inspected, and C is the true positive rate.

In both cases π M C(n) lenses are expected among the n images, and the purity is their share. It rests on π, which no scan
measures, and on the tracers (labelled lenses) being drawn as the survey's lenses are: the selection function says
whether they are.

The interval is that of C: a Bayesian bootstrap (Rubin 1981, Annals of Statistics 9, 130), lenses and non-lenses apart, on
counts: the shares between thresholds are drawn from Dirichlet distributions with the counts as weights and half a count
added at either end, so that at any one threshold the rates are distributed as in Jeffreys' interval. Unlike that of draws
with replacement it always has a width. It is the interval of expected numbers; what a survey really brings scatters around
them by the root of the number besides. Where less than one false positive of the sample is expected among the
images, the sample cannot tell the false positive rate from zero, and no purity is given (`Forecast.resolved_from`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensray.metrics.counts import ClassCounts
from lensray.metrics.intervals import ONE_SIGMA

REPEATS = 400
FIGURE_DEPTHS = 60

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Completeness, lenses and purity by inspection depth; arrays have the shape (D,)."""

    images: NDArray[np.int64]
    """Images inspected from the top, ascending."""
    completeness: Numbers
    """Share of the survey's lenses among them."""
    completeness_low: Numbers
    """Lower end of its interval."""
    completeness_high: Numbers
    """Upper end."""
    resolved_from: int | None
    """Fewest images from which on at least one false positive of the sample is expected among them; None if at no depth.

    Before it, lenses and purity are NaN, and with labels so is the completeness: all three would rest on a false
    positive rate that the sample cannot tell from zero."""
    lens_rate: float
    """Share of lenses among the survey's objects, as supposed."""
    objects: int
    """Objects of the survey."""
    n_lenses: int
    """Tracers or labelled lenses that it was made with."""
    n_others: int
    """The survey's cutouts beside the tracers, or labelled non-lenses."""
    level: float
    """Coverage of the intervals."""

    @property
    def expected_lenses(self) -> Numbers:
        """Lenses expected among the images; never more than there are images."""
        return self._lenses(self.completeness)

    @property
    def expected_lenses_interval(self) -> tuple[Numbers, Numbers]:
        """Interval of `expected_lenses`."""
        return self._lenses(self.completeness_low), self._lenses(self.completeness_high)

    @property
    def purity(self) -> Numbers:
        """Share of lenses among the images."""
        return self.expected_lenses / self.images

    @property
    def purity_interval(self) -> tuple[Numbers, Numbers]:
        """Interval of `purity`."""
        low, high = self.expected_lenses_interval
        return low / self.images, high / self.images

    def _lenses(self, completeness: Numbers) -> Numbers:
        lenses = np.minimum(completeness * self.lens_rate * self.objects, self.images)
        return np.where(_resolved(self.images, self.resolved_from), lenses, np.nan)

    def rows(self, images: ArrayLike) -> list[dict[str, Any]]:
        """Those of the depths `images` that the forecast has, a dict each; None for what cannot be quoted."""
        wanted = np.flatnonzero(np.isin(self.images, np.asarray(images)))
        columns = {
            "images": self.images,
            **_columns("expected_lenses", self.expected_lenses, self.expected_lenses_interval),
            **_columns("completeness", self.completeness, (self.completeness_low, self.completeness_high)),
            **_columns("purity", self.purity, self.purity_interval),
        }
        return [{name: _plain(values[place]) for name, values in columns.items()} for place in wanted]

    def to_json(self, images: ArrayLike) -> dict[str, Any]:
        """What JSON can hold, at the depths `images`."""
        return {
            "lens_rate": self.lens_rate,
            "objects": self.objects,
            "n_lenses": self.n_lenses,
            "n_others": self.n_others,
            "level": self.level,
            "resolved_from": self.resolved_from,
            "rows": self.rows(images),
        }


def _resolved(images: NDArray, resolved_from: int | None) -> NDArray[np.bool_]:
    return np.zeros(len(images), bool) if resolved_from is None else images >= resolved_from


def _columns(name: str, values: Numbers, interval: tuple[Numbers, Numbers]) -> dict[str, Numbers]:
    return {name: values, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _plain(value: Any) -> float | int | None:
    return None if np.isnan(value) else value.item()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    """Shares of lenses and others in bins from the highest scores to the lowest, and how deep each pair of them is."""

    lenses: Numbers
    """Lenses in each bin; shape (B,)."""
    others: Numbers
    """Others in each bin."""
    objects: int
    """Objects of the survey."""
    lens_rate: float
    """Share of lenses among them."""
    planted: bool
    """Whether the others are the survey itself, lenses and all."""

    def path(self, lenses: Numbers, others: Numbers) -> tuple[Numbers, Numbers]:
        """Images inspected and completeness before and after each bin, of (drawn) numbers in it; shape (B + 1,)."""
        found, passed = _cumulative(lenses), _cumulative(others)
        if self.planted:
            return self.objects * passed, found
        return self.objects * (self.lens_rate * found + (1 - self.lens_rate) * passed), found

    def completeness(self, images: NDArray, lenses: Numbers, others: Numbers) -> Numbers:
        """Completeness at some depths; ties in random order."""
        depth, found = self.path(lenses, others)
        # A hair less: a tracer with n images before it is not among the first n.
        return np.interp(images * (1 - 1e-9), depth, found)

    @property
    def others_an_image(self) -> float:
        """Others in the sample for each non-lens among the inspected images."""
        non_lenses = self.objects * (1.0 if self.planted else 1 - self.lens_rate)
        return self.others.sum() / non_lenses

    def resolved_from(self) -> int | None:
        """Fewest images from which on at least one false positive of the sample is expected among them."""
        depth, found = self.path(self.lenses, self.others)
        false = (depth - self.objects * self.lens_rate * found) * self.others_an_image
        unresolved = np.flatnonzero(false < 1 - 1e-9)
        last = int(unresolved[-1]) if len(unresolved) else 0
        if last == len(false) - 1:
            return None
        return max(1, int(np.ceil(np.interp(1, false[last : last + 2], depth[last : last + 2]) - 1e-6)))


def _cumulative(counts: Numbers) -> Numbers:
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    return sums / sums[-1]


def forecast_of_tracers(
    counts: ClassCounts,
    *,
    lens_rate: float,
    images: ArrayLike | None = None,
    objects: int | None = None,
    level: float = ONE_SIGMA,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Forecast:
    """Forecast by tracers that were planted among a survey's cutouts.

    Parameters
    ----------
    counts : ClassCounts
        Tracers (positives) among the survey's cutouts (negatives), of which a few are lenses that nobody knows yet.
    lens_rate : float
        Share of lenses among the survey's objects, in (0, 1).
    images : array_like of int, optional
        Depths, from 1 to the number of objects; by default spread evenly in their logarithm.
    objects : int, optional
        Objects of the survey, if the cutouts are a sample of it; by default they are the survey, so that the ranks
        among them have no error.
    level : float
        Coverage of the intervals.
    repeats, seed : int
        Draws of the bootstrap, and their seed.

    Raises
    ------
    ValueError
        If there is no cutout but tracers, the lens rate is not in (0, 1), or a depth is not in the survey.

    Examples
    --------
    Of four tracers two are among the first 10 images of 1,000 objects, of which ten should be lenses.

    >>> scores = [*range(1000), 998.5, 994.5, 500.5, 1.5]
    >>> counts = ClassCounts.of(scores, [False] * 1000 + [True] * 4)
    >>> found = forecast_of_tracers(counts, lens_rate=0.01, images=[10])
    >>> found.completeness.tolist(), found.expected_lenses.tolist(), found.purity.tolist()
    ([0.5], [5.0], [0.5])
    """
    return _forecast(counts, lens_rate, images, objects, level, repeats, seed, planted=True)


def forecast_of_labels(
    counts: ClassCounts,
    *,
    lens_rate: float,
    objects: int,
    images: ArrayLike | None = None,
    level: float = ONE_SIGMA,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Forecast:
    """Forecast by a sample of lenses (positives) and one of non-lenses (negatives); arguments as of `forecast_of_tracers`."""
    return _forecast(counts, lens_rate, images, objects, level, repeats, seed, planted=False)


def _forecast(
    counts: ClassCounts,
    lens_rate: float,
    images: ArrayLike | None,
    objects: int | None,
    level: float,
    repeats: int,
    seed: int,
    *,
    planted: bool,
) -> Forecast:
    if not counts.n_negatives:
        raise ValueError("there is nothing but lenses; a forecast needs other cutouts as well")
    if not 0 < lens_rate < 1:
        raise ValueError(f"a lens rate lies between 0 and 1; got {lens_rate}")
    survey = counts.n_negatives if objects is None else objects
    depths = _depths(images, survey)
    lenses, others = _bins(counts)
    sample = _Sample(lenses=lenses, others=others, objects=survey, lens_rate=lens_rate, planted=planted)
    found = sample.completeness(depths, lenses, others)
    drawn = _draws(sample, depths, repeats, seed, draw_others=objects is not None)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    resolved_from = sample.resolved_from()
    told = planted | _resolved(depths, resolved_from)
    return Forecast(
        images=depths,
        completeness=np.where(told, found, np.nan),
        completeness_low=np.where(told, np.minimum(low, found), np.nan),
        completeness_high=np.where(told, np.maximum(high, found), np.nan),
        resolved_from=resolved_from,
        lens_rate=lens_rate,
        objects=survey,
        n_lenses=counts.n_positives,
        n_others=counts.n_negatives,
        level=level,
    )


def _depths(images: ArrayLike | None, objects: int) -> NDArray[np.int64]:
    depths = spread_depths(objects) if images is None else np.unique(np.asarray(images, np.int64))
    if not len(depths) or depths[0] < 1 or depths[-1] > objects:
        raise ValueError(f"from 1 to {objects:,} images can be inspected; got {depths.tolist()}")
    return depths


def spread_depths(objects: int) -> NDArray[np.int64]:
    """Depths from 10 to all objects, spread evenly in their logarithm."""
    return np.unique(np.rint(np.geomspace(min(10, objects), objects, FIGURE_DEPTHS)).astype(np.int64))


def _bins(counts: ClassCounts) -> tuple[Numbers, Numbers]:
    """Positives and negatives at and between the positives' scores, from the highest; both of shape (2M + 1,)."""
    positives, negatives = counts.positives[::-1], counts.negatives[::-1]
    greater = counts.negatives_greater[::-1]
    above = np.diff(np.concatenate([[0], greater])) - np.concatenate([[0], negatives[:-1]])
    lenses, others = np.zeros(2 * len(positives) + 1), np.zeros(2 * len(positives) + 1)
    lenses[1::2], others[1::2], others[:-1:2] = positives, negatives, above
    others[-1] = counts.n_negatives - greater[-1] - negatives[-1]
    return lenses, others


def _draws(sample: _Sample, images: NDArray, repeats: int, seed: int, *, draw_others: bool) -> Numbers:
    """Completeness of drawn samples, shape (repeats, D)."""
    generator = np.random.default_rng(seed)
    lenses, others = _with_half_counts(sample.lenses), _with_half_counts(sample.others)
    drawn = np.empty((repeats, len(images)))
    for row in drawn:
        passed = generator.standard_gamma(others) if draw_others else sample.others
        row[:] = sample.completeness(images, generator.standard_gamma(lenses), passed)
    return drawn


def _with_half_counts(counts: Numbers) -> Numbers:
    weights = counts.copy()
    weights[[0, -1]] += 0.5
    return weights
