"""Colour composites of cutouts, after Lupton et al. 2004 (PASP 116, 133).

The intensity is stretched by arcsinh and the ratios of the bands are kept, so that a bright galaxy keeps its
colour instead of saturating to white. Each band is first measured in units of its own pixel noise above its own
sky, so that the background is grey and images of any flux unit can be shown.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

NAN_COLOUR = (92, 40, 92)
"""Pixels without a value: a dull violet, which no galaxy has."""

# The faintest intensity (in noise) that may be shown white: pure noise stays dark.
MIN_WHITE_SIGMA = 25.0
SOFTENING_SIGMA = 2.0
DARK_SIGMA = -0.25
WHITE_PERCENTILE = 99.8
MAX_EXCESS = 1.6
# Red bands are the noisier ones, so that in units of noise a red galaxy is less red than it is.
RED_GAIN = 1.2

# Effective wavelengths, in nm, of the bands of the surveys that LensRay knows; y is LSST's and HSC's, Y the near infrared's.
_WAVELENGTH_NM = {
    "u": 365.0,
    "g": 480.0,
    "r": 620.0,
    "i": 765.0,
    "z": 890.0,
    "y": 975.0,
    "VIS": 715.0,
    "Y": 1085.0,
    "J": 1370.0,
    "H": 1770.0,
    "K": 2150.0,
    "Ks": 2150.0,
    "B": 440.0,
    "V": 550.0,
    "R": 650.0,
    "I": 800.0,
}


def composite(images_CHW: np.ndarray, bands: Sequence[str]) -> RGB:
    """Colour picture of one cutout.

    Parameters
    ----------
    images_CHW : ndarray of uint8 or float, shape (bands, height, width)
        uint8 images are already stretched for display, and shown as they are.
    bands : sequence of str
        Names of the planes. Three bands make red, green and blue, by their wavelength; more are averaged in
        three groups; of two, the mean is green; one gives a grey picture. Bands of unknown wavelength
        are taken to be in order, blue first.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The first row of the image is the first row of the picture. Pixels that are NaN or infinite in a
        band have the colour `NAN_COLOUR`; a constant image is black.

    Raises
    ------
    ValueError
        If the bands are not one a plane.
    """
    if images_CHW.ndim != 3 or len(images_CHW) != len(bands) or not len(bands):
        raise ValueError(f"an image of the shape {images_CHW.shape} cannot have the bands {tuple(bands)}")
    groups = _red_green_blue(bands)
    if images_CHW.dtype == np.uint8:
        planes = [np.mean(images_CHW[group], axis=0) for group in groups]
        return np.ascontiguousarray(np.stack(_three(planes), axis=-1).round().astype(np.uint8))
    missing = ~np.isfinite(images_CHW).all(axis=0)
    whitened = [_whitened(plane.astype(np.float64)) for plane in images_CHW]
    averaged = [np.sum([whitened[i] for i in group], axis=0) / np.sqrt(len(group)) for group in groups]
    if len(averaged) > 1:
        averaged[0] *= RED_GAIN
    picture = _lupton(_three(averaged))
    picture[missing] = NAN_COLOUR
    return picture


def _red_green_blue(bands: Sequence[str]) -> list[list[int]]:
    """The planes of red, green and blue; or of red and blue; or the only one."""
    wavelengths = [wavelength_nm(band) for band in bands]
    known = [value for value in wavelengths if value is not None]
    order = np.argsort(known, kind="stable") if len(known) == len(bands) else np.arange(len(bands))
    # From the red end, where bands are shallower and gain more by averaging.
    return [group.tolist() for group in np.array_split(order[::-1], min(3, len(bands)))]


def wavelength_nm(band: str) -> float | None:
    """Effective wavelength of a band by its name (``g``, ``HSC-I``, ``F814W``, ``VIS``); None if not known.

    >>> wavelength_nm("F814W"), wavelength_nm("F160W"), wavelength_nm("HSC-G"), wavelength_nm("x")
    (814.0, 1600.0, 480.0, None)
    """
    name = re.split(r"[-_. ]", band)[-1]
    if hubble := re.fullmatch(r"[fF](\d{3})[A-Za-z]+", name):
        number = float(hubble[1])
        return number if number >= 200 else 10 * number  # WFC3's infrared filters count in 10 nm
    if name != band and name.lower() in _WAVELENGTH_NM:
        return _WAVELENGTH_NM[name.lower()]
    return _WAVELENGTH_NM.get(name)


def _three(planes: list[np.ndarray]) -> list[np.ndarray]:
    """Red, green and blue of one, two or three planes, red first."""
    if len(planes) == 2:
        return [planes[0], (planes[0] + planes[1]) / 2, planes[1]]
    return planes if len(planes) == 3 else planes * 3


def _whitened(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """A plane above its sky, in units of its noise; zero where it has no value."""
    finite = np.isfinite(plane)
    if not finite.any():
        return np.zeros_like(plane)
    sky, noise = _sky(plane)
    return np.where(finite, plane - sky, 0.0) / noise


def _sky(plane: NDArray[np.float64]) -> tuple[float, float]:
    """Level and noise of the background: those of the quietest of the image's four borders.

    Where no border has any scatter, as in simulations without noise, the range of the image stands for
    that of a well exposed one.
    """
    margin = max(1, min(plane.shape) // 8)
    borders = [plane[:margin], plane[-margin:], plane[:, :margin], plane[:, -margin:]]
    measured = [_median_and_scatter(border) for border in borders]
    noisy = [(scatter, level) for level, scatter in measured if scatter > 0]
    if noisy:
        scatter, level = min(noisy)
        return level, scatter
    values = plane[np.isfinite(plane)]
    return float(np.median(values)), float(np.ptp(values)) / (4 * MIN_WHITE_SIGMA) or 1.0


def _median_and_scatter(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and the standard deviation by the median absolute deviation; of no value, zeros."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 0.0
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def _lupton(planes: list[NDArray[np.float64]]) -> RGB:
    """Lupton's stretch of red, green and blue in units of the noise, from just below the sky to the bright end."""
    from astropy.visualization import make_lupton_rgb

    red, green, blue = planes
    intensity = (red + green + blue) / 3 - DARK_SIGMA
    if not np.ptp(intensity):
        return np.zeros((*intensity.shape, 3), np.uint8)
    white = max(float(np.percentile(intensity, WHITE_PERCENTILE)), MIN_WHITE_SIGMA)
    brightest = float(np.percentile(np.maximum(np.maximum(red, green), blue), WHITE_PERCENTILE))
    # A coloured galaxy fills its brightest channel before its mean is white, and would show a flat core.
    excess = np.clip(brightest / white, 1.0, MAX_EXCESS)
    # astropy's stretch is 0.1 asinh(Q I / stretch) / asinh(0.1 Q). With stretch = Q · softening it is linear up
    # to the softening, and this Q makes it 1 / excess at the intensity `white`.
    q = float(10 * np.sinh(0.1 * excess * np.arcsinh(white / SOFTENING_SIGMA)))
    stretch: dict[str, Any] = {"stretch": q * SOFTENING_SIGMA, "Q": q}
    return make_lupton_rgb(red, green, blue, minimum=DARK_SIGMA, **stretch)
