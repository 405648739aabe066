"""The pixel grid of a mosaic: its shape, and where its pixels lie on the sky.

Pixel coordinates are those of FITS less one: the centre of the first pixel is (0, 0), x along a row.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

from lensray.io.mosaics import MosaicHeader

# The written form of a WCS must give the header's positions to this.
ROUND_TRIP_PIXELS = 0.01
_SMALL_PRINT = ("COMMENT", "HISTORY", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The pixel grid of a mosaic."""

    shape: tuple[int, int]
    """Height and width, in pixels."""
    wcs: str
    """The world coordinate system, as the cards of a FITS header."""

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Right ascension and declination (degrees, ICRS) of pixel coordinates."""
        return _to_sky(_wcs(self.wcs), x, y)

    def to_pixels(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel coordinates of positions (degrees, ICRS); NaN where the projection does not reach."""
        from astropy.coordinates import SkyCoord

        wcs = _wcs(self.wcs)
        sky = SkyCoord(np.asarray(ra, np.float64), np.asarray(dec, np.float64), unit="deg")
        # Half of the sky projects onto a plane, the other half onto the same plane again.
        near = np.asarray(sky.separation(_centre(self)).to_value("deg")) < 60
        x, y = np.full(sky.shape, np.nan), np.full(sky.shape, np.nan)
        if near.any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                x[near], y[near] = wcs.world_to_pixel(sky[near])
        return x, y

    def depth(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Distance of pixel coordinates to the nearest edge, in pixels; negative or NaN outside."""
        height, width = self.shape
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        sides = np.stack([x + 0.5, width - 0.5 - x, y + 0.5, height - 0.5 - y])
        return sides.min(0)

    def circle(self) -> tuple[float, float, float]:
        """Right ascension, declination and radius (degrees) of a circle around all pixels."""
        from astropy.coordinates import SkyCoord

        centre = _centre(self)
        ra, dec = self.to_sky(*(_probes(self.shape)))
        radius = np.max(SkyCoord(ra, dec, unit="deg").separation(centre).to_value("deg"))
        return (
            float(centre.ra.deg),
            float(centre.dec.deg),
            float(radius) * 1.01 + 2 * self.pixel_scale_arcsec / 3600,
        )

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a pixel: the root of its area, at the middle."""
        from astropy.wcs.utils import proj_plane_pixel_area

        return float(np.sqrt(proj_plane_pixel_area(_wcs(self.wcs)))) * 3600

    def is_same(self, other: "Grid", within_pixels: float) -> bool:
        """Whether the pixels of two grids lie in the same places."""
        if self.shape != other.shape:
            return False
        if self.wcs == other.wcs:
            return True
        x, y = _probes(self.shape)
        found = other.to_pixels(*self.to_sky(x, y))
        return bool(np.nanmax(np.abs(found - np.stack([x, y]))) < within_pixels)


def grid_of(mosaic: MosaicHeader) -> Grid | None:
    """The grid of a mosaic; None if its header has no world coordinate system that can be used."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the small print that survey headers break
        try:
            wcs = WCS(mosaic.header)
            if not wcs.has_celestial:
                return None
            wcs = wcs.celestial
            x, y = _probes(mosaic.shape)
            wanted = np.stack(_to_sky(wcs, x, y))
            if not np.isfinite(wanted).all():
                return None
            grid = Grid(shape=mosaic.shape, wcs=wcs.to_header_string(relax=True))
            if np.abs(grid.to_pixels(*wanted) - np.stack([x, y])).max() < ROUND_TRIP_PIXELS:
                return grid
        except Exception:
            # Broken headers fail in many ways.
            return None
    return Grid(shape=mosaic.shape, wcs=_cards(mosaic.header))


def _cards(header: fits.Header) -> str:
    """A header without its small print: some distortions cannot be written in another way."""
    kept = header.copy()
    for name in _SMALL_PRINT:
        kept.remove(name, ignore_missing=True, remove_all=True)
    return kept.tostring()


def _probes(shape: tuple[int, int]) -> NDArray[np.float64]:
    """x and y of the corners and the middle."""
    height, width = shape
    right, top = width - 1, height - 1
    return np.array([[0, right, 0, right, right / 2], [0, 0, top, top, top / 2]], dtype=np.float64)


def _to_sky(wcs: Any, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sky = wcs.pixel_to_world(np.asarray(x, np.float64), np.asarray(y, np.float64)).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def _centre(grid: Grid) -> Any:
    height, width = grid.shape
    return _wcs(grid.wcs).pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs


@lru_cache(maxsize=4096)
def _wcs(cards: str) -> Any:
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.Header.fromstring(cards)).celestial
