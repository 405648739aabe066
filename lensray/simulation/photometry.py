"""Colours of galaxies: magnitudes in the bands of a survey from g, r and i.

Magnitudes are AB. The colours are plausible, not fitted: the red sequence as it runs through g, r and i
between redshifts of 0.1 and 0.85, and star-forming galaxies as broad normal distributions.
"""

import numpy as np

from lensray.errors import InputError
from lensray.simulation.draws import Draws, Floats
from lensray.survey import Survey

BAND_WEIGHTS: dict[str, tuple[float, float, float]] = {
    "g": (1.0, 0.0, 0.0),
    "r": (0.0, 1.0, 0.0),
    "i": (0.0, 0.0, 1.0),
    "z": (0.0, -0.5, 1.5),
    "VIS": (0.0, 0.5, 0.5),
    "F814W": (0.0, 0.0, 1.0),
    "Y": (0.0, -0.85, 1.85),
    "J": (0.0, -1.2, 2.2),
    "H": (0.0, -1.6, 2.6),
}
"""Magnitude of a band as a mean of g, r and i; VIS spans r and i, F814W is close to i, z, Y, J and H go on from r - i:
a red galaxy of r - i = 0.85 has i - H = 1.4, a blue one of 0.18 has 0.3."""


def band_magnitudes(bands: tuple[str, ...], g: Floats, r: Floats, i: Floats) -> Floats:
    """AB magnitudes (N, bands) of objects of these g, r and i magnitudes.

    Raises
    ------
    InputError
        If a band has no entry in `BAND_WEIGHTS`.
    """
    unknown = [band for band in bands if band not in BAND_WEIGHTS]
    if unknown:
        raise InputError(f"no colours are known for band {unknown[0]!r}; simulate {', '.join(BAND_WEIGHTS)}")
    return np.stack([a * g + b * r + c * i for a, b, c in (BAND_WEIGHTS[band] for band in bands)], axis=1)


def coloured(survey: Survey, i: Floats, g_r: Floats, r_i: Floats) -> Floats:
    """AB magnitudes (N, bands) from the i magnitude and the colours g - r and r - i."""
    return band_magnitudes(survey.bands, i + r_i + g_r, i + r_i, i)


def red_colours(d: Draws, i: Floats) -> tuple[Floats, Floats]:
    """Red sequence: g - r and r - i of a redshift that grows with the magnitude."""
    z = np.clip(0.42 + 0.09 * (i - 19.6) + d.normal(0.0, 0.12), 0.08, 0.85)
    g_r = np.interp(z, [0.05, 0.2, 0.3, 0.4, 0.5, 0.85], [0.85, 1.15, 1.4, 1.6, 1.7, 1.7]) + d.normal(
        0.0, 0.06
    )
    r_i = np.interp(z, [0.05, 0.2, 0.4, 0.55, 0.7, 0.85], [0.36, 0.42, 0.6, 0.85, 1.1, 1.2]) + d.normal(
        0.0, 0.04
    )
    return g_r, r_i


def blue_colours(d: Draws) -> tuple[Floats, Floats]:
    """Star-forming galaxies: g - r and r - i."""
    return d.normal(0.3, 0.22, -0.15, 1.0), d.normal(0.18, 0.15, -0.15, 0.6)
