"""Which tile holds a source: of those that overlap there, the one in which it lies farthest from the edges."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lensray.extraction.tiles import SurveyedTile
from lensray.pixels import Status

NOWHERE = -1


class Placement(NamedTuple):
    """Where sources lie; shape (N,) each."""

    tile: NDArray[np.int32]
    """Number of the tile; -1 where none holds the source."""
    x: NDArray[np.float64]
    """Pixel coordinates in the first grid of that tile; NaN without one."""
    y: NDArray[np.float64]


def place_sources(
    ra: NDArray[np.float64], dec: NDArray[np.float64], tiles: Sequence[SurveyedTile]
) -> Placement:
    """The tile of each source, and its pixel coordinates there.

    Parameters
    ----------
    ra, dec : ndarray of float, shape (N,)
        Degrees (ICRS); NaN where not known.
    tiles : sequence of SurveyedTile
        Those that cannot be used take only sources that no other tile holds, and those without a grid take none.
    """
    tile, best = np.full(len(ra), NOWHERE, np.int32), np.full(len(ra), -np.inf)
    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    placement = Placement(tile, x, y)
    if not len(known):
        return placement
    tree = KDTree(unit_vectors(ra[known], dec[known]))
    # The last entry is that of no tile: NOWHERE is -1.
    usable = np.array([one.status == Status.OK for one in tiles] + [False])
    usable_first = sorted(range(len(tiles)), key=lambda number: not usable[number])
    for number in usable_first:
        grid, circle = tiles[number].grid, tiles[number].circle
        if grid is None or circle is None:
            continue
        near = known[tree.query_ball_point(unit_vectors(*circle[:2]), chord(circle[2]))]
        if not usable[number]:
            near = near[~usable[tile[near]]]
        if not len(near):
            continue
        near_x, near_y = grid.to_pixels(ra[near], dec[near])
        depth = grid.depth(near_x, near_y) * grid.pixel_scale_arcsec
        better = (depth >= 0) & (depth > best[near])
        near = near[better]
        tile[near], x[near], y[near], best[near] = number, near_x[better], near_y[better], depth[better]
    return placement


def unit_vectors(ra: NDArray[np.float64] | float, dec: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Positions in degrees as points of the unit sphere, shape (..., 3)."""
    alpha, delta = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack([np.cos(alpha) * np.cos(delta), np.sin(alpha) * np.cos(delta), np.sin(delta)], axis=-1)


def chord(degrees: float) -> float:
    """Length of the chord of an angle on the unit sphere."""
    return float(2 * np.sin(np.deg2rad(min(degrees, 180.0)) / 2))
