"""Which galaxies of a survey could be lenses: measured on their images, and judged.

A deflector is a massive early-type galaxy in the middle of its cutout, so a plausible one is bright, red where
there are bands to tell, smooth and round enough, larger than a star, and alone: what a deep search with a catalogue
does with its columns is done here with the pixels, since many surveys ship nothing else. Magnitude and size
are isophotal, the shape is that of the second moments of the light above the sky, less those of the PSF.

The cuts are meant to be strict rather than complete: a host that is left out costs nothing, a spiral with
an arc painted onto it teaches a network that spirals are lenses. Known weaknesses: isophotal magnitudes are
0.2 too faint in HSC and DES and 0.9 in COSMOS (medians of simulated ellipticals), and a face-on disc without arms in a single band passes for an early type.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from lensray.pixels import Status, check_pixels, fill_nan
from lensray.simulation.photometry import BAND_WEIGHTS, band_magnitudes
from lensray.simulation.population import typical_log_einstein_radius
from lensray.simulation.scene import reach
from lensray.survey import Survey

FAINTEST_I = 23.0
"""Faintest deflector, as an i magnitude: fainter galaxies are too light or too far."""
DETECTION_SIGMA = 3.0
"""Isophote, in noise of the smoothed image, that bounds a faint galaxy."""
ISOPHOTE_OF_PEAK = 0.05
"""Isophote, as a share of the brightest pixel of the smoothed image, that bounds a bright one."""
QUIET = 1.3
"""A border whose scatter is below this many of the least one's may be sky: a neighbour's light adds to it, or to its level."""
MAX_NAN_FRACTION = 0.1
"""Largest share of NaN pixels of a host."""
MAX_BLANK_FRACTION = 0.2
"""Largest share of pixels of one and the same value: stamps that were padded."""
MIN_AXIS_RATIO = 0.45
"""As of `lensray.simulation.galaxies.early_type`; below are discs seen from the side."""
MAX_STRUCTURE = 0.02
"""Largest share of light above a smooth elliptical profile (spirals, rings, mergers and pairs have more)."""
STAR_SIZE = 1.3
"""A star's half-light radius is below this many of the PSF's (its core lies anywhere on its pixel)."""
BLUE_G_R, BLUE_R_I = 0.75, 0.3
"""Colours of a galaxy that is too blue for an early type at any redshift from 0.1."""
MIN_CONCENTRATION = 3.3
"""Least ratio of the radii that hold 80% and 20% of the light, where the PSF leaves one to be measured."""
EARLY_G_R, EARLY_R_I = 1.6, 0.65
"""Colours by which a magnitude in another band becomes one in i (a red galaxy at redshift 0.4)."""


class HostStatus:
    """Whether a galaxy is a plausible deflector, or why not; besides, a `lensray.pixels.Status` of unusable pixels."""

    PLAUSIBLE = "plausible"
    PADDED = "padded"
    """A part of the cutout holds no image."""
    NO_OBJECT = "no_object"
    """Nothing stands out in the middle."""
    OFF_CENTRE = "off_centre"
    """The brightest point of what is there is not in the middle."""
    TOO_FAINT = "too_faint"
    TOO_BRIGHT = "too_bright"
    """Saturated, or nearly."""
    TOO_LARGE = "too_large"
    """Its light covers where an arc would be, or reaches the edge."""
    STAR = "star"
    """No larger than the PSF."""
    ELONGATED = "elongated"
    STRUCTURED = "structured"
    """No smooth ellipse: arms, a ring, a merger, or several objects."""
    BLUE = "blue"
    DIFFUSE = "diffuse"
    """Not concentrated: a disc."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """What was measured on N cutouts; of galaxies that are not `HostStatus.PLAUSIBLE` it may be NaN."""

    status: NDArray[np.object_]
    """`HostStatus` or the pixels' `Status`, shape (N,)."""
    x: NDArray[np.float64]
    """Centre, arcsec from the middle of the frame, shape (N,)."""
    y: NDArray[np.float64]
    """Centre, arcsec, shape (N,)."""
    i_mag: NDArray[np.float64]
    """AB magnitude in i, from the band next to it, shape (N,)."""
    half_light_radius: NDArray[np.float64]
    """Radius, arcsec, that holds half of the isophotal light, PSF included, shape (N,)."""
    axis_ratio: NDArray[np.float64]
    """Minor over major axis, less the PSF, shape (N,)."""
    angle: NDArray[np.float64]
    """Angle of the major axis from the rows' direction, radians, shape (N,)."""
    sky_level: NDArray[np.float64]
    """Background, in image units, shape (N, bands)."""
    sky_sigma: NDArray[np.float64]
    """Standard deviation of the background of a pixel, shape (N, bands)."""

    @property
    def plausible(self) -> NDArray[np.bool_]:
        """Which could be lenses, shape (N,)."""
        return (self.status == HostStatus.PLAUSIBLE).astype(bool)


def measure_hosts(
    images: NDArray,
    survey: Survey,
    *,
    mag: NDArray | None = None,
    faintest_i: float = FAINTEST_I,
) -> Hosts:
    """Measure and judge the galaxies in the middle of cutouts.

    Parameters
    ----------
    images : ndarray of float, shape (N, bands, height, width)
        In the survey's image units; never changed.
    survey : Survey
        Bands, pixel scale, zero points, PSF and saturation of the images.
    mag : ndarray, shape (N,), optional
        Magnitudes from a catalogue, in the band of `magnitude_band`; the image's where NaN or not given.
    faintest_i : float
        Faintest plausible deflector, as an i magnitude.
    """
    count, bands = images.shape[:2]
    status, level, sigma = np.empty(count, object), *np.full((2, count, bands), np.nan)
    found = np.full((count, len(_MEASURED)), np.nan)
    ok = np.full(count, Status.OK, object)
    status[:] = check_pixels(images, ok, max_nan_fraction=MAX_NAN_FRACTION)[1]
    for row in np.flatnonzero(np.isin(status.astype(str), (Status.OK, Status.FILLED_NAN))):
        image = images[row].astype(np.float64)
        image = fill_nan(image) if status[row] == Status.FILLED_NAN else image
        level[row], sigma[row] = background(image)
        catalogued = np.nan if mag is None else float(mag[row])
        status[row], found[row] = _judge(
            image - level[row][:, None, None], sigma[row], survey, catalogued, faintest_i
        )
    columns = dict(zip(_MEASURED, found.T, strict=True))
    return Hosts(status=status, sky_level=level, sky_sigma=sigma, **columns)


_MEASURED = ("x", "y", "i_mag", "half_light_radius", "axis_ratio", "angle")


def magnitude_band(bands: Sequence[str]) -> str:
    """The band whose magnitude is nearest to that in i, of which an Einstein radius is guessed."""
    return min(bands, key=lambda band: abs(red_offset(band)))


def red_offset(band: str) -> float:
    """Magnitude in a band less that in i, of a red galaxy."""
    g, r, _ = BAND_WEIGHTS[band]
    return g * (EARLY_G_R + EARLY_R_I) + r * EARLY_R_I


def background(image: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Level and standard deviation of each band's sky, from the darkest of the quiet ones among the image's borders.

    Parameters
    ----------
    image : ndarray, shape (bands, height, width)
        Without NaN.

    Returns
    -------
    level, sigma : ndarray, shape (bands,)
        Median, and 1.48 times the median absolute deviation.
    """
    margin = max(2, min(image.shape[1:]) // 8)
    borders = (image[:, :margin], image[:, -margin:], image[:, :, :margin], image[:, :, -margin:])
    levels = np.stack([np.median(border, axis=(1, 2)) for border in borders])
    scatter = np.stack(
        [
            1.4826 * np.median(np.abs(border - level[:, None, None]), axis=(1, 2))
            for border, level in zip(borders, levels, strict=True)
        ]
    )
    quiet = scatter <= QUIET * scatter.min(0)
    best = np.where(quiet, levels, np.inf).argmin(0), np.arange(len(image))
    return levels[best], scatter[best]


def _judge(
    image: NDArray[np.float64], sigma: NDArray[np.float64], survey: Survey, mag: float, faintest_i: float
) -> tuple[str, NDArray[np.float64]]:
    """Status of the galaxy in one image above its sky, and its numbers in the order of `_MEASURED`."""
    nothing = np.full(len(_MEASURED), np.nan)
    if (sigma == 0).any() or _blank_fraction(image) > MAX_BLANK_FRACTION:
        return HostStatus.PADDED, nothing
    width = float(np.mean(survey.psf_fwhm_arcsec)) / survey.pixel_scale_arcsec / 2.355
    white = np.tensordot(1 / sigma**2, image, 1) / np.sqrt((1 / sigma**2).sum())
    smooth = scipy.ndimage.gaussian_filter(white, width)
    noise = max(float(background(smooth[None])[1][0]), 1e-9)
    near = max(2.0, max(survey.psf_fwhm_arcsec) / survey.pixel_scale_arcsec)
    region = _central_region(smooth, DETECTION_SIGMA * noise, near)
    if region is None:
        return HostStatus.NO_OBJECT, nothing
    peak = np.unravel_index(np.where(region, smooth, -np.inf).argmax(), region.shape)
    galaxy = _Galaxy(image, smooth, region, (int(peak[0]), int(peak[1])), survey, width, noise)
    i_mag = galaxy.i_mag(mag)
    x, y = galaxy.centre
    inner, radius, outer = galaxy.radii(0.2, 0.5, 0.8)
    status = _reason(galaxy, i_mag, radius, outer / max(inner, 1e-9), faintest_i)
    return status, np.array([x, y, i_mag, radius, galaxy.axis_ratio, galaxy.angle])


def _blank_fraction(image: NDArray[np.float64]) -> float:
    """Largest share of a band's pixels that equal their left neighbour."""
    return float((np.diff(image, axis=2) == 0).mean((1, 2)).max())


def _central_region(smooth: NDArray[np.float64], isophote: float, near: float) -> NDArray[np.bool_] | None:
    """The connected pixels about the brightest one that lies within `near` pixels of the frame's middle.

    They are brighter than `isophote`, and than `ISOPHOTE_OF_PEAK` of that pixel, which parts neighbours; None where
    it is no brighter itself.
    """
    rows, columns = np.indices(smooth.shape)
    distance = np.hypot(rows - (smooth.shape[0] - 1) / 2, columns - (smooth.shape[1] - 1) / 2)
    peak = np.where(distance <= near, smooth, -np.inf).argmax()
    least = max(isophote, ISOPHOTE_OF_PEAK * smooth.flat[peak])
    if not smooth.flat[peak] > isophote:
        return None
    labels = np.asarray(scipy.ndimage.label(smooth > least)[0])  # type: ignore[index]
    return labels == labels.flat[peak]


class _Galaxy:
    """Pixels of one galaxy, and what is measured on them."""

    def __init__(
        self,
        image: NDArray[np.float64],
        smooth: NDArray[np.float64],
        region: NDArray[np.bool_],
        peak: tuple[int, int],
        survey: Survey,
        width: float,
        noise: float,
    ) -> None:
        self.image, self.smooth, self.region = image, smooth, region
        self.peak, self.survey, self.width, self.noise = peak, survey, width, noise
        rows, columns = np.nonzero(region)
        self.light = smooth[region]
        self.row, self.column = (float(np.average(v, weights=self.light)) for v in (rows, columns))
        self.rows, self.columns = rows - self.row, columns - self.column
        self.flux = image[:, region].sum(1)
        self.axis_ratio, self.angle = self._shape()

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the brightest point, to a fraction of a pixel, in arcsec from the middle of the frame."""
        row, column = self.peak
        height, width = self.region.shape
        # All of the peak above half of its height, or the centre is drawn to that of the pixel.
        near = max(2, math.ceil(2.5 * self.width))
        rows, columns = np.mgrid[
            max(row - near, 0) : min(row + near + 1, height),
            max(column - near, 0) : min(column + near + 1, width),
        ]
        weight = np.clip(self.smooth[rows, columns] - 0.5 * self.smooth[self.peak], 0, None)
        weight = np.where(self.region[rows, columns], weight, 0.0)
        x = np.average(columns, weights=weight) - (width - 1) / 2
        y = np.average(rows, weights=weight) - (height - 1) / 2
        return float(x * self.survey.pixel_scale_arcsec), float(y * self.survey.pixel_scale_arcsec)

    def i_mag(self, catalogued: float) -> float:
        """Magnitude in i, from a catalogue's in the band next to it, or from the image; faint where it has no flux."""
        band = magnitude_band(self.survey.bands)
        k = self.survey.bands.index(band)
        measured = self.survey.zero_point_mag[k] - 2.5 * np.log10(max(self.flux[k], 1e-12))
        return float((measured if np.isnan(catalogued) else catalogued) - red_offset(band))

    def _shape(self) -> tuple[float, float]:
        """Axis ratio and angle of the second moments, less those of the PSF and of the smoothing."""
        xx, yy, xy = (
            float(np.average(product, weights=self.light))
            for product in (self.columns**2, self.rows**2, self.columns * self.rows)
        )
        mean, spread = (xx + yy) / 2, float(np.hypot((xx - yy) / 2, xy))
        if mean == 0:
            # A single pixel.
            return 1.0, 0.0
        own = max(mean - 2 * self.width**2, 0.25 * mean, 1.02 * spread)
        return float(np.sqrt((own - spread) / (own + spread))), 0.5 * float(np.arctan2(2 * xy, xx - yy))

    def radii(self, *shares: float) -> list[float]:
        """Radii, in arcsec, that hold these shares of the light in the band next to i."""
        light = self.image[self.survey.bands.index(magnitude_band(self.survey.bands))][self.region]
        rows, columns = np.nonzero(self.region)
        distance = np.hypot(rows - self.peak[0], columns - self.peak[1])
        order = np.argsort(distance, kind="stable")
        growth = np.maximum.accumulate(np.cumsum(light[order]))
        if growth[-1] <= 0:
            return [float("nan")] * len(shares)
        radii = np.interp(np.array(shares) * growth[-1], growth, distance[order])
        return (radii * self.survey.pixel_scale_arcsec).tolist()

    def structure(self) -> float:
        """Share of the light above its own smooth profile: the medians of ellipses, which may only fall outwards."""
        rows, columns = np.nonzero(self.region)
        rows, columns = rows - self.peak[0], columns - self.peak[1]
        axis_ratio, angle = self.axis_ratio, self.angle
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = cos * columns + sin * rows, cos * rows - sin * columns
        bins = np.rint(np.sqrt(axis_ratio * along**2 + across**2 / axis_ratio)).astype(int)
        order = np.unique(bins)
        medians = np.asarray(scipy.ndimage.median(self.light, bins, order))
        profile = np.interp(bins, order, np.minimum.accumulate(medians))
        slope = np.interp(bins, order, np.abs(np.gradient(medians)) if len(order) > 1 else 0 * medians)
        excess = np.clip(self.light - profile - slope - DETECTION_SIGMA * self.noise, 0, None)
        return float(excess.sum() / self.light.sum())

    def touches_edge(self) -> bool:
        """Whether a tenth of the frame's outermost pixels belong to it."""
        edge = np.concatenate([self.region[0], self.region[-1], self.region[:, 0], self.region[:, -1]])
        return bool(edge.mean() > 0.1)

    def is_blue(self) -> bool:
        """Whether its colour, from the bluest to the reddest band, is that of no early type."""
        bands = self.survey.bands
        limit = band_magnitudes(bands, np.array([BLUE_G_R + BLUE_R_I]), np.array([BLUE_R_I]), np.zeros(1))[0]
        blue, red = int(limit.argmax()), int(limit.argmin())
        mag = np.array(self.survey.zero_point_mag) - 2.5 * np.log10(np.clip(self.flux, 1e-12, None))
        return bool(mag[blue] - mag[red] < limit[blue] - limit[red])


def _reason(galaxy: _Galaxy, i_mag: float, radius: float, concentration: float, faintest_i: float) -> str:
    """The first reason why a galaxy is no plausible deflector, or that it is one."""
    survey = galaxy.survey
    fwhm = survey.psf_fwhm_arcsec[survey.bands.index(magnitude_band(survey.bands))]
    lengths = reach(survey, min(galaxy.region.shape))
    einstein_radius = 10 ** float(typical_log_einstein_radius(np.array(i_mag)))
    tolerance = max(2.5 * survey.pixel_scale_arcsec, 0.5 * fwhm)
    star = 0.63 * fwhm  # half-light radius of a Moffat profile of β = 3
    saturated = (galaxy.image.max((1, 2)) > 0.5 * np.array(survey.saturation)).any()
    reasons: list[tuple[str, Callable[[], Any]]] = [
        (HostStatus.TOO_BRIGHT, lambda: saturated),
        (HostStatus.OFF_CENTRE, lambda: np.hypot(*galaxy.centre) > tolerance),
        (
            HostStatus.TOO_FAINT,
            lambda: i_mag > faintest_i or einstein_radius < lengths.einstein_low * 10**-0.13,
        ),
        (HostStatus.STAR, lambda: not radius > STAR_SIZE * star),
        (HostStatus.TOO_LARGE, lambda: radius > 1.5 * einstein_radius or galaxy.touches_edge()),
        (HostStatus.ELONGATED, lambda: galaxy.axis_ratio < MIN_AXIS_RATIO),
        (HostStatus.BLUE, lambda: len(survey.bands) > 1 and galaxy.is_blue()),
        (HostStatus.DIFFUSE, lambda: radius > 2 * star and concentration < MIN_CONCENTRATION),
        (HostStatus.STRUCTURED, lambda: galaxy.structure() > MAX_STRUCTURE),
    ]
    return next((reason for reason, holds in reasons if holds()), HostStatus.PLAUSIBLE)
