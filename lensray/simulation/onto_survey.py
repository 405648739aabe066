"""A training set on a user's own survey: simulated arcs on its galaxies, and random others of its cutouts.

`plan_injection` looks at a random part of the survey, finds the plausible deflectors in it, proposes several arcs
for them, and draws lenses and non-lenses such that brightness does not tell them apart (`lensray.simulation.brightness`).
The plan names rows and arcs alone, so that any machine can make any part of the set from it (`planned_table`), a
row group at a time. Known lenses of the survey (``label`` or ``is_tracer`` true) are neither hosts nor non-lenses.

A galaxy may be host of several lenses, each with another arc, where the survey has fewer plausible deflectors
than are needed; it is then never among the non-lenses. More than `MAX_ARCS` arcs a host are refused: a network
would learn the hosts.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lensray import cutouts
from lensray.errors import InputError
from lensray.pixels import SCORED, check_pixels
from lensray.simulation.brightness import (
    brightness_features,
    matched_draw,
)
from lensray.simulation.deflectors import FAINTEST_I, MAX_NAN_FRACTION, HostStatus
from lensray.simulation.injected_table import (
    columns_needed,
    inject_table,
    injected_table,
    measure_table,
    untouched_table,
)
from lensray.simulation.scene import reach
from lensray.survey_imaging import HostSurvey
from lensray.survey_rows import WHOLE, Place, choose_rows, read_places

PROPOSALS = 4
"""Lenses proposed for each that is wanted."""
CANDIDATES = 3
"""Cutouts looked at for each non-lens that is wanted, where the survey has as many."""
MAX_ARCS = 50
"""Most lenses that one galaxy is the host of."""
MAX_HOSTS = 5_000
"""Hosts are not looked for beyond these: measuring them takes milliseconds each, on one core."""
HOST_YIELD = 0.1
"""Share of a survey's cutouts that are plausible deflectors, as low as it is expected to be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRows:
    """What is made of one row group."""

    path: str
    """Path of the Parquet file, on the survey's file system."""
    row_group: int
    """Which row group of the file."""
    others: tuple[int, ...]
    """Rows taken as they are, as non-lenses."""
    hosts: tuple[int, ...]
    """Rows that get an arc, one for each lens: a row may come several times."""
    arcs: tuple[int, ...]
    """Number of the arc of each of these."""

    @property
    def count(self) -> int:
        """Cutouts made of it."""
        return len(self.others) + len(self.hosts)


@dataclass(frozen=True, kw_only=True, slots=True)
class InjectionPlan:
    """Which cutouts of a survey become lenses and non-lenses."""

    places: tuple[PlannedRows, ...]
    """In the order of the survey."""
    statuses: dict[str, int]
    """How many of the galaxies that were judged are plausible deflectors, and why the others are none."""
    brightness_auroc: float | None
    """The AUROC, farthest from 1/2, by which a feature of brightness tells the lenses from the others."""


@dataclass(slots=True)
class _Pool:
    """Cutouts of the survey that were looked at, in the order of their places."""

    places: list[Place]
    """Row groups, with the rows that are usable."""
    features: NDArray[np.float64]
    """Brightness, shape (R, F)."""
    status: NDArray[np.object_]
    """`HostStatus`, empty where not judged, shape (R,)."""

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Number of the place, and row of the row group, of each cutout."""
        return [(k, row) for k, place in enumerate(self.places) for row in place.rows]


def injected_survey(
    hosts: HostSurvey,
    *,
    count: int,
    lenses: int,
    seed: int,
    faintest_i: float = FAINTEST_I,
    share: tuple[float, float] = WHOLE,
) -> Iterator[pa.Table]:
    """The tables of `plan_injection`, one a row group of the survey, made when they are asked for."""
    plan = plan_injection(hosts, count=count, lenses=lenses, seed=seed, faintest_i=faintest_i, share=share)
    for planned in plan.places:
        yield planned_table(hosts, planned, seed=seed, faintest_i=faintest_i)


def plan_injection(
    hosts: HostSurvey,
    *,
    count: int,
    lenses: int,
    seed: int,
    faintest_i: float = FAINTEST_I,
    share: tuple[float, float] = WHOLE,
    note: Callable[[str], None] = lambda text: None,
) -> InjectionPlan:
    """Choose hosts, arcs and non-lenses.

    Parameters
    ----------
    hosts : HostSurvey
        The survey (`lensray.survey_imaging.open_hosts`).
    count, lenses : int
        Cutouts in all, and lenses among them; the rest are the survey's own.
    seed : int
        Not negative.
    faintest_i : float
        Faintest deflector, as an i magnitude.
    share : tuple of float
        Part of the survey that hosts and non-lenses are drawn from (`lensray.survey_rows.choose_rows`).
    note : callable
        Is told how far it is.

    Raises
    ------
    InputError
        If there is no plausible deflector, too few for so many lenses, or too few other cutouts.
    """
    size = max(CANDIDATES * (count - lenses), round(_wanted(lenses) / HOST_YIELD))
    places = choose_rows(hosts.url, size, seed=seed, share=share)
    pool = _look_at(hosts, places, _wanted(lenses), seed, faintest_i)
    judged = Counter(str(status) for status in pool.status if status)
    plausible = np.flatnonzero(pool.status == HostStatus.PLAUSIBLE)
    note(f"{len(plausible):,} plausible deflectors among {judged.total():,} galaxies of {hosts.url}")
    if lenses:
        _check_hosts(hosts, len(plausible), lenses, judged)
    proposed, features = _propose(hosts, pool, plausible, lenses, seed, faintest_i)
    owners = np.array([cutout for cutout, _ in proposed], np.int64)
    drawn = matched_draw(features, owners, pool.features, lenses=lenses, others=count - lenses, seed=seed)
    if len(drawn.others) < count - lenses:
        raise InputError(
            f"{hosts.url} has {len(drawn.others):,} usable cutouts that are no hosts, and {count - lenses:,} are wanted "
            "as non-lenses; lower --count, or --lenses to have fewer hosts"
        )
    places = _planned(pool, drawn.others.tolist(), [proposed[k] for k in drawn.chosen])
    return InjectionPlan(places=places, statuses=dict(judged.most_common()), brightness_auroc=drawn.auroc)


def find_hosts(
    hosts: HostSurvey, wanted: int, *, seed: int, faintest_i: float = FAINTEST_I
) -> tuple[list[Place], dict[str, int]]:
    """Plausible deflectors of a survey, in random order of its row groups.

    Parameters
    ----------
    hosts : HostSurvey
    wanted : int
        As many are looked for, among a random part of the survey that should hold them.
    seed : int
    faintest_i : float
        Faintest deflector, as an i magnitude.

    Returns
    -------
    places, statuses
        Where they are, and how many of the galaxies that were judged have each `HostStatus`.

    Raises
    ------
    InputError
        If there is none.
    """
    places = choose_rows(hosts.url, round(wanted / HOST_YIELD), seed=seed, share=WHOLE)
    pool = _look_at(hosts, places, wanted, seed, faintest_i)
    judged = Counter(str(status) for status in pool.status if status)
    plausible = np.flatnonzero(pool.status == HostStatus.PLAUSIBLE)
    _check_hosts(hosts, len(plausible), 0, judged)
    rows = pool.rows
    chosen: dict[int, list[int]] = {}
    for cutout in plausible.tolist():
        chosen.setdefault(rows[cutout][0], []).append(rows[cutout][1])
    found = [
        Place(path=pool.places[k].path, row_group=pool.places[k].row_group, rows=tuple(here))
        for k, here in chosen.items()
    ]
    return found, dict(judged.most_common())


def _wanted(lenses: int) -> int:
    """Hosts that are looked for."""
    return min(PROPOSALS * lenses, MAX_HOSTS)


def _look_at(hosts: HostSurvey, found: list[Place], wanted: int, seed: int, faintest_i: float) -> _Pool:
    """Measure the brightness of cutouts, and judge galaxies in random order until there are hosts enough."""
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(found))
    places, plausible = [], 0
    features, status = [_features(hosts, np.empty((0, *hosts.format.shape)))], [np.empty(0, object)]
    for place in (found[k] for k in order):
        (table,) = read_places(hosts.url, [place], columns_needed(hosts))
        images, unusable = cutouts.images_of(table, hosts.format)
        unusable = check_pixels(images, unusable, max_nan_fraction=MAX_NAN_FRACTION)[1]
        usable = np.flatnonzero(np.isin(unusable.astype(str), SCORED))
        judged = np.full(len(usable), "", object)
        if plausible < wanted:
            judged = measure_table(table.take(usable), hosts, faintest_i).status
            plausible += int((judged == HostStatus.PLAUSIBLE).sum())
        rows = tuple(place.rows[k] for k in usable)
        places.append(Place(path=place.path, row_group=place.row_group, rows=rows))
        features.append(_features(hosts, images[usable]))
        status.append(judged)
    return _Pool(places=places, features=np.concatenate(features), status=np.concatenate(status))


def _features(hosts: HostSurvey, images: NDArray) -> NDArray[np.float64]:
    """Brightness of cutouts, also within half of the largest Einstein radius and the whole of it."""
    largest = reach(hosts.imaging, min(hosts.format.shape[1:])).einstein_high
    pixels = largest / hosts.imaging.pixel_scale_arcsec
    return brightness_features(images, (0.5 * pixels, pixels))


def _check_hosts(hosts: HostSurvey, plausible: int, lenses: int, judged: Counter[str]) -> None:
    reasons = ", ".join(f"{number} {status}" for status, number in judged.most_common(4))
    if not plausible:
        raise InputError(
            f"{hosts.url} has no plausible deflector ({reasons or 'no usable cutout'}): bright, red, round galaxies in "
            "the middle of their cutouts are wanted; check --survey and --zero-point, or give another survey"
        )
    if plausible * MAX_ARCS < lenses:
        raise InputError(
            f"{hosts.url} has {plausible} plausible deflectors ({reasons}) for {lenses:,} lenses; at most {MAX_ARCS} "
            f"arcs are painted on one: lower --lenses to {plausible * MAX_ARCS}, or give more cutouts"
        )


def _propose(
    hosts: HostSurvey, pool: _Pool, plausible: NDArray[np.int64], lenses: int, seed: int, faintest_i: float
) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """Proposed lenses as (cutout of the pool, number of the arc), and the brightness of each."""
    if not lenses:
        return [], np.empty((0, pool.features.shape[1]))
    arcs = min(MAX_ARCS, -(-PROPOSALS * lenses // len(plausible)))
    rows = pool.rows
    proposed, features = [], []
    for k, place in enumerate(pool.places):
        mine = [int(cutout) for cutout in plausible if rows[cutout][0] == k]
        if not mine:
            continue
        here = Place(path=place.path, row_group=place.row_group, rows=tuple(rows[c][1] for c in mine))
        (table,) = read_places(hosts.url, [here], columns_needed(hosts))
        measured = measure_table(table, hosts, faintest_i)
        for arc in range(arcs):
            painted = inject_table(table, hosts, np.full(len(mine), arc), measured, seed=seed)
            features.append(_features(hosts, painted.images))
            proposed += [(cutout, arc) for cutout in mine]
    return proposed, np.concatenate(features)


def _planned(pool: _Pool, others: list[int], lenses: list[tuple[int, int]]) -> tuple[PlannedRows, ...]:
    """What is made of each row group, in the order of the survey."""
    rows = pool.rows
    taken: dict[int, list[int]] = {}
    painted: dict[int, list[tuple[int, int]]] = {}
    for cutout in others:
        taken.setdefault(rows[cutout][0], []).append(rows[cutout][1])
    for cutout, arc in lenses:
        painted.setdefault(rows[cutout][0], []).append((rows[cutout][1], arc))
    planned = [
        PlannedRows(
            path=pool.places[k].path,
            row_group=pool.places[k].row_group,
            others=tuple(sorted(taken.get(k, []))),
            hosts=tuple(row for row, _ in sorted(painted.get(k, []))),
            arcs=tuple(arc for _, arc in sorted(painted.get(k, []))),
        )
        for k in sorted(taken.keys() | painted.keys())
    ]
    return tuple(sorted(planned, key=lambda place: (place.path, place.row_group)))


def planned_table(
    hosts: HostSurvey, planned: PlannedRows, *, seed: int, faintest_i: float = FAINTEST_I, device: str = "cpu"
) -> pa.Table:
    """The lenses and non-lenses of one row group, as a cutout table in the order of its rows."""
    rows = tuple(sorted({*planned.others, *planned.hosts}))
    place = Place(path=planned.path, row_group=planned.row_group, rows=rows)
    (table,) = read_places(hosts.url, [place], columns_needed(hosts))
    others = table.take(pa.array([rows.index(row) for row in planned.others], pa.int64()))
    chosen = table.take(pa.array([rows.index(row) for row in planned.hosts], pa.int64()))
    arcs = np.array(planned.arcs, np.int64)
    lenses = injected_table(chosen, hosts, arcs, seed=seed, faintest_i=faintest_i, device=device)
    both = pa.concat_tables([lenses, untouched_table(others, hosts)])
    return both.take(np.argsort([*planned.hosts, *planned.others], kind="stable"))
