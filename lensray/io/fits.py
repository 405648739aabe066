"""FITS images as NumPy arrays, with the position and pixel scale of their headers."""

import gzip
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from astropy.io import fits

_GZIP = b"\x1f\x8b"


def is_fits(data: bytes) -> bool:
    """Whether bytes are a FITS file, gzipped or not."""
    return data.startswith((b"SIMPLE  =", _GZIP))


@contextmanager
def open_hdus(data: bytes) -> Iterator[fits.HDUList]:
    """The HDUs of a FITS file's bytes, without the warnings about the small print that survey headers break."""
    if data.startswith(_GZIP):
        data = gzip.decompress(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            yield hdus


def native(pixels: np.ndarray) -> np.ndarray:
    """Pixels in the machine's byte order, uint8 where they are that, else float32 (FITS is big-endian)."""
    return np.ascontiguousarray(pixels, dtype=np.uint8 if pixels.dtype == np.uint8 else np.float32)


def image_hdus(hdus: fits.HDUList) -> list[Any]:
    """The HDUs that hold an image of two dimensions or more."""
    every: list[Any] = list(hdus)
    return [hdu for hdu in every if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2]


def read_planes(data: bytes, bands: int | None = None) -> np.ndarray:
    """The planes of a FITS file's bytes, shape (planes, height, width).

    The first image counts if it is a cube (first axis: bands). Of a file of `bands` images, all of one size,
    these are the planes; of any other file it is the first image alone.

    Raises
    ------
    ValueError
        If the file holds no image.
    """
    with open_hdus(data) as hdus:
        images = image_hdus(hdus)
        if not images:
            raise ValueError("the FITS file holds no image")
        first = native(images[0].data)
        if first.ndim == 2 and len(images) == bands and len({hdu.shape for hdu in images}) == 1:
            return np.stack([native(hdu.data) for hdu in images])
    return first.reshape(-1, *first.shape[-2:])


def sky_position(header: fits.Header, shape: Sequence[int]) -> tuple[float, float] | None:
    """Right ascension and declination (degrees, ICRS) of an image's centre; None without a celestial WCS."""
    wcs = _celestial_wcs(header)
    if wcs is None:
        return None
    height, width = shape[-2:]
    position = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2)
    position = position.icrs
    ra, dec = float(position.ra.deg), float(position.dec.deg)
    return (ra, dec) if np.isfinite(ra) and np.isfinite(dec) else None


def pixel_scale_arcsec(header: fits.Header) -> float | None:
    """Side of a pixel (arcsec; the root of its area); None without a celestial WCS."""
    from astropy.wcs.utils import proj_plane_pixel_area

    wcs = _celestial_wcs(header)
    return None if wcs is None else float(np.sqrt(proj_plane_pixel_area(wcs))) * 3600


def _celestial_wcs(header: fits.Header) -> Any:
    """The celestial part of a header's WCS; None if there is none, or none that astropy understands."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wcs = WCS(header)
            return wcs.celestial if wcs.has_celestial else None
        except Exception:
            # Broken headers fail in many ways; the image is good without a position.
            return None
