"""Surveys: bands, pixel scale, zero points, PSF and noise of the imaging that LensRay knows.

One frozen `Survey` a data set, its figures from the survey's own papers (named beside each constant).
Image units are those in which the survey ships its coadds: a source of AB magnitude ``m`` has the total
flux ``10 ** (0.4 * (zero_point - m))`` image units in that band.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Imaging characteristics of a survey; every tuple has one entry a band, in the order of `bands`."""

    name: str
    """Identifier as in the command lines, for example ``hsc_wide``."""
    bands: tuple[str, ...]
    """Band names, in the order of the cutouts' planes (blue to red)."""
    pixel_scale_arcsec: float
    """Side of a pixel, in arcsec."""
    zero_point_mag: tuple[float, ...]
    """AB magnitude of a source of one image unit."""
    psf_fwhm_arcsec: tuple[float, ...]
    """Median full width at half maximum of the point spread function, in arcsec."""
    psf_moffat_beta: float
    """Exponent of the Moffat profile that stands for the PSF."""
    sky_sigma: tuple[float, ...]
    """Standard deviation of the background noise of a pixel, in image units."""
    gain: tuple[float, ...]
    """Electrons an image unit, over the whole exposure (for Poisson noise)."""
    saturation: tuple[float, ...]
    """Pixel value at which a detector saturates, in image units."""
    source: str
    """Where the figures come from."""
