"""What the detector and the sky's traffic leave on a cutout, after the noise, without the PSF's help.

Masks and images have the shape (bands, H, W); a contaminant is put on one object at a time, since few have one.
"""

import numpy as np
from numpy.typing import NDArray

from lensray.simulation.scene import ARTEFACTS, Artefacts
from lensray.survey import Survey

Images = NDArray[np.float32]


def _line(size: int, angle: float, offset: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Pixel coordinates along and across a line through the frame at `offset` pixels from its middle."""
    axis = np.arange(size) - (size - 1) / 2
    x, y = axis[None, :], axis[:, None]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x - offset


def edge_side(size: int, angle: float, offset: float) -> NDArray[np.bool_]:
    """Pixels (H, W) beyond a detector's edge along a row or a column: less than half of the frame, never its middle."""
    axis = np.arange(size) - (size - 1) / 2
    place = (0.12 + 0.8 * abs(offset)) * size
    beyond = axis > place if offset > 0 else axis < -place
    along_row = np.cos(angle) ** 2 > 0.5
    return np.broadcast_to(beyond[:, None] if along_row else beyond[None, :], (size, size))


def noise_scale(artefacts: Artefacts, row: int, size: int) -> NDArray[np.floating] | None:
    """Factor (H, W) on the noise of a cutout whose exposures end inside it; None for other artefacts."""
    if ARTEFACTS[artefacts.code[row]] != "noise_step":
        return None
    columns = artefacts.columns
    side = edge_side(size, columns["angle"][row], columns["offset"][row])
    return np.where(side, 1.4 + columns["length"][row] * 4.0, 1.0)


def put_on(image: Images, artefacts: Artefacts, row: int, survey: Survey) -> Images:
    """Return the cutout with the artefact of that row: a cosmic ray, a satellite's trail or an empty edge."""
    columns = {name: float(values[row]) for name, values in artefacts.columns.items()}
    name = ARTEFACTS[artefacts.code[row]]
    band = np.arange(len(image)) == int(columns["band"])
    chosen = (band | bool(columns["all_bands"]))[:, None, None]
    sigma = np.asarray(survey.sky_sigma)[:, None, None]
    if name == "cosmic_ray":  # a particle hits one exposure, so one band
        light = band[:, None, None] * _cosmic_ray(image.shape[-1], columns)
    elif name == "satellite_trail":
        light = chosen * _trail(image.shape[-1], columns, survey)
    elif name == "edge":
        return np.where(
            chosen & edge_side(image.shape[-1], columns["angle"], columns["offset"]), np.float32(0), image
        )
    else:
        return image
    return (image + light * sigma).astype(np.float32)


def _cosmic_ray(size: int, columns: dict[str, float]) -> NDArray[np.floating]:
    """A streak one pixel wide, unblurred, in units of the sky's noise."""
    along, across = _line(size, columns["angle"], columns["offset"] * size * 0.6)
    inside = np.abs(along - columns["offset"] * size) < columns["length"] * size / 2
    return 3 * columns["strength"] * (inside & (np.abs(across) < 0.7))


def _trail(size: int, columns: dict[str, float], survey: Survey) -> NDArray[np.floating]:
    """A straight line across the frame, as wide as the PSF, in units of the sky's noise."""
    _, across = _line(size, columns["angle"], columns["offset"] * size)
    width = 0.5 * max(survey.psf_fwhm_arcsec) / survey.pixel_scale_arcsec
    return np.exp(-((across / width) ** 2) / 2) * min(columns["strength"], 40.0)


def saturate(image: Images, saturation: tuple[float, ...]) -> Images:
    """Clip at the saturation level, and bleed along the columns of a badly saturated core.

    The charge beyond the full well spills along the column, so the bleed is as long as the excess in units of
    the full well (at most the frame).
    """
    full = np.asarray(saturation, dtype=np.float32)[:, None, None]
    excess = np.maximum(image - full, 0.0)
    clipped = np.minimum(image, full)
    for band in range(len(image)):
        spill = excess[band].sum(0) / full[band, 0, 0]
        for column in np.flatnonzero(spill > 2.0):
            centre = int(np.average(np.arange(image.shape[1]), weights=excess[band, :, column]))
            half = int(min(spill[column], image.shape[1]) // 2)
            clipped[band, max(0, centre - half) : centre + half + 1, column] = full[band, 0, 0]
    return clipped
