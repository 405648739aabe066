"""Which sources are points: those no larger than the stars of the same image.

On the plane of size and brightness stars form a narrow sequence of one half-light radius, below all galaxies that are
resolved; sources near it or below are taken for points (Kaiser, Squires & Broadhurst 1995, ApJ 449, 460, section 2; the
same cut in the plane of peak surface brightness and magnitude for COSMOS ACS: Leauthaud et al. 2007, ApJS 172, 219, section 3).
The sequence is looked for in each image, since seeing varies more than the cut allows.

Weaknesses: saturated stars are wider than the sequence and pass for galaxies; a galaxy or quasar that is not resolved is a
point, so that leaving out points leaves out close lensed quasars too.
"""

import numpy as np
from numpy.typing import NDArray

MARGIN = 1.1
"""Points are no larger than this times the sequence: stars of signal-to-noise over 20 scatter by 4%."""
LEAST_SNR = 20.0
"""Below it sizes tell too little (stars scatter by 8%), and nothing counts as a point."""
SEQUENCE_SNR = 50.0
"""Least signal-to-noise of the sources that the sequence is looked for among."""
MOFFAT_RADIUS = 0.64
"""Half-light radius of a Moffat PSF of β = 3 in units of its FWHM: 0.631, and 0.64 as measured in pixels."""
PLAUSIBLE = (0.4, 1.1)
"""The sequence's place in units of the FWHM, from a Gaussian in better seeing to wide wings in worse."""
FEWEST = 8
"""Stars in a sequence at least, where the FWHM says where it is."""
FEWEST_UNKNOWN = 10
"""Likewise where it does not."""


def point_sources(
    radius: NDArray[np.float64], signal_to_noise: NDArray[np.float64], fwhm: float | None
) -> NDArray[np.bool_]:
    """Whether each of N sources is a point.

    Parameters
    ----------
    radius : array, shape (N,)
        Half-light radii (any unit), NaN where unknown.
    signal_to_noise : array, shape (N,)
        Of the aperture that the radii were measured in.
    fwhm : float or None
        Full width at half maximum of the PSF, in the unit of `radius`, as far as it is known.

    Returns
    -------
    array of bool, shape (N,)
        False for all where neither a sequence of stars nor the FWHM tells the size of one.
    """
    bright = radius[(signal_to_noise >= SEQUENCE_SNR) & (radius > 0)]
    stellar = stellar_radius(bright, fwhm)
    if stellar is None:
        return np.zeros(len(radius), bool)
    return (radius <= MARGIN * stellar) & (signal_to_noise >= LEAST_SNR)


def stellar_radius(radius: NDArray[np.float64], fwhm: float | None) -> float | None:
    """Half-light radius of the stars among bright sources, shape (N,), or None.

    It is the median of an interval of the width `MARGIN`: of those that stand out of what is a little larger, and which
    next to nothing is smaller than, the fullest. Without any it is that of a Moffat PSF of the `fwhm`.
    """
    low, high = (0.0, np.inf) if fwhm is None else (limit * fwhm for limit in PLAUSIBLE)
    radius = np.sort(radius[(radius >= low) & (radius <= high)])
    below = np.arange(len(radius))
    ends = np.searchsorted(radius, MARGIN * radius, side="right")
    inside = ends - below
    above = np.searchsorted(radius, MARGIN**2 * radius, side="right") - ends
    fewest = FEWEST_UNKNOWN if fwhm is None else FEWEST
    stands_out = (inside >= fewest) & (below <= inside / 5) & (above <= inside / 2)
    if not stands_out.any():
        return None if fwhm is None else MOFFAT_RADIUS * fwhm
    first = np.argmax(np.where(stands_out, inside, 0))
    return float(np.median(radius[first : ends[first]]))
