"""Detection of sources in a piece of a mosaic, by sep, the library made of SExtractor (Barbary 2016, JOSS 1, 58).

SExtractor's way (Bertin & Arnouts 1996, A&AS 117, 393): a background of meshes is subtracted, pixels above a threshold that touch
are a source, sources with several peaks are divided. One band is searched, all are measured in its apertures. A
piece is an image in memory; what to do about pieces, their overlaps and the sky is for others to say.
"""

import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import sep
from numpy.typing import NDArray

from lensray.extraction.detection_settings import DetectionSettings, magnitude_ranges
from lensray.extraction.photometry import (
    Plane,
    aperture_fluxes,
    centres,
    half_light_radii,
    kron_apertures,
)
from lensray.extraction.point_sources import point_sources

ERROR_TO_MAG = 2.5 / math.log(10)
PIXEL_STACK = 300_000
"""Pixels above the threshold that sep keeps at a time, to begin with (its own default): 12 MB."""
SUB_OBJECTS = 1024
"""Peaks on one level of a source that sep divides (its own default). More find little, for `deblend_contrast` is a
share of the whole crowd's light: of 28,800 stars in 1200 × 1200 pixels 16,000 find 343, and this 7,482."""


def source_schema(zero_points: Mapping[str, float | None]) -> pa.Schema:
    """Columns of `detect_sources`."""
    measured = [
        pa.field("x", pa.float64()),
        pa.field("y", pa.float64()),
        pa.field("area_pixels", pa.int32()),
        *(
            pa.field(name, pa.float32())
            for name in ("a_arcsec", "b_arcsec", "theta_deg", "flux_radius_arcsec")
        ),
        pa.field("signal_to_noise", pa.float32()),
        pa.field("flags", pa.int32()),
    ]
    bands = [band for band, zero_point in zero_points.items() if zero_point is not None]
    magnitudes = [pa.field(f"{kind}_{band}", pa.float32()) for band in bands for kind in ("mag", "magerr")]
    return pa.schema([*measured, *magnitudes, pa.field("point_source", pa.bool_())])


def detect_sources(
    planes: Mapping[str, NDArray],
    detection_band: str,
    settings: DetectionSettings,
    *,
    pixel_scale_arcsec: float,
    zero_points: Mapping[str, float | None],
    psf_fwhm_arcsec: Mapping[str, float | None] | None = None,
    gain: Mapping[str, float | None] | None = None,
) -> pa.Table:
    """Find the sources of a piece, and measure them in all bands.

    Parameters
    ----------
    planes : mapping of band to array, shape (height, width)
        Bands on one grid, in image units; NaN or infinite where there is no data.
    detection_band : str
        The band that is searched.
    settings : DetectionSettings
        What counts as a source.
    pixel_scale_arcsec : float
        Side of a pixel.
    zero_points : mapping of band to float or None
        AB magnitude of one image unit; a band without one gets no magnitudes.
    psf_fwhm_arcsec : mapping of band to float or None, optional
        Width of the PSF, which helps to find the locus of stars in the band of detection.
    gain : mapping of band to float or None, optional
        Electrons an image unit; without it errors leave out the photon noise of the source.

    Returns
    -------
    pa.Table
        A row a source, by `y`, then `x` (pixels, the centre of the first is 0); columns of `source_schema`. ``theta_deg`` is
        the angle of the major axis from +x counterclockwise (towards +y), ``a_arcsec`` and ``b_arcsec`` are roots of second
        moments, ``flux_radius_arcsec`` is the half-light radius (null without positive flux), ``signal_to_noise``
        that of the aperture in the band of detection. Magnitudes are null where the flux is not positive. ``flags``
        are sep's, or-ed over the bands: 1 divided from another, 2 at the edge, 4 in a crowd, where the threshold
    was raised,
        8 no measurable shape, 16 aperture cut by the edge, 32 missing pixels in the aperture, 64 and 128 no first
        moment (aperture of the least size).

    Raises
    ------
    InputError
        If the settings limit a band that has no magnitudes.
    ValueError
        If the bands differ in shape or the band of detection is not among them.
    """
    zero_points = {band: zero_points.get(band) for band in planes}
    settings.check_bands(zero_points)
    _check_planes(planes, detection_band)
    gain = gain or {}
    plane = Plane.above_background(planes[detection_band], settings.mesh, settings.local_noise)
    objects, owners = _extract(plane, settings, plane.missing, settings.threshold)
    apertures = kron_apertures(
        plane, objects, owners if settings.mask_neighbours else None, minimum=settings.kron_minimum
    )
    fluxes = {detection_band: aperture_fluxes(plane, apertures, gain.get(detection_band))}
    radius = half_light_radii(plane, apertures, fluxes[detection_band][0])
    x, y = centres(plane, apertures, radius)
    del plane  # 9 bytes a pixel, before the next band has as many
    for band in planes:
        if band != detection_band and zero_points[band] is not None:
            other = Plane.above_background(planes[band], settings.mesh, settings.local_noise)
            fluxes[band] = aperture_fluxes(other, apertures, gain.get(band))
            del other
    flux, error, _ = fluxes[detection_band]
    snr = np.divide(flux, error, out=np.zeros_like(flux), where=error > 0)
    fwhm = (psf_fwhm_arcsec or {}).get(detection_band)
    columns = {
        "x": x,
        "y": y,
        "area_pixels": objects["npix"],
        "a_arcsec": apertures.a * pixel_scale_arcsec,
        "b_arcsec": apertures.b * pixel_scale_arcsec,
        "theta_deg": np.degrees(apertures.theta),
        "flux_radius_arcsec": radius * pixel_scale_arcsec,
        "signal_to_noise": snr,
        "flags": np.bitwise_or.reduce([objects["flag"], apertures.flags, *(f[2] for f in fluxes.values())]),
        "point_source": point_sources(radius, snr, fwhm and fwhm / pixel_scale_arcsec),
    }
    for band, zero_point in zero_points.items():
        if zero_point is not None:
            columns |= _magnitudes(band, zero_point, *fluxes[band][:2])
    return _kept(columns, source_schema(zero_points), settings)


def _check_planes(planes: Mapping[str, NDArray], detection_band: str) -> None:
    if detection_band not in planes:
        raise ValueError(f"the band of detection is {detection_band!r}; the planes are {', '.join(planes)}")
    shapes = {np.shape(plane) for plane in planes.values()}
    if len(shapes) > 1 or len(shapes.copy().pop()) != 2:
        raise ValueError(f"the planes have the shapes {shapes}; they must be alike, height and width")


def _extract(
    plane: Plane, settings: DetectionSettings, missing: NDArray[np.bool_], threshold: float
) -> tuple[NDArray, NDArray[np.int32]]:
    """``sep.extract``'s table of objects and its segmentation map, whatever the crowd.

    sep refuses a piece with more pixels above the threshold than it has room for, which is then given more room, and one
    with a source of more than `SUB_OBJECTS` peaks. Such a crowd is then searched by itself, with twice the threshold.
    """
    try:
        return _sep_extract(plane, settings, missing, threshold)
    except Exception as error:  # sep raises nothing more special
        if "deblending overflow" not in str(error):
            raise
    whole, owners = _sep_extract(plane, replace(settings, deblend_thresholds=1), missing, threshold)
    crowd = owners == 1 + np.argmax(whole["npix"])
    objects, owners = _extract(plane, settings, missing | crowd, threshold)
    within, owners_within = _extract(plane, settings, missing | ~crowd, 2 * threshold)
    within["flag"] |= sep.OBJ_DOVERFLOW
    owners_within[owners_within > 0] += len(objects)
    return np.concatenate([objects, within]), np.where(owners > 0, owners, owners_within)


def _sep_extract(
    plane: Plane, settings: DetectionSettings, missing: NDArray[np.bool_], threshold: float
) -> tuple[NDArray, NDArray[np.int32]]:
    words = {} if settings.filter else {"filter_kernel": None}
    sep.set_sub_object_limit(SUB_OBJECTS)
    for stack in itertools.accumulate(itertools.repeat(4), operator.mul, initial=PIXEL_STACK):
        sep.set_extract_pixstack(stack)
        try:
            return sep.extract(
                plane.data,
                threshold,
                err=plane.noise,
                mask=missing,
                minarea=settings.min_area,
                # The matched filter (sep's default beside a map of the noise) would take the threshold in sigmas
                # of the filtered image, which are smaller: 1.5 would then be far below SExtractor's.
                filter_type="conv",
                deblend_nthresh=settings.deblend_thresholds,
                deblend_cont=settings.deblend_contrast,
                clean=settings.clean > 0,
                clean_param=settings.clean or 1.0,
                segmentation_map=True,
                **words,
            )
        except Exception as error:  # sep raises nothing more special
            if "pixel buffer full" not in str(error) or stack > plane.data.size:
                raise
    raise AssertionError("there is room for every pixel")


def _magnitudes(
    band: str, zero_point: float, flux: NDArray[np.float64], error: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Magnitudes and their errors, NaN where the flux is not positive."""
    positive = np.where(flux > 0, flux, np.nan)
    return {
        f"mag_{band}": zero_point - 2.5 * np.log10(positive),
        f"magerr_{band}": ERROR_TO_MAG * error / positive,
    }


def _kept(columns: dict[str, NDArray], schema: pa.Schema, settings: DetectionSettings) -> pa.Table:
    """The table of the sources that the settings keep, in order."""
    keep = ~columns["point_source"] if settings.no_stars else np.ones(len(columns["x"]), bool)
    for band, (low, high) in magnitude_ranges(settings.magnitudes).items():
        keep &= (columns[f"mag_{band}"] >= low) & (columns[f"mag_{band}"] <= high)
    rows = np.lexsort((columns["x"], columns["y"]))
    rows = rows[keep[rows]]
    arrays = [
        pa.array(columns[field.name][rows].astype(field.type.to_pandas_dtype()), from_pandas=True)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
