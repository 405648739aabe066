"""What a survey's cutouts were taken with: its bands, pixels, zero points and PSF as a `Survey`.

Nothing can be painted onto an image before it is known what one image unit is worth. For the surveys of
`lensray.survey` it is, by the name in the cutouts' metadata; where an archive ships other units (counts, other
coadds), the zero points must be given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lensray.cutout_format import CutoutFormat, read_format
from lensray.errors import InputError
from lensray.io import storage
from lensray.survey import SURVEYS, Survey, get_survey


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSurvey:
    """A survey of real cutouts that arcs can be painted onto."""

    url: str
    """Its address."""
    schema: pa.Schema
    """Schema of its first file."""
    format: CutoutFormat
    """Format of its images as stored."""
    imaging: Survey
    """What they were taken with."""


def open_hosts(
    url: str,
    survey: str | None = None,
    zero_point_mag: Sequence[float] = (),
    psf_fwhm_arcsec: Sequence[float] = (),
) -> HostSurvey:
    """A survey by its address; no pixel is read (arguments and errors as of `imaging_of`, and `read_format`)."""
    schema = storage.read_schema(url)
    format = read_format(schema)
    imaging = imaging_of(format, survey, zero_point_mag, psf_fwhm_arcsec)
    return HostSurvey(url=url, schema=schema, format=format, imaging=imaging)


def imaging_of(
    format: CutoutFormat,
    survey: str | None = None,
    zero_point_mag: Sequence[float] = (),
    psf_fwhm_arcsec: Sequence[float] = (),
) -> Survey:
    """The imaging of a survey's cutouts.

    Parameters
    ----------
    format : CutoutFormat
        Of the cutouts; its bands may be some of the survey's, in any order, and its pixels of another scale.
    survey : str, optional
        Name of a known survey; by default the name in the cutouts' metadata.
    zero_point_mag : sequence of float, optional
        AB magnitude of a source of one image unit (summed over its pixels), one a band of `format`. By default
        the survey's, corrected by ``5 log10(survey's pixel / pixel)`` where the pixels are of another scale, as
        for cutouts that `lensray.cutouts.fit_cutouts` has resampled: that keeps surface brightness, so that an
        object's sum changes.
    psf_fwhm_arcsec : sequence of float, optional
        Widths of the PSF, one a band; by default the survey's medians.

    Returns
    -------
    Survey
        With the bands and pixels of `format`; noise, gain and saturation follow the zero points (a source is
        as many electrons in whatever unit) and the area of a pixel.

    Raises
    ------
    InputError
        If the pixels are bytes (stretched for display), the survey or a band of it is not known, or as many
        numbers are not given as there are bands.
    """
    if format.dtype.kind != "f":
        raise InputError(
            f"the pixels are {format.dtype}: they have been stretched, and arcs can only be added to linear ones; "
            "give a survey of float16 or float32 pixels"
        )
    name = survey or format.survey
    if name.lower() not in SURVEYS and survey is None:
        raise InputError(
            f"the cutouts are of the survey {name!r}, which is not known; say with --survey (of this job, or of "
            f"make_cutouts.py) whose units, PSF and noise they have: {', '.join(SURVEYS)}"
        )
    known = _of_bands(get_survey(name), format.bands)
    _check_numbers("--zero-point", zero_point_mag, format.bands)
    _check_numbers("--psf-fwhm", psf_fwhm_arcsec, format.bands)
    if psf_fwhm_arcsec and not min(psf_fwhm_arcsec) > 0:
        raise InputError(f"--psf-fwhm is {min(psf_fwhm_arcsec)} arcsec; it must be positive")
    scaled = _with_pixels(known, format.pixel_scale_arcsec, zero_point_mag)
    return replace(scaled, psf_fwhm_arcsec=tuple(psf_fwhm_arcsec)) if psf_fwhm_arcsec else scaled


def _check_numbers(option: str, numbers: Sequence[float], bands: Sequence[str]) -> None:
    if numbers and (len(numbers) != len(bands) or not np.isfinite(numbers).all()):
        raise InputError(f"{option} must be a number for each of the bands {', '.join(bands)}")


def _of_bands(survey: Survey, bands: Sequence[str]) -> Survey:
    """The survey with these of its bands."""
    unknown = [band for band in bands if band not in survey.bands]
    if unknown:
        raise InputError(
            f"the cutouts have the band {', '.join(unknown)}, but of {survey.name} only {', '.join(survey.bands)} are "
            "known; select these (make_cutouts.py --surveys … --keep-bands), or name another --survey"
        )
    order = [survey.bands.index(band) for band in bands]
    names = ("zero_point_mag", "psf_fwhm_arcsec", "limiting_mag", "sky_sigma", "gain", "saturation")
    columns: dict[str, Any] = {name: tuple(getattr(survey, name)[i] for i in order) for name in names}
    return replace(survey, bands=tuple(bands), **columns)


def _with_pixels(survey: Survey, pixel_scale: float, zero_point_mag: Sequence[float]) -> Survey:
    """The survey in other pixels or units."""
    side = pixel_scale / survey.pixel_scale_arcsec
    zero_points = tuple(zero_point_mag) or tuple(zp - 5 * math.log10(side) for zp in survey.zero_point_mag)
    units = [10 ** (0.4 * (new - old)) for new, old in zip(zero_points, survey.zero_point_mag, strict=True)]
    return replace(
        survey,
        pixel_scale_arcsec=pixel_scale,
        zero_point_mag=zero_points,
        sky_sigma=tuple(value * unit * side for value, unit in zip(survey.sky_sigma, units, strict=True)),
        gain=tuple(value / unit for value, unit in zip(survey.gain, units, strict=True)),
        saturation=tuple(
            value * unit * side**2 for value, unit in zip(survey.saturation, units, strict=True)
        ),
    )
