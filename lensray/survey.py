"""Surveys: bands, pixel scale, zero points, PSF and noise of the imaging that LensRay knows.

One frozen `Survey` a data set, its figures from the survey's own papers (named in `Survey.source`).
Image units are those in which the survey ships its coadds: a source of AB magnitude ``m`` has the total
flux ``10 ** (0.4 * (zero_point - m))`` image units in that band.

Surveys publish depths, not the noise of a pixel, so `sky_sigma` is derived from the published limiting
magnitude by `sky_sigma_from_depth`. It is the noise of *uncorrelated* pixels that gives that depth; in
resampled coadds, whose noise is correlated, neighbouring pixels scatter less than this.
"""

import math
from dataclasses import dataclass

from lensray.errors import InputError


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
    limiting_mag: tuple[float, ...]
    """Published limiting AB magnitude of a source measured with signal-to-noise `limiting_snr`."""
    limiting_snr: float
    """Signal-to-noise ratio of the published limiting magnitude."""
    limiting_aperture_arcsec: float | None
    """Diameter of the aperture of that measurement; None for a point source fitted with the PSF."""
    sky_sigma: tuple[float, ...]
    """Standard deviation of the background noise of a pixel, in image units."""
    gain: tuple[float, ...]
    """Electrons an image unit, over the whole exposure (for Poisson noise)."""
    saturation: tuple[float, ...]
    """Pixel value at which a detector saturates, in image units."""
    source: str
    """Where the figures come from."""

    def flux(self, band: int, mag: float) -> float:
        """Total flux, in image units, of a source of AB magnitude `mag` in the band of index `band`."""
        return 10.0 ** (0.4 * (self.zero_point_mag[band] - mag))


def moffat_alpha(fwhm: float, beta: float) -> float:
    """Core width of the Moffat profile ``(1 + r²/α²)^-β`` of a full width at half maximum, in its unit."""
    return fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))


def noise_area(fwhm: float, beta: float) -> float:
    """Noise-equivalent area of a Moffat PSF, ``1 / ∫ P² = π α² (2β - 1) / (β - 1)²``, in squared units.

    The optimal (PSF-weighted) flux of a point source in white noise has the variance of this much sky
    (King 1983, PASP 95, 163).
    """
    return math.pi * moffat_alpha(fwhm, beta) ** 2 * (2.0 * beta - 1.0) / (beta - 1.0) ** 2


def sky_sigma_from_depth(
    limiting_mag: float, zero_point: float, *, snr: float, area_arcsec2: float, pixel_scale_arcsec: float
) -> float:
    """Noise of a pixel, in image units, that makes a source of `limiting_mag` a measurement of `snr`.

    ``flux(limiting_mag) / snr = sigma * sqrt(area / pixel²)``, the area being that of the aperture, or
    the noise-equivalent one of the PSF. The source's own photon noise is neglected: these are faint.
    """
    flux = 10.0 ** (0.4 * (zero_point - limiting_mag))
    return flux / snr * pixel_scale_arcsec / math.sqrt(area_arcsec2)


def gain_from_sky(sky_mag_arcsec2: float, zero_point: float, sky_sigma: float, pixel_scale: float) -> float:
    """Electrons an image unit of an exposure whose noise is the photon noise of the sky alone.

    A sky of ``s`` image units a pixel is ``g s`` electrons with the variance ``g s = (g sigma)²``, so
    ``g = s / sigma²``. Takes the sky's surface brightness in AB mag a square arcsec.
    """
    sky = 10.0 ** (0.4 * (zero_point - sky_mag_arcsec2)) * pixel_scale**2
    return sky / sky_sigma**2


def gain_from_exposure(one_electron_mag: float, zero_point: float, exposure_s: float) -> float:
    """Electrons an image unit, from the AB magnitude that gives one electron a second."""
    return 10.0 ** (0.4 * (one_electron_mag - zero_point)) * exposure_s


def _saturation(mag: float, zero_point: float, fwhm: float, beta: float, pixel_scale: float) -> float:
    """Value of the central pixel of a star of magnitude `mag`, the brightest that is not saturated."""
    peak = (beta - 1.0) / (math.pi * moffat_alpha(fwhm, beta) ** 2) * pixel_scale**2
    return 10.0 ** (0.4 * (zero_point - mag)) * min(peak, 1.0)


def _survey(
    *,
    name: str,
    bands: tuple[str, ...],
    pixel_scale_arcsec: float,
    zero_point_mag: tuple[float, ...],
    psf_fwhm_arcsec: tuple[float, ...],
    psf_moffat_beta: float,
    limiting_mag: tuple[float, ...],
    limiting_snr: float,
    limiting_aperture_arcsec: float | None,
    saturation_mag: tuple[float, ...],
    source: str,
    gain: tuple[float, ...] = (),
    sky_mag_arcsec2: tuple[float, ...] = (),
) -> Survey:
    """Build a survey from what is published; `gain` or else the sky's brightness must be given."""
    pixel, beta, diameter = pixel_scale_arcsec, psf_moffat_beta, limiting_aperture_arcsec
    areas = [noise_area(w, beta) if diameter is None else math.pi * diameter**2 / 4 for w in psf_fwhm_arcsec]
    sigma = tuple(
        sky_sigma_from_depth(m, zp, snr=limiting_snr, area_arcsec2=area, pixel_scale_arcsec=pixel)
        for m, zp, area in zip(limiting_mag, zero_point_mag, areas, strict=True)
    )
    sky = zip(sky_mag_arcsec2, zero_point_mag, sigma, strict=False)
    stars = zip(saturation_mag, zero_point_mag, psf_fwhm_arcsec, strict=True)
    return Survey(
        name=name,
        bands=bands,
        pixel_scale_arcsec=pixel,
        zero_point_mag=zero_point_mag,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        psf_moffat_beta=beta,
        limiting_mag=limiting_mag,
        limiting_snr=limiting_snr,
        limiting_aperture_arcsec=diameter,
        sky_sigma=sigma,
        gain=gain or tuple(gain_from_sky(m, zp, s, pixel) for m, zp, s in sky),
        saturation=tuple(_saturation(m, zp, w, beta, pixel) for m, zp, w in stars),
        source=source,
    )


COSMOS_ACS = _survey(
    name="cosmos_acs",
    bands=("F814W",),
    pixel_scale_arcsec=0.03,
    zero_point_mag=(25.94,),
    psf_fwhm_arcsec=(0.095,),
    psf_moffat_beta=3.0,
    limiting_mag=(27.2,),
    limiting_snr=5.0,
    limiting_aperture_arcsec=0.24,
    saturation_mag=(19.0,),
    gain=(2028.0,),
    source="Scoville et al. 2007 (ApJS 172, 38) and Koekemoer et al. 2007 (ApJS 172, 196): one orbit of 2028 s "
    "drizzled to 0.03 arcsec, electrons a second, 5 sigma in 0.24 arcsec; stars saturate near 19 "
    "(Leauthaud et al. 2007, ApJS 172, 219)",
)
"""HST/ACS COSMOS mosaic, the data of LensFlow."""

HSC_WIDE = _survey(
    name="hsc_wide",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.168,
    zero_point_mag=(27.0, 27.0, 27.0),
    psf_fwhm_arcsec=(0.77, 0.76, 0.58),
    psf_moffat_beta=3.0,
    limiting_mag=(26.6, 26.2, 26.2),
    limiting_snr=5.0,
    limiting_aperture_arcsec=None,
    saturation_mag=(17.6, 17.4, 18.1),
    sky_mag_arcsec2=(22.1, 21.1, 20.0),
    source="Aihara et al. 2019 (PASJ 71, 114), second data release, Wide: seeing, 5 sigma point-source depth and "
    "saturation; dark-sky brightness of Mauna Kea for the gain",
)
"""Hyper Suprime-Cam survey, Wide layer: the data of the thesis' search."""

LSST_SINGLE_EPOCH = _survey(
    name="lsst_single_epoch",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.2,
    zero_point_mag=(31.4, 31.4, 31.4),
    psf_fwhm_arcsec=(0.87, 0.83, 0.80),
    psf_moffat_beta=3.0,
    limiting_mag=(24.81, 24.35, 23.92),
    limiting_snr=5.0,
    limiting_aperture_arcsec=None,
    saturation_mag=(15.7, 15.8, 15.8),
    gain=tuple(gain_from_exposure(m, 31.4, 30.0) for m in (28.51, 28.36, 28.17)),
    source="Ivezic et al. 2019 (ApJ 873, 111), tables 1 and 2: one visit of 30 s, image units of nJy; zero points "
    "of the Rubin throughputs; saturation: LSST Science Book (2009, arXiv:0912.0201)",
)
"""Rubin LSST, one visit (seeing and depth at zenith)."""

LSST_COADD = _survey(
    name="lsst_coadd",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.2,
    zero_point_mag=(31.4, 31.4, 31.4),
    psf_fwhm_arcsec=(0.87, 0.83, 0.80),
    psf_moffat_beta=3.0,
    limiting_mag=(27.4, 27.5, 26.8),
    limiting_snr=5.0,
    limiting_aperture_arcsec=None,
    saturation_mag=(15.7, 15.8, 15.8),
    gain=tuple(
        gain_from_exposure(m, 31.4, 30.0 * n)
        for m, n in zip((28.51, 28.36, 28.17), (80, 184, 184), strict=True)
    ),
    source="Ivezic et al. 2019 (ApJ 873, 111), table 1: ten years, 80, 184 and 184 visits of 30 s in g, r, i; else "
    "as the single epoch",
)
"""Rubin LSST, the stack of ten years."""

EUCLID = _survey(
    name="euclid",
    bands=("VIS",),
    pixel_scale_arcsec=0.1,
    zero_point_mag=(24.6,),
    psf_fwhm_arcsec=(0.16,),
    psf_moffat_beta=3.0,
    limiting_mag=(25.6,),
    limiting_snr=10.0,
    limiting_aperture_arcsec=1.3,
    saturation_mag=(17.8,),
    gain=(3.5 * 4 * 560.0,),
    source="McCracken et al. 2025 (Euclid Q1, VIS processing, arXiv:2503.15303): PSF of 0.16 arcsec, 10 sigma in "
    "1.3 arcsec; Mellier et al. 2025 (arXiv:2405.13491): four exposures of 560 s, 3.5 electrons a count; Q1 mosaics "
    "are in counts a second of zero point 24.6",
)
"""Euclid Wide Survey, VIS."""

EUCLID_NISP = _survey(
    name="euclid_nisp",
    bands=("Y", "J", "H"),
    pixel_scale_arcsec=0.3,
    zero_point_mag=(30.0, 30.0, 30.0),
    psf_fwhm_arcsec=(0.49, 0.49, 0.49),
    psf_moffat_beta=3.0,
    limiting_mag=(24.5, 24.5, 24.5),
    limiting_snr=5.0,
    limiting_aperture_arcsec=None,
    saturation_mag=(16.0, 16.0, 16.0),
    gain=tuple(gain_from_exposure(m, 30.0, 4 * 87.0) for m in (25.04, 25.26, 25.21)),
    source="Cuillandre et al. 2025 (Euclid early release observations, arXiv:2405.13496): PSF of 0.49 arcsec and a depth of "
    "24.5 at 5 sigma for point sources in each band, one reference observation of four exposures, as the wide survey's; "
    "Schirmer et al. 2022 (arXiv:2203.01650): zero points in electrons a second, for the gain; the zero point of the images "
    "and saturation near 16 are of our choice",
)
"""Euclid Wide Survey, the near infrared beside `EUCLID` (no survey of its own in `SURVEYS`: simulate both together,
`lensray.simulation.euclid`)."""

DES = _survey(
    name="des",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.263,
    zero_point_mag=(30.0, 30.0, 30.0),
    psf_fwhm_arcsec=(1.11, 0.95, 0.88),
    psf_moffat_beta=3.0,
    limiting_mag=(24.7, 24.4, 23.8),
    limiting_snr=10.0,
    limiting_aperture_arcsec=1.95,
    saturation_mag=(15.2, 15.7, 15.8),
    sky_mag_arcsec2=(22.0, 21.1, 19.9),
    source="Abbott et al. 2021 (ApJS 255, 20), second data release: seeing, depth at signal-to-noise 10 in 1.95 "
    "arcsec; saturation: Abbott et al. 2018 (ApJS 239, 18); dark-sky brightness for the gain",
)
"""Dark Energy Survey, coadds."""

SURVEYS: dict[str, Survey] = {
    survey.name: survey for survey in (COSMOS_ACS, HSC_WIDE, LSST_SINGLE_EPOCH, LSST_COADD, EUCLID, DES)
}
"""The known surveys by their lower-case names."""


def get_survey(name: str) -> Survey:
    """Return the survey of that name, in upper or lower case.

    Raises
    ------
    InputError
        If there is none of that name; the message lists those that there are.
    """
    try:
        return SURVEYS[name.lower()]
    except KeyError:
        raise InputError(f"there is no survey named {name!r}; choose one of {', '.join(SURVEYS)}") from None
