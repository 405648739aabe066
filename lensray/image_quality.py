"""Signal-to-noise of a cutout: whether it shows anything at all.

The measure asks for no catalogue and no noise map. Each band is smoothed with a Gaussian as wide as the PSF, which for
white noise is the best linear filter for a point source; the brightest smoothed pixel of the middle, less the median, over
the scatter of the smoothed pixels, is the signal-to-noise. Noise alone reaches 3 to 4, because the brightest of
many pixels is taken.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

MIDDLE = 0.7
"""Side of the middle, of the cutout's: what lies at the edge belongs to another object."""
_FWHM = 2.3548200450309493
_MAD = 1.4826


def signal_to_noise(images_NBHW: NDArray, psf_fwhm_pixels: float) -> NDArray[np.float64]:
    """Signal-to-noise of the brightest point in the middle of each cutout, in its best band.

    Parameters
    ----------
    images_NBHW : ndarray, shape (N, bands, height, width)
    psf_fwhm_pixels : float
        Width of the smoothing.

    Returns
    -------
    ndarray of float64, shape (N,)
        NaN where a band has no finite scatter: a constant image, or one with NaN pixels.
    """
    pixels = np.asarray(images_NBHW, np.float64)
    smooth = gaussian_filter(pixels, (0, 0, psf_fwhm_pixels / _FWHM, psf_fwhm_pixels / _FWHM))
    with np.errstate(invalid="ignore", divide="ignore"):
        median = np.median(smooth, (2, 3), keepdims=True)
        scatter = _MAD * np.median(np.abs(smooth - median), (2, 3))
        height, width = pixels.shape[2:]
        top, left = (round(side * (1 - MIDDLE) / 2) for side in (height, width))
        middle = smooth[:, :, top : height - top, left : width - left]
        ratio = (middle.max((2, 3)) - median[:, :, 0, 0]) / np.where(scatter > 0, scatter, np.nan)
    return ratio.max(1)
