"""Small mosaics on the sky for tests: FITS files with a WCS, of noise or of known sources."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SCALE = 0.168


def tan_wcs(
    shape: tuple[int, int],
    ra: float = 150.0,
    dec: float = 2.0,
    *,
    scale: float = SCALE,
    rotation_deg: float = 0.0,
    corner: tuple[float, float] = (0.0, 0.0),
) -> WCS:
    """A tangential projection whose reference point lies in the middle of `shape`, less `corner` (x, y) pixels."""
    height, width = shape
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(width + 1) / 2 - corner[0], (height + 1) / 2 - corner[1]]
    angle = np.deg2rad(rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-scale, scale]) / 3600
    return wcs


def write_mosaic(path: Path, pixels: np.ndarray, wcs: WCS | None = None, **cards: object) -> Path:
    """Write an image as astropy does; the name's ending says how it is packed (.fz, .gz or not)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header() if wcs is None else wcs.to_header(relax=True)
    header.update(cards)
    if path.suffix == ".fz":
        image = fits.CompImageHDU(pixels, header, compression_type="GZIP_2", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path, overwrite=True)
    else:
        fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
    return path


def noise(shape: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Pixels that are all different."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
